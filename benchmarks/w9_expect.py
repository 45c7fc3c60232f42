"""W9: `expect` a marker that comes after much output."""

from __future__ import annotations

import sys
import time

from benchmarks.common import Figures, Goal, Row, Variant, main, nothing_left

QUICK, FULL = 25, 25  # MB
SOURCE = """
import os, sys
block = (b"x" * 79 + b"\\n") * 1000
for _ in range(int(sys.argv[1])): os.write(1, block)
os.write(1, b"the marker\\n")
os.read(0, 1)
"""


def command(size: int) -> list[str]:
    return [sys.executable, "-S", "-E", "-c", SOURCE, str(max(size * 1_000_000 // 80_000, 1))]


def procpool(size: int) -> Figures:
    from procpool import ProcessManager

    with ProcessManager() as manager:
        begin = time.perf_counter()
        process = manager.spawn("a", command(size))
        assert process.expect("marker", 60).line == "the marker"
        seconds = time.perf_counter() - begin
        process.kill()
    nothing_left()
    return {"rate": size / seconds, "seconds": seconds}


def pexpect(size: int) -> Figures:
    """Of much less: it grows with the square."""
    import pexpect

    begin = time.perf_counter()
    child = pexpect.spawn(command(size)[0], command(size)[1:], timeout=120, encoding="utf-8")
    child.expect("marker")
    seconds = time.perf_counter() - begin
    child.close(force=True)
    return {"rate": size / seconds, "seconds": seconds}


VARIANTS = {
    "procpool": Variant(procpool),
    "procpool, ten times as much": Variant(lambda size: procpool(size * 10)),
    "pexpect": Variant(pexpect, "pexpect", 0.04, peer=True),
}
ROWS = (
    Row("W9 expect behind 25 MB", "rate", "MB/s", (Goal("pexpect", 30, 10),), more=True),
    Row("W9 ten times as much", "seconds", "s", (Goal("procpool", 12),), variant="procpool, ten times as much"),
)

if __name__ == "__main__":
    main(VARIANTS)
