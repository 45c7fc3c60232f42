"""Draw how cost grows with the number of processes and with the output, into docs/pictures/.

python -m benchmarks.plot [--quick]     (needs the extra `bench`)
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.common import Figures, Firehose, compiled, nothing_left, rss_bytes

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
RESULTS = Path(__file__).with_name("results") / "growth.json"
COUNTS = (1, 3, 10, 30, 100, 300, 1000)
MEGABYTES = (1, 10, 100, 1000, 10_000)


def output(megabytes: int) -> Figures:
    """Read so much of one process: how fast, and what the owner has grown by."""
    from procpool import ProcessManager

    hose = Firehose(megabytes * 1_000_000)
    with ProcessManager() as manager:
        manager.spawn("a", "true").wait()
        memory = rss_bytes()
        process = manager.spawn("a", hose.command)
        process.wait()
        memory = rss_bytes() - memory
        output = process.read()
        assert len(output.stdout) + output.dropped.stdout == hose.lines
        assert output.stdout[-1] == hose.last_line
    nothing_left()
    return {"rate": hose.figures()["rate"], "rss": memory / 1024}


def measure(kind: str, size: int, rounds: int) -> Figures:
    """Return the medians of some runs, each in a fresh process."""
    command = {
        "processes": [sys.executable, "-m", "benchmarks.w4_many", "procpool", str(size)],
        "output": [sys.executable, "-m", "benchmarks.plot", "--output", str(size)],
    }[kind]
    runs = []
    for _ in range(rounds):
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
        runs.append(json.loads(done.stdout))
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def draw(found: dict[str, dict[str, Figures]]) -> None:
    """Make one picture of each kind: throughput on the left, memory on the right."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "procpool"
    from matplotlib import pyplot

    PICTURES.mkdir(exist_ok=True)
    for kind, rate, unit, label in (
        ("processes", "starts", "starts a second", "quiet processes"),
        ("output", "rate", "MB/s", "MB of output"),
    ):
        sizes = [int(size) for size in found[kind]]
        runs = list(found[kind].values())
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
        left.plot(sizes, [run[rate] for run in runs], "o-")
        left.set(xscale="log", xlabel=label, ylabel=unit, ylim=(0, None), title="throughput")
        each = len(sizes) and kind == "processes"
        memory = [run["rss"] * size if each else run["rss"] for size, run in zip(sizes, runs)]
        right.plot(sizes, memory, "o-")
        right.set(xscale="log", xlabel=label, ylabel="KiB", title="memory of the owner")
        if each:
            right.set(yscale="symlog", ylim=(0, None))  # one may fit into what is there already
        else:
            right.set(ylim=(0, None))
        figure.savefig(PICTURES / f"growth-{kind}.svg", metadata={"Date": None})
        pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="once each, and less of it")
    parser.add_argument("--output", type=int, metavar="MB", help="only measure this, and print it")
    options = parser.parse_args()
    if options.output:
        print(json.dumps(output(options.output)))
        return
    rounds, most = (1, -2) if options.quick else (3, None)
    found: dict[str, dict[str, Figures]] = {}
    with compiled():
        for kind, sizes in (("processes", COUNTS), ("output", MEGABYTES)):
            found[kind] = {str(size): measure(kind, size, rounds) for size in sizes[:most]}
    RESULTS.write_text(json.dumps({"load": os.getloadavg()[0], **found}, indent=1) + "\n")
    draw(found)


if __name__ == "__main__":
    main()
