"""`Process`: one tree, its stdin, its output, its end."""

from __future__ import annotations

import functools
import math
import signal as _signal
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Optional, Union

from procpool.child import Child, Message
from procpool.duty import Duty
from procpool.errors import (
    EndOfOutputError,
    ProcessNotFoundError,
    StdinClosedError,
    TimeoutExpired,
    WriteTimeoutError,
)
from procpool.output.buffer import Position
from procpool.output.search import QUIET_SECS, Hit, Pattern, Search, compile_patterns
from procpool.snapshot import Exit, Match, Output, ProcessInfo

if TYPE_CHECKING:
    from procpool.manager import ProcessManager
    from procpool.pool import Pool

LAST_LINES = 5  # how many lines of output an error shows
DEFAULT: Any = object()  # a timeout that is not given: the manager's


def seconds(name: str, value: object, *, optional: bool = False) -> Optional[float]:
    """Check a number of seconds. Returns None for None (if `optional`) and for infinity."""
    if value is None and optional:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if math.isnan(value) or value < 0:
        raise ValueError(f"{name} must not be negative: {value}")
    return None if value == math.inf else float(value)


class Process:
    """One process that is kept alive, and all that it starts: its *tree*.

    Like `subprocess.Popen`, but its output is always read, so it never blocks on a full pipe; `kill` ends the whole
    tree; and it can be used from any number of threads. It keeps its manager alive. As a context manager it ends
    its tree on leaving.

    >>> import procpool
    >>> with procpool.spawn("cat") as cat:
    ...     cat.send_line("hello")
    ...     cat.expect("hello").line
    'hello'
    """

    __slots__ = ("_child", "_pool", "_manager", "__weakref__")

    def __init__(self, child: Child, pool: Pool, manager: ProcessManager) -> None:
        self._child = child
        self._pool = pool
        self._manager = manager  # as long as this object lives, so does it

    # States

    @property
    def id(self) -> str:
        """The id that its manager gave it, such as `proc_1`."""
        return self._child.id

    @property
    def agent_id(self) -> str:
        """The agent that it belongs to."""
        return self._child.agent_id

    @property
    def args(self) -> tuple[str, ...]:
        """The command and its arguments."""
        return self._child.argv

    @property
    def pid(self) -> int:
        """The process id of the root."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether the root runs."""
        return not self._child.exited

    @property
    def returncode(self) -> Optional[int]:
        """The exit code of the root, minus a signal's number; None while it runs, or where it cannot be known."""
        return self._child.returncode if self._child.exited else None

    # Input

    def write(self, data: Union[str, bytes], *, timeout: Optional[float] = DEFAULT) -> int:
        """Write the whole of `data` to stdin and return its length in bytes; nothing is appended.

        Waits while the pipe is full, until the process has read enough, up to `timeout` seconds (default: the
        manager's; None: for ever). Messages of several writers never mix.

        Raises `WriteTimeoutError` or `StdinClosedError`, each with `written`; UnicodeEncodeError for text that the
        process's encoding lacks (then nothing is written).
        """
        child = self._check()
        limit = self._timeout(timeout)
        deadline = None if limit is None else time.monotonic() + limit
        if isinstance(data, str):
            data = data.encode(child.decoding.encoding)
        elif not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be str or bytes, not {type(data).__name__}")
        message = Message(bytes(data))
        stdin = child.stdin
        if stdin is None:
            message.closed = True
        else:
            try:
                stdin.put(message)
                if not message.done:
                    child.wait_until(lambda: message.done or None, deadline)
            finally:
                if not message.done:
                    stdin.take_back(message)
        if message.closed:
            raise StdinClosedError(
                "Process stdin is closed",
                self._describe(f"{message.written} of {len(message.data)} bytes were written"),
                process_id=child.id,
                written=message.written,
            )
        if not message.done:
            raise WriteTimeoutError(
                f"Process {child.id!r} took {message.written} of {len(message.data)} bytes in {limit} seconds",
                self._describe("it does not read its stdin"),
                process_id=child.id,
                cmd=list(child.argv),
                timeout=limit,
                output=None,
                written=message.written,
            )
        child.active = time.monotonic()
        return len(message.data)

    def send_line(self, line: str = "", *, timeout: Optional[float] = DEFAULT) -> int:
        """Write a line and its newline; otherwise as `write`."""
        if not isinstance(line, str):
            raise TypeError(f"line must be a str, not {type(line).__name__}")
        return self.write(line + "\n", timeout=timeout)

    def close_stdin(self) -> None:
        """Close stdin: the process reads an end of file. Waits for nobody; blocked writers are released."""
        child = self._check()
        if child.stdin is not None:
            child.stdin.close()

    # Output

    def read(self, *, timeout: float = 0.0, since: Optional[str] = None, max_lines: Optional[int] = None) -> Output:
        """Return what nobody has read yet.

        Waits up to `timeout` seconds for something new (an unfinished line counts), not at all if all output has
        ended. With `since`, a cursor from an earlier `Output` (`""`: the oldest that is kept), returns what came
        after it, and takes nothing: any number of readers can follow one process, and ask again.
        `max_lines` leaves the rest for the next read.
        """
        child = self._check(after_close=since is not None)
        limit = seconds("timeout", timeout)
        deadline = None if limit is None else time.monotonic() + limit
        if max_lines is not None:
            whole_number("max_lines", max_lines)
        positions = None if since is None else child.positions(since)
        if positions is not None:
            self._check_cursor(positions, since)

        def news() -> Optional[Any]:
            where = child.read_to if positions is None else positions
            if not child.eof and not child.news(where):
                return None
            return child.take(max_lines) if positions is None else child.look(positions, max_lines)

        view = child.wait_until(news, deadline)
        if view is None:
            me = child.guard.check()
            with child.guard.lock:
                child.guard.holder = me
                view = child.take(max_lines) if positions is None else child.look(positions, max_lines)
        return child.render(view)

    def tail(self, n: int = 20) -> Output:
        """Return the newest `n` lines of each stream, and the unfinished ones; nothing is taken."""
        child = self._check(after_close=True)
        whole_number("n", n)
        me = child.guard.check()
        with child.guard.lock:
            child.guard.holder = me
            view = child.look({name: buffer.tail(n) for name, buffer in child.buffers.items()})
        return child.render(view)

    def expect(
        self,
        pattern: Union[Pattern, Sequence[Pattern]],
        timeout: Optional[float] = DEFAULT,
        *,
        stream: Optional[str] = None,
    ) -> Match:
        r"""Wait until a line of output matches a regular expression, and return the earliest match.

        Looks at the lines of both streams, or of one (`"stdout"`, `"stderr"`), from where the last `expect` ended
        on that stream, the unfinished line included; of several patterns the one that matches first wins. Takes
        nothing from `read`. A match in an unfinished line stands when the line ends, or after 20 ms in which it
        did not change. A pattern never matches across lines.

        Waits up to `timeout` seconds (default: the manager's; None: for ever). Raises `TimeoutExpired`, or
        `EndOfOutputError` when the output ended without a match.

        >>> import procpool
        >>> with procpool.spawn("echo", ["listening on port 8000"]) as server:
        ...     server.expect(r"port (\d+)")[1]
        '8000'
        """
        child = self._check()
        patterns = compile_patterns(pattern)  # type: ignore[arg-type]
        limit = self._timeout(timeout)
        deadline = None if limit is None else time.monotonic() + limit
        if stream is not None and stream not in child.buffers:
            raise ValueError(f"stream must be one of {', '.join(child.buffers)}, not {stream!r}")
        names = list(child.buffers) if stream is None else [stream]
        return _Expect(self, patterns, names, limit, deadline).run()

    # The end

    def wait(self, timeout: Optional[float] = None) -> Optional[int]:
        """Wait until the root exits and return its exit code; all that it wrote before can then be read.

        Like `Popen.wait`, but the code is None where it cannot be known. Waits up to `timeout` seconds (default:
        for ever). Raises `TimeoutExpired`.
        """
        child = self._check()
        limit = seconds("timeout", timeout, optional=True)
        deadline = None if limit is None else time.monotonic() + limit
        if child.wait_until(lambda: child.exited or None, deadline) is None:
            self._expired("its exit", limit)
        return child.returncode

    def kill(self, *, grace: Optional[float] = None) -> Exit:
        """End the whole tree, forget the process, and say how it ended, with the output that nobody had read.

        TERM and CONT go to all members; what is left after `grace` seconds (default: the manager's) is killed.
        Returns as soon as no member is alive. Members that cannot be ended are named in `Exit.survivors` after
        `grace` + 2 s at the latest; the process is then kept, and can be killed again. Callers in several threads
        share one `Exit`. Raises `ProcessNotFoundError` if it was killed before.
        """
        child = self._check()
        if grace is not None:
            grace = seconds("grace", grace)
            if grace is None:
                raise ValueError("grace must be finite")
        if child.forgotten:
            raise not_found(child.id)
        return self._pool.end([child], grace=grace, by="kill")[child.id]

    def terminate(self) -> None:
        """Send TERM, then CONT, to all members of the tree, and return; the process stays listed."""
        self._pool.terminate(self._check())

    def send_signal(self, sig: int) -> None:
        """Send a signal to the root; nothing if it has exited, as `Popen.send_signal`."""
        child = self._check()
        if isinstance(sig, bool) or not isinstance(sig, int):
            raise TypeError(f"sig must be a signal number, not {type(sig).__name__}")
        if sig not in _signal.valid_signals() and sig != 0:
            raise ValueError(f"sig is not a signal: {sig}")
        child.send(sig)

    def interrupt(self) -> None:
        """Send SIGINT to the root's process group, as Ctrl-C in a terminal does."""
        self._check().send(_signal.SIGINT, group=True)

    # Facts

    def info(self) -> ProcessInfo:
        """Return a snapshot of what is known."""
        child = self._check(after_close=True)
        me = child.guard.check()
        with child.guard.lock:
            child.guard.holder = me
            return child.info()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if not self._child.forgotten:
            try:
                self.kill()
            except ProcessNotFoundError:
                pass  # somebody else was quicker

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Process cannot be pickled: pass its id")

    def __repr__(self) -> str:
        child = self._child
        state = f"exited {child.returncode}" if child.exited else f"running, pid {child.pid}"
        return f"<Process {child.id} [{child.command}]: {state}>"

    # Helpers

    def _check(self, *, after_close: bool = False) -> Child:
        if not after_close:
            self._pool.check()
        return self._child

    def _check_cursor(self, positions: dict[str, Position], cursor: Optional[str]) -> None:
        child = self._child
        if any(position.line > child.buffers[name].lines for name, position in positions.items()):
            raise ValueError(f"since is not a cursor of this process: {cursor!r} is ahead of its output")

    def _timeout(self, timeout: Any) -> Optional[float]:
        if timeout is DEFAULT:
            return self._manager.timeout
        return seconds("timeout", timeout, optional=True)

    def _describe(self, what: str) -> str:
        """Say what a person needs to know: the process, its state, its last lines."""
        child = self._child
        tail = self.tail(LAST_LINES)
        state = f"exited with {child.returncode}" if child.exited else f"running, pid {child.pid}"
        lines = [what] if what else []
        lines.append(f"process {child.id} [{child.command}]: {state}")
        said = tail.text.splitlines()[-LAST_LINES:]
        lines += [f"  | {line[:200]}" for line in said] if said else ["it has said nothing"]
        return "\n".join(lines)

    def _expired(self, what: str, limit: Optional[float], hint: str = "") -> NoReturn:
        child = self._child
        detail = self._describe("")
        raise TimeoutExpired(
            f"Process {child.id!r} did not give {what} in {limit} seconds",
            f"{detail}\n{hint}" if hint else detail,
            process_id=child.id,
            cmd=list(child.argv),
            timeout=limit,
            output=self.tail(LAST_LINES),
        )


