"""Managers and agents: by id, within bounds, and with an end."""

from __future__ import annotations

import errno
import gc
import inspect
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import typing

import pytest

import procpool
from conftest import child, fork, is_alive, our_fds, our_threads, until
from procpool.output.buffer import Position
from procpool.output.reader import Reader
from procpool.snapshot import Part


def test_p42_list_and_count_are_right_without_anyone_calling_wait(manager):
    """The exit is noticed by itself."""
    process = manager.start("a", "sh", ["-c", "exit 3"])
    until(lambda: not manager.list()[0].alive, "the exit")
    info = manager.list("a")[0]
    assert (info.id, info.agent_id, info.command, info.alive) == (process, "a", "sh -c exit 3", False)
    assert (info.state, info.returncode, info.ended_by) == ("exited", 3, "self")
    assert manager.count() == 1
    assert manager.list("b") == []


def test_info_tells_what_is_known(spawn, tmp_path):
    """The seed's five, and more."""
    process = spawn("out:a\\nb", "err:c\\n", "wait", cwd=tmp_path)
    process.expect("b", 5)
    process.expect("c", 5, stream="stderr")
    info = process.info()
    assert info.id == process.id
    assert info.agent_id == process.agent_id == "tester"
    assert info.args == process.args
    assert info.command == " ".join(process.args)
    assert info.cwd == str(tmp_path)
    assert info.pid == process.pid
    assert info.alive
    assert info.uptime_secs in range(10)
    assert abs(info.started_at - time.time()) < 10
    assert 0 <= info.idle_secs < 10
    assert (info.state, info.returncode, info.ended_by, info.error) == ("running", None, None, None)
    assert not info.descendants_alive
    assert not info.pty
    assert info.lines == procpool.Streams(1, 1)
    assert info.bytes == procpool.Streams(3, 2)
    assert info.dropped == procpool.Streams(0, 0)
    assert info.to_dict()["lines"] == {"stdout": 1, "stderr": 1}
    assert "running, pid" in repr(info)


def test_managers_are_iterable_and_never_falsy(manager):
    """An empty one is still a manager."""
    assert manager
    assert list(manager) == []
    one, two = manager.start("a", "cat"), manager.start("b", "cat")
    assert list(manager) == [one, two]
    assert one in manager
    assert "proc_9" not in manager
    assert 1 not in manager
    assert list(manager.agent("b")) == [two]
    assert repr(manager) == "<ProcessManager: 2 processes>"


def test_p38_an_agent_sees_only_its_own(manager):
    """For another agent's id it answers exactly as for one that never was."""
    alice, bob = manager.agent("alice"), manager.agent("bob")
    process = alice.start("cat")
    assert process in alice
    assert process not in bob
    assert 1 not in bob
    verbs = {
        "write": ("x",), "send_line": ("x",), "close_stdin": (), "read": (), "tail": (), "expect": ("x",),
        "wait": (), "kill": (), "terminate": (), "send_signal": (signal.SIGTERM,), "interrupt": (), "info": (),
    }  # fmt: skip
    for verb, arguments in verbs.items():
        with pytest.raises(procpool.ProcessNotFoundError) as caught:
            getattr(bob, verb)(process, *arguments)
        with pytest.raises(procpool.ProcessNotFoundError) as never:
            getattr(bob, verb)("proc_99", *arguments)
        assert str(caught.value) == f"Process '{process}' not found"
        assert str(never.value) == "Process 'proc_99' not found"
        assert isinstance(caught.value, LookupError)
    with pytest.raises(procpool.ProcessNotFoundError):
        bob[process]
    assert bob.list() == []
    assert bob.count() == 0
    assert bob.kill_all() == {}
    alice.send_line(process, "still there")
    assert alice.expect(process, "still there", 5)
    assert alice.read(process).stdout == ["still there"]
    assert alice.tail(process).stdout == ["still there"]
    assert alice.info(process).agent_id == "alice"
    alice.interrupt(process)
    assert alice.wait(process, 5) == -2
    assert repr(alice).startswith("<Agent 'alice' of <ProcessManager")


