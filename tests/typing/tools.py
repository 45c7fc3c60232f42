"""Tool functions for a model: ids and text, and errors as text."""

from __future__ import annotations

from typing import Any, Callable

import procpool


def tools(agent: procpool.Agent) -> dict[str, Callable[..., dict[str, Any]]]:
    """Return the tools by name."""

    def start(command: list[str], cwd: str | None = None) -> dict[str, Any]:
        try:
            return {"id": agent.start(command, cwd=cwd, merge_stderr=True)}
        except procpool.StartError as error:
            return {"error": error.code, "text": str(error)}

    def read(process_id: str, cursor: str = "", wait: float = 0.0) -> dict[str, Any]:
        try:
            output = agent.read(process_id, since=cursor, timeout=wait)
        except procpool.ProcpoolError as error:
            return {"error": error.code, "text": str(error)}
        return {"text": output.clip(8000), "cursor": output.cursor, "alive": output.alive}

    def table() -> dict[str, Any]:
        return {"processes": [info.to_dict() for info in agent.list()]}

    return {"start": start, "read": read, "list": table}
