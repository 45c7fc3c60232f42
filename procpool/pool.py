"""The processes of one manager, and the two threads that serve them: what lives on when the manager is dropped."""

from __future__ import annotations

import functools
import itertools
import math
import os
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, Callable, Optional

from procpool import lifetime
from procpool.child import CLOSED, Child, Claim
from procpool.duty import Duties, Duty, start_thread
from procpool.errors import LimitExceededError, ManagerClosedError, StartError
from procpool.guard import Guard, ReentryError
from procpool.housekeeper import Housekeeper, show_error
from procpool.output.reader import EPOLL, Reader
from procpool.snapshot import Exit, Usage
from procpool.system import System, linux, this_system, tree
from procpool.system.launch import Launch, disown

if TYPE_CHECKING:
    from concurrent.futures import Future

    from procpool.system.guardian import Guardian

FIRST_LOOK_SECS = 0.05  # how soon the members that a root left behind are looked for again; it doubles,
LAST_LOOK_SECS = 2.0  # up to this
FRESH_SECS = 0.2  # for how long what was seen of a tree is told without another look
RETRY_SECS = 1.0  # after the system could not be asked
JOIN_SECS = 2.0
FORKS_SECS = 0.1
UNSEEN_SECS = 0.05
ENDING_SECS = 0.1  # how long a start at its limit waits for those who end what has exited
PING_SECS = 0.3  # a guardian that is killed or stopped is replaced after two of these at the latest
IDLE_GUARDIAN_SECS = 1.0  # starting one costs as much as twenty small processes


class Attempt:
    """A start, as far as it has come."""

    def __init__(self, agent_id: str, token: str) -> None:
        self.agent_id = agent_id
        self.token = token.encode()  # its part of the mark
        self.born: Optional[int] = None  # the fork count before it
        self.launch = Launch()
        self.child: Optional[Child] = None
        self.notice: Any = None  # what the reader has to watch, if anything, to see the exit
        self.noticed = False  # somebody will see it


Ages = tuple[Optional[float], Optional[float]]  # seconds since the start, and since the last byte

# Makes a process: (reader, what wakes the housekeeper, the attempt)
Make = Callable[[Reader, Callable[[], None], Attempt], Child]


