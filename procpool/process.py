"""`Process`: one tree, its stdin, its output, its end."""

from __future__ import annotations

import signal as _signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Callable, NoReturn, Optional, TextIO, Union

from procpool.child import Child, Positions, Standing, View
from procpool.errors import (
    EndOfOutputError,
    ProcessNotFoundError,
    StdinClosedError,
    TimeoutExpired,
    WriteTimeoutError,
)
from procpool.output.search import QUIET_SECS, Pattern, compile_patterns
from procpool.snapshot import Exit, Line, Match, Output, ProcessInfo, Screen, Usage, printable
from procpool.stdin import Message
from procpool.turn import Exchange, Turn, earliest, standing
from procpool.waiting import Searcher

if TYPE_CHECKING:
    from concurrent.futures import Future

    from procpool.manager import ProcessManager
    from procpool.pool import Pool

LOOK_SECS = 0.06  # how long a program that does not stand still is watched
MOST_ROWS = 65_535
LAST_LINES = 5  # how many lines of output an error shows
DEFAULT: Any = object()  # a timeout that is not given: the manager's


LONGEST_SECS = 1e18  # more is for ever


def seconds(name: str, value: object, *, optional: bool = False) -> Optional[float]:
    """Check a number of seconds. Returns None for None (if `optional`) and for ever."""
    if value is None and optional:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not value >= 0:
        raise ValueError(f"{name} must be a number of seconds, and not negative: {value}")
    return float(value) if value <= LONGEST_SECS else None


