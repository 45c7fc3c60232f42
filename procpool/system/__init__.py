"""The way down: everything that the operating system is asked for.

The OS seam is a handful of functions, one module for each kind of system: `linux`, and `portable` (any POSIX system,
with psutil). PROCPOOL_SYSTEM=portable in the environment forces the latter. Their contract, told once:

`exit_notice(pid, tell) -> source or None`
    Have `tell(returncode)` called, when the child `pid` has exited, from whatever thread; the child is not reaped.
    The code is None where it cannot be known. What is returned, if anything, is to be served by the reader thread,
    and closed. Raises OSError or RuntimeError where that cannot be arranged.

`fork_count() -> int or None`
    A number that grows with every process that is made on the machine.

`newest_pid() -> int or None`
    The pid that was given last, in our pid namespace.

`pids() -> list[int]`
    The pids of all processes. Raises OSError when the system cannot be asked: an answer is never incomplete.

`look(pid) -> Entry or None`
    One process, or None if there is none. Raises OSError likewise.

`mark(pid) -> bytes or None`
    The value of PROCPOOL_ID in its environment; empty where it has none, or it may not be seen. None: the process is
    in the middle of an exec, when its environment reads empty; look again.

`is_process(pid) -> bool`
    Whether a number that `look` knows is that of a process, not of a thread.

`ignores(entry, number) -> bool`
    Whether a process is known to ignore a signal.

`namespace() -> int`
    A number of the pid namespace that we are in; 0 where there is no such thing.

`send(entry, *signals) -> bool`
    Send signals to exactly that process; False when it is gone. Raises PermissionError.

`evidence(tree, device) -> Evidence or None`
    What tells whether a tree waits for input from what `device()` returns; None where there is nothing that could.

`wait(entries, seconds)`
    Wait until all these processes have ended (they need not be children of ours), or so many seconds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable, Optional

from procpool.facts import NamedTuple, Protocol

if TYPE_CHECKING:
    from procpool.system.tree import Tree


class Entry(NamedTuple):
    """One process, as it was when it was looked at. Its identity is `(pid, start)`: a pid alone is used again."""

    pid: int
    parent: int
    group: int
    session: int
    start: float  # on the system's own scale: only good for comparing
    dead: bool  # a zombie, with no thread but the first
    kernel: bool = False  # a thread of the kernel's: never a member, and it has no environment


class Device(NamedTuple):
    """What a process reads from: a pipe (by file system and inode), or a terminal (0, and its device number)."""

    filesystem: int
    number: int


class Evidence(Protocol):
    """A witness of who waits for input. Not to be asked by two threads at once."""

    again: float  # how many seconds later it is worth asking again; 0: after any time
    blind: bool  # the system does not let us see

    def look(self, *, lenient: bool = False) -> Optional[bool]:
        """Say whether a thread of the tree is blocked, waiting for the device alone, and no other one runs.

        False: nobody is, or somebody runs. None: it cannot be told; if `lenient`, also: one waits beside others that
        run, such as the threads of a JVM, which never rest.
        """


class System(Protocol):
    """The seam, as a type; see the module's text."""

    def exit_notice(self, pid: int, tell: Callable[[Optional[int]], None]) -> Any:
        """See above."""

    def fork_count(self) -> Optional[int]:
        """See above."""

    def newest_pid(self) -> Optional[int]:
        """See above."""

    def pids(self) -> list[int]:
        """See above."""

    def look(self, pid: int) -> Optional[Entry]:
        """See above."""

    def mark(self, pid: int) -> Optional[bytes]:
        """See above."""

    def is_process(self, pid: int) -> bool:
        """See above."""

    def ignores(self, entry: Entry, number: int) -> bool:
        """See above."""

    def namespace(self) -> int:
        """See above."""

    def send(self, entry: Entry, *signals: int) -> bool:
        """See above."""

    def evidence(self, tree: Tree, device: Callable[[], Optional[Device]]) -> Optional[Evidence]:
        """See above."""

    def wait(self, entries: Iterable[Entry], seconds: float) -> None:
        """See above."""


def returncode(info: Any) -> int:
    """Return what `Popen.returncode` would be, from a `waitid` result."""
    code: int = info.si_status
    return code if info.si_code == os.CLD_EXITED else -code


def this_system() -> System:
    """Return the half of the seam that fits this machine."""
    if sys.platform == "linux" and os.environ.get("PROCPOOL_SYSTEM") != "portable":
        from procpool.system import linux

        return linux
    from procpool.system import portable

    return portable
