"""Tools for a language model: their schemas, in the forms that model APIs take, and what runs them.

Needs no third party and no event loop. The host binds an `Agent`; a model names processes, never agents.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from procpool.adapters.rules import clean_env, within
from procpool.errors import ProcpoolError, StdinClosedError, TimeoutExpired
from procpool.manager import Agent
from procpool.plain import clipped, plain
from procpool.process import Process, seconds, whole_number
from procpool.snapshot import Output, ProcessInfo

FORMS = ("openai", "openai-responses", "anthropic", "mcp")
ACTIONS = ("interrupt", "terminate", "resize", "keys")
CONDITIONS = ("exit", "output", "pattern", "quiet", "input")
MOST_CHARS = 20_000  # of output in one result
MOST_WAIT_SECS = 50.0  # most transports give up after 60
MOST_DATA_CHARS = 1 << 20
MOST_PATTERN_CHARS = 1000
MOST_REGEX_CHARS = 200
MOST_LISTED = 100
MOST_TEXT_CHARS = 2000  # of a message, a line
MOST_COMMAND_CHARS = 200
LEAST_GRACE_SECS = 0.1
KILL_SECS = 2.0  # how long a kill may take beyond its grace (P8)
BUFFERED_SECS = 2.0  # a program that has said nothing for so long may hold its output back
QUIET_SECS = 1.0
# What may stand between two characters that a terminal shows next to each other: colours and the like.
CODES = r"(?:\x1b\[[0-?]*[ -/]*[@-~])*"

Json = dict[str, Any]


@dataclass(frozen=True)
class _Argument:
    """One argument of a tool: a JSON Schema without its description."""

    schema: Json
    description: str
    required: bool = False


@dataclass(frozen=True)
class _Tool:
    """One tool: what a model reads of it, and what runs it."""

    description: str
    arguments: dict[str, _Argument]
    run: Callable[[_Call], Json]


class _Refused(Exception):
    """What a model asked for is not done: one of the codes, and why."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        self.code = code
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class _Call:
    """A call that was checked: for whom, with what, within what bounds."""

    agent: Agent
    given: Json
    start_root: Optional[str]
    env: Mapping[str, str]
    regex: bool
    max_chars: int
    deadline: float  # when the answer has to be there
    cancelled: Callable[[], bool]
    hints: list[str] = field(default_factory=list)

    def process(self) -> Process:
        return self.agent[self.given["process_id"]]

    def wait_secs(self, name: str, default: float = 0.0) -> float:
        """Return how long to wait, in seconds: as was asked for, but not beyond the deadline."""
        return min(float(self.given.get(name, default)), self.left)

    @property
    def left(self) -> float:
        return max(self.deadline - time.monotonic(), 0.0)


