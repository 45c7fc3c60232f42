"""Waiting for anything: lines as they come, several processes, futures, readiness."""

from __future__ import annotations

import concurrent.futures
import io
import os
import random
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest

import procpool
from conftest import child, fork, is_alive, until

# follow, stream, communicate


def test_follow_gives_each_line_as_it_comes_and_takes_nothing(spawn):
    """From what nobody has read, until all output has ended; `read` still has it all."""
    process = spawn("out:one\\n", "line", "out:two\\nlast", "exit:0")
    lines = process.follow(timeout=10)
    assert next(lines).text == "one"
    process.send_line()
    assert [line.text for line in lines] == ["two", "last"]
    assert process.read().stdout == ["one", "two", "last"]
    assert [line.text for line in process.follow(since="")] == ["one", "two", "last"]


def test_p23_follow_tells_of_gaps(spawn):
    """A gap is in the next `Line`: with it, nothing is missing."""
    process = spawn("lines:5000", max_lines=100)
    process.wait(10)
    lines = list(process.follow(since=""))
    assert sum(1 + line.dropped for line in lines) == 5000
    assert lines[0].dropped == 4900
    assert lines[-1].text == "line 4999"


def test_follow_waits_for_each_line_from_when_it_is_asked_for(spawn):
    """What the caller does with a line is not its time."""
    process = spawn("out:a\\n", "line", "out:b\\n", "wait")
    process.expect("a", 10)
    lines = process.follow(timeout=1)
    assert next(lines).text == "a"
    time.sleep(1.1)  # the caller's work, longer than the timeout
    timer = threading.Timer(0.1, process.send_line)
    timer.start()
    assert next(lines).text == "b"
    timer.join()


def test_follow_ends_with_its_timeout_or_its_caller_and_never_with_the_process(spawn, manager):
    """Expiry raises; leaving the loop ends nothing."""
    process = spawn("out:one\\n", "wait")
    process.expect("one")
    lines = process.follow(timeout=0.05)
    assert next(lines).text == "one"
    with pytest.raises(procpool.TimeoutExpired, match="a line"):
        next(lines)
    for line in manager.follow(process.id):
        assert line.text == "one"
        break
    assert process.alive
    with pytest.raises(ValueError, match="timeout"):
        process.follow(timeout=-1)
    with pytest.raises(ValueError, match="since"):
        process.follow(since="9999.0,0.0")


def test_stream_shows_everything_as_it_comes(spawn):
    """Progress bars before their line ends; the text is the output, byte for byte."""

    class Screen(io.StringIO):
        def write(self, text):
            if "50%" in text:
                process.send_line()  # only now the process goes on: nothing was held back
            return super().write(text)

    screen = Screen()
    process = spawn("out:50%\\r", "line", "out:100%\\r\\nbye", "exit:0")
    process.stream(screen)
    assert screen.getvalue() == "50%\r100%\r\nbye"
    assert process.read().text == screen.getvalue()
    with pytest.raises(TypeError, match="file"):
        process.stream(3)


def test_stream_counts_what_was_lost(spawn):
    """In a line of its own, also where a line was begun."""

    class Slow(io.StringIO):
        def write(self, text):
            if text == "50%":
                process.send_line()
                process.wait(10)
            return super().write(text)

    screen = Slow()
    process = spawn("out:50%", "line", "lines:5000", max_lines=10)
    process.stream(screen)
    assert screen.getvalue().startswith("50%\n[... 4990 lines lost ...]\nline 4990\n")
    screen = io.StringIO()
    process = spawn("lines:5000", max_lines=10)
    process.wait(10)
    process.stream(screen)
    assert screen.getvalue().startswith("[... 4990 lines lost ...]\nline 4990\n")


def test_communicate_is_popen_s(spawn):
    """Input of any size, the output of all of it, and the exit; a background child holds up nothing."""
    assert spawn("count").communicate(b"x" * 300_000, timeout=10).stdout == ["300000 bytes"]
    output = spawn("copy").communicate("a\nb\n", timeout=10)
    assert output.stdout == ["a", "b"]
    assert output.returncode == 0
    assert spawn("exit:3").communicate("nobody reads this" * 10_000, timeout=10).returncode == 3
    assert spawn(fork("wait"), "out:done\\n", "exit:0").communicate(timeout=10).stdout == ["done"]


