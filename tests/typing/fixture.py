"""A test fixture: a server that is ready, and gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import procpool


@pytest.fixture
def server() -> Iterator[procpool.Process]:
    """Yield a server that listens."""
    with procpool.spawn("my-server", ["--port", "8123"], ready=8123, ready_timeout=10.0) as process:
        yield process


def test_it_answers(server: procpool.Process) -> None:
    """And says so."""
    assert server.expect("GET /", timeout=5).stream == "stderr"
