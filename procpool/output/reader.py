"""The daemon reader thread: it waits on all fds of a manager's processes, reads them, and sees their end.

It runs no user code and does no logging: nothing here may block but `select`.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Callable, Optional

from procpool.duty import open_pipes, start_thread
from procpool.facts import Protocol
from procpool.guard import Guard
from procpool.output.buffer import LineBuffer
from procpool.output.growth import PIPE_BYTES, Growth

LINGER_SECS = 1.0  # an idle thread ends after this long; starting one costs as much as a small process


# `selectors` would do, at three times the cost a process. An epoll object counts in seconds, a poll object in ms; and
# another thread may add an fd to the first while it is polled.
EPOLL = hasattr(select, "epoll")
_make_poller: Any = select.epoll if EPOLL else getattr(select, "poll", None)
POLL_UNIT = 1 if EPOLL else 1000


class Source(Protocol):
    """Something with an fd that the reader serves."""

    fd: int  # it must not block

    def ready(self) -> None:
        """Serve the fd: it can be read (or written)."""

    def fail(self, error: BaseException) -> None:
        """Take note that serving failed, or that the reader is gone."""


class Owner(Protocol):
    """Whose output a channel reads."""

    def feed(self, channel: Channel, chunk: bytes) -> None:
        """Take the next bytes of the channel's stream. In the thread that read them; the channel is locked."""

    def ended(self, channel: Channel) -> None:
        """Take note that the channel's stream has ended, and close its fd, which others may be asking something.

        The channel is locked.
        """

    def went_on(self, channel: Channel) -> None:
        """See to what follows, in the reader thread: some bytes were taken, or the stream has ended."""

    def fail(self, error: BaseException) -> None:
        """Take note that serving failed, or that the reader is gone."""


