"""W4: a thousand processes that say nothing."""

from __future__ import annotations

import statistics
import subprocess
import threading
import time

from benchmarks.common import Figures, Goal, Row, Variant, main, nothing_left, raise_fd_limit, rss_bytes, seed

QUICK, FULL = 200, 1000  # processes
ASKED = 50
LIFE_SECS = "110"


def procpool(count: int) -> Figures:
    from procpool import ProcessManager

    raise_fd_limit()
    with ProcessManager(max_per_agent=None) as manager:
        manager.spawn("a", "true").wait()
        memory = rss_bytes()
        begin = time.perf_counter()
        for _ in range(count):
            manager.start("a", "sleep", [LIFE_SECS])
        started = time.perf_counter() - begin
        memory = rss_bytes() - memory
        threads = len([t for t in threading.enumerate() if t.name.startswith("procpool")])
        lists, counts = [], []
        for _ in range(ASKED):
            begin = time.perf_counter()
            infos = manager.list()
            lists.append(time.perf_counter() - begin)
            assert sum(info.alive for info in infos) == count
            begin = time.perf_counter()
            for _ in range(ASKED):
                manager.count()
            counts.append((time.perf_counter() - begin) / ASKED)
        begin = time.perf_counter()
        exits = manager.close()
        closed = time.perf_counter() - begin
        assert not any(ended.survivors for ended in exits.values())
    nothing_left()
    return _figures(count, started, memory, threads, lists, counts, closed)


def _figures(
    count: int, started: float, memory: int, threads: int, lists: list[float], counts: list[float], closed: float
) -> Figures:
    return {
        "starts": count / started,
        "rss": memory / count / 1024,
        "threads": threads,
        "list": statistics.median(lists) * 1e6,
        "count": statistics.median(counts) * 1e6,
        "close": closed * 1e3,
    }


def popen(count: int) -> Figures:
    """Bare objects with their pipes, which nobody reads."""
    raise_fd_limit()
    pipe = subprocess.PIPE
    memory = rss_bytes()
    begin = time.perf_counter()
    processes = [
        subprocess.Popen(["sleep", LIFE_SECS], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0) for _ in range(count)
    ]
    started = time.perf_counter() - begin
    memory = rss_bytes() - memory
    begin = time.perf_counter()
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()
    return _figures(count, started, memory, 0, [0.0], [0.0], time.perf_counter() - begin)


def the_seed(count: int) -> Figures:
    raise_fd_limit()
    found = seed("w4", count)
    return {
        "starts": found["start_rate"],
        "rss": found["rss_kb_per"],
        "threads": found["threads"],
        "list": found["list_us"],
        "count": found["count_us"],
        "close": found["close_s"] * 1e3,
    }


VARIANTS = {"procpool": Variant(procpool), "popen": Variant(popen), "seed": Variant(the_seed)}
ROWS = (
    Row("W4 quiet processes: memory", "rss", "KiB each", (Goal(None, 6, 10),)),
    Row("W4 threads", "threads", "", (Goal(None, 3),)),
    Row("W4 close", "close", "ms", (Goal("seed", 0.5),)),
    Row("W4 list", "list", "us", (Goal("seed", 3),)),
    Row("W4 count", "count", "us", (Goal(None, 1),)),
    Row("W4 starts", "starts", "/s", (Goal("seed", 0.7, 0.5),), more=True),
)

if __name__ == "__main__":
    main(VARIANTS)
