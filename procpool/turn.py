"""Whose turn it is: whether a process waits for input, and the exchange of a line and its answer."""

from __future__ import annotations

import functools
import re
import time
from typing import Optional

from procpool.child import CLOSED, Child, Positions, Standing, Waiter
from procpool.duty import Duties, Duty
from procpool.errors import ManagerClosedError
from procpool.output.search import QUIET_SECS, Pattern, compile_patterns
from procpool.snapshot import Output, Part
from procpool.system import System

ANSWER_SECS = 0.0002  # how long an answer may take to begin before we look
LISTEN_SECS = 0.002  # and for how long the asker itself reads it
FIRST_PAUSE_SECS = 0.00005  # how soon we look again after a change; it doubles,
STANDS_SECS = 0.01  # for how long it is believed that a process still waits which was seen to
MOST_PROMPTS = 16  # that are remembered, of those that change all the time (`In [1]: `)
LONGEST_PROMPT = 1000  # characters; more is the end of an answer
LAST_PAUSE_SECS = 0.02  # up to this, or to
FIRST_FACTOR = 8  # at least so many times what a look costs: who waits for a large tree looks less often,
COST_FACTOR = 200  # and at most so many times, or the above: an idle wait takes less than a hundredth of a core
# A look before which the machine made no other process is a cheap one, and tells little of the next. So what one costs
# is forgotten by and by; else the dear one behind a cheap one would be followed by a short pause.
FORGET_FACTOR = 0.8


def earliest(*moments: Optional[float]) -> Optional[float]:
    """Return the earliest of some moments, None being never."""
    return min((moment for moment in moments if moment is not None), default=None)


Sizes = tuple[int, int]  # how many messages went in, and how many bytes came out


def standing(prompt: Optional[Pattern], quiet: Optional[float]) -> Standing:
    """Check a prompt. Raises TypeError or ValueError."""
    if prompt is None:
        return Standing(None, quiet)
    if isinstance(prompt, (list, tuple)):
        raise TypeError("prompt must be one pattern, not a list")
    return Standing(compile_patterns(prompt, "prompt")[0], quiet)


def _plain(text: str) -> str:
    from procpool.plain import plain  # most processes are never asked for it

    return plain(text)


def _ends_with(text: str, prompt: re.Pattern[str]) -> bool:
    return any(match.end() == len(text) for match in prompt.finditer(text))


