"""The seed's own five tests, one for one, under its names."""

from __future__ import annotations

import pytest

import procpool


def test_start_and_list():
    pm = procpool.ProcessManager(5)
    process_id = pm.start("agent1", "cat", [])
    assert process_id.startswith("proc_")
    found = pm.list("agent1")
    assert len(found) == 1
    assert found[0].agent_id == "agent1"
    pm.kill(process_id)
    pm.close()


def test_per_agent_limit():
    pm = procpool.ProcessManager(1)
    id1 = pm.start("agent1", "cat", [])
    with pytest.raises(procpool.LimitExceededError, match="max: 1"):
        pm.start("agent1", "cat", [])
    pm.kill(id1)
    pm.close()


def test_kill_nonexistent():
    pm = procpool.ProcessManager(5)
    with pytest.raises(procpool.ProcessNotFoundError):
        pm.kill("nonexistent")


def test_read_nonexistent():
    pm = procpool.ProcessManager(5)
    with pytest.raises(procpool.ProcessNotFoundError):
        pm.read("nonexistent")


def test_default_process_manager():
    pm = procpool.ProcessManager()
    assert pm.max_per_agent == 5
    assert pm.count() == 0
