"""Ask a Python REPL something, again and again; the median round trip in microseconds."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from typing import Callable

COMMAND = [sys.executable, "-i", "-q"]


def _others() -> tuple[str, ...]:
    try:
        import pexpect  # noqa: F401
    except ImportError:
        return ("raw",)
    return ("raw", "pexpect")


OTHERS = _others()


def _times(rounds: int, ask: Callable[[str], str]) -> list[float]:
    times = []
    for number in range(rounds):
        begin = time.perf_counter()
        answer = ask(str(number))
        times.append(time.perf_counter() - begin)
        assert answer.split() == [str(number)], answer
    return times


def procpool(rounds: int) -> list[float]:
    import procpool

    with procpool.spawn(COMMAND, merge_stderr=True) as repl:
        return _times(rounds, lambda line: repl.ask(line).text)


def raw(rounds: int) -> list[float]:
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


def pexpect(rounds: int) -> list[float]:
    """Its REPL wrapper, on a terminal, as it has to be."""
    from pexpect import replwrap

    repl = replwrap.python(sys.executable)
    times = _times(rounds, repl.run_command)
    repl.child.close(force=True)
    return times


if __name__ == "__main__":
    variant, rounds = sys.argv[1], int(sys.argv[2])
    print(statistics.median({"procpool": procpool, "raw": raw, "pexpect": pexpect}[variant](rounds)) * 1e6)
