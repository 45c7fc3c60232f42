"""Speed and cost, as far as they do not depend on the machine: ratios of two things done in one run, and counts.

Run by `pytest -m perf`; the figures themselves are `python -m benchmarks`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.perf, pytest.mark.timeout(180)]


def figures(workload: str, variant: str, size: int) -> dict[str, float]:
    """Run one variant of a workload in a process of its own."""
    command = [sys.executable, "-m", f"benchmarks.{workload}", variant, str(size)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ratio(workload, ours, other, figure, size, *, rounds=5):
    """The median of the ratios of interleaved rounds. Each of two: (variant, share of the size)."""
    pairs = [(figures(workload, ours, size)[figure], figures(workload, other, size)[figure]) for _ in range(rounds)]
    return statistics.median(one / two for one, two in pairs)


def test_quiet_processes_are_cheap():
    """At most three threads in all, and ten KiB each."""
    found = figures("w4_many", "procpool", 300)
    assert found["threads"] <= 3
    assert found["rss"] <= 10


def test_a_large_owner_starts_as_fast():
    """No fork where vfork does: a copy of a gigabyte's page tables would take ten times as long."""
    assert ratio("w3_start_kill", "procpool, 1 GiB", "procpool", "p50", 40) < 2


def test_the_firehose_is_read_three_times_as_fast_as_by_hand():
    """A thread that reads lines into a deque."""
    assert ratio("w1_firehose", "procpool, default pipe", "hand", "rate", 60) > 3


def test_a_tree_is_found_eight_times_as_fast_as_by_psutil():
    """A hundred among two thousand."""
    assert ratio("w7_tree", "procpool", "psutil", "find", 2, rounds=3) < 1 / 8


@pytest.mark.parametrize(
    ("workload", "variant", "size"),
    [("w9_expect", "procpool", 10), ("w4_many", "procpool", 30)],
    ids=["output", "processes"],
)
def test_ten_times_the_work_costs_at_most_twelve_times_as_much(workload, variant, size):
    """Of output that is searched, of processes that are started."""
    cost = (lambda found, _: found["seconds"]) if workload == "w9_expect" else (lambda found, n: n / found["starts"])
    once = statistics.median(cost(figures(workload, variant, size), size) for _ in range(3))
    tenfold = statistics.median(cost(figures(workload, variant, size * 10), size * 10) for _ in range(3))
    assert tenfold <= 12 * once
