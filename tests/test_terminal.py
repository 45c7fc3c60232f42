"""Terminals: a process on a pty has what a terminal gives, and nothing is lost on the way."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

import procpool
from conftest import child, fork, is_alive, until

LIFE = "import json, os, select, signal, sys, termios, threading, time; signal.alarm(60)\n"
KEYS = "import tty; tty.setraw(0); print('raw', end='\\r\\n', flush=True)\n"


@pytest.fixture
def run(manager):
    """Run a Python script on a terminal."""

    def run(script: str, **options) -> procpool.Process:
        return manager.spawn("a", [sys.executable, "-S", "-E", "-c", LIFE + script], pty=True, **options)

    return run


@pytest.fixture
def terminal(spawn):
    """Start the child program on a terminal."""
    return lambda *steps, **options: spawn(*steps, pty=True, **options)


def test_it_is_a_terminal_of_its_size_which_controls_the_session(run):
    """All three streams, /dev/tty, and the foreground group."""
    process = run(
        "size = os.get_terminal_size()\n"
        "tty = os.open('/dev/tty', os.O_RDWR)\n"
        "print(json.dumps([[os.isatty(fd) for fd in (0, 1, 2)], [size.lines, size.columns],"
        " os.tcgetpgrp(tty) == os.getpgrp() == os.getsid(0) == os.getpid()]))",
        size=(40, 132),
    )
    assert process.wait(10) == 0
    assert json.loads(process.read().text) == [[True, True, True], [40, 132], True]
    assert process.info().pty


def test_one_stream(terminal):
    """What is written to either comes as stdout, in the child's order."""
    process = terminal("err:one\\n", "out:two\\n", "exit:3")
    assert process.wait(10) == 3
    output = process.read()
    assert (output.stdout, output.stderr, output.eof) == (["one", "two"], [], True)
    with pytest.raises(ValueError, match="stream"):
        process.expect("x", stream="stderr")


def test_p39_the_child_sees_what_it_was_given(manager):
    """Three fds, its argv, and the environment to the letter, names that shells drop included."""
    env = {"A.B": "c=d", "PATH": os.environ["PATH"], "TERM": "vt100", "x": "é\n"}
    process = manager.spawn("a", child("facts", "rest", "a b", "$HOME", "*", "-c", ""), env=env, pty=True, cwd="/")
    process.wait(10)
    facts, argv = process.read().stdout
    found = json.loads(facts)
    assert found["env"].pop("PROCPOOL_ID")
    found["env"].pop("LC_CTYPE", None)  # Python's own
    assert (found["env"], found["cwd"], found["fds"][:3]) == (env, "/", [0, 1, 2])
    assert set(found["fds"]) <= {0, 1, 2, 3}  # 3 is what it lists them with
    assert json.loads(argv) == ["a b", "$HOME", "*", "-c", ""]


def test_a_terminal_has_a_name(manager):
    """TERM, where the environment has none: programs that fill the screen need it."""
    process = manager.spawn("a", child("facts"), env={"PATH": os.environ["PATH"]}, pty=True)
    process.wait(10)
    assert json.loads(process.read().text)["env"]["TERM"] == "xterm-256color"


def test_p18_what_was_written_before_the_exit_is_readable_after_wait(terminal):
    """On a terminal it takes the kernel a while to hand it over."""
    for number in range(30):
        process = terminal(f"lines:{number * 10}", f"out:last {number}", "exit:0")
        process.wait(10)
        output = process.read()
        assert output.stdout[-1] == f"last {number}", output.stdout[-1:]
        assert len(output.stdout) == number * 10 + 1


def test_p26_the_exit_is_seen_although_a_descendant_holds_the_terminal(terminal):
    """And what was written before it is there, also beside a descendant that goes on."""
    for _ in range(5):
        process = terminal("ignore:SIGHUP", fork("ignore:SIGHUP", "wait"), "lines:300", "exit:4")
        assert process.wait(10) == 4
        assert process.read().stdout[-1] == "line 299"
        assert process.info().descendants_alive
        process.kill()