def test_communicate_times_out_and_can_be_called_again(spawn):
    """Nothing is lost."""
    process = spawn("out:one\\n", 'on:SIGUSR1:["out:two\\\\n", "exit:0"]', "out:up\\n", "wait")
    process.expect("up", 10)
    with pytest.raises(procpool.TimeoutExpired, match="its exit"):
        process.communicate(timeout=0.05)
    process.send_signal(10)
    assert process.communicate(timeout=10).stdout == ["one", "up", "two"]


# wait_any


def test_wait_any_wakes_for_an_exit(manager):
    """Of several processes it names the one; without ids each exit is told once."""
    calm = manager.start("a", "cat")
    quick = manager.start("a", child("exit:7"))
    wake = manager.wait_any(timeout=10)
    assert (wake.process_id, wake.reason, wake.returncode) == (quick, "exit", 7)
    with pytest.raises(procpool.TimeoutExpired):
        manager.wait_any(timeout=0.05)
    assert manager.wait_any([calm, quick], timeout=10).process_id == quick
    manager.kill(calm)
    with pytest.raises(ValueError, match="no process"):
        manager.wait_any()


def test_wait_any_wakes_for_a_pattern_and_goes_on_behind_it(manager):
    """As `expect`; with `since` it looks from there, and moves nothing."""
    one = manager.start("a", child("out:ready 1\\nready 2\\n", "wait"))
    two = manager.start("a", "cat")
    found = []
    for _ in range(2):
        wake = manager.wait_any([two, one], pattern=[r"never", r"ready (\d)"], timeout=10)
        assert (wake.process_id, wake.reason, wake.match.index) == (one, "pattern", 1)
        found.append(wake.match[1])
    assert found == ["1", "2"]
    with pytest.raises(procpool.TimeoutExpired):
        manager.wait_any(pattern="ready", timeout=0.05)
    for _ in range(2):
        assert manager.wait_any([one, two], pattern=r"ready (\d)", since={one: ""}, timeout=10).match[1] == "1"
    manager.write(two, "ready at the end of an unfinished line")
    assert manager.wait_any(pattern="line$", timeout=10).process_id == two


def test_wait_any_wakes_for_output(manager):
    """What nobody has read, or what is behind a cursor: polling by cursor never spins."""
    one, two = manager.start("a", "cat"), manager.start("a", "cat")
    manager.send_line(two, "hello")
    wake = manager.wait_any(output=True, timeout=10)
    assert (wake.process_id, wake.reason) == (two, "output")
    cursor = manager.read(two).cursor
    with pytest.raises(procpool.TimeoutExpired):
        manager.wait_any([one, two], output=True, timeout=0.05)
    with pytest.raises(procpool.TimeoutExpired):
        manager.wait_any([one, two], output=True, since={two: cursor}, timeout=0.05)
    assert manager.wait_any([one, two], output=True, since={two: ""}, timeout=10).process_id == two


def test_wait_any_wakes_for_silence(manager):
    """Since the last output, if nobody has read it; else since now."""
    talker = manager.start("a", child("forever"))
    until(lambda: manager.info(talker).bytes.stdout, "a talker")
    silent = manager.start("a", "cat")
    begin = time.monotonic()
    wake = manager.wait_any([talker, silent], quiet=0.2, timeout=10)
    assert (wake.process_id, wake.reason) == (silent, "quiet")
    assert time.monotonic() - begin >= 0.2


def test_p25_a_flood_hides_nobody_else(manager):
    """One process that floods, one that says a word, one that ends."""
    flood = manager.start("a", child("forever"))
    word = manager.start("a", child("line", "out:word\\n", "wait"))
    end = manager.start("a", child("line", "exit:0"))
    manager.send_line(word)
    assert manager.wait_any([flood, word, end], pattern="^word$", timeout=10).process_id == word
    manager.send_line(end)
    assert manager.wait_any([flood, word, end], timeout=10).process_id == end


def test_wait_any_of_an_agent_sees_its_own_alone(manager):
    """An id of somebody else is one that never was."""
    alice, bob = manager.agent("alice"), manager.agent("bob")
    mine, theirs = alice.start("cat"), bob.start(child("exit:0"))
    with pytest.raises(procpool.TimeoutExpired):
        alice.wait_any(timeout=0.1)
    with pytest.raises(procpool.ProcessNotFoundError):
        alice.wait_any([mine, theirs])
    assert bob.wait_any(timeout=10).process_id == theirs


