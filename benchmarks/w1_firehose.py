"""W1: a child writes 80-byte lines as fast as it can; the newest 1000 are kept."""

from __future__ import annotations

import collections
import os
import subprocess
import sys
import threading
from typing import Callable, Optional

from benchmarks.common import Figures, Firehose, Goal, Row, Spin, Variant, built, main, nothing_left, seed

QUICK, FULL = 40, 200  # MB
KEPT = 1000


def procpool(size: int, *, step: int = 65_520, grow: bool = True, held: bool = True) -> Figures:
    from procpool import ProcessManager
    from procpool.output import growth

    hose = Firehose(size * 1_000_000, step)
    with ProcessManager() as manager:
        if not grow:
            manager._pool.reader.growth.spare_bytes = 0
        if not held:
            growth.HELD_READS = 0
        process = manager.spawn("a", hose.command)
        assert process.wait() == 0
        output = process.read()
        info = process.info()
        assert output.stdout[-1] == hose.last_line
        assert info.lines.stdout == hose.lines, info
        assert len(output.stdout) + output.dropped.stdout == hose.lines
    nothing_left()
    return hose.figures()


def hand(size: int, *, step: int = 65_520) -> Figures:
    """What a user writes."""
    hose = Firehose(size * 1_000_000, step)
    process = subprocess.Popen(hose.command, stdout=subprocess.PIPE, text=True)
    buffer: collections.deque[str] = collections.deque(maxlen=KEPT)
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
    assert (buffer[-1], seen) == (hose.last_line, hose.lines)
    return hose.figures()


def os_read(size: int, *, pipe_bytes: Optional[int] = None) -> Figures:
    """The floor in Python: nothing is done with what is read."""
    hose = Firehose(size * 1_000_000)
    process = subprocess.Popen(hose.command, stdout=subprocess.PIPE, bufsize=0)
    fd = process.stdout.fileno()
    if pipe_bytes is not None:
        resize_pipe(fd, pipe_bytes)
    while os.read(fd, pipe_bytes or 65_536):
        pass
    process.wait()
    return hose.figures()


def os_readv(size: int) -> Figures:
    """The same with the largest pipe that a user may have, in a thread, into memory that is used again."""
    hose = Firehose(size * 1_000_000)
    process = subprocess.Popen(hose.command, stdout=subprocess.PIPE, bufsize=0)
    fd = process.stdout.fileno()
    resize_pipe(fd, LARGEST_BYTES)

    def read() -> None:
        scratch = [bytearray(LARGEST_BYTES)]
        while os.readv(fd, scratch):
            pass

    thread = threading.Thread(target=read)
    thread.start()
    process.wait()
    thread.join()
    return hose.figures()


def resize_pipe(fd: int, size: int) -> None:
    import fcntl

    fcntl.fcntl(fd, 1031, size)  # F_SETPIPE_SZ, which Python 3.9 has no name for


def c_read(size: int, *, step: int = 65_520) -> Figures:
    hose = Firehose(size * 1_000_000, step)
    subprocess.run([built("drain"), "65536", *hose.command], check=True)
    return {"rate": hose.figures()["rate"]}


def the_seed(size: int, *, step: int = 65_520) -> Figures:
    hose = Firehose(size * 1_000_000, step)
    found = seed("w1", hose.command[0], hose.size, step, hose.file)
    return hose.figures(cpu=found["cpu"])


def busy(size: int, work: Callable[[int], Figures] = procpool, *, interval: float = 0.005) -> Figures:
    """Beside a thread that computes all the time: the child's rate, and what the thread keeps of its speed.

    `interval`: how long a thread waits, in seconds, before it asks for the GIL; this is the interpreter's default.
    """
    sys.setswitchinterval(interval)
    with Spin() as spin:
        alone = spin.rate(0.3)
        count = spin.count
        import time

        begin = time.perf_counter()
        figures = work(size)
        beside = (spin.count - count) / (time.perf_counter() - begin)
        alone = (alone + spin.rate(0.3)) / 2  # before and after: other guests of the machine come and go
    return {**figures, "keeps": beside / alone}


# Peers: each as its documentation has a user read lines as they come, the newest 1000 kept.


def _lines(hose: Firehose, lines: object) -> Figures:
    buffer: collections.deque[str] = collections.deque(maxlen=KEPT)
    seen = 0
    for line in lines:
        buffer.append(line)
        seen += 1
    last = buffer[-1].decode() if isinstance(buffer[-1], bytes) else buffer[-1]
    assert (last.rstrip(), seen) == (hose.last_line, hose.lines), (last, seen)
    return hose.figures()


def pexpect(size: int) -> Figures:
    import pexpect

    hose = Firehose(size * 1_000_000)
    return _lines(hose, pexpect.spawn(hose.command[0], hose.command[1:], timeout=None, maxread=65536))


def sarge(size: int) -> Figures:
    import sarge

    hose = Firehose(size * 1_000_000)
    capture = sarge.Capture(buffer_size=-1)
    running = sarge.run(hose.command, stdout=capture, async_=True)
    running.commands[0].process_ready.wait()
    found = _lines(hose, iter(lambda: capture.readline(timeout=5), b""))
    running.wait()
    return found


def sh(size: int) -> Figures:
    import sh

    hose = Firehose(size * 1_000_000)
    return _lines(hose, sh.Command(hose.command[0])(*hose.command[1:], _iter=True, _tty_out=False))


