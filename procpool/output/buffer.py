"""One stream's bounded lines. Pure: no thread, no fd, no lock; whoever shares a buffer locks it."""

from __future__ import annotations

import codecs
import functools
from collections import deque
from collections.abc import Iterable
from itertools import accumulate, islice
from typing import Any

from procpool.facts import NamedTuple
from procpool.snapshot import Part

JOIN_BYTES = 4096  # chunks are joined up to this size: a child that writes line by line costs no list entry a line
# The newlines of lines longer than 40 bytes are counted faster by taking them out (at 80 in half the time), where there
# are many bytes.
LONG_BYTES = 40
MANY_BYTES = 1024
CONTINUATION_BYTES = 3  # the most that a UTF-8 character has after its first byte

SAFE_ENCODINGS = ("utf-8", "ascii", "iso8859-1")  # in which a newline is one, whatever stands before it
ERROR_POLICIES = ("replace", "backslashreplace", "surrogateescape", "ignore")


class Decoding:
    """How the bytes of a stream become text: an encoding and an error policy, both checked."""

    __slots__ = ("encoding", "errors", "_decoder", "_by_line")

    def __init__(self, encoding: str = "utf-8", errors: str = "replace") -> None:
        if not isinstance(encoding, str):
            raise TypeError(f"encoding must be a str, not {type(encoding).__name__}")
        if not isinstance(errors, str):
            raise TypeError(f"errors must be a str, not {type(errors).__name__}")
        if errors not in ERROR_POLICIES:
            raise ValueError(f"errors must be one of {', '.join(ERROR_POLICIES)}, not {errors!r}")
        try:
            self._decoder = codecs.getincrementaldecoder(encoding)
        except (LookupError, ValueError):  # or it holds a NUL
            raise ValueError(f"encoding is not known: {encoding!r}") from None
        if not _extends_ascii(encoding):
            raise ValueError(f"encoding must extend ASCII, so that a newline is the byte 10 everywhere: {encoding!r}")
        self.encoding = encoding
        self.errors = errors
        self._by_line = codecs.lookup(encoding).name not in SAFE_ENCODINGS

    def text(self, data: bytes) -> str:
        """Decode bytes that are complete."""
        if self._by_line:  # the begin of a character would swallow the newline behind it
            return "\n".join([line.decode(self.encoding, self.errors) for line in data.split(b"\n")])
        return data.decode(self.encoding, self.errors)

    def text_so_far(self, data: bytes) -> str:
        """Decode bytes that may go on; the begin of a character at their end is left for later."""
        if data.isascii():
            return data.decode("ascii")
        return self._decoder(self.errors).decode(data)


@functools.cache
def _extends_ascii(encoding: str) -> bool:
    """Say whether ASCII bytes mean ASCII characters, and leave no state behind (utf-16, utf-7, utf-8-sig, hz do)."""
    ascii_bytes = bytes(range(128)) + b"\x1b$B\x1b(J~{"  # the last: what switches ISO 2022 codes and hz
    try:
        codec = codecs.lookup(encoding)
        if not codec._is_text_encoding or codec.decode(b"\\u0041")[0] != r"\u0041":
            return False  # from bytes to bytes, such as hex, or Python's own escapes
        decoder = codecs.getincrementaldecoder(encoding)("strict")
        before = decoder.getstate()
        text = "".join(decoder.decode(ascii_bytes[i : i + 1]) for i in range(len(ascii_bytes)))
        return text == ascii_bytes.decode() and decoder.getstate() == before
    except (ValueError, TypeError):
        return False


class Position(NamedTuple):
    """A place in a stream: `chars` characters into the line number `line` (pieces of long lines count)."""

    line: int = 0
    chars: int = 0


