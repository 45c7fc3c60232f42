"""Ask: a question to a Python REPL and its answer, again and again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Callable

from benchmarks.common import Figures, Goal, Row, Variant, main, nothing_left, percentiles

QUICK, FULL = 200, 1000  # questions
ROUNDS = 3  # times as many as of most others: where the system puts the two processes differs from one to the next
COMMAND = [sys.executable, "-i", "-q"]


def _times(rounds: int, ask: Callable[[str], str]) -> Figures:
    times = []
    for number in range(rounds):
        begin = time.perf_counter()
        answer = ask(str(number))
        times.append(time.perf_counter() - begin)
        assert answer.split() == [str(number)], answer
    return percentiles(times)


def procpool(rounds: int) -> Figures:
    import procpool

    with procpool.ProcessManager() as manager:
        repl = manager.spawn("a", COMMAND, merge_stderr=True)
        found = _times(rounds, lambda line: repl.ask(line).text)
    nothing_left()
    return found


def raw(rounds: int) -> Figures:
    """The floor in Python: write, and read up to the prompt, in one thread, with a prompt that is known."""
    process = subprocess.Popen(
        COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    )
    write, read = process.stdin.fileno(), process.stdout.fileno()

    def answer() -> bytes:
        data = b""
        while not data.endswith(b">>> "):
            data += os.read(read, 65536)
        return data[:-4]

    def ask(line: str) -> str:
        os.write(write, line.encode() + b"\n")
        return answer().decode()

    answer()
    times = _times(rounds, ask)
    process.stdin.close()
    process.wait()
    process.stdout.close()
    return times


def pexpect(rounds: int) -> Figures:
    """Its REPL wrapper, on a terminal, as it has to be."""
    from pexpect import replwrap

    repl = replwrap.python(sys.executable)
    times = _times(rounds, repl.run_command)
    repl.child.close(force=True)
    return times


VARIANTS = {
    "procpool": Variant(procpool),
    "raw": Variant(raw),
    "pexpect": Variant(pexpect, "pexpect", 0.05, peer=True),
}
ROWS = (Row("ask", "p50", "us", (Goal("raw", 3), Goal("pexpect", 0.1))),)

if __name__ == "__main__":
    main(VARIANTS)
