"""W8: importing the library, in a fresh interpreter each time."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import sysconfig
from pathlib import Path

from benchmarks.common import Figures, Goal, Row, Variant, main

QUICK, FULL = 5, 15  # interpreters


def imports(names: str, rounds: int) -> Figures:
    script = f"import time; begin = time.perf_counter(); import {names}; print(time.perf_counter() - begin)"
    # Without `site`: what an editable install hooks in there imports `re`, `pathlib` and more before we measure.
    folders = (str(Path(__file__).parents[1]), sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # of installed packages, too, the byte code is there
    times = []
    for _ in range(rounds):
        done = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True, env=env)
        times.append(float(done.stdout))
    return {"p50": statistics.median(times) * 1e3}


VARIANTS = {
    "procpool": Variant(lambda rounds: imports("procpool", rounds)),
    "stdlib": Variant(lambda rounds: imports("subprocess, threading, selectors", rounds)),
    "pexpect": Variant(lambda rounds: imports("pexpect", rounds), "pexpect", peer=True),
    "sarge": Variant(lambda rounds: imports("sarge", rounds), "sarge", peer=True),
    "sh": Variant(lambda rounds: imports("sh", rounds), "sh", peer=True),
    "plumbum": Variant(lambda rounds: imports("plumbum", rounds), "plumbum", peer=True),
    "trio": Variant(lambda rounds: imports("trio", rounds), "trio", peer=True),
    "asyncio": Variant(lambda rounds: imports("asyncio", rounds), peer=True),
}
ROWS = (Row("W8 import", "p50", "ms", (Goal("stdlib", 1.4, 2),)),)

if __name__ == "__main__":
    main(VARIANTS)
