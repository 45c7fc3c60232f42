"""Tools for models: the schemas are valid, each tool does what it says, and nothing that a model sends does harm."""

from __future__ import annotations

import json
import os
import sys
import time

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procpool
from conftest import child
from procpool.adapters.tools import ACTIONS, CONDITIONS, FORMS, TOOLS, call_tool, tools

CODES = {
    "not_found", "limit", "not_authorized", "invalid_arguments", "start_failed", "stdin_closed", "timeout", "exited",
    "unknown_tool", "closed",
}  # fmt: skip


@pytest.fixture
def alice(manager):
    return manager.agent("alice")


def ok(agent, name, **arguments):
    result = call_tool(agent, name, arguments)
    assert result["ok"], result
    assert json.loads(json.dumps(result)) == result
    return result


def refused(agent, name, arguments, **options):
    result = call_tool(agent, name, arguments, **options)
    assert not result["ok"], result
    assert set(result["error"]) == {"code", "message", "hint"}
    return result["error"]["code"]


def start(agent, *steps, **arguments):
    command, *args = child(*steps)
    return ok(agent, "process_start", command=command, args=args, **arguments)["process_id"]


# Schemas


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_schemas_are_valid(form, strict):
    """As JSON Schema 2020-12, each with a description of everything."""
    found = tools(form, strict=strict)
    assert [name_of(tool) for tool in found] == list(TOOLS)
    for tool in found:
        schema = schema_of(tool)
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"
        assert schema["additionalProperties"] is False
        assert all(len(argument["description"]) > 5 for argument in schema["properties"].values())


def name_of(tool):
    return tool.get("name") or tool["function"]["name"]


def schema_of(tool):
    holder = tool.get("function", tool)
    return next(holder[key] for key in ("parameters", "input_schema", "inputSchema") if key in holder)


STRICT_KEYWORDS = {
    "type", "properties", "required", "additionalProperties", "description", "enum", "items", "minimum", "maximum",
    "minItems", "maxItems",
}  # fmt: skip


@pytest.mark.parametrize("form", ["openai", "openai-responses"])
def test_strict_schemas_keep_openai_s_rules(form):
    """Everything is required, what may be left out may be null, and no other keyword is used."""

    def check(schema):
        assert set(schema) <= STRICT_KEYWORDS
        if schema["type"] == "object":
            assert schema["additionalProperties"] is False
            assert sorted(schema["required"]) == sorted(schema["properties"])
            for argument in schema["properties"].values():
                check(argument)
        if "items" in schema:
            check(schema["items"])

    for tool in tools(form, strict=True):
        check(schema_of(tool))
        assert tool.get("function", tool)["strict"] is True
    start = schema_of(tools(form, strict=True)[0])
    assert start["properties"]["cwd"]["type"] == ["string", "null"]


def test_the_seed_s_tools_are_kept():
    """Its five names, with its parameters as the required ones."""
    required = {name_of(tool): schema_of(tool)["required"] for tool in tools()}
    assert required["process_start"] == ["command"]
    assert required["process_poll"] == ["process_id"]
    assert required["process_write"] == ["process_id", "data"]
    assert required["process_kill"] == ["process_id"]
    assert required["process_list"] == []


def test_another_form_is_refused():
    with pytest.raises(ValueError, match="openai, openai-responses, anthropic, mcp"):
        tools("gemini")


# Each tool


def test_a_program_is_talked_to(alice):
    """Start, write, read its answer, list, kill."""
    cat = start(alice, "copy")
    answer = ok(alice, "process_write", process_id=cat, data="hello", wait=5)
    assert answer["text"] == "hello\n"
    assert (answer["state"], answer["stdin"], answer["exit_code"], answer["signal"]) == ("running", "open", None, None)
    listed = ok(alice, "process_list")["processes"]
    assert [one["process_id"] for one in listed] == [cat]
    ended = ok(alice, "process_kill", process_id=cat)
    assert (ended["signal"], ended["ended_by"], ended["killed"], ended["survivors"]) == ("SIGTERM", "kill", 1, [])
    assert refused(alice, "process_poll", {"process_id": cat}) == "not_found"