class Pool:
    """A registry of processes, its limits, and its housekeeping."""

    def __init__(
        self,
        *,
        max_per_agent: Optional[int],
        max_total: Optional[int],
        max_total_bytes: Optional[int],
        keep_exited: int,
        grace: float,
        max_age_secs: Optional[float],
        idle_secs: Optional[float],
        cleanup_interval: float,
        id_prefix: str,
        guardian: bool,
    ) -> None:
        self.max_total = max_total
        self.max_total_bytes = max_total_bytes
        self.keep_exited = keep_exited
        self.grace = grace
        self.max_age_secs = max_age_secs
        self.idle_secs = idle_secs
        self.cleanup_interval = cleanup_interval
        self._prefix = id_prefix
        self._max_per_agent = max_per_agent
        self.reader = Reader()
        self.housekeeper = Housekeeper(self._work)
        self.system: System = this_system()
        self.owner = 0  # our pid, from the first start on
        self.abandoned = False
        self._owner_marks: dict[int, str] = {}  # of our pid, one
        self._forks: tuple[float, Optional[int]] = (-math.inf, None)  # when it was read, and what it was
        self._wants_guardian = guardian
        self._numbers = itertools.count(1)
        self._futures: deque[tuple[Child, Future[Optional[int]]]] = deque()  # of exits; completed by the housekeeper
        self.duties = Duties(lambda: self.reader.call_unlocked(self.housekeeper.wake))
        self._broken: deque[tuple[Attempt, Future[None]]] = deque()  # starts that are to be taken back, and who waits

        # Held while those above are taken back, which may take two seconds; nobody waits for it.
        self._undo_lock = threading.Lock()

        # Guards the rest. Held for looks and changes only, and never together with another lock.
        self.guard = Guard()
        self.children: dict[str, Child] = {}
        self.limits: dict[str, Optional[int]] = {}  # of agents that have one of their own
        self._slots: dict[str, set[bytes]] = {}  # by agent: the marks of living trees, and of starts in flight
        self._started = 0
        self.closed = False
        self.ended = False  # closed, and everything that could be ended is

        # Guards the next two. Held while the helper is started, or told something, which takes a moment.
        self._guardian_guard = Guard()
        self._guardian: Optional[Guardian] = None
        self._idle_since = 0.0

        # The housekeeper's own: when to look again at a process whose root exited, and how long that was put off.
        self._looks: dict[Child, tuple[float, float]] = {}

    def check(self) -> None:
        """Raise ManagerClosedError if this process is a fork of the owner. Takes no lock: a fork may hold any."""
        if self.owner and self.owner != os.getpid():
            raise ManagerClosedError(
                CLOSED,
                f"it belongs to process {self.owner}, and this is process {os.getpid()}, a fork of it: "
                "make a manager of your own here",
            )

    @property
    def total(self) -> int:
        """How many slots are taken."""
        return sum(map(len, self._slots.values()))

    @property
    def stale(self) -> bool:
        """Whether nothing can be started here any more: closed, or a fork's copy."""
        return self.closed or self.owner not in (0, os.getpid())

    def get(self, process_id: str) -> Optional[Child]:
        """Return a process by its id. Raises ManagerClosedError."""
        self.check()
        if self.closed:
            raise ManagerClosedError(CLOSED)
        return self.children.get(process_id)

    def all(self, agent_id: Optional[str] = None) -> list[Child]:
        """Return all processes (of an agent), oldest first."""
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            children = list(self.children.values())
        return [child for child in children if agent_id is None or child.agent_id == agent_id]

    # Starting

    def start(self, agent_id: str, make: Make) -> Child:
        """Start a process with `make` and register it: all of it, or nothing is left.

        Raises LimitExceededError, ManagerClosedError, StartError.
        """
        self.check()
        if os.name != "posix":
            raise StartError(
                f"Failed to start process: procpool needs a POSIX system, and this is {sys.platform}",
                "process groups, sessions and signals, by which trees are ended, are not there; WSL has them",
                command="",
                errno=None,
            )
        attempt = Attempt(agent_id, f"{self._identity()}.{next(self._numbers)}")
        duty = Duty(lambda: self._undo(attempt), self.duties)
        try:
            child = self._start(attempt, make)
            duty.settled = True
        except BaseException:  # Ctrl-C included; it is raised again
            duty.hand_over()
            raise
        return child

    def _start(self, attempt: Attempt, make: Make) -> Child:
        self._reserve(attempt)
        self._start_threads(attempt.token)
        self._post_guardian()
        attempt.born = self._fork_count()
        attempt.child = child = make(self.reader, self.housekeeper.wake, attempt)
        self._tell_guardian("add", attempt.token.decode(), child.pid)
        self._serve(child, attempt)
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            if self.closed:
                raise ManagerClosedError(CLOSED, "it was closed while the process was started")
            self._started += 1
            child.id = f"{self._prefix}{self._started}"
            self.children[child.id] = child
        self._share_bytes()
        # 1 the reader publishes the exit of a quick process and wakes the housekeeper; 2 that finds no such process
        # and sleeps; 3 we register it. Whoever comes last, we or the reader, has to wake it.
        if child.exited or self._ages_of(child) != (None, None):
            self.housekeeper.wake()
        return child

    def _undo(self, attempt: Attempt) -> None:
        """Take back a start, as far as it has come; may come twice, but not in the main thread.

        All that gather while others are taken back are taken back together, by one thread: hundreds that a storm of
        Ctrl-C left, each with a look of its own at all processes, kept everybody else from the GIL for ten seconds.
        """
        if attempt.child is None and attempt.launch.popen is None:
            return self._undo_all([attempt])  # nothing runs
        from concurrent.futures import Future

        undone: Future[None] = Future()
        self._broken.append((attempt, undone))
        # Whoever finds the lock taken has appended before, and its holder looks again after it has let go.
        while self._broken and self._undo_lock.acquire(blocking=False):
            batch = []
            try:
                while self._broken:
                    batch.append(self._broken.popleft())
                self._undo_all([attempt for attempt, _ in batch])
            except BaseException as error:
                for _, future in batch:
                    future.set_exception(error)
            else:
                for _, future in batch:
                    future.set_result(None)
            finally:
                self._undo_lock.release()
        undone.result()

    def _undo_all(self, attempts: list[Attempt]) -> None:
        # First the fds: it may be for lack of them that we are here.
        served: list[Child] = []
        lost: dict[tree.Tree, Launch] = {}
        for attempt in attempts:
            child, launch = attempt.child, attempt.launch
            if child is not None and attempt.noticed:
                self.reader.call(child, child.serve, attempt.notice)  # if that was not done yet
                served.append(child)
                continue
            if child is not None:
                launch.ours = []
                self.reader.call(child, child.dismiss)
                child.wait_unserved()
            launch.close()
            if launch.popen is not None:
                disown(launch.popen)
                launch.pid = launch.pid or getattr(launch.popen, "pid", None) or 0
                lost[tree.Tree(launch.pid or -1, attempt.token.decode(), attempt.born)] = launch
        self.end(served, grace=0.0, by="close")
        # Interrupted within Popen it may be that nobody knows the pid; but what runs bears its mark, though not
        # before its exec: on 3.9, where Popen forks, that comes a while later.
        tree.end(lost, self.system, grace=0.0)
        deadline = time.monotonic() + UNSEEN_SECS
        while time.monotonic() < deadline:
            unseen = [unknown for unknown, launch in lost.items() if not launch.pid and not unknown.pids]
            if not unseen:
                break
            time.sleep(UNSEEN_SECS / 10)  # there is no event to wait for
            tree.end(unseen, self.system, grace=0.0)
        for ended, launch in lost.items():
            launch.popen = None  # the next one who has its pid is a stranger
            for pid in {launch.pid, *ended.pids} - {0}:
                try:
                    os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    pass  # it is a child of the lost one, or Popen has reaped it
        for attempt in attempts:
            if attempt.child not in served:
                self._drop(attempt.token)
                self.reader.leave(attempt.token)
                self._release(attempt.agent_id, attempt.token)

    def _fork_count(self) -> Optional[int]:
        """Return the fork count of a moment ago: as true of what comes, and it costs as much as a tenth of a start."""
        now = time.monotonic()
        at, count = self._forks
        if now - at > FORKS_SECS:
            count = self.system.fork_count()
            self._forks = now, count
        return count

    def _start_threads(self, user: bytes) -> None:
        try:
            self.housekeeper.ensure()
            self.reader.enter(user)
        except ReentryError:
            raise
        except (RuntimeError, OSError) as error:
            raise StartError(
                f"Failed to start process: {error}",
                "the threads that serve processes could not be started (ulimit -u, ulimit -n)",
                command="",
                errno=getattr(error, "errno", None),
            ) from error

    def _serve(self, child: Child, attempt: Attempt) -> None:
        def tell(code: Optional[int]) -> None:
            child.reader.call(child, child.exit_noticed, code)

        try:
            attempt.notice = self.system.exit_notice(child.pid, tell)
            attempt.noticed = True
            if EPOLL and attempt.notice is not None:
                child.serve(attempt.notice)
            else:  # without a notice a thread waits for the exit, and may tell of it now
                self.reader.call(child, child.serve, attempt.notice)
        except ReentryError:
            raise
        except (RuntimeError, OSError) as error:
            raise StartError(
                f"Failed to start process {child.argv[0]!r}: {error}",
                "it could not be watched (ulimit -u, ulimit -n, fs.epoll.max_user_watches)",
                command=child.argv[0],
                errno=getattr(error, "errno", None),
            ) from error

    def _identity(self) -> str:
        """Return what this owner appends to the mark of each of its processes, up to the number."""
        pid = os.getpid()
        if pid not in self._owner_marks:
            me = self.system.look(pid)
            start = 0 if me is None else int(me.start)
            # Two first starts may get here together: one of their marks is taken, by both.
            self._owner_marks.setdefault(pid, f"{self.system.namespace()}.{pid}.{start}.{os.urandom(6).hex()}")
        return self._owner_marks[pid]

    # The guardian

    def _post_guardian(self) -> None:
        """Start the guardian, if there is none: it has to know our mark before the first process has it."""
        if not self._wants_guardian or self.system is not linux:
            return
        me = self._guardian_guard.check()
        with self._guardian_guard.lock:
            self._guardian_guard.holder = me
            self._idle_since = 0.0
            if self._guardian is not None:
                return
            from procpool.system.guardian import SH, Guardian  # it has imports of its own

            if getattr(sys, "frozen", False) or not sys.executable or not os.path.exists(SH):
                self._wants_guardian = False
                warnings.warn(
                    "no guardian: this program has no interpreter, or this machine no /bin/sh, to run it with; "
                    "a killed owner leaves its processes behind (guardian=False says that you know)",
                    RuntimeWarning,
                    stacklevel=2,
                )
                return
            guardian = Guardian(self._identity(), self.grace)
            entry = self.system.look(os.getpid())
            try:
                guardian.start(0.0 if entry is None else entry.start)
            except OSError as error:
                raise StartError(
                    f"Failed to start process: {error}",
                    "the guardian, which ends processes when their owner dies, could not be started",
                    command="",
                    errno=error.errno,
                ) from error
            self._guardian = guardian
            guardian.tell("ping")  # only now, that it cannot be dropped any more, it begins
        self.housekeeper.wake()  # it has something to watch now

    def _tell_guardian(self, *message: object) -> None:
        me = self._guardian_guard.check()
        with self._guardian_guard.lock:
            self._guardian_guard.holder = me
            if self._guardian is not None:
                self._guardian.tell(*message)

    def _drop(self, token: bytes) -> None:
        guardian = self._guardian
        if guardian is not None:
            guardian.drop(token.decode())

    def _watch_guardian(self) -> None:
        """Replace a guardian that is gone, or did not answer in time."""
        me = self._guardian_guard.check()
        with self._guardian_guard.lock:
            self._guardian_guard.holder = me
            guardian = self._guardian
            if guardian is None:
                return
            if guardian.listen() and not guardian.stuck:
                guardian.ping()
                return
            guardian.discard()
            entry = self.system.look(os.getpid())
            guardian.start(0.0 if entry is None else entry.start, replaces=True)
        # Only now, so that a start tells the new one, or is in the registry, or, between the two, bears our mark.
        for child in self.all():
            if not child.empty:
                self._tell_guardian("add", child.tree.token.decode(), child.pid)

    def _dismiss_guardian(self) -> None:
        me = self._guardian_guard.check()
        with self._guardian_guard.lock:
            self._guardian_guard.holder = me
            if self._guardian is not None:
                self._guardian.dismiss()
                self._guardian = None

    def _reserve(self, attempt: Attempt) -> None:
        agent_id = attempt.agent_id
        looked = False
        while True:
            me = self.guard.check()
            with self.guard.lock:
                self.guard.holder = me
                if self.closed:
                    raise ManagerClosedError(CLOSED)
                limit = self.limits.get(agent_id, self._max_per_agent)
                slots = self._slots.setdefault(agent_id, set())
                count = len(slots)
                total = self.total
                mine = limit is None or count < limit
                if mine and (self.max_total is None or total < self.max_total):
                    slots.add(attempt.token)
                    break
            if looked:
                if mine:
                    raise LimitExceededError(
                        f"The manager already has {total} processes (max: {self.max_total})",
                        "kill one of them, or wait until one has ended",
                        agent_id=agent_id,
                        count=total,
                        limit=self.max_total,
                    )
                raise LimitExceededError(
                    f"Agent {agent_id!r} already has {count} processes (max: {limit})",
                    "kill one of them, or wait until one has ended with all that it started",
                    agent_id=agent_id,
                    count=count,
                    limit=limit,
                )
            children = self.all()
            self._look_now(children)
            # Whoever ends a tree whose root has exited is mostly about to free its slot.
            soon = time.monotonic() + ENDING_SECS
            for child in children:
                if child.exited:
                    child.wait_unclaimed(soon)
            looked = True
        if not self.owner:
            lifetime.close_at_exit(self)
            self.owner = os.getpid()

    def _release(self, agent_id: str, token: bytes) -> None:
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            slots = self._slots.get(agent_id, set())
            slots.discard(token)
            if not slots:
                self._slots.pop(agent_id, None)
            last = not self._slots
        if last and self._guardian is None:  # else it looks soon anyway
            self._let_housekeeper_go()

    def _let_housekeeper_go(self) -> None:
        if not self.reader.call_if_running(self.housekeeper.review):
            self.housekeeper.review()

    # Ending

    def end(
        self, children: Iterable[Child], *, grace: Optional[float] = None, by: str, forget: bool = True
    ) -> dict[str, Exit]:
        """End trees, all at once, and forget those that are gone; return how each ended.

        What another thread is ending already is waited for, and its `Exit` shared.
        """
        exits: dict[str, Exit] = {}
        rest = list(children)
        secs = self.grace if grace is None else grace
        begin = time.monotonic()
        while rest:
            mine: Claim = []
            duty = Duty(functools.partial(self._go_on_ending, mine, secs, forget), self.duties)
            try:
                for child in rest:
                    child.claim(mine, by)
                self._end_claimed(mine, secs, forget, exits)
                duty.settled = True
            except Exception:  # the system could not be asked
                _unclaim(mine)
                duty.settled = True
                raise
            except BaseException:  # Ctrl-C ends the waiting: what was begun goes on; it is raised again
                duty.hand_over(wait=False)
                raise
            others = [child for child in rest if child not in mine]
            rest = []
            for child in others:
                if child.looking:  # a moment; only then is it ours, with all its grace
                    child.wait_looked()
                    rest.append(child)
                    continue
                if not child.wait_unclaimed(begin + secs):
                    # Whoever ends it gives it more time than we do.
                    self._at_trees("end", [child.tree_aside()])
                    child.wait_unclaimed(None)
                found = child.exit
                if found is None or (forget and not child.forgotten and not found.survivors):
                    rest.append(child)
                else:
                    exits[child.id] = found
        return exits

    def exit_future(self, child: Child) -> Future[Optional[int]]:
        """Return a future of the exit code, which the housekeeper completes."""
        from concurrent.futures import Future

        future: Future[Optional[int]] = Future()
        future.set_running_or_notify_cancel()  # a cancelled one could not be completed
        lifetime.watch_main_thread(always=True)  # whoever waits for it would keep the interpreter from ending
        self._futures.append((child, future))
        child.has_future = True
        self.housekeeper.wake()
        return future

    def _complete_futures(self) -> None:
        for _ in range(len(self._futures)):
            child, future = self._futures.popleft()
            try:
                if child.exited:
                    future.set_result(child.returncode)
                elif self.ended:
                    future.set_exception(ManagerClosedError(CLOSED, f"process {child.id} could not be ended"))
                elif child.reader.failure is not None:
                    future.set_exception(child.unwatched())
                else:
                    self._futures.append((child, future))
            except BaseException:  # of a callback, such as SystemExit
                show_error()

    def usage(self, child: Child) -> Usage:
        """Look once at what a tree uses."""
        import psutil

        one = child.tree_aside()  # whoever has the claim may be looking at the other
        members = [] if child.empty else tree.alive([one], self.system).get(one, [])
        processes = threads = rss = 0
        cpu = 0.0
        for entry in members:
            try:
                process = psutil.Process(entry.pid)
                with process.oneshot():
                    times, memory, count = process.cpu_times(), process.memory_info().rss, process.num_threads()
            except psutil.Error:
                continue  # it ended meanwhile
            processes += 1
            threads += count
            cpu += times.user + times.system
            rss += memory
        return Usage(processes, threads, cpu, rss)

    def terminate(self, child: Child) -> None:
        """Ask a tree to end."""
        child.stood = None
        me = child.guard.check()
        with child.guard.lock:
            child.guard.holder = me
            if child.empty:
                return
            if not child.exited:
                child.asked_by = "terminate"
        self._at_trees("terminate", [child.tree_aside()])

    def _at_trees(self, verb: str, trees: list[tree.Tree], grace: float = 0.0) -> Collection[tree.Tree]:
        """Do `verb`, a function of `tree`, with trees; return those that live.

        In the guardian, if there is one: its GIL is free. A lone root is less work than the request.
        """
        begin = time.monotonic()
        lone = tree.alive_if_lone(trees, self.system)
        if lone is None and self._guardian is not None:
            from procpool.system.guardian import request

            me = self._guardian_guard.check()
            with self._guardian_guard.lock:
                self._guardian_guard.holder = me
                connection = None if self._guardian is None else self._guardian.connect()
            living = None if connection is None else request(connection, verb, trees, grace)
            if living is not None:
                return living
        if verb == "end":
            return tree.end(trees, self.system, grace=max(begin + grace - time.monotonic(), 0.0), living=lone)
        if verb == "alive" and lone is not None:
            return lone
        return {"alive": tree.alive, "terminate": tree.terminate}[verb](trees, self.system)

    def _go_on_ending(self, mine: Claim, grace: float, forget: bool) -> None:
        try:
            self._end_claimed(mine, grace, forget, {})
        finally:
            _unclaim(mine)

    def _end_claimed(self, mine: Claim, grace: float, forget: bool, exits: dict[str, Exit]) -> None:
        """End the trees that were claimed, and let go of the claim; may come twice."""
        children = [child for child in mine if child.claimed is mine]
        self._end_trees(children, grace)
        for child in children:
            exits[child.id] = child.make_exit(forget=forget and not child.tree.survivors)
        self._forget(child for child in children if child.forgotten)
        _unclaim(mine)

    def _end_trees(self, children: list[Child], grace: float) -> None:
        alive = [child.tree for child in children if not child.empty]
        if alive:
            self._at_trees("end", alive, grace)
        # Nobody was there, but a stranger reaped the root meanwhile: see `_look`.
        unproven = [child.tree for child in children if not child.tree.pids and child.doubt(child.tree)]
        if unproven:
            self._at_trees("end", unproven, grace)
        gone = [child for child in children if child.empty or not child.tree.survivors]
        for child in gone:
            child.finish_soon()
        for child in gone:
            child.drain()
            self._bury(child)

    def _bury(self, child: Child) -> None:
        """Reap the root of an empty tree, and free its slot. The caller has the claim."""
        if not child.empty:
            self._drop(child.tree.token)
            child.reap()
            self._release(child.agent_id, child.tree.token)

    def _forget(self, children: Iterable[Child]) -> None:
        gone = list(children)
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            for child in gone:
                self.children.pop(child.id, None)
        self._share_bytes()

    def _share_bytes(self) -> None:
        """Divide what may be kept in all among the streams that there are."""
        if self.max_total_bytes is None:
            return
        children = self.all()
        streams = sum(len(child.buffers) for child in children)
        for child in children:
            child.bound(max(self.max_total_bytes // streams, 1))

    def _look(self, children: Iterable[Child]) -> None:
        """Look whether the trees of exited roots are empty by now."""
        exited = [child for child in children if child.exited and not child.empty]
        if not exited:
            return
        mine: Claim = []
        duty = Duty(functools.partial(_unclaim, mine), self.duties)
        try:
            for child in exited:
                child.claim(mine)
            living = self._at_trees("alive", [child.tree for child in mine]) if mine else ()
            # 1 a look begins; 2 a stranger reaps the root; 3 its number is given away, as the newest; 4 the look takes
            # that for the root's: nobody was born since.
            unproven = [child.tree for child in mine if child.tree not in living and child.doubt(child.tree)]
            if unproven:
                living = {*living, *self._at_trees("alive", unproven)}
            for child in mine:
                # Fresh is only what was seen alive: the others are still to be buried, and who lists them has to wait.
                if child.tree in living:
                    child.looked_at = time.monotonic()
                else:
                    self._bury(child)
            _unclaim(mine)
            duty.settled = True
        except BaseException:  # Ctrl-C included; it is raised again
            duty.hand_over()
            raise

    def _look_now(self, children: Iterable[Child]) -> None:
        """Look, and wait for the housekeeper, if it is looking: afterwards what is empty is known to be so."""
        exited = [child for child in children if child.exited]
        self._look(exited)
        for child in exited:
            child.wait_looked()

    def look_behind(self, children: Iterable[Child]) -> None:
        """Look whether others of the trees of exited processes live, if nobody has just done so."""
        stale = time.monotonic() - FRESH_SECS
        unknown = [child for child in children if child.exited and not child.empty and child.looked_at < stale]
        if unknown and not self.closed:
            try:
                self._look_now(unknown)
            except OSError:
                pass  # there are no fds to look with: as long as it is not known they are believed to live

    def close(self, by: str = "close", grace: Optional[float] = None) -> dict[str, Exit]:
        """End everything, forget it, and end the threads."""
        self.check()
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            self.closed = True
            children = list(self.children.values())
        for child in children:
            child.close_calls()
        exits = self.end(children, by=by, grace=grace)
        self.ended = True
        self._dismiss_guardian()
        self.reader.close()
        self.housekeeper.stop(JOIN_SECS)
        return exits

    def close_at_exit(self) -> None:
        """Close, for the end of the interpreter, unless this is a fork."""
        if self.owner == os.getpid():
            try:
                self.close("owner", min(self.grace, tree.GRACE_SECS))
            except OSError:  # there is no fd left to ask the system
                if self._guardian is None:
                    raise  # nobody else ends them: let it be seen
                # else the guardian does, as soon as we are gone

    def abandon(self) -> list[str]:
        """Have everything ended by the housekeeper; return the ids. Takes no lock: a finalizer runs anywhere."""
        if self.owner != os.getpid() or self.closed:
            return []
        # A root that has just exited is mostly the last of its tree, though nobody has looked yet.
        children = [child for child in list(self.children.values()) if not child.empty]
        living = [child.id for child in children if not child.exited or len(child.tree.seen) > 1]
        self.abandoned = True
        self.reader.call_unlocked(self.housekeeper.wake)
        return living

    # Housekeeping

    def cleanup(self, ages: Optional[Ages]) -> dict[str, Exit]:
        """End and forget what is too old or idle.

        None: the ages of the manager and of each start are meant; where the manager has none, what has ended is
        forgotten.
        """
        children = self.all()
        exits: dict[str, Exit] = {}
        if ages is None and self.max_age_secs is None and self.idle_secs is None:
            self._look_now(children)
            exits = self.end([child for child in children if child.empty], by="close")
        for by, aged in self._aged(children, time.monotonic(), ages).items():
            exits.update(self.end([child for child in aged if not child.forgotten], by=by))
        return exits

    def _ages_of(self, child: Child) -> Ages:
        """Return the maximal age and idleness of a process: its own, or the manager's."""
        return (
            self.max_age_secs if child.max_age_secs is None else child.max_age_secs,
            self.idle_secs if child.idle_secs is None else child.idle_secs,
        )

    def _aged(self, children: list[Child], now: float, ages: Optional[Ages] = None) -> dict[str, list[Child]]:
        aged: dict[str, list[Child]] = {}
        for child in children:
            age, idle = ages or self._ages_of(child)
            if age is not None and now - child.started >= age:
                aged.setdefault("max_age", []).append(child)
            elif idle is not None and now - child.active >= idle:
                aged.setdefault("idle", []).append(child)
        return aged

    def _work(self) -> Optional[float]:
        self.duties.finish()
        self._complete_futures()
        if self.abandoned:
            self.close()
            return None
        try:
            pause = self._keep_house()
        except OSError:  # the system could not be asked, for lack of fds or memory
            pause = RETRY_SECS
        return RETRY_SECS if self.duties and (pause is None or pause > RETRY_SECS) else pause

    def _keep_house(self) -> Optional[float]:
        now = time.monotonic()
        children = self.all()
        left_behind = [child for child in children if child.exited and not child.empty]
        due = [child for child in left_behind if self._looks.get(child, (now, 0.0))[0] <= now]
        self._look(due)
        for child in due:
            delay = self._looks.get(child, (0.0, FIRST_LOOK_SECS / 2))[1]
            delay = min(delay * 2, LAST_LOOK_SECS)
            self._looks[child] = now + delay, delay
        self._looks = {child: look for child, look in self._looks.items() if not child.empty}
        self._forget_oldest(children)
        living = [child for child in children if not child.empty]
        for by, aged in self._aged([child for child in living if child.claimed is None], now).items():
            self._end_aside(aged, by)
        if not living and not self._slots and not self.duties:
            return self._rest(now)
        times = [look[0] for look in self._looks.values()]
        if self._guardian is not None:
            self._watch_guardian()
            times.append(now + PING_SECS)
        due_ages = len(times)
        for child in living:
            age, idle = self._ages_of(child)
            if age is not None:
                times.append(child.started + age)
            if idle is not None:
                times.append(child.active + idle)
        if len(times) > due_ages:
            times.append(now + self.cleanup_interval)
            # What could not be ended (a survivor) is due all the time: not more often than this.
            times = [max(at, now + min(self.cleanup_interval, RETRY_SECS)) if at <= now else at for at in times]
        return max(min(times) - time.monotonic(), 0.0) if times else math.inf

    def _end_aside(self, aged: list[Child], by: str) -> None:
        """End trees in a thread of their own: it takes up to the grace, and others wait for us."""

        def end() -> None:
            try:
                self.end(aged, by=by, forget=False)
            except OSError:
                pass  # the system could not be asked; they are as old the next time

        try:
            start_thread("procpool-ending", end)
        except RuntimeError:
            end()

    def _rest(self, now: float) -> Optional[float]:
        """Let the guardian go when there has been nothing to guard for a while."""
        me = self._guardian_guard.check()
        with self._guardian_guard.lock:
            self._guardian_guard.holder = me
            if self._guardian is None:
                return None
            self._idle_since = self._idle_since or now
            left = self._idle_since + IDLE_GUARDIAN_SECS - now
        if left > 0:
            return left
        self._dismiss_guardian()
        return None

    def _forget_oldest(self, children: list[Child]) -> None:
        """Keep the newest `keep_exited` ended processes of each agent."""
        ended: dict[str, list[Child]] = {}
        for child in children:
            if child.empty and not child.served and child.claimed is None:
                ended.setdefault(child.agent_id, []).append(child)
        surplus: list[Child] = []
        for of_agent in ended.values():
            of_agent.sort(key=lambda child: child.ended_at)
            surplus += of_agent[: max(len(of_agent) - self.keep_exited, 0)]
        if surplus:
            self._forget([child for child in surplus if child.forget()])


def _unclaim(mine: Claim) -> None:
    for child in mine:
        child.unclaim(mine)