class Span(NamedTuple):
    """What a buffer holds from a position on: still bytes, so that it can be decoded without a lock."""

    first: int  # the number of the first line
    skip: int  # the characters of it that the position had passed
    dropped: int  # the lines between the position and `first`
    number: int  # of finished lines
    data: bytes  # those lines, as they came
    cuts: tuple[int, ...]  # where in the data a line ends without a newline
    unfinished: bytes
    final: bool  # the last line is the end of the stream, not a piece of a long line
    runs: tuple[tuple[int, int, float], ...]

    def end(self, decoding: Decoding) -> Position:
        """Return the position behind all of it."""
        unfinished = self.unfinished
        return Position(self.first + self.number, len(decoding.text_so_far(unfinished)) if unfinished else 0)

    def part(self, stream: str, decoding: Decoding) -> Part:
        """Decode."""
        text = ""
        breaks: tuple[int, ...] = ()
        if self.cuts:
            ends = (*self.cuts, len(self.data))
            pieces = [decoding.text(self.data[begin:end]) for begin, end in zip((0, *ends), ends)]
            text = "".join(pieces)
            breaks = tuple(accumulate(map(len, pieces[:-1])))
        elif self.data:
            text = decoding.text(self.data)
        tail = len(text)
        if self.unfinished:
            text += decoding.text_so_far(self.unfinished)
        return Part(stream, text, self.skip, tail, breaks, self.final, self.dropped, self.runs)

    def head(self, count: int) -> Span:
        """Return its first `count` lines."""
        at = 0
        cuts = iter((*self.cuts, len(self.data)))
        cut = next(cuts)
        for _ in range(count):
            at = self.data.find(b"\n", at, cut) + 1 or cut
            if at == cut:
                cut = next(cuts, cut)
        before = tuple([cut for cut in self.cuts if cut <= at])
        return self._replace(
            number=count, data=self.data[:at], cuts=before, unfinished=b"", final=self.final and count == self.number
        )


_NOTHING: Any = deque(maxlen=0)  # it cannot hold anything, and so be shared