def test_agents_have_limits_of_their_own(manager):
    """Beside the manager's."""
    alice = manager.agent("alice", max_processes=1)
    alice.spawn("cat")
    with pytest.raises(procpool.LimitExceededError):
        alice.start("cat")
    manager.agent("bob").start("cat")


def test_leaving_an_agent_ends_what_is_its_own(manager):
    """And nothing else."""
    other = manager.start("bob", "cat")
    with manager.agent("alice") as alice:
        process = alice.spawn("cat")
    assert not process.alive
    assert list(manager) == [other]
    with manager.agent("alice"):
        manager.close()


@pytest.mark.parametrize(("name", "error"), [(1, TypeError), (None, TypeError), ("", ValueError)])
def test_agent_ids_are_names(manager, name, error):
    """Not numbers, not empty."""
    with pytest.raises(error, match="agent_id"):
        manager.agent(name)


def test_process_ids_are_strings(manager):
    """A wrong type is no unknown id."""
    with pytest.raises(TypeError, match="process_id must be a str, not int"):
        manager.read(1)
    with pytest.raises(procpool.ProcessNotFoundError, match="Process '' not found"):
        manager.read("")
    for verb in (manager.list, manager.kill_all):
        with pytest.raises(TypeError, match="agent_id"):
            verb(1)


def test_kill_all_ends_all_at_once(manager):
    """Ten that use their grace cost it once."""
    for _ in range(10):
        manager.start("a", child("ignore:SIGTERM", "out:ready\\n", "wait"))
    other = manager.start("b", "cat")
    for process in manager.agent("a"):
        manager.expect(process, "ready")
    pool = manager._pool
    pool.grace = 0.5
    begin = time.monotonic()
    exits = manager.kill_all("a")
    assert time.monotonic() - begin < 2.5
    assert len(exits) == 10
    assert all(ended.escalated for ended in exits.values())
    assert list(manager) == [other]
    assert list(manager.kill_all()) == [other]


def test_close_ends_everything_and_can_be_repeated():
    """Every verb by id says so afterwards."""
    manager = procpool.ProcessManager()
    process = manager.spawn("a", child("out:x\\n", fork("pid:child", "wait"), "wait"))
    pid = int(process.expect(r"child (\d+)", 5)[1])
    exits = manager.close()
    assert list(exits) == ["proc_1"]
    assert exits["proc_1"].ended_by == "close"
    assert "x" in exits["proc_1"].output.stdout
    assert not is_alive(pid)
    assert manager.close() == {}
    for call in (
        lambda: manager.start("a", "true"), lambda: manager.read("proc_1"), manager.list, manager.count,
        lambda: list(manager), lambda: "proc_1" in manager, manager.kill_all, manager.cleanup,
        lambda: manager.agent("a").list(),
    ):  # fmt: skip
        with pytest.raises(procpool.ManagerClosedError, match="The process manager is closed"):
            call()
    assert process.returncode is not None
    assert process.info().ended_by == "close"
    assert "x" in process.tail().text
    assert repr(manager) == "<ProcessManager: closed>"


def test_close_releases_blocked_calls():
    """With ManagerClosedError, in any thread."""
    manager = procpool.ProcessManager(grace=0.5)
    process = manager.spawn("a", child("ignore:SIGTERM", "out:up\\n", "wait"))  # else its end may come first
    process.expect("up", 10)
    process.read()
    errors = []

    def call(verb):
        try:
            verb()
        except procpool.ManagerClosedError as error:
            errors.append(error)

    verbs = [lambda: process.read(timeout=60), lambda: process.wait(60), lambda: process.expect("never", 60)]
    threads = [threading.Thread(target=call, args=(verb,)) for verb in verbs]
    for thread in threads:
        thread.start()
    until(lambda: len(process._child.waiters) == 3, "three sleepers")
    manager.close()
    for thread in threads:
        thread.join(5)
    assert len(errors) == 3


