"""The kill matrix: no member of any tree survives, by a witness that is not procpool."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from conftest import until
from procpool.system import linux

HERE = Path(__file__).parent
CASES = (
    "childless", "child", "grandchild", "own session", "daemon", "daemon, root exited", "tree of 100", "ignores TERM",
    "stopped", "forks at TERM", "spawner", "hopper", "hopper, setsid",
)  # fmt: skip


def namespaces() -> bool:
    try:
        command = ["unshare", "-pf", "--mount-proc", "--kill-child", "true"]
        return subprocess.run(command, capture_output=True, timeout=10).returncode == 0
    except FileNotFoundError:
        return False


in_namespace = pytest.mark.skipif(not namespaces(), reason="pid namespaces are not permitted here (unshare -pf)")


def run_in_namespace(*words: str, timeout: float = 85, prefix: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run a Python program in a pid namespace of its own, below an init that reaps."""
    command = ["unshare", "-pf", "--mount-proc", "--kill-child", sys.executable, str(HERE / "init.py")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command += [*prefix, sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env)


# An ordinary user, but that he may read where the interpreter lives, which may be in root's home.
AS_NOBODY = [
    "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all,+dac_read_search",
    "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search",
]  # fmt: skip
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become nobody (setpriv)")


@functools.cache
def survivors(way: str, user: str, rounds: int, cases: Sequence[str]) -> dict[str, list[int]]:
    """End trees of all these kinds in one way, one after the other in one namespace: how many survive each round."""
    folder = tempfile.mkdtemp(prefix="procpool-")  # where any user may write
    try:
        os.chmod(folder, 0o777)
        words = [str(HERE / "matrix.py"), way, str(rounds), folder, *cases]
        done = run_in_namespace(*words, prefix=AS_NOBODY if user == "nobody" else [])
    finally:
        shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@in_namespace
@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    ("user", "busy", "rounds"),
    [
        ("root", False, 1),
        pytest.param("root", False, 10, marks=pytest.mark.stress),
        pytest.param("root", True, 5, marks=pytest.mark.stress),
        pytest.param("nobody", False, 10, marks=[pytest.mark.stress, as_root]),
        pytest.param("nobody", True, 5, marks=[pytest.mark.stress, as_root]),
    ],
)
@pytest.mark.parametrize("case", CASES)
def test_p01_no_member_survives(case, user, busy, rounds):
    """On Linux: daemons, spawners and hoppers included; nothing is born any more, either. In a busy owner, too."""
    way = "procpool, busy" if busy else "procpool"
    assert survivors(way, user, rounds, CASES)[case] == [0] * rounds


HARD = ("daemon, root exited", "hopper, setsid")


@in_namespace
@as_root
@pytest.mark.parametrize("case", HARD)
def test_p01_an_ordinary_user_s_trees_end_as_well(case):
    """Hard cases, as nobody; the others are run under stress."""
    assert survivors("procpool", "nobody", 1, HARD)[case] == [0]


PAGE = HERE.parents[1] / "docs" / "explanation" / "kill-matrix.md"
INTRODUCTION = """# The kill matrix

How many members of a tree are alive, or still being born, after it was ended in one of four ways: by a witness that
is none of them, in a pid namespace of its own. `psutil` is `kill()` for every one of `children(recursive=True)` and the
root. Made by `PROCPOOL_WRITE_DOCS=1 python -m pytest -m stress tests/system/test_matrix.py -k docs`.

"""


