"""Ending: gone means gone, as soon as it is, and no later than promised."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

import procpool
from conftest import child, fork, is_alive, on, until
from procpool.system import linux, tree


def pids_of(process, count) -> list[int]:
    """Return the pids that members of a tree told: `NAME PID`."""
    return [int(process.expect(r"^\w+ (\d+)$", 10)[1]) for _ in range(count)]


TREES = {
    "childless": ["pid:root", "wait"],
    "child": [fork("pid:child", "wait"), "pid:root", "wait"],
    "grandchild": [fork(fork("pid:grandchild", "wait"), "wait"), "pid:root", "wait"],
    "own session": [fork("setsid", "pid:child", "wait"), "pid:root", "wait"],
    "ignores TERM": ["ignore:SIGTERM", fork("pid:child", "wait"), "pid:root", "wait"],
    "stopped": [fork("pid:child", "stop", "wait"), "pid:root", "wait"],
    "root exited": [fork("pid:child", "wait"), "pid:root", "exit:0"],
}


def test_p03_p04_an_obedient_child_costs_no_grace(spawn):
    """No fixed sleep: it is gone as soon as it is gone."""
    process = spawn(fork("pid:child", "wait"), "pid:root", "wait")
    pids_of(process, 2)
    begin = time.monotonic()
    ended = process.kill(grace=30)
    assert time.monotonic() - begin < 2
    assert (ended.returncode, ended.signal, ended.ended_by) == (-15, "SIGTERM", "kill")
    assert not ended.escalated


@pytest.mark.parametrize(
    "case", ["childless", "child", "grandchild", "own session", "ignores TERM", "stopped", "root exited"]
)
def test_p01_no_member_is_alive_when_kill_returns(spawn, case):
    """All but daemons and hoppers, on the portable half."""
    steps = TREES[case]
    process = spawn(*steps)
    pids = pids_of(process, 1 if case == "childless" else 2)
    if case == "root exited":
        process.wait(5)
    ended = process.kill(grace=0.2 if case == "ignores TERM" else 10)
    assert not [pid for pid in pids if is_alive(pid)]
    assert ended.survivors == ()
    assert {pid for pid in pids if pid != process.pid} <= set(ended.pids)
    assert ended.escalated == (case == "ignores TERM")


def test_p01_a_tree_of_a_hundred_is_gone(spawn):
    """Children of children."""
    script = (
        "import os, signal, time\n"
        "signal.alarm(90)\n"
        "for _ in range(99):\n"
        "    if os.fork() == 0:\n"
        "        signal.alarm(90)\n"
        "        if os.getpid() % 3 == 0: os.setsid()\n"
        "        print('member', os.getpid(), flush=True)\n"
        "        time.sleep(90)\n"
        "        os._exit(0)\n"
        "print('member', os.getpid(), flush=True)\n"
        "time.sleep(90)\n"
    )
    process = procpool.spawn(sys.executable, ["-S", "-E", "-c", script])
    pids = pids_of(process, 100)
    ended = process.kill()
    assert not [pid for pid in pids if is_alive(pid)]
    assert len(ended.pids) == 100


FIRST_THREAD_ENDS = """
import ctypes, os, signal, sys, threading, time
signal.alarm(60)  # which a fork clears
for number in range({"root": 0, "child": 1, "daemon": 2}[sys.argv[1]]):
    if os.fork():
        number or os.read(0, 1)
        os._exit(0)
    sys.argv[1] == "daemon" and number == 0 and os.setsid()
signal.alarm(60)
def serve():
    while open(f"/proc/{os.getpid()}/stat").read().split()[2] != "Z":
        time.sleep(0.001)  # between two looks
    os.write(1, b"member %d\\n" % os.getpid())
    time.sleep(60)
