"""Ctrl-C at any instruction, in fresh interpreters: nothing is left, nothing is stuck."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys

import pytest

from conftest import CHILD

STARTS = """
import os, random, signal, sys, threading, time
sys.path[:0] = [{tests!r}, {tests!r} + "/system"]
import procpool
from conftest import until
from matrix import living

def fds():
    found = {{}}
    for fd in os.listdir("/proc/self/fd"):
        try: found[fd] = os.readlink("/proc/self/fd/" + fd)
        except OSError: pass
    return found

signal.signal(signal.SIGALRM, signal.default_int_handler)
program = {program!r}
chance = random.Random({seed})
manager = procpool.ProcessManager(max_per_agent=None, guardian={guardian})
manager.spawn("a", "cat").kill()
before = fds()
interrupted = 0
for _ in range({times}):
    try:
        # A start takes about a millisecond; Ctrl-C may come at any moment of it.
        signal.setitimer(signal.ITIMER_REAL, chance.random() * 0.0015 + 1e-6)
        process = manager.spawn("a", [sys.executable, "-S", "-E", program, "wait"])
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupted += 1
signal.setitimer(signal.ITIMER_REAL, 0)
assert interrupted > {times} / 10, interrupted
listed = {{info.pid for info in manager.list()}}
until(lambda: not set(living(program)) - listed, "no process that nobody knows")
until(lambda: manager._pool.total == manager.count(), f"{{manager._pool.total}} slots, {{manager.count()}} processes")
manager.close()
assert not living(program) and not manager._pool.total
threads = lambda: [t.name for t in threading.enumerate() if t.name.startswith("procpool")]
until(lambda: not threads(), f"no thread of {{threads()}}")
# Popen's own pipe may stay, if Ctrl-C comes before Popen has a name for it.
left = [link for fd, link in fds().items() if fd not in before]
assert all(link.startswith("pipe:") for link in left) and len(left) < 2 + {times} / 10, left
print("nothing left")
"""


def run(script: str, timeout: float, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    command = [sys.executable, "-W", "ignore", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("guardian", [True, False])
@pytest.mark.parametrize("times", [100, pytest.param(2000, marks=pytest.mark.stress)])
def test_p35_an_interrupted_start_leaves_nothing(system, guardian, times, tmp_path):
    """No process, slot, thread or fd, wherever in the start Ctrl-C came."""
    program = str(shutil.copy(CHILD, tmp_path / "witness.py"))
    seed = random.randrange(10**6)
    script = STARTS.format(tests=os.path.dirname(CHILD), program=program, seed=seed, guardian=guardian, times=times)
    done = run(script, 110)
    assert done.stdout == "nothing left\n", f"seed {seed}\n{done.stderr}"