def test_p26_the_exit_is_seen_where_a_searcher_was_behind(manager):
    """1 the stream is paused for a searcher; 2 the root exits; 3 a descendant holds the terminal, and says nothing."""
    script = "(trap '' HUP; exec sleep 20) & seq 1 3000"
    process = manager.spawn("a", "sh", ["-c", script], pty=True, max_lines=5)
    for _ in range(20):
        with pytest.raises((procpool.TimeoutExpired, procpool.EndOfOutputError)):
            process.expect("never", 0.01)
    assert process.wait(5) == 0


def test_p18_a_flood_by_a_descendant_does_not_hold_up_the_exit(terminal):
    """The exit comes when what a terminal can hold has been read."""
    process = terminal("ignore:SIGHUP", fork("ignore:SIGHUP", "forever"), "exit:4")
    assert process.wait(10) == 4
    process.kill()


def test_the_end_of_a_terminal_is_an_end_and_no_error(terminal):
    """EIO is how it says so."""
    process = terminal("out:bye", "exit:0")
    process.wait(10)
    until(lambda: process.read(since="").eof, "the end of the output")
    assert process.info().error is None


def test_p01_a_tree_on_a_terminal_is_gone(terminal):
    """Whoever ignores the hangup too."""
    process = terminal("ignore:SIGHUP", fork("ignore:SIGHUP", "ignore:SIGTERM", "pid:member", "wait"), "wait")
    member = int(process.expect(r"member (\d+)", 10)[1])
    assert not process.kill(grace=0.1).survivors
    assert not is_alive(member)


@pytest.mark.parametrize("guardian", [False, True])
def test_p03_an_interactive_shell_costs_no_grace(guardian):
    """It ignores TERM, but not the hangup; a program that dies of TERM dies of that."""
    with procpool.ProcessManager(guardian=guardian, grace=10) as manager:
        bash = manager.spawn("a", ["bash", "--norc", "-i"], pty=True, prompt=r"[$#] ")
        assert bash.wait_for_input(10)
        bash.send_line("sleep 30 & sleep 31")
        # Behind their exec: until then they ignore TERM, as the shell that made them does, and it would be lost.
        until(lambda: [c.name() for c in psutil.Process(bash.pid).children()] == ["sleep"] * 2, "the jobs")
        begin = time.monotonic()
        ended = bash.kill()
        assert time.monotonic() - begin < 5
        assert (ended.escalated, ended.signal, len(ended.pids)) == (False, "SIGHUP", 3)
        assert manager.spawn("a", ["sleep", "30"], pty=True).kill().signal == "SIGTERM"


def test_p03_a_root_that_only_notes_the_first_hangup_costs_no_grace():
    """As bash does between a job's end and its prompt."""
    script = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, lambda *_: signal.signal(signal.SIGHUP, signal.SIG_DFL))
print("ready", flush=True)
signal.alarm(60)
while True: signal.pause()
"""
    with procpool.ProcessManager(guardian=False, grace=10) as manager:
        process = manager.spawn("a", [sys.executable, "-c", script], pty=True)
        process.expect("ready", 10)
        begin = time.monotonic()
        ended = process.kill()
        assert (ended.escalated, ended.signal) == (False, "SIGHUP")
        assert time.monotonic() - begin < 5


def test_p11_processes_on_terminals_end_with_their_owner(tmp_path):
    """A killed owner."""
    script = f"""
