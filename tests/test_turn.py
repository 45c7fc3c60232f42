"""Turns: whether a process waits for input is known, not guessed; and an answer is exactly that."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import psutil
import pytest

import procpool
from conftest import child, fork, until
from procpool.system.evidence import CALLS, Witness
from procpool.turn import Exchange

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the evidence is Linux's")

LIFE = (
    "import os, select, signal, socket, sys, threading, time; signal.alarm(60)\n"
    "os.register_at_fork(after_in_child=lambda: signal.alarm(60))\n"
)


@pytest.fixture
def linux(monkeypatch):
    """The half of the seam that has evidence."""
    monkeypatch.setenv("PROCPOOL_SYSTEM", "linux")
    with procpool.ProcessManager(max_per_agent=None, guardian=False) as manager:
        yield manager


@pytest.fixture(params=[False, True], ids=["pipe", "pty"])
def run(linux, request):
    """Run a Python script on pipes, and on a terminal."""

    def run(script: str, **options) -> procpool.Process:
        options.setdefault("pty", request.param)
        options.setdefault("merge_stderr", True)
        return linux.spawn("a", [sys.executable, "-S", "-E", "-u", "-c", LIFE + script], **options)

    run.pty = request.param
    return run


def looks(process: procpool.Process, count: int = 25) -> set[object]:
    """Return all answers of many looks."""
    found = set()
    for _ in range(count):
        found.add(process.waiting_for_input)
        time.sleep(0.002)  # the looks are to be spread over what the process does
    return found


# What waits


@pytest.mark.parametrize(
    "wait",
    [
        "os.read(0, 1)",
        "os.readv(0, [bytearray(1)])",
        "select.select([0], [], [])",
        "select.select([0], [], [0], 30)",
        "p = select.poll(); p.register(0, select.POLLIN); p.poll()",
        "p = select.poll(); p.register(0, select.POLLIN); p.poll(30_000)",
        "p = select.epoll(); p.register(0, select.EPOLLIN); p.poll()",
        "p = select.epoll(); p.register(0, select.EPOLLIN); p.poll(30)",
        "os.read(os.dup(0), 1)",
        "threading.Thread(target=lambda: os.read(0, 1)).start()",
        "os.fork() or os.read(0, 1); os.wait()",
        "threading.Thread(target=lambda: os.read(0, 1)).start(); import ctypes; ctypes.CDLL(None).pthread_exit(None)",
        # An event loop's own alarm bells
        "a, b = os.pipe(); select.select([0, a], [], [])",
        "a, b = socket.socketpair(); select.select([0, a], [], [])",
        "p = select.epoll(); a, b = os.pipe(); p.register(0, select.EPOLLIN); p.register(a, select.EPOLLIN); p.poll()",
    ],
)
def test_a_wait_for_stdin_alone_is_seen(run, wait):
    """By whatever call, thread, descendant or number."""
    process = run(f"print('up')\n{wait}")
    process.expect("up", 10)
    assert process.wait_for_input(5) is True
    # A look that has to see several threads stand still may be too short on a busy machine.
    until(lambda: process.waiting_for_input, "a look that sees it")


def test_a_wait_for_dev_tty_is_seen(linux):
    """The terminal is the terminal, by whatever name."""
    script = LIFE + "print('up'); os.read(os.open('/dev/tty', os.O_RDWR), 1)"
    process = linux.spawn("a", [sys.executable, "-c", script], pty=True)
    process.expect("up", 10)
    assert process.wait_for_input(5) is True


# What does not: the adversaries


@pytest.mark.parametrize(
    "work",
    [
        "while True: pass",
        "time.sleep(30)",
        "threading.Thread(target=lambda: os.read(0, 1), daemon=True).start()\nwhile True: pass",
        "threading.Thread(target=lambda: os.read(0, 1), daemon=True).start()\nwhile True: time.sleep(0.0003)",
        "threading.Thread(target=lambda: os.read(0, 1), daemon=True).start()\nwhile True: time.sleep(0.06)",
        "threading.Thread(target=lambda: os.read(0, 1), daemon=True).start()\nwhile True: threading.Event().wait(0.06)",
        "threading.Thread(target=lambda: os.read(0, 1), daemon=True).start()\nwhile True: select.select([], [], [], 0.06)",
        "if os.fork() == 0: os.read(0, 1)\nwhile True: pass",
        "if os.fork():\n while True: pass\nos.read(0, 1)",
        "p = select.poll(); p.register(0, select.POLLIN)\nwhile True:\n p.poll(1); sum(range(50_000))",
        "while True: select.select([0], [], [], 0.005); sum(range(50_000))",
        "while True: select.select([0], [], [], 0)",
        "a, b = os.pipe(); os.read(a, 1)",
        "p = select.poll(); p.register(0, 0x2000); p.poll()",  # POLLRDHUP
        "select.select([], [], [0])",
        "import ctypes\nif os.fork() == 0:\n threading.Thread(target=exec, args=('while True: pass',)).start()\n"
        " ctypes.CDLL(None).pthread_exit(None)\nos.read(0, 1)",
        "signal.raise_signal(signal.SIGSTOP)\nos.read(0, 1)",
    ],
)
def test_p34_who_works_does_not_wait(run, work):
    """0 wrong True: a reader beside somebody busy, a look now and then, naps, other waits."""
    process = run(f"print('up')\n{work}")
    process.expect("up", 10)
    assert looks(process) <= ({False, None} if "0.005" in work or "poll(1)" in work else {False})


def test_p34_a_stopped_reader_does_not_wait(run):
    """SIGSTOP in the middle of its read, and on again."""
    process = run("print('up'); os.read(0, 1); os.read(0, 1)")
    assert process.wait_for_input(10)
    process.send_signal(signal.SIGSTOP)
    until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, "the stop")
    assert looks(process, 20) == {False}
    process.send_signal(signal.SIGCONT)
    assert process.wait_for_input(5) is True


def test_p34_input_that_was_typed_ahead_is_a_reason_not_to_wait(run):
    """What lies unread is work, also of a process that is stopped in its read, or reads in another mode."""
    process = run(
        "go = [signal.SIGUSR1]; signal.pthread_sigmask(signal.SIG_BLOCK, go); print('up'); signal.sigwait(go)\n"
        "a = sys.stdin.readline(); b = sys.stdin.readline(); os.read(0, 1)"
    )
    process.expect("up", 10)
    process.send_line("a")
    process.send_line("b")
    assert looks(process, 20) == {False}
    process.send_signal(signal.SIGUSR1)
    assert process.wait_for_input(5) is True
    process.send_signal(signal.SIGSTOP)
    process.send_line("c")
    assert looks(process, 20) == {False}


@pytest.mark.parametrize("seed", range(4))
def test_p34_true_means_that_everything_was_answered(run, seed):
    """Lines at random moments, work of random length: at each True all answers are there."""
    process = run(
        f"import random; r = random.Random({seed})\n"
        "for line in iter(sys.stdin.readline, ''):\n"
        " end = time.monotonic() + r.choice([0, 0.0002, 0.002])\n"
        " while time.monotonic() < end: pass\n"
        " print('answer', line)\n",
        echo=False,
        max_lines=10_000,
    )
    choose = random.Random(seed)
    assert process.wait_for_input(10)
    sent = seen = 0
    for _ in range(400):
        chance = choose.random()
        if chance < 0.15:
            process.send_line(str(sent))
            sent += 1
        elif process.wait_for_input(10) if chance < 0.25 else process.waiting_for_input:
            seen += 1
            assert process.read(since="").text.count("answer") == sent
    assert process.wait_for_input(10)
    assert process.read(since="").text.count("answer") == sent
    assert seen > 10


def test_p34_an_event_loop_with_a_socket_is_not_judged(run):
    """Nobody can know which of the two it waits for: None."""
    process = run(
        "s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\nprint('up... ', end=''); select.select([0, s], [], [])"
    )
    process.expect("up", 10)
    assert looks(process) <= {None, False}
    until(lambda: process.waiting_for_input is None, "a refusal to judge")
    with pytest.raises(procpool.TimeoutExpired, match="prompt= or quiet="):
        process.ask("x", 0.1)
    assert process.wait_for_input(0.1) is None


@pytest.mark.parametrize(
    "wait",
    [
        "os.fork() and select.select([0, r], [], []); time.sleep(50)",
        "os.fork() and p.poll(); time.sleep(50)",
        "fill(w); select.select([0], [w], [])",
        "fill(w); p.register(w, select.POLLOUT); p.poll()",
        "fill(w); e = select.epoll(); e.register(0, select.EPOLLIN); e.register(w, select.EPOLLOUT); e.poll()",
        "a, b = socket.socketpair(); os.fork() and select.select([0, a], [], []); time.sleep(50)",
        "many(s.fileno())",
        "libc.splice(0, None, w, None, 4096, 0)",
    ],
)
def test_p34_nor_is_a_wait_that_another_process_may_end(run, wait):
    """A pipe that a child has, room in one that nobody else reads yet, a socket behind a thousand others: None."""
    process = run(
        "import ctypes, struct; libc = ctypes.CDLL(None)\n"
        "s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\n"
        "r, w = os.pipe(); p = select.poll(); p.register(0, select.POLLIN); p.register(r, select.POLLIN)\n"
        "def fill(fd):\n"
        " os.set_blocking(fd, False); p.unregister(r)\n"
        " if os.fork() == 0: os.close(fd); time.sleep(50); os._exit(0)\n"
        " os.close(r)\n"
        " try:\n"
        "  while True: os.write(fd, bytes(4096))\n"
        " except BlockingIOError: pass\n"
        "def many(fd):\n"
        " resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n"
        " fds = b''.join(struct.pack('ihh', fd, 1, 0) for fd in (0, *[-1] * 1030, fd))\n"
        " libc.poll(ctypes.create_string_buffer(fds, len(fds)), 1032, -1)\n"
        f"import resource; print('up... ', end=''); {wait}"
    )
    process.expect("up", 10)
    until(lambda: process.waiting_for_input is None, "a refusal to judge")
    assert looks(process) == {None}


def test_p34_nor_is_one_that_was_stopped_in_between(run):
    """SIGCONT: the kernel goes on with a call that does not tell any more what it waits for. With a prompt it is known."""
    process = run(
        "p = select.poll(); p.register(0, select.POLLIN)\nwhile True: print('> ', end=''); p.poll(); print(os.read(0, 99))"
    )
    assert process.wait_for_input(10)
    process.send_signal(signal.SIGSTOP)
    until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, "the stop")
    process.send_signal(signal.SIGCONT)
    until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING, "the wait")
    assert looks(process) == {None}
    assert "b'x\\n'" in process.ask("x", 10, prompt="> ").plain
    assert process.wait_for_input(10)


def test_p34_a_background_reader_of_the_terminal_does_not_count(linux):
    """Job control: bash waits for a job, one in the background would read, and is stopped."""
    bash = linux.spawn("a", ["bash", "--norc", "-i"], pty=True, extra_env={"PS1": "$ "})
    bash.ask("(read x < /dev/tty; sleep 60) &")
    bash.send_line("sleep 50")
    until(lambda: "sleep" in [one.name() for one in psutil.Process(bash.pid).children()], "the job")
    assert looks(bash, 30) == {False}
    bash.interrupt()
    assert bash.wait_for_input(5) is True


@pytest.mark.skipif(os.getuid() != 0, reason="changes its user")
def test_p34_who_may_not_be_looked_into_is_not_judged():
    """A program that an ordinary user may run but not read: None, and `ask` says what to pass."""
    script = """