def test_wait_any_wakes_at_a_kill_and_at_a_close(manager):
    """Whoever ends it, an exit is an exit; a close is an error."""
    process = manager.start("a", "cat")
    threading.Timer(0.1, manager.kill, (process,)).start()
    assert manager.wait_any([process], timeout=10).reason == "exit"
    manager.start("a", "cat")
    threading.Timer(0.1, manager.close).start()
    with pytest.raises(procpool.ManagerClosedError):
        while True:
            manager.wait_any(timeout=10)


@pytest.mark.parametrize(
    ("options", "error", "what"),
    [
        ({"ids": "proc_1"}, TypeError, "ids"), ({"pattern": "a\nb"}, ValueError, "newline"),
        ({"quiet": -1}, ValueError, "quiet"), ({"timeout": float("nan")}, ValueError, "timeout"),
        ({"since": "1.0"}, TypeError, "since"), ({"since": {"proc_1": "x"}}, ValueError, "since"),
        ({"ids": []}, ValueError, "no process"), ({"ids": 5}, TypeError, "ids"),
        ({"ids": ["proc_1"], "since": {"proc_2": ""}}, ValueError, "proc_2"),
    ],
)  # fmt: skip
def test_wrong_arguments_of_wait_any_are_named(manager, options, error, what):
    """Before it waits."""
    manager.start("a", "cat")
    with pytest.raises(error, match=what):
        manager.wait_any(**options)


def test_a_failing_watcher_of_twelve_is_noticed_within_ten_milliseconds(manager):
    """The median of several; the failing line says when it was written."""
    delays = []
    source = "import sys, time; sys.stdin.readline(); print('FAILED', time.monotonic(), flush=True); time.sleep(50)"
    watchers = [manager.start("a", [sys.executable, "-S", "-E", "-c", source]) for _ in range(12)]
    for number in random.sample(range(12), 7):
        threading.Timer(0.02, manager.send_line, (watchers[number],)).start()
        wake = manager.wait_any(watchers, pattern=r"FAILED (.*)", timeout=10)
        delays.append(time.monotonic() - float(wake.match[1]))
        assert wake.process_id == watchers[number]
    assert sorted(delays)[3] < 0.01, delays


def test_a_hundred_quiet_processes_cost_nothing(manager):
    """Less than one per cent of a core while they are waited for."""
    for _ in range(100):
        manager.start("a", "cat")
    begin, cpu = time.monotonic(), time.process_time()
    with pytest.raises(procpool.TimeoutExpired):
        manager.wait_any(timeout=1)
    assert (time.process_time() - cpu) / (time.monotonic() - begin) < 0.01


@pytest.mark.skipif(sys.platform != "linux", reason="RUSAGE_THREAD: Linux alone counts by thread")
def test_who_waits_for_an_exit_sleeps_through_the_output(manager):
    """To be woken for each piece of it would cost the stream a third of its speed."""
    import resource

    def switches():
        return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw

    for wait in (
        lambda process: process.wait(30),
        lambda process: manager.wait_any([process.id], timeout=30),
        lambda process: process.exit_future().result(30),
    ):
        process = manager.spawn("a", child("line", "lines:2000000", "exit:0"), max_lines=10)
        process.send_line()
        before = switches()
        wait(process)
        assert process.info().lines.stdout == 2_000_000
        assert switches() - before < 50  # of some thousand pieces


def test_wait_any_of_all_ends_when_nothing_can_come_any_more(manager):
    """Two wait for the exit of one process: one is told, the other does not sleep for ever."""
    manager.start("a", child("line", "exit:0"))
    found = []

    def wait():
        try:
            found.append(manager.wait_any(timeout=10).reason)
        except ValueError as error:
            found.append(str(error))

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: len(manager["proc_1"]._child.waiters) == 2, "two sleepers")
    manager.send_line("proc_1")
    for thread in threads:
        thread.join(5)
    assert sorted(found) == ["exit", "there is no process to wait for"]


