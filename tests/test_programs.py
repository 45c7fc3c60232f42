"""Real programs: when they wait for input, and what they answer, on pipes and on a terminal."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import pytest

import procpool
from conftest import until

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the evidence is Linux's"),
    pytest.mark.timeout(120),
]


@dataclass
class Program:
    """How a program is started, what it is asked, and how long it works."""

    argv: list[str]  # on a terminal
    ask: Optional[tuple[str, str]] = None  # a line and its exact answer
    busy: str = ""  # a line that keeps it busy for a while
    pipe: Optional[list[str]] = None  # its argv on pipes, if it is another one
    not_on_pipes: str = ""  # why
    keys: tuple[str, ...] = ()  # for those that take keys in place of lines: what makes it do something
    env: dict[str, str] = field(default_factory=dict)


PROGRAMS = {
    "python3 -i": Program(
        [sys.executable, "-q"], ("6 * 7", "42\n"), "import time; time.sleep(0.2)",
        pipe=[sys.executable, "-i", "-q"], env={"PYTHON_BASIC_REPL": "1"},
    ),
    "IPython": Program(
        [sys.executable, "-m", "IPython", "--classic", "--simple-prompt", "--no-banner", "--colors=NoColor", "--HistoryManager.enabled=False"],
        ("6 * 7", "42\n"), "import time; time.sleep(0.2)",
        env={"IPYTHONDIR": "."},
    ),
    "bash": Program(
        ["bash", "--norc", "-i"], ("echo $((6 * 7))", "42\n"), "sleep 0.2", pipe=["bash"], env={"PS1": "$ "},
    ),
    "sh": Program(["sh", "-i"], ("echo $((6 * 7))", "42\n"), "sleep 0.2", pipe=["sh"], env={"PS1": "$ "}),
    "node": Program(
        ["node"], ("6 * 7", "42\n"), "{ const end = Date.now() + 200; while (Date.now() < end); }",
        pipe=["node", "-i"], env={"NODE_REPL_HISTORY": ""},
    ),
    "sqlite3": Program(
        ["sqlite3"], ("select 6 * 7;", "42\n"),
        "with recursive c(x) as (select 1 union all select x + 1 from c where x < 700000) select count(*) from c;",
        pipe=["stdbuf", "-oL", "sqlite3"],
    ),
    "bc": Program(["bc", "-q"], ("6 * 7", "42\n"), "for (i = 0; i < 800000; i++) { x = i }"),
    "gdb": Program(
        ["gdb", "-q", "-nx"], ('printf "%d\\n", 6 * 7', "42\n"), "shell sleep 0.2", env={"HISTSIZE": "0"},
    ),
    "psql": Program(
        ["psql", "-X", "-q", "-t", "-A", "postgres"], ("select 6 * 7;", "42\n"), "select pg_sleep(0.2);",
        env={"PGUSER": "postgres", "PSQL_HISTORY": "/dev/null", "PAGER": "cat"},
    ),
    "ssh-keygen": Program(
        ["ssh-keygen", "-q", "-t", "ed25519", "-f", "key"], ("secret", "\nEnter same passphrase again: "),
        not_on_pipes="it reads a passphrase from a terminal alone",
    ),
    "less": Program(["less", "/etc/services"], keys=("Space", "b"), not_on_pipes="it fills a screen"),
    "vim": Program(["vim", "-u", "NONE", "-i", "NONE", "-N", "-n"], keys=("i", "x", "Escape"), not_on_pipes="it fills a screen"),
    "top": Program(["top"], keys=("h", "Escape"), not_on_pipes="it fills a screen"),
}  # fmt: skip


@contextlib.contextmanager
def server(folder: Path) -> Iterator[dict[str, str]]:
    """Run a PostgreSQL server for psql, as a user that may, and say how to reach it."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found or os.getuid() != 0:
        pytest.skip("psql: there is no server to run, or no right to change to its user")
    user = pwd.getpwnam("postgres")
    folder = Path(folder)
    for place in (folder, *folder.parents[:3]):
        place.chmod(0o755)
    data = folder / "data"
    data.mkdir()
    os.chown(data, user.pw_uid, user.pw_gid)
    become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    tools = found[-1].parent
    subprocess.run(
        [*become, tools / "initdb", "-N", "-A", "trust", "-D", data], check=True, capture_output=True, cwd="/"
    )
    with procpool.ProcessManager(guardian=False) as manager:
        options = ["-D", data, "-k", data, "-c", "listen_addresses=", "-c", "fsync=off"]
        process = manager.spawn("server", [*become, tools / "postgres", *options], cwd="/")
        process.expect("ready to accept connections", 30)
        yield {"PGHOST": str(data)}