class Turn:
    """One call's look at whether a process waits for input.

    True only if, asked in this order, nothing unread lies in its pipe or terminal, a thread of its tree is blocked
    waiting for just that while no other one runs, and all that it wrote has been read.
    """

    def __init__(self, child: Child, system: System, otherwise: Standing, *, shared: bool = False) -> None:
        self._child = child
        self._otherwise = otherwise
        evidence = child.evidence if shared else None
        if evidence is None and child.stdin is not None:
            try:
                evidence = system.evidence(child.tree.copy(), child.stdin.device)
            except OSError:
                pass  # there are no more fds, or the kernel is an old one: nothing can be known
        if shared:
            child.evidence = evidence
        self._evidence = evidence
        self._begin = time.monotonic()
        self._not_before = self._listen_until = 0.0
        self._said = 0  # how many bytes had come out at the begin
        self._pause = FIRST_PAUSE_SECS
        self._cost = 0.0  # what a look costs, in seconds of this thread's CPU time
        self._before: Optional[Sizes] = None
        self._proven = False  # it waits, by evidence
        self.until: Optional[float] = None  # when to look again, though nothing changed

    @property
    def blind(self) -> bool:
        """Whether there is no evidence here, and nothing else that would do."""
        return (self._evidence is None or self._evidence.blind) and self._otherwise == Standing()

    @property
    def possible(self) -> bool:
        """Whether it has a stdin that is open."""
        return self._child.stdin is not None and not self._child.stdin.closed

    @property
    def soon(self) -> bool:
        """Whether it looks as if the process waits, and a second look will tell."""
        return self._evidence is not None and self._evidence.again > 0

    @property
    def stands(self) -> bool:
        """Whether an earlier asker saw just now that the process waits, and nothing went in or came out since."""
        stood = self._child.stood
        if stood is None or not self.possible:
            return False
        sizes, moment = stood
        return sizes == self._sizes() and time.monotonic() - moment < STANDS_SECS

    def begin(self) -> None:
        """Count silence from now on, just before a line is written. `wait` has to be next.

        Most programs answer at once: it would be in vain to look before, and for those the asker itself listens. As
        little as can be is done between the write and that: they may share a CPU.
        """
        _, self._said = self._sizes()
        self._begin = time.monotonic()
        self._not_before = self._begin + ANSWER_SECS
        if self._evidence is not None and self._child.hush():
            self._listen_until = self._begin + LISTEN_SECS

    def note(self) -> None:
        """Remember, if there is evidence, that the process waits; see `stands`."""
        sizes = self._sizes()
        self._child.stood = (sizes, time.monotonic()) if self._proven and self._before == sizes else None

    def look(self, *, asked: bool = False) -> Optional[bool]:
        """Say whether the process waits for input; None where it cannot be known.

        False if its stdin was closed; not if it was `asked` before that: it may still answer, and wait again.
        """
        child = self._child
        now = time.monotonic()
        used = time.thread_time()
        self.until = None
        self._proven = False
        if child.exited or not (asked or self.possible):
            return False
        sizes = self._sizes()
        if sizes != self._before:
            self._before = sizes
            self._pause = FIRST_PAUSE_SECS
        if now < self._not_before and sizes[1] == self._said:
            self.until = self._not_before
            return False
        at = None
        found = self._look(sizes[0])
        self._proven = found is True
        if found is None:
            found, at = self._otherwise_stands()
        again = 0.0 if self._evidence is None else self._evidence.again
        after = time.monotonic()
        cost = time.thread_time() - used
        self._cost = max(cost, self._cost * FORGET_FACTOR)
        self._pause = min(max(self._pause * 2, FIRST_FACTOR * cost), max(LAST_PAUSE_SECS, COST_FACTOR * self._cost))
        self.until = min(after + (again or self._pause), at or after + self._pause)
        return found

    def wait(self, deadline: Optional[float], *, patient: bool = False) -> Optional[bool]:
        """Wait until the process waits for input; False: it has exited, or has no stdin; None: the deadline passed.

        None comes at once where there is nothing to know it from; not if `patient`, for the answer to a line: that may
        change. Raises ManagerClosedError, ProcpoolError.
        """
        child = self._child
        if self._listen_until and self._listen(deadline):
            return True
        waiter = Waiter()
        try:
            while True:
                me = child.guard.check()
                with child.guard.lock:
                    child.guard.holder = me
                    child.waiters[waiter] = True
                    closed, failed, exited = child.closed, child.reader.failure is not None, child.exited
                found = self.look(asked=patient)
                if found:
                    return True
                if exited or not (patient or self.possible):
                    return False
                if closed:
                    raise ManagerClosedError(CLOSED)
                if failed:
                    raise child.unwatched()
                blind = found is None and self.blind and not patient
                if blind or (deadline is not None and time.monotonic() >= deadline):
                    return None
                waiter.sleep(earliest(deadline, self.until))
        finally:
            child.forget_waiter(waiter)

    def _listen(self, deadline: Optional[float]) -> bool:
        """Wait as `wait` does, but read what comes ourselves; False: the reader thread does so from now on."""
        latest = self._listen_until if deadline is None else min(deadline, self._listen_until)
        until = self._not_before
        while time.monotonic() < latest and self._child.listen(min(until, latest)):
            if self.look():
                return True
            until = latest if self.until is None else self.until
        self._listen_until = 0.0
        self._child.heed()
        return False

    def _look(self, messages: int) -> Optional[bool]:
        """Ask the kernel."""
        stdin = self._child.stdin
        if self._evidence is None or stdin is None:
            return None
        try:
            if stdin.unread:
                return False
            found = self._evidence.look(lenient=self._otherwise != Standing())
            if found:
                said = None if stdin.unread or stdin.messages != messages else self._child.drained()
                if said is None:
                    return False
                self._before = messages, said  # more may have come since we began to look
        except OSError:
            return None  # there are no more fds
        return found

    def _sizes(self) -> Sizes:
        child = self._child
        messages = 0 if child.stdin is None else child.stdin.messages
        return messages, sum([buffer.bytes for buffer in child.buffers.values()])

    def _otherwise_stands(self) -> tuple[Optional[bool], Optional[float]]:
        """Say whether what was agreed on in place of evidence holds, and when that may change by itself."""
        child = self._child
        prompt, quiet = self._otherwise
        me = child.guard.check()
        with child.guard.lock:
            child.guard.holder = me
            fresh = {} if prompt is None else child.fresh()
            spoke = max(child.spoke.values())
        at = None
        if prompt is not None and any(_ends_with(_plain(text), prompt) for text in fresh.values()):
            at = spoke + QUIET_SECS
        if quiet is not None:
            at = earliest(at, max(spoke, self._begin) + quiet)
        if at is None:
            return None, None
        return (True, None) if time.monotonic() >= at else (None, at)


