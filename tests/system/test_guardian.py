"""The guardian: nothing outlives the owner, however it ends."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

import procpool
from conftest import CHILD, fork, guardians, is_alive, living, until

BOUND_SECS = 3.0

OWNER = """
import ctypes, json, os, signal, sys, threading, time
sys.path.insert(0, {tests!r})
import procpool
program = {program!r}
argv = [sys.executable, "-S", "-E", program]
manager = procpool.ProcessManager({options})
daemon = "daemon:" + json.dumps(["out:up\\\\n", "wait"])
own = "fork:" + json.dumps(["setsid", "ignore:SIGTERM", "out:up\\\\n", "wait"])
process = manager.spawn("a", argv + [daemon, own, "out:up\\\\n", "wait"])
for _ in range(3): process.expect("up", 10)
gone = manager.spawn("a", argv + [daemon, "exit:0"])
gone.expect("up", 10); gone.wait(10)
print("ready", flush=True)
"""

DEATHS = {
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "SIGINT at default": "signal.signal(signal.SIGINT, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGINT)",
    "SIGSEGV": "os.kill(os.getpid(), signal.SIGSEGV)",
    "abort": "os.abort()",
    "os._exit": "os._exit(0)",
    "exec": "os.execv('/bin/sleep', ['sleep', '8'])",
    "sys.exit": "sys.exit(0)",
    "exception": "raise SystemError('boom')",
    "a fork holds its socket": "os.fork() and os.kill(os.getpid(), signal.SIGKILL); time.sleep(8); os._exit(0)",
    "in a thread": "threading.Thread(target=lambda: os.kill(os.getpid(), signal.SIGKILL)).start(); time.sleep(9)",
}


def start_owner(tmp_path, ending: str, options: str = "") -> tuple[subprocess.Popen, str]:
    """Start an owner with two trees of a private copy of the child program, and have it end."""
    program = shutil.copy(CHILD, tmp_path / "witness.py")
    script = OWNER.format(program=str(program), tests=os.path.dirname(CHILD), options=options) + ending
    owner = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return owner, str(program)


@pytest.mark.parametrize("death", DEATHS)
def test_p11_nothing_outlives_the_owner(death, tmp_path):
    """Own sessions and daemons included, also of a tree whose root had exited."""
    owner, program = start_owner(tmp_path, DEATHS[death], "grace=0.1")
    assert owner.stdout.readline() == "ready\n"
    until(lambda: not living(program), "the end of the trees", BOUND_SECS)
    if death == "exec":
        owner.kill()
    owner.wait(10)
    owner.stdout.close()


@pytest.mark.timeout(200)
@pytest.mark.parametrize("owners", [3, pytest.param(25, marks=pytest.mark.stress)])
def test_p11_owners_killed_while_they_start_processes(owners, tmp_path):
    """SIGKILL at a random moment of twenty starts in two threads: none escapes."""
    program = str(shutil.copy(CHILD, tmp_path / "witness.py"))
    script = f"""
import json, sys, threading
import procpool
argv = [sys.executable, "-S", "-E", {program!r}, "daemon:" + json.dumps(["wait"]), "wait"]
manager = procpool.ProcessManager(max_per_agent=None)
def start():
    for _ in range(10): manager.start("a", argv)
