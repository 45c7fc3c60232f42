"""The tools of `tools.py` as an MCP server: `procpool mcp`, over stdio. Needs the extra `mcp`.

One server process serves one client session: it has a manager of its own, and everything that it started is gone when
the client is, however that ends (P11).
"""

from __future__ import annotations

import functools
import json
import os
import signal
import threading
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Callable, NoReturn

import procpool
from procpool.adapters.tools import TOOLS, call_tool, refused, tools
from procpool.manager import Agent, ProcessManager

THREADS = 256  # calls at the same time, most of which wait: the usual 40 would hold up a `process_list`
LEAVE_SECS = 5.0  # how long the end may take where a client does not even read what is left
MISSING = "the MCP server needs the package mcp, for Python 3.10 or newer: pip install 'procpool[mcp]'"

Make = Callable[[], Agent]


def server(make_agent: Make, **options: Any) -> Any:
    """Return a `mcp.server.Server` with the tools.

    - `make_agent`: called once for each session, of stdio or in memory; its processes are ended with the session. Over
      HTTP the SDK makes one session of all clients: there every call is refused
    - `options`: of `call_tool`, such as `start_root`

    Raises ImportError if the package `mcp` is not there.
    """
    try:
        import anyio
        import anyio.to_thread
        import mcp_types as types
        from mcp.server import Server
    except ImportError as error:
        raise ImportError(MISSING) from error

    @asynccontextmanager
    async def session(_: object) -> AsyncIterator[dict[str, Any]]:
        agent = make_agent()
        try:
            # The limiter lets go of a call that is cancelled, the slot only of its thread.
            yield {"agent": agent, "limiter": anyio.CapacityLimiter(THREADS), "slots": threading.Semaphore(THREADS)}
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(agent.kill_all)

    async def list_tools(context: Any, request: Any) -> Any:
        table = tools("mcp")
        return types.ListToolsResult(
            tools=[
                types.Tool(name=one["name"], description=one["description"], input_schema=one["inputSchema"])
                for one in table
            ]
        )

    async def call(context: Any, request: Any) -> Any:
        mine = context.lifespan_context
        cancelled = threading.Event()
        if getattr(context, "request", None) is not None:  # the SDK makes one session of all that come over HTTP
            result = refused("not_authorized", "this server serves one client, over stdio or in memory, not HTTP")
        elif not mine["slots"].acquire(blocking=False):
            result = refused("limit", f"{THREADS} calls wait already: wait for several processes in one call")
        else:

            def run() -> dict[str, Any]:
                try:
                    return call_tool(
                        mine["agent"], request.name, request.arguments or {}, cancelled=cancelled.is_set, **options
                    )
                finally:
                    mine["slots"].release()

            try:
                # A call that is cancelled runs on in its thread; it takes no output then.
                result = await anyio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=mine["limiter"])
            finally:
                cancelled.set()
        text = types.TextContent(type="text", text=json.dumps(result))
        return types.CallToolResult(content=[text], structured_content=result, is_error=not result["ok"])

    return Server(
        "procpool",
        version=procpool.__version__,
        instructions=" ".join(tool.description for tool in TOOLS.values()),
        lifespan=session,
        on_list_tools=list_tools,
        on_call_tool=call,
    )


def serve(manager: ProcessManager, **options: Any) -> NoReturn:
    """Serve one client over stdin and stdout until it goes, or SIGTERM or SIGINT comes; then end all, and the process.

    Does not return: threads of calls that still wait would hold up the interpreter's end. `options` as in `server`.
    Raises ImportError if the package `mcp` is not there.
    """
    made = server(functools.partial(manager.agent, "client"), **options)
    import anyio
    from mcp.server.stdio import stdio_server

    async def run() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(_leave_at_signal, manager)
            async with stdio_server() as (reading, writing):
                try:
                    await made.run(reading, writing, made.create_initialization_options())
                finally:  # at once: what leaves `stdio_server` waits for a client that does not read, or does not go
                    _leave(manager, 0)

    try:
        anyio.run(run)
    except BaseException:  # whatever it is, it is shown, and all has to end
        traceback.print_exc()
    _leave(manager, 1)


async def _leave_at_signal(manager: ProcessManager) -> None:
    import anyio
    import anyio.to_thread

    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            await anyio.to_thread.run_sync(_leave, manager, 128 + number)


def _leave(manager: ProcessManager, code: int) -> NoReturn:
    """End all trees, then this process, whatever its threads do."""
    timer = threading.Timer(LEAVE_SECS, os._exit, (code or 1,))
    timer.daemon = True
    timer.start()
    try:
        manager.close()
    finally:
        os._exit(code)