import concurrent.futures, fcntl, os, shutil, sys, termios
import procpool, procpool.system.linux, procpool.system.evidence
os.setresuid(65534, 65534, 65534)
with procpool.ProcessManager(guardian=False) as manager:
    process = manager.spawn("a", [sys.argv[1]])
    process.write("up")
    process.expect("up")
    assert process.waiting_for_input is None, process.waiting_for_input
    assert process.wait_for_input() is None
    try: process.ask("x")
    except ValueError as error: print(error)
"""
    with tempfile.TemporaryDirectory() as folder:
        cat = shutil.copy("/bin/cat", folder)
        os.chmod(folder, 0o755)
        os.chmod(cat, 0o711)
        done = subprocess.run([sys.executable, "-c", script, cat], capture_output=True, text=True, timeout=20)
    assert "prompt or quiet must be given" in done.stdout, done.stderr


def test_no_evidence_on_other_systems(monkeypatch):
    """The portable half: None at once, and a clear refusal."""
    monkeypatch.setenv("PROCPOOL_SYSTEM", "portable")
    with procpool.ProcessManager(guardian=False) as manager:
        cat = manager.spawn("a", "cat")
        assert cat.waiting_for_input is None
        assert cat.wait_for_input() is None
        with pytest.raises(ValueError, match="prompt or quiet"):
            cat.ask("hello")
        assert cat.read().text == ""


def test_who_has_exited_or_has_no_stdin_does_not_wait(linux):
    """False, not None; and a wait for it ends with the exit."""
    for options in ({"stdin": False}, {}):
        process = linux.spawn("a", child("exit:0"), **options)
        assert process.wait_for_input(10) is False
        assert process.waiting_for_input is False
    cat = linux.spawn("a", "cat")
    assert cat.wait_for_input(5) is True
    cat.close_stdin()
    assert cat.wait_for_input(5) is False


def test_output_that_was_not_read_yet_is_a_reason_to_look_again(linux):
    """True comes when everything that was written before can be read."""
    for _ in range(30):
        process = linux.spawn("a", child("lines:500", "line", "wait"))
        assert process.wait_for_input(10)
        assert process.info().lines.stdout == 500
        process.kill()


def test_an_idle_wait_costs_next_to_nothing(linux):
    """Less than a hundredth of a core, whether it waits for one or for a tree."""
    process = linux.spawn("a", child(*[fork("wait")] * 10, "out:up\\n", "wait"))
    process.expect("up", 10)
    over = []
    waiting = threading.Thread(target=lambda: over.append(process.wait_for_input(30)))
    waiting.start()
    time.sleep(1)  # the first looks come quickly, and are not what is measured
    begin, used = time.monotonic(), time.process_time()
    time.sleep(2)
    assert time.process_time() - used < 0.01 * (time.monotonic() - begin) + 0.01
    assert waiting.is_alive()
    process.kill()
    waiting.join(10)
    assert over == [False]


def test_wait_any_wakes_for_a_turn(linux):
    """The one of several that waits."""
    busy = linux.start("a", child("wait"))
    reader = linux.start("a", child("out:Name? ", "line", "wait"))
    wake = linux.wait_any([busy, reader], input=True, timeout=10)
    assert (wake.process_id, wake.reason) == (reader, "input")
    assert linux.read(reader).text == "Name? "
    linux.send_line(reader, "x")
    with pytest.raises(procpool.TimeoutExpired):
        linux.wait_any([busy, reader], input=True, timeout=0.1)


def test_a_wait_for_a_turn_ends_with_the_manager(linux):
    """As every blocked call."""
    process = linux.spawn("a", child("wait"))
    ends = []

    def wait():
        try:
            ends.append(process.wait_for_input(None))  # False: it saw the exit before it saw the close
        except procpool.ManagerClosedError as error:
            ends.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: process._child.waiters, "the waiter")
    linux.close()
    thread.join(10)
    assert len(ends) == 1
    assert ends[0] is False or isinstance(ends[0], procpool.ManagerClosedError)


# ask


@pytest.fixture
def repl(run):
    """A Python REPL, without its banner."""
    process = run("import code", pty=False)
    process.kill()
    manager = process._manager
    command = [sys.executable, "-i", "-q"]
    env = {"PYTHON_BASIC_REPL": "1", "TERM": "dumb"}
    return manager.spawn("a", command, pty=run.pty, merge_stderr=True, extra_env=env)


def test_ask_answers_exactly(repl):
    """One exchange after the other, each exactly its own."""
    assert repl.ask("6 * 7").plain == "42\n"
    assert repl.ask("x = 1").plain == ""
    assert repl.ask("print('no newline', end='')").plain == "no newline"
    assert repl.ask("print('two\\nlines')").plain == "two\nlines\n"
    assert repl.ask("1 / 0").plain.endswith("ZeroDivisionError: division by zero\n")
    assert repl.read().text == ""


def test_ask_and_nested_prompts(repl):
    """Those of the interpreter, and those of `input`."""
    assert repl.ask("for i in range(2):").plain == "... "
    assert repl.ask("    print(i)").plain == ""
    assert repl.ask("").plain == "0\n1\n"
    assert repl.ask("name = input('Name? ')").plain == "Name? "
    assert repl.ask("Bob").plain == ""
    assert repl.ask("name").plain == "'Bob'\n"
    assert repl.ask("for i in range(2):\n    i\n").plain.replace("... ", "") == "0\n1\n"


def test_ask_leaves_the_banner_out(run):
    """And what was said before, which `since` still gives."""
    process = run("print('banner\\nmore'); import code\nwhile True: print(input('> ').upper())", echo=False)
    answer = process.ask("hello")
    assert answer.plain == "HELLO\n"
    assert process.read().text == ""
    assert "banner" in process.read(since="").text


def test_ask_and_a_program_that_ends(repl):
    """The end is the end of the turn; afterwards there is nobody to ask."""
    answer = repl.ask("print('bye'); raise SystemExit(3)")
    assert (answer.plain, answer.alive, answer.returncode) == ("bye\n", False, 3)
    with pytest.raises(procpool.StdinClosedError):
        repl.ask("1")


def test_an_answer_larger_than_what_is_kept(linux):
    """The newest is there, the rest is counted."""
    repl = linux.spawn("a", [sys.executable, "-i", "-q"], merge_stderr=True, max_lines=100)
    answer = repl.ask("for i in range(1000): print(i)\n")
    # The prompt "... " stands before the first line.
    assert answer.stdout[-1] == "999"
    assert len(answer.stdout) + answer.dropped.stdout == 1000
    assert repl.ask("1").text == "1\n"


def test_a_timed_out_ask_does_not_shift_the_next_answer(repl):
    """What came late belongs to nobody; `read(since=...)` has it."""
    repl.ask("import time")
    with pytest.raises(procpool.TimeoutExpired, match="waits for input") as caught:
        repl.ask("print('early', flush=True); time.sleep(0.4); print('late')", 0.2)
    assert "early" in caught.value.output.text
    assert repl.ask("'next'").plain == "'next'\n"
    with pytest.raises(procpool.TimeoutExpired):
        repl.ask("time.sleep(0.4)", 0.1)
    assert repl.wait_for_input(5)
    assert repl.ask("'next'").plain == "'next'\n"


def test_askers_are_served_in_turn(repl):
    """Ten threads: each gets its own answer."""
    wrong = []

    def ask(number):
        for step in range(5):
            value = number * 100 + step
            answer = repl.ask(str(value)).plain
            if answer != f"{value}\n":
                wrong.append((value, answer))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert wrong == []
    assert not repl._child.askers


def test_an_asker_that_waits_for_its_turn_times_out(repl):
    """While another one's answer takes long."""
    repl.ask("import time")
    slow = threading.Thread(target=repl.ask, args=("time.sleep(0.5)",))
    slow.start()
    until(lambda: repl._child.askers, "the first one")
    with pytest.raises(procpool.TimeoutExpired, match="others ask"):
        repl.ask("1", 0.05)
    slow.join(10)
    assert repl.ask("1").plain == "1\n"