threads = [threading.Thread(target=start) for _ in range(2)]
print("go", flush=True)
for thread in threads: thread.start()
for thread in threads: thread.join()
threading.Event().wait(20)
"""
    for _ in range(owners):
        owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        owner.stdout.readline()
        time.sleep(random.uniform(0, 0.08))  # the moment of death is what is varied
        owner.kill()
        owner.wait()
        owner.stdout.close()
        until(lambda: not living(program), "the end of the trees", BOUND_SECS)
        until(lambda pid=owner.pid: not guardians(pid), "the end of the guardian", 5)


def test_p11_a_manager_without_a_guardian_says_so_and_starts_none(tmp_path):
    """`guardian=False`: nobody is there, and a normal end still ends everything."""
    with procpool.ProcessManager(guardian=False) as manager:
        manager.start("a", "cat")
        assert not guardians(os.getpid())
    owner, program = start_owner(tmp_path, "sys.exit(0)", "guardian=False, grace=0.1")
    assert owner.stdout.readline() == "ready\n"
    owner.wait(10)
    owner.stdout.close()
    assert not living(program)


def test_p09_the_guardian_is_no_child_of_ours_and_goes_when_it_is_not_needed():
    """A host that waits for any child never meets it."""
    manager = procpool.ProcessManager()
    process = manager.start("a", "cat")
    helper = until(lambda: guardians(os.getpid()), "a guardian")[0]
    assert helper not in psutil.Process().children(recursive=True)
    assert helper.cwd() == "/"
    assert os.getsid(helper.pid) != os.getsid(0)
    assert "PROCPOOL_ID" not in helper.environ()
    with open(f"/proc/{helper.pid}/fd/0", "rb") as null:
        assert null.name
    assert {os.readlink(f"/proc/{helper.pid}/fd/{n}") for n in range(3)} == {"/dev/null"}
    manager.kill(process)
    until(lambda: not guardians(os.getpid()), "no guardian, without a close")
    manager.start("a", "cat")
    until(lambda: guardians(os.getpid()), "another one")
    manager.close()
    until(lambda: not guardians(os.getpid()), "no guardian after a close")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_p16_a_guardian_that_is_killed_or_stopped_is_replaced(number, tmp_path):
    """Within a second, also where there is one process only; what was started before is guarded again."""
    program = str(shutil.copy(CHILD, tmp_path / "witness.py"))
    script = f"""
import sys, procpool
manager = procpool.ProcessManager()
process = manager.spawn("a", [sys.executable, "-S", "-E", {program!r}, "out:up\\n", "wait"])
process.expect("up", 10)
while manager._pool._guardian.pid is None: process.read(timeout=0.01)
print("ready", flush=True)
process.wait(30)
"""
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout.readline() == "ready\n"
    helper = until(lambda: guardians(owner.pid), "a guardian")[0]
    begin = time.monotonic()
    os.kill(helper.pid, number)
    until(lambda: [g for g in guardians(owner.pid) if g != helper], "another one", 2)
    assert time.monotonic() - begin < 1
    until(lambda: not is_alive(helper.pid), "the end of the old one")
    assert len(living(program)) == 1
    owner.kill()
    owner.wait()
    owner.stdout.close()
    until(lambda: not living(program), "the end of the tree", BOUND_SECS)


def test_p16_a_guardian_has_time_to_answer():
    """However often the housekeeper looks: it is not replaced for an answer that is on its way."""
    with procpool.ProcessManager() as manager:
        manager.start("a", "cat")
        helper = until(lambda: guardians(os.getpid()), "a guardian")[0]
        until(lambda: manager._pool._guardian.pid, "its first word")
        for _ in range(300):
            manager._pool.housekeeper.wake()
        assert guardians(os.getpid()) == [helper]


def test_p16_an_owner_that_dies_while_it_replaces_the_guardian_is_guarded(tmp_path):
    """1 the guardian dies; 2 another one is started; 3 the owner becomes another program before it tells that anything."""
    program = str(shutil.copy(CHILD, tmp_path / "witness.py"))
    script = f"""
import os, signal, sys, threading, procpool
from procpool.system.guardian import Guardian
manager = procpool.ProcessManager()
process = manager.spawn("a", [sys.executable, "-S", "-E", {program!r}, "out:up\\n", "wait"])
process.expect("up", 10)
while manager._pool._guardian.pid is None: process.read(timeout=0.01)
start, started = Guardian.start, threading.Event()
def start_and_hang(*args, **options):
    start(*args, **options)
    started.set()
    threading.Event().wait()
