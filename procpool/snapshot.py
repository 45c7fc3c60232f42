"""What callers get back: facts of one moment, which do not change afterwards."""

from __future__ import annotations

import signal as _signal
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Generic, Optional, TypeVar

from procpool.facts import Facts, NamedTuple

T = TypeVar("T")


class Streams(Facts, Generic[T]):
    """A pair of values, one of each stream."""

    stdout: T
    stderr: T


class Line(Facts):
    """One line of output, without its newline.

    - `stream`: `"stdout"` or `"stderr"`
    - `time`: when the line was read to its end, in seconds since the epoch
    - `continued`: the line was longer than `max_line_bytes`; the next `Line` goes on with it
    - `dropped`: lines of this stream that were lost unseen just before this one
    """

    stream: str
    text: str
    time: float
    continued: bool = False
    dropped: int = 0


class Part(NamedTuple):
    """One stream's share of an `Output`: a piece of text and where its lines end.

    `text` begins at a line's begin, `skip` characters of which were handed out before; the unfinished
    line begins at `tail`; `breaks` are the places where a line ends without a newline: a piece of a long
    line, or, if `final`, the last line of the stream. `runs` are `(lines, order, time)` for each chunk read.
    """

    stream: str
    text: str
    skip: int
    tail: int
    breaks: tuple[int, ...]
    final: bool
    dropped: int
    runs: tuple[tuple[int, int, float], ...]

    def rest(self) -> Part:
        """Return it without what was handed out before: its first line is what is left of one."""
        skip = self.skip
        breaks = tuple([end - skip for end in self.breaks])
        return self._replace(text=self.text[skip:], skip=0, tail=max(self.tail - skip, 0), breaks=breaks)

    def lines(self) -> list[str]:
        """Return the finished lines, without newlines."""
        text = self.text[: self.tail]
        if not self.breaks:
            if "\r" in text:  # to look for one character takes no time, for two it takes more than all the rest
                text = text.replace("\r\n", "\n")
            lines = text.split("\n")
            lines.pop()
            return lines
        records = self.records()
        last = len(records) if self.final else 0  # it ended without a newline, and with the stream
        return [
            record.removesuffix("\n").removesuffix("\r") if record.endswith("\n") or number == last else record
            for number, record in enumerate(records, 1)
        ]

    def records(self) -> list[str]:
        """Return the finished lines as they came, newlines included."""
        records = []
        start = 0
        for end in (*self.breaks, self.tail):
            *lines, rest = self.text[start:end].split("\n")
            records += [line + "\n" for line in lines]
            if rest:
                records.append(rest)
            start = end
        return records