def test_ask_in_two_streams(linux):
    """Python's prompts go to stderr, which then never ends a line."""
    repl = linux.spawn("a", [sys.executable, "-i", "-q"])
    for _ in range(3):
        answer = repl.ask("6 * 7")
        assert (answer.text, answer.stdout, answer.stderr) == ("42\n", ["42"], [])
    repl.send_line("'by hand'")
    assert repl.wait_for_input(5)
    assert repl.ask("print('x ', end='')").text == "x "
    assert repl.ask("1 / 0").stderr[-1] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("how", [{"prompt": "> "}, {"quiet": 0.15}])
@pytest.mark.parametrize("work", ["time.sleep(0.02)", "sum(range(1000))"])
def test_a_prompt_or_silence_does_where_a_thread_never_rests(run, work, how):
    """As those of a JVM; without them it is never said to wait, and while the answer is on its way it does not."""
    script = (
        f"def work():\n while True: {work}\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "while True: line = input('> '); time.sleep(0.05); print(line.upper())"
    )
    process = run(script, **how, **({"echo": False} if run.pty else {}))
    assert [process.ask(word).plain for word in ("one", "two")] == ["ONE\n", "TWO\n"]
    assert process.wait_for_input(5) is True
    process.kill()
    without = run(script)
    without.expect("> ", 10)
    assert looks(without) == {False}