def tools(form: str = "openai", *, strict: bool = False) -> list[Json]:
    """Return the tools as a model API takes them.

    - `form`: `openai` (chat completions), `openai-responses`, `anthropic`, or `mcp`
    - `strict`: for OpenAI's strict mode: every argument is required, and null means its default

    Raises ValueError for another form.

    >>> from procpool.adapters.tools import tools
    >>> [tool["name"] for tool in tools("anthropic")][:3]
    ['process_start', 'process_poll', 'process_write']
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, not {form!r}")
    found: list[Json] = []
    for name, tool in TOOLS.items():
        schema = _schema(tool, strict=strict)
        if form.startswith("openai"):
            function: Json = {"name": name, "description": tool.description, "parameters": schema, "strict": strict}
            found.append({"type": "function", **({"function": function} if form == "openai" else function)})
        else:
            key = "input_schema" if form == "anthropic" else "inputSchema"
            found.append({"name": name, "description": tool.description, key: schema})
    return found


def call_tool(
    agent: Agent,
    name: str,
    arguments: object,
    *,
    start_root: Optional[str] = None,
    env: Optional[Mapping[str, str]] = None,
    regex: bool = False,
    max_chars: int = MOST_CHARS,
    max_wait: float = MOST_WAIT_SECS,
    cancelled: Callable[[], bool] = lambda: False,
) -> Json:
    """Run a tool for an agent, and return what to give the model. It does not raise, whatever a model asks for.

    The result is small and JSON-serialisable:
    `{"ok": True, ...}`, or `{"ok": False, "error": {"code", "message", "hint"}}` with a code of `not_found`, `limit`,
    `not_authorized`, `invalid_arguments`, `start_failed`, `stdin_closed`, `timeout`, `exited`, `unknown_tool`,
    `closed` or `internal`. What is raised is Ctrl-C and the like, and TypeError or ValueError for options of the host.

    - `arguments`: what the model gave, parsed (a dict)
    - `start_root`: a folder that the cwd of a *start* must lie in, and is by default. It contains nothing: a program
      that runs goes where it likes
    - `env`: the environment of what is started (default: `clean_env()`, which leaves secrets out)
    - `regex`: let `pattern` be a regular expression, of at most 200 characters. A model's expression can stop the
      whole host for minutes (`(a+)+$`); without this it is literal text
    - `max_chars`: of output in a result; what is cut from its middle is counted
    - `max_wait`: the longest that a call may take, in seconds; longer waits that are asked for are cut to it
    - `cancelled`: says whether nobody waits for the result any more: then output stays unread for the next call
      (what was started, written or killed, is)

    >>> from procpool import ProcessManager
    >>> from procpool.adapters.tools import call_tool
    >>> with ProcessManager() as manager:
    ...     alice = manager.agent("alice")
    ...     cat = call_tool(alice, "process_start", {"command": "cat"})["process_id"]
    ...     call_tool(alice, "process_write", {"process_id": cat, "data": "hello", "wait": 5})["text"]
    'hello\\n'
    """
    if not isinstance(agent, Agent):
        raise TypeError(f"agent must be an Agent, not {type(agent).__name__}: a model never gets the manager")
    whole_number("max_chars", max_chars)
    longest = seconds("max_wait", max_wait)
    if longest is None:
        raise ValueError("max_wait must be finite")
    root = None if start_root is None else os.path.realpath(start_root)
    base = clean_env() if env is None else env
    deadline = time.monotonic() + longest
    try:
        tool = TOOLS.get(name) if isinstance(name, str) else None
        if tool is None:
            raise _Refused("unknown_tool", f"there is no tool {name!r}", f"there are: {', '.join(TOOLS)}")
        call = _Call(agent, _checked(tool, arguments), root, base, regex, max_chars, deadline, cancelled)
        result = {"ok": True, **tool.run(call)}
        if call.hints:
            result["hint"] = " ".join(call.hints)
    except _Refused as error:
        result = refused(error.code, error.message, error.hint)
    except ProcpoolError as error:
        result = refused(error.code, error.sentence, _advice(error) or error.detail)
    except (TypeError, ValueError) as error:
        result = refused("invalid_arguments", str(error), "")
    except Exception as error:  # a model must get an answer, whatever it did
        result = refused("internal", f"{type(error).__name__}: {error}", "")
    return {key: _clean(value) for key, value in result.items()}


def refused(code: str, message: str, hint: str = "") -> Json:
    """Return the answer to a call that is not done."""
    return {"ok": False, "error": {"code": code, "message": _short(message), "hint": _short(hint)}}


def _advice(error: ProcpoolError) -> str:
    if isinstance(error, StdinClosedError):
        return "the process ended, or its stdin was closed: process_poll tells"
    if error.code == "limit":
        return "process_kill one that is not needed any more; process_list shows them"
    if error.code == "not_found":
        return "it was killed, or never started: process_list shows what there is"
    return ""


def _short(text: str) -> str:
    return clipped(text, MOST_TEXT_CHARS)[0]


def _clean(value: Any) -> Any:
    """Return a value that any JSON writer takes: without lone surrogates, which stand for bytes that are no text."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    return value


