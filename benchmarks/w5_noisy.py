"""W5: 50 processes that write 10 000 lines a second each, beside a caller that computes."""

from __future__ import annotations

import threading

from benchmarks.common import Figures, Goal, Row, Spin, Variant, built, cpu_secs, main, nothing_left, seed

QUICK, FULL = 2, 3  # seconds
PROCESSES = 50
LINES = 10_000  # a second
ROUNDS = 2  # times as many as of most others: other guests of the machine come and go


def procpool(seconds: int) -> Figures:
    from procpool import ProcessManager

    with Spin() as spin, ProcessManager(max_per_agent=None) as manager:
        alone = spin.rate(1)
        spun = cpu_secs()
        processes = [manager.spawn("a", built("noisy"), [str(LINES), str(seconds)]) for _ in range(PROCESSES)]
        beside = spin.rate(seconds - 0.5)
        last = f"{LINES * seconds - 1:078d}."
        for process in processes:
            process.expect(last, 20)
            info = process.info()
            assert info.lines.stdout == LINES * seconds, info
            output = process.read()
            assert output.stdout[-1] == last
            assert len(output.stdout) + output.dropped.stdout == LINES * seconds
        used = cpu_secs() - spun
        alone = (alone + spin.rate(1)) / 2  # before and after: other guests of the machine come and go
    nothing_left()
    return {"keeps": beside / alone, "cpu": used}


def alone(seconds: int) -> Figures:
    """Without the caller, for the CPU time."""
    from procpool import ProcessManager

    with ProcessManager(max_per_agent=None) as manager:
        begin = cpu_secs()
        processes = [manager.spawn("a", built("noisy"), [str(LINES), str(seconds)]) for _ in range(PROCESSES)]
        last = f"{LINES * seconds - 1:078d}."
        threading.Event().wait(seconds + 1)  # as the seed's does
        used = cpu_secs() - begin
        for process in processes:
            process.expect(last, 20)
            assert process.info().lines.stdout == LINES * seconds
    nothing_left()
    return {"cpu": used}


def the_seed(seconds: int) -> Figures:
    return {"cpu": seed("w5", built("noisy"), LINES, seconds, PROCESSES)["cpu"]}


VARIANTS = {"procpool": Variant(procpool), "procpool, alone": Variant(alone), "seed": Variant(the_seed)}
ROWS = (
    Row("W5 50 noisy ones: the caller keeps", "keeps", "", (Goal(None, 0.93, 0.85),), more=True),
    Row("W5 CPU", "cpu", "s", (Goal("seed", 0.5),), variant="procpool, alone"),
)

if __name__ == "__main__":
    main(VARIANTS)
