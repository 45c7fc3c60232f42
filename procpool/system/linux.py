"""The OS seam for Linux: pidfds, and one look at /proc for each process. Standard library only."""

from __future__ import annotations

import errno
import os
import select
import signal as _signal
import time
from collections.abc import Iterable
from io import FileIO
from itertools import islice
from typing import TYPE_CHECKING, Callable, Optional

from procpool.duty import pidfd
from procpool.system import Device, Entry, Evidence, returncode

if TYPE_CHECKING:
    from procpool.system.tree import Tree

STAT_BYTES = 2048
# From linux/pidfd.h: an ioctl on a struct that begins with a mask and, in its first version, ends with the exit status.
PIDFD_GET_INFO = 0xC040FF0B
PIDFD_INFO_EXIT = 1 << 3
PIDFD_INFO_BYTES = 64
MOST_PIDFDS = 128  # a process may have few fds (ulimit -n)
NO_FDS_SECS = 0.02
LONGEST_SECS = 86_400.0
ENVIRON_BYTES = 1 << 21  # the most that the kernel gives to arguments and environment
PF_EXITING = 0x4  # these two from linux/sched.h
PF_KTHREAD = 0x200000


class ExitNotice:
    """A pidfd, which the reader thread waits for: it can be read when the process has exited."""

    def __init__(self, pid: int, tell: Callable[[Optional[int]], None]) -> None:
        self._file = pidfd(pid)
        self.fd = self._file.fileno()
        self._tell = tell

    def ready(self) -> None:
        """Ask for the exit code, without reaping."""
        try:
            info = os.waitid(os.P_PIDFD, self.fd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:  # SIGCHLD is ignored, or a stranger reaped it
            self._tell(_code_of_the_reaped(self.fd))
        else:
            if info is not None:
                self._tell(returncode(info))

    def fail(self, error: BaseException) -> None:
        """Count the exit as seen, its code as unknown."""
        self._tell(None)

    def close(self) -> None:
        """Close the pidfd."""
        self._file.close()


def _code_of_the_reaped(fd: int) -> Optional[int]:
    """Ask for the exit code of a process that was reaped already: Linux 6.15 keeps it with the pidfd."""
    import fcntl
    import struct

    info = bytearray(struct.pack("Q", PIDFD_INFO_EXIT).ljust(PIDFD_INFO_BYTES, b"\0"))
    try:
        fcntl.ioctl(fd, PIDFD_GET_INFO, info)
    except OSError:
        return None
    if not struct.unpack_from("Q", info)[0] & PIDFD_INFO_EXIT:
        return None
    return os.waitstatus_to_exitcode(struct.unpack_from("i", info, PIDFD_INFO_BYTES - 4)[0])


def exit_notice(pid: int, tell: Callable[[Optional[int]], None]) -> Optional[ExitNotice]:
    """Watch a pidfd; a thread, where the kernel has none."""
    try:
        return ExitNotice(pid, tell)
    except ProcessLookupError:  # SIGCHLD is ignored, and it is gone already
        tell(None)
        return None
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        from procpool.system import portable  # an old kernel

        portable.exit_notice(pid, tell)
        return None


def fork_count() -> int:
    """Read how many processes and threads were ever made on this machine."""
    stat = read_file("/proc/stat", 1 << 16)
    begin = stat.index(b"\nprocesses ") + 11
    return int(stat[begin : stat.index(b"\n", begin)])


def newest_pid(read: Optional[Callable[[str], bytes]] = None) -> int:
    """Read the pid, in our namespace, that was given last; `read` reads a file."""
    return int((read or read_file)("/proc/loadavg").split()[4])


def pids() -> list[int]:
    """List /proc."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def look(pid: int) -> Optional[Entry]:
    """Read one process's state."""
    fields = _fields(pid)
    if fields is None:
        return None
    return Entry(
        pid,
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        start=float(fields[19]),
        dead=_is_dead(fields),
        kernel=bool(int(fields[6]) & PF_KTHREAD),
    )


def _is_dead(fields: list[bytes]) -> bool:
    """Say whether a process has ended: its first thread has, which the state is of, and there is no other one."""
    return fields[0] in b"ZX" and int(fields[17]) <= 1


def _fields(pid: int) -> Optional[list[bytes]]:
    """Read what `/proc/PID/stat` has behind the name, from field 3 on; see proc(5)."""
    try:
        stat = read_file(f"/proc/{pid}/stat", STAT_BYTES)
    except (FileNotFoundError, ProcessLookupError):
        return None
    except PermissionError:  # /proc is mounted with hidepid: what we may not see is not ours
        return None
    # The name, in parentheses, may hold anything; what follows is numbers.
    return stat[stat.rindex(b")") + 2 :].split()


def mark(pid: int) -> Optional[bytes]:
    """Return the value of PROCPOOL_ID in a process's environment; None: it cannot be told, look again."""
    environ = _environ(f"/proc/{pid}")
    if not environ:
        fields = _fields(pid)
        if fields is not None and fields[0] in b"ZX" and not _is_dead(fields):  # others have what its first thread had
            environ = next(filter(None, map(_environ, _tasks(pid))), b"")
        elif _execs(fields):
            return None
    if environ.startswith(b"PROCPOOL_ID="):
        begin = 12
    else:
        begin = environ.find(b"\0PROCPOOL_ID=") + 13
        if begin < 13:
            return b""
    end = environ.find(b"\0", begin)
    return environ[begin : end if end >= 0 else None]


def _environ(folder: str) -> bytes:
    """Read the environment of a process or thread; empty: it has none, or is gone, or another user's."""
    try:
        return read_file(f"{folder}/environ", ENVIRON_BYTES)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        return b""


def _tasks(pid: int) -> list[str]:
    try:
        return [f"/proc/{pid}/task/{name}" for name in os.listdir(f"/proc/{pid}/task")]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _execs(fields: Optional[list[bytes]]) -> bool:
    """Say whether a process whose environment read empty becomes another program, or just has.

    Else it has none, or is about to end. The last thing that an exec notes is where its code begins; the ends of the
    environment are the same, for a moment, before.
    """
    if fields is None or fields[0] in b"ZX" or int(fields[6]) & PF_EXITING:
        return False
    start_code, begin, end = fields[23], fields[47], fields[48]
    return start_code == b"0" or begin != end


def is_process(pid: int) -> bool:
    """Say whether a number is a process's: /proc opens for the numbers of threads, too."""
    try:
        pidfd(pid).close()
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        return error.errno not in (errno.ENOENT, errno.EINVAL, errno.ESRCH)
    return True


def ignores(entry: Entry, number: int) -> bool:
    """Read its mask of ignored signals."""
    try:
        status = read_file(f"/proc/{entry.pid}/status")
    except (FileNotFoundError, ProcessLookupError):
        return False
    begin = status.index(b"\nSigIgn:") + 8
    return bool(int(status[begin : status.index(b"\n", begin)], 16) >> number - 1 & 1)


def namespace() -> int:
    """Return the inode of the namespace."""
    return os.stat("/proc/self/ns/pid").st_ino


def send(entry: Entry, *signals: int) -> bool:
    """Pin the process with a pidfd, look whether it is still the same, then send."""
    if entry.pid <= 1:
        raise ValueError(f"no signal is ever sent to pid {entry.pid}")
    try:
        file = pidfd(entry.pid)
    except ProcessLookupError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        return _send_unpinned(entry, signals)
    try:
        now = look(entry.pid)
        if now is None or now.start != entry.start:
            return False
        for signal in signals:
            _signal.pidfd_send_signal(file.fileno(), signal)
    except ProcessLookupError:
        return False
    finally:
        file.close()
    return True


def evidence(tree: Tree, device: Callable[[], Optional[Device]]) -> Optional[Evidence]:
    """Look at what its threads are blocked in, where the numbers of the system calls are known."""
    from procpool.system.evidence import CALLS, Witness

    calls = CALLS.get(os.uname().machine)
    found = None if calls is None else device()
    return None if calls is None or found is None else Witness(tree, found, calls)


def wait(entries: Iterable[Entry], seconds: float) -> None:
    """Poll pidfds: each can be read as soon as its process has ended. Of very many, the first are waited for."""
    deadline = time.monotonic() + seconds
    files: list[FileIO] = []
    ends = select.poll()
    starved = False
    try:
        for entry in islice(entries, MOST_PIDFDS):
            try:
                files.append(pidfd(entry.pid))
            except ProcessLookupError:
                continue
            except OSError as error:
                if error.errno in (errno.ENOSYS, errno.EPERM):
                    from procpool.system import portable  # an old kernel

                    return portable.wait(entries, seconds)
                starved = True  # there are no more fds: those that there are will do
                break
            ends.register(files[-1], select.POLLIN)
        living = len(files)
        left = seconds
        if starved and not files:
            time.sleep(min(left, NO_FDS_SECS))
        while living and left > 0:
            for fd, _ in ends.poll(min(left, LONGEST_SECS) * 1000):
                ends.unregister(fd)
                living -= 1
            left = deadline - time.monotonic()
    finally:
        for file in files:
            file.close()


def _send_unpinned(entry: Entry, signals: tuple[int, ...]) -> bool:
    now = look(entry.pid)
    if now is None or now.start != entry.start:
        return False
    try:
        for signal in signals:
            os.kill(entry.pid, signal)
    except ProcessLookupError:
        return False
    return True


def read_file(path: str, size: int = STAT_BYTES) -> bytes:
    """Read a file of /proc. Raises OSError."""
    file = FileIO(path)
    try:
        data = file.read(size)
        if len(data) < 4096:  # the kernel gives what it has, a page at a time for some files
            return data
        parts = [data]
        while data:
            data = file.read(size)
            parts.append(data)
        return b"".join(parts)
    finally:
        file.close()
