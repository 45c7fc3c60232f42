"""The owner's end, in fresh interpreters: trees go, the interpreter ends in time, and quietly."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

import procpool
from conftest import CHILD, is_alive, living, until

SETUP = """
import os, signal, sys, threading, time
import procpool
manager = procpool.ProcessManager(idle_secs=60)
process = manager.spawn("a", "sh", ["-c", "sleep 61 & echo $! $$; exec sleep 62"])
print(process.expect(r"(\\d+) (\\d+)", 10)[0], flush=True)
flood = manager.spawn("a", "sh", ["-c", "ulimit -t 60; exec yes"])
threading.Thread(target=lambda: process.read(timeout=60), daemon=True).start()
"""

ENDINGS = {
    "end of the script": "",
    "sys.exit": "sys.exit(3)",
    "exception": "raise RuntimeError('boom')",
    "KeyboardInterrupt": "signal.signal(signal.SIGINT, signal.default_int_handler); signal.raise_signal(signal.SIGINT)",
    "a non-daemon thread blocks in a read": """
deaf = manager.spawn("a", "sh", ["-c", "trap '' TERM; echo up; read line"])  # else its end may come first
deaf.expect("up", 10)
deaf.read()
def blocked():
    try: deaf.read(timeout=60)
    except procpool.ManagerClosedError: print("closed", flush=True)
thread = threading.Thread(target=blocked)
thread.start()
while not deaf._child.waiters: pass
""",
    "the default manager": "procpool.spawn('sleep', ['60'])",
    "a non-daemon thread waits for a future": """
future = process.exit_future()
thread = threading.Thread(target=future.result)
thread.start()
""",
    "a pending kill that takes its time": """
