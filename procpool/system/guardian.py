"""The guardian: an interpreter of its own that ends an owner's trees, on request, and when the owner dies.

The owner starts it before its first process, tells it each root, and keeps a socket open.  When the socket ends, or the
owner's pidfd says so, everything that bears the owner's mark, or belongs to a root, is ended.  It is not the owner's
child, has a session of its own, no stdio, and `/` as its directory.  Standard library only; run from this file.

It has a GIL of its own, too: a look at all processes, which takes a millisecond in an idle owner, takes a second beside
one busy Python thread there.  So the owner hands over a socket for each request, which a thread of its own serves; what
is asked and the answer are marshalled: both ends are the same interpreter, and it costs no import.
"""

from __future__ import annotations

import _thread
import marshal
import os
import resource
import select
import signal
import socket
import sys
import time
from collections import deque
from typing import Any, Optional

if __name__ == "__main__":
    import types

    # The parts of the package that are needed, without what its own __init__ imports.
    package = types.ModuleType("procpool")
    package.__path__ = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    sys.modules["procpool"] = package

from procpool.system import linux, tree
from procpool.system.tree import GRACE_SECS, Tree

SH = "/bin/sh"
RESCAN_SECS = 0.4  # so long nobody may be found before the guardian believes that nobody comes any more
DEADLINE_SECS = 30.0  # for all of it, whatever happens
UNBEGUN_SECS = 0.5  # a dying owner's socket ends a little before it
LEARN_SECS = 0.05  # how long after the last message roots are looked at
PATIENCE_SECS = 0.25  # how long it may take to answer a ping
STARTUP_SECS = 5.0  # how long a helper may take to say who it is
LONGEST_SECS = 86_400.0
ANSWER_SECS = 2.0  # how long an answer may take beyond the grace