import os, signal, sys, procpool
manager = procpool.ProcessManager(grace=0.2)
process = manager.spawn("a", {child("ignore:SIGHUP", "pid:root", "wait")!r}, pty=True)
print(process.expect(r"root (\\d+)")[1], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
    until(lambda: not is_alive(int(done.stdout)), "the end of the tree", 3)


def test_p41_starts_on_terminals_leave_nothing(manager):
    """No fd, no process: the fixture counts them."""
    for _ in range(20):
        manager.spawn("a", "true", pty=True).kill()


# Input


def test_a_variable_named_like_an_option_is_a_variable(manager):
    """Not one of the helper that restores the environment: it would run something else, somewhere else."""
    env = {"-Ssh -c 'echo escaped'": "x", "--chdir": "/", "-": "y", "--": "z"}
    process = manager.spawn("a", "env", pty=True, extra_env=env, cwd="/tmp")
    process.wait(10)
    lines = process.read().stdout
    assert {f"{name}={value}" for name, value in env.items()} <= set(lines)
    assert "escaped" not in lines


def test_echo_is_on_or_off(manager):
    """`echo=False` is for programs that are told, not typed to."""
    for echo, text in ((True, "hello\r\nhello\r\n"), (False, "hello\r\n")):
        cat = manager.spawn("a", "cat", pty=True, echo=echo)
        cat.send_line("hello")
        until(lambda cat=cat, text=text: cat.read(since="").text == text, "the echo")
        cat.kill()


def test_close_stdin_is_ctrl_d(manager):
    """Behind a whole line, and behind one that has only begun."""
    for text in ("whole\n", "begun", ""):
        cat = manager.spawn("a", "cat", pty=True, echo=False)
        cat.write(text)
        cat.close_stdin()
        assert cat.wait(10) == 0
        assert cat.read().text.replace("\r\n", "\n") == text
        with pytest.raises(procpool.StdinClosedError):
            cat.write("more")


def test_p31_close_stdin_releases_who_waits_for_room(run):
    """Their messages are not written any more."""
    process = run(KEYS + "time.sleep(30)")
    process.expect("raw", 10)
    with pytest.raises(procpool.WriteTimeoutError) as caught:
        process.write("x" * 1_000_000, timeout=0.1)
    assert caught.value.written > 0


def test_a_line_that_the_kernel_would_cut_is_refused(manager):
    """4095 bytes and no more, in pieces too; a program that takes the keys one by one has no such limit."""
    cat = manager.spawn("a", "cat", pty=True, echo=False)
    cat.send_line("x" * 4095)
    until(lambda: cat.read(since="").stdout == ["x" * 4095], "the whole line")
    for text in ("y" * 4096, "ok\n" + "y" * 4096 + "\n"):
        with pytest.raises(ValueError, match="4095"):
            cat.write(text)
    cat.write("z" * 3000)
    cat.write("z" * 1000)
    with pytest.raises(ValueError, match="4095"):
        cat.write("z" * 100)
    cat.write("z" * 95 + "\n")
    until(lambda: cat.read(since="").stdout[1:] == ["z" * 4095], "the line in pieces")
    for _ in range(50):
        cat.write("a" * 100 + "\x15")  # Ctrl-U empties the line
    cat.write("many\n" * 3000)
    until(lambda: cat.info().lines.stdout == 3002, "lines that were typed ahead")


def test_no_limit_for_keys(run):
    """A terminal in raw mode."""
    process = run(KEYS + "left = 10_000\nwhile left: left -= len(os.read(0, 4096))\nprint('all')")
    process.expect("raw", 10)
    process.write("x" * 10_000)
    process.expect("all", 10)


def test_enter_is_what_the_program_takes_for_it(run):
    """Return in raw mode, a newline line by line."""
    process = run("print(os.read(0, 9)); " + KEYS + "print(os.read(0, 9), end='\\r\\n')\nprint(os.read(0, 9))")
    process.send_line("x")
    process.expect(r"b'x\\n'", 10)
    process.expect("raw", 10)
    process.send_line("x")
    process.expect(r"b'x\\r'", 10)
    process.write("x\n")
    process.expect(r"b'x\\n'", 10)


# Signals and jobs


def test_resize_is_told(run):
    """By SIGWINCH, and the new size is there."""
    process = run(
        "size = lambda *_: os.write(1, b'now %d %d\\n' % os.get_terminal_size())\n"  # print is not reentrant
        "signal.signal(signal.SIGWINCH, size)\n"
        "print('up', flush=True)\nwhile True: time.sleep(1)"
    )
    process.expect("up", 10)
    process.resize(50, 100)
    process.expect("now 100 50", 10)
    for rows, cols, error in ((0, 80, ValueError), (24, 65_536, ValueError), ("24", 80, TypeError)):
        with pytest.raises(error, match=r"rows|cols"):
            process.resize(rows, cols)


def test_interrupt_reaches_the_foreground_job(manager):
    """Job control: bash's job dies, bash lives."""
    bash = manager.spawn("a", ["bash", "--norc", "-i"], pty=True, extra_env={"PS1": "$ "}, prompt=r"\$ ")
    bash.expect(r"\$ ", 10)
    # Not a shell: 1 it says something; 2 the interrupt, which it notes; 3 it forks, and waits for a child that got none.
    bash.send_line("sleep 30")
    job = until(lambda: [c.pid for c in psutil.Process(bash.pid).children() if c.name() == "sleep"], "the job")[0]
    bash.interrupt()
    until(lambda: not is_alive(job), "the end of the job")
    bash.send_line("echo status $?")
    bash.expect("status 130", 10)
    assert bash.alive
    bash.kill(grace=0.1)  # the portable half cannot see that it ignores TERM


INTERRUPTED = """
import os, signal, sys, termios
signal.signal(signal.SIGINT, lambda *_: os.write(1, b"signal\\n"))  # print is not reentrant
{}
print("up", flush=True)
while True: print(repr(sys.stdin.readline()), flush=True)
"""
RAW = "m = termios.tcgetattr(0); m[3] &= ~termios.ISIG; termios.tcsetattr(0, 0, m)"


def test_interrupt_is_what_ctrl_c_is(manager):
    """What was typed before it is thrown away; a program that takes Ctrl-C for a key gets a key."""
    process = manager.spawn("a", [sys.executable, "-c", INTERRUPTED.format("")], pty=True, echo=False)
    process.expect("up", 10)
    process.write("junk")
    process.interrupt()
    process.expect("signal", 10)
    process.send_line("ok")
    assert process.expect(r"'.*'", 10)[0] == r"'ok\n'"
    process = manager.spawn("a", [sys.executable, "-c", INTERRUPTED.format(RAW)], pty=True, echo=False)
    process.expect("up", 10)
    process.write("half ")
    process.interrupt()
    process.send_line("whole")
    assert process.expect(r"'.*'", 10)[0] == r"'half \x03whole\n'"


def test_p44_a_screen_that_ctrl_c_interrupts_shows_all_the_next_time(manager):
    """Whenever it comes: what was half fed to the emulator is fed again."""
    import pyte  # noqa: F401  # here, for an import that Ctrl-C tears is not ours

    pages = "".join("\x1b[H" + f"page {number}\n" * 23 for number in range(40))
    process = manager.spawn("a", child("out:" + pages.encode("unicode_escape").decode() + "end", "wait"), pty=True)
    process.expect("end", 10)
    hits = 0
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for _ in range(20):
            timer = threading.Timer(
                random.uniform(0.001, 0.02), signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)
            )
            try:
                timer.start()
                process.screen()
                timer.join()
            except KeyboardInterrupt:
                hits += 1
    finally:
        signal.signal(signal.SIGINT, before)
    assert hits
    assert process.screen().rows == (*["page 39"] * 23, "end")


