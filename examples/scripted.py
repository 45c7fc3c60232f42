"""A scripted model: it asks for tools in a fixed plan, and looks at what comes back, as a language model would.

It starts a dev server and waits until it says where it listens, runs a test suite that fails, and finds out why in a
REPL.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import Any

Call = tuple[str, dict[str, Any]]
Plan = Generator[Call, dict[str, Any], str]

TESTS = """
import unittest

def average(numbers):
    return sum(numbers) / len(numbers)

class TestAverage(unittest.TestCase):
    def test_of_some(self):
        self.assertEqual(average([1, 2, 3]), 2)

    def test_of_none(self):
        self.assertEqual(average([]), 0)

if __name__ == "__main__":
    unittest.main(verbosity=2)
"""


def plan() -> Plan:
    """Yield calls as `(tool, arguments)`, take their results, and return the last word."""
    server = yield (
        "process_start",
        {"command": sys.executable, "args": ["-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]},
    )
    ready = yield (
        "process_wait",
        {"process_ids": [server["process_id"]], "until": "pattern", "pattern": "Serving HTTP", "timeout": 20},
    )
    port = ready["line"].split("port ")[1].split()[0]

    tests = yield "process_start", {"command": sys.executable, "args": ["-c", TESTS]}
    yield "process_wait", {"process_ids": [tests["process_id"]], "until": "exit", "timeout": 30}
    report = yield "process_poll", {"process_id": tests["process_id"], "cursor": ""}
    failed = next(line.split()[0] for line in report["text"].splitlines() if line.endswith("ERROR"))

    repl = yield "process_start", {"command": sys.executable, "args": ["-i", "-q"], "pty": True, "wait": 20}
    answer = yield "process_write", {"process_id": repl["process_id"], "data": "sum([]) / len([])", "wait": 20}
    why = next(line for line in answer["text"].splitlines() if "Error" in line)

    for started in (repl, server):
        yield "process_kill", {"process_id": started["process_id"]}
    return f"The server came up on port {port}; {failed} fails: {why}"