@in_namespace
@pytest.mark.stress
@pytest.mark.timeout(600)
def test_p02_the_kill_matrix_of_the_docs_is_true():
    """Every case stands in the docs, and procpool's column is zero there and here."""
    ways = ["Popen.kill", "killpg", "psutil", "procpool"]
    rows = [f"| tree | {' | '.join(ways)} |", "|---" * 5 + "|"]
    for case in CASES:
        counts = [survivors(way, "root", 1, (case,))[case][0] for way in ways]
        assert counts[-1] == 0
        rows.append(f"| {case} | {' | '.join(map(str, counts))} |")
    if os.environ.get("PROCPOOL_WRITE_DOCS"):
        PAGE.write_text(INTRODUCTION + "\n".join(rows) + "\n")
    written = [line.split("|") for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
    assert [cells[1].strip() for cells in written] == list(CASES)
    assert {cells[5].strip() for cells in written} == {"0"}


REUSE = """
import os, signal, subprocess, sys, time
import procpool
from procpool.system import linux, portable

def give(pid):
    for _ in range(50):  # a thread of ours may take a number
        with open("/proc/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(pid - 1))
        innocent = subprocess.Popen(["sleep", "60"], start_new_session=True)
        if innocent.pid == pid:
            return innocent
        innocent.kill()
        innocent.wait()
    raise AssertionError((innocent.pid, pid))

with procpool.ProcessManager(guardian=False) as manager:
    for _ in range(5):
        process = manager.spawn("a", "true")
        process.wait(5)
        while not process._child.empty:
            time.sleep(0.001)
        innocent = give(process.pid)
        process.send_signal(signal.SIGKILL)
        process.interrupt()
        process.terminate()
        process.kill(grace=0.1)
        assert innocent.poll() is None
        entry = linux.look(innocent.pid)
        for system in (linux, portable):
            assert not system.send(system.look(innocent.pid)._replace(start=0.0), signal.SIGKILL)
        assert innocent.poll() is None
        innocent.kill()
        innocent.wait()
    # A root that exited stays a zombie while its tree lives: its pid, group and session cannot be given away.
    process = manager.spawn("a", ["sh", "-c", "sleep 60 & echo up"])
    process.expect("up", 5)
    process.wait(5)
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(process.pid - 1))
    innocent = subprocess.Popen(["sleep", "60"], start_new_session=True)
    assert innocent.pid != process.pid
    assert process.kill().survivors == ()
    assert innocent.poll() is None
    innocent.kill()
    innocent.wait()
print("nobody was hit")
"""


STRANGERS = """
import os, signal, subprocess, sys, threading, time
import procpool
from procpool.system import linux

reaper = sys.argv[1] == "reaper"
if not reaper:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for verb in ("send_signal", "interrupt", "terminate", "kill", "close"):
    manager = procpool.ProcessManager(guardian=verb == "kill")
    process = manager.spawn("a", ["sh", "-c", "setsid sleep 60 & echo $!; sleep 0.1"])
    member = int(process.expect(r"^\\d+", 5)[0])
    member = linux.look(member)
    process.wait(5)
    if reaper:
        os.waitpid(process.pid, 0)
    while os.path.exists(f"/proc/{process.pid}"):
        time.sleep(0.001)
    for _ in range(50):  # a thread of ours may take a number
        with open("/proc/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(process.pid - 1))
        innocent = subprocess.Popen(["sleep", "60"], start_new_session=True)
        if innocent.pid == process.pid:
            break
        os.kill(innocent.pid, signal.SIGKILL)
    assert innocent.pid == process.pid
    if verb == "send_signal":
        process.send_signal(signal.SIGTERM)
    elif verb == "kill":
        assert process.kill(grace=0.1).pids == (member.pid,)
    else:
        getattr(manager if verb == "close" else process, verb)()
    manager.close()
    with open(f"/proc/{innocent.pid}/stat") as file:
        assert file.read().split()[2] not in "ZX", verb
    left = linux.look(member.pid)
    assert left is None or left.dead or left.start != member.start, verb
    os.kill(innocent.pid, signal.SIGKILL)
print("nobody was hit")
"""


STRANGERS_AT_A_LOOK = """
import os, signal, subprocess, sys, time
import procpool
from procpool.system import linux

class Strangers:
    \"""The system; between two of its answers the root is reaped, and its number given away.\"""

    armed = False

    def __getattr__(self, name):
        return getattr(linux, name)

    def newest_pid(self):
        if self.armed:
            self.armed = False
            os.waitpid(process.pid, 0)
            for _ in range(50):  # a thread of ours may take a number
                with open("/proc/sys/kernel/ns_last_pid", "w") as file:
                    file.write(str(process.pid - 1))
                self.innocent = subprocess.Popen(["sleep", "60"], start_new_session=True)
                if self.innocent.pid == process.pid:
                    break
                self.innocent.kill()
        return linux.newest_pid()

with procpool.ProcessManager(guardian=sys.argv[2] == "guardian") as manager:
    manager._pool.system = system = Strangers()
    process = manager.spawn("a", ["sh", "-c", "setsid sleep 60 & echo $!; read line"])
    member = int(process.expect(r"^\\d+", 5)[0])
    while linux.look(member).session != member:
        time.sleep(0.001)
    if sys.argv[1] == "look":
        system.armed = True
    process.send_line()
    process.wait(5)
    while not process._child.empty and not process._child.looked_at:
        time.sleep(0.001)
    system.armed = sys.argv[1] == "kill"
    exit = process.kill(grace=0.1)
    assert not system.armed and system.innocent.pid == process.pid
    left = linux.look(member)
    assert left is None or left.dead, exit  # init may reap it between two looks
    assert exit.pids == (member,), exit
    assert system.innocent.poll() is None
    system.innocent.kill()
print("nobody was hit")
"""


SUBREAPER = """
import ctypes, os, time
import procpool
from procpool.system import linux

PR_SET_CHILD_SUBREAPER = 36
assert os.getpid() == 2
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
with procpool.ProcessManager(guardian=False) as manager:
    process = manager.spawn("a", ["sh", "-c", "(setsid sleep 60 & echo $!); read line"])
    member = int(process.expect(r"^\\d+", 5)[0])
    while linux.look(member).session != member or linux.look(member).parent != 2:
        time.sleep(0.001)
    exit = process.kill(grace=0.1)
    assert exit.pids == (process.pid, member), exit
    left = linux.look(member)
    assert left is None or left.dead
print("nobody was left")
"""


EXECS = """
import os, subprocess, sys, time
import procpool
from procpool.system import linux, tree

SPIN = "import time\\nend = time.monotonic() + 60\\nwhile time.monotonic() < end: pass"
LOOP = 'test "$1" -gt 30000 || exec sh "$0" $(($1 + 1))'  # not for ever
path, seconds = sys.argv[1], float(sys.argv[2])
with open(path, "w") as file:
    file.write(LOOP)
busy = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(3)]
looks = missed = 0
end = time.monotonic() + seconds
with procpool.ProcessManager(guardian=False) as manager:
    while time.monotonic() < end:
        process = manager.spawn("a", ["sh", "-c", '(setsid sh "$0" 0 & echo $!); read line', path])
        member = int(process.expect(r"^\\d+", 5)[0])
        while linux.look(member).session != member or linux.look(member).parent != 1:
            time.sleep(0.001)
        for _ in range(200):
            one = process._child.tree.copy()
            one.seen = {}  # by its mark alone
            found = tree.survey([one], linux, linux.fork_count())
            looks += 1
            missed += member not in (entry.pid for entry in found[one])
        assert member in process.kill(grace=0.1).pids
for process in busy:
    process.kill()
print(looks > 100, missed)
"""


WRAP = """
import procpool
from procpool.system import linux

with procpool.ProcessManager(guardian=False) as manager:
    with open("/proc/sys/kernel/pid_max") as file:
        last = int(file.read()) - 1
    for _ in range(50):  # a thread of ours may take a number
        with open("/proc/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(last - 1))
        old = manager.spawn("a", ["sh", "-c", "sleep 60 & echo $!; exec sleep 60"])
        child = int(old.expect(r"^\\d+", 5)[0])
        if old.pid == last:
            break
        old.kill()
    new = manager.spawn("a", ["sleep", "60"])
    assert child < new.pid < old.pid, (child, new.pid, old.pid)
    exits = manager.kill_all()
    left = linux.look(child)
    assert left is None or left.dead, "it was left behind"  # init may not have reaped it yet
    assert exits[old.id].pids == tuple(sorted((child, old.pid))), exits
print("nobody was left")
"""


@in_namespace
@pytest.mark.skipif(os.getuid() != 0, reason="only root may choose the next pid (ns_last_pid)")
@pytest.mark.parametrize("half", ["linux", "portable"])
def test_p01_pids_that_start_again_at_the_bottom_hide_nobody(half, monkeypatch):
    """The root has the last number there is, its child the first one, and another root the one after."""
    monkeypatch.setenv("PROCPOOL_SYSTEM", half)
    done = run_in_namespace("-c", WRAP)
    assert done.stdout == "nobody was left\n", done.stderr


@in_namespace
@pytest.mark.skipif(os.getuid() != 0, reason="only root may choose the next pid (ns_last_pid)")
@pytest.mark.parametrize("half", ["linux", "portable"])
def test_p06_no_reuse_of_a_number_redirects_a_signal(half, monkeypatch):
    """The pid of a process that is gone is given to somebody else, and then every verb is called."""
    monkeypatch.setenv("PROCPOOL_SYSTEM", half)
    done = run_in_namespace("-c", REUSE)
    assert done.stdout == "nobody was hit\n", done.stderr


@in_namespace
@pytest.mark.skipif(os.getuid() != 0, reason="only root may choose the next pid (ns_last_pid)")
@pytest.mark.parametrize("who", ["reaper", "nobody"])
def test_p06_nor_does_one_of_a_root_that_a_stranger_reaped(who):
    """1 a root exits, a member in a session of its own lives on; 2 somebody else (or the kernel, at once) reaps the root.

    3 its number is given away; 4 a verb is called: the member is ended, and nobody else. By its mark alone.
    """
    done = run_in_namespace("-c", STRANGERS, who)
    assert done.stdout == "nobody was hit\n", done.stderr


@in_namespace
@pytest.mark.skipif(os.getuid() != 0, reason="only root may choose the next pid (ns_last_pid)")
@pytest.mark.parametrize("guardian", ["guardian", "none"])
@pytest.mark.parametrize("when", ["look", "kill"])
def test_p01_nor_is_anybody_lost_if_that_happens_within_a_look(when, guardian):
    """1 a look finds the root dead; 2 a stranger reaps it, and its number is given away; 3 it is the newest: no member?"""
    done = run_in_namespace("-c", STRANGERS_AT_A_LOOK, when, guardian)
    assert done.stdout == "nobody was hit\n", done.stderr


@in_namespace
@pytest.mark.timeout(60)
@pytest.mark.parametrize("seconds", ["2", pytest.param("30", marks=pytest.mark.stress)])
def test_p01_a_daemon_that_becomes_another_program_all_the_time_is_seen(seconds, tmp_path):
    """Its environment reads empty in the middle of each exec, which beside busy programs takes as long as it likes."""
    done = run_in_namespace("-c", EXECS, str(tmp_path / "loop"), seconds)
    assert done.stdout == "True 0\n", done.stdout + done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="marks are read on Linux alone")
def test_p01_an_empty_environment_is_one():
    """Once the exec is over nobody waits for more."""
    empty = subprocess.Popen(["sleep", "20"], env={})
    try:
        until(lambda: linux.mark(empty.pid) is not None, "it is said to become another program")
        assert linux.mark(empty.pid) == b""
    finally:
        empty.kill()
        empty.wait()


@in_namespace
def test_p01_pid_2_is_not_always_the_kernels():
    """In a pid namespace it may be the owner, and the parent of daemons. They are known by their marks alone."""
    done = run_in_namespace("-c", SUBREAPER)
    assert done.stdout == "nobody was left\n", done.stderr
