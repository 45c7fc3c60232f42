"""Reading: nothing lost, nothing twice, nothing silent."""

from __future__ import annotations

import random
import threading
import time

import pytest

import procpool
from conftest import child, fork, until


def read_all(process, **options) -> tuple[str, procpool.Output]:
    """Read until everything has ended; return the joined texts and the last output."""
    texts = []
    while True:
        output = process.read(timeout=10, **options)
        texts.append(output.text)
        if output.eof and not output:
            return "".join(texts), output


@pytest.mark.parametrize("times", [1000, pytest.param(10_000, marks=[pytest.mark.stress, pytest.mark.timeout(900)])])
@pytest.mark.timeout(120)
def test_p18_what_was_written_before_the_exit_is_readable_after_wait(manager, system, times):
    """Fast exits in a row, each with its whole output."""
    for number in range(times if system == "linux" else times // 5):
        process = manager.spawn("a", "echo", [str(number)])
        assert process.wait(10) == 0
        assert process.read().stdout == [str(number)]


def test_p18_a_full_pipe_at_the_exit_is_read_to_its_end(spawn):
    """64 KiB that still lie in the pipe when the process is gone."""
    process = spawn("zeros:65536", "out:\nlast\n")
    process.wait(10)
    output = process.read()
    assert output.stdout[-1] == "last"
    assert len(output.text) == 65_536 + 6


def test_p19_the_last_line_needs_no_newline(spawn):
    """It is unfinished while the process lives, and a line when the output has ended."""
    process = spawn("out:one\\ntwo", "line")
    process.expect("two")
    output = process.read()
    assert output.stdout == ["one"]
    assert output.partial.stdout == "two"
    assert output.text == "one\ntwo"
    process.send_line()
    process.wait(10)
    output = process.read(timeout=10)
    assert output.stdout == ["two"]
    assert output.text == ""
    assert output.partial.stdout == ""
    assert bool(output)
    assert not process.read()


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        ("\\xff\\xfe ok\\n", ["\ufffd\ufffd ok"]),
        ("a\\x00b\\n", ["a\x00b"]),
        ("\\x1b[31mred\\x1b[0m\\n", ["\x1b[31mred\x1b[0m"]),
        ("\\xe2\\x82\\n", ["\ufffd"]),
    ],
)
def test_p21_no_byte_stops_the_reader(spawn, written, lines):
    """Invalid UTF-8, NUL, escape codes: the line after them is read, too."""
    process = spawn(f"out:{written}", "out:after\\n")
    process.wait(10)
    assert process.read().stdout == [*lines, "after"]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"encoding": "latin-1"}, "é\xff"),
        ({"errors": "backslashreplace"}, "\\xe9\\xff"),
        ({"errors": "surrogateescape"}, "\udce9\udcff"),
        ({"errors": "ignore"}, ""),
    ],
)
def test_p21_the_encoding_and_the_policy_are_the_caller_s(spawn, options, line):
    """As `bytes.decode` would."""
    process = spawn("out:\\xe9\\xff\\n", **options)
    process.wait(10)
    assert process.read().stdout == [line]


@pytest.mark.parametrize("size", [100_000_000, pytest.param(1_000_000_000, marks=pytest.mark.stress)])
def test_p21_p24_an_endless_line_is_read_and_bounded(spawn, size):
    """A line of 100 MB (1 GB under stress): the newest pieces are kept, all are counted."""
    process = spawn(f"zeros:{size}", "out:\\nend\\n")
    process.wait(120)
    info = process.info()
    assert info.bytes.stdout == size + 5
    output = process.read()
    assert output.stdout[-1] == "end"
    assert len(output.text) <= 1 << 20
    assert len(output.stdout) + output.dropped.stdout == info.lines.stdout


def test_p22_only_a_newline_ends_a_line(spawn):
    """Form feeds, vertical tabs, NEL, line separators and lone returns are text."""
    process = spawn("out:a\\x0bb\\x0cc\\x1cd\\xc2\\x85e\\xe2\\x80\\xa8f\\rg\\r\\n\\r\\r\\n")
    process.wait(10)
    assert process.read().stdout == ["a\x0bb\x0cc\x1cd\x85e\u2028f\rg", "\r"]