@pytest.mark.parametrize("half", ["linux", "portable"])
@pytest.mark.parametrize("how", [{"prompt": "> "}, {"quiet": 0.5}])
def test_a_prompt_or_silence_does_where_there_is_no_evidence(monkeypatch, half, how):
    """At the start or at each ask; an echo of the last exchange does not end this one."""
    monkeypatch.setenv("PROCPOOL_SYSTEM", half)
    script = LIFE + "while True: line = input('> '); time.sleep(0.05); print(line.upper())"
    with procpool.ProcessManager(guardian=False) as manager:
        process = manager.spawn("a", [sys.executable, "-c", script], **how)
        process.expect("> ", 10)  # else its start is silence
        assert process.ask("one").text == "ONE\n"
        assert process.ask("two", **how).text == "TWO\n"
        assert process.wait_for_input(5) is True


def test_a_timed_out_ask_by_prompt_does_not_shift_the_next_answer(monkeypatch):
    """The prompt that stood before the line was written is not the one that ends the answer."""
    monkeypatch.setenv("PROCPOOL_SYSTEM", "portable")
    script = LIFE + "while True: line = input('> '); time.sleep(0.2); print(line.upper())"
    with procpool.ProcessManager(guardian=False) as manager:
        process = manager.spawn("a", [sys.executable, "-c", script], prompt="> ")
        with pytest.raises(procpool.TimeoutExpired):
            process.ask("one", 0.1)
        assert process.ask("two").text == "TWO\n"


