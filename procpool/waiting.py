"""Waiting for what is said: a search through one process's output, and one wait for several processes."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from typing import Any, Optional

from procpool.child import CLOSED, Child, Positions, Waiter
from procpool.duty import Duties, Duty
from procpool.errors import ManagerClosedError
from procpool.output.buffer import Position, Span
from procpool.output.search import QUIET_SECS, Hit, Search
from procpool.snapshot import Match, Wake
from procpool.turn import Turn, earliest


class Searcher:
    """A search through the output of one process while somebody waits for a match; a context manager.

    Until it is left no line that it has not looked at is dropped: the stream is paused instead. Begins where the last
    one ended, and moves that on with a match; with `positions` it begins there and moves nothing.
    """

    def __init__(
        self,
        child: Child,
        patterns: list[Any],
        names: Sequence[str],
        duties: Duties,
        positions: Optional[Positions] = None,
    ) -> None:
        self._child = child
        self._begin = positions
        begin = child.searched_to if positions is None else positions
        self._searches = {name: Search(patterns, begin[name]) for name in names}
        self._held: dict[str, tuple[Hit, float]] = {}  # by stream: a match that may change, and since when it stands
        self._seen: dict[str, tuple[int, bool]] = {}  # by stream: bytes looked at, and whether it had ended
        self._pins = {name: [s.position.line, child.buffers[name].bytes] for name, s in self._searches.items()}
        self._duty = Duty(functools.partial(child.unpin, self._pins), duties)

    def __enter__(self) -> Searcher:
        self._child.pin(self._pins)
        return self

    def __exit__(self, kind: Optional[type[BaseException]], *rest: object) -> None:
        if kind is None or issubclass(kind, Exception):
            self._child.unpin(self._pins)
            self._duty.settled = True
        else:  # Ctrl-C
            self._duty.hand_over()

    @property
    def until(self) -> Optional[float]:
        """When the next match that may change has stood long enough."""
        return earliest(*(since + QUIET_SECS for _, since in self._held.values()))

    @property
    def ended(self) -> bool:
        """Whether all was looked at, and no more will come."""
        return bool(self._seen) and all(ended for _, ended in self._seen.values())

    def news(self) -> Optional[dict[str, Span]]:
        """Return what was not looked at yet, if there is anything. The caller holds the lock."""
        buffers = self._child.buffers
        now = {name: (buffers[name].bytes, buffers[name].ended) for name in self._searches}
        if now == self._seen:
            return None
        self._seen.update(now)
        return {name: buffers[name].since(search.position) for name, search in self._searches.items()}

    def look(self, spans: dict[str, Span]) -> Optional[Match]:
        """Search what came; return the earliest match that stands. Without the lock."""
        child = self._child
        hits: list[tuple[str, Hit]] = []
        now = time.monotonic()
        for name, span in spans.items():
            hit = self._searches[name].look(span.part(name, child.decoding), span.first)
            if hit is None or not hit.unfinished:
                self._held.pop(name, None)
                if hit is not None:
                    hits.append((name, hit))
                continue
            before = self._held.get(name)
            stands = (
                before is not None
                and not hit.grows
                and (before[0].line, before[0].pattern, before[0].match.span())
                == (hit.line, hit.pattern, hit.match.span())
            )
            # A match at the end of the text may grow with every byte: the clock starts again with the last one.
            since = before[1] if before is not None and stands else (child.spoke[name] if hit.grows else now)
            self._held[name] = hit, since
        if hits:
            return self._found(*min(hits, key=lambda item: item[1].order))
        me = child.guard.check()
        with child.guard.lock:
            child.guard.holder = me
            for name, search in self._searches.items():
                self._pins[name][:] = search.position.line, self._seen[name][0]
        child.let_flow()
        return None

    def standing(self, *, ended: bool = False) -> Optional[Match]:
        """Return a match that did not change for long enough (`ended`: that there is now), if there is one."""
        now = math.inf if ended else time.monotonic()
        hits = [(name, hit) for name, (hit, since) in self._held.items() if since + QUIET_SECS <= now]
        return self._found(*min(hits, key=lambda item: item[1].pattern)) if hits else None

    def _found(self, name: str, hit: Hit) -> Match:
        child = self._child
        buffer = child.buffers[name]
        me = child.guard.check()
        with child.guard.lock:
            child.guard.holder = me
            begin = child.searched_to[name] if self._begin is None else self._begin[name]
            span = buffer.since(begin)
            if self._begin is None:
                child.searched_to[name] = max(begin, Position(hit.line, hit.match.end()))
        part = span.part(name, child.decoding)
        lines = part.lines()
        text = part.text
        if hit.line - span.first >= len(lines):
            at = part.tail
        else:
            at = sum(map(len, part.records()[: hit.line - span.first]))
        before = text[part.skip : at + hit.match.start()]
        match = hit.match
        return Match(hit.pattern, name, match.string, before, match.span(), match.groups(), match.groupdict())


class Watch:
    """What one process of several is watched for."""

    def __init__(
        self,
        child: Child,
        *,
        searcher: Optional[Searcher],
        output: bool,
        quiet: Optional[float],
        turn: Optional[Turn],
        positions: Optional[Positions],
        once: bool,
    ) -> None:
        self.child = child
        self.searcher = searcher
        self._output = output
        self._quiet = quiet
        self._turn = turn
        self._positions = positions
        self._once = once  # an exit that was told is not told again
        self._hears = output or any(other is not None for other in (searcher, quiet, turn))
        self._begin = time.monotonic()
        self.over = False  # it has exited, and somebody was told
        self.until: Optional[float] = None  # when to look again, though nothing changed

    def look(self, waiter: Waiter) -> Optional[Wake]:
        """Look for what is waited for; else have the waiter woken at the next change.

        Raises ManagerClosedError, ProcpoolError.
        """
        child = self.child
        searcher = self.searcher
        me = child.guard.check()
        with child.guard.lock:
            child.guard.holder = me
            child.waiters[waiter] = self._hears
            closed, failed = child.closed, child.reader.failure is not None
            spans = None if searcher is None else searcher.news()
            exited = child.exited
            self.over = exited and self._once and child.exit_told
            new = child.news(child.read_to if self._positions is None else self._positions)
            spoke = max(child.spoke.values())
        if searcher is not None:
            match = searcher.look(spans) if spans is not None else None
            # What was said before the exit comes before it, also without a newline.
            match = match or searcher.standing(ended=exited)
            if match is not None:
                return Wake(child.id, "pattern", match, None)
        if exited and self._tell():
            return Wake(child.id, "exit", None, child.returncode)
        if closed:
            raise ManagerClosedError(CLOSED)
        if failed:
            raise child.unwatched()
        if self._output and new:
            return Wake(child.id, "output", None, None)
        quiet_at = None
        if self._quiet is not None:
            # What has been said, and was not read, counts from when it was; a silence, from when we began to wait.
            quiet_at = (spoke if new else max(spoke, self._begin)) + self._quiet
            if time.monotonic() >= quiet_at:
                return Wake(child.id, "quiet", None, None)
        turn = self._turn
        if turn is not None and not exited and turn.look():
            return Wake(child.id, "input", None, None)
        self.until = earliest(
            quiet_at, None if searcher is None else searcher.until, None if turn is None else turn.until
        )
        return None

    def _tell(self) -> bool:
        """Say whether to tell of the exit."""
        child = self.child
        me = child.guard.check()
        with child.guard.lock:
            child.guard.holder = me
            told, child.exit_told = child.exit_told, True
        self.over = self._once and told
        return not self.over


def wait_any(watches: list[Watch], deadline: Optional[float]) -> Optional[Wake]:
    """Wait until one of several processes does what it is watched for; None when the deadline passes.

    Sleeps on all of them at once, and looks again only at those that changed. Raises ValueError when there is none
    left that could still do anything.
    """
    waiter = Waiter()
    due = watches
    try:
        while True:
            for watch in due:
                wake = watch.look(waiter)
                if wake is not None:
                    return wake
            if all(watch.over for watch in watches):
                raise ValueError("there is no process to wait for")
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                return None
            waiter.sleep(earliest(deadline, *(watch.until for watch in watches)))
            now = time.monotonic()
            due = [
                watch
                for watch in watches
                if not watch.child.is_waited_for(waiter) or (watch.until is not None and watch.until <= now)
            ]
    finally:
        for watch in watches:
            watch.child.forget_waiter(waiter)
