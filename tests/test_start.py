"""Starting: all or nothing, exact limits, and a child that sees what it was given."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import procpool
from conftest import child, our_fds, until


def facts_of(process) -> dict:
    process.wait(10)
    return json.loads(process.read().stdout[0])


def test_ids_are_the_seed_s(manager):
    """`proc_1`, `proc_2`, ...; a failed start takes no number."""
    assert manager.start("a", "true") == "proc_1"
    with pytest.raises(procpool.StartError):
        manager.start("a", "/no/such/command")
    assert manager.start("a", ["true"]) == "proc_2"
    with procpool.ProcessManager(id_prefix="x") as other:
        assert other.start("a", "true") == "x1"


def test_p39_the_child_sees_fds_0_1_2_and_its_own_session(spawn):
    """Nothing of ours is inherited, however it was opened."""
    fd = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(fd, True)
    try:
        facts = facts_of(spawn("facts"))
    finally:
        os.close(fd)
    assert facts["fds"] == [0, 1, 2]
    assert facts["session"] == facts["group"] == facts["pid"]


def test_p39_argv_is_literal(spawn):
    """No shell, no globbing, no quoting."""
    words = ["$HOME", "*", "a b", "", "';|>&", '"', "\udcff"]
    process = spawn("rest", *words)
    process.wait(10)
    assert json.loads(process.read().stdout[0]) == words


def test_p39_the_environment_is_what_was_given(spawn, monkeypatch):
    """Inherited, extended, or replaced."""
    monkeypatch.setenv("OURS", "1")
    assert facts_of(spawn("facts"))["env"]["OURS"] == "1"
    env = facts_of(spawn("facts", extra_env={"MORE": "2"}))["env"]
    assert (env["OURS"], env["MORE"]) == ("1", "2")
    env = facts_of(spawn("facts", env={"ONLY": "3", "A.B": "4"}))["env"]
    assert {name for name in env if name not in ("LC_CTYPE", "PROCPOOL_ID")} == {"ONLY", "A.B"}
    with procpool.ProcessManager(env={"FROM": "manager"}) as manager:
        env = facts_of(manager.spawn("a", child("facts"), extra_env={"MORE": "5"}))["env"]
    assert {name for name in env if name not in ("LC_CTYPE", "PROCPOOL_ID")} == {"FROM", "MORE"}


def test_cwd(spawn, tmp_path):
    """As str or path."""
    assert facts_of(spawn("facts", cwd=tmp_path))["cwd"] == str(tmp_path)
    assert facts_of(spawn("facts", cwd=str(tmp_path)))["cwd"] == str(tmp_path)
    assert facts_of(spawn("facts"))["cwd"] == os.getcwd()


def test_stdin_is_a_pipe_or_dev_null(spawn):
    """A pipe unless it is not wanted."""
    assert facts_of(spawn("facts"))["stdin"].startswith("pipe:")
    assert facts_of(spawn("facts", stdin=False))["stdin"] == "/dev/null"


def test_commands_may_be_paths(manager, tmp_path):
    """And arguments."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho ran $1\n")
    program.chmod(0o755)
    process = manager.spawn("a", program, [Path("x")])
    process.wait(10)
    assert process.read().stdout == ["ran x"]
    assert process.args == (str(program), "x")
    process = manager.spawn("a", [program, "y"], ["z"])
    assert process.args == (str(program), "y", "z")


