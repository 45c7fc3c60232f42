"""What can go wrong, as one tree.

::

    ProcpoolError
    |- ProcessNotFoundError (LookupError)
    |- LimitExceededError (RuntimeError)
    |- NotAuthorizedError (PermissionError)
    |- StartError (OSError)
    |  `- CommandNotFoundError (FileNotFoundError)
    |- StdinClosedError (BrokenPipeError)
    |- TimeoutExpired (subprocess.TimeoutExpired, TimeoutError)
    |  `- WriteTimeoutError
    |- EndOfOutputError (EOFError)
    `- ManagerClosedError (RuntimeError)

Each one is also the builtin that a user would catch, carries its data as attributes, has a stable
`code` for programs, and pickles.  A wrong argument is a plain `TypeError` or `ValueError`.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any, ClassVar, Optional

if TYPE_CHECKING:
    from procpool.snapshot import Output


class ProcpoolError(Exception):
    """The base of every error of this library.

    `str()` is one sentence, then, on lines of their own, what a person needs without a rerun.
    """

    code: ClassVar[str] = "error"

    def __init__(self, sentence: str, detail: str = "", **data: Any) -> None:
        self.sentence = sentence
        self.detail = detail
        self._data = data
        for name, value in data.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        return f"{self.sentence}\n{self.detail}" if self.detail else self.sentence

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.sentence!r})"

    # OSError and TimeoutExpired have pickling rules of their own, which lose our attributes.
    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.sentence, self.detail, self._data)


def _rebuild(kind: type[ProcpoolError], sentence: str, detail: str, data: dict[str, Any]) -> ProcpoolError:
    return kind(sentence, detail, **data)


class ProcessNotFoundError(ProcpoolError, LookupError):
    """There is no such process: never started, another agent's, killed or forgotten."""

    code = "not_found"
    process_id: str


class LimitExceededError(ProcpoolError, RuntimeError):
    """The agent, or the manager, already has as many processes as it may have."""

    code = "limit"
    agent_id: str
    count: int
    limit: int


class NotAuthorizedError(ProcpoolError, PermissionError):
    """The manager's `authorize` hook refused the command."""

    code = "not_authorized"
    agent_id: str
    command: str


class StartError(ProcpoolError, OSError):
    """The process could not be started; nothing of it is left."""

    code = "start_failed"
    command: str
    errno: Optional[int]


class CommandNotFoundError(StartError, FileNotFoundError):
    """There is no such command."""


class StdinClosedError(ProcpoolError, BrokenPipeError):
    """The process no longer takes input: it ended, or its stdin is closed.

    `written` is the number of bytes of the message that it had been given.
    """

    code = "stdin_closed"
    process_id: str
    written: int


class TimeoutExpired(ProcpoolError, subprocess.TimeoutExpired, TimeoutError):
    """What was waited for did not happen in time; the process lives on.

    `timeout` is in seconds; `output` is what the process had said (nothing was taken).
    """

    code = "timeout"
    process_id: str
    cmd: Any
    timeout: float
    output: Optional[Output]
    stderr = None  # it is in `output`


class WriteTimeoutError(TimeoutExpired):
    """The process did not take the whole message in time; `written` bytes of it were given."""

    written: int


class EndOfOutputError(ProcpoolError, EOFError):
    """The output ended before what was waited for came."""

    code = "exited"
    process_id: str
    output: Output
    returncode: Optional[int]


class ManagerClosedError(ProcpoolError, RuntimeError):
    """The manager was closed, or belongs to the process that this one was forked from."""

    code = "closed"
