"""The way down: everything that the operating system is asked for.

The OS seam is a handful of functions, one module for each kind of system: `portable` (any POSIX system, with
psutil).  Their contract, told once:

`exit_notice(pid, tell) -> source or None`
    Have `tell(returncode)` called once, when the child `pid` has exited, from whatever thread; the child is not
    reaped. The code is None where it cannot be known. What is returned, if anything, is to be served by the reader
    thread.  Raises OSError or RuntimeError where that cannot be arranged.

`processes() -> dict[int, Entry]`
    All processes of the machine that can be seen. Raises OSError when the system cannot be asked: an answer is
    never incomplete for lack of an fd.

`send(entry, signal) -> bool`
    Send a signal to exactly that process; False when it is gone. Raises PermissionError.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, Optional, Protocol


class Entry(NamedTuple):
    """One process, as it was when it was looked at. Its identity is `(pid, start)`: a pid alone is used again."""

    pid: int
    parent: int
    group: int
    session: int
    start: float  # on the system's own scale: only good for comparing
    dead: bool  # a zombie


class System(Protocol):
    """The seam, as a type."""

    def exit_notice(self, pid: int, tell: Callable[[Optional[int]], None]) -> Any:
        """See the module's text."""

    def processes(self) -> dict[int, Entry]:
        """See the module's text."""

    def send(self, entry: Entry, signal: int) -> bool:
        """See the module's text."""


def returncode(info: Any) -> int:
    """Return what `Popen.returncode` would be, from a `waitid` result."""
    import os

    code: int = info.si_status
    return code if info.si_code == os.CLD_EXITED else -code


def this_system() -> System:
    """Return the half of the seam that fits this machine."""
    from procpool.system import portable

    return portable