process = manager.spawn("a", "sh", ["-c", "trap '' TERM; echo up; sleep 30; sleep 30"])
process.expect("up")
threading.Thread(target=lambda: process.kill(grace=20), daemon=True).start()
while process._child.claimed is None: pass
""",
    "a pending kill": "threading.Thread(target=lambda: process.kill(grace=2)).start()",
}


def run(script: str, timeout: float = 15) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=timeout
    )


@pytest.mark.parametrize("ending", ENDINGS)
def test_p14_the_interpreter_ends_in_time_and_quietly(ending):
    """With a flood, a blocked reader and an armed timer; every tree is gone."""
    begin = time.monotonic()
    done = run(SETUP + ENDINGS[ending])
    assert time.monotonic() - begin < 5
    pids = [int(word) for word in done.stdout.split() if word.isdecimal()]
    assert len(pids) == 2, done.stderr
    assert not [pid for pid in pids if is_alive(pid)]
    expected = {"sys.exit": 3, "exception": 1}.get(ending, 0)
    assert done.returncode in ((1, -2, 130) if ending == "KeyboardInterrupt" else (expected,)), done.stderr
    if ending not in ("exception", "KeyboardInterrupt"):
        assert done.stderr == ""
    else:
        assert done.stderr.count("Traceback") == 1
        assert "Exception ignored" not in done.stderr
    if "blocks in a read" in ending:
        assert "closed" in done.stdout


def test_p14_a_start_at_exit_is_refused_or_ended():
    """An atexit function that runs before ours may still start something."""
    done = run(
        "import atexit, procpool\natexit.register(lambda: procpool.spawn('sleep', ['60']))\nprocpool.spawn('cat')\n"
    )
    assert done.returncode == 0
    assert "Fatal" not in done.stderr


def test_p12_the_locks_of_modules_are_free_in_a_copy():
    """As if another thread had held them at the fork."""
    done = run(
        "import os, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "import concurrent.futures, procpool, procpool.lifetime\n"
        "procpool._guard.lock.acquire(); procpool.lifetime._guard.lock.acquire()\n"
        "pid = os.fork()\n"
        "if pid == 0: os._exit(procpool.spawn('true').wait(5))\n"
        "print(os.waitpid(pid, 0)[1])\n"
        "procpool._guard.lock.release(); procpool.lifetime._guard.lock.release()\n"
    )
    assert done.stdout == "0\n", done.stderr


def test_p12_a_used_manager_is_closed_in_a_fork():
    """Decided before any lock, naming both pids; the copy ends nothing at its exit."""
    done = run(
        "import os, sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "import procpool\n"
        "fresh = procpool.ProcessManager()\n"
        "manager = procpool.ProcessManager()\n"
        "process = manager.spawn('a', 'cat')\n"
        "manager._pool.guard.lock.acquire()\n"  # as if another thread had held it at the fork
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    for call in (manager.list, manager.close, process.read, lambda: manager.start('a', 'true'),\n"
        "        process.info, process.tail, lambda: list(process.follow(since='')), process.usage):\n"
        "        try: call()\n"
        "        except procpool.ManagerClosedError as error:\n"
        "            print(str(os.getpid()) in str(error) and str(os.getppid()) in str(error), flush=True)\n"
        "    print(fresh.start('a', 'true'), procpool.spawn('true').wait(5), flush=True)\n"
        "    fresh.close()\n"
        "    sys.exit(0)\n"
        "manager._pool.guard.lock.release()\n"
        "print('child', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        "process.send_line('alive')\n"
        "print(process.expect('alive', 5).line)\n"
    )
    assert done.stdout.split("\n") == ["True"] * 8 + ["proc_1 0", "child 0", "alive", ""], done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_handler_that_exits_is_a_normal_end(number):
    """The usual way to make a script end its trees at SIGTERM.

    It sleeps in slices: 1 it says "ready"; 2 `time.sleep` lets go of the GIL and waits for the reader thread to take
    it; 3 the signal comes, a flag is set; 4 the sleep begins, and nobody looks at the flag until it is over.
    """
    script = SETUP + (
        f"signal.signal({int(number)}, lambda *_: sys.exit(0))\n"
        "print('ready', flush=True)\n"
        "for _ in range(600): time.sleep(0.1)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    pids = [int(word) for word in owner.stdout.readline().split()]
    assert owner.stdout.readline() == "ready\n"
    os.kill(owner.pid, number)
    assert owner.wait(10) == 0
    owner.stdout.close()
    until(lambda: not any(map(is_alive, pids)), "the end of the trees")


PREFORK = """
import os, sys
import procpool

manager = procpool.ProcessManager(max_per_agent=None)  # made before the fork, used after it
processes = []

def app(environ, start_response):
    process = manager.spawn("web", [sys.executable, "-S", "-E", {program!r}, "out:up\\n", "wait"])
    process.expect("up", 10)
    processes.append(process)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{{os.getpid()}} {{manager.count()}}".encode()]
"""


def test_p12_a_prefork_web_host_has_a_manager_in_each_worker(tmp_path):
    """A real gunicorn with --preload and two workers; a worker that is killed takes its trees along, and so do all."""
    program = str(shutil.copy(CHILD, tmp_path / "witness.py"))
    (tmp_path / "prefork.py").write_text(PREFORK.format(program=program))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    argv = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--bind", f"127.0.0.1:{port}"]
    with procpool.ProcessManager() as manager:
        root = os.path.dirname(os.path.dirname(procpool.__file__))
        manager.start("host", [*argv, "prefork:app"], cwd=tmp_path, extra_env={"PYTHONPATH": root}, ready=port)
        counts: dict[int, int] = {}

        def both_have_answered():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as page:
                worker, count = map(int, page.read().split())
            assert count == counts.get(worker, 0) + 1
            counts[worker] = count
            return len(counts) == 2

        until(both_have_answered, "an answer of each worker")
        assert len(living(program)) == sum(counts.values())
        victim = next(iter(counts))
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(living(program)) == sum(counts.values()) - counts[victim], "the end of its trees", 5)
    assert not living(program)
