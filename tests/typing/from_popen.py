"""What was `subprocess.Popen`."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Optional

import procpool


def build(folder: Path) -> tuple[Optional[int], list[str], list[str]]:
    """Run a command to its end."""
    process = procpool.spawn(["make", "-j4"], cwd=folder, env={**os.environ, "LANG": "C"}, stdin=False)
    try:
        out, err = process.communicate(timeout=600)
    except subprocess.TimeoutExpired:  # ours is one
        process.send_signal(signal.SIGINT)
        process.wait(timeout=5)
        raise
    finally:
        exit: procpool.Exit = process.kill()
    return exit.returncode, out, err


def sort(data: bytes) -> str:
    """Give it input."""
    with procpool.spawn("sort", encoding="latin-1", errors="replace") as process:
        written: int = process.write(data)
        assert written == len(data)
        process.close_stdin()
        return str(process.read(timeout=10.0))