class Prompts:
    """What stands at the end of one stream when it is the caller's turn, as far as that is known.

    Nothing of an answer must be lost, so only what was a prompt for sure is taken for one: the text that stood there
    before the first question, and what took its place since. A program that began without a prompt has none: what it
    ends with are answers without a newline, and the same one may come twice.
    """

    __slots__ = ("_known", "_stands")

    def __init__(self, text: str) -> None:
        self._known = [text]  # the first one first
        self._stands: Optional[int] = 0 if text else None  # which of them stands there now

    def see(self, unfinished: str) -> Optional[int]:
        """Take note of what stands there now, behind an answer's last newline; return which of the known ones it is.

        That is, the longest that fits: behind an answer without a newline, or alone.
        """
        found = {number: prompt for number, prompt in enumerate(self._known) if prompt and unfinished.endswith(prompt)}
        if not found and 0 < len(unfinished) <= LONGEST_PROMPT:
            shown = _plain(unfinished)
            bare = unfinished[unfinished.rfind("\r") + 1 :]  # without the codes that end a line of input
            text = bare if _plain(bare) == shown else unfinished
            # The same one may come with other codes, such as a title.
            found = {number: text for number, prompt in enumerate(self._known) if shown == _plain(prompt) != ""}
            self._known = [found.get(number, prompt) for number, prompt in enumerate(self._known)]
            if not found and self._stands is not None:
                self._known = [self._known[0], *self._known[1:][1 - MOST_PROMPTS :], text]
                self._stands = len(self._known) - 1
                return None
        self._stands = max(found, key=lambda number: len(found[number]), default=None)
        return self._stands

    def size(self, unfinished: str) -> int:
        """Return how many characters at the end are the first prompt, or the one that stood before; take note of it."""
        before = self._stands
        known = self.see(unfinished)
        return 0 if known is None or known not in (0, before) else len(self._known[known])


def _once(text: str) -> str:
    """Return what a text begins and ends with, at the shortest: a prompt, where lines were written before it came."""
    most = min(len(text), LONGEST_PROMPT)
    sizes = range(len(text) - len(text.lstrip()) + 1, most)  # no prompt is blank
    return next((text[:size] for size in sizes if text.endswith(text[:size])), text)


def _first_prompt(whole: str, fresh: str) -> str:
    """Return the prompt that an unfinished line ends with; `fresh` is what came of it since the last of several writes.

    It may stand there several times, and behind answers without a newline.
    """
    once = _once(whole)
    return once if once != whole else _once(fresh or whole)


def _ending(prompt: re.Pattern[str], text: str) -> int:
    """Return how many characters at the end of a text a prompt matches, with the escape codes in and around it."""
    size = max((len(match[0]) for match in prompt.finditer(text) if match.end() == len(text)), default=0)
    shown = _plain(text)
    if size or shown == text:
        return size
    known = max((len(match[0]) for match in prompt.finditer(shown) if match.end() == len(shown)), default=0)
    sizes = range(known, min(len(text), LONGEST_PROMPT) + 1)
    return max((size for size in sizes if _plain(text[-size:]) == shown[-known:]), default=0) if known else 0


class Exchange:
    """A caller's turn to ask, from when it comes until it is left, and the answer; a context manager."""

    def __init__(self, child: Child, duties: Duties, prompt: Optional[re.Pattern[str]] = None) -> None:
        self._child = child
        self._prompt = prompt  # what the caller says it is
        self._place = object()  # not this very object, which the duty must not keep alive
        self._duty = Duty(functools.partial(child.step_out, self._place), duties)
        self._begin: Positions = {}

    def __enter__(self) -> Exchange:
        self._child.line_up(self._place)
        return self

    def __exit__(self, kind: Optional[type[BaseException]], *rest: object) -> None:
        if kind is None or issubclass(kind, Exception):
            self._child.step_out(self._place)
            self._duty.settled = True
        else:  # Ctrl-C
            self._duty.hand_over()

    def come(self, deadline: Optional[float]) -> bool:
        """Wait until all who came before are served; False when the deadline passes."""
        child = self._child
        return bool(child.wait_until(lambda: child.askers[0] is self._place or None, deadline))

    def begin(self) -> None:
        """Note where the output stands, just before the line is written."""
        child = self._child
        me = child.guard.check()
        with child.guard.lock:
            child.guard.holder = me
            self._begin = {name: buffer.end(child.decoding) for name, buffer in child.buffers.items()}
            fresh = child.fresh()
            if child.prompts:
                for name, text in fresh.items():
                    child.prompts[name].see(text)
            else:
                written = child.stdin is not None and child.stdin.messages
                child.prompts = {
                    name: Prompts(_first_prompt(text, fresh[name]) if written else text)
                    for name, text in child.fresh(since_write=False).items()
                }

    def answer(self, sent: Optional[str], *, take: bool) -> Output:
        """Return what came since, without the prompt that stands again; `take`: read and expect go on behind it."""
        child = self._child
        me = child.guard.check()
        with child.guard.lock:
            child.guard.holder = me
            view = child.look(self._begin)
            if take:
                child.pass_over(view.ends)
        return child.render(view, sent, self._cut if take else Part.rest)

    def _cut(self, part: Part) -> Part:
        """Leave out the prompt that stood before, and the one that stands now."""
        part = part.rest()
        unfinished = part.text[part.tail :]
        size = self._child.prompts[part.stream].size(unfinished)
        if self._prompt is not None:
            size = max(size, _ending(self._prompt, unfinished))
        return part._replace(text=part.text[: len(part.text) - size]) if size else part
