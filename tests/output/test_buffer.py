"""The line buffer against a slow model of it: whatever the chunks are, the bytes alone decide."""

from __future__ import annotations

import dis
import inspect
import itertools
import re
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procpool.output.buffer import Decoding, LineBuffer, Position

UTF8 = Decoding()

# Many newlines, returns, and parts of characters, so that short inputs reach every branch.
some_bytes = st.lists(
    st.sampled_from([b"\n", b"\r\n", b"\r", b"a", b"bc", b"\x00", "é".encode(), "€".encode(), "😀".encode()])
    | st.sampled_from([b"\x80", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xff", b"x" * 7, b"\n" * 5, b"y" * 40]),
    max_size=60,
).map(b"".join)
bounds = st.tuples(st.integers(1, 8), st.integers(10, 60), st.integers(5, 30))


def cut_up(data, sizes):
    chunks = []
    while data:
        size = sizes[len(chunks) % len(sizes)] if sizes else len(data)
        chunks.append(data[:size])
        data = data[size:]
    return chunks


def lines_of(span):
    """Return the finished lines with their newlines, and pieces without."""
    found = []
    start = 0
    for end in (*span.cuts, len(span.data)):
        *lines, rest = span.data[start:end].split(b"\n")
        found += [line + b"\n" for line in lines] + ([rest] if rest else [])
        start = end
    return found


def model(data, ended, max_lines, max_bytes, max_line_bytes):
    """Return (lines, number of the first one kept, unfinished line): lines with their newlines."""
    bound = min(max_line_bytes, max_bytes)
    lines = []
    rest = data
    while rest:
        size = min(bound, len(rest))
        while size < len(rest) and size < bound + 3 and 0x80 <= rest[size] < 0xC0:
            size += 1
        newline = rest.find(b"\n")
        if 0 <= newline <= size:
            size = newline + 1
        elif size == len(rest):
            break
        lines.append(rest[:size])
        rest = rest[size:]
    if ended and rest:
        lines.append(rest)
        rest = b""
    first = len(lines)
    room = max_bytes - len(rest)
    while first and len(lines) - first < max_lines:
        room -= len(lines[first - 1].rstrip(b"\n") if lines[first - 1].endswith(b"\n") else lines[first - 1]) + 1
        if room < 0:
            break
        first -= 1
    return lines, first, rest


def strip(line):
    return line.decode("utf-8", "replace").removesuffix("\n").removesuffix("\r") if line.endswith(b"\n") else None


@pytest.fixture(scope="module", params=[None, 1, 20], ids=lambda size: "joined" if size is None else f"join-{size}")
def joined(request):
    """Chunks are joined up to 4096 bytes, so that these short inputs would always be one; and up to less."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param is not None:
            patch.setattr("procpool.output.buffer.JOIN_BYTES", request.param)
        yield


@settings(max_examples=400, deadline=None)
@given(some_bytes, st.lists(st.integers(1, 50), max_size=8), bounds, st.booleans(), st.booleans())
def test_p20_the_lines_depend_on_the_bytes_and_not_on_the_chunks(joined, data, sizes, bounds, ended, peeking):
    """However the bytes are cut up, and whoever looks meanwhile, the same lines are kept."""
    buffer = LineBuffer(*bounds)
    for chunk in cut_up(data, sizes):
        buffer.append(chunk)
        if peeking:
            buffer.since(Position())
    if ended:
        buffer.close()
    lines, first, rest = model(data, ended, *bounds)
    span = buffer.since(Position())
    kept = lines[first:]
    assert lines_of(span) == kept
    assert span.number == len(kept)
    assert span.first == span.dropped == first
    assert buffer.lines == len(lines)
    assert buffer.bytes == len(data)
    assert span.unfinished == rest
    for count in range(len(kept) + 1):
        assert lines_of(span.head(count)) == kept[:count]
        assert span.head(count).number == count
    part = span.part("stdout", UTF8)
    assert part.text == b"".join(lines[first:]).decode("utf-8", "replace") + UTF8.text_so_far(rest)
    assert part.text[part.tail :] == UTF8.text_so_far(rest)
    assert len(part.lines()) == len(kept)
    assert sum(run[0] for run in part.runs) == len(kept)


@settings(max_examples=400, deadline=None)
@given(st.lists(some_bytes | st.none(), max_size=12), bounds)
def test_p23_seen_and_dropped_are_all_that_was_written(joined, steps, bounds):
    """With reads in between (None), every line is seen once or counted as dropped, and the texts join."""
    buffer = LineBuffer(*bounds)
    position = Position()
    seen = dropped = 0
    texts = []
    written = b""
    for step in [*steps, None]:
        if step is not None:
            buffer.append(step) if step else None
            written += step
            continue
        if step is None and len(texts) == sum(s is None for s in steps):
            buffer.close()
        span = buffer.since(position)
        part = span.part("stdout", UTF8)
        seen += len(part.lines())
        dropped += part.dropped
        texts.append(part.text[part.skip :])
        position = buffer.end(UTF8)
    assert seen + dropped == buffer.lines
    whole = written.decode("utf-8", "replace")
    if not dropped:
        assert "".join(texts) == whole
    else:
        at = 0
        for text in texts:  # in order, and each of them as it was written
            at = whole.index(text, at) + len(text)


@settings(max_examples=200, deadline=None)
@given(some_bytes, st.lists(st.integers(1, 50), max_size=8), bounds)
def test_p24_memory_stays_within_the_bounds(data, sizes, bounds):
    """What is held never exceeds the bound by more than a chunk and a line."""
    buffer = LineBuffer(*bounds)
    for chunk in cut_up(data * 20, sizes):
        buffer.append(chunk)
        held = sum(map(len, buffer._backlog)) + sum(map(len, buffer._ring))
        joined = max(4096, len(chunk))
        assert held <= 2 * (buffer.max_bytes + joined + 3)
        assert len(buffer._ring) <= buffer.max_lines
        assert len(buffer._marks) <= buffer.max_lines + joined + 1


@settings(max_examples=200, deadline=None)
@given(some_bytes, some_bytes, bounds)
def test_a_pinned_line_is_kept_until_it_is_unpinned(joined, before, after, bounds):
    """A searcher that is behind finds everything from its pin on; afterwards the bounds hold again."""
    buffer = LineBuffer(*bounds)
    if before:
        buffer.append(before)
    pinned = buffer.lines
    buffer.settle()
    pin = [pinned, buffer.bytes]
    buffer.pin(pin)
    for chunk in cut_up(after * 3, [9]):
        buffer.append(chunk)
        buffer.since(Position())
    span = buffer.since(Position(pinned))
    assert span.first == pinned
    lines, _, _ = model(before + after * 3, False, *bounds)
    assert lines_of(span) == lines[pinned:]
    assert buffer.crowded == (len(lines) - pinned > bounds[0] or len(after) * 3 > bounds[1])
    buffer.unpin(pin)
    assert not buffer.crowded
    buffer.append(b"z")
    assert buffer.since(Position()).first == model(before + after * 3 + b"z", False, *bounds)[1]


def test_only_the_newest_lines_are_kept():
    """A reader that comes late gets the newest 1000 lines and is told how many it missed."""
    buffer = LineBuffer()
    for begin in range(0, 100_000, 1000):
        buffer.append(b"".join(b"%d\n" % n for n in range(begin, begin + 1000)))
    span = buffer.since(Position())
    assert span.dropped == 99_000
    assert lines_of(span) == [b"%d\n" % n for n in range(99_000, 100_000)]


def test_the_ring_is_a_bounded_deque():
    """Between searches the lines stand in the card's `deque(maxlen=1000)`."""
    buffer = LineBuffer()
    buffer.append(b"a\n" * 3000)
    assert buffer.settle() == 2000
    assert buffer._ring.maxlen == len(buffer._ring) == 1000


def test_p21_a_line_without_an_end_is_cut_into_pieces():
    """A line of 10 MB arrives in pieces and is bounded."""
    buffer = LineBuffer()
    for _ in range(160):
        buffer.append(b"0" * 65_536)
    buffer.append(b"end\n")
    span = buffer.since(Position())
    assert buffer.lines == 161
    *pieces, last = lines_of(span)
    assert last == b"end\n"
    assert all(len(piece) == 65_536 for piece in pieces)
    assert len(span.data) <= 1 << 20
    assert len(span.part("stdout", UTF8).lines()) == len(pieces) + 1 == span.number


def test_the_tail_begins_where_it_can():
    """More lines than there are is no error."""
    buffer = LineBuffer()
    buffer.append(b"a\nb\nc\nd")
    assert buffer.tail(2) == Position(1)
    assert buffer.tail(9) == Position(0)
    assert buffer.end(UTF8) == Position(3, 1)


def test_the_end_is_noted_once():
    """A stream that ends twice has one last line."""
    buffer = LineBuffer()
    buffer.append(b"no newline")
    buffer.close()
    buffer.close()
    assert buffer.lines == 1
    assert buffer.since(Position(0, 10)).part("stdout", UTF8).lines() == ["no newline"]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii", "cp1252", "gb18030", "shift_jis", "big5", "koi8-r"])
def test_encodings_that_extend_ascii_are_taken(encoding):
    """One byte 10 is a newline in all of them."""
    assert Decoding(encoding).text(b"a\nb") == "a\nb"


@pytest.mark.parametrize("encoding", ["utf-8", "euc_jp", "gb18030", "shift_jis", "big5"])
@pytest.mark.parametrize("torn", [b"\x8f", b"\x81\x30\x81", b"\xe3\x81"])
def test_p22_the_begin_of_a_character_swallows_no_newline(encoding, torn):
    """A line is one, whenever it is read."""
    span_of = LineBuffer()
    span_of.append(torn + b"\none\n")
    part = span_of.since(Position()).part("stdout", Decoding(encoding))
    assert len(part.lines()) == 2
    assert part.lines()[1] == "one"


@pytest.mark.parametrize(
    "encoding",
    [
        "utf-16",
        "utf-32",
        "utf-7",
        "utf-8-sig",
        "cp037",
        "hz",
        "iso2022_jp",
        "hex",
        "rot13",
        "bz2",
        "zlib",
        "klingon",
        "",
        "unicode_escape",
        "raw_unicode_escape",
        "utf-8\0",
    ],
)
def test_encodings_that_do_not_extend_ascii_are_refused(encoding):
    """Their newlines would tear characters; the message names the encoding."""
    with pytest.raises(ValueError, match=re.escape(repr(encoding))):
        Decoding(encoding)


@pytest.mark.parametrize("errors", ["strict", "xmlcharrefreplace", ""])
def test_error_policies_that_could_stop_a_reader_are_refused(errors):
    """`strict` would end the reading at the first wrong byte."""
    with pytest.raises(ValueError, match="errors must be one of"):
        Decoding("utf-8", errors)


def test_the_encoding_and_the_policy_are_strings():
    """None is no encoding."""
    with pytest.raises(TypeError, match="encoding"):
        Decoding(None)
    with pytest.raises(TypeError, match="errors"):
        Decoding("utf-8", None)


@settings(deadline=None)
@given(st.binary(max_size=60), st.lists(st.integers(1, 7), min_size=1), st.sampled_from(["utf-8", "gb18030", "big5"]))
def test_p21_text_so_far_is_always_a_begin_of_the_whole(data, sizes, encoding):
    """What was handed out of an unfinished line is never taken back, whatever the bytes."""
    decoding = Decoding(encoding)
    whole = decoding.text(data)
    at = 0
    for chunk in cut_up(data, sizes):
        at += len(chunk)
        assert whole.startswith(decoding.text_so_far(data[:at]))


SOURCE = inspect.getfile(LineBuffer)


def interrupted(function, step):
    """Call a function, and raise KeyboardInterrupt in it at a step; False if it has fewer.

    A step is where the interpreter looks for signals, from 3.11 on: behind each call and each jump back.
    """
    steps = itertools.count()
    before = {}  # by frame: the last instruction

    def trace(frame, event, _):
        if frame.f_code.co_filename != SOURCE:
            return None
        if event == "call":
            frame.f_trace_opcodes = True
            frame.f_trace = trace  # 3.13 wants both
            here = "CALL"
        elif event == "opcode":
            here = before.get(frame, "")
            if here.startswith("JUMP") and frame.f_lasti > before[frame, "at"]:
                here = ""
            before[frame], before[frame, "at"] = dis.opname[frame.f_code.co_code[frame.f_lasti]], frame.f_lasti
        else:
            return trace
        if here.startswith(("CALL", "JUMP")) and next(steps) == step:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    outer = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(outer)
    return False


@settings(max_examples=60, deadline=None)
@given(some_bytes, some_bytes, bounds, st.booleans(), st.booleans())
def test_p44_ctrl_c_in_an_append_takes_all_or_nothing(joined, old, new, bounds, settled, pinned):
    """At any step of it: its size tells which, and the next look finds the same as if there had been none."""
    for step in itertools.count():
        buffers = LineBuffer(*bounds), LineBuffer(*bounds)
        for buffer in buffers:
            buffer.append(old, 1, 1.0)
            if settled:
                buffer.settle()
            if pinned:
                buffer.pin([max(buffer.lines - 1, 0), 0])
        hit = interrupted(lambda: buffers[0].append(new, 2, 2.0), step)  # noqa: B023  # called at once
        if buffers[0].bytes == len(old):
            buffers[0].append(new, 2, 2.0)
        buffers[1].append(new, 2, 2.0)
        for buffer in buffers:
            buffer.append(b"z\n", 3, 3.0)
        first, second = ((*buffer.since(Position()), buffer.settle(), buffer._ring_bytes) for buffer in buffers)
        assert first == second, step
        if not hit:
            break


@settings(max_examples=60, deadline=None)
@given(some_bytes, some_bytes, bounds, st.booleans(), st.booleans())
def test_p44_ctrl_c_in_a_look_loses_nothing(old, new, bounds, ended, pinned):
    """At any step of it: the next look finds the same as if there had been none."""
    for step in itertools.count():
        buffers = LineBuffer(*bounds), LineBuffer(*bounds)
        for buffer in buffers:
            buffer.append(old)
            buffer.settle()
            if pinned:
                buffer.pin([max(buffer.lines - 1, 0), 0])
            buffer.append(new)
            if ended:
                buffer.close()
        hit = interrupted(lambda: buffers[0].since(Position()), step)  # noqa: B023  # called at once
        first, second = ((*buffer.since(Position()), buffer.settle(), buffer._ring_bytes) for buffer in buffers)
        assert first == second, step
        if not hit:
            break


def test_the_pieces_of_a_line_keep_their_carriage_returns():
    """Only what stands before a newline, or at the end of all, goes with it."""
    buffer = LineBuffer(max_line_bytes=4)
    buffer.append(b"abc\rdef\r\nend\r")
    buffer.close()
    assert buffer.since(Position()).part("stdout", Decoding()).lines() == ["abc\r", "def", "end"]


def test_what_a_searcher_held_up_is_dropped_in_linear_time():
    """A deque takes ever longer to find its lines by index: ten times as many took a hundred times as long."""

    def seconds(lines: int) -> float:
        buffer = LineBuffer(max_lines=10, max_bytes=1 << 30)
        pin = [0, 0]
        buffer.pin(pin)
        buffer.append(b"y\n" * lines)
        buffer.since(Position())
        begin = time.thread_time()
        buffer.unpin(pin)
        assert len(buffer.since(Position()).part("stdout", Decoding()).lines()) == 10
        return time.thread_time() - begin

    assert min(seconds(400_000) for _ in range(3)) < 40 * min(seconds(40_000) for _ in range(3))