def test_starts_that_race_a_close_are_ended_or_refused():
    """Nothing outlives it."""
    for _ in range(10):
        manager = procpool.ProcessManager(max_per_agent=None)
        started = []

        def start(manager=manager, started=started):
            try:
                while True:
                    started.append(manager.spawn("a", "sleep", ["60"]))
            except procpool.ManagerClosedError:
                pass

        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda started=started: len(started) > 2, "some processes")
        manager.close()
        for thread in threads:
            thread.join(10)
        assert not [process for process in started if is_alive(process.pid)]


def test_p15_a_dropped_manager_ends_its_trees_and_warns():
    """As soon as the last reference is gone."""
    manager = procpool.ProcessManager()
    manager.start("a", child("wait"))
    pid = manager.list()[0].pid
    with pytest.warns(ResourceWarning, match="proc_1"):
        del manager
        gc.collect()
    until(lambda: not is_alive(pid), "the end of the tree")


def test_p15_nothing_to_end_is_no_reason_to_warn():
    """Neither unused, nor closed, nor all ended."""
    procpool.ProcessManager()
    manager = procpool.ProcessManager(guardian=False)
    manager.start("a", "true")
    manager.close()
    del manager
    manager = procpool.ProcessManager(guardian=False)
    process = manager.start("a", "true")
    manager.wait(process)
    pool = manager._pool
    until(lambda: pool.total == 0, "an empty tree")
    del manager
    gc.collect()


def test_p15_what_is_held_keeps_the_manager_alive():
    """A process, or an agent, is enough."""
    process = procpool.ProcessManager().spawn("a", "cat")
    gc.collect()
    process.send_line("alive")
    process.expect("alive", 5)
    process.kill()
    agent = procpool.ProcessManager().agent("a")
    process = agent.spawn("cat")
    pid = process.pid
    del process
    gc.collect()
    assert is_alive(pid)
    agent.kill_all()


def test_cleanup_forgets_what_ended_and_never_touches_what_lives(manager):
    """Without any age."""
    ended = manager.start("a", "true")
    living = manager.start("a", "cat")
    manager.wait(ended, 5)
    exits = manager.cleanup()
    assert list(exits) == [ended]
    assert exits[ended].returncode == 0
    assert exits[ended].ended_by == "self"
    assert list(manager) == [living]


def test_cleanup_without_arguments_applies_the_ages_of_each_start():
    """Its own before the manager's; infinity is none."""
    with procpool.ProcessManager(max_age_secs=0.1, cleanup_interval=60, guardian=False) as manager:
        old = manager.spawn("a", "cat", max_age_secs=3600)
        ageless = manager.spawn("a", "cat", max_age_secs=math.inf)
        mortal = manager.spawn("a", "cat")
        mortal.wait(5)
        assert set(manager.cleanup()) <= {mortal.id}
        assert old.alive
        assert ageless.alive
        assert set(manager.cleanup(max_age_secs=0)) >= {old.id, ageless.id}


def test_cleanup_ends_what_is_too_old_or_idle(manager):
    """As the seed's, and by idleness."""
    old = manager.start("a", "cat")
    assert manager.cleanup(60) == manager.cleanup(idle_secs=60) == {}
    assert manager.cleanup(0)[old].ended_by == "max_age"
    idle = manager.start("a", "cat")
    assert manager.cleanup(idle_secs=0.0)[idle].ended_by == "idle"
    assert manager.count() == 0
    for options in ({"max_age_secs": -1}, {"idle_secs": float("nan")}):
        with pytest.raises(ValueError, match=next(iter(options))):
            manager.cleanup(**options)