class Guardian:
    """The owner's end: starts the helper, and tells it what there is to guard.

    Used by one thread at a time; nothing here waits for the helper.
    """

    def __init__(self, mark: str, grace: float) -> None:
        self.mark = mark
        self.grace = min(grace, GRACE_SECS)
        self.pid: Optional[int] = None  # as it told us
        self._pinged: Optional[float] = None  # when it was, if it has not answered yet
        self._received = b""
        self._dropped: deque[str] = deque()
        self._started = 0.0
        self._socket: Optional[socket.socket] = None

    def start(self, start: float, *, replaces: bool = False) -> None:
        """Start the helper; `start` is the start time of this very process. Raises OSError.

        It begins with the first message: until then the end of its socket means that we were interrupted here. One that
        replaces another has something to guard from the start.
        """
        import subprocess  # the helper, which runs this file, has no need of it

        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            words = [str(theirs.fileno()), str(os.getpid()), str(start), self.mark, str(self.grace), str(int(replaces))]
            env = {name: value for name, value in os.environ.items() if name != "PROCPOOL_ID"}
            # The shell leaves it to PID 1: a host that waits for any child must not meet it.
            popen = subprocess.Popen(
                [SH, "-c", '"$@" &', "guardian", sys.executable, "-I", "-S", os.path.abspath(__file__), *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                cwd="/",
                env=env,
            )
            popen.wait()
        except BaseException:  # Ctrl-C included: the fd must not stay behind; it is raised again
            ours.close()
            raise
        finally:
            theirs.close()
        self.pid = None
        self._pinged = None
        self._received = b""
        self._started = time.monotonic()
        self._socket = ours

    @property
    def stuck(self) -> bool:
        """Whether it did not answer a ping in time, or never said who it is."""
        if self.pid is None:
            return time.monotonic() - self._started > STARTUP_SECS
        return self._pinged is not None and time.monotonic() - self._pinged > PATIENCE_SECS

    def ping(self) -> None:
        """Ask it to answer, unless it has an answer to give already."""
        if self._pinged is None:
            self._pinged = time.monotonic()
            self.tell("ping")

    def connect(self) -> Optional[socket.socket]:
        """Return the connection for one request; None if the helper is gone. See `request`."""
        if self._socket is None:
            return None
        ours, theirs = socket.socketpair()
        try:
            if socket.send_fds(self._socket, [b"\n"], [theirs.fileno()]) == 1:
                return ours
        except OSError:
            pass
        finally:
            theirs.close()
        ours.close()
        return None

    def tell(self, *message: Any) -> bool:
        """Send a message; False if the helper is gone, or does not read."""
        if self._socket is None:
            return False
        lines = []
        while self._dropped:
            lines.append(f"drop {self._dropped.popleft()}\n")
        lines.append(" ".join(map(str, message)) + "\n")
        try:
            data = "".join(lines).encode()
            return self._socket.send(data) == len(data)
        except OSError:
            return False

    def drop(self, token: str) -> None:
        """Have the helper forget a root, with the next message: it takes no harm from one that is gone."""
        self._dropped.append(token)

    def listen(self) -> bool:
        """Take in what the helper said, if anything; False if it is gone."""
        while self._socket is not None:
            try:
                data = self._socket.recv(4096)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            self._received += data
            *lines, self._received = self._received.split(b"\n")
            for line in lines:
                self.pid = int(line)
                self._pinged = None
        return False

    def dismiss(self) -> None:
        """Let the helper go: there is nothing left to guard."""
        if self.tell("bye"):
            self._close()
        else:
            self.discard()

    def discard(self) -> None:
        """End a helper that is gone or does not answer; it must not take our closing the socket for our death."""
        if self.pid is not None:
            try:
                fd = os.pidfd_open(self.pid)
            except OSError:
                pass
            else:
                try:
                    with open(f"/proc/{self.pid}/cmdline", "rb") as file:
                        ours = self.mark.encode() in file.read().split(b"\0")
                    if ours:
                        signal.pidfd_send_signal(fd, signal.SIGKILL)
                except OSError:
                    pass
                finally:
                    os.close(fd)
        self._close()

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def request(connection: socket.socket, verb: str, trees: list[Tree], grace: float) -> Optional[list[Tree]]:
    """Have the helper do `verb` (a function of `tree`) with trees; return those that live, None without an answer.

    Waits for the answer, `grace` + 2 s at the most; not at all when the helper is gone.
    """
    try:
        with connection:
            connection.settimeout(min(grace, LONGEST_SECS) + ANSWER_SECS)
            connection.sendall(marshal.dumps([verb, grace, [one.state() for one in trees]]))
            connection.shutdown(socket.SHUT_WR)
            answer = marshal.loads(_receive(connection))
    except (OSError, EOFError, ValueError, TypeError):  # it is gone, or was killed before it had said all
        return None
    living = []
    for one, (lives, state) in zip(trees, answer):
        one.update(state)
        if lives:
            living.append(one)
    return living


def _receive(connection: socket.socket) -> bytes:
    received = b""
    while True:
        data = connection.recv(1 << 16)
        if not data:
            return received
        received += data


def _serve(fd: int) -> None:
    """Do what is asked for through one connection; in a thread of the helper."""
    with socket.socket(fileno=fd) as connection:
        verb, grace, states = marshal.loads(_receive(connection))
        trees = []
        for state in states:
            root, token, born, start, hangup = state[:5]
            entry = None if start else linux.look(root)  # the owner has it pinned now, but may die
            one = Tree(root, token, born, start if entry is None else entry.start)
            one.hangup = hangup
            one.update(state)
            trees.append(one)
        options = {"grace": grace} if verb == "end" else {}
        living = getattr(tree, verb)(trees, linux, **options)
        try:
            connection.sendall(marshal.dumps([[one in living, one.state()] for one in trees]))
            connection.shutdown(socket.SHUT_WR)  # a fork of the owner may hold a copy of our end
        except OSError:
            pass  # the owner is dead, or waits no longer


class Helper:
    """The helper's own side: what it knows of its owner, and what it does when that dies."""

    def __init__(self, fd: int, owner: int, start: float, mark: str, grace: float, *, begun: bool) -> None:
        self._connection = socket.socket(fileno=fd)
        self._mark = mark
        self._grace = grace
        self._told: dict[str, int] = {}  # roots that were not looked at yet: most processes are gone before
        self._roots: dict[str, Tree] = {}
        self._received = b""
        self._alive = False  # the owner
        self._watched = select.poll()
        try:
            self._watched.register(os.pidfd_open(owner), select.POLLIN)
            entry = linux.look(owner)
            self._alive = entry is not None and entry.start == start
        except ProcessLookupError:
            pass
        self._begun = begun or not self._alive  # or we were told something

    def guard(self) -> None:
        """Listen until the owner is dead, or says that it is enough; then end what it left."""
        self._say_pid()
        self._watched.register(self._connection, select.POLLIN)
        while self._alive:
            ready = self._watched.poll(LEARN_SECS * 1000 if self._told else None)
            if not ready:
                self._learn()
            for fd, _ in ready:
                if fd != self._connection.fileno():
                    self._alive = False
                elif not self._listen():
                    return
        self._watched.unregister(self._connection)
        if self._begun or self._watched.poll(UNBEGUN_SECS * 1000):
            self._learn()
            self._end_all()
        # Else our very start was interrupted, and the owner lives.

    def _listen(self) -> bool:
        """Take in what the owner says; False if it said goodbye."""
        try:
            data, fds, _, _ = socket.recv_fds(self._connection, 1 << 16, 64)
        except ConnectionResetError:  # it died before it had read what we said
            data, fds = b"", []
        if data:
            self._begun = True
        else:
            self._alive = False
        for fd in fds:
            _thread.start_new_thread(_serve, (fd,))
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            verb, *rest = line.decode().split(" ")  # an empty one came with a request
            if verb == "bye":
                return False
            if verb == "ping":
                self._say_pid()
            elif verb == "add":
                self._told[rest[0]] = int(rest[1])
            elif verb == "drop":
                self._told.pop(rest[0], None)
                self._roots.pop(rest[0], None)
        return True

    def _learn(self) -> None:
        """Take note of when the roots began: later their numbers may be somebody else's."""
        for token, root in self._told.items():
            entry = linux.look(root)
            if entry is not None:
                self._roots[token] = Tree(root, token, None, entry.start)
        self._told.clear()

    def _end_all(self) -> None:
        for one in self._roots.values():
            entry = linux.look(one.root)
            if entry is not None and entry.start != one.start:
                one.root = -1  # it was dropped, though we were not told yet, and the number is somebody else's
        # Whoever was being started when the owner died bears the mark, but is not among the roots.
        begin = quiet = time.monotonic()
        while time.monotonic() - quiet < RESCAN_SECS and time.monotonic() - begin < DEADLINE_SECS:
            trees = [Tree(-1, self._mark, None), *self._roots.values()]
            try:
                tree.end(trees, linux, grace=self._grace)
            except OSError:  # for lack of fds or memory: again
                quiet = time.monotonic()
            if any(one.pids for one in trees):
                quiet = time.monotonic()
            time.sleep(0.02)  # between two looks; there is no event to wait for

    def _say_pid(self) -> None:
        try:
            self._connection.sendall(b"%d\n" % os.getpid())
        except OSError:
            pass  # the owner is gone, as the next look will show


def main(words: list[str]) -> None:
    """Guard, as the helper: `main([fd, owner's pid, owner's start, mark, grace, whether it replaces another])`."""
    fd, owner, start, mark, grace, replaces = words
    # What the owner says is never urgent: it must not lose its CPU to us at each message.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the owner's may be low, and trees are large
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    Helper(int(fd), int(owner), float(start), mark, float(grace), begun=replaces == "1").guard()


if __name__ == "__main__":
    main(sys.argv[1:])
