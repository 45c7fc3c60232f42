"""An agent loop without any model API: ask for the next call, run it, hand its result back.

python -m examples.plain_loop
"""

from __future__ import annotations

from examples.scripted import plan
from procpool import Agent, ProcessManager
from procpool.adapters.tools import call_tool


def run(agent: Agent) -> str:
    """Follow the plan to its end; return what the model says then."""
    model = plan()
    result = None
    while True:
        try:
            name, arguments = model.send(result)
        except StopIteration as end:
            return end.value
        result = call_tool(agent, name, arguments)


if __name__ == "__main__":
    with ProcessManager() as manager:
        print(run(manager.agent("model")))
