"""Run the workloads: each variant in a fresh process, in interleaved rounds; print figures, goals and floors.

python -m benchmarks [--quick] [--rounds N] [--json FILE] [WORKLOAD ...]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any, Optional

from benchmarks.common import Figures, Goal, Row, compiled, have

WORKLOADS = (
    "w1_firehose", "w2_echo", "w3_start_kill", "w4_many", "w5_noisy", "w6_read", "w7_tree", "w8_import", "w9_expect",
    "w10_exit", "ask",
)  # fmt: skip
HEAD = ("work", "procpool", "C", "seed", "best peer", "ratio", "goal", "floor", "holds?")


def measure(module: ModuleType, name: str, size: int) -> Figures:
    """Run one variant once, in a process of its own."""
    size = max(int(size * module.VARIANTS[name].share), 1)
    command = [sys.executable, "-m", module.__name__, name, str(size)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=Path(__file__).parent.parent)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def run(module: ModuleType, size: int, rounds: int) -> dict[str, list[Figures]]:
    """Run all variants of a workload that can be run here."""
    names = [name for name, variant in module.VARIANTS.items() if have(name, variant)]
    found: dict[str, list[Figures]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            found[name].append(measure(module, name, size))
    return found


def lines(module: ModuleType, row: Row, found: dict[str, list[Figures]]) -> list[dict[str, Any]]:
    """Judge one figure by each of its goals."""

    def median(name: Optional[str]) -> Optional[float]:
        values = [figures[row.figure] for figures in found.get(name or "", []) if row.figure in figures]
        return statistics.median(values) if values else None

    peers = {name: median(name) for name, variant in module.VARIANTS.items() if variant.peer}
    known = [(value, name) for name, value in peers.items() if value is not None]
    judged = []
    for goal in row.goals:
        ratio = median(row.variant)
        if goal.other is not None and ratio is not None:
            pairs = zip(found[row.variant], found.get(goal.other, []))
            ratios = [ours[row.figure] / other[row.figure] for ours, other in pairs if other.get(row.figure)]
            ratio = statistics.median(ratios) if ratios else None
        suffix = row.variant.partition(",")[2]
        ending = f",{suffix}" if suffix else ""
        judged.append(
            {
                "work": row.name,
                "unit": row.unit,
                "procpool": median(row.variant),
                "C": median(f"C{ending}") or median("C"),
                "seed": median(f"seed{ending}") or median("seed"),
                "best peer": (max(known) if row.more else min(known)) if known else None,
                "to": goal.other,
                "ratio": ratio,
                "goal": goal.goal,
                "floor": goal.floor,
                "more": row.more,
                "holds": verdict(ratio, goal, more=row.more),
            }
        )
    return judged


def verdict(ratio: Optional[float], goal: Goal, *, more: bool) -> str:
    """Say which of the two a ratio reaches."""
    if ratio is None:
        return "not measured"
    if more == (ratio > goal.goal):
        return "goal"
    if goal.floor is None:
        return "not the goal"
    return "floor" if more == (ratio > goal.floor) else "NO"


def number(value: Optional[float]) -> str:
    """Three digits."""
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def cells(line: dict[str, Any]) -> tuple[str, ...]:
    """Return a line of the table, as text."""
    sign = ">=" if line["more"] else "<="
    to = f" {line['to']}" if line["to"] else ""
    peer = line["best peer"]
    return (
        f"{line['work']} ({line['unit']})" if line["unit"] else line["work"],
        number(line["procpool"]),
        number(line["C"]),
        number(line["seed"]),
        f"{number(peer[0])} {peer[1]}" if peer else "",
        f"{line['ratio']:.3g}{to and ' of'}{to}" if line["ratio"] is not None else "",
        f"{sign} {line['goal']:.3g}{to}",
        f"{sign} {line['floor']:.3g}" if line["floor"] is not None else "",
        line["holds"],
    )


def table(judged: list[dict[str, Any]]) -> str:
    """Format the whole as Markdown, its columns aligned."""
    rows = [HEAD, *map(cells, judged)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    text = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([f"| {text[0]} |", "|" + "---|" * len(HEAD), *(f"| {line} |" for line in text[1:])])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less work, and 2 rounds instead of 5")
    parser.add_argument("--rounds", type=int, help="how often each variant is run")
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="such as w1")
    options = parser.parse_args()
    rounds = options.rounds or (2 if options.quick else 5)
    result: dict[str, Any] = {
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "rounds": rounds,
        "quick": options.quick,
        "load before": os.getloadavg()[0],
        "table": [],
        "figures": {},
    }
    with compiled():
        for name in WORKLOADS:
            if options.workloads and name.split("_")[0] not in options.workloads:
                continue
            module = importlib.import_module(f"benchmarks.{name}")
            begin = time.monotonic()
            size = module.QUICK if options.quick else module.FULL
            found = run(module, size, rounds * getattr(module, "ROUNDS", 1))
            print(f"{name}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
            result["figures"][name] = found
            result["table"] += [line for row in module.ROWS for line in lines(module, row, found)]
    print(table(result["table"]))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
