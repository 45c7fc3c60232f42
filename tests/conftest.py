"""The harness: the manager under test, the child program, and the proof that nothing leaks."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import py_compile
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

import procpool

# A host that exports this would hide from us that programs hold their output back.
os.environ.pop("PYTHONUNBUFFERED", None)
# And with this each program of the tests would compile the whole package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

CHILD = str(Path(__file__).with_name("child.py"))
COMPILED = importlib.util.cache_from_source(CHILD)


def child(*steps: str) -> list[str]:
    """Return the argv of the child program; -S, -E and that it is compiled let it start twice as fast."""
    return [sys.executable, "-S", "-E", COMPILED, *steps]


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


def all_pids() -> set[str]:
    return {name for name in os.listdir("/proc") if name.isdecimal()}


def our_children(among: set[str]) -> list[str]:
    """Return those of the processes that are our children."""
    found = []
    for pid in among:
        try:
            name, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
        except OSError:
            continue  # it went meanwhile
        if int(rest.split()[1]) == os.getpid():
            found.append(name + ")")
    return found


def guardians(owner: int, among: set[str] | None = None) -> list[psutil.Process]:
    """Return the helpers that guard a process; there is no need to look at all processes to find none."""
    found = []
    for name in all_pids() if among is None else among:
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
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
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
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


def pytest_configure():
    py_compile.compile(CHILD, COMPILED, doraise=True)


def pytest_collection_finish():
    collect_garbage()


def collect_garbage():
    """Collect what is garbage, and go through the rest never again: pytest, hypothesis and SDKs are large."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_leaks():
    """Every test leaves as many threads, fds and children as it found."""
    fds, before = our_fds(), all_pids()
    yield
    if procpool._manager is not None:
        procpool._manager.close()
    collect_garbage()
    until(lambda: not our_threads(), "no thread of ours")
    until(lambda: not guardians(os.getpid(), all_pids() - before), "no guardian of ours")
    left = our_children(all_pids() - before)
    assert not left, f"left behind: {left}"
    until(lambda: len(our_fds()) <= len(fds), f"no more fds than {sorted(fds)}")


TWO_STREAMS = "a terminal has one stream"
LONG_LINES = "a terminal takes no line of more than 4095 bytes"
HANGUP = "the end of a root that has a terminal hangs up on the others"
OF_PIPES = {
    "test_a_wrong_cursor_is_refused": TWO_STREAMS,
    "test_communicate_is_popen_s": LONG_LINES,
    "test_each_stream_has_its_own_place": TWO_STREAMS,
    "test_info_tells_what_is_known": TWO_STREAMS,
    "test_lines_tell_stream_and_time": TWO_STREAMS,
    "test_p01_no_member_is_alive_when_kill_returns": HANGUP,
    "test_p04_a_tree_that_is_looked_at_has_its_grace": HANGUP,
    "test_p04_kill_comes_after_the_grace_and_not_before": HANGUP,
    "test_p21_p24_an_endless_line_is_read_and_bounded": "a terminal is too slow for a gigabyte",
    "test_p25_a_flood_on_one_stream_does_not_evict_the_other": TWO_STREAMS,
    "test_p26_the_exit_is_seen_although_a_descendant_holds_the_pipes": HANGUP,
    "test_p27_cursors_are_independent_and_repeatable": TWO_STREAMS,
    "test_p28_a_child_that_closes_its_stdout_is_alive": "a terminal ends when nobody has it open in any way",
    "test_p30_a_message_that_is_not_taken_raises_with_what_was": LONG_LINES,
    "test_p30_messages_of_concurrent_writers_never_mix": LONG_LINES,
    "test_p30_the_whole_message_is_written": LONG_LINES,
    "test_p32_a_blocked_writer_blocks_no_other_call": LONG_LINES,
    "test_p33_a_broken_pipe_is_an_error_also_for_what_is_queued": LONG_LINES,
    "test_p33_writing_to_a_stdin_that_the_process_closed_raises": "a terminal does not break",
    "test_p39_the_environment_is_what_was_given": "a terminal has a TERM",
    "test_read_behaves_as_the_seed_s_pair_and_as_text": TWO_STREAMS,
    "test_stdin_is_a_pipe_or_dev_null": "a terminal is neither",
    "test_tail_takes_nothing": TWO_STREAMS,
    "test_text_of_two_streams_comes_in_reading_order": TWO_STREAMS,
    "test_usage_is_of_the_whole_tree": HANGUP,
    "test_what_needs_a_terminal_says_so": "here there is one",
    "test_without_stdin_it_is_dev_null": "a terminal is an input",
}


def pytest_generate_tests(metafunc):
    """Run tests over both halves of the OS seam; those that spawn the child program on a terminal, too, if asked."""
    if "system" in metafunc.fixturenames:
        halves = ["linux", "portable"]
        if "spawn" in metafunc.fixturenames and metafunc.function.__name__ not in OF_PIPES:
            halves.append(pytest.param("terminal", marks=pytest.mark.terminal))
        metafunc.parametrize("system", halves, indirect=True)


@pytest.fixture
def system(request, monkeypatch):
    monkeypatch.setenv("PROCPOOL_SYSTEM", "portable" if request.param == "portable" else "linux")
    return request.param


@pytest.fixture
def manager(system):
    # The guardian has tests of its own; starting one for each test would double the time of the suite.
    with procpool.ProcessManager(max_per_agent=None, guardian=False) as manager:
        yield manager


@pytest.fixture
def spawn(manager, system):
    """Start the child program with steps: `spawn("out:hello", "wait")`."""

    def spawn(*steps: str, **options) -> procpool.Process:
        if system == "terminal":
            options.pop("merge_stderr", None)
            return manager.spawn("tester", child("exact", *steps), **{"pty": True, "echo": False, **options})
        return manager.spawn("tester", child(*steps), **options)

    return spawn