@pytest.mark.parametrize("size", [1, 2, 7])
def test_p20_an_answer_is_the_same_in_any_chunks(run, size):
    """Byte by byte, with pauses: the turn, the prompt and the text are the same."""
    script = (
        "def say(text):\n"
        f" for i in range(0, len(text), {size}): os.write(1, text[i:i + {size}]); time.sleep(0.0005)\n"
        "while True:\n"
        " say(b'prompt> '); line = sys.stdin.readline(); say('é{}\\nprompt> x\\n'.format(line.strip()).encode())\n"
    )
    process = run(script, echo=False)
    for word in ("one", "two", "prompt> "):
        assert process.ask(word).plain == f"é{word.strip()}\nprompt> x\n"


@pytest.mark.parametrize(
    ("arguments", "options", "error", "match"),
    [
        ((b"x",), {}, TypeError, "line"),
        (("x",), {"prompt": 3}, TypeError, "pattern"),
        (("x",), {"prompt": ["a", "b"]}, TypeError, "prompt"),
        (("x",), {"prompt": "a\nb"}, ValueError, "newline"),
        (("x",), {"quiet": -1}, ValueError, "quiet"),
        (("x", -1), {}, ValueError, "timeout"),
        (("\ud800",), {}, UnicodeEncodeError, "surrogates"),
    ],
)
def test_bad_questions(linux, arguments, options, error, match):
    """A clear error before anything is written, and the next asker is not held up."""
    cat = linux.spawn("a", "cat")
    with pytest.raises(error, match=match):
        cat.ask(*arguments, **options)
    assert cat.ask("fine").text == "fine\n"


