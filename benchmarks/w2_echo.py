"""W2: one line to `cat` and back, again and again; the median round trip in microseconds."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

OTHERS = ("raw",)


def procpool(rounds: int) -> list[float]:
    from procpool import ProcessManager

    times = []
    with ProcessManager() as manager:
        process = manager.spawn("a", "cat")
        for number in range(rounds):
            begin = time.perf_counter()
            process.write(f"{number}\n")
            output = process.read(timeout=5)
            times.append(time.perf_counter() - begin)
            assert output.stdout == [str(number)]
    return times


def raw(rounds: int) -> list[float]:
    """The floor in Python: write and read in one thread."""
    times = []
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    write, read = process.stdin.fileno(), process.stdout.fileno()
    for number in range(rounds):
        begin = time.perf_counter()
        os.write(write, b"%d\n" % number)
        answer = os.read(read, 65536)
        times.append(time.perf_counter() - begin)
        assert answer == b"%d\n" % number
    process.stdin.close()
    process.wait()
    process.stdout.close()
    return times


if __name__ == "__main__":
    variant, rounds = sys.argv[1], int(sys.argv[2])
    print(statistics.median({"procpool": procpool, "raw": raw}[variant](rounds)) * 1e6)