class Output(Facts):
    """What a process said: text, and lines.

    It behaves as the pair `(stdout, stderr)` of lists of lines (`out, err = output`, `output[0]`, `len` 2)
    and as text (`str(output)`, `"x" in output`, `bool(output)`).

    - `cursor`: where this output ends, for `read(since=cursor)`
    - `eof`: every stream has ended; no more will come
    - `alive`: the root process runs; `returncode` is its exit code, else None
    - `sent`: the line that this answers, on a terminal, which may have echoed it; else None
    """

    parts: tuple[Part, ...]
    cursor: str
    eof: bool
    alive: bool
    returncode: Optional[int]
    sent: Optional[str] = None

    @cached_property
    def stdout(self) -> list[str]:
        """The whole lines of stdout, without newlines; each is handed out once."""
        return self._lines("stdout")

    @cached_property
    def stderr(self) -> list[str]:
        """The whole lines of stderr, without newlines; each is handed out once."""
        return self._lines("stderr")

    def _lines(self, stream: str) -> list[str]:
        for part in self.parts:
            if part.stream == stream:
                return part.lines()
        return []

    @cached_property
    def text(self) -> str:
        """All characters that are new, as they came, both streams in the order in which they were read.

        The texts of successive reads join to the output: each character is in exactly one of them.
        """
        parts = [part for part in self.parts if part.text]
        if len(parts) <= 1:
            return parts[0].text[parts[0].skip :] if parts else ""
        finished: list[tuple[int, str]] = []
        unfinished = ""
        for part in parts:
            skip = part.skip
            if part.tail:
                for (order, _), record in zip(_stamps(part), part.records()):
                    finished.append((order, record[skip:]))
                    skip = 0
            unfinished += part.text[part.tail + skip :]
        finished.sort(key=lambda item: item[0])
        return "".join(record for _, record in finished) + unfinished

    @cached_property
    def plain(self) -> str:
        r"""The text as a terminal would show it: without escape codes, what is written over by `\r` gone.

        Of an answer on a terminal the line that was echoed is left out. Codes that move between lines are too: of a
        program that fills the screen ask for `Process.screen`.
        """
        from procpool.plain import plain, without_echo

        found = plain(self.text)
        return found if self.sent is None else without_echo(found, self.sent)

    @cached_property
    def lines(self) -> list[Line]:
        """The whole lines of both streams as `Line`, in the order in which they were read."""
        stamped: list[tuple[int, Line]] = []
        for part in self.parts:
            records = part.records()
            dropped = part.dropped
            for number, ((order, time), record) in enumerate(zip(_stamps(part), records), 1):
                ended = record.endswith("\n") or (part.final and number == len(records))
                text = record.removesuffix("\n").removesuffix("\r") if ended else record
                stamped.append((order, Line(part.stream, text, time, not ended, dropped)))
                dropped = 0
        stamped.sort(key=lambda item: item[0])
        return [line for _, line in stamped]

    @cached_property
    def partial(self) -> Streams[str]:
        """The unfinished line of each stream as it is now (state: it is repeated until it ends)."""
        found = {part.stream: part.text[part.tail :] for part in self.parts}
        return Streams(found.get("stdout", ""), found.get("stderr", ""))

    @cached_property
    def dropped(self) -> Streams[int]:
        """How many lines of each stream were lost unseen just before this output."""
        found = {part.stream: part.dropped for part in self.parts}
        return Streams(found.get("stdout", 0), found.get("stderr", 0))

    def clip(self, chars: int) -> str:
        """Return at most `chars` characters of the text: its head and tail, with the cut counted."""
        if isinstance(chars, bool) or not isinstance(chars, int):
            raise TypeError(f"chars must be an int, not {type(chars).__name__}")
        if chars < 0:
            raise ValueError(f"chars must not be negative: {chars}")
        from procpool.plain import clipped

        return clipped(self.text, chars)[0]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as a JSON-serialisable dict."""
        return {
            "stdout": self.stdout,
            "stderr": self.stderr,
            "text": self.text,
            "plain": self.plain,
            "partial": self.partial.to_dict(),
            "dropped": self.dropped.to_dict(),
            "cursor": self.cursor,
            "eof": self.eof,
            "alive": self.alive,
            "returncode": self.returncode,
        }

    def __iter__(self) -> Iterator[list[str]]:
        return iter((self.stdout, self.stderr))

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> list[str]:
        return (self.stdout, self.stderr)[index]

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and text in self.text

    def __bool__(self) -> bool:
        return any(len(part.text) > part.skip or part.tail for part in self.parts)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        state = "running" if self.alive else f"exited {self.returncode}"
        return f"<Output {self.clip(60)!r}: {state}{', eof' if self.eof else ''}>"


def _stamps(part: Part) -> Iterator[tuple[int, float]]:
    """Yield (order, time) for each finished line of a part."""
    for count, order, time in part.runs:
        for _ in range(count):
            yield order, time


class Match(Facts):
    """Where an `expect` found what it looked for.

    `index` tells which of the patterns it was, `m[1]` and `group(...)` give groups as `re.Match` does,
    `line` is the line it stands in, `before` the text of that stream from where the search began.
    """

    index: int
    stream: str
    line: str
    before: str
    span: tuple[int, int]
    groups: tuple[Optional[str], ...]
    groupdict: dict[str, Optional[str]]

    def group(self, *keys: int | str) -> Any:
        """Return one group, or a tuple of several, as `re.Match.group` does."""
        if len(keys) > 1:
            return tuple(self[key] for key in keys)
        return self[keys[0] if keys else 0]

    def __getitem__(self, key: int | str) -> Optional[str]:
        if key == 0:
            return self.line[slice(*self.span)]
        if isinstance(key, str):
            if key not in self.groupdict:
                raise IndexError("no such group")
            return self.groupdict[key]
        if not 0 < key <= len(self.groups):
            raise IndexError("no such group")
        return self.groups[key - 1]

    def __repr__(self) -> str:
        return f"<Match {self[0]!r}: pattern {self.index}, {self.stream}>"


class Exit(Facts):
    """How a process ended.

    - `returncode`: of the root: an exit code, minus a signal's number, or None where it cannot be known
    - `output`: what nobody had read yet
    - `ended_by`: `self`, `signal`, `terminate`, `kill`, `idle`, `max_age`, `close` or `owner`
    - `pids`: every member of the tree that was seen while it was ended; `survivors`: those still alive
    - `escalated`: SIGKILL had to be sent
    """

    returncode: Optional[int]
    output: Output
    ended_by: str
    pids: tuple[int, ...] = ()
    survivors: tuple[int, ...] = ()
    escalated: bool = False

    @property
    def signal(self) -> Optional[str]:
        """The name of the signal that ended the root, such as `"SIGTERM"`, else None."""
        if self.returncode is None or self.returncode >= 0:
            return None
        try:
            return _signal.Signals(-self.returncode).name
        except ValueError:
            return f"signal {-self.returncode}"  # a real-time signal has no name of its own

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-serialisable dict."""
        pids = {"pids": list(self.pids), "survivors": list(self.survivors)}
        return {**super().to_dict(), **pids, "output": self.output.to_dict(), "signal": self.signal}

    def __repr__(self) -> str:
        left = f", survivors {list(self.survivors)}" if self.survivors else ""
        return f"<Exit {self.signal or self.returncode}, ended by {self.ended_by}{left}>"