threading.Thread(target=serve).start()
ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not show a process by its first thread")
@pytest.mark.parametrize("who", ["root", "child", "daemon"])
def test_p01_a_process_whose_first_thread_has_ended_is_alive(manager, who):
    """Linux calls it a zombie as long as any other one lives, and shows neither its environment nor its fds."""
    if who == "daemon" and os.environ["PROCPOOL_SYSTEM"] == "portable":
        pytest.skip("daemons are found by their marks, on Linux alone")
    process = manager.spawn("tester", [sys.executable, "-S", "-E", "-c", FIRST_THREAD_ENDS, who])
    member = pids_of(process, 1)[0]
    if who == "daemon":
        one = process._child.tree.copy()
        one.seen = {}
        assert member in [entry.pid for entry in tree.alive([one], linux)[one]]  # by its mark alone
    ended = process.kill(grace=10)
    assert not os.path.exists(f"/proc/{member}/task") or len(os.listdir(f"/proc/{member}/task")) <= 1
    assert ended.survivors == ()
    assert ended.returncode == -signal.SIGTERM
    assert member in (process.pid, *ended.pids)


def test_p04_kill_comes_after_the_grace_and_not_before(spawn):
    """A member that ignores TERM has the whole grace."""
    process = spawn("ignore:SIGTERM", "out:ready\\n", "wait")
    process.expect("ready", 5)
    begin = time.monotonic()
    ended = process.kill(grace=0.4)
    assert 0.4 <= time.monotonic() - begin < 2.4
    assert ended.signal == "SIGKILL"
    assert ended.escalated


def test_p04_who_was_killed_just_now_has_a_moment_to_die(manager):
    """1 on a busy machine it takes all the time to stop a tree; 2 it is killed; 3 that takes long: no survivor."""
    large = (
        "import signal, time; signal.alarm(60); signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "x = bytearray(b'x') * (300 << 20); print('up', flush=True); time.sleep(60)"
    )
    process = manager.spawn("tester", [sys.executable, "-S", "-E", "-c", large])
    process.expect("up", 10)
    system = process._pool.system
    killed = threading.Event()

    class Busy:
        def __getattr__(self, name):
            return getattr(system, name)

        def fork_count(self):
            killed.wait(0.5)  # so long does each pass take

        def send(self, entry, *signals):
            if signal.SIGKILL in signals:
                killed.set()
            return system.send(entry, *signals)

    process._pool.system = Busy()
    ended = process.kill(grace=0)
    assert killed.is_set()
    assert ended.survivors == ()


def test_p04_the_output_of_the_clean_up_is_read(spawn):
    """What members say on their way out comes with the `Exit`."""
    process = spawn(on("SIGTERM", "out:bye\\n", "exit:7"), "out:ready\\n", "wait")
    process.expect("ready", 5)
    process.read()
    ended = process.kill()
    assert ended.output.stdout == ["bye"]
    assert ended.returncode == 7
    assert ended.ended_by == "kill"


def test_p04_a_stopped_tree_is_woken_for_its_term(spawn):
    """CONT follows TERM: it can clean up."""
    process = spawn(on("SIGTERM", "out:bye\\n", "exit:0"), "out:ready\\n", "stop", "wait")
    process.expect("ready", 5)
    until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, "a stopped process")
    assert process.kill(grace=10).output.stdout[-1] == "bye"


def test_p04_a_tree_that_is_looked_at_has_its_grace(spawn):
    """1 a thread looks for longer than the grace whether it is empty; 2 kill waits for that, and only then ends it."""
    process = spawn(fork(on("SIGTERM", "out:bye\\n", "exit:0"), "pid:child", "wait"), "pid:root", "exit:0")
    members = set(pids_of(process, 2)) - {process.pid}
    process.wait(5)
    pool = process._pool
    system = pool.system
    looks, go_on = threading.Event(), threading.Event()

    class Slow:
        def __getattr__(self, name):
            return getattr(system, name)

        def look(self, pid):
            if threading.current_thread() is looker:
                looks.set()
                assert go_on.wait(10)
            return system.look(pid)

    def look() -> bool:
        pool._look([process._child])  # nothing if the housekeeper is looking
        return looks.is_set()

    pool.system = Slow()
    looker = threading.Thread(target=until, args=(look, "a look"))
    looker.start()
    assert looks.wait(10)
    threading.Timer(1.2, go_on.set).start()
    ended = process.kill(grace=1)
    looker.join(10)
    assert ended.output.stdout[-1] == "bye"
    assert not ended.escalated
    assert members <= set(ended.pids)


