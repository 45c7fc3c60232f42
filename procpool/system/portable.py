"""The OS seam for any POSIX system: a thread that waits for each exit, and psutil's view of the processes."""

from __future__ import annotations

import os
import signal as _signal
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Callable, Optional

from procpool.duty import start_thread
from procpool.system import Device, Entry, returncode

if TYPE_CHECKING:
    import psutil

    from procpool.system.tree import Tree

FIRST_PAUSE_SECS = 0.001
LONGEST_PAUSE_SECS = 0.05


def exit_notice(pid: int, tell: Callable[[Optional[int]], None]) -> None:
    """Wait for the exit in a thread of its own, which ends with it."""
    # Imported here, in the thread that starts things: a fork while another thread imports leaves half a module.
    import psutil  # noqa: F401

    start_thread(f"procpool-exit-{pid}", _wait, pid, tell)


def _wait(pid: int, tell: Callable[[Optional[int]], None]) -> None:
    try:
        info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:  # SIGCHLD is ignored, or a stranger reaped it
        tell(None)
    else:
        tell(returncode(info))


def fork_count() -> None:
    """There is no such number that all systems have."""


def newest_pid() -> None:
    """Nor this one."""


def pids() -> list[int]:
    """Ask psutil."""
    import psutil

    return psutil.pids()


def look(pid: int) -> Optional[Entry]:
    """Ask psutil, and the system for group and session."""
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            parent, start, dead = process.ppid(), process.create_time(), _is_dead(process)
        group, session = os.getpgid(pid), os.getsid(pid)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return None
    except (psutil.AccessDenied, PermissionError):  # macOS: another user's, and so not ours
        return None
    return Entry(pid, parent, group, session, start, dead)


def _is_dead(process: psutil.Process) -> bool:
    """Say whether all of a process has ended: on Linux a zombie may be but its first thread."""
    import psutil

    if process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
        return False
    try:
        return process.num_threads() <= 1
    except psutil.Error:  # macOS: of the dead it tells nothing
        return True


def mark(pid: int) -> bytes:
    """Ask psutil, for our own children alone: not every system shows environments, and it takes long."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.ppid() != os.getpid():
            return b""
        return os.fsencode(process.environ().get("PROCPOOL_ID", ""))
    except (psutil.Error, OSError):
        return b""


def is_process(pid: int) -> bool:
    """There are no threads in psutil's lists."""
    return True


def ignores(entry: Entry, number: int) -> bool:
    """Not every system tells."""
    return False


def namespace() -> int:
    """There are none."""
    return 0


def send(entry: Entry, *signals: int) -> bool:
    """Look at the start time once more, then send: psutil refuses a pid that was used again."""
    import psutil

    if entry.pid <= 1:
        raise ValueError(f"no signal is ever sent to pid {entry.pid}")
    try:
        process = psutil.Process(entry.pid)
        if process.create_time() != entry.start:
            return False
        for signal in signals:
            process.send_signal(_signal.Signals(signal))
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied as error:
        raise PermissionError(str(error)) from None
    return True


def evidence(tree: Tree, device: Callable[[], Optional[Device]]) -> None:
    """There is none that all systems have."""


def wait(entries: Iterable[Entry], seconds: float) -> None:
    """Look again and again: not every system tells when somebody else's child has ended."""
    deadline = time.monotonic() + seconds
    delay = FIRST_PAUSE_SECS
    living = list(entries)
    while living:
        left = deadline - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(delay, left))
        delay = min(delay * 2, LONGEST_PAUSE_SECS)
        living = [entry for entry in living if _is_alive(entry)]


def _is_alive(entry: Entry) -> bool:
    now = look(entry.pid)
    return now is not None and now.start == entry.start and not now.dead