@pytest.mark.parametrize(("option", "by"), [("max_age_secs", "max_age"), ("idle_secs", "idle")])
def test_the_timer_ends_what_is_aged_and_keeps_it_readable(option, by):
    """By itself, soon after the age."""
    with procpool.ProcessManager(**{option: 0.3}) as manager:
        process = manager.spawn("a", "sh", ["-c", "echo x; exec sleep 60"])
        assert process.wait(5) == -15
        until(lambda: process._child.empty, "an empty tree")
        assert manager.info(process.id).ended_by == by
        assert process.read().stdout == ["x"]
        assert 0.3 <= process._child.ended_at - process._child.started < 2


def test_traffic_keeps_a_process_from_being_idle():
    """In either direction."""
    with procpool.ProcessManager(idle_secs=1) as manager:
        process = manager.spawn(
            "a", "sh", ["-c", "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.2; done; exec sleep 60"]
        )
        process.expect("^8$", 10)
        assert process.wait(5) == -15


def test_only_the_newest_ended_ones_are_kept():
    """`keep_exited` for each agent."""
    with procpool.ProcessManager(keep_exited=2) as manager:
        first = manager.start("b", "true")
        ids = []
        for _ in range(4):
            ids.append(manager.start("a", "true"))
            manager.wait(ids[-1], 5)
            until(lambda: manager._pool.total == 0, "an empty tree")
        until(lambda: list(manager) == [first, *ids[2:]], "two forgotten")


def test_what_is_forgotten_to_make_room_can_still_be_read():
    """By whoever holds it: 50 quick ones of `spawn`, of which 32 are kept."""
    with procpool.ProcessManager(max_per_agent=None, keep_exited=2) as small:
        processes = [small.spawn("a", "echo", [str(number)]) for number in range(6)]
        until(lambda: len(list(small)) == 2, "four forgotten")
        assert [process.read().stdout for process in processes] == [[str(number)] for number in range(6)]
        forgotten = [process for process in processes if process.id not in small]  # the first to end, not to start
        assert len(forgotten) == 4
        for process in forgotten:
            with pytest.raises(procpool.ProcessNotFoundError):
                process.kill()


def test_ages_longer_than_a_timer_can_wait_are_no_error():
    """Three hundred years."""
    with procpool.ProcessManager(max_age_secs=1e10, idle_secs=10**400, cleanup_interval=1e10) as manager:
        process = manager.spawn("a", "true")
        assert process.exit_future().result(5) == process.wait(10**400) == 0


def test_what_is_written_little_by_little_keeps_a_process_from_being_idle():
    """One message that takes longer than the idle time."""
    script = "import os, time\nwhile os.read(0, 65536): time.sleep(0.2)"
    with procpool.ProcessManager(idle_secs=1, cleanup_interval=0.05) as manager:
        process = manager.spawn("a", [sys.executable, "-S", "-E", "-c", script])
        assert process.write(b"x" * 65536 * 10) == 65536 * 10


def test_nothing_can_be_pickled(spawn, manager):
    """It would be a process that is not there."""
    for thing in (manager, spawn("wait"), manager.agent("a")):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(thing)


def test_output_and_facts_can_be_pickled(spawn):
    """They are only data."""
    process = spawn("out:x\\n", "wait")
    process.expect("x", 5)
    for fact in (process.info(), process.tail(), process.kill()):
        assert pickle.loads(pickle.dumps(fact)) == fact


@pytest.mark.parametrize(
    ("half", "times"),
    [
        ("linux", 200),
        ("portable", 30),
        pytest.param("linux", 10_000, marks=[pytest.mark.stress, pytest.mark.timeout(900)]),
        pytest.param("portable", 1000, marks=[pytest.mark.stress, pytest.mark.timeout(900)]),
    ],
)
@pytest.mark.timeout(120)
def test_p41_cycles_leave_nothing(monkeypatch, half, times):
    """Threads, fds and memory stay flat over starts and kills."""
    monkeypatch.setenv("PROCPOOL_SYSTEM", half)
    with procpool.ProcessManager(max_per_agent=None, guardian=False) as manager:
        stay_flat(manager, times)