@pytest.mark.parametrize(
    ("arguments", "options", "error", "what"),
    [
        ((1, "x"), {}, TypeError, "agent_id must be a str, not int"),
        (("", "x"), {}, ValueError, "agent_id must not be empty"),
        (("a", None), {}, TypeError, "command must be a str, a path or a list of them, not NoneType"),
        (("a", b"x"), {}, TypeError, "command must be a str, a path or a list of them, not bytes"),
        (("a", ""), {}, ValueError, "command must not be empty"),
        (("a", []), {}, ValueError, "command must not be an empty list"),
        (("a", [""]), {}, ValueError, "command must not be empty"),
        (("a", ["x", 1]), {}, TypeError, r"command\[1\] must be a str or a path, not int"),
        (("a", "x\0y"), {}, ValueError, "command must not hold a NUL byte"),
        (("a", "x", "y"), {}, TypeError, "args must be a list of str, not str"),
        (("a", "x", b"y"), {}, TypeError, "args must be a list of str, not bytes"),
        (("a", "x", None), {}, TypeError, "args must be a list of str, not NoneType"),
        (("a", "x", 5), {}, TypeError, "args must be a list of str, not int"),
        (("a", "x", ["y", 2]), {}, TypeError, r"args\[1\] must be a str or a path, not int"),
        (("a", "x", ["y", b"z"]), {}, TypeError, r"args\[1\] must be a str or a path, not bytes"),
        (("a", "x", ["\0"]), {}, ValueError, r"args\[0\] must not hold a NUL byte"),
        (("a", "x", ["\ud800"]), {}, ValueError, r"args\[0\] cannot be encoded"),
        (("a", "x"), {"cwd": 1}, TypeError, "cwd must be a str or a path, not int"),
        (("a", "x"), {"cwd": "a\0"}, ValueError, "cwd must not hold a NUL byte"),
        (("a", "x"), {"env": ["A=b"]}, TypeError, "env must be a mapping"),
        (("a", "x"), {"env": {"A=": "b"}}, ValueError, "env has a name that is empty or holds '='"),
        (("a", "x"), {"extra_env": {"": "b"}}, ValueError, "extra_env has a name that is empty"),
        (("a", "x"), {"extra_env": {"A": 1}}, TypeError, r"extra_env\['A'\] must be a str or a path, not int"),
        (("a", "x"), {"extra_env": {1: "A"}}, TypeError, "a name in extra_env must be a str"),
        (("a", "x"), {"extra_env": {"A": "\0"}}, ValueError, r"extra_env\['A'\] must not hold a NUL byte"),
        (("a", "x"), {"encoding": "utf-16"}, ValueError, "encoding must extend ASCII"),
        (("a", "x"), {"encoding": 1}, TypeError, "encoding must be a str"),
        (("a", "x"), {"errors": "strict"}, ValueError, "errors must be one of"),
        (("a", "x"), {"max_lines": 0}, ValueError, "max_lines must be at least 1, and no more than .*: 0"),
        (("a", "x"), {"max_lines": 1 << 63}, ValueError, "max_lines must be at least 1, and no more than"),
        (("a", "x"), {"prompt": 5}, TypeError, "prompt must be a str"),
        (("a", "x"), {"prompt": "("}, ValueError, "prompt is not a regular expression"),
        (("a", "x"), {"ready": []}, ValueError, "ready must not be an empty list"),
        (("a", "x"), {"quiet": float("nan")}, ValueError, "quiet must be a number of seconds, and not negative: nan"),
        (("a", "x"), {"max_bytes": 1.5}, TypeError, "max_bytes must be an int, not float"),
        (("a", "x"), {"stdin": None}, TypeError, "stdin must be True or False"),
        (("a", "x"), {"merge_stderr": 1}, TypeError, "merge_stderr must be True or False"),
        (("a", "x"), {"size": 24}, TypeError, "size must be"),
        (("a", "x"), {"size": (0, 80)}, ValueError, "rows"),
        (("a", "x"), {"size": (40, 120)}, ValueError, "pty=True"),
    ],
)
def test_wrong_arguments_are_named_before_anything_starts(manager, arguments, options, error, what):
    """A plain TypeError or ValueError; no thread was started."""
    with pytest.raises(error, match=what):
        manager.start(*arguments, **options)
    assert manager.count() == 0
    assert manager._pool.owner == 0


@pytest.mark.parametrize(
    ("options", "error", "what"),
    [
        ({"max_per_agent": 0}, ValueError, "max_per_agent"), ({"max_per_agent": 1.5}, TypeError, "max_per_agent"),
        ({"max_per_agent": True}, TypeError, "max_per_agent"), ({"max_total": -1}, ValueError, "max_total"),
        ({"timeout": -1}, ValueError, "timeout"), ({"grace": float("nan")}, ValueError, "grace"),
        ({"grace": None}, TypeError, "grace"), ({"grace": float("inf")}, ValueError, "grace"),
        ({"max_lines": 0}, ValueError, "max_lines"), ({"max_bytes": "1"}, TypeError, "max_bytes"),
        ({"max_line_bytes": 0}, ValueError, "max_line_bytes"), ({"keep_exited": -1}, ValueError, "keep_exited"),
        ({"max_age_secs": -1}, ValueError, "max_age_secs"), ({"idle_secs": "1"}, TypeError, "idle_secs"),
        ({"cleanup_interval": 0}, ValueError, "cleanup_interval"), ({"id_prefix": 1}, TypeError, "id_prefix"),
        ({"env": {"=": ""}}, ValueError, "env"), ({"authorize": 1}, TypeError, "authorize"),
    ],
)  # fmt: skip
def test_wrong_arguments_of_the_manager_are_named(options, error, what):
    """At the constructor."""
    with pytest.raises(error, match=what):
        procpool.ProcessManager(**options)


