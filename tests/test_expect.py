"""Expecting: looking without taking, the earliest match, whatever the chunks."""

from __future__ import annotations

import sys
import threading
import time

import pytest

import procpool
from conftest import until


def test_expect_returns_the_match(spawn):
    """Groups, names, the line, and what stood before."""
    process = spawn("out:hello\\nserving on port 8000 now\\nafter\\n", "wait")
    match = process.expect(r"port (?P<port>\d+)", 5)
    assert match[0] == match.group() == "port 8000"
    assert match[1] == match["port"] == match.group("port") == "8000"
    assert match.group(0, 1) == ("port 8000", "8000")
    assert match.line == "serving on port 8000 now"
    assert match.before == "hello\nserving on "
    assert match.stream == "stdout"
    assert match.index == 0
    for key in (2, -1, "no"):
        with pytest.raises(IndexError):
            match[key]
    assert repr(match) == "<Match 'port 8000': pattern 0, stdout>"
    assert match.to_dict()["groups"] == ("8000",)


def test_expect_takes_nothing_from_read(spawn):
    """Waiting for a prompt does not eat what is read later."""
    process = spawn("out:one\\ntwo\\n", "wait")
    process.expect("two", 5)
    assert process.read().stdout == ["one", "two"]
    process.send_line()


def test_expect_goes_on_where_the_last_one_ended(spawn):
    """Within the line, then from line to line."""
    process = spawn("out:a1 a2\\na3\\n", "wait")
    assert [process.expect(r"a(\d)", 5)[1] for _ in range(3)] == ["1", "2", "3"]
    assert process.expect("", 5).index == 0


def test_expect_is_not_fooled_by_what_was_read(spawn):
    """Its place is its own."""
    process = spawn("out:ready\\n", "wait")
    assert "ready" in process.read(timeout=5).text
    process.expect("ready", 5)


def test_several_patterns(spawn):
    """The index tells which of them came first."""
    process = spawn("out:error: no\\n", "wait")
    assert process.expect(["ready", "error: (.*)"], 5).index == 1


def test_each_stream_has_its_own_place(spawn):
    """A match on one stream passes over nothing on the other; `stream` looks at one alone."""
    process = spawn("err:warning\\n", "line", "out:ready\\n", "wait")
    process.expect("warning", 5, stream="stderr")
    process.send_line()
    assert process.expect("ready", 5).stream == "stdout"
    with pytest.raises(procpool.TimeoutExpired):
        process.expect("warning", 0.05)


def test_an_unfinished_line_is_searched(spawn):
    """A prompt has no newline."""
    process = spawn("out:password: ", "line", "wait")
    begin = time.monotonic()
    assert process.expect("password: $", 5).line == "password: "
    assert time.monotonic() - begin < 1


def test_p20_a_match_at_the_end_waits_for_the_rest_of_the_line(manager, monkeypatch):
    """A number that comes digit by digit is found whole, 20 times."""
    monkeypatch.setattr("procpool.waiting.QUIET_SECS", 1.0)  # on a busy machine there may be 20 ms between two digits
    for _ in range(20):
        script = "import os\nfor c in 'listening on 12345\\n': os.write(1, c.encode())\nos.read(0, 1)"
        process = manager.spawn("a", sys.executable, ["-S", "-E", "-c", script])
        assert process.expect(r"listening on (\d+)", 5)[1] == "12345"
        process.kill()


def test_p20_a_match_that_could_have_grown_is_the_same_in_any_chunks(manager, monkeypatch):
    """`a(.*)b` gives the whole line's match, not that of the first chunk."""
    monkeypatch.setattr("procpool.waiting.QUIET_SECS", 1.0)
    for _ in range(10):
        script = "import os\nfor c in '<axbxxbx>\\n': os.write(1, c.encode())\nos.read(0, 1)"
        process = manager.spawn("a", sys.executable, ["-S", "-E", "-c", script])
        assert process.expect("a(.*)b", 5)[1] == "xbxx"
        process.kill()