# Schemas, and arguments against them


def _schema(tool: _Tool, *, strict: bool) -> Json:
    properties: Json = {}
    for name, argument in tool.arguments.items():
        schema = dict(argument.schema)
        if strict and not argument.required:
            schema["type"] = [schema["type"], "null"]
            if "enum" in schema:
                schema["enum"] = [*schema["enum"], None]
        properties[name] = {**schema, "description": argument.description}
    required = [name for name, argument in tool.arguments.items() if strict or argument.required]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _checked(tool: _Tool, arguments: object) -> Json:
    """Check arguments against a tool's schema; null is the default. Raises _Refused."""
    if not isinstance(arguments, Mapping):
        raise _invalid(f"arguments must be an object, not {type(arguments).__name__}")
    unknown = [name for name in arguments if name not in tool.arguments]
    if unknown:
        raise _invalid(
            f"there is no argument {_short(repr(unknown[0]))}; there are: {', '.join(tool.arguments) or 'none'}"
        )
    for name, argument in tool.arguments.items():
        value = arguments.get(name)
        if value is not None:
            _check(name, value, argument.schema)
        elif argument.required:
            raise _invalid(f"{name} is missing: {argument.description}")
    return {name: value for name, value in arguments.items() if value is not None}


def _check(name: str, value: object, schema: Json) -> None:
    kind = schema["type"]
    right = {
        "string": lambda: isinstance(value, str),
        "boolean": lambda: isinstance(value, bool),
        "integer": lambda: isinstance(value, int) and not isinstance(value, bool),
        "number": lambda: isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value),
        "array": lambda: isinstance(value, list),
    }
    try:
        fits = right[kind]()
    except OverflowError:  # an int that no float can hold
        fits = False
    if not fits:
        raise _invalid(f"{name} must be {'an' if kind[0] in 'ai' else 'a'} {kind}, not {_short(repr(value))[:200]}")
    if isinstance(value, list):
        if len(value) > schema.get("maxItems", math.inf):
            raise _invalid(f"{name} has too many items: {len(value)}, at most {schema['maxItems']}")
        if len(value) < schema.get("minItems", 0):
            raise _invalid(f"{name} must not be empty")
        for number, item in enumerate(value):
            _check(f"{name}[{number}]", item, schema["items"])
    elif "enum" in schema and value not in schema["enum"]:
        raise _invalid(f"{name} must be one of {', '.join(schema['enum'])}, not {_short(repr(value))[:200]}")
    elif isinstance(value, (int, float)) and not schema.get("minimum", -math.inf) <= value <= schema.get(
        "maximum", math.inf
    ):
        raise _invalid(f"{name} is out of range: {str(value)[:50]}")
    elif isinstance(value, str) and len(value) > MOST_DATA_CHARS:
        raise _invalid(f"{name} is too long: {len(value)} characters, at most {MOST_DATA_CHARS}")


def _invalid(message: str, hint: str = "") -> _Refused:
    return _Refused("invalid_arguments", message, hint)


# Results


def _output(call: _Call, output: Output, *, terminal: bool, gone: bool = False) -> Json:
    """What a result tells of output; of a terminal as it looks, without escape codes."""
    text = output.plain if terminal else output.text
    partial = output.partial
    shown, cut = clipped(text, call.max_chars)
    found: Json = {
        "text": shown,
        "cursor": output.cursor,
        "dropped": output.dropped.stdout + output.dropped.stderr,
        "eof": output.eof,
    }
    if cut:
        found["cut"] = cut
        if gone:
            call.hints.append("The output was cut in its middle; the rest is gone with the process.")
        elif "\n" in text.rstrip("\n"):
            call.hints.append("The output was cut in its middle: ask for less with max_lines and an earlier cursor.")
        else:
            call.hints.append("This line is too long to be shown whole.")
    unfinished = partial.stdout or partial.stderr
    if unfinished:
        found["partial"] = _short(plain(unfinished) if terminal else unfinished)
    return found