def test_p20_what_was_said_before_the_exit_is_told_before_it(manager):
    """Also without a newline, and while a descendant holds the pipe."""
    for steps in (["out:ready", "exit:0"], ["out:ready", fork("wait"), "exit:0"]):
        for _ in range(10):
            process = manager.start("a", child(*steps))
            wakes = [manager.wait_any([process], pattern="ready", timeout=10).reason for _ in range(2)]
            assert wakes == ["pattern", "exit"]
            manager.kill(process)


def test_the_timeout_of_follow_is_for_each_line(manager):
    """Bytes that end no line do not put it off."""
    source = "import time\nfor _ in range(50): print('.', end='', flush=True); time.sleep(0.06)"
    begin = time.monotonic()
    with pytest.raises(procpool.TimeoutExpired):
        list(manager.spawn("a", [sys.executable, "-S", "-E", "-c", source]).follow(timeout=0.3))
    assert 0.3 <= time.monotonic() - begin < 2


# exit_future


def test_exit_futures_work_with_concurrent_futures(manager):
    """wait, as_completed, callbacks on the housekeeper; they cannot be cancelled."""
    codes = {3: manager.spawn("a", child("line", "exit:3")), 4: manager.spawn("a", child("line", "exit:4"))}
    futures = {process.exit_future(): code for code, process in codes.items()}
    done, pending = concurrent.futures.wait(futures, timeout=0.05)
    assert not done
    assert not any(future.cancel() for future in pending)
    threads = []
    codes[4].exit_future().add_done_callback(lambda _: threads.append(threading.current_thread().name))
    codes[4].send_line()
    first = next(concurrent.futures.as_completed(futures, timeout=10))
    assert first.result() == futures[first] == 4
    assert codes[4].exit_future().result(timeout=10) == 4
    until(lambda: threads == ["procpool-housekeeper"], "a callback")
    killed = codes[3].exit_future()
    codes[3].kill()
    assert killed.result(timeout=10) == -15


def test_an_exit_future_ends_with_the_manager():
    """A close ends the process, and so its future."""
    with procpool.ProcessManager() as manager:
        future = manager.spawn("a", "cat").exit_future()
    assert future.result(timeout=5) == -15


def test_p15_an_exit_future_keeps_the_manager_alive():
    """Nobody holds anything else."""
    assert procpool.ProcessManager(guardian=False).spawn("a", child("exit:5")).exit_future().result(timeout=10) == 5


def test_p43_a_callback_that_ends_threads_ends_not_the_housekeeper(manager):
    """SystemExit is what it likes; the next future is completed all the same."""
    first = manager.spawn("a", child("line", "exit:0"))
    future = first.exit_future()
    future.add_done_callback(lambda _: sys.exit(3))
    first.send_line()
    assert future.result(timeout=10) == 0
    assert manager.spawn("a", child("exit:6")).exit_future().result(timeout=10) == 6


def test_p43_a_future_gets_an_error_if_the_reader_dies():
    """As every other wait."""
    manager = procpool.ProcessManager()
    future = manager.spawn("a", "cat").exit_future()

    def die():
        raise SystemError("broken")

    manager._pool.reader.call_unlocked(die)
    with pytest.raises(procpool.ProcpoolError, match="can no longer be watched"):
        future.result(timeout=10)
    manager.close()


# Ages, readiness, usage


def test_what_the_timer_ends_holds_up_nobody_else():
    """Neither futures, nor a kill of the same tree, which takes it over and forgets it."""
    with procpool.ProcessManager(grace=3, guardian=False) as manager:
        stubborn = manager.spawn("a", child("ignore:SIGTERM", "out:up\\n", "wait"), max_age_secs=1)
        stubborn.expect("up", 10)
        quick = manager.spawn("a", child("line", "exit:0"))
        future = quick.exit_future()
        until(lambda: stubborn._child.claimed, "an end by the timer")
        quick.send_line()
        assert future.result(timeout=2) == 0
        begin = time.monotonic()
        ended = stubborn.kill(grace=0.1)
        assert time.monotonic() - begin < 2.1
        assert ended.ended_by == "max_age"
        assert stubborn.id not in manager


@pytest.mark.parametrize(("option", "by"), [("max_age_secs", "max_age"), ("idle_secs", "idle")])
def test_a_start_may_have_ages_of_its_own(manager, option, by):
    """Beside a manager that has none; what they end stays readable, and says who ended it."""
    mortal = manager.spawn("a", "cat", **{option: 0.2})
    other = manager.spawn("a", "cat")
    mortal.wait(10)
    until(lambda: mortal.info().ended_by == by, f"an end by {by}")
    assert other.alive
    assert mortal.id in manager
    with pytest.raises(ValueError, match=option):
        manager.start("a", "cat", **{option: -1})


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


