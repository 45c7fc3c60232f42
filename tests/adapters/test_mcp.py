"""The MCP server, with the official client: over stdio, in memory, cancelled, killed."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import procpool
from conftest import CHILD, child, is_alive, until

if sys.version_info < (3, 10):
    pytest.skip("mcp: the package has no version for Python 3.9", allow_module_level=True)

from mcp import Client, StdioServerParameters

from procpool.adapters.mcp import server

# A client and a server have to import a lot, which takes its time on a busy machine.
pytestmark = pytest.mark.timeout(60)

SERVER = StdioServerParameters(command=sys.executable, args=["-m", "procpool", "mcp"])


def serving(*options: str) -> StdioServerParameters:
    return StdioServerParameters(command=sys.executable, args=["-m", "procpool", "mcp", *options])


def played(talk, seconds=30):
    """Run a conversation; fail rather than hang."""
    return asyncio.run(asyncio.wait_for(talk, seconds))


async def call(client, name, **arguments):
    found = await client.call_tool(name, arguments)
    assert json.loads(found.content[0].text) == found.structured_content
    assert found.is_error is not found.structured_content["ok"]
    return found.structured_content


async def start(client, *steps):
    command, *args = child(*steps)
    found = await call(client, "process_start", command=command, args=args)
    assert found["ok"], found
    return found["process_id"]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_starts_writes_reads_waits_and_kills(mode):
    """Over stdio."""

    async def talk():
        async with Client(SERVER, mode=mode) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            assert names[:5] == ["process_start", "process_poll", "process_write", "process_kill", "process_list"]
            cat = await start(client, "copy")
            assert (await call(client, "process_write", process_id=cat, data="hi", wait=5))["text"] == "hi\n"
            await call(client, "process_write", process_id=cat, data="more")
            waited = await call(client, "process_wait", process_ids=[cat], until="pattern", pattern="more", timeout=10)
            assert waited["line"] == "more"
            assert (await call(client, "process_poll", process_id=cat))["text"] == "more\n"
            assert (await call(client, "process_kill", process_id=cat))["signal"] == "SIGTERM"
            gone = await call(client, "process_poll", process_id=cat)
            assert gone["error"]["code"] == "not_found"
            unknown = await call(client, "no_such_tool")
            assert unknown["error"]["code"] == "unknown_tool"

    played(talk())


def test_a_list_answers_beside_a_hundred_blocking_reads():
    """Within 50 ms."""

    async def talk():
        async with Client(SERVER) as client:
            process = await start(client, "wait")
            reads = [asyncio.create_task(call(client, "process_poll", process_id=process, wait=20)) for _ in range(100)]
            delays = []
            for _ in range(21):
                begin = time.monotonic()
                assert len((await call(client, "process_list"))["processes"]) == 1
                delays.append(time.monotonic() - begin)
            assert sorted(delays)[10] < 0.05, delays
            assert not any(read.done() for read in reads)
            await call(client, "process_kill", process_id=process)
            await asyncio.gather(*reads)

    played(talk())


def test_a_cancelled_read_loses_nothing():
    """What comes after the cancel is there for the next read."""

    async def talk():
        async with Client(SERVER) as client:
            cat = await start(client, "copy")
            read = asyncio.create_task(call(client, "process_poll", process_id=cat, wait=20))
            await call(client, "process_list")
            read.cancel()
            await asyncio.gather(read, return_exceptions=True)
            await call(client, "process_write", process_id=cat, data="kept")
            found = await call(client, "process_poll", process_id=cat, wait=10)
            again = await call(client, "process_poll", process_id=cat, cursor="")
            assert "kept\n" in (found["text"], again["text"])
            assert again["text"] == "kept\n"

    played(talk())


CLIENT = """
import asyncio, sys
from mcp import Client, StdioServerParameters

async def main():
    async with Client(StdioServerParameters(command=sys.executable, args=["-m", "procpool", "mcp"])) as client:
        for _ in range(2):
            found = await client.call_tool("process_start", {{"command": sys.executable, "args": {args!r}}})
            found = await client.call_tool(
                "process_wait", {{"process_ids": [found.structured_content["process_id"]], "until": "output"}}
            )
            found = await client.call_tool("process_poll", {{"process_id": found.structured_content["process_id"]}})
            print(found.structured_content["text"].split()[1], flush=True)
        found = await client.call_tool("process_wait", {{"process_ids": ["proc_1"], "until": "output"}})