def test_p23_the_ring_keeps_the_newest_and_counts_the_rest(spawn):
    """Of 50 000 lines the newest 1000; the others are counted to the last one."""
    process = spawn("lines:50000")
    process.wait(10)
    output = process.read()
    assert output.stdout == [f"line {n}" for n in range(49_000, 50_000)]
    assert output.dropped.stdout == 49_000
    assert process.info().dropped.stdout == 49_000
    assert process.read().dropped.stdout == 0


def test_p23_texts_and_lines_of_successive_reads_join(spawn):
    """Reads at any moment: every character once, every line once."""
    process = spawn("lines:20000", max_lines=100_000, max_bytes=1 << 24)
    text, lines = "", []
    while True:
        output = process.read(timeout=10, max_lines=random.randint(1, 3000))
        text += output.text
        lines += output.stdout
        if output.eof and not output:
            break
    assert lines == [f"line {n}" for n in range(20_000)]
    assert text == "".join(f"line {n}\n" for n in range(20_000))


def test_p24_max_lines_and_max_bytes_are_per_process(spawn):
    """What is asked for at the start holds."""
    process = spawn("lines:5000", max_lines=10)
    process.wait(10)
    assert len(process.read().stdout) == 10
    process = spawn("lines:5000", max_bytes=1000)
    process.wait(10)
    output = process.read()
    assert 0 < len(output.text) <= 1000
    assert len(output.stdout) + output.dropped.stdout == 5000


def test_p25_a_flood_on_one_stream_does_not_evict_the_other(spawn):
    """A line on stderr survives a million on stdout."""
    process = spawn("err:the one error\\n", "lines:1000000")
    process.wait(15)
    output = process.read()
    assert output.stderr == ["the one error"]
    assert output.stdout[-1] == "line 999999"


def test_p25_a_flood_does_not_starve_another_process(spawn):
    """A round trip beside two endless writers."""
    floods = [spawn("forever") for _ in range(2)]
    process = spawn("copy")
    for number in range(20):
        process.send_line(str(number))
        process.expect(f"^{number}$", 5)
    assert all(flood.alive for flood in floods)


def test_a_process_without_descendants_is_never_said_to_have_some(manager):
    """Not even in the moment after its exit, in which nobody has looked yet."""
    for _ in range(20):
        process = manager.spawn("a", "true")
        process.wait(10)
        assert not process.info().descendants_alive
        listed = manager.spawn("a", "true")
        listed.wait(10)
        assert not any(info.descendants_alive for info in manager.list())


def test_p26_the_exit_is_seen_although_a_descendant_holds_the_pipes(spawn):
    """And what the descendant writes later is read."""
    process = spawn(fork("pid:member", "line", "out:later\\n", "wait"), "out:root\\n")
    process.expect("member")
    assert process.wait(5) == 0
    info = process.info()
    assert not info.alive
    assert info.descendants_alive
    output = process.read()
    assert not output.eof
    assert not output.alive
    assert "root" in output.stdout


def test_p26_output_after_the_exit_is_read(spawn, tmp_path):
    """A server in the background keeps its pipe: closing it early would kill it at its next line."""
    fifo = tmp_path / "go"
    import os

    os.mkfifo(fifo)
    script = f"(read line < {fifo}; echo later; exec sleep 60) & echo root"
    process = procpool.spawn("sh", ["-c", script])
    assert process.wait(5) == 0
    fifo.write_text("go\n")
    assert process.expect("later", 5).line == "later"
    assert process.kill().output.stdout[-1] == "later"


def test_p27_no_line_is_handed_out_twice_by_the_default_cursor(spawn):
    """Eight readers share what one process says; together they have all of it, once."""
    process = spawn("lines:30000", max_lines=100_000, max_bytes=1 << 24)
    lines: list[str] = []

    def read():
        while True:
            output = process.read(timeout=10)
            lines.extend(output.stdout)
            if output.eof and not output:
                return

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    assert sorted(lines) == sorted(f"line {n}" for n in range(30_000))


def test_p27_cursors_are_independent_and_repeatable(spawn):
    """The same cursor gives the same, whoever else reads; what was taken can be read again."""
    process = spawn("out:a\\nb\\n", "err:c\\n", "out:par", "line", "out:tial\\n")
    process.expect("par")
    process.expect("c", stream="stderr")
    first = process.read()
    again = process.read(since="")
    assert again.stdout == first.stdout == ["a", "b"]
    assert again.stderr == ["c"]
    assert again.cursor == first.cursor
    assert process.read(since=again.cursor).text == ""
    process.send_line()
    process.wait(10)
    for _ in range(2):
        rest = process.read(since=first.cursor)
        assert rest.text == "tial\n"
        assert rest.stdout == ["partial"]
    assert process.read().text == "tial\n"