def test_a_timeout_says_what_is_needed(spawn):
    """What was waited for, the process, its state, its last lines, and a hint; nothing is taken."""
    process = spawn("out:one\\ntwo\\n", "wait")
    process.expect("two", 5)
    with pytest.raises(procpool.TimeoutExpired) as caught:
        process.expect("three", 0.05)
    error = caught.value
    text = str(error)
    assert text.startswith(f"Process '{process.id}' did not give a line that matches 'three' in 0.05 seconds")
    for part in (process.id, "child.", f"running, pid {process.pid}", "  | two", "python -u"):
        assert part in text
    assert error.timeout == 0.05
    assert error.output.stdout == ["one", "two"]
    assert process.read().stdout == ["one", "two"]


def test_the_end_of_the_output_ends_the_wait(spawn, monkeypatch):
    """With the exit code and the output."""
    monkeypatch.setattr("procpool.process.QUIET_SECS", 4.0)  # so long may a busy machine take from the one to the other
    process = spawn("out:one\\n", "exit:3")
    begin = time.monotonic()
    with pytest.raises(procpool.EndOfOutputError) as caught:
        process.expect("two", 10)
    assert time.monotonic() - begin < 5
    assert caught.value.returncode == 3
    assert caught.value.output.stdout == ["one"]
    assert "exited with 3" in str(caught.value)


def test_the_last_line_is_found_without_a_newline(spawn):
    """Also when the process is gone."""
    process = spawn("out:done")
    process.wait(10)
    assert process.expect("done$", 5).line == "done"


def test_p23_no_marker_scrolls_past_a_searcher(spawn):
    """In the middle of 5 MB, beside a busy thread: the stream pauses rather than drop what was not searched."""
    stop = threading.Event()

    def spin():
        while not stop.is_set():
            pass

    busy = threading.Thread(target=spin)
    busy.start()
    try:
        process = spawn("lines:200000", "out:the marker\\n", "lines:200000", "wait")
        assert process.expect("marker", 15).line == "the marker"
    finally:
        stop.set()
        busy.join()
    assert process.expect("^line 199999$", 15)


def test_p23_the_stream_flows_on_after_a_search(spawn):
    """A pause ends with the search that it was for, found or not."""
    process = spawn("lines:300000", "exit:0")
    with pytest.raises(procpool.EndOfOutputError):
        process.expect("no such line", 15)
    process = spawn("lines:300000", "exit:0")
    with pytest.raises(procpool.TimeoutExpired):
        process.expect("no such line", 0.01)
    assert process.wait(10) == 0


def test_several_threads_may_expect(spawn):
    """Each finds what it looks for."""
    process = spawn("line", "lines:2000", "wait")
    found = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(process.expect(f"^line {n}$", 10).line)) for n in range(0, 10)
    ]
    for thread in threads:
        thread.start()
    until(lambda: len(process._child.waiters) == 10, "ten sleepers")  # who begins later looks at what comes then
    process.send_line()
    for thread in threads:
        thread.join(15)
    assert sorted(found) == sorted(f"line {n}" for n in range(10))


def test_expect_on_a_killed_process_ends(spawn):
    """A kill elsewhere is the end of the output."""
    process = spawn("out:x\\n", "wait")
    process.expect("x", 5)
    timer = threading.Timer(0.05, process.kill)
    timer.start()
    with pytest.raises(procpool.EndOfOutputError):
        process.expect("never", 10)
    timer.join()


@pytest.mark.parametrize(
    ("arguments", "options", "error", "what"),
    [
        ((b"a",), {}, TypeError, "pattern"), (("a\nb",), {}, ValueError, "newline"), (("(",), {}, ValueError, "pattern"),
        (("a", -1), {}, ValueError, "timeout"), (("a", "1"), {}, TypeError, "timeout"),
        (("a",), {"stream": "stdin"}, ValueError, "stream"), (([],), {}, ValueError, "pattern"),
    ],
)  # fmt: skip
def test_wrong_arguments_of_expect_are_named(spawn, arguments, options, error, what):
    """Before anything is waited for."""
    with pytest.raises(error, match=what):
        spawn("wait").expect(*arguments, **options)


def test_the_manager_s_timeout_is_the_default():
    """Thirty seconds, unless it says otherwise."""
    with procpool.ProcessManager(timeout=0.05) as manager:
        process = manager.start("a", "cat")
        with pytest.raises(procpool.TimeoutExpired):
            manager.expect(process, "never")
    assert procpool.ProcessManager().timeout == 30.0