def test_p05_callers_at_once_share_one_exit(spawn):
    """Eight threads: one ends it, all get the same; who comes later is told that there is none."""
    process = spawn(on("SIGTERM", "line", "exit:0"), "out:ready\\n", "wait")
    process.expect("ready", 5)
    exits = []
    threads = [threading.Thread(target=lambda: exits.append(process.kill(grace=5))) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: process._child.claimed and len(process._child.waiters) == 7, "a kill under way, and who waits for it")
    process.send_line()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert len({id(ended) for ended in exits}) == 1
    assert len(exits) == 8
    with pytest.raises(procpool.ProcessNotFoundError):
        process.kill()


def test_p06_nobody_else_is_touched(manager):
    """Another agent's process, an unmanaged one, and ourselves."""
    other = manager.spawn("other", "sleep", ["60"])
    unmanaged = subprocess.Popen(["sleep", "60"])
    process = manager.spawn("a", child("wait"))
    process.kill()
    manager.kill_all("a")
    assert other.alive
    assert is_alive(unmanaged.pid)
    unmanaged.kill()
    unmanaged.wait()


def zombies() -> list[int]:
    found = []
    for process in psutil.Process().children():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.NoSuchProcess:
            pass  # 1 it is listed; 2 it is reaped; 3 it is asked
    return found


def test_p06_a_dying_stranger_is_no_member_and_its_children_are_not(monkeypatch):
    """While a process is being reaped /proc says -1 for its session; a tree whose root is not known has that number."""
    stranger = subprocess.Popen(child(fork("out:up\\n", "wait"), "wait"), stdout=subprocess.PIPE)
    assert stranger.stdout.readline() == b"up\n"
    children = psutil.Process(stranger.pid).children()
    look = linux.look

    def look_as_it_is_reaped(pid):  # the moment is too short to be met: what the kernel says then, of a real process
        entry = look(pid)
        return entry._replace(group=-1, session=-1, dead=True) if pid == stranger.pid else entry

    monkeypatch.setattr(linux, "look", look_as_it_is_reaped)
    tree.end([tree.Tree(-1, "0.1.0.nobody", None)], linux, grace=0.0)
    monkeypatch.undo()
    assert len(children) == 1
    assert is_alive(children[0].pid)
    assert stranger.poll() is None
    for pid in (children[0].pid, stranger.pid):
        linux.send(linux.look(pid), signal.SIGKILL)
    stranger.wait()
    stranger.stdout.close()


def test_p07_no_zombie_is_left_and_nobody_needs_to_wait(manager):
    """Neither after a kill nor after an exit by itself."""
    process = manager.spawn("a", "true")
    process.wait(5)
    until(lambda: not zombies(), "no zombie")
    assert process.read().eof
    manager.spawn("a", "sleep", ["60"]).kill()
    assert not zombies()


def test_p07_quick_processes_are_reaped_whoever_is_first(manager):
    """The exit may be published before the process is registered: nobody may miss it."""
    for _ in range(100):
        manager.spawn("a", "true").wait(5)
        until(lambda: manager._pool.total == 0, "an empty tree", 5)


def test_p07_a_zombie_counts_as_dead(spawn):
    """A member that its parent never reaps does not hold a kill up."""
    process = spawn(fork("exit:0"), fork("pid:child", fork("exit:0"), "wait"), "pid:root", "wait")
    pids_of(process, 2)
    begin = time.monotonic()
    ended = process.kill(grace=10)
    assert time.monotonic() - begin < 2
    assert ended.survivors == ()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can have a child that it may not signal")
def test_p08_survivors_are_named_and_can_be_killed_again():
    """An owner without rights over a member: bounded, named, kept, repeatable."""
    # What is imported late comes before the change of uid, after which our library may be out of reach.
    script = """
import concurrent.futures, os, time
import psutil
import procpool, procpool.system.portable
manager = procpool.ProcessManager(grace=0.2, guardian=False)  # a guardian would keep its rights
process = manager.start("a", "cat")
os.setresuid(65534, 65534, 65534)
begin = time.monotonic()
ended = manager.kill(process)
assert 0.2 <= time.monotonic() - begin < 2.2, time.monotonic() - begin
assert ended.survivors == (manager[process].pid,), ended
assert ended.returncode is None and ended.escalated
assert process in manager and manager.list()[0].alive
assert manager.kill(process).survivors
manager.close_stdin(process)
assert manager.wait(process) == 0
assert manager.kill(process).survivors == ()
assert process not in manager
print("bounded")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=15)
    assert done.stdout == "bounded\n", done.stderr


def test_p08_a_busy_owner_s_kill_takes_at_most_twenty_times_as_long():
    """A tree, ended beside a thread that computes all the time (a lone root is slower; see gotchas)."""
    argv = child(*[fork("out:up\\n", "wait")] * 20, "wait")
    script = f"""
