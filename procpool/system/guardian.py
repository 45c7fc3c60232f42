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
import select
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from procpool.system.tree import Tree

SH = "/bin/sh"
GRACE_SECS = 1.0  # the most that trees get when their owner is dead
RESCAN_SECS = 0.4  # so long nobody may be found before the guardian believes that nobody comes any more
DEADLINE_SECS = 30.0  # for all of it, whatever happens
UNBEGUN_SECS = 0.5  # a dying owner's socket ends a little before it
STARTUP_SECS = 5.0  # how long a helper may take to say who it is
ANSWER_SECS = 2.0  # how long an answer may take beyond the grace


class Guardian:
    """The owner's end: starts the helper, and tells it what there is to guard.

    Used by one thread at a time; nothing here waits for the helper.
    """

    def __init__(self, mark: str, grace: float) -> None:
        self.mark = mark
        self.grace = min(grace, GRACE_SECS)
        self.pid: Optional[int] = None  # as it told us
        self.answered = True  # the last ping
        self._received = b""
        self._started = 0.0
        self._socket: Optional[socket.socket] = None

    @property
    def fd(self) -> int:
        """The socket's fd, or -1."""
        return -1 if self._socket is None else self._socket.fileno()

    def start(self, start: float) -> None:
        """Start the helper; `start` is the start time of this very process. Raises OSError."""
        import subprocess  # the helper, which runs this file, has no need of it

        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            words = [str(theirs.fileno()), str(os.getpid()), str(start), self.mark, str(self.grace)]
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
        self.answered = True
        self._received = b""
        self._started = time.monotonic()
        self._socket = ours
        self.tell("ping")  # now it begins

    @property
    def stuck(self) -> bool:
        """Whether it did not answer the last ping, or never said who it is."""
        if self.pid is None:
            return time.monotonic() - self._started > STARTUP_SECS
        return not self.answered

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
        try:
            data = " ".join(map(str, message)).encode() + b"\n"
            return self._socket.send(data) == len(data)
        except OSError:
            return False

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
                self.answered = True
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
            connection.settimeout(grace + ANSWER_SECS)
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
    from procpool.system import linux, tree

    with socket.socket(fileno=fd) as connection:
        verb, grace, states = marshal.loads(_receive(connection))
        trees = []
        for state in states:
            root, token, born, start = state[:4]
            entry = linux.look(root)  # the owner has it pinned now, but may die
            one = tree.Tree(root, token, born, start if entry is None else entry.start)
            one.update(state)
            trees.append(one)
        options = {"grace": grace} if verb == "end" else {}
        living = getattr(tree, verb)(trees, linux, **options)
        connection.sendall(marshal.dumps([[one in living, one.state()] for one in trees]))


def main(words: list[str]) -> None:
    """Guard, as the helper: `main([fd, owner's pid, owner's start, mark, grace])`."""
    from procpool.system import linux, tree

    connection = socket.socket(fileno=int(words[0]))
    owner, start, mark, grace = int(words[1]), float(words[2]), words[3], float(words[4])
    roots: dict[str, tree.Tree] = {}
    watched = select.poll()
    watched.register(connection, select.POLLIN)
    try:
        pidfd = os.pidfd_open(owner)
        entry = linux.look(owner)
        alive = entry is not None and entry.start == start
        watched.register(pidfd, select.POLLIN)
    except ProcessLookupError:
        alive = False
    _say_pid(connection)
    received = b""
    begun = not alive
    while alive:
        for fd, _ in watched.poll():
            if fd != connection.fileno():
                alive = False
                continue
            try:
                data, fds, _, _ = socket.recv_fds(connection, 65536, 64)
            except ConnectionResetError:  # it died before it had read what we said
                data, fds = b"", []
            if not data:
                alive = False
            for request_fd in fds:
                _thread.start_new_thread(_serve, (request_fd,))
            begun = begun or bool(data)
            received += data
            *lines, received = received.split(b"\n")
            for line in lines:
                verb, *rest = line.decode().split(" ")  # an empty one came with a request
                if verb == "bye":
                    return
                if verb == "ping":
                    _say_pid(connection)
                elif verb == "add":
                    token, root = rest[0], int(rest[1])
                    entry = linux.look(root)
                    if entry is not None and entry.parent == owner:  # else it is gone, and its pid somebody else's
                        roots[token] = tree.Tree(root, token, None, entry.start)
                elif verb == "drop":
                    roots.pop(rest[0], None)
    if not begun:
        watched.unregister(connection)
        if not watched.poll(UNBEGUN_SECS * 1000):
            return  # our very start was interrupted; the owner lives
    # Whoever was being started when the owner died bears the mark, but is not among the roots.
    begin = quiet = time.monotonic()
    while time.monotonic() - quiet < RESCAN_SECS and time.monotonic() - begin < DEADLINE_SECS:
        trees = [tree.Tree(-1, mark, None), *roots.values()]
        tree.end(trees, linux, grace=grace)
        if any(one.pids for one in trees):
            quiet = time.monotonic()
        time.sleep(0.02)  # between two looks; there is no event to wait for


def _say_pid(connection: socket.socket) -> None:
    try:
        connection.sendall(b"%d\n" % os.getpid())
    except OSError:
        pass  # the owner is gone, as the next look will show


if __name__ == "__main__":
    import types

    # The parts of the package that are needed, without what its own __init__ imports.
    package = types.ModuleType("procpool")
    package.__path__ = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    sys.modules["procpool"] = package
    main(sys.argv[1:])
