"""Who waits for input: what the Linux kernel tells of the system calls that a tree's threads are blocked in.

Matched by device, not by fd number: programs re-open their terminal, also as /dev/tty. The fds that a `poll` or
`select` waits for are in the memory of its process, those of an epoll in its fdinfo.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from io import FileIO
from typing import Optional

from procpool.facts import NamedTuple
from procpool.system import Device, linux
from procpool.system.linux import read_file
from procpool.system.tree import Tree, survey

TTY = os.makedev(5, 0)  # /dev/tty: the terminal of whoever asks
POLL_IN = 0x0001 | 0x0040  # what is to be read; more is told of it, such as its end, but no input
MOST_POLLED = 1024
LOWEST_STACK = 1 << 32  # below it a program has 32 bits, and other numbers of system calls
STEADY_SECS = 0.01  # how long several threads have to stand still: one that only naps is at work
STEADY_LOOKS = 4  # and at how many looks: where a CPU was taken from the machine for a while, nobody ran
TIMED_SECS = 0.02  # and how long a wait with a timeout
SHORT_SECS = 0.1  # a shorter timeout is for a look now and then (vim's 25 ms, for the rest of a key): it tells nothing
STATUS_BYTES = 4096
WRAP_SECS = 0.1  # no machine gives all its pids within that, so that the last one would be the same again
MEMORY_BYTES = 8 * MOST_POLLED

# From linux/netlink.h, linux/sock_diag.h and linux/unix_diag.h: who is at the other end of a socket pair.
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST = 1
UDIAG_SHOW_PEER = 4
UNIX_DIAG_PEER = 2
# From linux/time.h and linux/futex.h.
TIMER_ABSTIME = 1
FUTEX_COMMANDS = 0x7F
FUTEX_WAIT = 0
FUTEX_WAIT_BITSET = 9
FUTEX_CLOCK_REALTIME = 256


class Calls(NamedTuple):
    """The numbers of the system calls of one architecture."""

    read: tuple[int, ...]
    select: tuple[int, ...]  # with a pointer to seconds and microseconds
    pselect: tuple[int, ...]  # with a pointer to seconds and nanoseconds
    poll: tuple[int, ...]  # with milliseconds
    ppoll: tuple[int, ...]
    epoll: tuple[int, ...]  # with milliseconds
    epoll_pwait2: tuple[int, ...]
    nanosleep: tuple[int, ...]
    clock_nanosleep: tuple[int, ...]
    futex: tuple[int, ...]
    untold: tuple[int, ...]  # restart_syscall (behind a stop), splice, io_uring_enter: what for is not to be seen


CALLS = {
    "x86_64": Calls(
        read=(0, 19), select=(23,), pselect=(270,), poll=(7,), ppoll=(271,), epoll=(232, 281), epoll_pwait2=(441,),
        nanosleep=(35,), clock_nanosleep=(230,), futex=(202,), untold=(219, 275, 426),
    ),
    "aarch64": Calls(
        read=(63, 65), select=(), pselect=(72,), poll=(), ppoll=(73,), epoll=(22,), epoll_pwait2=(441,),
        nanosleep=(101,), clock_nanosleep=(115,), futex=(98,), untold=(128, 76, 426),
    ),
}  # fmt: skip


class Thread(NamedTuple):
    """One thread of a tree."""

    pid: int
    tid: int


class Wait(NamedTuple):
    """What a thread is blocked in, if it is a wait for fds."""

    fds: tuple[int, ...]  # what it would read from
    seconds: Optional[float] = None  # the timeout
    others: tuple[int, ...] = ()  # what it waits for otherwise: room to write, exceptions


class Witness:
    """See `system.Evidence`.

    The members of the tree and their threads are listed again only when the machine has made another process or thread:
    its fork counter has moved or, where we looked just now, which is cheaper, the pid that was given last.
    """

    def __init__(self, tree: Tree, device: Device, calls: Calls) -> None:
        self.again = 0.0
        self.blind = False
        self._tree = tree
        self._device = device
        self._calls = calls
        self._forks = self._newest = -1
        self._compared = 0.0  # when these two were last seen to stand still
        self._threads: list[Thread] = []
        self._last: Optional[Thread] = None  # the one that waited the last time
        self._files: dict[str, FileIO] = {}  # what is read again and again, most of it about that one
        self._still: Optional[tuple[tuple[Thread, bytes], ...]] = None  # how often each thread had run,
        self._since = 0.0  # since when,
        self._looks = 0  # and at how many looks before this one
        self._lenient = False

    def look(self, *, lenient: bool = False) -> Optional[bool]:
        """See `system.Evidence`."""
        self._lenient = lenient
        found = self._look()
        self._looks += 1  # one, however often it was judged
        return found

    def _look(self) -> Optional[bool]:
        if time.monotonic() - self._compared >= WRAP_SECS and self._outdated():
            self._list()
        found = self._judge(counted=len(self._threads) > 1)
        if not self._outdated():
            return found
        self._list()
        found = self._judge()
        if found and self._outdated():
            # 1 we listed the threads; 2 the reader made another one, or a process, which runs; 3 it waits, as we saw.
            # If nobody has run since, whoever was made before is in the next list.
            before = self._still
            self._list()
            found = self._judge()
            if found and before != self._still:
                self.again = STEADY_SECS / STEADY_LOOKS
                return False
        return found

    def _judge(self, *, counted: bool = True) -> Optional[bool]:
        """Look at each thread; not `counted`: it is alone, and how often it ran is not asked if it need not stand."""
        begin = time.monotonic()
        self.again = 0.0
        self.blind = False
        last = self._last
        try:
            call = None if last is None else self._call(last)
        except PermissionError:
            call = last = None  # it comes again, in its turn
        if call == [] and not self._lenient:
            self._still = None
            return False
        busy = False
        runs: list[tuple[Thread, bytes]] = []
        waiting: Optional[Wait] = None
        unclear = False
        for thread in sorted(self._threads, key=lambda thread: thread != last):
            state, switches = self._status(thread) if counted else (self._state(thread), b"")
            if not state or state in b"ZX":
                continue  # it is gone
            if state in b"RD":
                busy = True
                if self._lenient:
                    continue
                break
            runs.append((thread, switches))
            if state == b"S":
                try:
                    its_call = call if thread == last else self._call(thread)
                    found = self._stdin_wait(thread, its_call)
                except PermissionError:
                    unclear = True
                    self.blind = self.blind or thread.pid == self._tree.root
                    continue
                if isinstance(found, Wait):
                    if waiting is None or waiting.seconds is not None:
                        waiting = found
                        self._remember(thread)
                elif found is None:
                    unclear = True
                elif self._naps(thread, its_call):
                    busy = True
                    if not self._lenient:
                        break
        if busy:
            self._still = None
            return None if waiting is not None and self._lenient else False
        if waiting is None:
            self._still = None
            return None if unclear else False
        if waiting.seconds is not None and not counted:
            return self._judge()
        long_enough = TIMED_SECS if waiting.seconds is not None else STEADY_SECS if len(runs) > 1 else 0.0
        return self._stands(tuple(runs), long_enough, begin) or (None if self._lenient else False)

    def _stands(self, runs: tuple[tuple[Thread, bytes], ...], long_enough: float, begin: float) -> bool:
        """Say whether no thread has run for long enough; a count of context switches shows each time that one did.

        Counted is from the end of the first look to the `begin` of this one: each may itself take long.
        """
        if runs != self._still:
            self._still, self._since, self._looks = runs, time.monotonic(), 0
        if not long_enough or (begin - self._since >= long_enough and self._looks + 1 >= STEADY_LOOKS):
            return True
        self.again = long_enough / (STEADY_LOOKS - 1)
        return False

    def _outdated(self) -> bool:
        """Say whether there may be threads that are not in the list."""
        now = time.monotonic()
        if now - self._compared < WRAP_SECS:
            same = linux.newest_pid(self._read_again) == self._newest
        else:
            same = linux.fork_count() == self._forks
            self._newest = linux.newest_pid() if same else -1
            same = same and linux.fork_count() == self._forks
        if same:
            self._compared = now
        return not same

    def _list(self) -> None:
        now = time.monotonic()
        newest = linux.newest_pid()
        forks = linux.fork_count()
        members = survey([self._tree], linux, forks).get(self._tree, [])
        self._threads = [
            Thread(entry.pid, int(name)) for entry in members for name in _listdir(f"/proc/{entry.pid}/task")
        ]
        self._forks, self._newest, self._compared = forks, newest, now

    def _remember(self, thread: Thread) -> None:
        if thread != self._last:
            self._close()
            self._last = thread

    def _close(self) -> None:
        while self._files:
            self._files.popitem()[1].close()

    __del__ = _close

    def _read(self, thread: Thread, name: str) -> bytes:
        """Read a file of a thread. Raises OSError."""
        path = f"/proc/{thread.pid}/task/{thread.tid}/{name}"
        return self._read_again(path) if thread == self._last else read_file(path, STATUS_BYTES)

    def _read_again(self, path: str) -> bytes:
        file = self._files.get(path)
        if file is None:
            file = self._files[path] = FileIO(path)
        try:
            return os.pread(file.fileno(), STATUS_BYTES, 0)
        except ProcessLookupError:  # it is gone: another one may get its number
            self._close()
            raise

    def _status(self, thread: Thread) -> tuple[bytes, bytes]:
        """Return a thread's state, one letter (empty: it is gone), and its two counts of context switches."""
        try:
            text = self._read(thread, "status")
        except (FileNotFoundError, ProcessLookupError):
            return b"", b""
        begin = text.index(b"\nState:\t") + 8
        return text[begin : begin + 1], text[text.index(b"\nvoluntary_ctxt_switches:") :]

    def _state(self, thread: Thread) -> bytes:
        """Return a thread's state alone, in half the time."""
        try:
            text = self._read(thread, "stat")
        except (FileNotFoundError, ProcessLookupError):
            return b""
        begin = text.rindex(b")") + 2  # the name before may hold anything
        return text[begin : begin + 1]

    def _call(self, thread: Thread) -> Optional[list[int]]:
        """Return the number of the system call that a thread is in, its arguments and its stack pointer.

        Empty: it runs; None: it is gone. Raises PermissionError.
        """
        try:
            words = self._read(thread, "syscall").split()
        except (FileNotFoundError, ProcessLookupError):
            folder = f"/proc/{thread.pid}/task/{thread.tid}"
            if os.path.exists(f"{folder}/status") and not os.path.exists("/proc/self/syscall"):
                raise PermissionError(errno.EPERM, "the kernel was built without it", folder) from None
            return None
        if not words or words[0] == b"running":
            return []
        return [int(words[0]), *[int(word, 16) for word in words[1:]]]

    def _stdin_wait(self, thread: Thread, call: Optional[list[int]]) -> object:
        """Return the `Wait` of a thread that waits for the device alone; None: it cannot be told; False: it does not.

        What only the process itself can ring, such as an event loop's pipe to itself, does not count.
        """
        if not call or len(call) < 9:
            return False
        polls = call[0] in self._calls.poll or call[0] in self._calls.ppoll
        if call[-2] < LOWEST_STACK or call[0] in self._calls.untold or (polls and call[2] > MOST_POLLED):
            return None
        try:
            wait = self._wait_for(thread, call)
            if wait is None or not wait.fds:
                return False
            ours = [self._is_device(thread, fd) for fd in wait.fds]
            if not any(ours) or not self._in_foreground(thread):
                return False
            if wait.seconds is not None and wait.seconds < SHORT_SECS:
                return None
            others = {fd for fd, is_ours in zip(wait.fds, ours) if not is_ours}.union(wait.others)
            others.difference_update(fd for fd, is_ours in zip(wait.fds, ours) if is_ours)
            return wait if all(self._is_private(thread, fd) for fd in others) else None
        except (FileNotFoundError, ProcessLookupError, ValueError, struct.error):
            return False  # it went on while we looked
        except PermissionError:
            raise
        except OSError as error:
            if error.errno in (errno.EIO, errno.EFAULT):  # its memory is gone, or that of its call
                return False
            raise

    def _naps(self, thread: Thread, call: Optional[list[int]]) -> bool:
        """Say whether a thread will run again by itself in a moment, though it stands still now.

        Its counts of context switches may stand still as well: for as long as the CPU that is to wake it was taken from
        the machine.
        """
        if not call or len(call) < 9:
            return False
        try:
            left = self._time_left(thread, call)
        except (OSError, ValueError, struct.error):
            return False  # it went on while we looked, or must not be looked into
        return left is not None and left < SHORT_SECS

    def _time_left(self, thread: Thread, call: list[int]) -> Optional[float]:
        """Return how long a thread sleeps yet, or waits at the most; None: for ever."""
        number, first, second, third, fourth = call[:5]
        if number in self._calls.nanosleep:
            return _timespec(thread.tid, first)
        if number in self._calls.clock_nanosleep:
            left = _timespec(thread.tid, third)
            return left if left is None or not second & TIMER_ABSTIME else left - time.clock_gettime(_int(first))
        if number in self._calls.futex:
            left = _timespec(thread.tid, fourth) if second & FUTEX_COMMANDS in (FUTEX_WAIT, FUTEX_WAIT_BITSET) else None
            if left is None or second & FUTEX_COMMANDS == FUTEX_WAIT:
                return left
            clock = time.CLOCK_REALTIME if second & FUTEX_CLOCK_REALTIME else time.CLOCK_MONOTONIC
            return left - time.clock_gettime(clock)
        wait = self._wait_for(thread, call)
        return None if wait is None else wait.seconds

    def _wait_for(self, thread: Thread, call: list[int]) -> Optional[Wait]:
        number, first, second, third, fourth, fifth = call[:6]
        calls = self._calls
        if number in calls.read:
            return Wait((_int(first),))
        if number in calls.poll or number in calls.ppoll:
            polled = struct.iter_unpack("ihh", _memory(thread.tid, first, 8 * min(second, MOST_POLLED)))
            seconds = _milliseconds(third) if number in calls.poll else _timespec(thread.tid, third)
            return _wait([(fd, events) for fd, events, _ in polled if fd >= 0], seconds)
        if number in calls.select or number in calls.pselect:
            readable, writable, exceptional = (_fd_set(thread.tid, at, _int(first)) for at in (second, third, fourth))
            seconds = _timespec(thread.tid, fifth, 1e6 if number in calls.select else 1e9)
            return Wait(readable, seconds, writable + exceptional)
        if number in calls.epoll or number in calls.epoll_pwait2:
            seconds = _milliseconds(fourth) if number in calls.epoll else _timespec(thread.tid, fourth)
            return _wait(_epoll_fds(thread.tid, _int(first)), seconds)
        return None

    def _is_device(self, thread: Thread, fd: int) -> bool:
        status = os.stat(f"/proc/{thread.tid}/fd/{fd}")
        if self._device.filesystem:
            return (status.st_dev, status.st_ino) == self._device
        if status.st_rdev == TTY:
            return self._terminal(thread)[0] == self._device.number
        return status.st_rdev == self._device.number

    def _is_private(self, thread: Thread, fd: int) -> bool:
        """Say whether what an fd tells can only come from the process itself, or from the clock."""
        name = os.readlink(f"/proc/{thread.tid}/fd/{fd}")
        kind, _, number = name.partition(":")
        if kind == "anon_inode":
            return number in ("[eventfd]", "[timerfd]", "[signalfd]", "[io_uring]")
        if kind == "pipe":
            ends = {_reads(thread.tid, end) for end in _fds_of(thread.tid, name)}
            return len(ends) == 2 and not self._have_others(thread, name)
        if kind == "socket":
            peer = f"socket:[{_peer_of(int(number.strip('[]')))}]"  # if there is none, nobody has it
            return bool(_fds_of(thread.tid, peer)) and not self._have_others(thread, peer)
        return False

    def _have_others(self, thread: Thread, name: str) -> bool:
        """Say whether another process of the tree has what a link in `fd` names, or cannot be looked into."""
        try:
            return any(_fds_of(pid, name) for pid in {other.pid for other in self._threads} if pid != thread.pid)
        except PermissionError:
            return True

    def _in_foreground(self, thread: Thread) -> bool:
        """Say whether a terminal gives input to the thread's group; always of a pipe."""
        if self._device.filesystem:
            return True
        number, group, foreground = self._terminal(thread)
        return number != self._device.number or group == foreground

    def _terminal(self, thread: Thread) -> tuple[int, int, int]:
        """Return the number of a process's terminal, its group and that terminal's foreground group."""
        stat = read_file(f"/proc/{thread.pid}/stat")
        fields = stat[stat.rindex(b")") + 2 :].split()
        number = int(fields[4])
        # The kernel's own form of a device number, from linux/kdev_t.h.
        return os.makedev(number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00), int(fields[2]), int(fields[5])


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except (FileNotFoundError, ProcessLookupError):
        return []