def test_ctrl_c_leaves_the_turn_to_others(linux):
    """An interrupted asker steps out of the queue."""
    repl = linux.spawn("a", [sys.executable, "-i", "-q"], merge_stderr=True)
    repl.ask("import time")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            repl.ask("time.sleep(0.5)")
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert repl.ask("'next'").text == "'next'\n"


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=[pytest.mark.stress, pytest.mark.timeout(60)])])
def test_many_exchanges_are_exact_and_in_order(repl, count):
    """Each answer belongs to its line."""
    for number in range(count):
        assert repl.ask(f"{number} * 2").plain == f"{number * 2}\n"


# What an attack found


def test_an_answer_without_a_newline_is_not_taken_for_a_prompt(repl):
    """The same one, again and again."""
    assert [repl.ask("print('x', end='')").plain for _ in range(4)] == ["x"] * 4
    assert repl.ask("1").plain == "1\n"


@pytest.mark.parametrize("argv", [["bash"], ["bc", "-q"]], ids=["bash", "bc"])
def test_who_has_no_prompt_keeps_every_answer(linux, argv):
    """One that ends like the last one, or is the same, is an answer, and no prompt."""
    if shutil.which(argv[0]) is None:
        pytest.skip(f"{argv[0]}: it is not installed")
    program = linux.spawn("a", argv, merge_stderr=True)
    say = "printf {}" if argv == ["bash"] else "print {}"
    for answer in ("1", "21", "321", "0", "100", "7", "7"):
        assert program.ask(say.format(answer)).text == answer


def test_a_stream_without_prompts_keeps_every_answer(linux):
    """Python's prompts stand on the other one."""
    repl = linux.spawn("a", [sys.executable, "-i", "-q"])
    for answer in ("x", "yx", "yx", "x"):
        assert repl.ask(f"print('{answer}', end='')").text == answer


def test_a_prompt_may_change(linux):
    """The first time it is an answer; then it is left out, and nothing else is, until the first one is back."""
    bash = linux.spawn("a", ["bash", "--norc", "-i"], pty=True, extra_env={"PS1": "old> ", "PS2": "o"})
    assert bash.ask("echo 1").plain == "1\n"
    assert bash.ask("PS1='new: '").plain == "new: "
    assert [bash.ask("printf x").plain for _ in range(3)] == ["x"] * 3
    assert bash.ask("echo 2").plain == "2\n"
    assert bash.ask(f"PYTHON_BASIC_REPL=1 {sys.executable} -S -q").plain == ">>> "
    assert bash.ask("6 * 7").plain == "42\n"
    assert bash.ask("raise SystemExit").plain == "new: "
    assert bash.ask("PS1='old> '").plain == ""
    assert bash.ask("printf x").plain == "x"


def test_a_prompt_that_is_a_part_of_another_one_is_not_taken_for_it(linux):
    """PS2 is half of PS1, in the first question as well."""
    bash = linux.spawn("a", ["bash", "--norc", "-i"], pty=True, extra_env={"PS1": ">>", "PS2": ">"})
    assert [bash.ask(line).plain for line in ("for i in 1 2", "do echo $i", "done", "echo a")] == [
        ">",
        "",
        "1\n2\n",
        "a\n",
    ]


def test_a_prompt_that_changes_all_the_time_is_not_learned_for_ever(linux):
    """It stays in each answer, unless `prompt` says what it is; and a long answer is no prompt."""
    script = LIFE + "n = 0\nwhile True:\n n += 1\n print(input(f'[{n}]: '), end='')"
    program = linux.spawn("a", [sys.executable, "-c", script])
    assert [program.ask("x").text for _ in range(30)] == [f"x[{n}]: " for n in range(2, 32)]
    assert len(program._child.prompts["stdout"]._known) <= 17
    assert program.ask("y" * 3000).text == "y" * 3000 + "[32]: "
    assert program.ask("x", prompt=r"\[\d+\]: ").text == "x"


def test_what_is_said_to_be_the_prompt_is_left_out(linux):
    """Where it cannot be known: it ends like another one, or the program began without one."""
    script = LIFE + "while True:\n line = input('> ')\n print(input('Name> ') if line == 'name' else line)"
    shy = linux.spawn("a", [sys.executable, "-c", script], prompt="(Name)?> ")
    assert [shy.ask(line).text for line in ("hello", "name", "Bob")] == ["hello\n", "", "Bob\n"]
    bash = linux.spawn("a", "bash", merge_stderr=True, prompt=">>> ")
    assert bash.ask(f"{sys.executable} -S -i -q").text == ""
    assert [bash.ask(line).text for line in ("6 * 7", "raise SystemExit", "printf x")] == ["42\n", "", "x"]