def stay_flat(manager, times):
    import os

    import psutil

    owner = psutil.Process()

    def cycle(count):
        for number in range(count):
            process = manager.spawn("a", "cat")
            if number % 2:
                process.send_line("x")
                process.expect("x", 5)
            process.kill()

    cycle(min(50, times // 2))
    gc.collect()
    fds, threads, memory = len(os.listdir("/proc/self/fd")), threading.active_count(), owner.memory_info().rss
    cycle(times)
    gc.collect()
    until(lambda: threading.active_count() <= threads, "no thread more")
    assert len(os.listdir("/proc/self/fd")) <= fds
    assert owner.memory_info().rss - memory < 4_000_000


def test_p41_idle_threads_end():
    """Without a close, when nothing is left to serve; the next start has them again."""
    manager = procpool.ProcessManager()
    for _ in range(2):
        process = manager.start("a", "true")
        manager.wait(process, 5)
        until(lambda: not [t for t in threading.enumerate() if t.name.startswith("procpool-r")], "no reader")
        until(lambda: not [t for t in threading.enumerate() if t.name.startswith("procpool-h")], "no housekeeper")


def test_p43_a_fault_ends_the_streams_of_that_process_alone(spawn):
    """It stands in `info().error`; everything else goes on."""
    process, other = spawn("copy"), spawn("copy")
    buffer = process._child.buffers["stdout"]

    class Broken(type(buffer)):
        def append(self, *_):
            raise MemoryError("no room")

    process._child.channels[0].buffer = process._child.buffers["stdout"] = Broken()
    process.send_line("x")
    until(lambda: process.info().error, "the error")
    assert process.info().error == "MemoryError: no room"
    assert process.alive
    other.send_line("y")
    other.expect("y", 5)
    with pytest.raises(procpool.EndOfOutputError):
        process.expect("x", 5)
    process.kill()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_p43_if_the_reader_dies_every_waiter_gets_an_error():
    """And new starts are refused: nothing hangs; the trees can still be ended."""
    manager = procpool.ProcessManager()
    process = manager.spawn("a", child("wait"))
    errors = []

    def wait():
        try:
            process.wait()
        except procpool.ProcpoolError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: process._child.waiters, "a sleeper")

    def die():
        raise SystemError("broken")

    manager._pool.reader.call_unlocked(die)
    thread.join(5)
    assert "the reader thread died: SystemError('broken')" in str(errors[0])
    with pytest.raises(procpool.StartError, match="the reader thread died"):
        manager.start("a", "true")
    with pytest.raises(procpool.ProcpoolError, match="can no longer be watched"):
        process.wait(1)
    assert manager.list()[0].error == "SystemError: broken"
    assert process.kill().returncode == -15
    manager.close()


HANDLERS = {
    "info": (lambda process: process.info(), lambda process: process._child.guard),
    "write": (lambda process: process.write("x"), lambda process: process._child.stdin.guard),
    "send_signal": (lambda process: process.send_signal(0), lambda process: process._child._pin),
    "start": (lambda process: process._manager.start("a", "true"), lambda process: process._child.reader._guard),
    "start, registry": (lambda process: process._manager.start("a", "true"), lambda process: process._pool.guard),
    "kill": (lambda process: process._manager.kill_all(), lambda process: process._child.guard),
    "kill, writing": (lambda process: process._manager.kill_all(), lambda process: process._child.stdin.guard),
    "kill, reading": (lambda process: process.kill(), lambda process: process._child.channels[0].guard),
}


@pytest.mark.parametrize("case", HANDLERS)
def test_a_verb_in_a_signal_handler_gets_an_error_instead_of_a_hang(spawn, manager, case, monkeypatch):
    """Where its own thread is inside the lock that the verb needs; elsewhere it works, and nothing is left behind."""
    monkeypatch.setattr("procpool.guard.PATIENCE_SECS", 0.05)
    process = spawn("wait")
    verb, guard_of = HANDLERS[case]
    caught = []

    def handler(*_):
        try:
            verb(process)
        except RuntimeError as error:
            caught.append(str(error))

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        guard = guard_of(process)
        me = guard.check()
        with guard.lock:
            guard.holder = me
            signal.raise_signal(signal.SIGUSR1)
        assert len(caught) == 1
        assert "signal handler" in caught[0]
        signal.raise_signal(signal.SIGUSR1)
        assert len(caught) == 1
    finally:
        signal.signal(signal.SIGUSR1, before)
    until(lambda: manager._pool.total <= 2, "no slot of what failed")


def test_the_default_manager_has_no_limit():
    """`procpool.spawn` is for people who hold one process."""
    processes = [procpool.spawn("cat") for _ in range(7)]
    assert len({process.id for process in processes}) == 7
    assert processes[0].agent_id == "me"


@pytest.fixture
def late(monkeypatch):
    """Hold the reader's threads up, until it is set."""
    gate = threading.Event()
    run = Reader._run

    def run_late(self):
        gate.wait(10)
        run(self)

    monkeypatch.setattr(Reader, "_run", run_late)
    yield gate
    gate.set()


def test_p35_a_close_that_overtakes_the_reader_leaves_no_fd(late):
    """1 a start makes the reader's thread; 2 it fails, and the manager is closed; 3 the thread gets to run."""
    before = our_fds()
    manager = procpool.ProcessManager(guardian=False)
    with pytest.raises(procpool.StartError):
        manager.start("a", "no-such-command")
    manager.close()
    late.set()
    until(lambda: not our_threads(), "the end of the threads")
    assert our_fds() <= before


def test_starts_that_overtake_the_reader_are_served(late):
    """1 a start makes the reader's thread, and watches its fds; 2 another one finds no thread yet, and makes one."""
    with procpool.ProcessManager() as manager:
        processes = [manager.spawn("a", child(f"out:{number}", "exit:0")) for number in range(3)]
        late.set()
        for number, process in enumerate(processes):
            assert process.wait(10) == 0
            assert process.read().text == str(number)


def test_a_close_that_overtakes_the_reader_and_a_start_leaves_nothing(late, monkeypatch):
    """1 a start makes the reader's thread; 2 the manager is closed; 3 the start goes on; 4 the thread gets to run."""
    before = our_fds()
    manager = procpool.ProcessManager(guardian=False)
    begun, closed = threading.Event(), threading.Event()
    count = manager._pool._fork_count

    def count_late():
        begun.set()
        closed.wait(10)
        return count()

    monkeypatch.setattr(manager._pool, "_fork_count", count_late)
    errors = []

    def start():
        try:
            manager.start("a", child("wait"))
        except procpool.ManagerClosedError as error:
            errors.append(error)

    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    assert begun.wait(10)
    manager.close()
    closed.set()
    late.set()
    until(lambda: errors, "the end of the start")
    until(lambda: not our_threads(), "the end of the threads")
    assert our_fds() <= before


def test_p43_a_start_that_cannot_be_watched_harms_nobody_else():
    """The kernel takes no more fds to watch (fs.epoll.max_user_watches, or memory)."""

    class Full:
        """Refuses all that is new."""

        def __init__(self, poller):
            self._poller = poller

        def __getattr__(self, name):
            return getattr(self._poller, name)

        def register(self, fd, mask):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with procpool.ProcessManager(guardian=False) as manager:
        process = manager.spawn("a", child("out:up\\n", "line", "out:fine\\n", "exit:0"))
        process.expect("up", 10)  # the thread has begun: before, it would register its own fd with the other poller
        reader = manager._pool.reader
        before, poller = our_fds(), reader._poller
        reader._poller = Full(poller)
        with pytest.raises(procpool.StartError, match="No space left"):
            manager.start("a", child("wait"))
        reader._poller = poller
        process.send_line()
        assert process.wait(10) == 0
        assert process.read().text == "up\nfine\n"
        assert our_fds() <= before
        assert manager.spawn("a", child("exit:3")).wait(10) == 3


def test_a_python_without_epoll_does_as_well():
    """Some frameworks take it away. Then no other thread can add an fd while the reader's polls."""
    script = (
        "import select\ndel select.epoll\nimport procpool\n"
        "with procpool.ProcessManager() as manager:\n"
        "    for _ in range(8):\n"
        "        process = manager.spawn('a', 'echo', ['x'])\n"
        "        assert process.wait(5) == 0\n"
        "        assert process.read().text == 'x\\n'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_forgotten_while_it_is_ended_holds_up_nobody():
    """1 a close lists the processes; 2 the housekeeper forgets one, to make room; 3 the close waits for its `Exit`."""
    for _ in range(50):
        manager = procpool.ProcessManager(max_per_agent=None, keep_exited=0)
        for _ in range(6):
            manager.start("a", "true")
        manager.close()


def test_p37_a_start_behind_a_wait_finds_the_slot_free():
    """1 a kill sees the tree end; 2 the wait of somebody else returns; 3 that one starts; 4 the kill frees the slot."""
    with procpool.ProcessManager(1) as manager:
        for _ in range(10):
            process = manager.spawn("a", "sleep", ["50"])
            killer = threading.Thread(target=process.kill)
            killer.start()
            process.wait(10)
            manager.spawn("a", "true").wait(10)
            killer.join()
            manager.kill_all()


def test_p27_what_the_timer_ended_and_forgot_is_handed_out_once():
    """1 the timer ends it, and takes nothing; 2 it is forgotten, to make room; 3 a close asks how it ended."""
    with procpool.ProcessManager(keep_exited=0) as manager:
        process = manager.spawn("a", child("out:hello\\n", "wait"))
        process.expect("hello", 10)
        manager._pool.end([process._child], by="max_age", forget=False)
        until(lambda: process._child.forgotten, "that it is forgotten")
        found = manager._pool.end([process._child], by="close")[process.id]
        assert (found.ended_by, found.output.text + process.read().text) == ("max_age", "hello\n")


def test_what_a_stranger_held_open_is_forgotten_when_that_one_lets_go():
    """Nothing else happens then that would have the housekeeper look."""
    with procpool.ProcessManager(guardian=False, keep_exited=0) as manager:
        living = manager.start("a", child("wait"))
        manager.spawn("a", "sh", ["-c", "env -i setsid sleep 1 & sleep 0.2"]).wait(10)
        until(lambda: list(manager) == [living], "that it is forgotten")


def test_frameworks_can_read_the_hints_of_verbs_and_options():
    """Those that make a tool of any function look at its annotations, which are strings in the source."""
    hints = typing.get_type_hints(procpool.Process.ask)
    assert (hints["line"], hints["return"]) == (str, procpool.Output)
    options = typing.get_type_hints(procpool.StartOptions)
    assert options["pty"] is bool
    assert options["max_lines"] == typing.Optional[int]
    assert set(options) == set(inspect.signature(procpool.ProcessManager.start).parameters) - {
        "self", "agent_id", "command", "args"
    }  # fmt: skip
    assert not procpool.StartOptions.__required_keys__


def test_named_tuples_are_what_they_are_elsewhere():
    """Though they are made without `typing`: fields, defaults, methods, copies and pickles."""
    line = Position(3)
    assert line == (3, 0)
    assert line._replace(chars=4).chars == 4
    assert repr(line) == "Position(line=3, chars=0)"
    assert pickle.loads(pickle.dumps(line)) == line
    assert Position.__doc__
    assert Part.lines.__doc__
    with pytest.raises(TypeError):
        Position(1, 2, 3)