class Channel:
    """One stream's fd, read in the reader thread or, for a moment, by one who waits for an answer.

    That one may be interrupted by Ctrl-C. So what it reads is kept in the very step that reads it, until it is in the
    buffer, and whoever comes next takes it from there.
    """

    __slots__ = (
        "fd", "name", "buffer", "bound", "owed", "paused", "reading", "size", "big", "small", "_owner", "_reader",
        "guard", "_hushed", "_heard", "_heard_at",
    )  # fmt: skip

    def __init__(
        self, fd: int, name: str, buffer: LineBuffer, owner: Owner, reader: Reader, bound: Optional[int] = None
    ) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.name = name
        self.buffer = buffer
        self.owed = 0  # bytes that must be read before the owner's exit may be published
        self.paused = False
        self.reading = False  # what was read is on its way to the buffer
        self.size = PIPE_BYTES
        self.big = self.small = 0  # see growth.Stream
        self.bound = bound  # of a terminal: how much it may hold, for it cannot tell how much that is
        self._owner = owner
        self._reader = reader
        # Makes one step of a read and of what takes the bytes, so that they keep their order, and keeps the fd from
        # being closed in between. Held across one read, or while the fd is watched, which do not block, and while the
        # owner takes the bytes under its own lock, which is the inner one.
        self.guard = Guard()
        self._hushed = False  # the reader thread looks away, for a listener
        self._heard: Sequence[bytes] = ()  # what that one read, one chunk at the most, and where it begins
        self._heard_at = 0

    def ready(self) -> None:
        """Read once: every fd that is ready gets its turn before any gets another. In the reader thread.

        A noisy stream for which that was a long wait, beside a busy thread, is read a few times.
        """
        self._read_once()
        if self.size > PIPE_BYTES:
            for _ in range(self._reader.growth.more_reads()):
                if self.paused or self.fd < 0 or not self._read_once(held=True):
                    break

    def _read_once(self, *, held: bool = False) -> bool:
        """Read, and see to what follows; False if there was nothing."""
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            if self._heard:
                self._take_heard()
            self.reading = True
            try:
                size = self._read(held)
            finally:
                self.reading = False
        if size is None:
            self.close()
        elif size:
            self._owner.went_on(self)
            if (self.size > PIPE_BYTES or size * 2 > PIPE_BYTES) and self.fd >= 0:
                self._reader.growth.note(self, size)
        return bool(size)

    def _read(self, held: bool) -> Optional[int]:
        """Read, and pass on what there is; return how much, None at the end of the stream."""
        try:
            if self.size == PIPE_BYTES:
                chunk = os.read(self.fd, PIPE_BYTES)
                size = len(chunk)
                chunks: Iterable[bytes] = (chunk,) if size else ()
            else:
                grown = self._reader.growth.read(self.fd, held=held)
                size = len(grown)
                chunks = (bytes(grown[begin : begin + PIPE_BYTES]) for begin in range(0, size, PIPE_BYTES))
        except BlockingIOError:
            self.owed = 0  # there is nothing left
            return 0
        except OSError as error:
            if self.bound is None or error.errno != errno.EIO:
                raise
            return None  # nobody has the other end of the terminal any more
        for chunk in chunks:
            self.owed -= len(chunk)  # and not before: what is owed nothing any more has its exit published
            self._owner.feed(self, chunk)
        return size or None

    def hush(self) -> None:
        """Have the reader thread look away, for one who listens. Linux only."""
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            if self.fd >= 0:
                self._hushed = True
                self._reader.hush(self.fd)

    def listen(self) -> bool:
        """Read once, in the listener's thread; False: the reader thread has to see to it, and finds it as it was."""
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            if self.fd < 0 or self.paused or self._heard or not self._hushed:
                return False
            heard: list[bytes] = []
            self._heard = heard
            self._heard_at = self.buffer.bytes
            self.reading = True
            try:
                heard.extend(map(os.read, (self.fd,), (PIPE_BYTES,)))
            except OSError:  # there is nothing after all
                pass
            self._take_heard()
            return any(heard)

    def heed(self) -> None:
        """Have the reader thread look again, and pass on what an interrupted listener left; may come twice."""
        if self._hushed:
            me = self.guard.check()
            with self.guard.lock:
                self.guard.holder = me
                self._take_heard()
                if self.fd >= 0:
                    self._reader.hush(self.fd, over=True)
                self._hushed = False

    def _take_heard(self) -> None:
        """Pass on what a listener read. The caller holds the lock.

        The buffer takes all of a chunk or nothing, and shows by its size whether it did. Of what is owed nothing is
        taken off, which may be interrupted: the reader thread finds that there is nothing left.
        """
        for heard in self._heard:
            if heard and self.buffer.bytes == self._heard_at:
                self._owner.feed(self, heard)
        self._heard, self.reading = (), False

    def unread(self) -> int:
        """Return how many bytes lie in the pipe; of a terminal, how many may."""
        if self.bound is not None:
            return self.bound
        import fcntl  # here, so that the package can be imported where there is none
        import termios

        return int.from_bytes(fcntl.ioctl(self.fd, termios.FIONREAD, bytes(4)), sys.byteorder)  # a C int

    def watch(self) -> None:
        """Have it read from now on; may come twice. By any thread, if `EPOLL`. Raises OSError."""
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            if self.fd >= 0 and not self.paused:
                self._reader.watch(self)

    def pause(self) -> None:
        """Stop reading, until `resume`; the child is held up when the pipe is full."""
        if not self.paused:
            self.paused = True
            self._reader.unwatch(self.fd)

    def resume(self) -> None:
        """Read on."""
        if self.paused:
            self.paused = False
            self.watch()

    def finish(self) -> None:
        """Read what lies in the pipe now, then close it: its writers are dead, or lost to us."""
        if self.fd >= 0:
            self.owed = self.unread() + 1
            while self.owed > 1 and self.fd >= 0:
                self.ready()
            self.close()

    def close(self) -> None:
        """Close the fd and tell the owner."""
        if self.fd >= 0:
            self._reader.unwatch(self.fd)
            self._reader.growth.forget(self)
            me = self.guard.check()
            with self.guard.lock:
                self.guard.holder = me
                self._take_heard()
                self.owed = 0
                self._owner.ended(self)
            self._owner.went_on(self)

    def fail(self, error: BaseException) -> None:
        """Take note that serving failed."""
        self._owner.fail(error)


