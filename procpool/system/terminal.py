"""Pseudo-terminals: what is asked of one through its master, which is our end.

The modules of the standard library are imported where they are used, so that the package can be imported where there
are none.
"""

from __future__ import annotations

import itertools
import os
import select
import sys
from io import FileIO
from typing import Any

# From linux/tty.h and asm-generic/ioctls.h: ioctls on the master.
TIOCSIG = 0x40045436  # sends a signal to the foreground group
TIOCGPTPEER = 0x5441  # opens the other end
MOST_BYTES = 1 << 17  # more than a terminal can hold of what was written to it (64 KiB, and 4 KiB of a line)
LONGEST_LINE = 4095  # in canonical mode the kernel cuts a line here, without an error


def open_terminal(fds: list[int], rows: int, cols: int, *, echo: bool) -> None:
    """Append three fds to a list, in one step each: our end, the child's end, and our end once more, for writing."""
    import termios

    fds.extend(itertools.chain.from_iterable(itertools.starmap(os.openpty, [()])))
    fds.extend(map(os.dup, fds[:1]))
    if not echo:
        modes = termios.tcgetattr(fds[1])
        modes[3] &= ~termios.ECHO
        termios.tcsetattr(fds[1], termios.TCSANOW, modes)
    resize(fds[1], rows, cols)


def resize(fd: int, rows: int, cols: int) -> None:
    """Change the size; the kernel tells the foreground group by SIGWINCH."""
    import fcntl
    import struct
    import termios

    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


def signal_foreground(fd: int, number: int) -> bool:
    """Send a signal to the foreground group, also when the input queue is full; False where that cannot be done."""
    import fcntl

    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(fd, TIOCSIG, number)
    except OSError:
        return False
    return True


class Modes:
    """How a terminal treats its input at this moment."""

    __slots__ = ("canonical", "echo", "signals", "flushes", "eof", "interrupt", "ends")

    def __init__(self, fd: int) -> None:
        import termios

        modes: list[Any] = termios.tcgetattr(fd)
        self.canonical = bool(modes[3] & termios.ICANON)  # line by line
        self.echo = bool(modes[3] & termios.ECHO)
        self.signals = bool(modes[3] & termios.ISIG)  # the interrupt key is a signal, else a key as any other
        self.flushes = not modes[3] & termios.NOFLSH  # and what was typed before it is thrown away
        self.eof: bytes = modes[6][termios.VEOF] if self.canonical else b"\4"
        self.interrupt: bytes = modes[6][termios.VINTR].strip(b"\0") or b"\3"
        self.ends: bytes = b"\r\n" + b"".join(modes[6][n] for n in (termios.VEOF, termios.VINTR, termios.VKILL))


def unread(fd: int) -> bool:
    """Say whether there is input that the child could read now, seen from its own end. Linux only.

    Asking by `poll` also has the kernel deliver what was written a moment ago.
    """
    with _peer(fd) as peer:
        return readable(peer.fileno())


def flush_input(fd: int) -> None:
    """Throw away what was written and not read. Linux only."""
    import termios

    with _peer(fd) as peer:
        termios.tcflush(peer.fileno(), termios.TCIFLUSH)


def number(fd: int) -> int:
    """Return the device number of the child's end. Linux only."""
    with _peer(fd) as peer:
        return os.fstat(peer.fileno()).st_rdev


def _peer(fd: int) -> FileIO:
    """Open the child's end, in one step, as `duty.pidfd` does."""
    import fcntl

    files: list[FileIO] = []
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK
    files.extend(map(FileIO, map(fcntl.ioctl, (fd,), (TIOCGPTPEER,), (flags,))))
    return files.pop()


def readable(fd: int) -> bool:
    """Say whether something can be read, the end included; of a terminal, all that was written to it is delivered."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
