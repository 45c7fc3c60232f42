"""Writing: the whole message or an error that says how much, and nobody hangs."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

import procpool
from conftest import on, until
from procpool.stdin import Stdin

BIG = 10_000_000


def test_p30_the_whole_message_is_written(spawn):
    """Far more than a pipe holds, as text and as bytes."""
    process = spawn("count")
    assert process.write("é" * 1000) == 2000
    assert process.write(b"x" * BIG) == BIG
    assert process.write(bytearray(b"ab")) == 2
    assert process.write(memoryview(b"ab")) == 2
    assert process.write("") == 0
    process.close_stdin()
    process.expect(f"{BIG + 2004} bytes", 10)


def test_p30_a_message_that_is_not_taken_raises_with_what_was(spawn):
    """At the deadline; the pipe's worth was written."""
    process = spawn(on("SIGUSR1", "count"), "out:ready\\n", "wait")
    process.expect("ready", 5)
    with pytest.raises(procpool.WriteTimeoutError) as caught:
        process.write(b"x" * BIG, timeout=0.05)
    written = caught.value.written
    assert 0 < written < BIG
    assert f"took {written} of {BIG} bytes" in str(caught.value)
    process.close_stdin()
    process.send_signal(signal.SIGUSR1)
    process.expect(f"{written} bytes", 10)


def test_p30_messages_of_concurrent_writers_never_mix(spawn):
    """Twenty threads, each message larger than what a pipe takes in one piece."""
    process = spawn("copy", max_lines=10_000, max_bytes=1 << 26)
    size = 30_000

    def write(letter):
        for _ in range(5):
            process.send_line(letter * size, timeout=10)

    threads = [threading.Thread(target=write, args=(chr(65 + n),)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    process.close_stdin()
    process.wait(10)
    lines = process.read(timeout=5).stdout
    assert len(lines) == 100
    assert all(line == line[0] * size for line in lines)


def blocked_writer(process):
    """Start a thread that blocks in a write; return it and the list that gets its error."""
    errors = []

    def write():
        try:
            process.write(b"x" * BIG, timeout=None)
        except procpool.ProcpoolError as error:
            errors.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    until(lambda: process._child.stdin._queue, "a blocked writer")
    return thread, errors


@pytest.mark.parametrize("how", ["kill", "close", "close_stdin", "exit"])
def test_p31_whatever_ends_the_input_releases_blocked_writers(how):
    """With an error that says how much was written."""
    with procpool.ProcessManager(grace=0.5) as manager:
        process = manager.spawn("a", "sleep", ["60"])
        thread, errors = blocked_writer(process)
        if how == "exit":
            process.send_signal(signal.SIGKILL)
        elif how == "close":
            manager.close()
        else:
            getattr(process, how)()
        thread.join(5)
        assert not thread.is_alive()
        assert isinstance(errors[0], (procpool.StdinClosedError, procpool.ManagerClosedError))
        if how != "close":
            assert 0 < errors[0].written < BIG


def test_p32_a_blocked_writer_blocks_no_other_call(spawn):
    """Not even on the same process."""
    process = spawn("out:x\\n", "wait")
    other = spawn("copy")
    thread, _ = blocked_writer(process)
    begin = time.monotonic()
    process.expect("x", 5)
    assert process.read().stdout == ["x"]
    assert process.info().alive
    other.send_line("y")
    other.expect("y", 5)
    with pytest.raises(procpool.WriteTimeoutError):
        process.write("z", timeout=0.01)
    process.close_stdin()
    thread.join(5)
    assert time.monotonic() - begin < 2


def test_p33_writing_to_a_process_that_ended_raises(spawn):
    """Never silence."""
    process = spawn("exit:0")
    process.wait(10)
    for _ in range(2):
        with pytest.raises(procpool.StdinClosedError, match="Process stdin is closed") as caught:
            process.write("x")
        assert caught.value.written == 0
    assert "exited with 0" in str(caught.value)


def test_p33_writing_to_a_stdin_that_the_process_closed_raises(spawn):
    """It lives, but it takes nothing any more."""
    process = spawn("close:0", "out:closed\\n", "wait")
    process.expect("closed", 5)
    with pytest.raises(procpool.StdinClosedError):
        process.write("x")
    assert process.alive


def test_p33_who_knows_of_the_exit_cannot_write_any_more(spawn, monkeypatch):
    """Not even before the reader thread comes to close what it wrote to: a terminal takes what nobody will read."""
    let = threading.Event()
    close_now = Stdin.close_now
    monkeypatch.setattr(Stdin, "close_now", lambda stdin: (let.wait(10), close_now(stdin)))
    process = spawn("exit:0", pty=True)
    try:
        process.wait(10)
        with pytest.raises(procpool.StdinClosedError):
            process.write("x")
    finally:
        let.set()


def test_p33_a_broken_pipe_is_an_error_also_for_what_is_queued(spawn):
    """The reader of a long message goes away."""
    process = spawn("line", "close:0", "wait")
    with pytest.raises(procpool.StdinClosedError) as caught:
        process.write(b"\n" + b"x" * BIG)
    assert caught.value.written < BIG


def test_p33_no_sigpipe_in_an_owner_that_has_it_at_default():
    """A script that is piped into `head` does not die of a child's end."""
    script = (
        "import signal, procpool\n"
        "signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
        "with procpool.spawn('sh', ['-c', 'exec <&-; echo closed; sleep 60']) as p:\n"
        "    p.expect('closed')\n"
        "    for size in (1, 1000000):\n"
        "        try: p.write(b'x' * size)\n"
        "        except procpool.StdinClosedError: print('refused')\n"
        "print(signal.SIGPIPE in signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.sigpending())\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=15)
    assert done.stdout == "refused\nrefused\nFalse set()\n", done.stderr
    assert done.returncode == 0


def test_stdin_can_be_closed_twice(spawn):
    """And is closed for writers then."""
    process = spawn("count")
    process.write("abc")
    process.close_stdin()
    process.close_stdin()
    process.expect("3 bytes", 5)
    with pytest.raises(procpool.StdinClosedError):
        process.send_line()


def test_without_stdin_it_is_dev_null(spawn):
    """An end of file at once."""
    process = spawn("count", stdin=False)
    process.expect("0 bytes", 5)
    with pytest.raises(procpool.StdinClosedError):
        process.write("x")
    process.close_stdin()


def test_text_that_cannot_be_encoded_writes_nothing(spawn):
    """A lone surrogate, or a character that the encoding lacks."""
    process = spawn("count", encoding="latin-1")
    for text in ("good \udcff", "€"):
        with pytest.raises(UnicodeEncodeError):
            process.write(text)
    process.close_stdin()
    process.expect("0 bytes", 5)


def test_send_line_appends_one_newline(spawn):
    """And nothing else."""
    process = spawn("copy")
    process.send_line("a")
    process.send_line()
    process.close_stdin()
    process.wait(10)
    assert process.read(timeout=5).text == "a\n\n"


@pytest.mark.parametrize(("data", "what"), [(1, "int"), (None, "NoneType"), ([b"x"], "list")])
def test_data_is_str_or_bytes(spawn, data, what):
    """The error names the type."""
    process = spawn("wait")
    with pytest.raises(TypeError, match=f"data must be str or bytes, not {what}"):
        process.write(data)
    with pytest.raises(TypeError, match="line must be a str"):
        process.send_line(data)


def test_the_pipe_s_fd_is_not_inherited(spawn):
    """A later process does not hold an earlier one's stdin open."""
    first = spawn("count")
    spawn("wait")
    first.close_stdin()
    first.expect("0 bytes", 5)