def _state(info: ProcessInfo) -> Json:
    """What a result tells of a process; nothing that has to be asked of the system."""
    code = info.returncode
    found: Json = {
        "process_id": info.id,
        "command": clipped(info.command, MOST_COMMAND_CHARS)[0],
        "state": info.state,
        "exit_code": code if code is None or code >= 0 else None,
        "signal": None,
        "ended_by": info.ended_by,
        "idle_secs": round(info.idle_secs, 2),
        "up_secs": info.uptime_secs,
        "stdin": "open" if info.stdin_open else "closed",
        "descendants_alive": info.descendants_alive,
    }
    if code is not None and code < 0:
        found["signal"] = _signal_name(-code)
    if info.error is not None:
        found["error"] = _short(info.error)
    return found


def _signal_name(number: int) -> str:
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _report(call: _Call, process: Process, output: Output) -> Json:
    """What a result tells of a process and of its output."""
    info = process.info()
    waits = process.waiting_for_input if info.alive else False
    said = info.bytes.stdout + info.bytes.stderr
    if waits:
        call.hints.append("It waits for input: process_write.")
    elif info.alive and not said and not info.pty and info.uptime_secs >= BUFFERED_SECS:
        call.hints.append("It has said nothing. If it buffers its output, start it unbuffered or with pty.")
    if info.descendants_alive:
        call.hints.append("It has exited, and others that it started live on: process_kill ends them.")
    return {**_state(info), "waiting_for_input": waits, **_output(call, output, terminal=info.pty)}


# The tools


def _start(call: _Call) -> Json:
    given = call.given
    cwd = given.get("cwd") or None
    if call.start_root is not None:
        cwd = os.path.realpath(os.path.join(call.start_root, cwd or ""))
        if not within(cwd, call.start_root):
            raise _Refused("not_authorized", f"cwd must lie in {call.start_root}: {cwd}")
    extra = {}
    for entry in given.get("env", []):
        name, equals, value = entry.partition("=")
        if not equals:
            raise _invalid(f"env must have entries like NAME=value, not {_short(entry)[:200]!r}")
        extra[name] = value
    process = call.agent.spawn(
        given["command"],
        given.get("args", []),
        cwd=cwd,
        env=call.env,
        extra_env=extra,
        pty=given.get("pty", False),
    )
    return _answer(call, process, "")


def _poll(call: _Call) -> Json:
    process = call.process()
    cursor = call.given.get("cursor")
    _await_output(call, process, call.wait_secs("wait"), cursor)
    return _read(call, process, cursor)


def _read(call: _Call, process: Process, cursor: Optional[str] = None) -> Json:
    if cursor is None and call.cancelled():
        cursor = process.tail(1).cursor
    return _report(call, process, process.read(since=cursor, max_lines=call.given.get("max_lines")))


def _await_output(call: _Call, process: Process, limit: float, cursor: Optional[str] = None) -> None:
    """Wait for news, and take nothing: the call may be cancelled meanwhile."""
    if limit:
        since = None if cursor is None else {process.id: cursor}
        try:
            call.agent.wait_any([process.id], output=True, since=since, timeout=limit)
        except TimeoutExpired:
            pass  # the result will say that there is nothing


def _answer(call: _Call, process: Process, before: str) -> Json:
    """If that is asked for, wait until a process wants more input, has said something since the cursor `before` and is
    quiet, or exits; then read.
    """
    limit = call.wait_secs("wait")
    if not limit:
        return _state(process.info())
    deadline = time.monotonic() + limit
    since = {process.id: before}
    try:
        wake = call.agent.wait_any([process.id], output=True, input=True, since=since, timeout=limit)
        if wake.reason == "output":
            left = max(deadline - time.monotonic(), 0.0)
            call.agent.wait_any([process.id], input=True, quiet=QUIET_SECS, since=since, timeout=left)
    except TimeoutExpired:
        pass  # it is at work
    return _read(call, process)


