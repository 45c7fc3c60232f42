"""The examples run, and speak as the published types of the model APIs have it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import procpool
from procpool.adapters.tools import tools

if sys.version_info >= (3, 10):  # here, so that what they leave to the garbage collector is frozen by conftest.py
    import mcp_types
    from anthropic.types import Message, MessageParam, ToolParam
    from openai.types.chat import ChatCompletion, ChatCompletionMessageParam, ChatCompletionToolParam
    from openai.types.responses import FunctionToolParam
    from pydantic import TypeAdapter

pytestmark = pytest.mark.timeout(90)  # they import a lot, which takes its time on a busy machine

ROOT = Path(__file__).parents[2]
NEWER = pytest.mark.skipif(sys.version_info < (3, 10), reason="openai, anthropic: their packages need Python 3.10")


@pytest.mark.parametrize("name", ["plain_loop", "openai_loop", "anthropic_loop"])
def test_the_example_does_what_it_says(name):
    """A server, a failing test, a REPL."""
    done = subprocess.run(
        [sys.executable, "-m", f"examples.{name}"], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.stderr == ""
    assert done.stdout.startswith("The server came up on port ")
    assert done.stdout.endswith("test_of_none fails: ZeroDivisionError: division by zero\n")


@pytest.fixture
def example(monkeypatch):
    """Import an example."""
    import importlib

    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"examples.{name}")


@NEWER
def test_openai_s_shapes(example):
    """Requests and answers, as its types have them."""
    loop = example("openai_loop")
    complete = loop.scripted()
    replies = []

    def checked(**request):
        replies.append(ChatCompletion.model_validate(complete(**request), strict=True))
        return replies[-1].model_dump(exclude_none=True)

    with procpool.ProcessManager(guardian=False) as manager:
        messages = loop.run(manager.agent("model"), checked)
    assert replies[-1].choices[0].finish_reason == "stop"
    for message in messages:
        TypeAdapter(ChatCompletionMessageParam).validate_python(message)
    for strict in (False, True):
        TypeAdapter(list[ChatCompletionToolParam]).validate_python(tools("openai", strict=strict))
        TypeAdapter(list[FunctionToolParam]).validate_python(tools("openai-responses", strict=strict))


@NEWER
def test_anthropic_s_shapes(example):
    """Requests and answers, as its types have them."""
    loop = example("anthropic_loop")
    create = loop.scripted()
    replies = []

    def checked(**request):
        replies.append(Message.model_validate(create(**request)))
        return replies[-1].model_dump(exclude_none=True)

    with procpool.ProcessManager(guardian=False) as manager:
        messages = loop.run(manager.agent("model"), checked)
    assert replies[-1].stop_reason == "end_turn"
    for message in messages:
        TypeAdapter(MessageParam).validate_python(message)
    TypeAdapter(list[ToolParam]).validate_python(tools("anthropic"))


@NEWER
def test_mcp_s_shapes():
    """The names on the wire."""
    for tool in tools("mcp"):
        assert mcp_types.Tool.model_validate(tool).input_schema == tool["inputSchema"]
