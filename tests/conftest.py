"""The harness: the manager under test, the child program, and the proof that nothing leaks."""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

import procpool

# A host that exports this would hide from us that programs hold their output back.
os.environ.pop("PYTHONUNBUFFERED", None)

CHILD = str(Path(__file__).with_name("child.py"))


def child(*steps: str) -> list[str]:
    """Return the argv of the child program; -S and -E let it start twice as fast."""
    return [sys.executable, "-S", "-E", CHILD, *steps]


def fork(*steps: str) -> str:
    """Make the step that runs other steps in a child of the child."""
    return f"fork:{json.dumps(steps)}"


def on(signal: str, *steps: str) -> str:
    """Make the step that runs other steps when a signal comes."""
    return f"on:{signal}:{json.dumps(steps)}"


def our_threads() -> list[str]:
    # procpool-exit joins the main thread: there is one for the whole life of the process.
    return [t.name for t in threading.enumerate() if t.name.startswith("procpool") and t.name != "procpool-exit"]


def our_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def our_children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def guardians(owner: int) -> list[psutil.Process]:
    """Return the helpers that guard a process."""
    found = []
    for name in os.listdir("/proc"):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0") if name.isdecimal() else []
            if (
                len(words) > 5
                and words[3].endswith(b"guardian.py")
                and words[5] == b"%d" % owner
                and is_alive(int(name))
            ):
                found.append(psutil.Process(int(name)))
        except (OSError, psutil.NoSuchProcess):
            pass  # it went meanwhile
    return found


def until(condition, what: str, seconds: float = 10.0):
    """Wait until a condition holds that nothing tells us about. Fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.005)  # between two looks at a condition; never in place of one


def is_alive(pid: int) -> bool:
    """Say whether a process lives, by a witness that is not procpool."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def living(program: str) -> list[int]:
    """The witness: whoever runs the private copy of the program and is no zombie."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            try:
                words = Path(f"/proc/{name}/cmdline").read_bytes()
                state = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if program.encode() in words.split(b"\0") and state not in "ZX":
                found.append(int(name))
    return found


def pytest_collection_finish():
    # A collection after each test would go through all of pytest and hypothesis each time.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_leaks():
    """Every test leaves as many threads, fds and children as it found."""
    fds, children = our_fds(), our_children()
    yield
    if procpool._manager is not None:
        procpool._manager.close()
    gc.collect()
    until(lambda: not our_threads(), "no thread of ours")
    until(lambda: not guardians(os.getpid()), "no guardian of ours")
    left = our_children() - children
    assert not left, f"left behind: {left}"
    until(lambda: len(our_fds()) <= len(fds), f"no more fds than {sorted(fds)}")


@pytest.fixture(params=["linux", "portable"])
def system(request, monkeypatch):
    """Run a test over both halves of the OS seam."""
    monkeypatch.setenv("PROCPOOL_SYSTEM", request.param)
    return request.param


@pytest.fixture
def manager(system):
    # The guardian has tests of its own; starting one for each test would double the time of the suite.
    with procpool.ProcessManager(max_per_agent=None, guardian=False) as manager:
        yield manager


@pytest.fixture
def spawn(manager):
    """Start the child program with steps: `spawn("out:hello", "wait")`."""

    def spawn(*steps: str, **options) -> procpool.Process:
        return manager.spawn("tester", child(*steps), **options)

    return spawn