def _write(call: _Call) -> Json:
    process = call.process()
    data = call.given["data"]
    before = process.tail(1).cursor
    timeout = call.wait_secs("timeout", 10.0)
    if call.given.get("raw"):
        process.write(data, timeout=timeout)
    else:
        process.send_line(data.removesuffix("\n"), timeout=timeout)
    if call.given.get("close_stdin"):
        process.close_stdin()
    return _answer(call, process, before)


def _kill(call: _Call) -> Json:
    process = call.process()
    pty = process.info().pty
    grace = min(process._pool.grace, max(call.left - KILL_SECS, LEAST_GRACE_SECS))
    ended = process.kill(grace=grace)
    return {
        "process_id": process.id,
        "exit_code": ended.returncode if ended.signal is None else None,
        "signal": ended.signal,
        "ended_by": ended.ended_by,
        "killed": len(ended.pids) - len(ended.survivors),
        "survivors": list(ended.survivors)[:MOST_LISTED],
        **_output(call, ended.output, terminal=pty, gone=True),
    }


def _list(call: _Call) -> Json:
    infos = call.agent.list()
    if len(infos) > MOST_LISTED:
        call.hints.append(f"There are {len(infos)}; these are the newest.")
    return {"processes": [_state(info) for info in infos[-MOST_LISTED:]]}


def _wait(call: _Call) -> Json:
    given = call.given
    until = given["until"]
    ids = list(dict.fromkeys(given["process_ids"]))
    pattern = _pattern(call, ids) if until == "pattern" else None
    quiet = QUIET_SECS if until == "quiet" else None
    if until == "quiet" and "quiet_secs" in given:
        quiet = float(given["quiet_secs"])
    wake = call.agent.wait_any(
        ids,
        pattern=pattern,
        output=until == "output",
        quiet=quiet,
        input=until == "input",
        timeout=call.wait_secs("timeout", call.left),
    )
    info = call.agent[wake.process_id].info()
    if wake.reason == "exit" and until == "pattern":
        kept = " of its output that is kept" if sum((info.dropped.stdout, info.dropped.stderr)) else ""
        call.hints.append(f"It exited, and what was waited for is not in what was not searched before{kept}.")
    found = {"reason": wake.reason, **_state(info)}
    if wake.match is not None:
        found["line"] = _short(plain(wake.match.line))
    return found


def _pattern(call: _Call, ids: list[str]) -> str:
    text: str = call.given.get("pattern", "")
    if not text:
        raise _invalid("pattern is missing: until is 'pattern'")
    most = MOST_REGEX_CHARS if call.regex else MOST_PATTERN_CHARS
    if len(text) > most:
        raise _invalid(f"pattern is too long: {len(text)} characters, at most {most}")
    if not call.regex:
        between = CODES if any(call.agent[process_id].info().pty for process_id in ids) else ""
        return between.join(map(re.escape, text))
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise _invalid(f"pattern is not a regular expression: {error}") from None
    return text


def _signal(call: _Call) -> Json:
    process = call.process()
    action = call.given["action"]
    before = process.tail(1).cursor
    if action == "interrupt":
        process.interrupt()
    elif action == "terminate":
        process.terminate()
    elif action == "resize":
        if "rows" not in call.given or "cols" not in call.given:
            raise _invalid("rows and cols are missing: action is 'resize'")
        process.resize(call.given["rows"], call.given["cols"])
    elif call.given.get("keys"):
        process.send_keys(*call.given["keys"], timeout=min(10.0, call.left))
    else:
        raise _invalid("keys are missing: action is 'keys'")
    return _answer(call, process, before)


