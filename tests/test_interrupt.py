"""Ctrl-C at any instruction, in fresh interpreters: nothing is left, nothing is stuck."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import threading

import pytest

from conftest import CHILD
from procpool.duty import Duties, Duty

STARTS = """
import os, random, signal, sys, threading, time
sys.path.insert(0, {tests!r})
import procpool
from conftest import living, until

def fds():
    found = {{}}
    for fd in os.listdir("/proc/self/fd"):
        try: found[fd] = os.readlink("/proc/self/fd/" + fd)
        except OSError: pass
    return found

signal.signal(signal.SIGALRM, signal.default_int_handler)
program = {program!r}
chance = random.Random({seed})
manager = procpool.ProcessManager(max_per_agent=None, guardian={guardian})
manager.spawn("a", "cat").kill()
before = fds()
interrupted = 0
deadline = time.monotonic() + 60  # the programs end by themselves after 100 s, and their slots are free then
rounds = 0
# Where a start takes less than a millisecond, most are over before Ctrl-C comes: then there are more of them.
while rounds < {times} or (interrupted <= {times} / 10 and rounds < {times} * 20):
    if time.monotonic() > deadline: break
    rounds += 1
    try:
        # A start takes about a millisecond; Ctrl-C may come at any moment of it.
        signal.setitimer(signal.ITIMER_REAL, chance.random() * 0.0015 + 1e-6)
        process = manager.spawn("a", [sys.executable, "-S", "-E", program, "wait"])
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupted += 1
signal.setitimer(signal.ITIMER_REAL, 0)
try:  # 1 the timer goes off; 2 we turn it off; 3 the thread that the kernel gave the signal to gets to run
    signal.signal(signal.SIGALRM, lambda *_: None)
except KeyboardInterrupt:
    signal.signal(signal.SIGALRM, lambda *_: None)
assert interrupted > {times} / 10, interrupted
listed = {{info.pid for info in manager.list()}}
until(lambda: not set(living(program)) - listed, "no process that nobody knows")
until(lambda: manager._pool.total == manager.count(), f"{{manager._pool.total}} slots, {{manager.count()}} processes")
manager.close()
assert not living(program) and not manager._pool.total
threads = lambda: [t.name for t in threading.enumerate() if t.name.startswith("procpool")]
until(lambda: not threads(), f"no thread of {{threads()}}")
# Popen's own pipe may stay, if Ctrl-C comes before Popen has a name for it.
left = [link for fd, link in fds().items() if fd not in before]
assert all(link.startswith("pipe:") for link in left) and len(left) < 2 + rounds / 10, left
print("nothing left")
"""


def run(script: str, timeout: float, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    command = [sys.executable, "-W", "ignore", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("guardian", [True, False])
@pytest.mark.parametrize("times", [25, pytest.param(2000, marks=pytest.mark.stress)])
def test_p35_an_interrupted_start_leaves_nothing(system, guardian, times, tmp_path):
    """No process, slot, thread or fd, wherever in the start Ctrl-C came."""
    program = str(shutil.copy(CHILD, tmp_path / "witness.py"))
    seed = random.randrange(10**6)
    script = STARTS.format(tests=os.path.dirname(CHILD), program=program, seed=seed, guardian=guardian, times=times)
    done = run(script, 110)
    assert done.stdout == "nothing left\n", f"seed {seed}\n{done.stderr}"


def test_p35_what_cannot_be_finished_now_is_finished_later():
    """A start that fails in any thread is taken back by the housekeeper, if there are no fds at that moment."""
    tried = []

    def finish():
        tried.append(threading.current_thread())
        if len(tried) == 1:
            raise OSError(errno.EMFILE, "no more fds")

    duties = Duties(lambda: None)
    thread = threading.Thread(target=Duty(finish, duties).hand_over, daemon=True)
    thread.start()
    thread.join()
    assert tried == [thread]
    assert duties
    duties.finish()
    assert tried == [thread, threading.current_thread()]
    assert not duties


STORM = """
import os, random, signal, sys, threading, time
sys.path.insert(0, {tests!r})
import procpool
from conftest import living, until

signal.signal(signal.SIGINT, signal.default_int_handler)  # a host started with `&` has it ignored
chance = random.Random({seed})
program = {program!r}
argv = [sys.executable, "-S", "-E", program]
manager = procpool.ProcessManager(max_per_agent=None, grace=0.5)
talker = manager.spawn("b", argv + ["copy"])
writer = manager.spawn("c", argv + ["lines:900", "out:done\\n", "wait"])
writer.expect("done", 10)
over = threading.Event()
failures = []

def talk():  # in a thread that no Ctrl-C reaches: whatever the main thread does, no lock is ever held for long
    number = 0
    while not over.is_set():
        number += 1
        try:
            talker.send_line(f"number {{number}}", timeout=5)
            talker.expect(f"number {{number}}$", 5)
            manager.list()
        except BaseException as error:
            failures.append(error)
            return

def storm():
    while not over.wait(chance.uniform(0.0005, 0.006)):
        os.kill(os.getpid(), signal.SIGINT)