def test_p27_a_read_by_cursor_waits_for_something_new(spawn):
    """A standing prompt is not new: it does not make a reader spin."""
    process = spawn("out:> ", "line", "out:go\\n", "wait")
    process.expect("> ")
    cursor = process.read(since="").cursor
    begin = time.monotonic()
    assert not process.read(since=cursor, timeout=0.1)
    assert time.monotonic() - begin >= 0.1
    process.send_line()
    assert process.read(since=cursor, timeout=5).text == "go\n"


@pytest.mark.parametrize("cursor", ["x", "1", "1.2.3,0.0", "-1.0,0.0", "0.0", "0.0,0.0,0.0", "9.0,0.0", "\u0661.0,0.0"])
def test_a_wrong_cursor_is_refused(spawn, cursor):
    """It names itself."""
    process = spawn("out:a\\n", "wait")
    with pytest.raises(ValueError, match="cursor"):
        process.read(since=cursor)


def test_p28_a_child_that_closes_its_stdout_is_alive(spawn):
    """The end of the output is not the exit."""
    process = spawn("out:bye\\n", "close:1", "close:2", "wait")
    output = process.read(timeout=5)
    while not output.eof:
        output = process.read(timeout=5)
    assert process.alive
    assert output.alive
    with pytest.raises(procpool.TimeoutExpired):
        process.wait(0.05)


def test_read_returns_at_once_without_a_timeout(spawn):
    """The seed's read: what there is."""
    process = spawn("wait")
    output = process.read()
    assert output.stdout == output.stderr == []
    assert not output
    assert output.alive
    assert not output.eof


def test_read_behaves_as_the_seed_s_pair_and_as_text(spawn):
    """Both kinds of caller are at home."""
    process = spawn("out:one\\n", "err:two\\n")
    process.wait(10)
    output = process.read()
    out, err = output
    assert (out, err) == (["one"], ["two"])
    assert output[0] == ["one"]
    assert output[1] == ["two"]
    assert len(output) == 2
    assert sorted(str(output).split()) == ["one", "two"]
    assert "one" in output
    assert 1 not in output
    assert output.to_dict()["stdout"] == ["one"]
    assert repr(output).startswith("<Output ")


def test_merged_streams_keep_the_child_s_order(spawn):
    """One pipe, one order."""
    process = spawn(*(f"{'out' if n % 2 else 'err'}:{n}\\n" for n in range(200)), merge_stderr=True)
    process.wait(10)
    output = process.read()
    assert output.stdout == [str(n) for n in range(200)]
    assert output.stderr == []
    assert [line.text for line in output.lines] == output.stdout


def test_p19_the_last_line_is_a_line_when_wait_returns(manager):
    """Though it has no newline: the end of the stream belongs to what came before the exit."""
    for _ in range(100):
        process = manager.spawn("a", ["sh", "-c", "printf a; printf b >&2"])
        process.wait(10)
        output = process.read()
        assert (output.stdout, output.stderr, output.eof) == (["a"], ["b"], True)


def test_lines_tell_stream_and_time(spawn):
    """In the order in which they were read."""
    before = time.time()
    process = spawn("out:a\\n", "line", "err:b\\n", "line", "out:c\\nd")
    process.expect("a")
    process.send_line()
    process.expect("b")
    process.send_line()
    process.wait(10)
    lines = process.read().lines
    assert [(line.stream, line.text, line.continued) for line in lines] == [
        ("stdout", "a", False),
        ("stderr", "b", False),
        ("stdout", "c", False),
        ("stdout", "d", False),
    ]
    assert before <= lines[0].time <= lines[-1].time <= time.time()


def test_long_lines_come_in_pieces(manager):
    """Each piece says that it goes on."""
    with procpool.ProcessManager(max_line_bytes=10) as small:
        process = small.spawn("a", "printf", ["0123456789abc\nshort\n"])
        process.wait(10)
        lines = process.read().lines
    assert [(line.text, line.continued) for line in lines] == [("0123456789", True), ("abc", False), ("short", False)]