def test_ctrl_z_and_fg(manager):
    """The job is stopped, and goes on."""
    bash = manager.spawn("a", ["bash", "--norc", "-i"], pty=True, extra_env={"PS1": "$ "})
    bash.send_line("cat")
    # 1 bash forks; 2 ^Z goes to the terminal's foreground job, still bash itself; 3 the child becomes that, and cat.
    until(lambda: [c for c in psutil.Process(bash.pid).children() if c.name() == "cat"], "the job")
    bash.send_keys("C-z")
    bash.expect("Stopped", 10)
    bash.send_line("fg")
    bash.send_line("again")
    bash.expect("again", 10)
    bash.send_keys("C-c")
    bash.kill(grace=0.1)


def test_an_interrupt_finds_its_way_past_a_full_queue(run):
    """Typed far ahead of a program that does not read."""
    process = run("signal.signal(signal.SIGINT, lambda *_: os._exit(3))\nprint('up', flush=True)\ntime.sleep(30)")
    process.expect("up", 10)
    with pytest.raises(procpool.WriteTimeoutError):
        process.write("line\n" * 100_000, timeout=0.2)
    process.interrupt()
    assert process.wait(10) == 3


def test_p09_a_host_that_ignores_sigint_does_not_pass_it_on(manager):
    """The shell that takes the terminal cannot restore it; `env` does."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = manager.spawn("a", ["sleep", "30"], pty=True)
    finally:
        signal.signal(signal.SIGINT, before)
    until(lambda: psutil.Process(process.pid).name() == "sleep", "the exec")
    process.interrupt()
    assert process.wait(10) == -signal.SIGINT


# Starting


@pytest.mark.parametrize(
    ("command", "options", "error", "match"),
    [
        ("no-such-command", {}, procpool.CommandNotFoundError, "no-such-command"),
        ("echo hello", {}, procpool.CommandNotFoundError, "args"),
        ("./no-such", {}, procpool.CommandNotFoundError, "no-such"),
        ("/etc/passwd", {}, procpool.StartError, "not executable"),
        ("/etc", {}, procpool.StartError, "directory"),
        ("sleep", {"cwd": "/no/such"}, procpool.StartError, "cwd"),
        ("sleep", {"cwd": "/etc/passwd"}, procpool.StartError, "cwd"),
        ("sleep", {"env": {"PATH": "/nowhere"}}, procpool.CommandNotFoundError, "sleep"),
        ("sleep", {"stdin": False}, ValueError, "pty"),
        ("sleep", {"size": (0, 80)}, ValueError, "rows"),
        ("sleep", {"size": (24, 70_000)}, ValueError, "cols"),
        ("sleep", {"size": 24}, TypeError, "size"),
        ("sleep", {"size": (24.0, 80)}, TypeError, "rows"),
        ("sleep", {"echo": 1}, TypeError, "echo"),
    ],
)
def test_a_start_that_cannot_work_is_refused(manager, command, options, error, match):
    """As without a terminal: before anything runs, and with what Popen would say."""
    with pytest.raises(error, match=match):
        manager.start("a", command, pty=True, **options)
    assert manager.count() == 0


@pytest.mark.parametrize(
    ("content", "error"),
    [("echo no first line\n", "no known kind"), ("#!/no/such/interpreter\n", "interpreter")],
)
def test_what_is_no_program_is_refused(manager, tmp_path, content, error):
    """A shell would run the one and hide what is wrong with the other."""
    program = tmp_path / "program"
    program.write_text(content)
    program.chmod(0o755)
    with pytest.raises(procpool.StartError, match=error):
        manager.start("a", program, pty=True)


def test_commands_are_found_as_without_a_terminal(manager, tmp_path):
    """From the child's directory, through its PATH, and with odd names."""
    for name in ("-odd", "a=b", "plain"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho ran $0\n")
        program.chmod(0o755)
        for command, options in (
            (f"./{name}", {"cwd": tmp_path}),
            (name, {"extra_env": {"PATH": f"{tmp_path}:{os.environ['PATH']}"}}),
        ):
            process = manager.spawn("a", command, pty=True, **options)
            assert process.wait(10) == 0
            assert "ran " in process.read().text


@pytest.mark.parametrize(
    "verb", [lambda p: p.send_keys("Up"), lambda p: p.paste("x"), lambda p: p.resize(1, 1), lambda p: p.screen()]
)
def test_what_needs_a_terminal_says_so(spawn, verb):
    """On pipes."""
    with pytest.raises(ValueError, match="pty=True"):
        verb(spawn("wait"))


def test_verbs_by_id(manager):
    """The mixin passes them on."""
    cat = manager.start("a", "cat", pty=True)
    manager.resize(cat, 30, 90)
    assert manager.send_keys(cat, "a", "Enter") == 2
    assert manager.paste(cat, "b") == 1
    manager.expect(cat, "ab|a", 10)
    assert manager.screen(cat).size == (30, 90)


# Keys and pastes


def test_keys_are_what_xterm_sends(run):
    """In the form that the program has asked for."""
    process = run(
        KEYS + "print('\\x1b[?1h', end='', flush=True); print(os.read(0, 99), end='\\r\\n', flush=True)\n"
        "print('\\x1b[?1l', end='', flush=True); print(os.read(0, 99))"
    )
    process.expect("raw", 10)
    until(lambda: process._child.keyboard.application, "the mode")
    process.send_keys("Up", "C-c", "M-x", "F5", "Enter")
    process.expect(r"b'\\x1bOA\\x03\\x1bx\\x1b\[15~\\r'", 10)
    until(lambda: not process._child.keyboard.application, "the other mode")
    process.send_keys("Up", "C-Left", "BSpace")
    process.expect(r"b'\\x1b\[A\\x1b\[1;5D\\x7f'", 10)
    with pytest.raises(ValueError, match="no key named 'Ctrl'"):
        process.send_keys("a", "Ctrl")


def test_a_paste_is_marked_where_that_is_wanted(run):
    """And cannot end itself."""
    process = run(
        KEYS + "print(os.read(0, 99), end='\\r\\n', flush=True)\n"
        "print('\\x1b[?2004h', end='', flush=True); print(os.read(0, 99))"
    )
    process.expect("raw", 10)
    process.paste("a\nb")
    process.expect(r"b'a\\rb'", 10)
    until(lambda: process._child.keyboard.bracketed, "the mode")
    process.paste("a\x1b[20\x1b[201~1~b")
    process.expect(r"b'\\x1b\[200~ab\\x1b\[201~'", 10)


# Screens


def test_screen_shows_what_stands_there(run):
    """Moves, colours, what is written over; the cursor, and a gap that is counted."""
    process = run(
        "print('one\\x1b[2;5H\\x1b[31mtwo\\x1b[0m\\x1b[3;1Hgone\\r\\x1b[Knew', end='', flush=True); time.sleep(30)"
    )
    process.expect("new", 10)
    screen = process.screen()
    assert screen.rows[:3] == ("one", "    two", "new")
    assert (screen.cursor, screen.size, screen.dropped) == ((2, 3), (24, 80), 0)
    assert str(screen) == "one\n    two\nnew"
    assert "two" in screen
    assert "three" not in screen
    assert json.dumps(screen.to_dict())


def test_codes_that_the_emulator_does_not_know_are_no_text(run):
    """Private and torn ones."""
    process = run(
        "for part in ('\\x1b[>4;2m', '\\x1b[?4m', '\\x1bP+q436f\\x1b\\\\', '\\x1b]0;title\\x07', '\\x1b[!p', '\\x1b[', '1mbold'):\n"
        " print(part, end='', flush=True); sys.stdin.readline()\n",
        echo=False,
    )
    for _ in range(7):
        process.send_line()
        process.screen()
    process.wait(10)
    assert process.screen().rows[0] == "bold"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("日本", "日本     end"),
        ("日\rx", "x        end"),
        ("日本\bx", "日 x     end"),
        ("日本\r\x1b[P", " 本      end"),
        ("日\r\x1b[1K", "         end"),
    ],
)
def test_half_of_a_wide_character_is_none(run, text, shown):
    """Where the other half was written over there is a blank; no error, and each row is as wide as it is."""
    process = run(f"print({text!r}, end='\\x1b[10Gend', flush=True); time.sleep(30)", extra_env={"PYTHONUTF8": "1"})
    process.expect("end", 10)
    assert process.screen().rows[0] == shown


def test_p21_no_code_stops_a_screen(run):
    """One that the emulator fails on is left out."""
    process = run(
        "print('one\x1b[1;2;3H\x1b[?1m two\x1b[99999999999999999999999C', end='', flush=True); time.sleep(30)"
    )
    process.expect("two", 10)
    assert "two" in process.screen()


def test_a_program_that_asks_its_terminal_is_answered(run):
    """Where the cursor is, and what it is: when somebody looks."""
    process = run(
        KEYS
        + "print('abc\\x1b[6n\\x1b[c', end='', flush=True); time.sleep(0.1); a = os.read(0, 99)\nwhile b'c' not in a: a += os.read(0, 99)\nprint(a)"
    )
    process.expect("abc", 10)
    process.screen()
    process.expect(r"b'\\x1b\[2;4R\\x1b\[\?6c'", 10)


def test_what_was_lost_before_a_screen_is_counted(terminal):
    """The gap is known."""
    process = terminal("lines:3000", "wait", max_lines=100)
    process.expect("line 2999", 10)
    assert process.screen().dropped == 2900
    assert "line 2999" in process.screen()
