"""What is known of one process: its streams, its stdin, its end. The threads serve it, `Process` asks it."""

from __future__ import annotations

import math
import os
import re
import select
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar

from procpool import lifetime
from procpool.errors import ManagerClosedError, ProcpoolError
from procpool.facts import NamedTuple
from procpool.guard import Guard
from procpool.output.buffer import Decoding, LineBuffer, Position, Span
from procpool.output.reader import Channel, Reader
from procpool.snapshot import Exit, Output, Part, ProcessInfo, Streams
from procpool.stdin import Stdin, Terminal
from procpool.system import Evidence, returncode, terminal
from procpool.system.launch import Launch, Size
from procpool.system.tree import Tree

if TYPE_CHECKING:
    from procpool.keys import Keyboard
    from procpool.turn import Prompts

T = TypeVar("T")
Positions = dict[str, Position]
Claim = list["Child"]  # the children that one call looks after

CLOSED = "The process manager is closed"
MOST_SELECTED = 1024  # FD_SETSIZE: `poll` has none, but counts in milliseconds
CAN_LISTEN = sys.version_info >= (3, 11)  # before, Ctrl-C may come between two assignments


class Waiter:
    """A sleeper's own lock. Whoever changes something releases it; the sleeper then looks again.

    Not a Condition: under a storm of Ctrl-C `with condition` left its lock held for ever, once in 6000 times, and
    one cannot sleep on the conditions of several processes.
    """

    __slots__ = ("_lock", "__weakref__")

    def __init__(self) -> None:
        lifetime.watch_main_thread()
        self._lock = threading.Lock()
        self._lock.acquire()

    def sleep(self, deadline: Optional[float]) -> bool:
        """Sleep until woken; return False if the deadline (`time.monotonic`) passed first."""
        if deadline is None:
            return self._lock.acquire()
        left = deadline - time.monotonic()
        return left > 0 and self._lock.acquire(timeout=min(left, threading.TIMEOUT_MAX))

    def wake(self) -> None:
        """Wake the sleeper, or keep it from falling asleep."""
        try:
            self._lock.release()
        except RuntimeError:
            pass  # it is awake already


class Standing(NamedTuple):
    """What ends a process's turn where there is no evidence that it waits for input."""

    prompt: Optional[re.Pattern[str]] = None  # matches at the end of the unfinished line
    quiet: Optional[float] = None  # seconds without output


class View(NamedTuple):
    """What a look at the buffers found; `Child.render` makes an `Output` of it without a lock."""

    spans: dict[str, Span]
    ends: Positions
    eof: bool
    alive: bool
    returncode: Optional[int]


