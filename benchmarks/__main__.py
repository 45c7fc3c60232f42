"""Run every workload: each variant in a fresh process, in interleaved rounds; print medians and ratios.

python -m benchmarks [--quick] [--json FILE] [WORKLOAD ...]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

WORKLOADS = {
    # name: (module, baseline, unit, what is better, quick argument, full argument)
    "W1 firehose": ("w1_firehose", "hand", "MB/s", "more", "100", "400"),
    "W2 echo": ("w2_echo", "raw", "us", "less", "500", "3000"),
    "W3 start + kill": ("w3_start_kill", "popen", "us", "less", "50", "200"),
    "ask": ("ask", "raw", "us", "less", "200", "1000"),
    "W7 tree of 100": ("w7_tree", "killpg", "ms", "less", "2", "5"),
}


def measure(module: str, variant: str, size: str) -> float:
    """Run one variant once; its last line is its figure."""
    command = [sys.executable, "-m", f"benchmarks.{module}", variant, size]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parent.parent)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less work, and 3 rounds instead of 7")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="such as W1")
    options = parser.parse_args()
    rounds = 3 if options.quick else 7
    found = {"python": platform.python_version(), "load": os.getloadavg()[0], "rounds": rounds, "figures": {}}
    for name, (module, baseline, unit, better, quick, full) in WORKLOADS.items():
        if options.workloads and name.split()[0] not in options.workloads:
            continue
        variants = ["procpool", *__import__(f"benchmarks.{module}", fromlist=["OTHERS"]).OTHERS]
        size = quick if options.quick else full
        figures: dict[str, list[float]] = {variant: [] for variant in variants}
        for _ in range(rounds):
            for variant in variants:
                figures[variant].append(measure(module, variant, size))
        print(f"{name} ({unit}, {better} is better; ratio to {baseline})")
        for variant, values in figures.items():
            ratios = [value / base for value, base in zip(values, figures[baseline])]
            print(f"  {variant:12} {statistics.median(values):10.1f}   {statistics.median(ratios):6.2f}x")
        found["figures"][name] = figures
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
