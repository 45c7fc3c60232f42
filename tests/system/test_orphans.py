"""Orphans: found and ended from the marks alone, and nobody else is touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from matrix import living

import procpool
from conftest import CHILD, child, is_alive, until
from procpool.adapters import cli


@pytest.fixture
def orphans(tmp_path):
    """Leave a tree with a daemon behind: an owner without a guardian is killed. Returns the program's path."""
    program = str(shutil.copy(CHILD, tmp_path / "witness.py"))
    script = f"""
import json, os, signal, sys
import procpool
manager = procpool.ProcessManager(guardian=False)
daemon = "daemon:" + json.dumps(["out:up\\\\n", "wait"])
process = manager.spawn("a", [sys.executable, "-S", "-E", {program!r}, daemon, "out:up\\\\n", "wait"])
for _ in range(2): process.expect("up", 10)
os.kill(os.getpid(), signal.SIGKILL)
"""
    owner = subprocess.Popen([sys.executable, "-c", script])
    owner.wait(15)
    assert len(living(program)) == 2
    yield program, owner.pid
    procpool.sweep_orphans(grace=0.1)
    until(lambda: not living(program), "the end of the orphans")


def test_p17_orphans_are_found_and_swept(orphans):
    """The daemon, too; afterwards there are none."""
    program, owner = orphans
    found = [orphan for orphan in procpool.find_orphans() if orphan.owner_pid == owner]
    assert sorted(orphan.pid for orphan in found) == sorted(living(program))
    assert all(program in orphan.command for orphan in found)
    assert found[0].to_dict()["owner_pid"] == owner
    swept = procpool.sweep_orphans(grace=1)
    assert set(found) <= set(swept)
    assert not living(program)
    assert not [orphan for orphan in procpool.find_orphans() if orphan.owner_pid == owner]


def test_p17_the_trees_of_the_living_are_left_alone(manager):
    """Ours, of which the owner is this very process."""
    process = manager.spawn("a", child("out:up\\n", "wait"))
    process.expect("up", 5)
    procpool.sweep_orphans(grace=0.1)
    assert is_alive(process.pid)


def test_p17_the_caller_s_own_tree_is_left_alone(tmp_path):
    """A program that runs in an orphaned tree may sweep without ending itself."""
    program = str(shutil.copy(CHILD, tmp_path / "witness.py"))
    start = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    namespace = os.stat("/proc/self/ns/pid").st_ino
    mark = f"{namespace}.{os.getpid()}.{start + 1}.x.1"  # of an owner whose pid is used again: by us
    env = {**os.environ, "PROCPOOL_ID": mark}
    other = subprocess.Popen([sys.executable, "-S", "-E", program, "wait"], env=env)
    script = "import procpool; print([o.mark for o in procpool.find_orphans()], len(procpool.sweep_orphans()))"
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=15)
    assert done.stdout == "[] 0\n", done.stderr
    assert is_alive(other.pid)
    assert mark in [orphan.mark for orphan in procpool.find_orphans()]
    procpool.sweep_orphans(grace=1)
    assert other.wait(5) == -15


@pytest.mark.parametrize("mark", ["x", "1.2.3", "a.b.c.d.e", "0.1.0.x.1", ":", "1.1.1.1.1:..."])
def test_p17_what_is_no_mark_of_ours_proves_nothing(mark):
    """Another namespace, PID 1, or just words."""
    stranger = subprocess.Popen(["sleep", "60"], env={**os.environ, "PROCPOOL_ID": mark})
    until(lambda: b"sleep" in Path(f"/proc/{stranger.pid}/cmdline").read_bytes(), "the exec")
    assert stranger.pid not in [orphan.pid for orphan in procpool.find_orphans()]
    stranger.terminate()
    stranger.wait()


def test_the_command_line_sweeps(orphans, capsys):
    """`procpool sweep --dry-run` only tells."""
    program, owner = orphans
    assert cli.main(["sweep", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"of dead owner {owner}" in said
    assert "found" in said
    assert len(living(program)) == 2
    assert cli.main(["sweep"]) == 0
    assert "swept" in capsys.readouterr().out
    assert not living(program)


@pytest.mark.parametrize(("grace", "error"), [(-1, ValueError), (None, TypeError), (float("inf"), ValueError)])
def test_wrong_graces_of_a_sweep_are_named(grace, error):
    """And nothing is ended."""
    with pytest.raises(error, match="grace"):
        procpool.sweep_orphans(grace=grace)