def test_a_newline_is_appended_where_it_is_missing(alice):
    """As the seed's host does; not if it is there, or is not wanted."""
    cat = start(alice, "copy")
    for data, raw in (("a", False), ("b\n", False), ("c", True), ("\n", True)):
        ok(alice, "process_write", process_id=cat, data=data, raw=raw)
    ok(alice, "process_write", process_id=cat, data="d", close_stdin=True)
    ok(alice, "process_wait", process_ids=[cat], until="exit", timeout=10)
    found = ok(alice, "process_poll", process_id=cat)
    assert (found["text"], found["exit_code"], found["stdin"]) == ("a\nb\nc\nd\n", 0, "closed")
    assert refused(alice, "process_write", {"process_id": cat, "data": "x"}) == "stdin_closed"


def test_a_result_that_was_lost_is_read_again(alice):
    """By its cursor."""
    process = start(alice, "out:one\\n", "line", "out:two\\n", "wait")
    first = ok(alice, "process_poll", process_id=process, wait=10)
    ok(alice, "process_write", process_id=process, data="go")
    lost = ok(alice, "process_poll", process_id=process, wait=10)
    again = ok(alice, "process_poll", process_id=process, cursor=first["cursor"], wait=10)
    assert lost["text"] == again["text"] == "two\n"
    assert ok(alice, "process_poll", process_id=process, cursor="")["text"] == "one\ntwo\n"
    assert ok(alice, "process_poll", process_id=process)["text"] == ""


def test_a_cancelled_call_takes_nothing(alice):
    """Nobody gets its result; the next call does."""
    process = start(alice, "out:one\\n", "wait")
    ok(alice, "process_wait", process_ids=[process], until="output", timeout=10)
    cancelled = call_tool(alice, "process_poll", {"process_id": process}, cancelled=lambda: True)
    assert cancelled["text"] == ""
    assert ok(alice, "process_poll", process_id=process)["text"] == "one\n"


def test_output_is_cut_in_its_middle(alice):
    """Head and tail stay, and what is between is counted."""
    process = start(alice, "lines:900", "exit:0")
    ok(alice, "process_wait", process_ids=[process], until="exit", timeout=10)
    found = call_tool(alice, "process_poll", {"process_id": process, "cursor": ""}, max_chars=500)
    assert len(found["text"]) <= 500
    assert found["text"].startswith("line 0\n")
    assert found["text"].endswith("line 899\n")
    assert f"{found['cut']} characters cut" in found["text"]
    assert "max_lines" in found["hint"]
    assert ok(alice, "process_poll", process_id=process, cursor="", max_lines=2)["text"] == "line 0\nline 1\n"


def test_a_prompt_is_seen(manager):
    """And told, with what to do."""
    if os.environ["PROCPOOL_SYSTEM"] == "portable":
        pytest.skip("a prompt: the portable half has no evidence of who waits")
    found = call_tool(manager.agent("a"), "process_start", {"command": sys.executable, "args": ["-iq"], "wait": 10})
    assert found["waiting_for_input"] is True
    assert "process_write" in found["hint"]


def test_who_holds_output_back_gets_a_hint(alice):
    """After two seconds of nothing."""
    process = start(alice, "wait")
    alice[process]._child.started -= 3
    assert "buffers its output" in ok(alice, "process_poll", process_id=process)["hint"]


@pytest.mark.parametrize(
    ("until", "options", "reason"),
    [
        ("exit", {}, "exit"),
        ("output", {}, "output"),
        ("pattern", {"pattern": "(ready"}, "pattern"),
        ("quiet", {"quiet_secs": 0.05}, "quiet"),
    ],
)
def test_waits(alice, until, options, reason):
    """For each condition; a pattern is literal text."""
    end = "exit:3" if until == "exit" else "wait"
    process = start(alice, "out:(ready\\n", end)
    found = ok(alice, "process_wait", process_ids=[process], until=until, timeout=10, **options)
    assert (found["reason"], found["process_id"]) == (reason, process)
    assert found.get("line") == ("(ready" if until == "pattern" else None)
    assert found["exit_code"] == (3 if until == "exit" else None)


