"""Errors: the seed's sentences word by word, the builtin that a user catches, and their data."""

from __future__ import annotations

import pickle
import subprocess

import pytest

import procpool

SENTENCES = {
    "Agent 'a' already has 1 processes (max: 1)": lambda m: (m.start("a", "cat"), m.start("a", "cat")),
    "Process 'x' not found": lambda m: m.read("x"),
    "Failed to start process '/x': No such file or directory": lambda m: m.start("a", "/x"),
    "Process stdin is closed": lambda m: m.write(m.start("a", "cat", stdin=False), "x"),
}

TREE = {
    procpool.ProcpoolError: (Exception, "error"),
    procpool.ProcessNotFoundError: (LookupError, "not_found"),
    procpool.LimitExceededError: (RuntimeError, "limit"),
    procpool.NotAuthorizedError: (PermissionError, "not_authorized"),
    procpool.StartError: (OSError, "start_failed"),
    procpool.CommandNotFoundError: (FileNotFoundError, "start_failed"),
    procpool.StdinClosedError: (BrokenPipeError, "stdin_closed"),
    procpool.TimeoutExpired: (TimeoutError, "timeout"),
    procpool.WriteTimeoutError: (subprocess.TimeoutExpired, "timeout"),
    procpool.EndOfOutputError: (EOFError, "exited"),
    procpool.ManagerClosedError: (RuntimeError, "closed"),
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_the_first_line_is_the_seed_s_sentence(sentence):
    """Whoever matched the seed's strings goes on doing so."""
    with procpool.ProcessManager(max_per_agent=1) as manager:
        with pytest.raises(procpool.ProcpoolError) as caught:
            SENTENCES[sentence](manager)
        assert str(caught.value).splitlines()[0] == sentence
        assert caught.value.sentence == sentence


@pytest.mark.parametrize("kind", TREE)
def test_each_error_is_also_the_builtin_and_has_a_code(kind):
    """`except FileNotFoundError` works, and programs need not parse text."""
    builtin, code = TREE[kind]
    assert issubclass(kind, builtin)
    assert issubclass(kind, procpool.ProcpoolError)
    assert kind.code == code
    assert kind.__doc__


@pytest.mark.parametrize("kind", TREE)
def test_each_error_pickles_with_its_data(kind):
    """It crosses a process boundary whole: OSError's own way would lose it."""
    error = kind("A sentence", "a detail", process_id="proc_1", errno=2, written=3, timeout=1.5)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error) == "A sentence\na detail"
    assert repr(copy) == f"{kind.__name__}('A sentence')"
    assert (copy.process_id, copy.errno, copy.written, copy.timeout) == ("proc_1", 2, 3, 1.5)


def test_real_errors_pickle_with_their_output(spawn):
    """The output that a timeout carries is only data."""
    process = spawn("out:x\\n", "wait")
    process.expect("x", 5)
    with pytest.raises(procpool.TimeoutExpired) as caught:
        process.expect("y", 0.01)
    assert pickle.loads(pickle.dumps(caught.value)).output.stdout == ["x"]
    assert (caught.value.timeout, caught.value.stderr) == (0.01, None)  # as subprocess's has them


def test_the_tree_that_is_drawn_is_the_tree_that_is():
    """The picture at the top of the module."""
    for kind in TREE:
        assert kind.__name__ in procpool.errors.__doc__
