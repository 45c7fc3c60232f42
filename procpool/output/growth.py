"""Larger pipes for streams that prove noisy: fewer, larger reads, and a child that is held up less often. Linux."""

from __future__ import annotations

import os
import sys
import time
from typing import Callable, Optional

from procpool.facts import Protocol

PIPE_BYTES = 1 << 16  # what a pipe holds by default: one read empties it
# One read takes as much: beside a busy Python thread each read costs 5 ms of waiting for the GIL, however large it is.
GROWN_BYTES = 1 << 20
# And behind a read that had to wait so many more are made without giving the GIL away. That doubles what is read there;
# more of them would bring a fifth more, and take as much from the busy thread.
HELD_READS = 3
PROOF_READS = 32  # so many reads that found a pipe more than half full prove that its stream is noisy
CALM_READS = 256  # and so many in a row that found little, that it is not so any more
# All pipes together may hold so much more than by default. An ordinary user has 64 MiB; beyond that every new pipe
# of that user is a small one, also those of other programs.
BUDGET_BYTES = 1 << 24
F_SETPIPE_SZ = 1031  # Python has a name for it since 3.10


class Stream(Protocol):
    """What is read from a pipe."""

    fd: int
    size: int  # how much the pipe holds
    big: int  # how many reads found much
    small: int  # how many reads in a row found little


class Growth:
    """Which pipes were grown, within the budget; touched by the reader thread alone."""

    def __init__(self) -> None:
        self.spare_bytes = BUDGET_BYTES
        self._grown: dict[Stream, None] = {}  # the one that has been calm for longest first
        self._scratch = memoryview(b"")  # of GROWN_BYTES, from the first read on
        self._read_held: Optional[Callable[[int], int]] = None
        self._waited = False  # the last read did, for the GIL

    def read(self, fd: int, *, held: bool = False) -> memoryview:
        """Read all that a grown pipe may hold; good until the next read. New memory for it would cost page faults.

        `held`: without giving the GIL away. Raises BlockingIOError if there is nothing.
        """
        if not self._scratch:
            memory = bytearray(GROWN_BYTES)
            self._scratch = memoryview(memory)
            self._read_held = _make_read_held(memory)
        if held and self._read_held is not None:
            size = self._read_held(fd)
            if size < 0:
                raise BlockingIOError
        else:
            begin = time.monotonic()
            size = os.readv(fd, [self._scratch])
            self._waited = time.monotonic() - begin > sys.getswitchinterval()
        return self._scratch[:size]

    def more_reads(self) -> int:
        """Return how many reads should follow the last one with the GIL held: some, if it was waited for."""
        return HELD_READS if self._waited and self._read_held is not None else 0

    def note(self, stream: Stream, size: int) -> None:
        """Take note of a read of so many bytes: of a large one, and of any from a pipe that was grown."""
        if size * 2 > PIPE_BYTES:
            stream.big += 1
            stream.small = 0
            if stream in self._grown:
                del self._grown[stream]
                self._grown[stream] = None
            elif stream.big >= PROOF_READS:
                self._grow(stream)
        else:
            stream.small += 1
            if stream.small >= CALM_READS:
                stream.small = 0
                self._shrink(stream)

    def forget(self, stream: Stream) -> None:
        """Take back what a pipe had, which is about to be closed."""
        if stream in self._grown:
            del self._grown[stream]
            self.spare_bytes += stream.size - PIPE_BYTES

    def _grow(self, stream: Stream) -> None:
        stream.big = 0
        more = GROWN_BYTES - PIPE_BYTES
        if self.spare_bytes < more:
            calmest = next(iter(self._grown), None)
            if calmest is None or not calmest.small or not self._shrink(calmest):
                return
        if _resize(stream.fd, GROWN_BYTES):
            stream.size = GROWN_BYTES
            self.spare_bytes -= more
            self._grown[stream] = None

    def _shrink(self, stream: Stream) -> bool:
        if not _resize(stream.fd, PIPE_BYTES):
            return False  # more lies in it
        self.forget(stream)
        stream.size = PIPE_BYTES
        stream.big = 0
        return True


def _make_read_held(memory: bytearray) -> Optional[Callable[[int], int]]:
    """Return a `read(fd)` into `memory` that keeps the GIL, or None. It is for fds that do not block.

    All of the standard library's give it away, and a busy thread that gets it keeps it for a whole switch interval.
    """
    try:
        import ctypes

        read = ctypes.PyDLL(None).read
    except Exception:  # this Python has no ctypes, or an audit hook is against it
        return None
    read.argtypes = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t
    read.restype = ctypes.c_ssize_t
    size = len(memory)
    target = (ctypes.c_char * size).from_buffer(memory)
    return lambda fd: read(fd, target, size)


def _resize(fd: int, size: int) -> bool:
    """Change what a pipe holds; False where that is not allowed, or not known."""
    if not sys.platform.startswith("linux"):
        return False
    import fcntl

    try:
        return fcntl.fcntl(fd, F_SETPIPE_SZ, size) >= size
    except OSError:
        return False