class Child:
    """One process: what the reader thread, the housekeeper and the callers know of it together."""

    def __init__(
        self,
        launched: Launch,
        *,
        token: str,
        born: Optional[int],
        agent_id: str,
        argv: Sequence[str],
        cwd: Optional[str],
        merge_stderr: bool,
        pty: Optional[Size],
        otherwise: Standing,
        decoding: Decoding,
        make_buffer: Callable[[], LineBuffer],
        reader: Reader,
        changed: Callable[[], None],
        max_age_secs: Optional[float] = None,
        idle_secs: Optional[float] = None,
    ) -> None:
        self.id = ""
        self.agent_id = agent_id
        self.argv = tuple(argv)
        self.cwd = cwd
        self.decoding = decoding
        self.reader = reader
        self.otherwise = otherwise
        self.tree = Tree(launched.pid, token, born)
        self.max_age_secs = max_age_secs
        self.idle_secs = idle_secs
        self.started_at = time.time()
        self.started = time.monotonic()
        self._changed = changed  # has the housekeeper look

        # Guards everything below, the buffers included. Held for looks and changes only: never while something is
        # read, written, started, signalled or waited for; no other lock is taken meanwhile.
        self.guard = Guard()
        # Woken, and removed, at every change, but only those with True when it is nothing but output.
        self.waiters: dict[Waiter, bool] = {}
        self.buffers = {"stdout": make_buffer()}
        self._max_bytes = self.buffers["stdout"].max_bytes
        if not merge_stderr:
            self.buffers["stderr"] = make_buffer()
        self.read_to: Positions = dict.fromkeys(self.buffers, Position())  # the default cursor
        self.searched_to: Positions = dict.fromkeys(self.buffers, Position())  # where the last expect ended
        self.lost = dict.fromkeys(self.buffers, 0)  # lines that left before the default cursor came
        self._order = 0  # numbers the chunks, so that the lines of two streams can be put in order
        self.spoke = dict.fromkeys(self.buffers, self.started)  # when the last bytes of each stream came
        self.active = self.started  # when a byte last went either way
        self.wrote_at = dict.fromkeys(self.buffers, 0)  # how many bytes of each stream had come at the last write
        self.askers: list[object] = []  # whose turn it is to ask, the first one's
        self.evidence: Optional[Evidence] = None  # the first one's, while it asks
        self.stood: Optional[tuple[tuple[int, int], float]] = None  # sizes when it was last seen to wait, and when
        self.prompts: dict[str, Prompts] = {}  # of each stream, since it was first asked something
        self.exited = False  # the root; and what it wrote before can be read
        self.returncode: Optional[int] = None
        self.ended_at = 0.0
        self.asked_by: Optional[str] = None  # who asked it to end, before it did
        self.error: Optional[str] = None
        self.served = True  # by the reader thread: not before the exit is known and the streams have ended
        self.empty = False  # no member of the tree is alive, and the root is reaped
        self.looked_at = 0.0  # when, after the exit, it was last seen that it is not empty
        self.claimed: Optional[Claim] = None  # a thread looks after its tree; see `claim`
        self.looking = False  # and only looks, which takes a moment
        self.exit: Optional[Exit] = None  # what that thread found
        self.forgotten = False
        self.closed = False  # its manager is
        self.exit_told = False  # by a `wait_any` of all processes
        self.has_future = False  # somebody waits for its exit by a future

        # Keeps the root from being reaped, and its pid from being used again, between a look and a signal. Held across
        # one kill(2) or waitpid(2), which do not block.
        self._pin = Guard()
        self._reaped = False

        # The reader thread's own.
        self._exit_seen = False
        self._exit_source: Any = None
        self._finishing = False
        self.tree.hangup = pty is not None
        self.size = (0, 0) if pty is None else (pty.rows, pty.cols)  # of its terminal
        self.emulator: Any = None
        bound = terminal.MOST_BYTES if pty is not None else None
        self.channels = [
            Channel(fd, name, buffer, self, reader, bound)
            for fd, (name, buffer) in zip(launched.ours, self.buffers.items())
        ]
        rest = launched.ours[len(self.channels) :]
        self.keyboard = _keyboard() if pty is not None else None
        self.terminal = None if pty is None else Terminal(rest[0], self, echo=pty.echo)
        self.stdin = self.terminal or (Stdin(rest[0], self) if rest else None)

    @property
    def pid(self) -> int:
        """The pid of the root."""
        return self.tree.root

    @property
    def command(self) -> str:
        """The command line, for people."""
        return " ".join(self.argv)

    # The way up: in the reader thread

    def serve(self, exit_source: Any) -> None:
        """Begin to serve the streams; may come twice, the second time in the reader thread.

        The first time whoever has just started the process may call it, if there is epoll and an `exit_source`: that
        costs the reader thread no step. It may already be serving one fd while the next is being watched, so the exit,
        behind which all is closed, is watched last. Raises OSError.
        """
        if not self.served:
            return
        self._exit_source = exit_source
        self.reader.owners.add(self)
        for channel in self.channels:
            channel.watch()
        if exit_source is not None and not self._exit_seen:
            self.reader.watch(exit_source)

    def feed(self, channel: Channel, chunk: bytes) -> None:
        """Take the next bytes of a stream."""
        now = time.monotonic()
        wall = time.time()
        buffer = channel.buffer
        if self.keyboard is not None:
            self.keyboard.watch(chunk)
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            self._order += 1
            self.spoke[channel.name] = self.active = now
            if self.waiters:
                self._wake(output=True)  # they need the lock to look
            buffer.append(chunk, self._order, wall)  # last: if Ctrl-C comes before it, all this is done again

    def ended(self, channel: Channel) -> None:
        """Take note that a stream has ended."""
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            os.close(channel.fd)
            channel.fd = -1
            self._order += 1
            channel.buffer.close(self._order, time.time())
            self._wake()

    def went_on(self, channel: Channel) -> None:
        """Pause a stream of which somebody has to see more first; publish the exit when all is read."""
        buffer = channel.buffer
        if buffer.crowded and channel.fd >= 0 and not self._finishing:
            channel.pause()
            if not buffer.crowded:  # the searcher came on, and did not see the pause
                channel.resume()
        if self._exit_seen:
            self._publish()

    def exit_noticed(self, code: Optional[int]) -> None:
        """Take note that the root has exited: publish it when all that was written before has been read."""
        if self._exit_seen:
            return
        self._exit_seen = True
        self.returncode = code
        if self._exit_source is not None:
            self.reader.unwatch(self._exit_source.fd)
            self._exit_source.close()
        if self._finishing:
            self.finish()
            return
        # What is owed is what lies in the pipes now, and one more look at each: it shows the end of the stream, if no
        # descendant holds it. A last line without a newline is a line then, before anybody knows of the exit.
        for channel in self.channels:
            if channel.fd >= 0:
                channel.owed = channel.unread() + 1
        for channel in self.channels:
            while channel.owed > 1 and not channel.paused:
                channel.ready()
            if channel.fd >= 0 and not channel.paused:
                channel.ready()
            channel.owed -= 1
        self._publish()

    def finish(self) -> None:
        """Read what is left and close everything: the tree is gone."""
        self._finishing = True
        if not self._exit_seen and self._exit_source is not None:
            self._exit_source.ready()  # it may be that it could not be watched
        if self._exit_seen:
            for channel in self.channels:
                channel.finish()
            self._publish()

    def dismiss(self) -> None:
        """Close what was never served: the start is taken back. An exit that is noticed later means nothing."""
        self._exit_seen = True
        self.served = False
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            for channel in self.channels:
                if channel.fd >= 0:
                    os.close(channel.fd)
                    channel.fd = -1
        if self.stdin is not None:
            self.stdin.close_now()
        self.wake()

    def resume(self) -> None:
        """Read on, where a searcher was behind."""
        for channel in self.channels:
            if not channel.buffer.crowded:
                channel.resume()
        if self._exit_seen and not self.exited:
            for channel in self.channels:
                while channel.owed > 0 and channel.fd >= 0 and not channel.paused:
                    channel.ready()
            self._publish()

    def _publish(self) -> None:
        if self._exit_seen and not self.exited and all(channel.owed <= 0 for channel in self.channels):
            me = self.guard.check()
            with self.guard.lock:
                self.guard.holder = me
                if self.stdin is not None:
                    self.stdin.closed = True  # first: who knows of the exit must not be able to write to a terminal
                self.exited = True
                self.evidence = None  # it has files open
                self.ended_at = time.monotonic()
                self._wake()
                looked_after = self.claimed is not None
            if self.stdin is not None:
                self.stdin.close_now()
            if self.has_future or not looked_after:  # else that thread sees the exit, or wakes it afterwards
                self._changed()
        if self.exited and self.served and all(channel.fd < 0 for channel in self.channels):
            self.reader.owners.discard(self)
            self.served = False
            self.wake()
            self.reader.leave(self.tree.token)
            if self.empty:
                self._changed()  # it can be forgotten now

    def fail(self, error: BaseException) -> None:
        """Take note that serving failed: the streams end; the process is left alone."""
        self.error = self.error or f"{type(error).__name__}: {error}"
        for channel in self.channels:
            channel.close()
        self.wake()
        if self.has_future:
            self._changed()

    # For everybody

    def wake(self) -> None:
        """Have all sleepers look again."""
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            self._wake()

    def _wake(self, *, output: bool = False) -> None:
        if self.waiters:
            for waiter in [waiter for waiter, hears in self.waiters.items() if hears or not output]:
                waiter.wake()
                self.waiters.pop(waiter, None)

    def wait_until(
        self,
        look: Callable[[], Optional[T]],
        deadline: Optional[float],
        *,
        output: bool = False,
        closing: bool = False,
    ) -> Optional[T]:
        """Call `look` under the lock, now and at every change, until it returns something else than None.

        `output`: that is a change, too; to be woken for each piece of it would cost its stream a third of its speed.
        Returns None when the deadline passes. Raises ManagerClosedError if the manager is closed meanwhile
        (`closing`: it is we who close it), ProcpoolError if the reader thread died.
        """
        waiter: Optional[Waiter] = None
        awake = deadline is None or deadline > time.monotonic()
        while True:
            me = self.guard.check()
            with self.guard.lock:
                self.guard.holder = me
                if waiter is not None:
                    self.waiters.pop(waiter, None)
                found = look()
                if found is not None:
                    return found
                if not awake:
                    return None
                if self.closed and not closing:
                    raise ManagerClosedError(CLOSED)
                if self.reader.failure is not None and not closing:
                    raise self.unwatched()
                if waiter is not None:
                    self.waiters[waiter] = output
            if waiter is None:
                waiter = Waiter()
            else:
                awake = waiter.sleep(deadline)

    def unwatched(self) -> ProcpoolError:
        """Return the error of those who wait for a process that nobody serves any more."""
        return ProcpoolError(
            f"Process {self.id!r} can no longer be watched", f"the reader thread died: {self.reader.failure!r}"
        )

    def is_waited_for(self, waiter: Waiter) -> bool:
        """Say whether a sleeper waits for a change; if not, there was one."""
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            return waiter in self.waiters

    def forget_waiter(self, waiter: Waiter) -> None:
        """Wake a sleeper no longer."""
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            self.waiters.pop(waiter, None)

    # Under the lock

    def look(self, positions: Positions, max_lines: Optional[int] = None) -> View:
        """Return what came since the positions; at most `max_lines` lines of it. The caller holds the lock."""
        spans: dict[str, Span] = {}
        ends: Positions = {}
        eof = True
        for name, buffer in self.buffers.items():
            spans[name] = span = buffer.since(positions[name])
            ends[name] = span.end(self.decoding)
            eof = eof and buffer.ended
        if max_lines is not None and sum(span.number for span in spans.values()) > max_lines:
            spans, ends = _first_lines(spans, max_lines)
            eof = False  # the rest is still to come
        return View(spans, ends, eof, not self.exited, self.returncode if self.exited else None)

    def take(self, max_lines: Optional[int] = None) -> View:
        """Return what the default cursor has not passed, and move it. The caller holds the lock."""
        view = self.look(self.read_to, max_lines)
        lost = dict(self.lost)
        for name, span in view.spans.items():
            lost[name] += span.dropped
        self.lost, self.read_to = lost, view.ends  # in one step: Ctrl-C comes at calls
        return view

    def pass_over(self, positions: Positions) -> None:
        """Move the default cursor, and where the next search begins, behind an answer. The caller holds the lock."""
        lost = {
            name: self.lost[name] + max(buffer.settle() - self.read_to[name].line, 0)
            for name, buffer in self.buffers.items()
        }
        self.lost, self.read_to, self.searched_to = lost, positions, dict(positions)

    def news(self, positions: Positions) -> bool:
        """Say whether anything came since the positions. The caller holds the lock."""
        return any(buffer.end(self.decoding) > positions[name] for name, buffer in self.buffers.items())

    @property
    def eof(self) -> bool:
        """Whether all streams have ended."""
        return all(buffer.ended for buffer in self.buffers.values())

    @property
    def ended_by(self) -> Optional[str]:
        """Who or what ended the root."""
        if not self.exited:
            return None
        if self.asked_by is not None:
            return self.asked_by
        return "signal" if self.returncode is not None and self.returncode < 0 else "self"

    def info(self) -> ProcessInfo:
        """Return a snapshot. The caller holds the lock."""
        now = time.monotonic()
        lost = {
            name: self.lost[name] + max(buffer.settle() - self.read_to[name].line, 0) if buffer.bytes else 0
            for name, buffer in self.buffers.items()
        }
        return ProcessInfo(
            id=self.id,
            agent_id=self.agent_id,
            command=self.command,
            alive=not self.exited,
            uptime_secs=int((self.ended_at if self.exited else now) - self.started),
            args=self.argv,
            cwd=self.cwd,
            pid=self.pid,
            state="exited" if self.exited else "running",
            returncode=self.returncode if self.exited else None,
            ended_by=self.ended_by,
            descendants_alive=self.exited and not self.empty,
            stdin_open=not self.exited and self.stdin is not None and not self.stdin.closed,
            started_at=self.started_at,
            idle_secs=now - self.active,
            pty=self.terminal is not None,
            error=self.error,
            lines=_pair(*[buffer.lines for buffer in self.buffers.values()]),
            bytes=_pair(*[buffer.bytes for buffer in self.buffers.values()]),
            dropped=_pair(*lost.values()),
        )

    # Without the lock

    def pin(self, pins: dict[str, list[int]]) -> None:
        """Keep what a searcher has not seen."""
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            for name, pin in pins.items():
                self.buffers[name].pin(pin)

    def unpin(self, pins: dict[str, list[int]]) -> None:
        """Keep it no longer; may come twice."""
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            for name, pin in pins.items():
                self.buffers[name].unpin(pin)
        self.let_flow()

    def let_flow(self) -> None:
        """Have paused streams read on, if nobody is behind any more."""
        if any(channel.paused for channel in self.channels) and self.served:
            self.reader.call(self, self.resume)

    def render(self, view: View, sent: Optional[str] = None, cut: Optional[Callable[[Part], Part]] = None) -> Output:
        """Decode what a look found: as the answer to a line that a terminal may have echoed, and cut to that."""
        parts = []
        places = []
        for name, span in view.spans.items():
            parts.append(span.part(name, self.decoding))
            line, chars = view.ends[name]
            places.append(f"{line}.{chars}")
        if cut is not None:
            parts = [*map(cut, parts)]
        return Output(tuple(parts), ",".join(places), view.eof, view.alive, view.returncode, sent)

    def look_alone(self, positions: Positions) -> View:
        """Take the lock and `look`."""
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            return self.look(positions)

    def bound(self, share: int) -> None:
        """Keep no more than a share of all that the manager may keep, for each stream."""
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            for buffer in self.buffers.values():
                buffer.bound(min(self._max_bytes, share))

    def positions(self, cursor: str) -> Positions:
        """Read a cursor. Raises TypeError or ValueError."""
        if not isinstance(cursor, str):
            raise TypeError(f"since must be a cursor (a str) or None, not {type(cursor).__name__}")
        if not cursor:
            return dict.fromkeys(self.buffers, Position())
        pairs = [pair.split(".") for pair in cursor.split(",")]
        if len(pairs) != len(self.buffers) or not all(
            len(pair) == 2 and all(part.isascii() and part.isdecimal() for part in pair) for pair in pairs
        ):
            raise ValueError(f"since is not a cursor of this process: {cursor!r}")
        return {name: Position(int(pair[0]), int(pair[1])) for name, pair in zip(self.buffers, pairs)}

    # Turns: see turn.py

    def drained(self) -> Optional[int]:
        """Return how many bytes came, if all that was written so far is in the buffers; else None. Linux only."""
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            # In this order: what the reader thread took out of a pipe before the first question is in the buffer at
            # the second, or still on its way there.
            for channel in self.channels:
                if (channel.fd >= 0 and terminal.readable(channel.fd)) or channel.reading:
                    return None
            return sum([buffer.bytes for buffer in self.buffers.values()])

    def hush(self) -> bool:
        """Have the reader thread look away, so that the first asker can `listen`; False if that cannot be."""
        if self.terminal is not None or not CAN_LISTEN or any(channel.fd >= MOST_SELECTED for channel in self.channels):
            return False
        for channel in self.channels:
            channel.hush()
        return True

    def listen(self, until: float) -> bool:
        """Wait for output in the reader thread's place, until there is some or the moment; False: it has to look again.

        It saves two changes of thread.
        """
        fds = [channel.fd for channel in self.channels if channel.fd >= 0]
        try:
            found, _, _ = select.select(fds, (), (), max(until - time.monotonic(), 0.0))
        except (OSError, ValueError):  # it was closed meanwhile
            return False
        heard = [channel for channel in self.channels if channel.fd in found]
        return bool(fds) and all(channel.listen() and not channel.buffer.crowded for channel in heard)

    def heed(self) -> None:
        """Have the reader thread look again; may come twice."""
        for channel in self.channels:
            channel.heed()

    def fresh(self, *, since_write: bool = True) -> dict[str, str]:
        """Return what stands in the unfinished line of each stream, since the last write or all of it.

        The caller holds the lock.
        """
        found = {}
        for name, buffer in self.buffers.items():
            unfinished = buffer.unfinished()
            new = buffer.bytes - self.wrote_at[name] if since_write else len(unfinished)
            found[name] = self.decoding.text_so_far(unfinished[max(len(unfinished) - new, 0) :])
        return found

    def line_up(self, place: object) -> None:
        """Take a place in the queue of those who want to ask."""
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            self.askers.append(place)

    def step_out(self, place: object) -> None:
        """Give it up; may come twice."""
        self.heed()
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            if place in self.askers:
                self.askers.remove(place)
            self._wake()

    # The end: one thread at a time looks after the tree

    def claim(self, claim: Claim, by: Optional[str] = None) -> bool:
        """Become the one that looks after the tree (`by`: that ends it); False if another one does.

        Raises RuntimeError in a signal handler that interrupted what the reader thread would wait for.
        """
        for source in (*self.channels, self.stdin):
            if source is not None:
                source.guard.check()
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            if self.claimed is not None or (self.forgotten and self.exit is not None):
                return False
            self.looking = by is None
            self.exit = None  # at a look, too: who waits for that must not be given an old one, with survivors
            if by is not None and not self._exit_seen:
                self.asked_by = by
            self.claimed = claim
            claim.append(self)
        self.doubt(self.tree)
        return True

    def tree_aside(self) -> Tree:
        """Return a copy of the tree, for one who has not the claim."""
        tree = self.tree.copy()
        self.doubt(tree)
        return tree

    def doubt(self, tree: Tree) -> bool:
        """Have whatever has the root's numbers not be taken for a member, if a stranger has reaped the root.

        The members are known by their marks then, on Linux; the portable half has nothing but the numbers. Return
        whether that is news: a look that found nobody meanwhile has proven nothing.
        """
        if self._exit_seen and tree.pinned and tree.born is not None and not self._reaped and self._lost():
            tree.start = math.inf
            # 1 a look begins; 2 the stranger reaps; 3 the number is given away; 4 the look takes that one for the root.
            tree.seen.pop(self.pid, None)
            return True
        return False

    def unclaim(self, claim: Claim) -> None:
        """Let the next one look after the tree; may come twice."""
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            if self.claimed is not claim:
                return
            self._wake()  # first, so that a Ctrl-C in between has it done again
            self.looking = False
            self.claimed = None
            listed = self.exited and not self.forgotten
        if listed:  # with others of its tree, or to be forgotten
            self._changed()

    def wait_unclaimed(self, deadline: Optional[float]) -> bool:
        """Wait until the thread that has the claim is done; False if the deadline passes. See `exit` then."""
        return bool(self.wait_until(lambda: None if self.claimed is not None else True, deadline, closing=True))

    def wait_looked(self) -> None:
        """Wait while another thread looks whether the tree is empty; not while it ends it."""
        self.wait_until(lambda: None if self.claimed is not None and self.looking else True, None, closing=True)

    def finish_soon(self) -> None:
        """Have the reader read what is left of a dead tree, and close its streams."""
        if self.served:
            self.reader.call(self, self.finish)

    def drain(self) -> None:
        """After `finish_soon`: wait until that is done."""
        self.wait_unserved()
        if self.served and self.reader.failure:
            info = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            self.exit_noticed(None if info is None else returncode(info))
            self.finish()

    def wait_unserved(self) -> None:
        """Wait until the reader does not serve it any more, after `finish_soon` or `dismiss`; or is dead."""
        self.wait_until(lambda: True if not self.served or self.reader.failure else None, None, closing=True)

    def send(self, sig: int, *, group: bool = False) -> None:
        """Send a signal to the root, or to the process group that it was started in; nothing once it is reaped."""
        self.stood = None
        me = self._pin.check()
        with self._pin.lock:
            self._pin.holder = me
            if not self._reaped and not (self._exit_seen and self._lost()):
                try:
                    (os.killpg if group else os.kill)(self.pid, sig)
                except ProcessLookupError:
                    pass  # a stranger has just reaped it

    def _lost(self) -> bool:
        """Say whether a stranger has reaped the root, which is known to have exited: its numbers may come again."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None  # another child of ours
        except ChildProcessError:
            return True

    def close_calls(self) -> None:
        """Have blocked calls raise ManagerClosedError."""
        self.closed = True
        self.wake()

    def reap(self) -> None:
        """Take the exit from the kernel, which frees the pid. The claim is ours, and the tree is empty."""
        me = self._pin.check()
        with self._pin.lock:
            self._pin.holder = me
            self._reaped = True
            if not self._lost():
                os.waitpid(self.pid, os.WNOHANG)
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            self.empty = True
            self.tree.survivors = ()
            self._wake()

    def make_exit(self, *, forget: bool) -> Exit:
        """Note how the process ended; `forget`: hand out what nobody has read."""
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            view = self.take() if forget else self.look(self.read_to)
            ended_by = self.ended_by or self.asked_by or "kill"
        tree = self.tree
        found = Exit(view.returncode, self.render(view), ended_by, tree.pids, tree.survivors, tree.escalated)
        with self.guard.lock:
            self.guard.holder = me
            self.exit = found if forget or not self.forgotten else None
            self.forgotten = self.forgotten or forget
        return found

    def forget(self) -> bool:
        """Be listed no longer, with what nobody has read still to be read by whoever holds it; False: not now."""
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            if self.claimed is not None or self.forgotten:
                return False
            self.forgotten = True
            self.exit = None  # of an end that took nothing
            return True


NONE_OF_BOTH = Streams(0, 0)


def _pair(stdout: int, stderr: int = 0) -> Streams[int]:
    return Streams(stdout, stderr) if stdout or stderr else NONE_OF_BOTH


def _keyboard() -> Keyboard:
    from procpool.keys import Keyboard  # here, because most processes have no terminal

    return Keyboard()


def _first_lines(spans: dict[str, Span], limit: int) -> tuple[dict[str, Span], Positions]:
    """Cut spans to their first `limit` lines, in the order in which they were read."""
    order = sorted(
        ((run[1], name) for name, span in spans.items() for run in span.runs for _ in range(run[0])),
        key=lambda item: item[0],
    )
    cut = {}
    ends = {}
    for name, span in spans.items():
        count = sum(1 for _, other in order[:limit] if other == name)
        runs = []
        left = count
        for lines, number, time_ in span.runs:
            if left > 0:
                runs.append((min(lines, left), number, time_))
                left -= lines
        cut[name] = span.head(count)._replace(runs=tuple(runs))
        ends[name] = Position(span.first + count) if count else Position(span.first, span.skip)
    return cut, ends