import statistics, sys, threading, time
import procpool
def seconds():
    times = []
    for _ in range(3):
        process = manager.spawn("a", {argv!r})
        for _ in range(20): process.expect("up", 10)
        begin = time.perf_counter()
        assert not process.kill().survivors
        times.append(time.perf_counter() - begin)
    return statistics.median(times)
over = threading.Event()
def spin():
    while not over.is_set(): sum(range(1000))
with procpool.ProcessManager() as manager:
    idle = seconds()
    threading.Thread(target=spin).start()
    try: busy = seconds()
    finally: over.set()
print(busy / idle)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=18)
    assert 0 < float(done.stdout) <= 20, done.stderr


def test_p09_no_side_effect_on_the_owner():
    """No signal handler, no wait for strangers, no change of what the owner has."""
    script = """
import os, resource, signal, subprocess, threading
def facts():
    umask = os.umask(0); os.umask(umask)
    handlers = [signal.getsignal(n) for n in sorted(signal.valid_signals())]
    return (dict(os.environ), os.getcwd(), umask, handlers, signal.pthread_sigmask(signal.SIG_BLOCK, ()),
            [resource.getrlimit(n) for n in range(16)], os.getpgid(0), os.getsid(0))
before = facts()
stranger = subprocess.Popen(["sh", "-c", "exit 3"])
import procpool
with procpool.ProcessManager() as manager:
    process = manager.start("a", "cat")
    manager.send_line(process, "x")
    manager.expect(process, "x")
    assert facts() == before
    manager.kill(process)
    quick = manager.start("a", "true")
    manager.wait(quick)
assert facts() == before
assert stranger.wait() == 3
print("untouched", threading.active_count())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=15)
    assert done.stdout == "untouched 1\n", done.stderr


HOSTS = {
    "SIGCHLD ignored": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "a foreign reaper": """
def reap():
    while True:
        try: os.wait()
        except ChildProcessError: time.sleep(0.0005)
threading.Thread(target=reap, daemon=True).start()
""",
    "SIGPIPE at its default": "signal.signal(signal.SIGPIPE, signal.SIG_DFL)",
    "another thread": "",
}


@pytest.mark.parametrize(("half", "guardian"), [("linux", True), ("linux", False), ("portable", False)])
@pytest.mark.parametrize("host", HOSTS)
def test_p09_p40_it_works_in_any_host(monkeypatch, half, host, guardian):
    """Trees end, exits are seen, and a code is true or None, never a false 0."""
    monkeypatch.setenv("PROCPOOL_SYSTEM", half)
    script = f"""
import os, signal, sys, threading, time
import procpool
def main():
    with procpool.ProcessManager(max_per_agent=None, guardian={guardian}) as manager:
        for number in range(6):
            failing = manager.spawn("a", "sh", ["-c", "exit 3"])
            assert failing.wait(10) in (3, None), failing.returncode
            assert failing.info().ended_by == "self" and not failing.alive
            tree = manager.spawn("a", "sh", ["-c", "sleep 50 & sleep 51 & echo up; read line; exit 4"])
            tree.expect("up", 10)
            if number % 2:
                tree.send_line()
                assert tree.wait(10) in (4, None), tree.returncode
            try:
                tree.close_stdin()
                tree.write("too late")
            except procpool.StdinClosedError:
                pass
            ended = tree.kill()
            assert ended.survivors == () and ended.returncode in (4, -15, None), ended
            assert not any(os.path.exists(f"/proc/{{pid}}/exe") for pid in ended.pids), ended.pids
        codes.append(failing.returncode)
codes = []
{HOSTS[host]}
if {host == "another thread"}:
    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
else:
    main()
print("works", codes)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=18)
    assert done.stdout.startswith("works"), done.stderr
    if host in ("SIGPIPE at its default", "another thread"):
        assert done.stdout == "works [3]\n"


