"""W6: reading a thousand lines of 80 bytes that are there."""

from __future__ import annotations

import time

from benchmarks.common import Figures, Firehose, Goal, Row, Variant, built, main, nothing_left, percentiles, seed

QUICK, FULL = 30, 100  # reads
LINES = 1000
ROUNDS = 3  # times as many as of most others: they are short, and the machine changes its speed


def _read(rounds: int, *, lists: bool) -> Figures:
    from procpool import ProcessManager

    times = []
    with ProcessManager() as manager:
        for _ in range(rounds):
            hose = Firehose(LINES * 80, 4096)
            process = manager.spawn("a", hose.command)
            process.wait()
            begin = time.perf_counter()
            output = process.read()
            found = output.stdout if lists else output.text
            times.append(time.perf_counter() - begin)
            assert len(found) == (LINES if lists else LINES * 80)
            del output, found  # not within the time of the next read: nor does the seed
            process.kill()
            hose.figures()
    nothing_left()
    return {"p50": percentiles(times)["p50"]}


def the_seed(rounds: int) -> Figures:
    return {"p50": seed("w6", built("gen"))["p50_us"]}


VARIANTS = {
    "procpool": Variant(lambda rounds: _read(rounds, lists=False)),
    "procpool, lists": Variant(lambda rounds: _read(rounds, lists=True)),
    "seed": Variant(the_seed),
}
ROWS = (
    Row("W6 read 1000 lines as text", "p50", "us", (Goal("seed", 1, 16),)),
    Row("W6 read 1000 lines as a list", "p50", "us", (Goal("seed", 8, 16),), variant="procpool, lists"),
)

if __name__ == "__main__":
    main(VARIANTS)