class LineBuffer:
    """The newest lines of one stream.

    Chunks are appended to a backlog, their newlines counted, and split into `deque(maxlen=max_lines)` when somebody
    reads: what the deque would drop is never split (measured: 2.8 times the seed's rate, against 1.9), and what is read
    for the first time, from its begin, is handed out whole.
    Which lines are kept, and where a long line is cut, depends on the bytes alone, never on the chunks:

    - a line is cut into pieces after `max_line_bytes`, and up to three UTF-8 continuation bytes more, but
      never just before its newline; a piece counts as a line
    - kept are the newest `max_lines` lines that fit into `max_bytes`, and the unfinished line

    Lines are numbered from 0. `pin` keeps a line, and all after it, for a searcher that is behind; `crowded`
    says that the stream should pause for it.
    """

    __slots__ = (
        "max_lines", "max_bytes", "max_line_bytes", "_wanted_line_bytes", "ended", "lines", "bytes",
        "_ring", "_ring_bytes", "_ring_cuts", "_backlog", "_counts", "_waiting", "_raw", "_torn",
        "_cuts", "_open", "_marks", "_pins", "_final",
    )  # fmt: skip

    def __init__(self, max_lines: int = 1000, max_bytes: int = 1 << 20, max_line_bytes: int = 1 << 16) -> None:
        self.max_lines = max_lines
        self.max_bytes = max_bytes
        self._wanted_line_bytes = max_line_bytes
        self.max_line_bytes = min(max_line_bytes, max_bytes)
        self.ended = False
        self.lines = 0  # all finished lines so far
        self.bytes = 0
        # A deque takes 760 bytes, and many streams say nothing: all are made with the first bytes.
        self._ring: deque[bytes] = _NOTHING
        self._ring_bytes = 0  # of the ring, newlines included
        self._ring_cuts: deque[int] = _NOTHING  # numbers of lines in the ring that end without a newline
        self._backlog: deque[bytes] = _NOTHING  # behind the ring: chunks, the first of which may begin in a line
        self._counts: deque[int] = _NOTHING  # the lines that end in each chunk
        self._waiting = 0  # sum of _counts
        self._raw = 0  # bytes in the backlog
        self._torn = False  # the backlog begins within a line, whose begin was dropped
        self._cuts: deque[int] = _NOTHING  # offsets (of all bytes) in the backlog where a piece ends
        self._open = 0  # bytes of the unfinished line
        self._marks: deque[tuple[int, int, float]] = _NOTHING  # (lines so far, order, time) of each chunk
        self._pins: list[list[int]] = []
        self._final = False  # the stream ended in a line without a newline, which then counts as one

    # Whoever appends or looks may be in the main thread, where Ctrl-C comes at any call. So what is changed is made
    # first, and takes its place in one step: nothing comes between assignments that call nothing, also not between
    # those of one statement (in 3.9 and 3.10 it may: there only the reader thread appends).

    def _begin(self) -> None:
        self._ring, self._ring_cuts, self._backlog, self._counts, self._cuts, self._marks = (
            deque(maxlen=self.max_lines), deque(), deque(), deque(), deque(), deque()
        )  # fmt: skip

    def bound(self, max_bytes: int) -> None:
        """Change how many bytes are kept; what is too much goes now."""
        self.max_bytes = max_bytes
        self.max_line_bytes = min(self._wanted_line_bytes, max_bytes)
        self.settle()

    def append(self, chunk: bytes, order: int = 0, time: float = 0.0) -> None:
        """Take the next bytes of the stream, all or none; `order` and `time` go with the lines that end in them."""
        if self._backlog is _NOTHING:
            self._begin()
        size = len(chunk)
        if size > MANY_BYTES and self.bytes > LONG_BYTES * self.lines:
            found = size - len(chunk.replace(b"\n", b""))
        else:
            found = chunk.count(b"\n")
        bound = self.max_line_bytes
        cuts: tuple[int, ...] = ()
        if not found and self._open + size <= bound:
            left = self._open + size
        elif found and size <= bound and self._open + chunk.find(b"\n") <= bound:
            left = size - 1 - chunk.rfind(b"\n")
        else:
            found, left, cuts = self._cut(chunk)
        joined = bool(self._backlog) and len(self._backlog[-1]) + size <= JOIN_BYTES
        # From here on nothing is called.
        if joined:
            self._backlog[-1] += chunk
            self._counts[-1] += found
        else:
            self._backlog += (chunk,)
            self._counts += (found,)
        self.bytes += size
        self._raw += size
        self._open = left
        self._cuts += cuts
        if found:
            self._waiting += found
            self.lines += found
            self._marks += ((self.lines, order, time),)
        if self._waiting > self.max_lines or self._raw > self.max_bytes:
            self._shed()

    def close(self, order: int = 0, time: float = 0.0) -> None:
        """Note the end of the stream; a last line without a newline is a line from now on."""
        if self.ended:
            return
        self.ended = True
        if self._open:
            self._final = True
            self._open = 0
            self._counts[-1] += 1
            self._waiting += 1
            self.lines += 1
            self._marks.append((self.lines, order, time))

    def _cut(self, chunk: bytes) -> tuple[int, int, tuple[int, ...]]:
        """Return how many lines (and pieces) end in a chunk, how many bytes are left, and where long lines are cut."""
        bound = self.max_line_bytes
        offset = self.bytes
        cuts = []
        start = -self._open  # where the current line begins; negative: in an earlier chunk
        found = 0
        while True:
            newline = chunk.find(b"\n", max(start, 0))
            end = newline if newline >= 0 else len(chunk)
            at = max(start + bound, 0)  # bytes beyond the bound in earlier chunks are continuation bytes
            last = start + bound + CONTINUATION_BYTES
            while at < end and at < last and 0x80 <= chunk[at] < 0xC0:
                at += 1
            if at < end:
                cuts.append(offset + at)
                start = at
            elif newline >= 0:
                start = newline + 1
            else:
                return found, len(chunk) - start, tuple(cuts)
            found += 1

    def _shed(self) -> None:
        """Drop chunks that are no longer wanted from the backlog, and with them the ring before it."""
        keep = min(pin[0] for pin in self._pins) if self._pins else None
        while len(self._backlog) > 1:
            size = self._raw - len(self._backlog[0])
            begin = self.bytes - size
            ended = begin in self._cuts  # a piece, which was counted with the chunk that showed its end
            lines = self._waiting - self._counts[0] - ended
            # The line that the next chunk begins with may be torn: it has to be one too many, or too long.
            if lines <= self.max_lines and size < self.max_bytes + CONTINUATION_BYTES:
                break
            if keep is not None and self.lines - lines >= keep:
                break
            torn = not ended and not self._backlog[0].endswith(b"\n")
            cuts = self._cuts and deque([cut for cut in self._cuts if cut > begin])
            ring = self._ring and self._make_ring(())
            ring_cuts = self._ring_cuts and deque()
            # From here on nothing is called.
            del self._backlog[0], self._counts[0]
            self._counts[0] -= ended
            self._waiting, self._raw, self._torn, self._cuts = lines, size, torn, cuts
            self._ring, self._ring_bytes, self._ring_cuts = ring, 0, ring_cuts
        self._forget_marks(self.lines - self._waiting - len(self._ring))

    def _forget_marks(self, first: int) -> None:
        while self._marks and self._marks[0][0] <= first:
            self._marks.popleft()

    def settle(self) -> int:
        """Drop what is too much; return the number of the first line kept."""
        fits = len(self._ring) + self._waiting <= self.max_lines
        fits = fits and self._ring_bytes + self._raw + self._final <= self.max_bytes
        if not fits or self._torn or self._cuts:  # a torn line, and cut ones, are told apart there
            if self._waiting:
                self._split()
            if self._ring.maxlen is None or self._ring_bytes + self._open > self.max_bytes:
                self._trim()
        first = self.lines - len(self._ring) - self._waiting
        if self._marks and self._marks[0][0] <= first:
            self._forget_marks(first)
        return first

    def _split(self) -> None:
        data = b"".join(self._backlog)
        waiting, torn = self._waiting, self._torn
        cut_numbers: list[int] = []
        if self._cuts:
            records: list[bytes] = []
            number = self.lines - waiting
            begin = at = self.bytes - len(data)
            for cut in self._cuts:
                pieces = data[at - begin : cut - begin].split(b"\n")
                number += len(pieces)
                cut_numbers.append(number - 1)
                records += pieces
                at = cut
            records += data[at - begin :].split(b"\n")
        elif waiting > self.max_lines and not self._pins and not self._final:
            # The first part holds what is dropped, and the torn line, if there is one.
            records = data.rsplit(b"\n", self.max_lines + 1)[1:]
            torn = False
        else:
            records = data.split(b"\n")
        if self._final:
            unfinished = b""
            cut_numbers.append(self.lines - 1)
        else:
            unfinished = records.pop()
        if torn:
            del records[0]
        ring, size = self._ring, self._ring_bytes
        surplus = len(ring) + len(records) - self.max_lines
        if torn or (surplus >= len(ring) and not self._pins):
            ring, size = self._make_ring(()), 0
        elif surplus > 0 and not self._pins:
            size -= sum(map(len, islice(ring, surplus))) + surplus
        if (ring.maxlen is None) != bool(self._pins):
            ring = self._make_ring(ring)
        whole = len(records) == waiting and not cut_numbers and not torn  # then the sizes need no sum
        if not self._pins and len(records) > self.max_lines:
            del records[: len(records) - self.max_lines]
            whole = False
        size += len(data) - len(unfinished) if whole else sum(map(len, records)) + len(records)
        ring_cuts = self._ring_cuts
        if ring_cuts or cut_numbers:
            first = self.lines - min(len(ring) + len(records), ring.maxlen or self.lines)
            ring_cuts = deque([number for number in (*ring_cuts, *cut_numbers) if number >= first])
        cuts = self._cuts and deque()
        rest, counts = (deque((unfinished,)), deque((0,))) if unfinished else (deque(), deque())
        raw = len(unfinished)
        # From here on nothing is called.
        ring += records
        self._ring, self._ring_bytes, self._ring_cuts, self._cuts = ring, size, ring_cuts, cuts
        self._backlog, self._counts, self._raw, self._waiting, self._torn = rest, counts, raw, 0, False

    def _trim(self) -> None:
        """Drop from the ring what is too many or too much, but nothing that is pinned."""
        first = self.lines - len(self._ring)
        spare = min((pin[0] for pin in self._pins), default=self.lines) - first
        number = max(min(spare, len(self._ring) - self.max_lines), 0)  # of lines to drop
        size = self._ring_bytes - sum(map(len, islice(self._ring, number))) - number
        for line in islice(self._ring, number, max(spare, 0)):  # by index a deque takes ever longer to find one
            if size + self._open <= self.max_bytes:
                break
            size -= len(line) + 1
            number += 1
        if number or not self._pins:
            ring = self._make_ring(islice(self._ring, number, None))
            cuts = deque([cut for cut in self._ring_cuts if cut >= first + number])
            self._ring, self._ring_bytes, self._ring_cuts = ring, size, cuts

    def _make_ring(self, lines: Iterable[bytes]) -> deque[bytes]:
        """Make a ring: without a bound while a searcher is behind; the stream pauses meanwhile."""
        return deque(lines, maxlen=None if self._pins else self.max_lines)

    def since(self, position: Position) -> Span:
        """Return everything from a position on; nothing is removed."""
        line, chars = position
        if line == self.lines:  # most of the time one stream has nothing to say
            return Span(line, chars, 0, 0, b"", (), self.unfinished(), False, ())
        first = self.settle()
        dropped = 0
        if line < first:
            dropped = first - line
            line, chars = first, 0
        if line == self.lines - self._waiting and not self._cuts:
            data = b"".join(self._backlog)
            size = len(data) - self._open
            data, unfinished = data[:size], data[size:]
            cuts: tuple[int, ...] = (size,) if self._final and self._waiting else ()
        else:
            if self._waiting:
                self._split()
            # From the newest on: what is kept may be much, and what is new is little, most of the time.
            records = list(self._ring) if line == first else list(islice(reversed(self._ring), self.lines - line))[::-1]
            data, cuts = _join(records, [number - line for number in self._ring_cuts if number >= line])
            unfinished = b"".join(self._backlog)
        marks = []
        for mark in reversed(self._marks):
            if mark[0] <= line:
                break
            marks.append(mark)
        runs = []
        before = line
        for lines, order, time in reversed(marks):
            if lines > before:
                runs.append((lines - before, order, time))
                before = lines
        final = self._final and line < self.lines
        return Span(line, chars, dropped, self.lines - line, data, cuts, unfinished, final, tuple(runs))

    def tail(self, lines: int) -> Position:
        """Return the position of the newest `lines` lines."""
        first = self.settle()
        return Position(max(self.lines - lines, first))

    def end(self, decoding: Decoding) -> Position:
        """Return the position behind everything that came so far."""
        unfinished = self.unfinished()
        return Position(self.lines, len(decoding.text_so_far(unfinished)) if unfinished else 0)

    def unfinished(self) -> bytes:
        """Return the line that has not ended yet."""
        if not self._open:
            return b""
        last = self._backlog[-1]
        return (last if self._open <= len(last) else b"".join(self._backlog))[-self._open :]

    def pin(self, pin: list[int]) -> None:
        """Keep all lines from a line on until `unpin`.

        The pin is `[line, bytes]`, to be moved by its owner: what to keep, and how many bytes were looked at.
        """
        self._pins.append(pin)

    def unpin(self, pin: list[int]) -> None:
        """Take a pin back; may come twice."""
        self._pins = [other for other in self._pins if other is not pin]
        if not self._pins and self._ring.maxlen is None:
            self._trim()

    @property
    def crowded(self) -> bool:
        """Whether a searcher is so far behind that the stream has to pause for it."""
        return bool(self._pins) and any(
            self.lines - line > self.max_lines or self.bytes - looked > self.max_bytes for line, looked in self._pins
        )


def _join(records: list[bytes], cuts: list[int]) -> tuple[bytes, tuple[int, ...]]:
    """Join lines, those with the numbers `cuts` without a newline; return also where in the whole these end."""
    if not cuts:
        records.append(b"")
        return b"\n".join(records), ()
    pieces = []
    offsets = []
    start = size = 0
    for cut in cuts:
        pieces.append(b"\n".join(records[start : cut + 1]))
        size += len(pieces[-1])
        offsets.append(size)
        start = cut + 1
    pieces.append(_join(records[start:], [])[0])
    return b"".join(pieces), tuple(offsets)
