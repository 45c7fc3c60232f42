"""W3: start and kill a childless process, and know that it is gone."""

from __future__ import annotations

import subprocess
import time

from benchmarks.common import Figures, Goal, Row, Variant, c_times, main, nothing_left, percentiles, seed

QUICK, FULL = 50, 300  # processes


def procpool(rounds: int) -> Figures:
    from procpool import ProcessManager

    times = []
    with ProcessManager() as manager:
        for _ in range(rounds):
            begin = time.perf_counter()
            process = manager.spawn("a", "cat")
            ended = process.kill()
            times.append(time.perf_counter() - begin)
            assert ended.returncode == -15
            assert not ended.survivors
    nothing_left()
    return percentiles(times)


def big(rounds: int) -> Figures:
    """In an owner of a gigabyte."""
    memory = bytearray(1 << 30)
    memory[::4096] = b"x" * len(range(0, len(memory), 4096))
    return procpool(rounds)


def popen(rounds: int) -> Figures:
    """The floor in Python: no tree is looked for, no output read."""
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
    return percentiles(times)


def the_seed(rounds: int) -> Figures:
    """Its kill is a bare SIGKILL here, and looks for no tree."""
    found = seed("w3", rounds)
    return {"p50": found["p50_us"], "p99": found["p99_us"]}


def psutil(rounds: int) -> Figures:
    """The recipe of its documentation: list the children, kill them all, wait."""
    import psutil

    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        pipe = subprocess.PIPE
        process = psutil.Popen(["cat"], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
        everybody = [*process.children(recursive=True), process]
        for member in everybody:
            member.terminate()
        psutil.wait_procs(everybody, timeout=3)
        times.append(time.perf_counter() - begin)
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
    return percentiles(times)


def pexpect(rounds: int) -> Figures:
    import pexpect

    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        pexpect.spawn("cat").close(force=True)
        times.append(time.perf_counter() - begin)
    return percentiles(times)


def asyncio(rounds: int) -> Figures:
    import asyncio

    times = []

    async def work() -> None:
        pipe = asyncio.subprocess.PIPE
        for _ in range(rounds):
            begin = time.perf_counter()
            process = await asyncio.create_subprocess_exec("cat", stdin=pipe, stdout=pipe, stderr=pipe)
            process.terminate()
            await process.wait()
            times.append(time.perf_counter() - begin)

    asyncio.run(work())
    return percentiles(times)


VARIANTS = {
    "procpool": Variant(procpool),
    "procpool, 1 GiB": Variant(big),
    "popen": Variant(popen),
    "C": Variant(lambda rounds: percentiles(c_times("spawn", rounds))),
    "seed": Variant(the_seed),
    "psutil": Variant(psutil, peer=True),
    "pexpect": Variant(pexpect, "pexpect", 0.1, peer=True),
    "asyncio": Variant(asyncio, peer=True),
}
ROWS = (
    Row("W3 start + kill", "p50", "us", (Goal("popen", 1.8, 3), Goal("seed", 1.5))),
    Row("W3 start + kill: owner of 1 GiB", "p50", "us", (Goal("procpool", 1.2),), variant="procpool, 1 GiB"),
)

if __name__ == "__main__":
    main(VARIANTS)