def make(path: Path, content: bytes, mode: int = 0o755) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("case", "kind", "number", "what"),
    [
        ("missing", procpool.CommandNotFoundError, errno.ENOENT, "there is no command"),
        ("not on PATH", procpool.CommandNotFoundError, errno.ENOENT, "on PATH"),
        ("space", procpool.CommandNotFoundError, errno.ENOENT, "arguments go in args"),
        ("interpreter", procpool.CommandNotFoundError, errno.ENOENT, "interpreter"),
        ("not executable", procpool.StartError, errno.EACCES, "is not executable"),
        ("directory", procpool.StartError, errno.EACCES, "is a directory"),
        ("format", procpool.StartError, errno.ENOEXEC, "no '#!' line"),
        ("too long", procpool.StartError, errno.E2BIG, "longer than the system takes"),
        ("cwd missing", procpool.StartError, errno.ENOENT, "cwd: there is no directory"),
        ("cwd a file", procpool.StartError, errno.ENOTDIR, "cwd: .* is not a directory"),
    ],
)
def test_p35_what_cannot_be_started_says_why_and_leaves_nothing(manager, tmp_path, case, kind, number, what):
    """No fd, no slot, no entry; the system's reason, and what to do."""
    fds = our_fds()
    arguments, options = {
        "missing": lambda: (("/no/such/command",), {}),
        "not on PATH": lambda: (("no-such-command",), {}),
        "space": lambda: (("ls -l",), {}),
        "interpreter": lambda: ((make(tmp_path / "p", b"#!/no/such/interpreter\n"),), {}),
        "not executable": lambda: ((make(tmp_path / "p", b"#!/bin/sh\n", 0o644),), {}),
        "directory": lambda: ((str(tmp_path),), {}),
        "format": lambda: ((make(tmp_path / "p", b"\x00\x01\x02"),), {}),
        "too long": lambda: (("true", ["x" * 100_000] * 100), {}),
        "cwd missing": lambda: (("true",), {"cwd": "/no/such/folder"}),
        "cwd a file": lambda: (("true",), {"cwd": make(tmp_path / "p", b"")}),
    }[case]()
    with pytest.raises(kind, match=what) as caught:
        manager.start("a", *arguments, **options)
    error = caught.value
    assert type(error) is kind
    assert error.errno == number
    assert error.command == arguments[0]
    assert isinstance(error, OSError)
    assert str(error).startswith(f"Failed to start process {arguments[0]!r}: {os.strerror(number)}")
    assert manager.count() == 0
    assert manager._pool.total == 0
    manager._pool.reader.close()
    until(lambda: our_fds() <= fds, "no fd more")


@pytest.mark.parametrize("pty", [False, True], ids=["pipe", "pty"])
def test_a_start_error_tells_what_there_is(manager, tmp_path, monkeypatch, pty):
    """Of the command that was meant, seen from where the child would be; not of a file of that name beside us."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zz").mkdir()
    with pytest.raises(procpool.CommandNotFoundError, match="there is no command 'zz' on PATH"):
        manager.start("a", "zz", pty=pty)
    script = tmp_path / "zz" / "script"
    script.write_text("#!/nowhere/at/all\n")
    script.chmod(0o755)
    with pytest.raises(procpool.CommandNotFoundError, match="interpreter that its first line names is not"):
        manager.start("a", "./script", cwd="zz", pty=pty)
    with pytest.raises(procpool.StartError) as caught:
        manager.start("a", "zz/script/below", pty=pty)
    assert (type(caught.value), caught.value.errno) == (procpool.StartError, errno.ENOTDIR)
    with pytest.raises(procpool.StartError, match="by stdin or a file"):
        manager.start("a", "echo", ["x" * (1 << 22)], pty=pty)


@pytest.mark.parametrize("pty", [False, True], ids=["pipe", "pty"])
def test_an_owner_whose_directory_is_gone_can_start(pty, tmp_path):
    """As Popen can. What is imported late comes before: without a current directory 3.13.0 can import nothing."""
    script = f"""
import os, sys, procpool
procpool.spawn("true", pty={pty}).wait(10)
os.mkdir("gone"); os.chdir("gone"); os.rmdir("../gone")
with procpool.spawn("echo", ["hello"], pty={pty}) as echo: print(echo.expect("hello", 10)[0])
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=15)
    assert done.stdout == "hello\n", done.stderr


def test_words_that_are_no_text_can_be_shown(manager):
    """A lone surrogate stands for a byte; a repr can be printed anywhere."""
    process = manager.spawn("a", "echo", ["\udcff"])
    assert "\\udcff" in repr(process).encode().decode()
    assert "\\udcff" in repr(process.info()).encode().decode()


