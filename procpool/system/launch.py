"""From a command and its options to a running process and its fds."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional

from procpool.errors import CommandNotFoundError, StartError


class Launched(NamedTuple):
    """A process that runs, and our ends of its pipes."""

    pid: int
    stdin: Optional[int]
    stdout: int
    stderr: Optional[int]  # None: it comes with stdout


def launch(
    argv: Sequence[str],
    *,
    cwd: Optional[str],
    env: Mapping[bytes, bytes],
    stdin: bool,
    merge_stderr: bool,
) -> Launched:
    """Start a process at the head of a session of its own, with nothing but fds 0, 1 and 2.

    No `preexec_fn`, `user` or `group`: they turn vfork into fork, which is ten times slower and unsafe beside
    threads. Raises `StartError`; then no process and no fd is left.
    """
    ours: list[int] = []
    theirs: list[int] = []
    try:
        child_in = subprocess.DEVNULL
        if stdin:
            child_in, our_in = os.pipe()
            theirs.append(child_in)
            ours.append(our_in)
        our_out, child_out = os.pipe()
        ours.append(our_out)
        theirs.append(child_out)
        child_err = subprocess.STDOUT
        if not merge_stderr:
            our_err, child_err = os.pipe()
            ours.append(our_err)
            theirs.append(child_err)
        popen = subprocess.Popen(
            _with_sigint(argv, env),
            bufsize=0,
            stdin=child_in,
            stdout=child_out,
            stderr=child_err,
            close_fds=True,
            start_new_session=True,
            cwd=cwd,
            env=env,
        )
    except BaseException as error:
        for fd in ours:
            os.close(fd)
        if isinstance(error, OSError):
            raise start_error(argv[0], cwd, error) from error
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    # From here on the child is reaped in one place, which is ours: a Popen that believes that it still has one would
    # warn when it is dropped, and wait for the child when the next Popen is made.
    popen.returncode = 0
    return Launched(
        popen.pid,
        ours[0] if stdin else None,
        our_out,
        None if merge_stderr else our_err,
    )


def _with_sigint(argv: Sequence[str], env: Mapping[bytes, bytes]) -> Sequence[str]:
    """Give the child SIGINT at its default where we ignore it, as a host does that a script started with `&`.

    No shell can restore an ignored signal, and `restore_signals` leaves SIGINT out; coreutils' `env` does it, with the
    same pid. What cannot be found is left to Popen, for its error.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN or not sys.platform.startswith("linux"):
        return argv
    command = shutil.which(argv[0], path=os.fsdecode(env.get(b"PATH", os.fsencode(os.defpath))))
    helper = shutil.which("env")
    if command is None or helper is None or "=" in argv[0]:
        return argv
    return [helper, "--default-signal=INT", *argv]


def start_error(command: str, cwd: Optional[str], error: OSError) -> StartError:
    """Say why a process could not be started, so that a person knows what to change."""
    number = error.errno
    reason = os.strerror(number) if number else str(error)
    kind = StartError
    detail = ""
    if number == errno.ENOENT and cwd is not None and not os.path.isdir(cwd):
        reason, detail = f"{reason}: {cwd!r}", f"cwd: there is no directory {cwd!r}"
    elif number == errno.ENOENT:
        kind = CommandNotFoundError
        if os.path.exists(command):
            detail = f"{command!r} is there, but the interpreter that its first line names is not"
        elif " " in command:
            detail = "the command holds a space: arguments go in args, or give a list of all words"
        else:
            detail = f"there is no command {command!r}" + ("" if "/" in command else " on PATH")
    elif number == errno.ENOTDIR and cwd is not None and not os.path.isdir(cwd):
        reason, detail = f"{reason}: {cwd!r}", f"cwd: {cwd!r} is not a directory"
    elif number == errno.EACCES:
        if os.path.isdir(command):
            detail = f"{command!r} is a directory"
        elif cwd is not None and not os.access(cwd, os.X_OK):
            detail = f"cwd: {cwd!r} may not be entered"
        else:
            detail = f"{command!r} is not executable (chmod +x?)"
    elif number == errno.ENOEXEC:
        detail = f"{command!r} has no '#!' line and is no known kind of program"
    elif number in (errno.EMFILE, errno.ENFILE):
        detail = "too many files are open: raise the limit (ulimit -n), or end processes"
    elif number == errno.E2BIG:
        detail = "the arguments and the environment are longer than the system takes: pass data by stdin or a file"
    elif number == errno.EAGAIN:
        detail = "the system has no room for another process or thread (ulimit -u)"
    return kind(
        f"Failed to start process {command!r}: {reason}",
        detail,
        command=command,
        errno=number,
        strerror=reason,
        filename=command,
    )