class Reader:
    """One thread that polls, started on first need and ended when nothing is left to serve.

    `enter` and `leave` note the users (a start in flight is one): the thread lives while there are any, and a
    little longer. `call` has something done in the thread; only a user may use it. Each can be done twice.
    """

    def __init__(self, name: str = "procpool-reader") -> None:
        self._name = name
        # Guards _users, _thread (which takes itself in and out), _pipe, _closed. Never held while anything else is
        # locked or waited for.
        self._guard = Guard()
        self._users: set[bytes] = set()
        self._thread: Optional[threading.Thread] = None
        self._pipe: list[int] = []  # what wakes the thread: its end, and ours
        self._closed = False
        self._poller: Any = None
        self.failure: Optional[BaseException] = None
        self._calls: deque[tuple[Optional[Owner], Callable[..., None], tuple[Any, ...]]] = deque()
        # Touched by the thread, which alone takes anything out, and by `watch` and `Child.serve` at a start, which put
        # something in, in one step:
        self._sources: dict[int, Source] = {}
        self.owners: set[Owner] = set()  # who is to be told if the thread dies
        # Touched by the thread alone:
        self.growth = Growth()

    def enter(self, user: bytes) -> None:
        """Note a user; start the thread if there is none. Raises RuntimeError or OSError if that fails."""
        me = self._guard.check()
        with self._guard.lock:
            self._guard.holder = me
            if self.failure is not None:
                raise RuntimeError(f"the reader thread died: {self.failure!r}")
            if self._thread is None:
                self._start()
            self._users.add(user)

    def leave(self, user: bytes) -> None:
        """Forget a user."""
        me = self._guard.check()
        with self._guard.lock:
            self._guard.holder = me
            self._users.discard(user)
            if not self._users:
                self._poke()

    def close(self) -> None:
        """End the thread as soon as there are no users, without lingering; what waits to be called is called."""
        me = self._guard.check()
        with self._guard.lock:
            self._guard.holder = me
            self._closed = True
            self._poke()
            thread = self._thread
            # With users one is on its way. Without, a start was interrupted; if its thread comes, it finds no pipe.
            if thread is None and (not self._users or self.failure is not None):
                self._tear_down()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=LINGER_SECS)

    def call(self, owner: Owner, function: Callable[..., None], *args: Any) -> None:
        """Have `function(*args)` called in the thread; an error in it goes to the owner."""
        self._calls.append((owner, function, args))
        me = self._guard.check()
        with self._guard.lock:
            self._guard.holder = me
            self._poke()

    def call_if_running(self, function: Callable[[], None]) -> bool:
        """Have `function()` called in the thread; False if there is none."""
        me = self._guard.check()
        with self._guard.lock:
            self._guard.holder = me
            if self._thread is None:
                return False
            self._calls.append((None, function, ()))
            self._poke()
        return True

    def call_unlocked(self, function: Callable[[], None]) -> None:
        """Have `function()` called in the thread, for a finalizer, which may run inside any lock.

        While there are users the thread does not end, so its fd stays what it is.
        """
        self._calls.append((None, function, ()))
        if self._users and self._pipe:
            try:
                os.write(self._pipe[1], b"\0")
            except BlockingIOError:
                pass

    def watch(self, source: Source, *, writing: bool = False) -> None:
        """Serve a source from now on, when it can be read (or written); may come twice. Raises OSError.

        In the thread; if `EPOLL` also by whoever brings the source, and keeps its fd from being closed meanwhile.
        """
        poller = self._poller
        try:
            if poller is not None:  # else the thread died, which all are told who wait
                poller.register(source.fd, select.POLLOUT if writing else select.POLLIN)
        except FileExistsError:
            pass
        # Only now: 1 the thread is told of an fd; 2 it closes that one first; 3 the number comes here; 4 it goes on.
        self._sources[source.fd] = source

    def unwatch(self, fd: int) -> None:
        """Serve the source of an fd no longer. In the thread only."""
        if self._sources.pop(fd, None) is not None and self.failure is None:
            self._poller.unregister(fd)

    def hush(self, fd: int, *, over: bool = False) -> None:
        """Do not look at an fd until it is `over`. By any thread; the caller keeps the fd from being closed."""
        poller = self._poller
        try:
            if poller is not None:
                poller.modify(fd, select.POLLIN if over else 0)
        except OSError:
            pass  # it is not looked at: its stream is paused, or about to be closed

    def _start(self) -> None:
        """Start the thread; another one may be on its way here, with fds that are watched already."""
        try:
            if not self._pipe:  # else a start was interrupted
                open_pipes(self._pipe, 1)
            for fd in self._pipe:
                os.set_blocking(fd, False)
            if self._poller is None:
                self._poller = _make_poller()
            start_thread(self._name, self._run)
        except (OSError, RuntimeError):
            if not self._users:
                self._tear_down()
            raise

    def _close_pipe(self) -> None:
        fds, self._pipe = self._pipe, []
        for fd in fds:
            os.close(fd)

    def _poke(self) -> None:
        """Wake the thread. The caller holds the lock, so the fd is the one that the thread looks at."""
        if self._pipe:
            try:
                os.write(self._pipe[1], b"\0")
            except BlockingIOError:
                pass  # it has enough reasons to wake up

    def _run(self) -> None:
        me = self._guard.check()
        with self._guard.lock:
            self._guard.holder = me
            if self._thread is not None or not self._pipe:
                return  # an interrupted start made two of us, or one too late
            self._thread = threading.current_thread()
            wake = self._pipe[0]
        try:
            self._poller.register(wake, select.POLLIN)
            # A child may be gone when its stdin is written to; that is an error there, not our end.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
            while self._users or not self._finished(idle=False):
                idle = not self._users
                ready = self._poller.poll(LINGER_SECS * POLL_UNIT if idle else None)
                for fd, _ in ready:
                    if fd == wake:
                        os.read(wake, PIPE_BYTES)
                        continue
                    source = self._sources.get(fd)
                    if source is not None:  # else it was taken away in this very round
                        try:
                            source.ready()
                        except BaseException as error:  # one process's fault must not stop the others
                            source.fail(error)
                while self._calls:
                    owner, function, args = self._calls.popleft()
                    try:
                        function(*args)
                    except BaseException as error:  # the same
                        if owner is None:
                            raise
                        owner.fail(error)
                if idle and not ready and self._finished(idle=True):
                    return
        except BaseException as error:  # nobody would see it: it goes to all who wait
            self._die(error)

    def _finished(self, *, idle: bool) -> bool:
        """End the thread, under the lock, if nobody needs it."""
        me = self._guard.check()
        with self._guard.lock:
            self._guard.holder = me
            if self._users or self._calls or not (self._closed or idle):
                return False
            self._tear_down()
            return True

    def _tear_down(self) -> None:
        self._poller = None
        self._close_pipe()
        self._thread = None

    def _die(self, error: BaseException) -> None:
        me = self._guard.check()
        with self._guard.lock:
            self._guard.holder = me
            self.failure = error
            # The pipe stays until `close`: 1 `call_unlocked` leaves its call; 2 we take it, and die of it; 3 it writes.
            self._poller = None
            self._thread = None
        for owner in {*self.owners, *(call[0] for call in self._calls)}:
            if owner is not None:
                owner.fail(error)