def test_text_of_two_streams_comes_in_reading_order(spawn):
    """Whole lines first, then what is unfinished."""
    process = spawn("out:a\\n", "line", "err:b\\n", "line", "out:c", "err:d", "wait")
    process.expect("a")
    process.send_line()
    process.expect("b")
    process.send_line()
    process.expect("c", stream="stdout")
    process.expect("d", stream="stderr")
    assert process.read().text == "a\nb\ncd"


def test_the_end_is_told_with_the_last_line(spawn):
    """Not before, though all streams have ended: a loop until `eof` gets everything."""
    process = spawn("lines:5")
    process.wait(5)
    found = []
    output = None
    while output is None or not output.eof:
        output = process.read(max_lines=2)
        found += output.stdout
    assert len(found) == 5
    assert process.read(since="", max_lines=4).eof is False


def test_max_lines_leaves_the_rest(spawn):
    """In order over both streams, and unfinished lines last."""
    process = spawn("out:a\\n", "line", "err:b\\n", "line", "out:c\\nd", "wait")
    process.expect("a")
    process.send_line()
    process.expect("b")
    process.send_line()
    process.expect("d")
    reads = [process.read(max_lines=1) for _ in range(4)]
    assert [read.text for read in reads] == ["a\n", "b\n", "c\nd", ""]
    assert process.read(since="", max_lines=2).text == "a\nb\n"


def test_tail_takes_nothing(spawn):
    """The newest lines of each stream."""
    process = spawn("lines:100", "err:e\\n", "out:rest", "wait")
    process.expect("rest")
    process.expect("e", stream="stderr")
    assert process.tail(2).stdout == ["line 98", "line 99"]
    assert process.tail(2).stderr == ["e"]
    assert process.tail(2).partial.stdout == "rest"
    assert len(process.read().stdout) == 100


def test_clip_cuts_the_middle_and_says_how_much(spawn):
    """Head and tail, never more than asked for."""
    process = spawn("zeros:1000", "wait")
    until(lambda: process.info().bytes.stdout == 1000, "1000 bytes")
    output = process.read()
    assert output.clip(1000) == output.text
    for chars in (0, 1, 10, 30, 40, 100, 999):
        assert len(output.clip(chars)) <= chars
    assert "characters cut" in output.clip(100)
    with pytest.raises(TypeError):
        output.clip(1.5)
    with pytest.raises(ValueError):
        output.clip(-1)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"timeout": -1}, ValueError), ({"timeout": float("nan")}, ValueError), ({"timeout": "1"}, TypeError),
        ({"timeout": None}, TypeError), ({"since": 1}, TypeError), ({"max_lines": 0}, ValueError),
        ({"max_lines": 1.0}, TypeError), ({"max_lines": True}, TypeError),
    ],
)  # fmt: skip
def test_wrong_arguments_of_read_are_named(spawn, options, error):
    """Before anything is taken."""
    process = spawn("out:a\\n", "wait")
    process.expect("a")
    with pytest.raises(error, match=next(iter(options))):
        process.read(**options)
    assert process.read().stdout == ["a"]


def test_an_infinite_timeout_waits_for_ever(spawn):
    """Until something comes."""
    process = spawn("line", "out:x\\n")
    threading.Timer(0.05, process.send_line).start()
    assert process.read(timeout=float("inf")).text == "x\n"


def test_p24_all_streams_together_stay_within_a_bound():
    """Each has a share, which shrinks and grows with their number; what had to go is counted."""
    with procpool.ProcessManager(max_per_agent=None, max_total_bytes=400_000, guardian=False) as manager:
        first = manager.spawn("a", child("lines:20000"), merge_stderr=True, max_lines=100_000)
        first.wait(10)
        assert len(first.read(since="").stdout) == 20_000
        others = [manager.spawn("a", child("lines:20000"), max_lines=100_000) for _ in range(2)]
        for process in (first, *others):
            process.wait(10)
            output = process.read()
            assert len(output.text) <= 80_000
            assert len(output.stdout) + output.dropped.stdout == 20_000
            assert output.stdout[-1] == "line 19999"
        for process in others:
            process.kill()
        again = manager.spawn("a", child("lines:20000"), merge_stderr=True, max_lines=100_000)
        again.wait(10)
        assert 150_000 < len(again.read().text) <= 200_000
