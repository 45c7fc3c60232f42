"""W3: start and kill a childless process, and know that it is gone; the median in microseconds."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

OTHERS = ("popen",)


def procpool(rounds: int) -> list[float]:
    from procpool import ProcessManager

    times = []
    with ProcessManager() as manager:
        for _ in range(rounds):
            begin = time.perf_counter()
            process = manager.spawn("a", "cat")
            ended = process.kill()
            times.append(time.perf_counter() - begin)
            assert ended.returncode == -15
    return times


def popen(rounds: int) -> list[float]:
    """The floor: no tree is looked for, no output read."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        pipe = subprocess.PIPE
        process = subprocess.Popen(["cat"], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
        process.terminate()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
        times.append(time.perf_counter() - begin)
    return times


if __name__ == "__main__":
    variant, rounds = sys.argv[1], int(sys.argv[2])
    print(statistics.median({"procpool": procpool, "popen": popen}[variant](rounds)) * 1e6)