def test_p09_a_host_that_ignores_sigint_does_not_pass_it_on(tmp_path):
    """As one does that a script started with `&`; the errors stay what they are."""
    script = """
import errno, os, shutil, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
import procpool
with procpool.spawn("sh", ["-c", "grep SigIgn /proc/$$/status; exec sleep 60"]) as process:
    ignored = int(process.expect(r"SigIgn:\\s+([0-9a-f]+)", 10)[1], 16)
    print(ignored >> (signal.SIGINT - 1) & 1)
    process.interrupt()
    print(process.wait(10))
with procpool.spawn("./sh", ["-c", "grep SigIgn /proc/$$/status; exec sleep 60"], cwd=os.path.dirname(shutil.which("sh"))) as process:
    ignored = int(process.expect(r"SigIgn:\\s+([0-9a-f]+)", 10)[1], 16)
    print(ignored >> (signal.SIGINT - 1) & 1)
with open("unknown", "wb") as file:
    file.write(b"\\0\\1 of no known kind")
os.chmod("unknown", 0o755)
try:
    procpool.spawn("./unknown")
except procpool.StartError as error:
    print(error.errno == errno.ENOEXEC)
try:
    procpool.spawn("no-such-command")
except procpool.CommandNotFoundError as error:
    print(error.command)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=15)
    assert done.stdout == "0\n-2\n0\nTrue\nno-such-command\n", done.stderr


def test_p09_p13_any_thread_may_start_and_its_end_ends_nothing(manager):
    """A process outlives the thread that started it."""
    started = []
    thread = threading.Thread(target=lambda: started.append(manager.spawn("a", "cat")))
    thread.start()
    thread.join()
    process = started[0]
    process.send_line("still here")
    process.expect("still here", 5)


def test_p10_the_kill_program_is_never_run_and_small_pids_never_signalled(manager):
    """The portable half refuses a pid <= 1 outright."""
    from procpool.system import Entry, portable

    for pid in (1, 0, -1):
        with pytest.raises(ValueError, match="no signal"):
            portable.send(Entry(pid, 0, 0, 0, 0.0, False), signal.SIGTERM)
    import pathlib

    for path in pathlib.Path(procpool.__file__).parent.rglob("*.py"):
        source = path.read_text()
        for word in ('"kill"]', "'kill'", "pkill", "killall", "shell=True", "os.system"):
            assert word not in source, (path, word)


def test_a_pid_with_another_start_is_not_signalled():
    """A pid alone is no identity."""
    from procpool.system import portable

    stranger = subprocess.Popen(["sleep", "60"])
    entry = portable.look(stranger.pid)
    assert not portable.send(entry._replace(start=entry.start - 1), signal.SIGTERM)
    assert stranger.poll() is None
    assert portable.send(entry, signal.SIGTERM)
    stranger.wait()
    assert not portable.send(entry, signal.SIGTERM)


def test_kill_forgets_and_the_object_still_answers(spawn, manager):
    """By id it is gone; what is in the hand tells how it ended."""
    process = spawn("out:a\\nb\\n", "wait")
    process.expect("b", 5)
    cursor = process.read(max_lines=1).cursor
    ended = process.kill()
    assert ended.output.stdout == ["b"]
    assert process.id not in manager
    assert manager.list() == []
    with pytest.raises(procpool.ProcessNotFoundError):
        manager.read(process.id)
    assert process.returncode == -15
    assert not process.alive
    assert process.info().ended_by == "kill"
    assert process.tail().stdout == ["a", "b"]
    assert process.read(since=cursor).stdout == ["b"]
    with pytest.raises(procpool.StdinClosedError):
        process.write("x")
    process.send_signal(signal.SIGKILL)
    process.interrupt()
    process.terminate()
    assert "exited -15" in repr(process)


def test_terminate_asks_the_whole_tree_and_forgets_nothing(spawn, manager):
    """The process stays listed, with how it ended."""
    process = spawn(
        fork(on("SIGTERM", "out:child bye\\n", "exit:0"), "wait"),
        on("SIGTERM", "out:root bye\\n", "exit:0"),
        "out:ready\\n",
        "wait",
    )
    process.expect("ready", 5)
    process.terminate()
    process.expect("root bye", 5)
    assert process.wait(5) == 0
    assert manager.info(process.id).ended_by == "terminate"
    assert process.id in manager


def test_send_signal_reaches_the_root(spawn):
    """Like `Popen.send_signal`."""
    process = spawn(on("SIGUSR1", "out:usr1\\n"), "out:ready\\n", "wait")
    process.expect("ready", 5)
    process.send_signal(signal.SIGUSR1)
    process.expect("usr1", 5)
    process.send_signal(signal.SIGKILL)
    assert process.wait(5) == -9
    assert process.info().ended_by == "signal"
    process.send_signal(signal.SIGTERM)
    for wrong, error in (("TERM", TypeError), (True, TypeError), (9999, ValueError), (-9, ValueError)):
        with pytest.raises(error, match="sig"):
            process.send_signal(wrong)


def test_interrupt_reaches_the_root_s_group(spawn):
    """As Ctrl-C does: the child in the same group gets it as well."""
    process = spawn(
        on("SIGINT", "out:root int\\n"), fork(on("SIGINT", "out:child int\\n"), "pid:child", "wait"), "pid:root", "wait"
    )
    pids_of(process, 2)
    process.interrupt()
    process.expect("root int", 5)


def test_exit_tells_everything(spawn):
    """As JSON, and on one line."""
    process = spawn("out:x\\n", "wait")
    process.expect("x", 5)
    ended = process.kill()
    found = ended.to_dict()
    assert found["signal"] == "SIGTERM"
    assert found["output"]["stdout"] == ["x"]
    assert found["pids"] == [process.pid]
    assert repr(ended) == "<Exit SIGTERM, ended by kill>"
    assert procpool.Exit(0, ended.output, "self").signal is None
    assert procpool.Exit(-64, ended.output, "signal").signal in ("SIGRTMAX", "signal 64")
    assert procpool.Exit(-50, ended.output, "signal").signal == "signal 50"


@pytest.mark.parametrize(("grace", "error"), [(-1, ValueError), ("1", TypeError), (float("inf"), ValueError)])
def test_wrong_graces_are_named(spawn, grace, error):
    """And nothing is ended."""
    process = spawn("wait")
    with pytest.raises(error, match="grace"):
        process.kill(grace=grace)
    assert process.alive


@pytest.mark.parametrize("guardian", [True, False])
def test_p01_p08_few_fds_keep_no_tree_alive(guardian):
    """A tree with more members than the owner may have fds, all of which ignore TERM."""
    argv = child("ignore:SIGTERM", *[fork("out:up\\n", "wait")] * 80, "wait")
    script = f"""