asyncio.run(main())
"""


def members_of(client: subprocess.Popen) -> list[int]:
    return [int(client.stdout.readline()) for _ in range(2)]


@pytest.mark.parametrize("victim", ["client", "server"])
@pytest.mark.parametrize("number", ["SIGTERM", "SIGKILL"])
def test_p11_nothing_outlives_a_client_or_a_server_that_is_killed(victim, number):
    """0 survivors within 2 seconds, while a call is under way."""
    import signal

    import psutil

    args = ["-S", "-E", CHILD, "pid:member", "wait"]
    client = subprocess.Popen([sys.executable, "-c", CLIENT.format(args=args)], stdout=subprocess.PIPE, text=True)
    try:
        members = members_of(client)
        assert all(map(is_alive, members))
        servers = [one for one in psutil.Process(client.pid).children() if "mcp" in one.cmdline()]
        assert len(servers) == 1
        target = client.pid if victim == "client" else servers[0].pid
        assert target > 1
        os.kill(target, getattr(signal, number))
        until(lambda: not any(map(is_alive, members)), "the end of the trees", 2)
        until(lambda: not is_alive(servers[0].pid), "the end of the server", 5)
    finally:
        client.kill()
        client.wait()
        client.stdout.close()


def test_two_sessions_of_one_server_do_not_see_each_other():
    """Each has an agent of its own, whose processes end with it."""
    numbers = itertools.count(1)
    with procpool.ProcessManager(guardian=False, grace=0.5) as manager:
        made = server(lambda: manager.agent(f"session {next(numbers)}"))

        async def talk():
            async with Client(made) as alice:
                async with Client(made) as bob:
                    cat = await start(alice, "copy")
                    dog = await start(bob, "copy")
                    assert cat != dog
                    assert [one["process_id"] for one in (await call(bob, "process_list"))["processes"]] == [dog]
                    assert (await call(bob, "process_kill", process_id=cat))["error"]["code"] == "not_found"
                assert [info.id for info in manager.list()] == [cat]
                assert (await call(alice, "process_write", process_id=cat, data="x", wait=5))["text"] == "x\n"

        played(talk())
        assert manager.count() == 0


def test_over_http_every_call_is_refused():
    """The SDK makes one session of all clients there: they would see each other."""
    import uvicorn

    with procpool.ProcessManager(guardian=False) as manager:
        app = server(lambda: manager.agent("everybody")).streamable_http_app()

        async def talk():
            served = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
            serving = asyncio.create_task(served.serve())
            while not served.started:
                await asyncio.sleep(0.01)  # nothing tells
            port = served.servers[0].sockets[0].getsockname()[1]
            async with Client(f"http://127.0.0.1:{port}/mcp") as client:
                found = await call(client, "process_start", command="cat")
                assert found["error"]["code"] == "not_authorized"
            served.should_exit = True
            await serving

        played(talk())
        assert manager.count() == 0


RAW = """
import json, os, subprocess, sys
server = subprocess.Popen([sys.executable, "-m", "procpool", "mcp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def send(method, number=None, **params):
    message = {"jsonrpc": "2.0", "method": method, "params": params}
    server.stdin.write(json.dumps({**message, **({} if number is None else {"id": number})}).encode() + b"\\n")
    server.stdin.flush()
client = {"name": "raw", "version": "1"}
send("initialize", 1, protocolVersion="2025-06-18", capabilities={}, clientInfo=client)
server.stdout.readline()
send("notifications/initialized")
if sys.argv[1] == "reads nothing":
    for number in range(2, 302):
        send("tools/list", number)
    server.stdin.close()
else:
    server.stdout.close()
    send("tools/list", 2)
server.wait(8)
print("gone")
"""


@pytest.mark.parametrize("client", ["reads nothing", "closes what it reads from"])
def test_a_client_that_does_not_read_holds_up_no_end(client):
    """Its pipe is full, or broken."""
    done = subprocess.run([sys.executable, "-c", RAW, client], capture_output=True, text=True, timeout=30)
    assert done.stdout == "gone\n", done.stderr


def test_two_servers_do_not_see_each_other():
    """They are processes of their own; each begins to count at one."""

    async def talk():
        async with Client(SERVER) as alice, Client(SERVER) as bob:
            assert await start(alice, "wait") == await start(bob, "wait") == "proc_1"
            ended = await call(alice, "process_kill", process_id="proc_1")
            assert ended["ok"]
            assert (await call(bob, "process_list"))["processes"][0]["state"] == "running"

    played(talk())


def test_the_command_line_s_rules_hold(tmp_path):
    """--allow, --start-root, --max-per-agent."""
    rules = serving("--allow", "cat", "pwd", "--start-root", str(tmp_path), "--max-per-agent", "1")

    async def talk():
        async with Client(rules) as client:
            codes = []
            for command, cwd in (("sh", None), ("cat", "/"), ("cat", None), ("cat", None)):
                found = await call(client, "process_start", command=command, cwd=cwd)
                codes.append(found.get("error", {}).get("code"))
            assert codes == ["not_authorized", "not_authorized", None, "limit"]

    played(talk())


@pytest.mark.parametrize("option", ["--allow=no-such-command", "--start-root=/no/such/folder", "--max-per-agent=0"])
def test_wrong_options_are_named(option):
    """Before anything is served."""
    done = subprocess.run(
        [sys.executable, "-m", "procpool", "mcp", option], capture_output=True, text=True, timeout=15, input=""
    )
    assert done.returncode == 1
    assert done.stderr.startswith("procpool: ")
    assert "Traceback" not in done.stderr


def test_without_the_package_it_says_what_to_install(tmp_path):
    """And does nothing else."""
    (tmp_path / "mcp_types.py").write_text("raise ImportError('not here')")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(procpool.__file__).parents[1]}"}
    done = subprocess.run(
        [sys.executable, "-m", "procpool", "mcp"], capture_output=True, text=True, timeout=15, env=env
    )
    assert done.returncode == 1
    assert "pip install 'procpool[mcp]'" in done.stderr
