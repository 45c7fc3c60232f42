"""Start trees of some kinds, end each in one way, and count who survives; to be run in a pid namespace of its own.

python matrix.py WAY ROUNDS FOLDER CASE... -> one JSON line: for each case the survivors of each round, by an
independent witness. Whoever survives ends with the namespace.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import procpool
from conftest import CHILD, fork, living, on, until


def daemon(*steps):
    return f"daemon:{json.dumps(steps)}"


def cases(notes):
    """Name: (steps, how many lines say that it is up, grace)."""
    many = [fork("setsid", "out:up\\n", "wait") if n % 3 else fork("out:up\\n", "wait") for n in range(99)]
    return {
        "childless": (["out:up\\n", "wait"], 1, 3),
        "child": ([fork("out:up\\n", "wait"), "wait"], 1, 3),
        "grandchild": ([fork(fork("out:up\\n", "wait"), "wait"), "wait"], 1, 3),
        "own session": ([fork("setsid", "out:up\\n", "wait"), "wait"], 1, 3),
        "daemon": ([daemon("out:up\\n", "wait"), "wait"], 1, 3),
        "daemon, root exited": ([daemon("out:up\\n", "wait"), "exit:0"], 1, 3),
        "tree of 100": ([*many, "wait"], 99, 3),
        "ignores TERM": (["ignore:SIGTERM", fork("out:up\\n", "wait"), "wait"], 1, 0.1),
        "stopped": ([fork("out:up\\n", "stop", "wait"), "wait"], 1, 3),
        "forks at TERM": ([fork(on("SIGTERM", daemon("ignore:SIGTERM", "wait")), "out:up\\n", "wait"), "wait"], 1, 0.1),
        "spawner": (["ignore:SIGTERM", "out:up\\n", f"spawner:{notes}"], 1, 0.1),
        "hopper": (["out:up\\n", f"hopper:{notes}"], 1, 0.1),
        "hopper, setsid": (["out:up\\n", f"hopper:{notes}:setsid"], 1, 0.1),
    }


def by_procpool(argv, ups, grace, started):
    with procpool.ProcessManager() as manager:
        process = manager.spawn("a", argv)
        for _ in range(ups):
            process.expect("up", 10)
        started()
        ended = process.kill(grace=grace)
        assert ended.survivors == (), ended


def by_popen(argv, ups, grace, started, how="kill"):
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True)
    for _ in range(ups):
        process.stdout.readline()
    started()
    if how == "kill":
        process.kill()
    elif how == "killpg":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        import psutil

        root = psutil.Process(process.pid)
        for member in [*root.children(recursive=True), root]:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                pass
    process.wait()
    process.stdout.close()


def by_busy_procpool(*arguments):
    """Beside a thread that computes all the time."""
    over = threading.Event()

    def spin():
        while not over.is_set():
            sum(range(1000))

    threading.Thread(target=spin).start()
    try:
        by_procpool(*arguments)
    finally:
        over.set()


WAYS = {
    "procpool": by_procpool,
    "procpool, busy": by_busy_procpool,
    "Popen.kill": by_popen,
    "killpg": lambda *a: by_popen(*a, how="killpg"),
    "psutil": lambda *a: by_popen(*a, how="psutil"),
}


def main() -> None:
    way, rounds, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    left: dict[str, list[int]] = {}
    births: list[tuple[str, int, Path, int]] = []
    for case in sys.argv[4:]:
        left[case] = []
        for number in range(rounds):
            place = folder / f"{case} {number}".replace(",", "")
            place.mkdir()
            program, notes = place / "witness.py", place / "notes"
            shutil.copy(CHILD, program)
            notes.touch()
            steps, ups, grace = cases(notes)[case]

            def started(notes=notes, case=case):
                if case.startswith(("spawner", "hopper")):
                    until(lambda: notes.stat().st_size >= 5, "a few births")

            WAYS[way]([sys.executable, "-S", "-E", str(program), *steps], ups, grace, started)
            survivors = living(str(program))
            deadline = time.monotonic() + 0.5
            while survivors and not way.startswith("procpool") and time.monotonic() < deadline:
                survivors = living(str(program))  # the others do not claim to have waited for the end
            left[case].append(len(survivors))
            births.append((case, number, notes, notes.stat().st_size))
    if any(size for *_, size in births):
        time.sleep(1.0)  # the claim is about time: nothing is born any more
    for case, number, notes, before in births:
        left[case][number] += notes.stat().st_size > before
    print(json.dumps(left))


if __name__ == "__main__":
    main()