def test_an_answer_is_waited_for_behind_old_output(alice):
    """What was said before the write is not it, though nobody has read it."""
    script = "echo banner; read x; sleep 0.2; echo answer; exec sleep 60"
    process = ok(alice, "process_start", command="sh", args=["-c", script])["process_id"]
    ok(alice, "process_wait", process_ids=[process], until="output", timeout=10)
    before = ok(alice, "process_list")["processes"][0]["up_secs"]
    found = ok(alice, "process_write", process_id=process, data="x", wait=10)
    assert found["text"].endswith("answer\n")
    assert found["up_secs"] - before < 10


def test_all_waits_of_a_call_together_are_capped(manager):
    """What it takes to write, and to wait for the answer; the grace of a kill."""
    alice = manager.agent("a")
    script = "trap '' TERM; echo up; sleep 0.3; head -c 1000001 >/dev/null; exec sleep 60"
    process = ok(alice, "process_start", command="sh", args=["-c", script])["process_id"]
    ok(alice, "process_wait", process_ids=[process], until="output", timeout=10)
    begin = time.monotonic()
    arguments = {"process_id": process, "data": "x" * 1_000_000, "timeout": 20, "wait": 20}
    call_tool(alice, "process_write", arguments, max_wait=0.5)
    assert time.monotonic() - begin < 1
    begin = time.monotonic()
    assert call_tool(alice, "process_kill", {"process_id": process}, max_wait=2.2)["signal"] == "SIGKILL"
    assert time.monotonic() - begin < 2.2


def test_a_pattern_is_what_a_terminal_shows(alice):
    """Colours in the middle do not hide it."""
    script = "printf '\\033[1mServer\\033[0m \\033[32mready\\033[0m\\n'; exec sleep 60"
    process = ok(alice, "process_start", command="sh", args=["-c", script], pty=True)["process_id"]
    found = ok(alice, "process_wait", process_ids=[process], until="pattern", pattern="Server ready", timeout=10)
    assert (found["reason"], found["line"]) == ("pattern", "Server ready")


def test_hints_are_true(alice):
    """Of what is cut, of what was dropped."""
    long = start(alice, "zeros:50000", "wait")
    ok(alice, "process_wait", process_ids=[long], until="output", timeout=10)
    assert "too long" in ok(alice, "process_poll", process_id=long, cursor="", wait=5)["hint"]
    many = start(alice, "lines:5000", "wait")
    ok(alice, "process_wait", process_ids=[many], until="pattern", pattern="4999", timeout=10)
    assert "gone" in call_tool(alice, "process_kill", {"process_id": many}, max_chars=500)["hint"]
    gone = start(alice, "out:ready\\n", "lines:5000", "exit:0")
    ok(alice, "process_wait", process_ids=[gone], until="exit", timeout=10)
    found = ok(alice, "process_wait", process_ids=[gone], until="pattern", pattern="ready", timeout=10)
    assert "kept" in found["hint"]


def test_wrong_options_of_the_host_are_raised(manager):
    """They are not the model's mistake. The manager is no agent."""
    alice = manager.agent("a")
    for options in ({"max_chars": -5}, {"max_wait": float("inf")}, {"max_wait": -1}):
        with pytest.raises(ValueError):
            call_tool(alice, "process_list", {}, **options)
    with pytest.raises(TypeError, match="Agent"):
        call_tool(manager, "process_list", {})