def verbs():
    process = manager.spawn("a", argv + ["out:hello\\n", "copy"])
    yield
    process.expect("hello", 5); yield
    process.send_line("x" * chance.choice((1, 5000)), timeout=5); yield
    process.read(timeout=0.01); yield
    process.tail(); process.info(); manager.list("a"); manager.count(); yield
    writer.read(since=""); yield
    try: process.expect("never", 0.02)
    except procpool.TimeoutExpired: pass
    yield
    try: process.wait(0.01)
    except procpool.TimeoutExpired: pass
    yield
    for line in process.follow(timeout=5): break
    yield
    manager.wait_any([process.id, talker.id], output=True, quiet=0.01, timeout=5); yield
    try: manager.wait_any([process.id], pattern="never", timeout=0.01)
    except procpool.TimeoutExpired: pass
    yield
    process.usage(); future = process.exit_future(); yield
    if chance.random() < 0.2: process.communicate(timeout=5); yield
    process.interrupt() if chance.random() < 0.2 else process.terminate(); yield
    manager.cleanup(); yield
    process.close_stdin() if chance.random() < 0.5 else process.kill(); yield
    manager.kill_all("a"); yield
    with procpool.ProcessManager(guardian=False) as another:
        another.start("a", argv + ["wait"]); yield

threads = [threading.Thread(target=talk), threading.Thread(target=storm)]
interrupted = rounds = 0
end = time.monotonic() + {seconds}
try:
    for thread in threads: thread.start()
except KeyboardInterrupt:
    pass
while time.monotonic() < end:
    try:
        while time.monotonic() < end:
            steps = verbs()
            while True:
                try:
                    next(steps)
                except StopIteration:
                    break
                except procpool.ProcessNotFoundError:
                    break  # it was interrupted after it had killed
                except KeyboardInterrupt:
                    interrupted += 1
                    if not steps.gi_frame: break
            rounds += 1
    except KeyboardInterrupt:
        interrupted += 1
while True:
    try:
        over.set()
        for thread in threads: thread.join()
        break
    except KeyboardInterrupt:
        pass
signal.signal(signal.SIGINT, signal.SIG_IGN)
assert not failures, failures
assert interrupted > 10 * {seconds}, interrupted
assert writer.read(since="").stdout == [f"line {{n}}" for n in range(900)] + ["done"]
talker.send_line("the last one")
talker.expect("the last one", 5)
begin = time.monotonic()
for process_id in list(manager):
    manager.kill(process_id)
manager.close()
assert time.monotonic() - begin < 10
until(lambda: not living(program), "no process")
print("unharmed")
"""


ASKS = """
import random, signal, sys, threading, time
import procpool

COUNTER = '''
import os, signal
signal.alarm(100)
count = 0
rest = b""
os.write(1, b"> ")
while True:
    data = os.read(0, 4096)
    if not data: break
    *lines, rest = (rest + data).split(b"\\\\n")
    for line in lines:
        for _ in range(int(line)):
            os.write(1, b"line %d\\\\n" % count)
            count += 1
        os.write(1, b"> ")
'''

def interrupt(*_):
    if armed:
        armed.clear()
        raise KeyboardInterrupt

def storm():
    # Now and then there is time for an answer, also where one takes longer than the shorter pauses.
    while not over.wait(chance.uniform(0, chance.choice([0.003, 0.003, 0.003, 0.03]))):
        if armed: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

def follow():
    lines.extend(process.follow(since="", timeout=60))

armed = []
over = threading.Event()
chance = random.Random({seed})
signal.signal(signal.SIGINT, interrupt)
asked = interrupted = 0
lines = []
with procpool.ProcessManager(guardian=False) as manager:
    process = manager.spawn("a", [sys.executable, "-S", "-E", "-c", COUNTER], merge_stderr=True)
    threads = [threading.Thread(target=target, daemon=True) for target in (storm, follow)]
    for thread in threads: thread.start()
    end = time.monotonic() + {seconds}
    # Beside busy programs it takes longer until enough of both has happened.
    while time.monotonic() < end or (min(asked, interrupted) <= 10 and time.monotonic() < end + 50):
        size = chance.choice([1, 2, 5, 30])
        try:
            armed.append(True)
            answer = process.ask(str(size), 10)
            armed.clear()
        except KeyboardInterrupt:
            interrupted += 1
            continue
        assert len(answer.stdout) == size and not answer.partial.stdout, answer
        asked += 1
    over.set()
    process.close_stdin()
    for thread in threads: thread.join()
    numbers = [int(line.text.rpartition(" ")[2]) for line in lines[:-1]]  # the last one is a prompt
    assert numbers == list(range(len(numbers))), "bytes are missing, or came twice"
    assert not any(line.dropped for line in lines) and len(lines) == process.info().lines.stdout
assert asked > 10 and interrupted > 10, (asked, interrupted)
print("nothing lost")
"""


@pytest.mark.timeout(120)
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere an asker reads nothing itself")
@pytest.mark.parametrize("seconds", [2, pytest.param(30, marks=pytest.mark.stress)])
def test_p44_ctrl_c_in_an_ask_loses_nothing(seconds):
    """What an asker has read itself, when it is interrupted, is in the buffer all the same, once and in its place."""
    seed = random.randrange(10**6)
    done = run(ASKS.format(seed=seed, seconds=seconds), 100, PROCPOOL_SYSTEM="linux")
    assert done.stdout == "nothing lost\n", f"seed {seed}\n{done.stderr}"


@pytest.mark.timeout(120)
@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.9 and 3.10 break plain assignments apart; see gotchas")
@pytest.mark.parametrize("seconds", [1, pytest.param(10, marks=pytest.mark.stress)])
def test_p44_a_storm_of_ctrl_c_harms_nothing(system, seconds, tmp_path):
    """SIGINT every few milliseconds over all verbs: no lock is held, no process left, no byte lost."""
    program = str(shutil.copy(CHILD, tmp_path / "witness.py"))
    seed = random.randrange(10**6)
    script = STORM.format(tests=os.path.dirname(CHILD), program=program, seed=seed, seconds=seconds)
    done = run(script, 100)
    assert done.stdout == "unharmed\n", f"seed {seed}\n{done.stderr}"
