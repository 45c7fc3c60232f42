"""A conversation: a REPL, a program on a terminal, and whoever wants input next."""

from __future__ import annotations

from typing import Optional

import procpool


def converse() -> str:
    with procpool.spawn("python3", ["-i", "-q"], merge_stderr=True, prompt=">>> ") as python:
        answer: procpool.Output = python.ask("6 * 7", timeout=5)
        waits: Optional[bool] = python.waiting_for_input
        return f"{answer.text} {waits}"


def edit(path: str) -> tuple[str, ...]:
    with procpool.spawn(["vim", path], pty=True, size=(24, 80), echo=False) as vim:
        vim.send_keys("i", "C-c", "Up")
        vim.paste("text")
        vim.resize(30, 100)
        screen: procpool.Screen = vim.screen()
        return screen.rows


def next_one(manager: procpool.ProcessManager) -> str:
    wake = manager.wait_any(input=True, timeout=1)
    return manager.ask(wake.process_id, "1", quiet=0.5).plain