def test_a_wait_times_out_and_is_capped(alice):
    """Below what a transport allows, whatever is asked for."""
    process = start(alice, "wait")
    waiting = {"process_ids": [process], "until": "output"}
    assert refused(alice, "process_wait", {**waiting, "timeout": 0.05}) == "timeout"
    assert refused(alice, "process_wait", {**waiting, "timeout": 1e9}, max_wait=0.05) == "timeout"


def test_a_regular_expression_is_the_host_s_choice(alice):
    """And then it is bounded, and checked."""
    process = start(alice, "out:port 80\\n", "wait")
    waiting = {"process_ids": [process], "until": "pattern", "timeout": 10}
    assert call_tool(alice, "process_wait", {**waiting, "pattern": r"port \d+"}, regex=True)["line"] == "port 80"
    for pattern in ("(", "x" * 201, ""):
        assert refused(alice, "process_wait", {**waiting, "pattern": pattern}, regex=True) == "invalid_arguments"
    assert refused(alice, "process_wait", {**waiting, "pattern": r"port \d+", "timeout": 0.1}) == "timeout"


def test_signals_and_keys(alice):
    """Interrupt, terminate, resize, keys."""
    process = start(alice, 'on:SIGINT:["out:interrupted\\\\n"]', "out:up\\n", "wait")
    ok(alice, "process_wait", process_ids=[process], until="pattern", pattern="up", timeout=10)
    ok(alice, "process_signal", process_id=process, action="interrupt")
    ok(alice, "process_wait", process_ids=[process], until="pattern", pattern="interrupted", timeout=10)
    ok(alice, "process_signal", process_id=process, action="terminate")
    found = ok(alice, "process_wait", process_ids=[process], until="exit", timeout=10)
    assert (found["signal"], found["ended_by"]) == ("SIGTERM", "terminate")
    for arguments in ({"action": "resize"}, {"action": "keys"}, {"action": "resize", "rows": 5, "cols": 5}):
        assert refused(alice, "process_signal", {"process_id": process, **arguments}) == "invalid_arguments"
    terminal = ok(alice, "process_start", command="cat", pty=True)["process_id"]
    ok(alice, "process_signal", process_id=terminal, action="resize", rows=50, cols=100)
    assert ok(alice, "process_signal", process_id=terminal, action="keys", keys=["h", "i", "Enter"], wait=5)["text"]


def test_a_start_stays_in_its_root(alice, tmp_path):
    """Also by a link, or `..`; without a cwd it begins there."""
    (tmp_path / "inside").mkdir()
    (tmp_path / "link").symlink_to("/")
    options = {"start_root": str(tmp_path)}
    for cwd in ("/", "..", "link", "inside/../..", str(tmp_path) + "-not"):
        assert refused(alice, "process_start", {"command": "pwd", "cwd": cwd}, **options) == "not_authorized"
    for cwd, where in ((None, tmp_path), ("inside", tmp_path / "inside"), (str(tmp_path), tmp_path)):
        found = call_tool(alice, "process_start", {"command": "pwd", "cwd": cwd, "wait": 10}, **options)
        assert found["text"] == f"{os.path.realpath(where)}\n"


