"""Twelve watchers, of which one fails."""

from __future__ import annotations

import concurrent.futures
import re
from pathlib import Path
from typing import Optional

import procpool

FAILED = re.compile(r"FAILED (?P<what>.+)")


def watch(folders: list[Path]) -> Optional[str]:
    """Return what failed first; None if all ended well."""
    with procpool.ProcessManager(max_per_agent=None, max_total=12) as manager:
        ids = {manager.start("watch", ["pytest", "-f"], cwd=folder): folder for folder in folders}
        left = set(ids)
        while left:
            wake: procpool.Wake = manager.wait_any(left, pattern=[FAILED, "Traceback"], timeout=3600)
            if wake.match is not None:
                return f"{ids[wake.process_id]}: {wake.match.group('what')}"
            if wake.returncode != 0:
                return f"{ids[wake.process_id]} ended with {wake.returncode}"
            left.discard(wake.process_id)
    return None


def all_codes(processes: list[procpool.Process]) -> list[Optional[int]]:
    """The same with futures."""
    futures = [process.exit_future() for process in processes]
    return [future.result() for future in concurrent.futures.as_completed(futures, timeout=60)]