import resource, time
import procpool
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
manager = procpool.ProcessManager(grace=0.3, guardian={guardian})
process = manager.spawn("a", {argv!r})
for _ in range(80): process.expect("up", 10)
begin = time.monotonic()
ended = process.kill()
assert time.monotonic() - begin < 2.3
assert len(ended.pids) == 81 and not ended.survivors, ended
manager.close()
print("all gone")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=18)
    assert done.stdout == "all gone\n", done.stderr


def test_a_large_grace_is_no_error(spawn):
    """Whatever it is, an obedient tree costs none of it."""
    assert spawn("wait").kill(grace=1e10).survivors == ()
    process = spawn(fork("out:up\\n", "wait"), "wait")
    process.expect("up", 10)
    assert process.kill(grace=1e10).survivors == ()


def test_wait_times_out(spawn):
    """The process lives on."""
    process = spawn("wait")
    begin = time.monotonic()
    with pytest.raises(procpool.TimeoutExpired, match="its exit"):
        process.wait(0.05)
    assert 0.05 <= time.monotonic() - begin < 1
    assert process.alive
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0)


@pytest.mark.parametrize(("steps", "code"), [(["exit:0"], 0), (["exit:3"], 3), (["suicide:SIGSEGV"], -11)])
def test_p40_exit_codes_are_true(spawn, steps, code):
    """Or minus the signal."""
    process = spawn(*steps)
    assert process.wait(10) == code
    assert process.returncode == code
    assert process.info().ended_by == ("signal" if code < 0 else "self")
    assert process.kill().ended_by == ("signal" if code < 0 else "self")


def test_leaving_the_block_ends_the_tree(spawn):
    """Also after an error, and after a kill inside."""
    with pytest.raises(RuntimeError, match="boom"), spawn("wait") as process:
        raise RuntimeError("boom")
    assert not process.alive
    with spawn("wait") as process:
        process.kill()
