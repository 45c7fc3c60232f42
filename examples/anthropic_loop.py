"""The same in Anthropic's messages; `create` stands where the request would be.

python -m examples.anthropic_loop
"""

from __future__ import annotations

import json
from typing import Any, Callable

from examples.scripted import plan
from procpool import Agent, ProcessManager
from procpool.adapters.tools import call_tool, tools

Create = Callable[..., dict[str, Any]]


def run(agent: Agent, create: Create) -> list[dict[str, Any]]:
    """Talk until the model asks for no more tools; return all messages."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Start the server and run the tests."}]
    while True:
        reply = create(model="claude", max_tokens=1024, messages=messages, tools=tools("anthropic"))
        messages.append({"role": "assistant", "content": reply["content"]})
        if reply["stop_reason"] != "tool_use":
            return messages
        results = []
        for block in reply["content"]:
            if block["type"] == "tool_use":
                result = call_tool(agent, block["name"], block["input"])
                results.append(
                    {
                        "type": "tool_result",
                        "tool_use_id": block["id"],
                        "content": json.dumps(result),
                        "is_error": not result["ok"],
                    }
                )
        messages.append({"role": "user", "content": results})


def scripted() -> Create:
    """Make a `create` that needs no network: it follows the plan, and answers in the API's shape."""
    model = plan()
    number = 0

    def create(messages: list[dict[str, Any]], **_: Any) -> dict[str, Any]:
        nonlocal number
        number += 1
        content = messages[-1]["content"]
        last = json.loads(content[0]["content"]) if isinstance(content, list) else None
        try:
            name, arguments = model.send(last)
            block: dict[str, Any] = {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": arguments}
            reason = "tool_use"
        except StopIteration as end:
            block, reason = {"type": "text", "text": end.value}, "end_turn"
        return {
            "id": f"msg_{number}",
            "type": "message",
            "role": "assistant",
            "model": "claude",
            "content": [block],
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }

    return create


if __name__ == "__main__":
    with ProcessManager() as manager:
        print(run(manager.agent("model"), scripted())[-1]["content"][0]["text"])
