"""W2: one line to `cat` and back, again and again; the owner and `cat` on a core each (but for the seed)."""

from __future__ import annotations

import os
import subprocess
import time

from benchmarks.common import Figures, Goal, Row, Variant, c_times, main, move_apart, nothing_left, percentiles, seed

QUICK, FULL = 500, 3000  # round trips


def procpool(rounds: int) -> Figures:
    from procpool import ProcessManager

    times = []
    other = move_apart()
    with ProcessManager() as manager:
        process = manager.spawn("a", "cat")
        os.sched_setaffinity(process.pid, other)
        for number in range(rounds):
            begin = time.perf_counter()
            process.write(f"{number}\n")
            output = process.read(timeout=5)
            times.append(time.perf_counter() - begin)
            assert output.stdout == [str(number)]
    nothing_left()
    return percentiles(times)


def raw(rounds: int) -> Figures:
    """The floor in Python: write and read in one thread."""
    times = []
    other = move_apart()
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    os.sched_setaffinity(process.pid, other)
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
    return percentiles(times)


def the_seed(rounds: int) -> Figures:
    """In its busy loop."""
    found = seed("w2", "spin", rounds)
    return {"p50": found["p50_us"], "p99": found["p99_us"]}


def pexpect(rounds: int) -> Figures:
    """With its default of a pause before each line that is sent."""
    import pexpect

    times = []
    other = move_apart()
    child = pexpect.spawn("cat", echo=False)
    os.sched_setaffinity(child.pid, other)
    for number in range(rounds):
        begin = time.perf_counter()
        child.sendline(str(number))
        child.expect_exact(f"{number}\r\n")
        times.append(time.perf_counter() - begin)
    child.close(force=True)
    return percentiles(times)


def asyncio(rounds: int) -> Figures:
    import asyncio

    times = []
    other = move_apart()

    async def talk() -> None:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec("cat", stdin=pipe, stdout=pipe)
        os.sched_setaffinity(process.pid, other)
        for number in range(rounds):
            begin = time.perf_counter()
            process.stdin.write(b"%d\n" % number)
            assert await process.stdout.readline() == b"%d\n" % number
            times.append(time.perf_counter() - begin)
        process.stdin.close()
        await process.wait()

    asyncio.run(talk())
    return percentiles(times)


VARIANTS = {
    "procpool": Variant(procpool),
    "raw": Variant(raw),
    "C": Variant(lambda rounds: percentiles(c_times("ping", rounds))),
    "seed": Variant(the_seed),
    "pexpect": Variant(pexpect, "pexpect", 0.05, peer=True),
    "asyncio": Variant(asyncio, peer=True),
}
ROWS = (
    Row("W2 echo", "p50", "us", (Goal("C", 3, 6), Goal("pexpect", 0.01))),
    Row("W2 echo: p99", "p99", "us", (Goal(None, 1000),)),
)

if __name__ == "__main__":
    main(VARIANTS)
