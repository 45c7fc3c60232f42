"""The OS seam for any POSIX system: a thread that waits for each exit, and psutil's view of the processes."""

from __future__ import annotations

import os
import signal as _signal
import threading
from typing import Callable, Optional

from procpool.system import Entry, returncode


def exit_notice(pid: int, tell: Callable[[Optional[int]], None]) -> None:
    """Wait for the exit in a thread of its own, which ends with it."""
    threading.Thread(target=_wait, args=(pid, tell), name=f"procpool-exit-{pid}", daemon=True).start()


def _wait(pid: int, tell: Callable[[Optional[int]], None]) -> None:
    try:
        info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:  # SIGCHLD is ignored, or a stranger reaped it
        tell(None)
    else:
        tell(returncode(info))


def processes() -> dict[int, Entry]:
    """Ask psutil for all processes, and the system for their groups and sessions."""
    import psutil

    table: dict[int, Entry] = {}
    for process in psutil.process_iter(["ppid", "create_time", "status"]):
        pid = process.pid
        try:
            group, session = os.getpgid(pid), os.getsid(pid)
        except ProcessLookupError:
            continue
        except PermissionError:  # macOS, another session
            group = session = 0
        info = process.info
        if info["create_time"] is None:
            continue
        dead = info["status"] in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        table[pid] = Entry(pid, info["ppid"] or 0, group, session, info["create_time"], dead)
    return table


def send(entry: Entry, signal: int) -> bool:
    """Look at the start time once more, then send: psutil refuses a pid that was used again."""
    import psutil

    if entry.pid <= 1:
        raise ValueError(f"no signal is ever sent to pid {entry.pid}")
    try:
        process = psutil.Process(entry.pid)
        if process.create_time() != entry.start:
            return False
        process.send_signal(_signal.Signals(signal))
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied as error:
        raise PermissionError(str(error)) from None
    return True
