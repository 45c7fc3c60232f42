"""The same in the messages of OpenAI's chat completions; `complete` stands where the request would be.

python -m examples.openai_loop
"""

from __future__ import annotations

import json
from typing import Any, Callable

from examples.scripted import plan
from procpool import Agent, ProcessManager
from procpool.adapters.tools import call_tool, tools

Complete = Callable[..., dict[str, Any]]


def run(agent: Agent, complete: Complete) -> list[dict[str, Any]]:
    """Talk until the model asks for no more tools; return all messages."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Start the server and run the tests."}]
    while True:
        reply = complete(model="gpt", messages=messages, tools=tools("openai", strict=True))
        message = reply["choices"][0]["message"]
        messages.append(message)
        if not message.get("tool_calls"):
            return messages
        for asked in message["tool_calls"]:
            function = asked["function"]
            try:
                arguments = json.loads(function["arguments"])
            except json.JSONDecodeError:
                arguments = function["arguments"]  # call_tool says what is wrong with it
            result = call_tool(agent, function["name"], arguments)
            messages.append({"role": "tool", "tool_call_id": asked["id"], "content": json.dumps(result)})


def scripted() -> Complete:
    """Make a `complete` that needs no network: it follows the plan, and answers in the API's shape."""
    model = plan()
    number = 0

    def complete(messages: list[dict[str, Any]], **_: Any) -> dict[str, Any]:
        nonlocal number
        number += 1
        last = json.loads(messages[-1]["content"]) if messages[-1]["role"] == "tool" else None
        try:
            name, arguments = model.send(last)
            function = {"name": name, "arguments": json.dumps(arguments)}
            message: dict[str, Any] = {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": f"call_{number}", "type": "function", "function": function}],
            }
        except StopIteration as end:
            message = {"role": "assistant", "content": end.value}
        reason = "tool_calls" if "tool_calls" in message else "stop"
        choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
        envelope = {"id": f"chatcmpl-{number}", "object": "chat.completion", "created": number, "model": "gpt"}
        return {**envelope, "choices": [choice]}

    return complete


if __name__ == "__main__":
    with ProcessManager() as manager:
        print(run(manager.agent("model"), scripted())[-1]["content"])
