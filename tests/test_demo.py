"""The demo is real: when a step does not do what it should, it fails."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

import procpool
from procpool.adapters import cli


def test_the_demo_runs(capsys):
    """And says what a newcomer should see."""
    assert cli.main(["demo"]) == 0
    said = capsys.readouterr().out
    for part in (
        "REPL says: 42",
        "serves: hello from procpool",
        "proc_3",
        "already has 2 processes (max: 2)",
        "left: []",
    ):
        assert part in said


def break_answer(monkeypatch):
    monkeypatch.setattr(procpool.Agent, "ask", lambda self, id, line: self[id].ask("6 * 7 - 1"))


def break_page(monkeypatch):
    monkeypatch.setattr(cli.Path, "write_text", lambda self, text: None)


def break_family(monkeypatch):
    monkeypatch.setattr(cli, "FAMILY", "print('member 999999\\n' * 3, flush=True); import time; time.sleep(60)")


def break_list(monkeypatch):
    monkeypatch.setattr(procpool.ProcessManager, "list", lambda self, agent_id=None: [])


def break_limit(monkeypatch):
    monkeypatch.setattr(
        procpool.ProcessManager, "start", lambda self, *a, **k: self.spawn(f"x{os.urandom(4).hex()}", *a[1:], **k).id
    )


def break_kill(monkeypatch):
    monkeypatch.setattr(procpool.Agent, "kill", lambda self, id: "not killed")


@pytest.mark.parametrize("step", [break_answer, break_page, break_family, break_list, break_limit, break_kill])
def test_each_step_can_fail(step, monkeypatch, capsys):
    """Broken once, it ends with another exit code than 0."""
    step(monkeypatch)
    assert cli.main(["demo"]) == 1
    assert "the demo failed" in capsys.readouterr().err


def test_the_command_line():
    """`python -m procpool`, and what it says about itself."""
    done = subprocess.run([sys.executable, "-m", "procpool", "--version"], capture_output=True, text=True, timeout=15)
    assert done.stdout == f"procpool {procpool.__version__}\n"
    done = subprocess.run([sys.executable, "-m", "procpool"], capture_output=True, text=True, timeout=15)
    assert done.returncode == 2
    assert "COMMAND" in done.stderr
    assert psutil.Process().children() == []


@pytest.mark.parametrize("full", [False, True])
def test_output_that_nobody_takes_is_the_end_and_no_traceback(full):
    """`| head -1`, and a full disk."""
    command = [sys.executable, "-OO", "-m", "procpool", "demo"]
    with open("/dev/full", "w") as target:
        demo = subprocess.Popen(
            command,
            stdout=target if full else subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        if demo.stdout is not None:
            demo.stdout.readline()
            demo.stdout.close()
        assert demo.stderr is not None
        said = demo.stderr.read()
        demo.stderr.close()
        assert demo.wait(15) == 1
    assert "Traceback" not in said
    assert ("No space left" in said) == full