@contextlib.contextmanager
def started(name: str, folder: Path, *, pty: bool) -> Iterator[procpool.Process]:
    """Start a program; skip if it is not here."""
    program = PROGRAMS[name]
    argv = program.argv if pty or program.pipe is None else program.pipe
    if not pty and program.not_on_pipes:
        pytest.skip(f"{name}: {program.not_on_pipes}")
    if shutil.which(program.argv[0]) is None:
        pytest.skip(f"{name}: it is not installed")
    with contextlib.ExitStack() as stack:
        env = {"TERM": "xterm-256color", "HOME": str(folder), **program.env}
        if name == "psql":
            env.update(stack.enter_context(server(folder)))
        manager = stack.enter_context(procpool.ProcessManager(guardian=False))
        yield manager.spawn("a", argv, extra_env=env, cwd=folder, pty=pty, merge_stderr=not pty)


@dataclass
class Count:
    """What was right, of how much."""

    evidence: int = 0
    answers: int = 0
    wrong: int = 0  # True where it was not


def judge(name: str, folder: Path, *, pty: bool, times: int) -> Count:
    """Talk to a program; count what was right."""
    program = PROGRAMS[name]
    count = Count()
    with started(name, folder, pty=pty) as process:
        assert process.wait_for_input(30) is True
        for number in range(times):
            if program.keys:
                process.send_keys(program.keys[number % len(program.keys)])
                count.evidence += process.wait_for_input(10) is True
                continue
            if name == "ssh-keygen":
                count.evidence += process.wait_for_input(10) is True
                answer = process.ask("secret")
                count.answers += answer.text.replace("\r\n", "\n").endswith(program.ask[1])
                count.wrong += process.ask("secret").alive or bool(process.waiting_for_input)
                (folder / "key").unlink()
                if number + 1 < times:
                    process.kill()
                    process = process._manager.spawn("a", program.argv, cwd=folder, pty=True)
                continue
            line, wanted = program.ask
            answer = process.ask(line, 10)
            count.answers += (answer.plain if pty else answer.text) == wanted
            if (answer.plain if pty else answer.text) != wanted:
                print(name, pty, repr(answer.text), repr(answer.plain))
            # Not by a single look, which at several threads may be too short beside busy programs.
            before = process.wait_for_input(10) is True
            process.send_line(program.busy)
            begin = time.monotonic()
            found = []
            while time.monotonic() - begin < 0.1:
                found.append(process.waiting_for_input)
            count.wrong += True in found
            count.evidence += before and process.wait_for_input(20) is True
    return count


CHANNELS = [pytest.param(False, id="pipe"), pytest.param(True, id="pty")]


@pytest.mark.parametrize("pty", CHANNELS)
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in ("psql", "IPython")])
def test_p34_programs_wait_when_they_do(name, pty, tmp_path):
    """And answer exactly."""
    count = judge(name, tmp_path, pty=pty, times=2)
    assert count.wrong == 0
    assert count.evidence == 2
    assert count.answers == (0 if PROGRAMS[name].keys else 2)


PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "programs.md"
INTRODUCTION = """# Programs and their turns

What `waiting_for_input` and `ask` were seen to do with real programs. "waits": how often it was said rightly that the
program waited for input, after it had been busy; while it was busy it was never said (a single wrong "it waits" fails
the test). "answer": how often the answer of `ask` was exactly what was expected, on a terminal as `Output.plain`.
Made by `PROCPOOL_WRITE_DOCS=1 python -m pytest -m stress tests/test_programs.py`.

"""