def test_lines_before_the_first_question_hide_no_prompt(linux):
    """Whether they had an answer without a newline, or were not finished."""
    repl = linux.spawn("a", [sys.executable, "-i", "-q"], merge_stderr=True)
    for _ in range(3):
        repl.send_line("print('x', end='')")
    assert [repl.ask("print('x', end='')").text for _ in range(2)] == ["x", "x"]
    other = linux.spawn("a", [sys.executable, "-i", "-q"], merge_stderr=True)
    assert other.wait_for_input(10)
    other.write("1 + ")
    assert [other.ask(line).text for line in ("1", "print('x', end='')", "print('x', end='')")] == ["2\n", "x", "x"]


@pytest.mark.parametrize("late", range(4))
def test_nor_do_they_if_the_prompt_came_in_between(linux, late):
    """1 some lines are written; 2 the prompt comes, and answers without a newline; 3 the others are written."""
    repl = linux.spawn("a", [sys.executable, "-i", "-q"], merge_stderr=True)
    for number in range(3):
        if number == late:
            assert repl.wait_for_input(10)
        repl.send_line("print('x', end='')")
    assert [repl.ask("print('x', end='')").text for _ in range(2)] == ["x", "x"]
    sh = linux.spawn("a", ["sh", "-i"], merge_stderr=True, extra_env={"PS1": " $ "})
    sh.send_line("x=1")
    if late:
        assert sh.wait_for_input(10)
    assert [sh.ask("echo hi").text for _ in range(2)] == ["hi\n", "hi\n"]  # it begins as it ends


def test_a_prompt_that_is_said_goes_with_its_colours(run):
    """`prompt` is looked for in plain text."""
    process = run(
        "n = 0\nwhile True: n += 1; print(f'\\x1b[32mIn [{n}]: \\x1b[0m', end=''); print(input().upper(), end='!')",
        prompt=r"In \[\d+\]: ",
    )
    assert [process.ask("hi").plain for _ in range(3)] == ["HI!"] * 3


def test_an_ask_looks_again_when_the_last_answer_is_some_time_ago(run):
    """1 an answer: it waits; 2 it does not any more, and says nothing; 3 the next question."""
    process = run(
        "while True:\n"
        " print('> ', end='')\n"
        " if select.select([0], [], [], 0.2)[0]: print(sys.stdin.readline().upper(), end='')\n"
        " else: time.sleep(0.6); print('late')\n"
    )
    for _ in range(3):
        process.ask("a")
        until(lambda: process.waiting_for_input is False, "the end of its wait")
        assert process.ask("b").plain == "B\n"


def test_an_answer_goes_on_when_stdin_is_closed(linux):
    """By another thread: it ends when the program waits again, or does."""
    for pty in (False, True):
        basic = {"PYTHON_BASIC_REPL": "1"}  # the other one, of 3.13, draws its line again at each key
        repl = linux.spawn("a", [sys.executable, "-i", "-q"], merge_stderr=True, pty=pty, extra_env=basic)
        repl.ask("import time")
        answers = []
        line = "print('begun', flush=True); time.sleep(0.3); 6 * 7"
        asker = threading.Thread(target=lambda repl=repl, to=answers, line=line: to.append(repl.ask(line).plain))
        asker.start()
        repl.expect("begun$", 10)
        repl.close_stdin()
        asker.join(10)
        assert answers[0].startswith("begun\n42\n")


def test_a_prompt_that_stood_there_twice_is_a_prompt(linux):
    """Lines that were sent before the first prompt came."""
    repl = linux.spawn("a", [sys.executable, "-i", "-q"], merge_stderr=True)
    repl.send_line("x = 5")
    assert repl.ask("x").text == "5\n"
    assert repl.ask("x").text == "5\n"


def test_who_has_no_stdin_is_not_waited_for_in_a_loop(linux):
    """False at once, an error of `ask`, and no CPU in `wait_any`."""
    deaf = linux.spawn("a", child("wait"), stdin=False)
    assert deaf.wait_for_input(None) is False
    with pytest.raises(procpool.StdinClosedError):
        deaf.ask("x")
    other = linux.spawn("a", child("wait"))
    used = time.thread_time()
    with pytest.raises(procpool.TimeoutExpired):
        linux.wait_any([deaf.id, other.id], input=True, timeout=0.5)
    assert time.thread_time() - used < 0.2
    other.close_stdin()
    with pytest.raises(procpool.StdinClosedError):
        other.ask("x")


