"""A web host that forks its workers after it has made the manager."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Callable

import procpool

manager = procpool.ProcessManager(max_per_agent=3, max_total=50, idle_secs=900, grace=1.0)


def app(environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], Any]) -> Iterable[bytes]:
    """Answer with a table of the tenant's processes."""
    tenant = manager.agent(environ["HTTP_X_TENANT"])
    try:
        tenant.start("python3", ["-i"], max_age_secs=3600)
    except procpool.LimitExceededError as error:
        start_response("429 Too Many Requests", [])
        return [f"{error.count} of {error.limit}".encode()]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{info.id} {info.state} {info.uptime_secs}\n".encode() for info in tenant.list()]
