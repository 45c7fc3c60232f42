"""What the workloads share: the rows of the table, the programs that are run, the machine's figures."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

PROGRAMS = Path(__file__).with_name("programs")
BUILT = "PROCPOOL_BENCH_PROGRAMS"  # where the driver put what it compiled
SEED = "SEED_BIN"  # the seed's benchmark program, if there is one

Figures = dict[str, float]


@dataclass(frozen=True)
class Goal:
    """How a figure of procpool has to compare with that of another variant (None: with nothing).

    Below the floor, where there is one, is a defect.
    """

    other: Optional[str]
    goal: float
    floor: Optional[float] = None


@dataclass(frozen=True)
class Row:
    """One figure of a workload; `more`: more of it is better."""

    name: str
    figure: str
    unit: str
    goals: tuple[Goal, ...]
    more: bool = False
    variant: str = "procpool"


@dataclass(frozen=True)
class Variant:
    """One way to do the work: `run(size)` in a process of its own; `share` of the size, where it is slow."""

    run: Callable[[int], Figures]
    needs: Optional[str] = None  # a module from PyPI
    share: float = 1.0
    peer: bool = False


def built(name: str) -> Optional[str]:
    """Return the path of a compiled C program, if there is a compiler."""
    folder = os.environ.get(BUILT)
    path = Path(folder or "/nonexistent", name)
    return str(path) if path.exists() else None


@contextlib.contextmanager
def compiled() -> Iterator[None]:
    """Compile the C programs for as long as the driver runs."""
    compiler = shutil.which("cc")
    with tempfile.TemporaryDirectory() as folder:
        for source in PROGRAMS.glob("*.c") if compiler else ():
            subprocess.run([compiler, "-O2", "-o", Path(folder, source.stem), source], check=True)
        os.environ[BUILT] = folder
        yield


def have(name: str, variant: Variant) -> bool:
    """Say whether a variant can be run here."""
    from importlib.util import find_spec

    if name == "C":
        return built("gen") is not None
    if name.startswith("seed"):
        return bool(os.environ.get(SEED)) and built("gen") is not None
    return variant.needs is None or find_spec(variant.needs) is not None


def seed(*words: object) -> Figures:
    """Run one mode of the seed's program, which prints a JSON object."""
    done = subprocess.run([os.environ[SEED], *map(str, words)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def c_times(*words: object) -> list[float]:
    """Run a C program that prints seconds, one a line."""
    path = built(str(words[0]))
    done = subprocess.run([path, *map(str, words[1:])], capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


# The generator, where there is no compiler: the same arguments, the same output, less speed.
GENERATOR = """
import os, sys, time
size, step, path = int(sys.argv[1]) // 80 * 80, int(sys.argv[2]), sys.argv[3]
lines = b"".join(bytes([97 + n % 26]) * 79 + b"\\n" for n in range(1040))
text = (lines * (step // len(lines) + 2))
begin, done = time.perf_counter(), 0
while done < size:
    at = done % len(lines)
    done += os.write(1, text[at : at + min(step, size - done)])
seconds = time.perf_counter() - begin
with open(path + ".part", "w") as file: file.write(f"{seconds:.9f}\\n")
os.rename(path + ".part", path)
"""


class Firehose:
    """A run of the generator: its command, and afterwards how fast it could write."""

    def __init__(self, size: int, step: int = 65_520) -> None:
        self.lines = size // 80
        self.size = self.lines * 80
        self._folder = tempfile.TemporaryDirectory()
        self.file = os.path.join(self._folder.name, "seconds")
        program = built("gen")
        start = [program] if program else [sys.executable, "-S", "-E", "-c", GENERATOR]
        self.step = step
        self.command = [*start, str(self.size), str(step), self.file]
        self._cpu = cpu_secs()

    @property
    def last_line(self) -> str:
        """What it writes at the end."""
        return chr(ord("a") + (self.lines - 1) % 26) * 79

    def figures(self, cpu: Optional[float] = None) -> Figures:
        """Return megabytes a second, as the child saw it, and the owner's CPU seconds a gigabyte."""
        seconds = float(Path(self.file).read_text())
        self._folder.cleanup()
        used = cpu_secs() - self._cpu if cpu is None else cpu
        return {"rate": self.size / seconds / 1e6, "cpu": used / self.size * 1e9}


def cpu_secs() -> float:
    """Return the CPU time that this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def move_apart() -> set[int]:
    """Stay on one core from now on, and return another one for the child.

    A wake-up takes 7 us on the same core and 40 on another, and the system chooses anew in each run.
    """
    first, *rest = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {first})
    return set(rest[-1:]) or {first}


def rss_bytes() -> int:
    """Return the resident memory of this process. Linux."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def nothing_left() -> None:
    """Assert that procpool left no thread of its own, after `close`."""
    left = [t.name for t in threading.enumerate() if t.name.startswith("procpool") and t.name != "procpool-exit"]
    assert not left, left


class Spin:
    """A thread that computes all the time, and counts how far it gets."""

    def __init__(self) -> None:
        self.count = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.is_set():
            sum(range(1000))
            self.count += 1

    def rate(self, seconds: float) -> float:
        """Return the rounds a second during so many seconds."""
        begin, count = time.perf_counter(), self.count
        threading.Event().wait(seconds)
        return (self.count - count) / (time.perf_counter() - begin)

    def __enter__(self) -> Spin:
        self._thread.start()
        return self

    def __exit__(self, *rest: object) -> None:
        self._over.set()
        self._thread.join()


def percentiles(times: Sequence[float], unit: float = 1e6) -> Figures:
    """Return the median and the 99th percentile, in microseconds."""
    ordered = sorted(times)
    return {"p50": statistics.median(ordered) * unit, "p99": ordered[len(ordered) * 99 // 100] * unit}


def raise_fd_limit() -> int:
    """Allow as many fds as we may have; return how many that is."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def main(variants: dict[str, Variant]) -> None:
    """Run one variant, in this process: `python -m benchmarks.MODULE VARIANT SIZE`; print its figures."""
    name, size = sys.argv[1], int(sys.argv[2])
    print(json.dumps(variants[name].run(size)))