def test_an_interrupted_entrance_leaves_no_place_in_the_queue(linux):
    """1 an asker lines up; 2 Ctrl-C, before `with` knows of it."""
    cat = linux.spawn("a", "cat")
    exchange = Exchange(cat._child, cat._pool.duties)
    exchange.__enter__()
    del exchange
    until(lambda: not cat._child.askers, "an empty queue")
    assert cat.ask("next").text == "next\n"


def test_an_interrupt_is_news(linux):
    """1 an answer; 2 SIGINT, which has not been seen to do anything; 3 the next question waits for what it does."""
    repl = linux.spawn("a", [sys.executable, "-i", "-q"], merge_stderr=True)
    for _ in range(5):
        repl.ask("x = 1")
        assert repl._child.stood is not None
        repl.interrupt()
        assert repl._child.stood is None
        until(lambda: "KeyboardInterrupt" in repl.read(since="").text, "the interrupt")
        assert repl.ask("6 * 7").text == "42\n"


def test_an_answer_that_comes_during_a_look_is_the_last_news(linux, monkeypatch):
    """1 a look begins; 2 the reader thread reads the answer; 3 the look sees that the process waits."""
    monkeypatch.setattr("procpool.child.CAN_LISTEN", False)
    repl = linux.spawn("a", [sys.executable, "-i", "-q"], merge_stderr=True)
    repl.ask("import time")
    buffer = repl._child.buffers["stdout"]
    before = buffer.bytes
    look = Witness.look

    def look_late(self, **options):
        until(lambda: buffer.bytes > before, "the answer")
        return look(self, **options)

    monkeypatch.setattr(Witness, "look", look_late)
    repl.ask("time.sleep(0.05)")
    assert repl._child.stood is not None


def test_p34_a_reader_that_has_just_forked_does_not_wait(linux, monkeypatch):
    """1 the members are listed; 2 the root makes one that works; 3 the root reads."""
    script = LIFE + "sys.stdin.readline()\nif os.fork() == 0:\n while True: pass\nos.read(0, 1)"
    process = linux.spawn("a", [sys.executable, "-c", script])
    assert process.wait_for_input(10)
    listed = Witness._list

    def list_and_fork(self):
        listed(self)
        monkeypatch.setattr(Witness, "_list", listed)
        process.write("\n")
        until(lambda: psutil.Process(process.pid).children(), "the other one")
        until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING, "the read")

    monkeypatch.setattr(Witness, "_list", list_and_fork)
    assert (
        Witness(process._child.tree.copy(), process._child.stdin.device(), CALLS[os.uname().machine]).look() is not True
    )


def test_no_evidence_without_fds(linux):
    """None, and no error of the system's."""
    cat = linux.spawn("a", "cat", pty=True)
    assert cat.wait_for_input(5)
    held = []
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, limit[1]))
    try:
        with pytest.raises(OSError, match="Too many"):
            while True:
                held.append(os.dup(0))
        assert cat.waiting_for_input is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        for fd in held:
            os.close(fd)
    assert cat.waiting_for_input is True


def test_a_terminal_that_does_not_echo_has_no_echo_to_leave_out(linux):
    """An answer that repeats the question is an answer."""
    cat = linux.spawn("a", "cat", pty=True, echo=False)
    assert cat.ask("hello").plain == "hello\n"
    loud = linux.spawn("a", "cat", pty=True)
    assert loud.ask("hello").plain == "hello\n"


def test_an_answer_is_the_same_as_lines(linux):
    """The prompt that stood before its first line is no part of it, in any form."""
    repl = linux.spawn("a", [sys.executable, "-i", "-q"], merge_stderr=True)
    repl.ask("x = 1")
    answer = repl.ask("6 * 7")
    assert (answer.stdout, [line.text for line in answer.lines], answer.partial.stdout) == (["42"], ["42"], "")
    assert repl.ask("print('x', end='')").partial.stdout == "x"
    other = linux.spawn("a", [sys.executable, "-i", "-q"])
    assert other.ask("1 / 0").stderr[0] == "Traceback (most recent call last):"


def test_readline_on_a_silent_terminal_shows_no_line_to_leave_out(linux):
    """It takes single keys, and shows them only where the terminal did so when it began."""
    env = {"PYTHON_BASIC_REPL": "1", "TERM": "dumb"}
    repl = linux.spawn("a", [sys.executable, "-q"], pty=True, echo=False, extra_env=env)
    assert [repl.ask(line).plain for line in ("42", "'a'", "1")] == ["42\n", "'a'\n", "1\n"]


def test_a_prompt_may_have_flags(monkeypatch):
    """A regular expression is taken as it is."""
    monkeypatch.setenv("PROCPOOL_SYSTEM", "portable")
    script = LIFE + "while True: print(input('Password: ').upper())"
    with procpool.ProcessManager(guardian=False) as manager:
        process = manager.spawn("a", [sys.executable, "-c", script], prompt="(?i)password: ")
        assert process.ask("x").text == "X\n"