SERVER = """
import socket, sys, time
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen()
time.sleep(60)
"""


def test_ready_waits_for_a_line_a_port_or_a_function(manager, tmp_path):
    """`start` returns when it is ready."""
    process = manager.spawn("a", child("out:starting\\nready on 80\\n", "wait"), ready=r"ready on (\d+)")
    assert "ready on 80" in process.read()
    port = free_port()
    manager.start("a", [sys.executable, "-c", SERVER, str(port)], ready=port, ready_timeout=10)
    socket.create_connection(("127.0.0.1", port), 1).close()
    path = tmp_path / "note"
    manager.start("a", ["sh", "-c", f"touch {path}; exec cat"], ready=lambda process: process.alive and path.exists())
    assert path.exists()


def test_what_does_not_get_ready_is_ended_and_says_what_it_said(manager):
    """Too late, ended too soon, a function that raises: nothing is left running."""
    pids = []

    def remember(process):
        pids.append(process.pid)
        raise KeyError("boom")

    with pytest.raises(procpool.TimeoutExpired, match="never") as late:
        manager.start("a", "sh", ["-c", "echo booting; exec sleep 60"], ready="never", ready_timeout=0.5)
    assert "booting" in late.value.output
    with pytest.raises(procpool.StartError, match=r"(?s)ended before it was ready.*no such module"):
        manager.start("a", child("err:no such module\\n", "exit:1"), ready="ready", ready_timeout=10)
    with pytest.raises(procpool.StartError, match="ended before"):
        manager.start("a", child("exit:1"), ready=free_port(), ready_timeout=10)
    with pytest.raises(KeyError, match="boom"):
        manager.start("a", "cat", ready=remember)
    assert manager.count() == 0
    assert not any(map(is_alive, pids))


def test_ready_refuses_what_would_lie(manager):
    """A port that somebody else has; what is no port, pattern or function."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with pytest.raises(procpool.StartError, match="taken"):
            manager.start("a", "cat", ready=listener.getsockname()[1])
    for wrong, error in (
        (0, ValueError),
        (70_000, ValueError),
        (1.5, TypeError),
        ("a\nb", ValueError),
        ([], ValueError),
    ):
        with pytest.raises(error):
            manager.start("a", "cat", ready=wrong)
    with pytest.raises(ValueError, match="ready_timeout"):
        manager.start("a", "cat", ready="x", ready_timeout=-1)
    assert manager.count() == 0


def test_usage_is_of_the_whole_tree(spawn):
    """CPU time and memory of the root and its children."""
    process = spawn(fork("out:up\\n", "wait"), fork("out:up\\n", "wait"), "wait")
    process.expect("up", 10)
    process.expect("up", 10)
    own = psutil.Process(process.pid)
    used = sum(own.cpu_times()[:2])
    usage = process.usage()
    assert usage.processes == 3
    assert usage.threads == 3
    assert usage.rss_bytes > own.memory_info().rss
    assert usage.cpu_secs >= used
    assert usage.to_dict()["processes"] == 3
    pid = process.pid
    process.send_signal(9)
    until(lambda: not is_alive(pid), "the end of the root")
    assert process.usage().processes == 2
    process.kill()
    assert process.usage().processes == 0


def test_interrupting_a_wait_leaves_the_process_alone():
    """Ctrl-C ends follow, stream and wait_any, and nothing else."""
    script = """
import os, signal, sys, threading, procpool
signal.signal(signal.SIGINT, signal.default_int_handler)
with procpool.ProcessManager() as manager:
    process = manager.spawn("a", "cat")
    process.send_line("hello")
    for wait in (lambda: list(process.follow()), process.stream, lambda: manager.wait_any(pattern="never")):
        try:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            wait()
        except KeyboardInterrupt: print("interrupted", flush=True)
    process.send_line("still here")
    print(process.expect("still here", 5).line, len(process.read(timeout=1).stdout))
"""
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=15, env=env)
    words = [line for line in done.stdout.splitlines() if line != "hello"]
    assert words == ["interrupted"] * 3 + ["still here 2"], done.stderr