def test_secrets_stay_out(alice, monkeypatch):
    """What is started gets a clean environment, with what agents want, and what the model adds."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    found = ok(alice, "process_start", command="env", env=["PAGER=less", "MORE=a=b"], wait=10)
    lines = found["text"].splitlines()
    assert {"PAGER=less", "MORE=a=b", "NO_COLOR=1", "GIT_TERMINAL_PROMPT=0", "PYTHONUNBUFFERED=1"} <= set(lines)
    assert "secret" not in found["text"]
    assert refused(alice, "process_start", {"command": "env", "env": ["no equals sign"]}) == "invalid_arguments"


def test_errors_say_what_to_do(manager):
    """A code, a message, a hint."""
    alice = manager.agent("alice", max_processes=1)
    start(alice, "wait")
    assert refused(alice, "process_start", {"command": "cat"}) == "limit"
    bob = manager.agent("bob")
    assert refused(bob, "process_start", {"command": "no-such-command"}) == "start_failed"
    assert refused(bob, "process_start", {"command": "cat", "arg": []}) == "invalid_arguments"
    assert refused(bob, "process_start", {"command": "ca\0t"}) == "invalid_arguments"
    assert refused(bob, "process_start", {}) == "invalid_arguments"
    assert refused(bob, "process_start", "cat") == "invalid_arguments"
    assert refused(bob, "process_end", {}) == "unknown_tool"
    assert refused(bob, ["process_list"], {}) == "unknown_tool"
    with procpool.ProcessManager(guardian=False, authorize=lambda *_: False) as strict:
        assert refused(strict.agent("a"), "process_start", {"command": "cat"}) == "not_authorized"
        agent = strict.agent("a")
    assert refused(agent, "process_list", {}) == "closed"


def test_agents_do_not_see_each_other(manager):
    """Through no tool: the answer is that for an id which never was."""
    alice, bob = manager.agent("alice"), manager.agent("bob")
    cat = start(alice, "copy")
    required = {"data": "x", "until": "exit", "action": "terminate"}
    for name, tool in TOOLS.items():
        arguments = {key: required[key] for key in tool.arguments if key in required}
        if "process_id" in tool.arguments:
            arguments["process_id"] = cat
        elif "process_ids" in tool.arguments:
            arguments["process_ids"] = [cat]
        else:
            continue
        never = json.loads(json.dumps(arguments).replace(cat, "proc_999"))
        mine, other = call_tool(bob, name, arguments), call_tool(bob, name, never)
        assert json.dumps(mine) == json.dumps(other).replace("proc_999", cat)
        assert mine["error"]["code"] == "not_found"
    assert ok(bob, "process_list")["processes"] == []
    assert alice[cat].alive


# Hostile arguments

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30), st.just("\0"), st.just("\ud800"),
    st.sampled_from(["proc_1", "proc_2", "cat", "x" * 100_000, "-1", "../..", "nan"]), st.just(10**400),
)  # fmt: skip
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
)


def arguments_for(name):
    """Mostly of the right names, often of the right types, now and then of the right values."""
    likely = {
        "process_id": st.sampled_from(["proc_1", "proc_2", "proc_99", ""]),
        "process_ids": st.lists(st.sampled_from(["proc_1", "proc_2", "proc_99"]), max_size=3),
        "command": st.sampled_from(["true", "cat", "echo", "no such", "", "/", "."]),
        "args": st.lists(st.text(max_size=5), max_size=3),
        "until": st.sampled_from(CONDITIONS),
        "action": st.sampled_from([*ACTIONS, "kill"]),
        "timeout": st.floats(max_value=0.02),
        "wait": st.floats(max_value=0.02),
    }
    values = {key: likely.get(key, SCALARS) | ANYTHING for key in TOOLS[name].arguments}
    return st.fixed_dictionaries({}, optional=values) | ANYTHING | st.dictionaries(st.text(max_size=5), SCALARS)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", [*TOOLS, "process_eval"])
def test_hostile_arguments_get_an_answer_and_do_no_harm(name):
    """200 sets of each tool: an object that JSON takes, a known code, and nothing happens to another agent."""
    with procpool.ProcessManager(max_per_agent=3, guardian=False, grace=0.2) as manager:
        victim = manager.agent("victim")
        victim.start("cat")
        model = manager.agent("model")

        @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(arguments=arguments_for(name) if name in TOOLS else ANYTHING)
        def attack(arguments):
            result = call_tool(model, name, arguments, max_wait=0.02, max_chars=1000)
            assert len(json.dumps(result)) < 100_000
            json.dumps(result, allow_nan=False).encode()
            assert result["ok"] or result["error"]["code"] in CODES, result

        attack()
        assert victim["proc_1"].alive
        assert victim["proc_1"].info().bytes == procpool.Streams(0, 0)
        assert {info.agent_id for info in manager.list()} <= {"victim", "model"}