_ID = _Argument({"type": "string"}, "The id that process_start gave", required=True)
_CURSOR = _Argument(
    {"type": "string"},
    "Give output from this place on: the cursor of an earlier result, or '' for the oldest that is kept. "
    "Default: what no call has returned yet",
)
_SECONDS = {"type": "number", "minimum": 0}
_ANSWER = _Argument(
    _SECONDS, "Wait up to so many seconds until it waits for more input, is quiet, or exits; then give its output"
)

TOOLS: dict[str, _Tool] = {
    "process_start": _Tool(
        "Start a long-running process (a server, a REPL, a watcher, a test run) and return its process_id at once. "
        "No shell runs: a pipe or a && needs command 'sh', args ['-c', '...'].",
        {
            "command": _Argument({"type": "string"}, "The program, without arguments", required=True),
            "args": _Argument(
                {"type": "array", "items": {"type": "string"}, "maxItems": 10_000}, "Its arguments, each one literally"
            ),
            "cwd": _Argument({"type": "string"}, "The folder to start it in"),
            "env": _Argument(
                {"type": "array", "items": {"type": "string"}, "maxItems": 1000},
                "More environment variables, each as NAME=value",
            ),
            "pty": _Argument(
                {"type": "boolean"},
                "Give it a terminal: for programs that want one, or hold their output back without",
            ),
            "wait": _ANSWER,
        },
        _start,
    ),
    "process_poll": _Tool(
        "Return new output of a process, and its state.",
        {
            "process_id": _ID,
            "cursor": _CURSOR,
            "wait": _Argument(_SECONDS, "Wait up to so many seconds for new output or the exit"),
            "max_lines": _Argument(
                {"type": "integer", "minimum": 1, "maximum": 1_000_000},
                "At most so many lines; the rest comes with the next call",
            ),
        },
        _poll,
    ),
    "process_write": _Tool(
        "Write a line to a process's stdin; a missing newline is appended.",
        {
            "process_id": _ID,
            "data": _Argument({"type": "string"}, "What to write", required=True),
            "raw": _Argument({"type": "boolean"}, "Append nothing"),
            "close_stdin": _Argument({"type": "boolean"}, "Close stdin afterwards: the process sees its end"),
            "timeout": _Argument(_SECONDS, "How long it may take to read the whole of it (default: 10)"),
            "wait": _ANSWER,
        },
        _write,
    ),
    "process_kill": _Tool(
        "End a process and everything that it started, and forget it. Returns the output that was not read.",
        {"process_id": _ID},
        _kill,
    ),
    "process_list": _Tool("List your processes, those that ended included, oldest first.", {}, _list),
    "process_wait": _Tool(
        "Wait until one of several processes exits, or does what else is waited for. Takes no output: process_poll.",
        {
            "process_ids": _Argument(
                {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 1000},
                "Of which processes",
                required=True,
            ),
            "until": _Argument(
                {"type": "string", "enum": list(CONDITIONS)},
                "exit; output: output that was not read; pattern: a line that has it; quiet: silence; "
                "input: it waits for input. An exit always ends the wait",
                required=True,
            ),
            "pattern": _Argument({"type": "string"}, "What to look for in a line, from where the last such wait ended"),
            "quiet_secs": _Argument(_SECONDS, "How long the silence has to be (default: 1)"),
            "timeout": _Argument(_SECONDS, "How long to wait, in seconds (default, and at most: 50)"),
        },
        _wait,
    ),
    "process_signal": _Tool(
        "Interrupt a process (Ctrl-C), ask it to end, resize its terminal, or press keys in it.",
        {
            "process_id": _ID,
            "action": _Argument({"type": "string", "enum": list(ACTIONS)}, "What to do", required=True),
            "keys": _Argument(
                {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 1000},
                "For 'keys': names such as Enter, Up, Escape, C-c, or characters",
            ),
            "rows": _Argument({"type": "integer", "minimum": 1, "maximum": 65_535}, "For 'resize'"),
            "cols": _Argument({"type": "integer", "minimum": 1, "maximum": 65_535}, "For 'resize'"),
            "wait": _ANSWER,
        },
        _signal,
    ),
}
