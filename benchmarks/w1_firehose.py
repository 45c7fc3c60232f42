"""W1: a child writes 80-byte lines as fast as it can; the newest 1000 are kept. MB/s."""

from __future__ import annotations

import collections
import subprocess
import sys
import threading
import time

OTHERS = ("hand", "os.read")
LINE = "x" * 79
SOURCE = f"""
import os, sys
block = b'{LINE}\\n' * 819
for _ in range(int(sys.argv[1])): os.write(1, block)
os.write(1, b'the end\\n')
"""
BLOCK = 80 * 819


def command(megabytes: int) -> list[str]:
    return [sys.executable, "-S", "-E", "-c", SOURCE, str(megabytes * 1_000_000 // BLOCK)]


def procpool(argv: list[str], lines: int) -> None:
    from procpool import ProcessManager

    with ProcessManager() as manager:
        process = manager.spawn("a", argv)
        process.wait()
        output = process.read()
        while not output.eof:
            process.read(timeout=1)
            output = process.tail(1000)
        assert output.stdout[-1] == "the end"
        assert process.info().lines.stdout == lines, process.info()
        assert len(output.stdout) + output.dropped.stdout == lines


def hand(argv: list[str], lines: int) -> None:
    """What a user writes."""
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    buffer: collections.deque[str] = collections.deque(maxlen=1000)
    lock = threading.Lock()
    seen = 0

    def read() -> None:
        nonlocal seen
        for line in process.stdout:
            with lock:
                buffer.append(line.rstrip("\n"))
                seen += 1

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    process.wait()
    thread.join()
    assert buffer[-1] == "the end"
    assert seen == lines


def os_read(argv: list[str], lines: int) -> None:
    """The floor in Python: nothing is done with what is read."""
    import os

    process = subprocess.Popen(argv, stdout=subprocess.PIPE, bufsize=0)
    while os.read(process.stdout.fileno(), 65536):
        pass
    process.wait()


if __name__ == "__main__":
    variant, size = sys.argv[1], int(sys.argv[2])
    lines = size * 1_000_000 // BLOCK * 819 + 1
    begin = time.perf_counter()
    {"procpool": procpool, "hand": hand, "os.read": os_read}[variant](command(size), lines)
    print(size / (time.perf_counter() - begin))