class Process:
    """One process that is kept alive, and all that it starts: its *tree*.

    Like `subprocess.Popen`, but its output is always read, so it never blocks on a full pipe; `kill` ends the whole
    tree; and it can be used from any number of threads. It keeps its manager alive. As a context manager it ends
    its tree on leaving.

    >>> import procpool
    >>> with procpool.spawn("cat") as cat:
    ...     cat.ask("hello").stdout
    ['hello']
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
        process's encoding lacks, ValueError for a line that a terminal would cut (4095 bytes where it takes its input
        line by line); then nothing is written.
        """
        child = self._check()
        limit = self._timeout(timeout)
        deadline = None if limit is None else time.monotonic() + limit
        if isinstance(data, str):
            data = data.encode(child.decoding.encoding)
        elif not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be str or bytes, not {type(data).__name__}")
        return self._write(child, bytes(data), limit, deadline)

    def _write(self, child: Child, data: bytes, limit: Optional[float], deadline: Optional[float]) -> int:
        message = Message(data)
        stdin = child.stdin
        if stdin is None:
            message.closed = True
        else:
            if child.terminal is not None:
                child.terminal.check(data)
            child.wrote_at = {name: buffer.bytes for name, buffer in child.buffers.items()}
            try:
                stdin.put(message)
                if not message.done:
                    child.heed()  # it may have to write before it reads on
                    child.wait_until(lambda: message.done or None, deadline)
            finally:
                if not message.done:
                    stdin.take_back(message)
        if message.closed:
            raise StdinClosedError(
                "Process stdin is closed",
                self._describe(f"{message.written} of {len(data)} bytes were written"),
                process_id=child.id,
                written=message.written,
            )
        if not message.done:
            raise WriteTimeoutError(
                f"Process {child.id!r} took {message.written} of {len(data)} bytes in {limit} seconds",
                self._describe("it does not read its stdin"),
                process_id=child.id,
                cmd=list(child.argv),
                timeout=limit,
                output=None,
                written=message.written,
            )
        return len(data)

    def send_line(self, line: str = "", *, timeout: Optional[float] = DEFAULT) -> int:
        """Write a line and what ends it: a newline, or what Enter sends to a terminal; otherwise as `write`."""
        child = self._check()
        data = _line(child, line)
        limit = self._timeout(timeout)
        return self._write(child, data, limit, None if limit is None else time.monotonic() + limit)

    def send_keys(self, *keys: str, timeout: Optional[float] = DEFAULT) -> int:
        """Press keys on the process's terminal; otherwise as `write`.

        Each is a character or a name (`"Enter"`, `"Up"`, `"F5"`, ...), with `C-` (control), `M-` (meta, Alt) or `S-`
        (shift) before it: what xterm sends for it is written, in the form that the program has asked for. Raises
        ValueError for what is no key, and for a process without a terminal; nothing is written then.
        """
        from procpool.keys import sequence

        keyboard = self._terminal("send_keys").keyboard
        return self.write("".join(sequence(key, application=keyboard.application) for key in keys), timeout=timeout)

    def paste(self, text: str, *, timeout: Optional[float] = DEFAULT) -> int:
        """Paste text into the process's terminal: marked as a paste, where the program asks for that.

        Newlines are what Enter sends. Otherwise as `write`. Raises ValueError for a process without a terminal.
        """
        if not isinstance(text, str):
            raise TypeError(f"text must be a str, not {type(text).__name__}")
        return self.write(self._terminal("paste").keyboard.paste(text), timeout=timeout)

    def resize(self, rows: int, cols: int) -> None:
        """Change the size of the terminal; the kernel tells the programs on it, by SIGWINCH.

        Raises ValueError for a process without a terminal, and for a size that none can have.
        """
        child = self._terminal("resize")
        child.size = terminal_size((rows, cols))
        child.terminal.resize(*child.size)

    def screen(self) -> Screen:
        """Return what the terminal shows: for programs that fill the screen (extra `screen`: the library pyte).

        The output is fed to an emulator when this is called, from the oldest that is kept on; what a program asked its
        terminal (where the cursor is, what it is) is answered then. Look again before more is written than is kept.
        After `wait_for_input` everything that the program wrote is shown. Raises ValueError for a process without a
        terminal, ModuleNotFoundError without pyte.
        """
        child = self._terminal("screen")
        if child.emulator is None:
            from procpool.screen import Emulator

            emulator = Emulator(child)
            me = child.guard.check()
            with child.guard.lock:
                child.guard.holder = me
                child.emulator = child.emulator or emulator
        found: Screen = child.emulator.look()
        return found

    def close_stdin(self) -> None:
        """Close stdin: the process reads an end of file. Waits for nobody; blocked writers are released.

        On a terminal the end-of-file character is written, which is what Ctrl-D does. A program with line editing takes
        it at its prompt alone: wait for input first.
        """
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
        child = self._check()
        limit = seconds("timeout", timeout)
        if max_lines is not None:
            whole_number("max_lines", max_lines)
        positions = None if since is None else self._positions(since)

        def take() -> View:
            return child.take(max_lines) if positions is None else child.look(positions, max_lines)

        def news() -> Optional[View]:
            return take() if child.eof or child.news(child.read_to if positions is None else positions) else None

        view = None
        if limit != 0:
            view = child.wait_until(news, None if limit is None else time.monotonic() + limit, output=True)
        if view is None:
            me = child.guard.check()
            with child.guard.lock:
                child.guard.holder = me
                view = take()
        return child.render(view)

    def tail(self, n: int = 20) -> Output:
        """Return the newest `n` lines of each stream, and the unfinished ones; nothing is taken."""
        child = self._check()
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
        wanted = " or ".join(repr(pattern.pattern) for pattern in patterns)
        with Searcher(child, patterns, names, self._pool.duties) as searcher:
            while True:
                spans = child.wait_until(searcher.news, earliest(deadline, searcher.until), output=True)
                match = searcher.look(spans) if spans is not None else searcher.standing()
                if match is not None:
                    return match
                if searcher.ended:
                    break
                if deadline is not None and time.monotonic() >= deadline:
                    self._expired(
                        f"a line that matches {wanted}",
                        limit,
                        "it may be holding its output back until more is there: try python -u or stdbuf -oL",
                    )
        if not child.exited:
            child.wait_until(lambda: child.exited or None, time.monotonic() + QUIET_SECS)
        raise EndOfOutputError(
            f"Process {child.id!r} ended its output without a line that matches {wanted}",
            self._describe(""),
            process_id=child.id,
            output=self.tail(LAST_LINES),
            returncode=self.returncode,
        )

    # Turns

    @property
    def waiting_for_input(self) -> Optional[bool]:
        """Whether the process waits for input, by the kernel's own evidence (Linux); None where it cannot be known.

        True only if a thread of the tree is blocked waiting for stdin (or the terminal) alone, nothing unread lies in
        it, no other thread of the tree runs, and all output has been read. None without evidence: another system, a
        process that we may not look into (another user's, ssh-agent), or a wait that is for other things, too, such
        as an event loop's with a socket. A program that naps or waits with a timeout is watched for up to 60 ms.
        """
        turn = Turn(self._check(), self._pool.system, Standing())
        found = turn.look()
        if found is False and turn.soon:
            return bool(turn.wait(time.monotonic() + LOOK_SECS))
        return found

    def wait_for_input(self, timeout: Optional[float] = DEFAULT) -> Optional[bool]:
        """Wait until the process waits for input, as `waiting_for_input` says, and return True.

        Where the process was started with `prompt` or `quiet` these do in place of missing evidence, and where one
        thread waits beside others that never rest. Returns False
        when it exits instead, or has no stdin; None if there is no evidence: at once where there cannot be any, else
        after `timeout`. Waits up to `timeout` seconds (default: the manager's; None: for ever). Raises
        `TimeoutExpired`.

        >>> import procpool
        >>> with procpool.spawn("cat") as cat:
        ...     cat.wait_for_input()
        True
        """
        limit = self._timeout(timeout)
        child = self._check()
        turn = Turn(child, self._pool.system, child.otherwise)
        found = turn.wait(None if limit is None else time.monotonic() + limit)
        if found is None and not turn.blind:
            found = turn.look()
            if found is False:
                self._expired("a sign that it waits for input", limit)
        return found

    def ask(
        self,
        line: str,
        timeout: Optional[float] = DEFAULT,
        *,
        prompt: Optional[Pattern] = None,
        quiet: Optional[float] = None,
    ) -> Output:
        r"""Write a line to a REPL (a shell, a debugger) and return its answer: exactly that, byte for byte.

        Waits until the process waits for input, writes the line, and waits until it does so again, or exits. What
        came before, such as a banner, is not part of the answer, and neither is the prompt at its end, if it is the
        one that stood there before, or at the first question; another one, such as that of `input()`, stays. Of a
        prompt of several lines the last is left out. Nothing else is: a program that began without a prompt has
        none, and of one that ends like the first the begin stays; but what `prompt` matches at the end goes, too.

        On a terminal the echo is part of `text`, and left out of `plain`. Of an answer that is larger than what is
        kept the newest is there, and `dropped` counts the rest. The answer counts as read, and what was not read
        before it is passed over (`read(since=...)` still has it). Several askers are served one after the other.

        Whether it waits is known from the kernel (see `waiting_for_input`). Where it cannot be, or others of its
        threads never rest, `prompt`, a regular expression that matches at the end of the output when it is our turn,
        or `quiet`, so many seconds without output, has to be given, here or at the start.

        Waits up to `timeout` seconds in all (default: the manager's; None: for ever). Raises `TimeoutExpired`, with
        what there is of the answer as `output`: it is not taken, and does not come with the next answer, which waits
        for its own turn. `WriteTimeoutError`, `StdinClosedError` as `write`; ValueError if there is neither evidence
        nor prompt nor quiet.

        >>> import procpool
        >>> with procpool.spawn("python3", ["-i", "-q"], merge_stderr=True) as py:
        ...     py.ask("6 * 7").stdout
        ['42']
        """
        child = self._check()
        data = _line(child, line)
        otherwise = child.otherwise
        if prompt is not None or quiet is not None:
            otherwise = standing(prompt, seconds("quiet", quiet, optional=True))
        limit = self._timeout(timeout)
        deadline = None if limit is None else time.monotonic() + limit
        with Exchange(child, self._pool.duties, otherwise.prompt) as exchange:
            if not exchange.come(deadline):
                self._expired("its turn to an asker: others ask as well", limit)
            turn = Turn(child, self._pool.system, otherwise, shared=True)
            if not turn.stands and turn.wait(deadline) is None:
                if turn.blind:
                    raise ValueError(
                        "prompt or quiet must be given: there is no evidence here of when the process waits for input"
                    )
                self._refuse(limit, self.tail(LAST_LINES))
            exchange.begin()
            sent = None
            if child.terminal is not None:
                data = _line(child, line)  # what ends a line may have changed
                sent = line if child.terminal.echoes else None
            turn.begin()
            self._write(child, data, limit, deadline)
            if turn.wait(deadline, patient=True) is None:
                self._refuse(limit, exchange.answer(None, take=False))
            turn.note()
            return exchange.answer(sent, take=True)

    def _refuse(self, limit: Optional[float], output: Output) -> NoReturn:
        """Raise the error of a turn that was not seen to come."""
        self._expired(
            "a sign that it waits for input",
            limit,
            "where the kernel cannot tell (see waiting_for_input), give prompt= or quiet=",
            output,
        )

    def follow(self, *, since: Optional[str] = None, timeout: Optional[float] = None) -> Iterator[Line]:
        """Iterate over the lines as they come, from the first that nobody has read, or after a cursor.

        Takes nothing from `read`. Where lines were lost before this came to them, the next `Line` says how many in
        `dropped`. Ends when all output has ended. Waits up to `timeout` seconds for each line (default: for ever);
        raises `TimeoutExpired`. Leaving the loop, by Ctrl-C too, leaves the process alone.

        >>> import procpool
        >>> with procpool.spawn("printf", ["one\\ntwo\\n"]) as process:
        ...     [line.text for line in process.follow()]
        ['one', 'two']
        """
        limit = seconds("timeout", timeout, optional=True)
        positions = self._positions(since)
        return self._follow(positions, limit)

    def _follow(self, positions: Positions, limit: Optional[float]) -> Iterator[Line]:
        child = self._child
        lost = dict.fromkeys(positions, 0)
        for output in self._outputs(positions, limit, "a line"):
            for part in output.parts:
                lost[part.stream] += part.dropped
            for line in output.lines:
                dropped, lost[line.stream] = lost[line.stream], 0
                yield Line(line.stream, line.text, line.time, line.continued, dropped)
        for name, dropped in lost.items():
            if dropped:
                yield Line(name, "", time.time() - time.monotonic() + child.spoke[name], dropped=dropped)

    def stream(self, file: Optional[TextIO] = None) -> None:
        r"""Write the output to a text file (default: `sys.stdout`) as it comes, until it has ended.

        Begins with what nobody has read, and takes nothing from `read`. Everything is written as it comes, also
        unfinished lines and the bars that programs draw with `\r`; lost lines are counted in a line of their own.
        Works in the caller's thread. Ctrl-C ends the looking, never the process.

        >>> import procpool
        >>> with procpool.spawn("echo", ["hello"]) as process:
        ...     process.stream()
        hello
        """
        target = sys.stdout if file is None else file
        if not callable(getattr(target, "write", None)):
            raise TypeError(f"file must be a text file, not {type(file).__name__}")
        begun = False  # a line
        for output in self._outputs(self._positions(None), None, "output"):
            lost = output.dropped.stdout + output.dropped.stderr
            if lost:
                target.write("\n" * begun + f"[... {lost} lines lost ...]\n")
            text = output.text
            target.write(text)
            begun = not text.endswith("\n") if text else begun and not lost
            target.flush()

    def _outputs(self, positions: Positions, limit: Optional[float], what: str) -> Iterator[Output]:
        """Yield what comes after the positions, until all output has ended."""
        child = self._child

        def news() -> Optional[View]:
            return child.look(positions) if child.eof or child.news(positions) else None

        deadline = None if limit is None else time.monotonic() + limit
        while True:
            self._check()
            view = child.wait_until(news, deadline, output=True)
            if view is None:
                self._expired(what, limit)
            positions = view.ends
            yield child.render(view)
            if view.eof:
                return
            if limit is not None and any(span.number for span in view.spans.values()):
                deadline = time.monotonic() + limit  # for the next line, from when it is asked for

    def communicate(self, input: Optional[Union[str, bytes]] = None, timeout: Optional[float] = DEFAULT) -> Output:
        """Write `input`, close stdin, wait for the exit, and return what nobody has read.

        Like `Popen.communicate`, but a descendant that goes on holding the output holds up nothing; what was lost,
        as more came than is kept, is counted in `dropped`; and a process that ends without reading its input
        is no error. Waits up to `timeout` seconds in all (default: the manager's; None: for ever). Raises
        `TimeoutExpired`; no output is lost then, and it can be called again, without input; if it is a
        `WriteTimeoutError` the rest of the input, after `written` bytes, was not written.

        >>> import procpool
        >>> with procpool.spawn("sort") as sort:
        ...     sort.communicate("b\\na\\n").stdout
        ['a', 'b']
        """
        limit = self._timeout(timeout)
        deadline = None if limit is None else time.monotonic() + limit
        if input is not None:
            try:
                self.write(input, timeout=limit)
            except StdinClosedError:
                pass
        self.close_stdin()
        child = self._check()
        if child.wait_until(lambda: child.exited or None, deadline) is None:
            self._expired("its exit", limit)
        return self.read()

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

    def exit_future(self) -> Future[Optional[int]]:
        """Return a `concurrent.futures.Future` of the exit code, for `concurrent.futures.wait` and `as_completed`.

        It cannot be cancelled. Its callbacks are called by the thread that keeps house: they have to be short. If
        the manager is closed and the process could not be ended, it raises `ManagerClosedError`. Until the exit it
        keeps the manager alive, and so the process, whether or not you keep the future: it may have callbacks.

        >>> import procpool
        >>> with procpool.spawn("true") as process:
        ...     process.exit_future().result(timeout=5)
        0
        """
        future = self._pool.exit_future(self._check())
        future.procpool_manager = self._manager  # type: ignore[attr-defined]  # as long as it lives, so does that
        return future

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
        """Do what Ctrl-C does: send SIGINT to the foreground job of its terminal, or, without one, to the root's group.

        On a terminal what was typed before and not read is thrown away; a program that takes Ctrl-C for a key, as
        editors do and node, gets that key, behind what was typed.
        """
        child = self._check()
        if child.terminal is not None:
            child.terminal.interrupt()
        else:
            child.send(_signal.SIGINT, group=True)

    # Facts

    def info(self) -> ProcessInfo:
        """Return a snapshot of what is known. After the exit it looks whether others of the tree live on."""
        child = self._check()
        self._pool.look_behind([child])
        me = child.guard.check()
        with child.guard.lock:
            child.guard.holder = me
            return child.info()

    def usage(self) -> Usage:
        """Return what the tree uses now: processes, threads, CPU time, memory; see `Usage`. Looks once, by psutil."""
        return self._pool.usage(self._check())

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
        return f"<Process {child.id} [{printable(child.command)}]: {state}>"

    # Helpers

    def _check(self) -> Child:
        self._pool.check()
        return self._child

    def _positions(self, since: Optional[str]) -> Positions:
        """Read a cursor of this process; None is the default one."""
        child = self._check()
        if since is None:
            return child.read_to
        positions = child.positions(since)
        if any(position.line > child.buffers[name].lines for name, position in positions.items()):
            raise ValueError(f"since is not a cursor of this process: {since!r} is ahead of its output")
        return positions

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

    def _terminal(self, verb: str) -> Any:
        child = self._check()
        if child.terminal is None:
            raise ValueError(f"{verb} needs a process with a terminal: start it with pty=True")
        return child

    def _expired(self, what: str, limit: Optional[float], hint: str = "", output: Optional[Output] = None) -> NoReturn:
        child = self._child
        detail = self._describe("")
        raise TimeoutExpired(
            f"Process {child.id!r} did not give {what} in {limit} seconds",
            f"{detail}\n{hint}" if hint else detail,
            process_id=child.id,
            cmd=list(child.argv),
            timeout=limit,
            output=self.tail(LAST_LINES) if output is None else output,
        )


