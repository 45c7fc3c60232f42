"""W7: end a tree of 100 among 2000 other processes, until all are dead; the median in milliseconds."""

from __future__ import annotations

import os
import select
import signal
import statistics
import subprocess
import sys
import threading
import time

OTHERS = ("busy", "killpg")
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


def procpool(rounds: int) -> list[float]:
    from procpool import ProcessManager

    times = []
    with ProcessManager() as manager:
        for _ in range(rounds):
            process = manager.spawn("a", ARGV)
            for _ in range(MEMBERS):
                process.expect("up")
            begin = time.perf_counter()
            ended = process.kill()
            times.append(time.perf_counter() - begin)
            assert len(ended.pids) == 1 + MEMBERS, len(ended.pids)
            assert not ended.survivors
    return times


def busy(rounds: int) -> list[float]:
    """The same beside a thread that computes all the time."""
    over = threading.Event()

    def spin() -> None:
        while not over.is_set():
            sum(range(1000))

    threading.Thread(target=spin).start()
    try:
        return procpool(rounds)
    finally:
        over.set()


def killpg(rounds: int) -> list[float]:
    """What ends this tree, though no other that leaves its group; with a wait for the end of all."""
    times = []
    for _ in range(rounds):
        process = subprocess.Popen(ARGV, stdout=subprocess.PIPE, start_new_session=True)
        for _ in range(MEMBERS):
            process.stdout.readline()
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
    return times


if __name__ == "__main__":
    variant, rounds = sys.argv[1], int(sys.argv[2])
    argv = [sys.executable, "-S", "-E", "-c", STRANGER]
    strangers = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    strangers.stdout.readline()
    try:
        print(statistics.median({"procpool": procpool, "busy": busy, "killpg": killpg}[variant](rounds)) * 1e3)
    finally:
        strangers.stdin.close()
        strangers.wait()
