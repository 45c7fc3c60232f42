"""From a command and its options to a running process and its fds."""

from __future__ import annotations

import errno
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

from procpool.duty import close_all, open_pipes
from procpool.errors import CommandNotFoundError, StartError
from procpool.facts import NamedTuple
from procpool.system.terminal import open_terminal

SH = "/bin/sh"
# A session leader's first terminal becomes the one that controls it. It has it as its fds 0 to 2 before: were there no
# holder of the other end for a moment, we would read an end of the output.
TAKE_TERMINAL = 'exec "$@" 0<>"$0" 1>&0 2>&0'
# What one shell or the other sets by itself.
SHELL_NAMES = (
    b"PWD", b"OLDPWD", b"SHLVL", b"_", b"IFS", b"OPTIND", b"PPID", b"UID", b"EUID", b"SHELLOPTS", b"BASHOPTS"
)  # fmt: skip


class Size(NamedTuple):
    """A terminal's size, and whether it shows what is typed."""

    rows: int
    cols: int
    echo: bool


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
    pty: Optional[Size],
    into: Launch,
) -> None:
    """Start a process at the head of a session of its own, with nothing but fds 0, 1 and 2: pipes, or a terminal.

    No `preexec_fn`, `user` or `group`: they turn vfork into fork, which is ten times slower and unsafe beside
    threads. Raises `StartError`. Whatever happens, also Ctrl-C at any call, what there is is in `into`.
    """
    try:
        if pty is not None:
            words: Sequence[str] = _with_terminal(argv, cwd, env)
            open_terminal(into.fds, pty.rows, pty.cols, echo=pty.echo)
            reading, theirs, writing = into.fds
            words = [SH, "-c", TAKE_TERMINAL, os.ttyname(theirs), *words]
            into.ours, into.theirs, into.fds = [reading, writing], iter([theirs]), []
            streams = [theirs] * 3
        else:
            words = _with_sigint(argv, cwd, env)
            open_pipes(into.fds, 1 + (not merge_stderr) + stdin)
            ours, ends = into.fds[0::2], into.fds[1::2]
            if stdin:  # the one pipe of which the child reads
                ours[-1], ends[-1] = ends[-1], ours[-1]
            into.ours, into.theirs, into.fds = ours, iter(ends), []
            streams = [
                ends[-1] if stdin else subprocess.DEVNULL,
                ends[0],
                subprocess.STDOUT if merge_stderr else ends[1],
            ]
        into.popen = popen = subprocess.Popen.__new__(subprocess.Popen)
        popen.__init__(  # type: ignore[misc]  # so that it is known already if it is interrupted
            words,
            bufsize=0,
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
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


def _with_sigint(argv: Sequence[str], cwd: Optional[str], env: Mapping[bytes, bytes]) -> Sequence[str]:
    """Give the child SIGINT at its default where we ignore it, as a host does that a script started with `&`.

    No shell can restore an ignored signal, and `restore_signals` leaves SIGINT out; coreutils' `env` does it, with the
    same pid. What cannot be found is left to Popen, for its error.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN or not sys.platform.startswith("linux"):
        return argv
    import shutil  # it imports much, and is seldom needed

    helper = shutil.which("env")
    if helper is None or "=" in argv[0]:
        return argv
    try:
        if not _is_known(_find(argv[0], cwd, env)):
            return argv  # `env` would have a shell run it
    except OSError:
        return argv
    return [helper, "--default-signal=INT", "--", *argv]


def _with_terminal(argv: Sequence[str], cwd: Optional[str], env: Mapping[bytes, bytes]) -> list[str]:
    """Return the words for the shell that takes the terminal; what Popen would refuse is refused before. OSError.

    Shells drop names that they could not set, such as `A.B`, and add some of their own: `env` puts that right. And it
    gives SIGINT back its default, where we ignore it.
    """
    if not os.path.exists(SH):
        raise FileNotFoundError(errno.ENOENT, "a terminal needs /bin/sh, and there is none", SH)
    path = _find(argv[0], cwd, env)
    if argv[0].startswith("-") or "=" in argv[0]:
        argv = [os.path.abspath(path), *argv[1:]]
    import shutil

    helper = shutil.which("env")
    if helper is None or "=" in argv[0]:
        return list(argv)
    words = [helper]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and sys.platform.startswith("linux"):
        words.append("--default-signal=INT")
    for name in SHELL_NAMES:
        if name not in env:
            words += ["-u", os.fsdecode(name)]
    words.append("--")  # a variable may be named like an option
    for name, value in env.items():
        if name in SHELL_NAMES or not re.fullmatch(rb"[A-Za-z_][A-Za-z0-9_]*", name):
            words.append(os.fsdecode(name + b"=" + value))
    return [*words, *argv]


def _find(command: str, cwd: Optional[str], env: Mapping[bytes, bytes]) -> str:
    """Find the file of a command, as Popen would, from the child's directory. Raises OSError."""
    folder = cwd or ""
    if cwd is not None:
        os.stat(folder + "/")
    if "/" in command:
        places = [os.path.join(folder, command)]
    else:
        search = os.fsdecode(env.get(b"PATH", os.fsencode(os.defpath)))
        places = [os.path.join(folder, part, command) for part in search.split(os.pathsep)]
    refused = errno.ENOENT
    for place in places:
        try:
            mode = os.stat(place).st_mode
        except OSError as error:
            if error.errno != errno.ENOENT and (error.errno != errno.ENOTDIR or "/" in command):
                refused = error.errno or refused
            continue
        if not stat.S_ISREG(mode) or not os.access(place, os.X_OK):
            refused = errno.EACCES
            continue
        if not _is_known(place):
            with open(place, "rb") as file:
                head = file.read(256)
            if head.startswith(b"#!"):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), command)
            if b"\0" not in head:  # a shell would take it for a script; of another kind of binary the kernel may know
                raise OSError(errno.ENOEXEC, os.strerror(errno.ENOEXEC), command)
        return place
    raise OSError(refused, os.strerror(refused), command)


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
    if number == errno.ENOENT and error.filename == SH and command != SH:
        return StartError(f"Failed to start process {command!r}: {error.strerror}", "", command=command, errno=number)
    reason = os.strerror(number) if number else str(error)
    path = os.path.join(cwd or "", command) if "/" in command else ""
    kind = StartError
    detail = ""
    if number == errno.ENOENT and cwd is not None and not os.path.isdir(cwd):
        reason, detail = f"{reason}: {cwd!r}", f"cwd: there is no directory {cwd!r}"
    elif number == errno.ENOENT:
        kind = CommandNotFoundError
        if os.path.exists(path):
            detail = f"{command!r} is there, but the interpreter that its first line names is not"
        elif " " in command:
            detail = "the command holds a space: arguments go in args, or give a list of all words"
        else:
            detail = f"there is no command {command!r}" + ("" if "/" in command else " on PATH")
    elif number == errno.ENOTDIR and cwd is not None and not os.path.isdir(cwd):
        reason, detail = f"{reason}: {cwd!r}", f"cwd: {cwd!r} is not a directory"
    elif number == errno.EACCES:
        if os.path.isdir(path):
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
