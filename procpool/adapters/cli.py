"""The command line: `procpool demo`, `procpool sweep`, `procpool mcp`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import procpool

# A program with a child and a grandchild, each of which tells its pid and would live for a minute.
FAMILY = """
import os, subprocess, sys, time
depth = int(sys.argv[1])
print("member", os.getpid(), flush=True)
if depth:
    subprocess.Popen([sys.executable, "-c", sys.argv[2], str(depth - 1), sys.argv[2]], start_new_session=depth == 1)
time.sleep(60)
"""


class DemoFailed(Exception):
    """A step of the demo did not do what it should."""


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="procpool", description=(procpool.__doc__ or "").partition("\n")[0])
    parser.add_argument("--version", action="version", version=f"procpool {procpool.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("demo", help="watch a REPL answer, a web server come up, and a tree vanish")
    sweep = commands.add_parser("sweep", help="end what dead owners left behind")
    sweep.add_argument("--dry-run", action="store_true", help="only say what there is")
    mcp = commands.add_parser("mcp", help="serve one MCP client over stdin and stdout (needs procpool[mcp])")
    mcp.add_argument("--allow", nargs="+", action="extend", metavar="COMMAND", help="start only these; see the docs")
    mcp.add_argument("--start-root", metavar="DIR", help="start only in here (which contains nothing that runs)")
    mcp.add_argument("--max-per-agent", type=int, default=5, metavar="N", help="how many may live at once")
    options = parser.parse_args(arguments)
    try:
        if options.command == "sweep":
            return _sweep(dry_run=options.dry_run)
        if options.command == "mcp":
            return _mcp(options.allow, options.start_root, options.max_per_agent)
        demo()
    except (DemoFailed, procpool.ProcpoolError) as error:
        print(f"procpool: the demo failed: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # of stdout: nobody reads it any more, or there is no room
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be written at the exit
        if not isinstance(error, BrokenPipeError):
            print(f"procpool: {error}", file=sys.stderr)
        return 1
    return 0


def _sweep(*, dry_run: bool) -> int:
    """Say which orphans there are, and end them; return 1 if some survive."""
    found = procpool.find_orphans() if dry_run else procpool.sweep_orphans()
    for orphan in found:
        print(f"{orphan.pid:7}  of dead owner {orphan.owner_pid}  {orphan.command}")
    print(f"{len(found)} found" if dry_run else f"{len(found)} swept")
    return 0 if dry_run or not procpool.find_orphans() else 1


def _mcp(allow: Optional[Sequence[str]], start_root: Optional[str], max_per_agent: int) -> int:
    """Serve an MCP client; return only if that cannot be done."""
    from procpool.adapters.mcp import serve
    from procpool.adapters.rules import AllowCommands

    try:
        if start_root is not None and not Path(start_root).is_dir():
            raise ValueError(f"--start-root is not a folder: {start_root}")
        rules = None if allow is None else AllowCommands(*allow)
        # A client that goes wants all gone soon.
        serve(procpool.ProcessManager(max_per_agent, authorize=rules, grace=1.0), start_root=start_root)
    except (ImportError, ValueError) as error:
        print(f"procpool: {error}", file=sys.stderr)
    return 1


def demo() -> None:
    """Show what procpool does, and check each step. Raises DemoFailed or ProcpoolError."""
    with tempfile.TemporaryDirectory() as folder, procpool.ProcessManager(max_per_agent=2) as manager:
        alice, bob = manager.agent("alice"), manager.agent("bob")
        _talk_to_a_repl(alice)
        _fetch_a_page(alice, Path(folder))
        members = _start_a_family(bob)
        _show(manager)
        _hit_the_limit(alice)
        _end_the_family(bob, members)
    print("All processes are gone.")


def _talk_to_a_repl(agent: procpool.Agent) -> None:
    _say("alice starts a Python REPL and asks it something")
    # Where the system does not tell when it waits for input its prompt does.
    repl = agent.start(sys.executable, ["-i", "-q", "-u"], merge_stderr=True, prompt=r">>> ")
    answer = agent.ask(repl, "6 * 7").text.strip()
    print(f"  the REPL says: {answer}")
    _check(answer == "42", f"the REPL answered {answer!r}")


def _fetch_a_page(agent: procpool.Agent, folder: Path) -> None:
    _say("alice starts a web server on a free port, waits until it says which, and fetches a page")
    (folder / "index.html").write_text("hello from procpool\n")
    options = ["-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    server = agent.start(sys.executable, options, cwd=folder)
    port = agent.expect(server, r"port (\d+)")[1]
    # Straight to the server, whatever proxy the environment names.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        page = answer.read().decode().strip()
    print(f"  port {port} serves: {page}")
    _check(page == "hello from procpool", f"the server served {page!r}")


def _start_a_family(agent: procpool.Agent) -> list[int]:
    _say("bob starts a program with a child and a grandchild (the last in a session of its own)")
    family = agent.start(sys.executable, ["-c", FAMILY, "2", FAMILY])
    members = [int(agent.expect(family, r"member (\d+)")[1] or 0) for _ in range(3)]
    print(f"  their pids: {members}")
    _check(all(map(_exists, members)), "not all of them live")
    return members


def _show(manager: procpool.ProcessManager) -> None:
    _say("what is there now")
    infos = manager.list()
    print(f"  {'id':8} {'agent':7} {'pid':>7} {'state':8} {'lines':>5}  command")
    for info in infos:
        lines = info.lines.stdout + info.lines.stderr
        command = " ".join(info.command.split())[:60]
        print(f"  {info.id:8} {info.agent_id:7} {info.pid:7} {info.state:8} {lines:5}  {command}")
    _check(len(infos) == 3 and all(info.alive for info in infos), f"{len(infos)} processes are listed, not 3")


def _hit_the_limit(agent: procpool.Agent) -> None:
    _say("alice tries to start a third one")
    try:
        agent.start("sleep", ["60"])
    except procpool.LimitExceededError as error:
        print(f"  {error.sentence}")
    else:
        raise DemoFailed("the limit did not hold")


def _end_the_family(agent: procpool.Agent, members: list[int]) -> None:
    _say("bob's tree is killed")
    for process_id in agent:
        ended = agent.kill(process_id)
        print(f"  {ended}")
    left = [pid for pid in members if _exists(pid)]
    print(f"  of {members} there are left: {left}")
    _check(not left, f"still alive: {left}")


def _say(what: str) -> None:
    print(f"* {what}", flush=True)


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise DemoFailed(otherwise)


def _exists(pid: int) -> bool:
    """Say whether a process lives; asked of psutil, not of procpool."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
