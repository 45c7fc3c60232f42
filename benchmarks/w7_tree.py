"""W7: find and end a tree of 100 among 2000 other processes, until all are dead."""

from __future__ import annotations

import os
import select
import signal
import statistics
import subprocess
import sys
import time

from benchmarks.common import Figures, Goal, Row, Spin, Variant, main, nothing_left

QUICK, FULL = 2, 5  # trees
STRANGERS = 1900
MEMBERS = 99  # and the root
TREE = f"""
import os, signal, time
signal.alarm(100)
for _ in range({MEMBERS}):
    if os.fork() == 0:
        signal.alarm(100)
        print("up", flush=True)
        time.sleep(99)
        os._exit(0)
time.sleep(99)
"""
ARGV = [sys.executable, "-S", "-E", "-c", TREE]
# Strangers, which end with the pipe that they read from.
STRANGER = f"""
import os
for _ in range({STRANGERS}):
    if os.fork() == 0:
        os.read(0, 1)
        os._exit(0)
print("up", flush=True)
os.read(0, 1)
"""


def among_strangers(work: object) -> object:
    """Have a variant run beside the other processes."""

    def run(rounds: int) -> Figures:
        argv = [sys.executable, "-S", "-E", "-c", STRANGER]
        strangers = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        strangers.stdout.readline()
        try:
            return work(rounds)
        finally:
            strangers.stdin.close()
            strangers.wait()
            strangers.stdout.close()

    return run


def procpool(rounds: int) -> Figures:
    from procpool import ProcessManager
    from procpool.system import tree

    finds, ends = [], []
    with ProcessManager() as manager:
        for _ in range(rounds):
            process = manager.spawn("a", ARGV)
            for _ in range(MEMBERS):
                process.expect("up")
            begin = time.perf_counter()
            living = tree.alive([process._child.tree.copy()], manager._pool.system)
            finds.append(time.perf_counter() - begin)
            assert [len(members) for members in living.values()] == [1 + MEMBERS]
            begin = time.perf_counter()
            ended = process.kill()
            ends.append(time.perf_counter() - begin)
            assert len(ended.pids) == 1 + MEMBERS, len(ended.pids)
            assert not ended.survivors
    nothing_left()
    return {"find": statistics.median(finds) * 1e3, "end": statistics.median(ends) * 1e3}


def busy(rounds: int) -> Figures:
    """The same beside a thread that computes all the time."""
    with Spin():
        return procpool(rounds)


def _popen() -> subprocess.Popen[bytes]:
    process = subprocess.Popen(ARGV, stdout=subprocess.PIPE, start_new_session=True)
    for _ in range(MEMBERS):
        process.stdout.readline()
    return process


def killpg(rounds: int) -> Figures:
    """What ends this tree, though no other that leaves its group; with a wait for the end of all."""
    times = []
    for _ in range(rounds):
        process = _popen()
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            pids = [process.pid, *map(int, file.read().split())]
        assert len(pids) == 1 + MEMBERS
        begin = time.perf_counter()
        ends = select.poll()
        fds = [os.pidfd_open(pid) for pid in pids]
        for fd in fds:
            ends.register(fd, select.POLLIN)
        os.killpg(process.pid, signal.SIGKILL)
        left = len(fds)
        while left:
            for fd, _ in ends.poll():
                ends.unregister(fd)
                left -= 1
        process.wait()
        times.append(time.perf_counter() - begin)
        for fd in fds:
            os.close(fd)
        process.stdout.close()
    return {"end": statistics.median(times) * 1e3}


def psutil(rounds: int) -> Figures:
    """The recipe of its documentation: list the children, terminate them all, wait."""
    import psutil

    finds, ends = [], []
    for _ in range(rounds):
        process = _popen()
        begin = time.perf_counter()
        children = psutil.Process(process.pid).children(recursive=True)
        finds.append(time.perf_counter() - begin)
        assert len(children) == MEMBERS
        for member in (process, *children):
            member.terminate()
        process.wait()
        psutil.wait_procs(children, timeout=10)
        ends.append(time.perf_counter() - begin)
        process.stdout.close()
    return {"find": statistics.median(finds) * 1e3, "end": statistics.median(ends) * 1e3}


VARIANTS = {
    name: Variant(among_strangers(work), peer=name == "psutil")
    for name, work in {"procpool": procpool, "procpool, busy": busy, "killpg": killpg, "psutil": psutil}.items()
}
ROWS = (
    Row("W7 find a tree of 100", "find", "ms", (Goal("psutil", 1 / 15, 1 / 8),)),
    Row("W7 end it", "end", "ms", (Goal("killpg", 10),)),
    Row("W7 end it beside a busy thread", "end", "ms", (Goal("procpool", 20),), variant="procpool, busy"),
)

if __name__ == "__main__":
    main(VARIANTS)