def subprocess_tee(size: int) -> Figures:
    from subprocess_tee import run

    hose = Firehose(size * 1_000_000)
    return _lines(hose, run(hose.command, tee=False, quiet=True).stdout.splitlines())


def command_runner(size: int) -> Figures:
    from command_runner import command_runner

    hose = Firehose(size * 1_000_000)
    code, output = command_runner(hose.command, method="poller", check_interval=0.001, timeout=None)
    assert code == 0
    return _lines(hose, output.splitlines())


def plumbum(size: int) -> Figures:
    from plumbum import local

    hose = Firehose(size * 1_000_000)
    running = local[hose.command[0]].popen(hose.command[1:])
    return _lines(hose, (out for out, _ in running.iter_lines() if out))


def trio(size: int) -> Figures:
    import trio

    hose = Firehose(size * 1_000_000)
    lines: collections.deque[bytes] = collections.deque(maxlen=KEPT)
    seen = 0

    async def read() -> None:
        nonlocal seen
        async with trio.open_nursery() as nursery:
            process = await nursery.start(
                lambda task_status: trio.run_process(hose.command, stdout=subprocess.PIPE, task_status=task_status)
            )
            rest = b""
            async for chunk in process.stdout:
                *whole, rest = (rest + chunk).split(b"\n")
                lines.extend(whole)
                seen += len(whole)

    trio.run(read)
    assert (lines[-1].decode(), seen) == (hose.last_line, hose.lines)
    return hose.figures()


def asyncio(size: int) -> Figures:
    import asyncio

    hose = Firehose(size * 1_000_000)
    buffer: collections.deque[bytes] = collections.deque(maxlen=KEPT)
    seen = 0

    async def read() -> None:
        nonlocal seen
        process = await asyncio.create_subprocess_exec(*hose.command, stdout=asyncio.subprocess.PIPE)
        async for line in process.stdout:
            buffer.append(line)
            seen += 1
        await process.wait()

    asyncio.run(read())
    assert (buffer[-1].decode().rstrip(), seen) == (hose.last_line, hose.lines)
    return hose.figures()


NOISY_BYTES = 1 << 18
LARGEST_BYTES = 1 << 20  # Linux's pipe-max-size
LINE = 80
VARIANTS = {
    "procpool": Variant(procpool),
    "procpool, default pipe": Variant(lambda size: procpool(size, grow=False)),
    "procpool, a line at a time": Variant(lambda size: procpool(size, step=LINE), share=0.2),
    "procpool, busy": Variant(busy),
    "procpool, busy, no held reads": Variant(lambda size: busy(size, lambda size: procpool(size, held=False))),
    "procpool, busy, 1 ms": Variant(lambda size: busy(size, interval=0.001)),
    "hand": Variant(hand, share=0.5),
    "hand, busy": Variant(lambda size: busy(size, hand), share=0.1),
    "os.read": Variant(os_read),
    "os.read, grown pipe": Variant(lambda size: os_read(size, pipe_bytes=NOISY_BYTES)),
    "os.readv, busy": Variant(lambda size: busy(size, os_readv)),
    "C": Variant(c_read),
    "C, a line at a time": Variant(lambda size: c_read(size, step=LINE), share=0.2),
    "seed": Variant(the_seed),
    "seed, a line at a time": Variant(lambda size: the_seed(size, step=LINE), share=0.2),
    "pexpect": Variant(pexpect, "pexpect", 0.05, peer=True),
    "sarge": Variant(sarge, "sarge", 0.02, peer=True),
    "sh": Variant(sh, "sh", 0.05, peer=True),
    "subprocess-tee": Variant(subprocess_tee, "subprocess_tee", 0.05, peer=True),
    "command_runner": Variant(command_runner, "command_runner", 0.005, peer=True),
    "plumbum": Variant(plumbum, "plumbum", 0.05, peer=True),
    "trio": Variant(trio, "trio", 0.5, peer=True),
    "asyncio": Variant(asyncio, share=0.2, peer=True),
}
ROWS = (
    Row(
        "W1 firehose", "rate", "MB/s", (Goal("C", 0.95, 0.5), Goal("seed", 2.5, 2), Goal("hand", 5, 3)),
        more=True, variant="procpool, default pipe",
    ),
    Row("W1 firehose: CPU", "cpu", "s/GB", (Goal("os.read", 2),), variant="procpool, default pipe"),
    Row(
        "W1 noisy stream", "rate", "MB/s",
        (Goal("os.read, grown pipe", 0.9), Goal("seed", 5, 3), Goal("hand", 10)), more=True,
    ),
    Row(
        "W1 a line at a time", "rate", "MB/s",
        (Goal("C, a line at a time", 0.9), Goal("seed, a line at a time", 1.1, 0.8)),
        more=True, variant="procpool, a line at a time",
    ),
    Row(
        "W1 beside a busy caller", "rate", "MB/s", (Goal("seed", 0.9), Goal("hand, busy", 8, 8)),
        more=True, variant="procpool, busy",
    ),
    Row("W1 beside a busy caller: it keeps", "keeps", "", (Goal(None, 0.9),), more=True, variant="procpool, busy"),
)  # fmt: skip

if __name__ == "__main__":
    main(VARIANTS)
