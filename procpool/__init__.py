"""Keep long-running processes from synchronous Python: start, talk, wait, and be sure that they are gone.

>>> import procpool
>>> with procpool.spawn("cat") as cat:
...     cat.ask("hello").text
'hello\\n'
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

from procpool.duty import renew_after_fork
from procpool.errors import (
    CommandNotFoundError,
    EndOfOutputError,
    LimitExceededError,
    ManagerClosedError,
    NotAuthorizedError,
    ProcessNotFoundError,
    ProcpoolError,
    StartError,
    StdinClosedError,
    TimeoutExpired,
    WriteTimeoutError,
)
from procpool.guard import Guard
from procpool.manager import Agent, Command, ProcessManager, StartOptions, Word
from procpool.orphans import Orphan, find_orphans, sweep_orphans
from procpool.process import Process
from procpool.snapshot import Exit, Line, Match, Output, ProcessInfo, Screen, Streams, Usage, Wake

if TYPE_CHECKING:
    from typing_extensions import Unpack

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "CommandNotFoundError",
    "EndOfOutputError",
    "Exit",
    "LimitExceededError",
    "Line",
    "ManagerClosedError",
    "Match",
    "NotAuthorizedError",
    "Orphan",
    "Output",
    "Process",
    "ProcessInfo",
    "ProcessManager",
    "ProcessNotFoundError",
    "ProcpoolError",
    "Screen",
    "StartError",
    "StartOptions",
    "StdinClosedError",
    "Streams",
    "TimeoutExpired",
    "Usage",
    "Wake",
    "WriteTimeoutError",
    "find_orphans",
    "spawn",
    "sweep_orphans",
]

_guard = Guard()  # guards _manager
renew_after_fork(_guard)
_manager: Optional[ProcessManager] = None


def spawn(command: Command, args: Sequence[Word] = (), **options: Unpack[StartOptions]) -> Process:
    """Start one process, without any limit, and return it; see `ProcessManager.start` for the options.

    All of them share one manager, which is closed when the interpreter ends.

    >>> import procpool
    >>> with procpool.spawn("echo", ["hello"]) as echo:
    ...     echo.wait()
    0
    """
    global _manager
    me = _guard.check()
    with _guard.lock:
        _guard.holder = me
        if _manager is None or _manager._pool.stale:
            _manager = ProcessManager(max_per_agent=None)
        manager = _manager
    return manager.spawn("me", command, args, **options)
