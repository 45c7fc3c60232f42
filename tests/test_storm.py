"""Twenty threads on one manager: every numbered line accounted for, no exception, no leak."""

from __future__ import annotations

import random
import threading
import time

import pytest

import procpool
from conftest import child


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("half", "seconds"),
    [
        ("linux", 2),
        ("portable", 1),
        *(pytest.param(half, 10, marks=pytest.mark.stress) for half in ("linux", "portable")),
    ],
)
def test_twenty_threads_share_a_manager(monkeypatch, half, seconds):
    """Start, write, read, expect, kill, list: what each child was told to say is what is read."""
    monkeypatch.setenv("PROCPOOL_SYSTEM", half)
    with procpool.ProcessManager(max_per_agent=None, guardian=False) as manager:
        share(manager, seconds)


def share(manager, seconds):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    stop = time.monotonic() + seconds
    errors: list[BaseException] = []
    rounds = [0] * 20

    def talk(chance, process):
        """Echo some lines; nothing may be missing."""
        said = [f"{chance.random()}" for _ in range(chance.randrange(1, 30))]
        for line in said:
            process.send_line(line)
        process.expect(f"^{said[-1].replace('.', '[.]')}$", 15)
        lines = process.read().stdout
        assert lines == said
        assert process.read(since="").stdout[-len(said) :] == said

    def count(chance, process, lines):
        """Read numbered lines to the end, in whatever pieces; seen and dropped are all of them."""
        seen, dropped = [], 0
        while True:
            output = process.read(timeout=15, max_lines=chance.choice([None, 100, 1000]))
            seen += output.stdout
            dropped += output.dropped.stdout
            if output.eof and not output:
                break
        assert len(seen) + dropped == lines
        assert seen[-1] == f"line {lines - 1}"
        assert process.wait(15) == 0

    def run(number):
        chance = random.Random(seed + number)
        agent = manager.agent(f"agent {number % 5}")
        try:
            while (time.monotonic() < stop or not rounds[number]) and not errors:
                if chance.random() < 0.5:
                    process = agent.spawn("cat")
                    talk(chance, process)
                else:
                    lines = chance.randrange(1, 20_000)
                    process = agent.spawn(child(f"lines:{lines}"))
                    count(chance, process, lines)
                assert process.id in agent
                assert any(info.id == process.id for info in agent.list())
                ended = process.kill()
                assert ended.survivors == ()
                assert process.id not in manager
                rounds[number] += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert not errors, errors
    assert not any(thread.is_alive() for thread in threads)
    assert min(rounds) > 0
    assert manager.count() == 0


@pytest.mark.parametrize("verb", ["read", "expect", "wait"])
def test_blocked_calls_of_many_threads_all_wake(manager, verb):
    """One event, a hundred sleepers."""
    process = manager.spawn("a", child("line", "out:go\\n", "exit:0"))
    done = []

    def sleep():
        if verb == "read":
            done.append(process.read(timeout=15, since=""))
        elif verb == "expect":
            done.append(process.expect("go", 15))
        else:
            done.append(process.wait(15))

    threads = [threading.Thread(target=sleep) for _ in range(100)]
    for thread in threads:
        thread.start()
    process.send_line()
    for thread in threads:
        thread.join(15)
    assert len(done) == 100
    assert isinstance(done[0], (procpool.Output, procpool.Match, int))