Guardian.start = start_and_hang
os.kill(manager._pool._guardian.pid, signal.SIGKILL)
started.wait(10)
os.execv("/bin/sleep", ["sleep", "60"])
"""
    owner = subprocess.Popen([sys.executable, "-c", script])
    until(lambda: Path(f"/proc/{owner.pid}/cmdline").read_bytes() == b"sleep\00060\0", "the exec")
    until(lambda: not living(program), "the end of the tree", BOUND_SECS)
    owner.kill()
    owner.wait(15)
    until(lambda: not guardians(owner.pid), "the end of the guardian", 5)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_p08_a_guardian_that_dies_or_hangs_at_its_work_holds_up_no_kill(number, tmp_path):
    """The owner then does the rest itself, within the same time."""
    program = str(shutil.copy(CHILD, tmp_path / "witness.py"))
    with procpool.ProcessManager() as manager:
        steps = [fork("ignore:SIGTERM", "out:up\\n", "wait"), "ignore:SIGTERM", "wait"]
        process = manager.spawn("a", [sys.executable, "-S", "-E", program, *steps])
        process.expect("up", 10)
        helper = until(lambda: guardians(os.getpid()), "a guardian")[0]
        until(lambda: manager._pool._guardian.pid, "its first word")
        begin = time.monotonic()
        threading.Timer(0.2, os.kill, (helper.pid, number)).start()
        ended = process.kill(grace=0.5)
        assert time.monotonic() - begin < 0.5 + 2
        assert ended.survivors == ()
        assert ended.escalated
        assert len(ended.pids) == 2
        until(lambda: not is_alive(helper.pid), "the end of the helper", 2)
    assert not living(program)


def test_p17_guardian_and_owner_killed_together_leave_what_the_next_owner_sweeps(tmp_path):
    """The one case in which a tree is left behind, and then its marks are."""
    owner, program = start_owner(tmp_path, "time.sleep(20)")
    assert owner.stdout.readline() == "ready\n"
    helper = until(lambda: guardians(owner.pid), "a guardian")[0]
    owner.send_signal(signal.SIGSTOP)  # else it might start another one in between
    until(lambda: psutil.Process(owner.pid).status() == psutil.STATUS_STOPPED, "the owner's stop")
    os.kill(helper.pid, signal.SIGKILL)
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert len(living(program)) == 4
    mine = [orphan for orphan in procpool.find_orphans() if orphan.owner_pid == owner.pid]
    assert sorted(orphan.pid for orphan in mine) == sorted(living(program))
    procpool.sweep_orphans(mine, grace=0.2)
    assert not living(program)


def test_p01_a_nested_owner_s_trees_end_with_its_own_tree(tmp_path):
    """Also its daemons, and what began a chain of marks of its own below it."""
    program = str(shutil.copy(CHILD, tmp_path / "witness.py"))
    script = f"""
import json, sys, procpool
argv = [sys.executable, "-S", "-E", {program!r}]
inner = procpool.ProcessManager(guardian=False)
process = inner.spawn("a", argv + ["daemon:" + json.dumps(["out:up\\n", "wait"]), "out:up\\n", "wait"])
for _ in range(2): process.expect("up", 10)
print("nested", flush=True)
process.wait(60)
"""
    with procpool.ProcessManager() as outer:
        process = outer.spawn("a", [sys.executable, "-c", script])
        process.expect("nested", 15)
        assert len(living(program)) == 2
        process.send_signal(signal.SIGKILL)  # it has no time to end anything itself
        process.wait(10)
        ended = process.kill()
        assert ended.survivors == ()
        assert not living(program)


KERNEL = """
import sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {tests!r})
from conftest import living, until
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="python3", startup_timeout=30)
try:
    code = (
        "import procpool, sys\\n"
        "process = procpool.spawn([sys.executable, '-S', '-E', {program!r}, 'out:up\\\\n', 'wait'])\\n"
        "process.expect('up', 10)"
    )
    reply = client.execute_interactive(code, timeout=30, output_hook=lambda message: None)
    assert reply["content"]["status"] == "ok", reply
    assert len(living({program!r})) == 1
    {ending}
    until(lambda: not living({program!r}), "the end of the tree", 3)
    print("gone")
finally:
    client.stop_channels()
    if manager.is_alive():
        manager.shutdown_kernel(now=True)
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "ending",
    [
        "manager.restart_kernel(now=False)",
        "manager.shutdown_kernel(now=True)",
        pytest.param("manager.restart_kernel(now=True)", marks=pytest.mark.stress),
        pytest.param("manager.shutdown_kernel(now=False)", marks=pytest.mark.stress),
    ],
)
def test_p11_a_kernel_that_ends_takes_its_trees_along(ending, tmp_path):
    """A real notebook kernel, by jupyter_client: restarted, shut down, killed."""
    program = str(shutil.copy(CHILD, tmp_path / "witness.py"))
    tests = [os.path.dirname(CHILD), os.path.dirname(__file__)]
    script = KERNEL.format(tests=tests[0], program=program, ending=ending)
    script = script.replace("import sys, warnings", f"import sys, warnings; sys.path[:0] = {tests!r}")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    assert done.stdout == "gone\n", done.stderr
