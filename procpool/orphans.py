"""Find and end what dead owners left behind, from the marks alone. Linux only.

A guardian makes this unnecessary; it is for what was started without one, or when both were killed together.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Optional

from procpool.facts import Facts
from procpool.process import seconds
from procpool.system import linux, tree


class Orphan(Facts):
    """A living process whose owner is dead: its `pid` and `command`, the dead owner's pid, and its `mark`."""

    pid: int
    command: str
    owner_pid: int
    mark: str


def find_orphans() -> list[Orphan]:
    """Return the processes whose innermost owner is dead, oldest pid first.

    Only those of our user and our pid namespace are looked at, and an owner counts as dead only if no process has
    its pid and start time.  The caller, its ancestors, and the trees that these are in are left out.

    >>> from procpool import find_orphans
    >>> pids = [orphan.pid for orphan in find_orphans()]
    """
    ours = _marks_of_caller()
    dead: dict[bytes, bool] = {}
    found = []
    for pid in sorted(linux.pids()):
        token = (linux.mark(pid) or b"").rpartition(b":")[2]
        if not token or token in ours or not _is_ours(pid):
            continue
        owner = token.rpartition(b".")[0]
        if owner not in dead:
            dead[owner] = _is_dead(owner)
        if dead[owner]:
            found.append(Orphan(pid, _command(pid), int(owner.split(b".")[1]), token.decode()))
    return found


def sweep_orphans(orphans: Optional[Iterable[Orphan]] = None, *, grace: float = 3.0) -> list[Orphan]:
    """End the trees of dead owners, as `Process.kill` would; return who was found.

    With `orphans` only the trees of these are ended, if they are still orphans. Waits until nobody of them is alive,
    `grace` + 2 s at the most; whoever survives is found again.

    >>> from procpool import find_orphans, sweep_orphans
    >>> of_one_owner = [orphan for orphan in find_orphans() if orphan.owner_pid == 12345]
    >>> swept = sweep_orphans(of_one_owner, grace=1.0)
    """
    limit = seconds("grace", grace)
    if limit is None:
        raise ValueError("grace must be finite")
    found = find_orphans()
    if orphans is not None:
        wanted = set(orphans)
        found = [orphan for orphan in found if orphan in wanted]
    trees = [tree.Tree(-1, mark, None) for mark in sorted({orphan.mark for orphan in found})]
    tree.end(trees, linux, grace=limit)
    return found


def _marks_of_caller() -> set[bytes]:
    """Return the marks of the caller and its ancestors."""
    marks = set(os.environb.get(tree.MARK, b"").split(b":"))
    pid = os.getpid()
    while pid > 1:
        marks.update((linux.mark(pid) or b"").split(b":"))
        entry = linux.look(pid)
        pid = 0 if entry is None else entry.parent
    return marks


def _is_ours(pid: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}").st_uid == os.geteuid()
    except OSError:
        return False


def _is_dead(owner: bytes) -> bool:
    """Say whether it is proven that an owner, `namespace.pid.start.random`, is dead."""
    try:
        namespace, pid, start, _ = owner.split(b".")
        if int(namespace) != linux.namespace():
            return False
        number, began = int(pid), int(start)
    except ValueError:
        return False  # not a mark that we made
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return number > 1
    except PermissionError:
        pass
    entry = linux.look(number)
    return number > 1 and entry is not None and (entry.dead or int(entry.start) != began)


def _command(pid: int) -> str:
    try:
        words = linux.read_file(f"/proc/{pid}/cmdline")
    except OSError:
        return ""
    return words.replace(b"\0", b" ").decode(errors="replace").strip()
