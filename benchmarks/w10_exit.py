"""W10: how soon an exit is noticed by a call that waits for it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from typing import Callable

from benchmarks.common import Figures, Goal, Row, Variant, main, nothing_left, percentiles

QUICK, FULL = 20, 100  # exits


def _times(rounds: int, start: Callable[[], tuple[int, Callable[[], object]]]) -> list[float]:
    """End each process from another thread, at a moment that nobody knows; return how long the wait took from there."""
    times = []
    for _ in range(rounds):
        pid, wait = start()
        assert pid > 1
        sent = []

        def end(pid: int = pid, sent: list[float] = sent) -> None:
            sent.append(time.perf_counter())
            os.kill(pid, signal.SIGKILL)  # our own child, which nobody has reaped

        timer = threading.Timer(random.uniform(0.02, 0.06), end)
        timer.start()
        wait()
        times.append(time.perf_counter() - sent[0])
        timer.join()
    return times


def procpool(rounds: int) -> Figures:
    from procpool import ProcessManager

    with ProcessManager() as manager:

        def start() -> tuple[int, Callable[[], object]]:
            process = manager.spawn("a", "cat")
            return process.pid, process.wait

        times = _times(rounds, start)
    nothing_left()
    return percentiles(times)


def waitpid(rounds: int) -> Figures:
    """A thread that is blocked in the kernel, which wakes the caller."""

    def start() -> tuple[int, Callable[[], object]]:
        process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        ended = threading.Event()

        def block() -> None:
            process.wait()
            ended.set()

        threading.Thread(target=block).start()
        return process.pid, ended.wait

    return percentiles(_times(rounds, start))


def popen(rounds: int) -> Figures:
    """`Popen.wait(timeout)`, which polls."""

    def start() -> tuple[int, Callable[[], object]]:
        process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        return process.pid, lambda: process.wait(timeout=10)

    return percentiles(_times(rounds, start))


VARIANTS = {"procpool": Variant(procpool), "waitpid": Variant(waitpid), "popen": Variant(popen, peer=True)}
ROWS = (Row("W10 exit noticed", "p50", "us", (Goal("waitpid", 3, 5), Goal("popen", 0.1))),)

if __name__ == "__main__":
    main(VARIANTS)
