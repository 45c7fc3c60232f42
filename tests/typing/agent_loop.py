"""An agent: a model asks for commands, one after the other, and sees what they say."""

from __future__ import annotations

import procpool


def observe(agent: procpool.Agent, process_id: str, cursor: str) -> tuple[str, str]:
    """Return what is new, cut to what a model can take, and where it ends."""
    output = agent.read(process_id, timeout=5, since=cursor)
    return output.clip(4000), output.cursor


def run(manager: procpool.ProcessManager, name: str, commands: list[list[str]]) -> list[str]:
    """Run commands in one shell, each until it is quiet."""
    said: list[str] = []
    with manager.agent(name, max_processes=2) as agent:
        shell: str = agent.start("sh", merge_stderr=True, extra_env={"PS1": ""}, idle_secs=600.0)
        cursor = ""
        for command in commands:
            try:
                agent.send_line(shell, " ".join(command))
                agent.wait_any([shell], quiet=0.5, timeout=30.0)
            except procpool.StdinClosedError as error:
                said.append(f"it is gone: {error.written} bytes were written")
                break
            except procpool.TimeoutExpired:
                agent.interrupt(shell)
            text, cursor = observe(agent, shell, cursor)
            said.append(text)
        ended: procpool.Exit = agent.kill(shell, grace=1.0)
        said.append(ended.signal or str(ended.returncode))
    return said