def test_p35_no_fds_left(manager):
    """EMFILE: the hint says which limit; nothing of the start is left, and the next one works."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    manager.start("a", "true")
    for spare in range(1, 12):
        used = max(int(fd) for fd in our_fds()) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, hard))
        fds = None
        try:
            fds = our_fds()
            with pytest.raises(procpool.StartError, match="ulimit -n") as caught:
                while True:
                    manager.start("a", "cat")
            assert caught.value.errno == errno.EMFILE
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        manager.kill_all()
        assert fds is not None
        until(lambda fds=fds: len(our_fds()) <= len(fds), "no fd more")
    process = manager.spawn("a", "echo", ["works"])
    assert process.wait(5) == 0


def test_p35_no_thread_left():
    """EAGAIN for a thread: a StartError, and no process, fd or slot is left."""
    script = """
import os, resource, threading, procpool
os.setgid(65534); os.setuid(65534)
import psutil, concurrent.futures
manager = procpool.ProcessManager()
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
fds = len(os.listdir("/proc/self/fd"))
for _ in range(3):
    try:
        manager.start("a", "true")
    except procpool.StartError as error:
        print(str(error).splitlines()[0])
print(threading.active_count(), len(os.listdir("/proc/self/fd")) - fds, manager.count(), manager._pool.total)
"""
    if os.getuid() != 0:
        script = script.replace("os.setgid(65534); os.setuid(65534)", "")
    script = script.replace("import os,", "import psutil, concurrent.futures, os,")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=15)
    assert done.stdout.splitlines()[-1] == "1 0 0 0", done.stderr + done.stdout
    assert done.stdout.startswith("Failed to start process: can't start new thread\n")


def test_p36_the_limit_is_exact_under_racing_starts():
    """Twenty threads, five places."""
    with procpool.ProcessManager(max_per_agent=5) as manager:
        results = []
        barrier = threading.Barrier(20)

        def start():
            barrier.wait()
            try:
                results.append(manager.start("a", "sleep", ["60"]))
            except procpool.LimitExceededError as error:
                results.append(error)

        threads = [threading.Thread(target=start) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refused = [result for result in results if not isinstance(result, str)]
        assert len(refused) == 15
        assert manager.count() == 5
        assert str(refused[0]).startswith("Agent 'a' already has 5 processes (max: 5)")
        assert (refused[0].agent_id, refused[0].count, refused[0].limit) == ("a", 5, 5)


def test_p36_the_total_is_limited_too():
    """Over all agents."""
    with procpool.ProcessManager(max_total=2) as manager:
        manager.start("a", "cat")
        manager.start("b", "cat")
        with pytest.raises(procpool.LimitExceededError, match=r"already has 2 processes \(max: 2\)"):
            manager.start("c", "cat")


def test_p37_what_ended_holds_no_slot():
    """Five finished commands do not lock an agent out; they stay readable."""
    with procpool.ProcessManager(max_per_agent=1) as manager:
        for number in range(5):
            process = manager.spawn("a", "echo", [str(number)])
            process.wait(5)
        assert manager.count() == 5
        assert manager.read("proc_1").stdout == ["0"]


def test_p37_a_living_descendant_holds_the_slot(tmp_path):
    """`sh -c 'server & exit'` frees nothing, until the server is gone."""
    with procpool.ProcessManager(max_per_agent=1) as manager:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        process = manager.start("a", "sh", ["-c", f"(read x < {fifo}) & exit 0"])
        manager.wait(process, 5)
        with pytest.raises(procpool.LimitExceededError):
            manager.start("a", "true")
        assert manager.info(process).descendants_alive
        manager.cleanup()
        assert process in manager
        fifo.write_text("go\n")
        until(lambda: not manager.info(process).descendants_alive, "an empty tree")
        manager.start("a", "true")


def test_where_there_is_no_posix_the_import_works_and_a_start_says_why():
    """On Windows a program can be imported, and told."""
    script = """
import sys
sys.modules["fcntl"] = sys.modules["termios"] = None
import os, procpool
os.name = "nt"
try:
    procpool.spawn("x")
except procpool.StartError as error:
    print(str(error).splitlines()[0])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=15)
    assert done.stdout == f"Failed to start process: procpool needs a POSIX system, and this is {sys.platform}\n"
    assert done.returncode == 0, done.stderr


def test_authorize_refuses():
    """The hook sees the whole command, and its answer counts before anything is started."""
    asked = []

    def authorize(agent_id, argv, cwd, env):
        asked.append((agent_id, argv, cwd, env["X"]))
        return argv[0] != "rm"

    with procpool.ProcessManager(authorize=authorize) as manager:
        manager.start("a", "true", extra_env={"X": "1"})
        with pytest.raises(procpool.NotAuthorizedError) as caught:
            manager.start("a", "rm", ["-r", "x"], cwd="/", extra_env={"X": "2"})
    assert asked == [("a", ("true",), None, "1"), ("a", ("rm", "-r", "x"), "/", "2")]
    assert (caught.value.agent_id, caught.value.command) == ("a", "rm")
    assert isinstance(caught.value, PermissionError)