def _int(word: int) -> int:
    """Return the C int that a register holds."""
    word &= 0xFFFFFFFF
    return word - (1 << 32) if word >> 31 else word


def _milliseconds(word: int) -> Optional[float]:
    return None if _int(word) < 0 else _int(word) / 1000


def _timespec(pid: int, address: int, parts: float = 1e9) -> Optional[float]:
    """Read a timeout: seconds, and parts of one; None where there is none."""
    if not address:
        return None
    seconds, fraction = struct.unpack("qq", _memory(pid, address, 16))
    return float(seconds + fraction / parts)


def _memory(pid: int, address: int, size: int) -> bytes:
    if size > MEMORY_BYTES:
        raise ValueError(size)
    with FileIO(f"/proc/{pid}/mem") as file:
        return os.pread(file.fileno(), size, address)


def _wait(polled: Iterable[tuple[int, int]], seconds: Optional[float]) -> Wait:
    """Return the `Wait` for some fds, each with the events that are waited for."""
    polled = list(polled)
    read = tuple(fd for fd, events in polled if events & POLL_IN)
    return Wait(read, seconds, tuple(fd for fd, events in polled if not events & POLL_IN))


def _fd_set(pid: int, address: int, size: int) -> tuple[int, ...]:
    if not address:
        return ()
    bits = int.from_bytes(_memory(pid, address, -(-size // 64) * 8), "little")
    return tuple(fd for fd in range(size) if bits >> fd & 1)


def _epoll_fds(pid: int, fd: int) -> Iterator[tuple[int, int]]:
    for line in read_file(f"/proc/{pid}/fdinfo/{fd}").splitlines():
        words = line.split()
        if words and words[0] == b"tfd:" and int(words[3], 16) & 0xFFFF:  # else it is disarmed (EPOLLONESHOT)
            yield int(words[1]), int(words[3], 16)


def _fds_of(pid: int, name: str) -> list[int]:
    found = []
    for fd in _listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{fd}") == name:
                found.append(int(fd))
        except FileNotFoundError:
            pass  # closed meanwhile
    return found


def _reads(pid: int, fd: int) -> bool:
    """Say whether an fd is open for reading alone."""
    info = read_file(f"/proc/{pid}/fdinfo/{fd}")
    flags = int(info[info.index(b"flags:") + 6 :].split()[0], 8)
    return flags & os.O_ACCMODE == os.O_RDONLY


def _peer_of(inode: int) -> Optional[int]:
    """Return the inode of the other end of a Unix socket; None where there is none, or the kernel does not tell."""
    unknown = 0xFFFFFFFF
    request = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, unknown, inode, UDIAG_SHOW_PEER, unknown, unknown)
    header = struct.pack("=IHHII", 16 + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as diag:
            diag.setblocking(False)
            diag.send(header + request)
            answer = diag.recv(4096)
    except OSError:
        return None
    size, kind = struct.unpack_from("=IH", answer)
    at = 32  # behind the header and the fixed part
    while kind == SOCK_DIAG_BY_FAMILY and at + 8 <= size:
        length, attribute = struct.unpack_from("=HH", answer, at)
        if attribute == UNIX_DIAG_PEER:
            return int(struct.unpack_from("=I", answer, at + 4)[0])
        at += max(length + 3 & ~3, 4)
    return None
