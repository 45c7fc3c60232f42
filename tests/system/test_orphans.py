"""Orphans: found and ended from the marks alone, and nobody else is touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_matrix import in_namespace, run_in_namespace

import procpool
from conftest import CHILD, child, is_alive, living, until


def of_owner(pid: int) -> list[procpool.Orphan]:
    """Find what one owner left behind: these tests touch no orphan of anybody else."""
    return [orphan for orphan in procpool.find_orphans() if orphan.owner_pid == pid]


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
    procpool.sweep_orphans(of_owner(owner.pid), grace=0.1)
    until(lambda: not living(program), "the end of the orphans")


def test_p17_orphans_are_found_and_swept(orphans):
    """The daemon, too; afterwards there are none."""
    program, owner = orphans
    found = of_owner(owner)
    assert sorted(orphan.pid for orphan in found) == sorted(living(program))
    assert all(program in orphan.command for orphan in found)
    assert found[0].to_dict()["owner_pid"] == owner
    swept = procpool.sweep_orphans(found, grace=1)
    assert swept == found
    assert not living(program)
    assert of_owner(owner) == []


def test_p17_the_trees_of_the_living_are_left_alone(manager):
    """Ours, of which the owner is this very process."""
    process = manager.spawn("a", child("out:up\\n", "wait"))
    process.expect("up", 5)
    assert of_owner(os.getpid()) == []
    process_itself = procpool.Orphan(process.pid, "", os.getpid(), process._child.tree.token.decode())
    assert procpool.sweep_orphans([process_itself], grace=0.1) == []
    assert is_alive(process.pid)


def test_p17_the_caller_s_own_tree_is_no_orphan(tmp_path):
    """A program that runs in an orphaned tree may sweep without ending itself, or what stands beside it."""
    program = str(shutil.copy(CHILD, tmp_path / "witness.py"))
    start = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    namespace = os.stat("/proc/self/ns/pid").st_ino
    mark = f"{namespace}.{os.getpid()}.{start + 1}.x.1"  # of an owner whose pid is used again: by us
    env = {**os.environ, "PROCPOOL_ID": mark}
    other = subprocess.Popen([sys.executable, "-S", "-E", program, "wait"], env=env)
    script = f"import procpool; print({mark!r} in [o.mark for o in procpool.find_orphans()])"
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=15)
    assert done.stdout == "False\n", done.stderr
    assert is_alive(other.pid)
    found = [orphan for orphan in procpool.find_orphans() if orphan.mark == mark]
    assert [orphan.pid for orphan in found] == [other.pid]
    procpool.sweep_orphans(found, grace=1)
    assert other.wait(5) == -15


@pytest.mark.parametrize("mark", ["x", "1.2.3", "a.b.c.d.e", "0.1.0.x.1", ":", "1.1.1.1.1:..."])
def test_p17_what_is_no_mark_of_ours_proves_nothing(mark):
    """Another namespace, PID 1, or just words."""
    stranger = subprocess.Popen(["sleep", "60"], env={**os.environ, "PROCPOOL_ID": mark})
    until(lambda: b"sleep" in Path(f"/proc/{stranger.pid}/cmdline").read_bytes(), "the exec")
    assert stranger.pid not in [orphan.pid for orphan in procpool.find_orphans()]
    stranger.terminate()
    stranger.wait()


@in_namespace
def test_the_command_line_sweeps():
    """`procpool sweep --dry-run` only tells; in a pid namespace, where all orphans are ours."""
    script = """
import os, subprocess, sys
owner = (
    "import os, procpool, signal; m = procpool.ProcessManager(guardian=False); m.start('a', 'sleep', ['60']);"
    "os.kill(os.getpid(), signal.SIGKILL)"
)
subprocess.run([sys.executable, "-c", owner])
for words in (["sweep", "--dry-run"], ["sweep"], ["sweep"]):
    done = subprocess.run([sys.executable, "-m", "procpool", *words], capture_output=True, text=True)
    print(done.returncode, done.stdout.splitlines()[-1], len(done.stdout.splitlines()), done.stderr)
"""
    done = run_in_namespace("-c", script)
    assert done.stdout.split("\n") == ["0 1 found 2 ", "0 1 swept 2 ", "0 0 swept 1 ", ""], done.stderr


@pytest.mark.parametrize(("grace", "error"), [(-1, ValueError), (None, TypeError), (float("inf"), ValueError)])
def test_wrong_graces_of_a_sweep_are_named(grace, error):
    """And nothing is ended."""
    with pytest.raises(error, match="grace"):
        procpool.sweep_orphans(grace=grace)
