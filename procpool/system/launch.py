"""From a command and its options to a running process and its fds."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

from procpool.duty import close_all, open_pipes
from procpool.errors import CommandNotFoundError, StartError


class Launch:
    """A start, as far as it has come: what there is to take back if it comes no further."""

    def __init__(self) -> None:
        self.fds: list[int] = []  # both ends of each pipe, until they are sorted into the next two
        self.ours: list[int] = []  # stdout, then stderr and stdin, where there are such
        self.theirs: Iterator[int] = iter(())  # what is still to be closed of the other ends
        self.popen: Optional[subprocess.Popen[Any]] = None
        self.pid = 0  # as soon as it is known

    def close(self) -> None:
        """Close all fds. Not in the main thread; two threads may do it at once."""
        close_all(self.theirs)
        for fds in (self.ours, self.fds):
            while fds:
                try:
                    fd = fds.pop()
                except IndexError:
                    break
                os.close(fd)


def launch(
    argv: Sequence[str],
    *,
    cwd: Optional[str],
    env: Mapping[bytes, bytes],
    stdin: bool,
    merge_stderr: bool,
    into: Launch,
) -> None:
    """Start a process at the head of a session of its own, with nothing but fds 0, 1 and 2.

    No `preexec_fn`, `user` or `group`: they turn vfork into fork, which is ten times slower and unsafe beside
    threads. Raises `StartError`. Whatever happens, also Ctrl-C at any call, what there is is in `into`.
    """
    try:
        open_pipes(into.fds, 1 + (not merge_stderr) + stdin)
        ours, theirs = into.fds[0::2], into.fds[1::2]
        if stdin:  # the one pipe of which the child reads
            ours[-1], theirs[-1] = theirs[-1], ours[-1]
        closing = iter(theirs)
        into.ours, into.theirs, into.fds = ours, closing, []
        into.popen = popen = subprocess.Popen.__new__(subprocess.Popen)
        popen.__init__(  # type: ignore[misc]  # so that it is known already if it is interrupted
            _with_sigint(argv, env),
            bufsize=0,
            stdin=theirs[-1] if stdin else subprocess.DEVNULL,
            stdout=theirs[0],
            stderr=subprocess.STDOUT if merge_stderr else theirs[1],
            close_fds=True,
            start_new_session=True,
            cwd=cwd,
            env=env,
        )
    except OSError as error:
        raise start_error(argv[0], cwd, error) from error
    into.pid = popen.pid
    disown(popen)
    close_all(into.theirs)


def disown(popen: subprocess.Popen[Any]) -> None:
    """Have the child reaped in one place, which is ours.

    A Popen that believes that it still has one would warn when it is dropped, and wait for the child when the next
    Popen is made.
    """
    popen.returncode = 0


def _with_sigint(argv: Sequence[str], env: Mapping[bytes, bytes]) -> Sequence[str]:
    """Give the child SIGINT at its default where we ignore it, as a host does that a script started with `&`.

    No shell can restore an ignored signal, and `restore_signals` leaves SIGINT out; coreutils' `env` does it, with the
    same pid. What cannot be found is left to Popen, for its error.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN or not sys.platform.startswith("linux"):
        return argv
    command = shutil.which(argv[0], path=os.fsdecode(env.get(b"PATH", os.fsencode(os.defpath))))
    helper = shutil.which("env")
    if command is None or helper is None or "=" in argv[0] or not _is_known(command):
        return argv
    return [helper, "--default-signal=INT", *argv]


def _is_known(command: str) -> bool:
    """Say whether a file is a binary, or a script whose interpreter is there; `env` would hide what is wrong."""
    try:
        with open(command, "rb") as file:
            head = file.read(256)
    except OSError:  # it may be run, but not read
        return True
    if head.startswith(b"#!"):
        words = head[2:].split(b"\n")[0].split()
        return bool(words) and os.path.exists(words[0])
    return head.startswith(b"\x7fELF")


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