@pytest.mark.stress
@pytest.mark.timeout(600)
def test_p34_the_table_of_the_docs_is_true(tmp_path):
    """Every program stands in the docs, and what is said there is so."""
    times = 20
    rows = ["| program | on | waits | answer | started as, or why not |", "|---" * 5 + "|"]
    for name, program in PROGRAMS.items():
        for pty in (False, True):
            channel = "terminal" if pty else "pipes"
            if not pty and program.not_on_pipes:
                rows.append(f"| {name} | {channel} | n/a | n/a | {program.not_on_pipes} |")
                continue
            folder = tmp_path / f"{name.split()[0]}-{channel}"
            folder.mkdir()
            try:
                count = judge(name, folder, pty=pty, times=times)
            except pytest.skip.Exception as skipped:
                rows.append(f"| {name} | {channel} | not here | | {skipped.msg} |")
                continue
            assert count.wrong == 0, name
            answers = "takes keys" if program.keys else f"{count.answers} of {times}"
            argv = program.argv if pty or program.pipe is None else program.pipe
            command = " ".join(
                [*(f"{key}={value}" for key, value in program.env.items()), Path(argv[0]).name, *argv[1:]]
            )
            rows.append(f"| {name} | {channel} | {count.evidence} of {times} | {answers} | `{command}` |")
            assert count.evidence == times, rows
            assert program.keys or count.answers == times, rows
    if os.environ.get("PROCPOOL_WRITE_DOCS"):
        PAGE.write_text(INTRODUCTION + "\n".join(rows) + "\n")
    written = [line.split("|")[1].strip() for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
    assert list(dict.fromkeys(written)) == list(PROGRAMS)


def test_vim_writes_a_file(tmp_path):
    """Typed, saved and quit by keys; the file is right."""
    if shutil.which("vim") is None:
        pytest.skip("vim: it is not installed")
    path = tmp_path / "file.txt"
    with procpool.spawn(["vim", "-u", "NONE", "-i", "NONE", "-N", "-n", str(path)], pty=True) as vim:
        assert vim.wait_for_input(20)
        vim.send_keys(
            "i", *"hello", "Enter", *"wordl", "Left", "BSpace", "Right", "d", "BSpace", "BSpace", *"ld", "Escape"
        )
        assert vim.wait_for_input(10)
        in_call, said = Path(f"/proc/{vim.pid}/syscall").read_text(), vim.read(since="").text
        rows = vim.screen().rows
        vim.send_keys(*":wq", "Enter")
        assert vim.wait(10) == 0
    written = tuple(path.read_text().splitlines())
    assert (written[0], written) == ("hello", rows[:2]), f"it waited in {in_call}, said {said!r} and showed {rows}"


def test_less_shows_the_page_after_a_resize(tmp_path):
    """Rows, and the prompt at the bottom."""
    if shutil.which("less") is None:
        pytest.skip("less: it is not installed")
    path = tmp_path / "long"
    path.write_text("".join(f"row {number}\n" for number in range(100)))
    with procpool.spawn(["less", str(path)], pty=True, size=(24, 80)) as less:
        assert less.wait_for_input(20)
        assert less.screen().rows[:23] == tuple(f"row {number}" for number in range(23))
        less.resize(10, 40)
        until(
            lambda: less.wait_for_input(10) and less.screen().rows[:9] == tuple(f"row {n}" for n in range(9)),
            "the page",
        )
        less.send_keys("Space")
        until(
            lambda: less.wait_for_input(10) and less.screen().rows[:9] == tuple(f"row {n}" for n in range(9, 18)),
            "the next",
        )
        less.send_keys("q")
        assert less.wait(10) == 0


def test_a_passphrase_is_asked_on_the_terminal(tmp_path):
    """By the prompt that ssh-keygen writes to /dev/tty; no echo, and the key is there."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen: it is not installed")
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-f", str(tmp_path / "key")]
    with procpool.spawn(argv, pty=True) as keygen:
        assert keygen.wait_for_input(20)
        assert keygen.read().partial.stdout.startswith("Enter passphrase")
        assert keygen.ask("secret phrase").plain.strip() == "Enter same passphrase again:"
        last = keygen.ask("secret phrase")
        assert (last.plain.strip(), last.alive, last.returncode) == ("", False, 0)
    assert (tmp_path / "key").exists()
