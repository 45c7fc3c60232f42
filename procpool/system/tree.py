"""A process tree: its marks, its members, and the ladder that ends it. Standard library only."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterable
from typing import Any, Callable, Optional

from procpool.system import Entry, System

MARK = b"PROCPOOL_ID"
GRACE_SECS = 1.0  # the most that trees get when their owner is dead
FREEZE_SECS = 1.5  # how long members are stopped, killed and looked for after the grace; P8 allows 2 s
DYING_SECS = 0.3  # and how long they have at least for that, once they are killed: on a busy machine looks take long
HANGUP_SECS = 0.1  # after so long HUP is sent again, then after twice as long: a shell that ends a job may just note it
AGAIN_SECS = 0.02  # how often SIGKILL is sent again to those who do not end of it
QUIET_PASSES = 4  # where the machine never stops making processes, so many passes without a new member are believed
FEW_PIDS = 256  # so many numbers are looked at one by one rather than listing all processes
WRAP = 16_384  # after so many births pids may have started again at the bottom (the smallest pid_max is 32768)
MASKED_SECS = 0.1  # how long an exec is waited for, during which an environment reads empty (measured: up to 25 ms)
UNMASK_SECS = 0.0005  # how often it is looked at: who spins may hold the core that it needs


class Tree:
    """The tree of one process that we started, which stays unreaped: that pins its pid, group and session number.

    Its members are the members of its session and group; the bearers of its mark; whoever was seen once, by
    (pid, start); and all their descendants.

    - `root`: its pid; -1 where it is not known
    - `token`: its own part of the mark; without the number at its end it stands for all processes of an owner
    - `born`: the fork count just before its start; only later processes can belong to it
    - `start`: the root's start time, where the root is not pinned; what began earlier is something else (infinite: the
      root is gone, and whatever has its numbers may be something else)
    - `hangup`: the root has a terminal: if it ignores TERM, as interactive shells do, it gets a HUP, as when that is
      closed
    """

    __slots__ = ("root", "token", "born", "start", "hangup", "seen", "pids", "survivors", "escalated")

    def __init__(self, root: int, token: str, born: Optional[int], start: float = 0.0) -> None:
        self.root = root
        self.token = token.encode()
        self.born = born
        self.start = start
        self.hangup = False
        self.seen: dict[int, float] = {}
        self.pids: tuple[int, ...] = ()
        self.survivors: tuple[int, ...] = ()
        self.escalated = False

    @property
    def pinned(self) -> bool:
        """Whether the root is known, and an unreaped child of ours."""
        return self.root > 0 and not self.start

    def copy(self) -> Tree:
        """Return another one, to be looked at by somebody else."""
        other = Tree(self.root, self.token.decode(), self.born, self.start)
        other.hangup = self.hangup
        other.seen = dict(self.seen)
        return other

    def state(self) -> list[Any]:
        """Return everything, for another interpreter."""
        return [
            self.root, self.token.decode(), self.born, self.start, self.hangup,
            list(self.seen.items()), self.pids, self.survivors, self.escalated,
        ]  # fmt: skip

    def update(self, state: list[Any]) -> None:
        """Take over what another interpreter found."""
        *_, seen, pids, survivors, self.escalated = state
        self.seen = dict(seen)
        self.pids, self.survivors = tuple(pids), tuple(survivors)


Living = dict[Tree, list[Entry]]  # the living members of each tree that has any


def survey(
    trees: Iterable[Tree],
    system: System,
    forks: Optional[int],
    strike: Optional[Callable[[Entry], None]] = None,
) -> Living:
    """Look once at all processes that can belong; return the living members of each tree that has any.

    `forks` is the fork count just before. The newest are looked at first, and each member is handed to `strike` as
    soon as it is known.
    """
    trees = list(trees)
    # Of a process that is being reaped /proc says -1 for group and session: nobody's number, least of all ours.
    by_number = {tree.root: tree for tree in trees if tree.root > 0}
    by_token = {tree.token: tree for tree in trees if tree.token}
    by_seen = {(pid, start): tree for tree in trees for pid, start in tree.seen.items()}
    numbers, listed = _candidates(trees, system, forks)
    table: dict[int, Entry] = {}
    members: dict[int, Tree] = {}
    masked: list[Entry] = []

    def take(entry: Entry, tree: Tree) -> None:
        if entry.pid <= 1 or entry.pid == os.getpid() or not (listed or system.is_process(entry.pid)):
            return
        members[entry.pid] = tree
        if strike is not None and not entry.dead:
            strike(entry)

    for pid in sorted(numbers, reverse=True):
        entry = system.look(pid)
        if entry is None:
            continue
        table[pid] = entry
        tree = by_number.get(pid) or by_number.get(entry.session) or by_number.get(entry.group)
        if tree is not None and (entry.start < tree.start or (pid == tree.root and entry.start > tree.start > 0)):
            tree = None
        tree = tree or by_seen.get((pid, entry.start))
        if tree is None and by_token and not entry.dead and not entry.kernel:
            value = system.mark(pid)
            if value is None:
                masked.append(entry)
            elif value:
                tree = _bearer(value, by_token)
        if tree is not None:
            take(entry, tree)
    for entry, tree in _unmask(masked, by_token, system):
        take(entry, tree)
    _add_descendants(table, members, take)
    living: Living = {}
    for tree in trees:
        tree.seen = {}
    for pid in sorted(members):
        members[pid].seen[pid] = table[pid].start
        if not table[pid].dead:
            living.setdefault(members[pid], []).append(table[pid])
    return living


def _candidates(trees: list[Tree], system: System, forks: Optional[int]) -> tuple[Iterable[int], bool]:
    """Return the pids to look at, and whether all of them are known to be processes."""
    if forks is None or any(tree.born is None or tree.root < 0 or tree.start == math.inf for tree in trees):
        return system.pids(), True
    births = forks - min(tree.born for tree in trees if tree.born is not None)
    known = {tree.root for tree in trees}.union(*(tree.seen for tree in trees))
    if births <= len(trees) == 1:  # the root itself
        return known, False
    newest = system.newest_pid()
    roots = [tree.root for tree in trees]
    if newest is None or births > WRAP or newest < max(roots):
        return system.pids(), True  # the numbers may have started again at the bottom, since one of the roots was born
    lowest = min(roots)
    if newest - lowest <= FEW_PIDS:
        return known.union(range(lowest, newest + 1)), False
    return known.union(pid for pid in system.pids() if pid >= lowest), False


def _bearer(value: bytes, by_token: dict[bytes, Tree]) -> Optional[Tree]:
    for token in value.split(b":"):
        tree = by_token.get(token) or by_token.get(token.rpartition(b".")[0])
        if tree is not None:
            return tree
    return None


def _unmask(masked: list[Entry], by_token: dict[bytes, Tree], system: System) -> Iterable[tuple[Entry, Tree]]:
    """Look again at processes whose environment read empty, in the middle of an exec."""
    deadline = time.monotonic() + MASKED_SECS
    while masked and time.monotonic() < deadline:
        time.sleep(UNMASK_SECS)
        left = []
        for entry in masked:
            value = system.mark(entry.pid)
            if value is None:
                left.append(entry)
                continue
            tree = _bearer(value, by_token)
            if tree is not None:
                yield entry, tree
        masked = left


def _add_descendants(table: dict[int, Entry], members: dict[int, Tree], take: Callable[[Entry, Tree], None]) -> None:
    children: dict[int, list[Entry]] = {}
    for entry in table.values():
        children.setdefault(entry.parent, []).append(entry)
    queue = list(members)
    while queue:
        pid = queue.pop()
        for entry in children.get(pid, ()):
            if entry.pid not in members and entry.start >= table[pid].start:
                take(entry, members[pid])
                if entry.pid in members:
                    queue.append(entry.pid)


def alive(trees: Iterable[Tree], system: System) -> Living:
    """Return the living members of each tree that has any; that the others have none is proven.

    A pass proves it if no process was made meanwhile (one that forks and exits can slip from behind a pass to
    before it).  On a machine that never stops, several passes are believed.
    """
    living: Living = {}
    unproven = list(trees)
    lone = alive_if_lone(unproven, system)
    if lone is not None:
        return lone
    for _ in range(QUIET_PASSES if unproven else 0):
        before = system.fork_count()
        living.update(survey(unproven, system, before))
        unproven = [tree for tree in unproven if tree not in living]
        if not unproven or before is None or system.fork_count() == before:
            break
    return living


def alive_if_lone(trees: list[Tree], system: System) -> Optional[Living]:
    """Return what `alive` does for one tree whose root has made no process, if that is proven at a glance; else None.

    It is if the pid that was given last is the root's: while that is pinned the numbers cannot come round to it.
    """
    if len(trees) != 1 or not trees[0].pinned:
        return None
    tree = trees[0]
    root = system.look(tree.root)
    if root is None or system.newest_pid() != tree.root:
        return None  # a stranger has reaped it, or somebody was born since
    tree.seen = {root.pid: root.start}
    return {} if root.dead else {tree: [root]}


def end(trees: Iterable[Tree], system: System, *, grace: float, living: Optional[Living] = None) -> Living:
    """End trees: TERM and CONT to all, up to `grace` seconds for all to end, then STOP and KILL; verify.

    Ends within `grace` + 2 s; afterwards each tree knows its `pids`, its `survivors` and whether it `escalated`.
    Returns the survivors of each tree that has any. `living`: what `alive` has just returned.
    """
    trees = list(trees)
    for tree in trees:
        tree.pids = tree.survivors = ()
        tree.escalated = False
    deadline = time.monotonic() + grace
    living = alive(trees, system) if living is None else living
    _note(living)
    _send(living, system, signal.SIGTERM, signal.SIGCONT)
    pause = HANGUP_SECS
    while _hang_up(living, system) and time.monotonic() + pause < deadline:
        living = _until(time.monotonic() + pause, living, system)
        pause *= 2
    living = _until(deadline, living, system)
    if living:
        for tree in living:
            tree.escalated = True
        living = _kill(living, system)
    for tree, members in living.items():
        tree.survivors = tuple(sorted(entry.pid for entry in members))
    return living


def terminate(trees: Iterable[Tree], system: System) -> Living:
    """Send TERM, then CONT, to all members of trees; return them."""
    living = alive(trees, system)
    _send(living, system, signal.SIGTERM, signal.SIGCONT)
    return living


def _note(living: Living) -> None:
    for tree, members in living.items():
        tree.pids = tuple(sorted({*tree.pids, *(entry.pid for entry in members)}))


def _send(living: Living, system: System, *numbers: int) -> None:
    for members in living.values():
        for entry in members:
            _strike(entry, system, *numbers)


def _strike(entry: Entry, system: System, *numbers: int) -> None:
    try:
        system.send(entry, *numbers)
    except PermissionError:
        pass  # another uid: it will be named as a survivor


def _hang_up(living: Living, system: System) -> bool:
    """Send HUP to the roots that have a terminal and ignore TERM; say whether there is one."""
    deaf = [
        entry
        for tree, members in living.items()
        for entry in members
        if tree.hangup and entry.pid == tree.root and system.ignores(entry, signal.SIGTERM)
    ]
    for entry in deaf:
        _strike(entry, system, signal.SIGHUP)
    return bool(deaf)


def _until(
    deadline: float,
    living: Living,
    system: System,
    number: Optional[int] = None,
) -> Living:
    """Look again until nobody lives or the time is over; send `number` each time. Look at least once."""
    while living:
        left = deadline - time.monotonic()
        if left > 0:
            everybody = [entry for members in living.values() for entry in members]
            system.wait(everybody, left if number is None else min(left, AGAIN_SECS))
        living = alive(living, system)
        _note(living)
        if number is not None:
            _send(living, system, number)
        if left <= 0:
            break
    return living


def _kill(living: Living, system: System) -> Living:
    """Stop everybody, so that nobody is born any more, then kill; what was stopped is killed on every way out."""
    deadline = time.monotonic() + FREEZE_SECS
    trees = list(living)
    stopped: dict[tuple[int, float], Entry] = {}

    def stop(entry: Entry) -> None:
        if (entry.pid, entry.start) not in stopped:
            stopped[entry.pid, entry.start] = entry
            _strike(entry, system, signal.SIGSTOP)

    quiet = 0
    took = 0.0  # a pass is long where the system is slow to list its processes
    try:
        while quiet < QUIET_PASSES and time.monotonic() + took < deadline:
            begin = time.monotonic()
            before = system.fork_count()
            seen = [dict(tree.seen) for tree in trees]
            _note(survey(trees, system, before, stop))
            # A new member, or the trace of one (a zombie), shows that somebody still runs.
            same = all(tree.seen.items() <= old.items() for tree, old in zip(trees, seen))
            quiet = quiet + 1 if same else 0
            if same and before is not None and system.fork_count() == before:
                break
            took = time.monotonic() - begin
    finally:
        for entry in stopped.values():
            _strike(entry, system, signal.SIGKILL)
    return _until(max(deadline, time.monotonic() + DYING_SECS), living, system, signal.SIGKILL)
