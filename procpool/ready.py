"""What `start(ready=...)` waits for."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any, Callable, Optional

from procpool.errors import EndOfOutputError, StartError
from procpool.output.search import Pattern, compile_patterns
from procpool.process import Process, Ready

Wait = Callable[[Process, Optional[float]], None]

ASK_AGAIN_SECS = 0.02  # a port, or a function, tells nobody when it changes
CONNECT_SECS = 1.0
HOST = "127.0.0.1"


def readiness(ready: Ready) -> Wait:
    """Return what waits until a process is ready: `wait(process, timeout)`.

    Raises TypeError or ValueError for what nobody can wait for, StartError if the port is taken already: then whoever
    has it would be taken for the process.
    """
    if isinstance(ready, (str, re.Pattern, list, tuple)):
        patterns = compile_patterns(ready, "ready")
        return lambda process, timeout: _expect(process, patterns, timeout)
    if isinstance(ready, int) and not isinstance(ready, bool):
        port = ready
        if not 0 < port < 65536:
            raise ValueError(f"ready must be a port between 1 and 65535: {port}")
        if _accepts(port):
            raise StartError(
                f"Failed to start process: port {port} is taken already",
                "something accepts connections on it, which would look like a process that is ready",
                command="",
                errno=None,
            )
        return lambda process, timeout: _ask(process, lambda _: _accepts(port), timeout, f"a server on port {port}")
    if callable(ready):
        return lambda process, timeout: _ask(process, ready, timeout, "a true answer of the ready function")
    raise TypeError(f"ready must be a pattern, a port or a function, not {type(ready).__name__}")


def _expect(process: Process, patterns: Sequence[Pattern], timeout: Optional[float]) -> None:
    try:
        process.expect(patterns, timeout)
    except EndOfOutputError as error:
        wanted = " or ".join(repr(re.compile(pattern).pattern) for pattern in patterns)
        raise _ended(process, f"a line that matches {wanted}") from error


def _ask(process: Process, ask: Callable[[Process], Any], timeout: Optional[float], what: str) -> None:
    deadline = None if timeout is None else time.monotonic() + timeout
    while not ask(process):
        pause = time.monotonic() + ASK_AGAIN_SECS
        process._child.wait_until(lambda: process._child.exited or None, pause)
        if not process.alive:
            raise _ended(process, what)
        if deadline is not None and time.monotonic() >= deadline:
            process._expired(what, timeout)


def _accepts(port: int) -> bool:
    try:
        import socket

        with socket.create_connection((HOST, port), timeout=CONNECT_SECS) as connection:
            # A free port may be chosen for our own end, which then is connected to itself.
            return bool(connection.getsockname() != connection.getpeername())
    except OSError:
        return False


def _ended(process: Process, what: str) -> StartError:
    end = "closed its output" if process.alive else "ended"
    return StartError(
        f"Failed to start process {process.args[0]!r}: it {end} before it was ready",
        process._describe(f"it was to give {what}"),
        command=process.args[0],
        errno=None,
    )
