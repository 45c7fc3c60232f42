"""A process tree: its members, and the ladder that ends it. Standard library only."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from typing import Callable, Optional

from procpool.system import Entry, System

FREEZE_SECS = 1.5  # how long members are stopped, killed and looked for after the grace; P8 allows 2 s
FIRST_PAUSE_SECS = 0.001
LONGEST_PAUSE_SECS = 0.05
QUIET_PASSES = 2  # one pass can miss a process that was born behind its back


class Tree:
    """The tree of one process that we started, which stays unreaped: that pins its pid, group and session number.

    Its members are the descendants by parent, the members of its session and group, and whoever was seen once, by
    (pid, start).
    """

    __slots__ = ("root", "seen", "pids", "survivors", "escalated")

    def __init__(self, root: int) -> None:
        self.root = root
        self.seen: dict[int, float] = {}
        self.pids: tuple[int, ...] = ()
        self.survivors: tuple[int, ...] = ()
        self.escalated = False

    def members(self, table: dict[int, Entry], children: dict[int, list[Entry]]) -> list[Entry]:
        """Return the living members, parents before their children, and remember them."""
        found: dict[int, Entry] = {}
        queue = [table[self.root]] if self.root in table else []
        queue += children.get(-self.root, ())
        queue += [table[pid] for pid, start in self.seen.items() if pid in table and table[pid].start == start]
        while queue:
            entry = queue.pop(0)
            if entry.pid in found or entry.pid <= 1 or entry.pid == os.getpid():
                continue
            found[entry.pid] = entry
            queue += [child for child in children.get(entry.pid, ()) if child.start >= entry.start]
        self.seen = {entry.pid: entry.start for entry in found.values()}
        return [entry for entry in found.values() if not entry.dead]


def survey(trees: Iterable[Tree], system: System) -> dict[Tree, list[Entry]]:
    """Look at all processes once; return the living members of each tree that has any."""
    table = system.processes()
    children: dict[int, list[Entry]] = {}
    for entry in table.values():
        children.setdefault(entry.parent, []).append(entry)
        # A negative key is a session or group: it has the number of the process that it was made by.
        for number in {entry.session, entry.group}:
            children.setdefault(-number, []).append(entry)
    living = {}
    for tree in trees:
        members = tree.members(table, children)
        if members:
            living[tree] = members
    return living


def end(trees: Iterable[Tree], system: System, *, grace: float, pause: Callable[[float], None]) -> None:
    """End trees: TERM and CONT to all, up to `grace` seconds for all to end, then STOP and KILL; verify.

    `pause(seconds)` waits, and returns early when a root may have ended. Ends within `grace` + 2 s; afterwards
    each tree knows its `pids`, its `survivors` and whether it `escalated`.
    """
    trees = list(trees)
    for tree in trees:
        tree.pids = tree.survivors = ()
        tree.escalated = False
    now = time.monotonic()
    living = survey(trees, system)
    _note(living)
    _send(living, system, signal.SIGTERM)
    _send(living, system, signal.SIGCONT)
    living = _until(now + grace, living, system, pause)
    if living:
        for tree in living:
            tree.escalated = True
        living = _kill(living, system, pause)
    for tree, members in living.items():
        tree.survivors = tuple(sorted(entry.pid for entry in members))


def terminate(one: Tree, system: System) -> None:
    """Send TERM, then CONT, to all members of a tree."""
    living = survey([one], system)
    _send(living, system, signal.SIGTERM)
    _send(living, system, signal.SIGCONT)


def _note(living: dict[Tree, list[Entry]]) -> None:
    for tree, members in living.items():
        tree.pids = tuple(sorted({*tree.pids, *(entry.pid for entry in members)}))


def _send(living: dict[Tree, list[Entry]], system: System, number: int) -> None:
    for members in living.values():
        for entry in members:
            try:
                system.send(entry, number)
            except PermissionError:
                pass  # another uid: it will be named as a survivor


def _until(
    deadline: float,
    living: dict[Tree, list[Entry]],
    system: System,
    pause: Callable[[float], None],
    number: Optional[int] = None,
) -> dict[Tree, list[Entry]]:
    """Look again until nobody lives or the time is over; send `number` each time. Look at least once."""
    delay = FIRST_PAUSE_SECS
    while living:
        left = deadline - time.monotonic()
        if left > 0:
            pause(min(delay, left))
            delay = min(delay * 2, LONGEST_PAUSE_SECS)
        living = survey(living, system)
        _note(living)
        if number is not None:
            _send(living, system, number)
        if left <= 0:
            break
    return living


def _kill(living: dict[Tree, list[Entry]], system: System, pause: Callable[[float], None]) -> dict[Tree, list[Entry]]:
    """Stop everybody, so that nobody is born any more, then kill; what was stopped is killed on every way out."""
    deadline = time.monotonic() + FREEZE_SECS
    frozen = living
    stopped: set[tuple[int, float]] = set()
    quiet = 0
    try:
        while quiet < QUIET_PASSES and living and time.monotonic() < deadline:
            fresh = {
                tree: [entry for entry in members if (entry.pid, entry.start) not in stopped]
                for tree, members in living.items()
            }
            _send(fresh, system, signal.SIGSTOP)
            before = len(stopped)
            stopped |= {(entry.pid, entry.start) for members in fresh.values() for entry in members}
            quiet = quiet + 1 if len(stopped) == before else 0
            frozen, living = living, survey(living, system)
            _note(living)
    finally:
        _send(frozen, system, signal.SIGKILL)
        _send(living, system, signal.SIGKILL)
    return _until(deadline, living, system, pause, signal.SIGKILL)