class Wake(Facts):
    """What ended a wait for several processes.

    - `process_id`: which one it was
    - `reason`: `exit`, `pattern`, `output`, `quiet` or `input`
    - `match`: of the pattern, else None; `returncode`: at an exit, else None
    """

    process_id: str
    reason: str
    match: Optional[Match]
    returncode: Optional[int]


class Screen(Facts):
    """What a terminal shows at one moment; `str()` gives its rows as text, without the empty ones at its end.

    - `rows`: from the top, without the spaces at their ends
    - `cursor`: its row and column, from 0
    - `size`: rows and columns
    - `dropped`: how many lines of output were lost before they could be shown
    """

    rows: tuple[str, ...]
    cursor: tuple[int, int]
    size: tuple[int, int]
    dropped: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-serialisable dict."""
        return {
            "rows": list(self.rows), "cursor": list(self.cursor), "size": list(self.size), "dropped": self.dropped
        }  # fmt: skip

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and any(text in row for row in self.rows)

    def __str__(self) -> str:
        return "\n".join(self.rows).rstrip("\n")


class Usage(Facts):
    """What a tree uses at one moment: the sums over its living members.

    - `processes`, `threads`: how many there are
    - `cpu_secs`: CPU time in seconds, user and system, since each of them began
    - `rss_bytes`: resident memory; what members share counts for each
    """

    processes: int
    threads: int
    cpu_secs: float
    rss_bytes: int


class ProcessInfo(Facts):
    """What is known of a process: the seed's five fields, and more.

    - `command`: the command line as one string, for people; `args`: the argv
    - `uptime_secs`: whole seconds, until the exit
    - `state`: `running` or `exited`; `descendants_alive`: the root exited, others of its tree live
    - `stdin_open`: it runs, and can be written to
    - `started_at`: seconds since the epoch; `idle_secs`: seconds since a byte went either way
    - `lines`, `bytes`: how much was read of each stream; `dropped`: lines lost unseen
    - `error`: what went wrong while the process was served, else None
    """

    id: str
    agent_id: str
    command: str
    alive: bool
    uptime_secs: int
    args: tuple[str, ...]
    cwd: Optional[str]
    pid: int
    state: str
    returncode: Optional[int]
    ended_by: Optional[str]
    descendants_alive: bool
    stdin_open: bool
    started_at: float
    idle_secs: float
    pty: bool
    error: Optional[str]
    lines: Streams[int]
    bytes: Streams[int]
    dropped: Streams[int]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-serialisable dict."""
        return {**super().to_dict(), "args": list(self.args)}

    def __repr__(self) -> str:
        state = f"running, pid {self.pid}" if self.alive else f"exited {self.returncode}"
        return f"<ProcessInfo {self.id} [{printable(self.command)}]: {state}>"


def printable(text: str) -> str:
    """Return text that any terminal or file takes: words may hold bytes that are no characters (lone surrogates)."""
    return text.encode("utf-8", "backslashreplace").decode()