Ready = Union[Pattern, Sequence[Pattern], int, Callable[[Process], Any]]  # what a start can wait for


def _line(child: Child, line: str) -> bytes:
    """Return a line as it is written, with what ends it now. Raises TypeError, UnicodeEncodeError."""
    if not isinstance(line, str):
        raise TypeError(f"line must be a str, not {type(line).__name__}")
    end = "\n" if child.terminal is None else child.terminal.line_end
    return (line + "\n").replace("\n", end).encode(child.decoding.encoding)


def terminal_size(size: object) -> tuple[int, int]:
    """Check the rows and columns of a terminal."""
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise TypeError(f"size must be (rows, cols), not {size!r}")
    for name, value in zip(("rows", "cols"), size):
        if whole_number(name, value) > MOST_ROWS:
            raise ValueError(f"{name} must be at most {MOST_ROWS}: {value}")
    return size[0], size[1]


def whole_number(name: str, value: object, *, least: int = 1) -> int:
    """Check a count."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if not least <= value <= sys.maxsize:
        raise ValueError(f"{name} must be at least {least}, and no more than {sys.maxsize}: {value}")
    return value


def not_found(process_id: str) -> ProcessNotFoundError:
    """Make the error for an id that is not there."""
    return ProcessNotFoundError(f"Process {process_id!r} not found", process_id=process_id)