class _Expect:
    """One `expect` while it waits."""

    def __init__(
        self,
        process: Process,
        patterns: list[Any],
        names: list[str],
        limit: Optional[float],
        deadline: Optional[float],
    ) -> None:
        self.process = process
        self.child = process._child
        self.patterns = patterns
        self.limit = limit
        self.deadline = deadline
        self.searches = {name: Search(patterns, self.child.searched_to[name]) for name in names}
        self.held: dict[str, tuple[Any, float]] = {}  # by stream: a match that may change, and since when it stands

    def run(self) -> Match:
        child = self.child
        pins = {name: [s.position.line, child.buffers[name].bytes] for name, s in self.searches.items()}
        duty = Duty(functools.partial(child.unpin, pins), self.process._pool.duties)
        try:
            child.pin(pins)
            return self._wait(pins)
        except Exception:
            raise
        except BaseException:  # Ctrl-C; it is raised again
            duty.hand_over()
            raise
        finally:
            if not duty.settled:
                child.unpin(pins)
                duty.settled = True

    def _wait(self, pins: dict[str, list[int]]) -> Match:
        child = self.child
        seen: dict[str, tuple[int, bool]] = {}

        def news() -> Optional[dict[str, Any]]:
            """Take a look at what was not looked at yet. Under the lock."""
            now = {name: (child.buffers[name].bytes, child.buffers[name].ended) for name in self.searches}
            if now == seen:
                return None
            seen.update(now)
            return {name: child.buffers[name].since(s.position) for name, s in self.searches.items()}

        while True:
            wake_at = min((since + QUIET_SECS for _, since in self.held.values()), default=None)
            until = self.deadline
            if wake_at is not None:
                until = wake_at if until is None else min(until, wake_at)
            spans = child.wait_until(news, until)
            now = time.monotonic()
            if spans is None:
                hits = [(name, hit) for name, (hit, since) in self.held.items() if since + QUIET_SECS <= now]
                if hits:
                    return self._found(*min(hits, key=lambda item: item[1].pattern))
                if self.deadline is not None and now >= self.deadline:
                    wanted = " or ".join(repr(pattern.pattern) for pattern in self.patterns)
                    self.process._expired(
                        f"a line that matches {wanted}",
                        self.limit,
                        "it may be holding its output back until more is there: try python -u, stdbuf -oL, or a pty",
                    )
                continue
            found = self._look(spans)
            if found is not None:
                return self._found(*found)
            me = child.guard.check()
            with child.guard.lock:
                child.guard.holder = me
                for name, search in self.searches.items():
                    pins[name][:] = search.position.line, seen[name][0]
            child.let_flow()
            if all(ended for _, ended in seen.values()):
                self._ended()

    def _look(self, spans: dict[str, Any]) -> Optional[tuple[str, Hit]]:
        """Search what came; return the earliest match that stands. Without the lock."""
        child = self.child
        hits: list[tuple[str, Hit]] = []
        now = time.monotonic()
        for name, span in spans.items():
            hit = self.searches[name].look(span.part(name, child.decoding), span.first)
            if hit is None or not hit.unfinished:
                self.held.pop(name, None)
                if hit is not None:
                    hits.append((name, hit))
                continue
            before = self.held.get(name)
            stands = (
                before is not None
                and not hit.grows
                and (before[0].line, before[0].pattern, before[0].match.span())
                == (hit.line, hit.pattern, hit.match.span())
            )
            # A match at the end of the text may grow with every byte: the clock starts again with the last one.
            since = before[1] if before is not None and stands else (child.spoke[name] if hit.grows else now)
            self.held[name] = hit, since
        if not hits:
            return None
        return min(hits, key=lambda item: item[1].order)

    def _found(self, name: str, hit: Hit) -> Match:
        child = self.child
        buffer = child.buffers[name]
        me = child.guard.check()
        with child.guard.lock:
            child.guard.holder = me
            begin = child.searched_to[name]
            span = buffer.since(begin)
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

    def _ended(self) -> NoReturn:
        process, child = self.process, self.child
        if not child.exited:
            child.wait_until(lambda: child.exited or None, time.monotonic() + QUIET_SECS)
        wanted = " or ".join(repr(pattern.pattern) for pattern in self.patterns)
        raise EndOfOutputError(
            f"Process {child.id!r} ended its output without a line that matches {wanted}",
            process._describe(""),
            process_id=child.id,
            output=process.tail(LAST_LINES),
            returncode=process.returncode,
        )


def whole_number(name: str, value: object, *, least: int = 1) -> int:
    """Check a count."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}: {value}")
    return value


def not_found(process_id: str) -> ProcessNotFoundError:
    """Make the error for an id that is not there."""
    return ProcessNotFoundError(f"Process {process_id!r} not found", process_id=process_id)
