"""The way in: messages to a process's stdin, through a pipe or a terminal."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import TYPE_CHECKING, Optional

from procpool.guard import Guard
from procpool.system import Device, terminal

if TYPE_CHECKING:
    from procpool.child import Child


class Message:
    """Bytes on their way to a process's stdin."""

    __slots__ = ("data", "written", "closed")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.written = 0
        self.closed = False  # stdin was closed before all was written

    @property
    def done(self) -> bool:
        """Whether nothing is left to wait for."""
        return self.closed or self.written == len(self.data)


class Stdin:
    """Our end of a process's stdin, and the messages that wait for room in it.

    A message is written by its caller, or, when the pipe is full, by the reader thread in the caller's turn.
    """

    __slots__ = ("fd", "closed", "messages", "_child", "_queue", "_watched", "guard")

    def __init__(self, fd: int, child: Child) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.closed = False  # or about to be
        self._child = child
        self.messages = 0  # how many were put
        self._queue: list[Message] = []  # seldom more than one: a deque takes fourteen times as much
        self._watched = False  # the reader thread's own
        # The write lock: guards fd, messages and _queue. Held across one write, or one question about the fd, which do
        # not block, and nothing else.
        self.guard = Guard()

    def put(self, message: Message) -> None:
        """Write a message, or queue what the pipe has no room for."""
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            if self.closed:
                message.closed = True
                return
            self.messages += 1
            if not self._queue:
                self._write(message)
            if message.done:
                return
            self._queue.append(message)
        self._child.reader.call(self._child, self._watch)

    def take_back(self, message: Message) -> None:
        """Write no more of a message."""
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            if message in self._queue:
                self._queue.remove(message)

    def close(self) -> None:
        """Have the reader thread close it; messages that wait are not written. Waits for nobody."""
        self.closed = True
        if self._child.served:
            self._child.reader.call(self._child, self.close_now)

    def close_now(self) -> None:
        """Close it, in the reader thread, or when there is none any more."""
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            self.closed = True
            while self._queue:
                self._queue.pop(0).closed = True
            if self.fd >= 0:
                self._child.reader.unwatch(self.fd)
                os.close(self.fd)
                self.fd = -1
        self._child.wake()

    def ready(self) -> None:
        """Write on, in the reader thread."""
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            while self._queue:
                self._write(self._queue[0])
                if not self._queue[0].done:
                    break
                self._queue.pop(0)
            if not self._queue and self._watched:
                self._child.reader.unwatch(self.fd)
                self._watched = False
        self._child.wake()

    def fail(self, error: BaseException) -> None:
        """Take note that serving failed."""
        self._child.fail(error)

    @property
    def unread(self) -> bool:
        """Whether there is input that the process has not read. Linux only."""
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            return bool(self._queue) or (self.fd >= 0 and self._lies_unread())

    def device(self) -> Optional[Device]:
        """What it is that the process reads from; None when it is closed. Linux only."""
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            return self._device() if self.fd >= 0 else None

    def _lies_unread(self) -> bool:
        import fcntl
        import termios

        return fcntl.ioctl(self.fd, termios.FIONREAD, bytes(4)) != bytes(4)

    def _device(self) -> Device:
        status = os.fstat(self.fd)
        return Device(status.st_dev, status.st_ino)

    def _watch(self) -> None:
        if self.fd >= 0 and not self._watched:
            self._child.reader.watch(self, writing=True)
            self._watched = True

    def _write(self, message: Message) -> None:
        try:
            message.written += _write_quietly(self.fd, memoryview(message.data)[message.written :])
            self._child.active = time.monotonic()
        except BlockingIOError:
            pass
        except BrokenPipeError:
            message.closed = True


class Terminal(Stdin):
    """Our end of a process's terminal, as its input. It is closed at the exit, and not before."""

    __slots__ = ("_column", "_echo")

    def __init__(self, fd: int, child: Child, *, echo: bool) -> None:
        super().__init__(fd, child)
        self._column = 0  # how many bytes of an unfinished line were written
        self._echo = echo  # at the start

    def check(self, data: bytes) -> None:
        """Raise ValueError for a line that the kernel would cut in silence."""
        modes = self._modes()
        if modes is None or not modes.canonical:
            self._column = 0
            return
        column = self._column
        for line in re.split(b"[" + re.escape(modes.ends) + b"]", data):
            column += len(line)
            if column > terminal.LONGEST_LINE:
                raise ValueError(
                    f"data has a line of {column} bytes, and a terminal that takes its input line by line cuts each "
                    f"after {terminal.LONGEST_LINE}: pass it in a file, or start the process without pty"
                )
            rest, column = column, 0
        self._column = rest

    @property
    def line_end(self) -> str:
        """What ends a line: what the Enter key sends, where a program takes the keys one by one."""
        modes = self._modes()
        return "\n" if modes is None or modes.canonical else "\r"

    @property
    def echoes(self) -> bool:
        """Whether what is written now is shown, by the terminal or by the program.

        One that takes single keys shows them itself, unless it found a terminal that does not.
        """
        modes = self._modes()
        return modes is not None and (modes.echo or (self._echo and not modes.canonical))

    def close(self) -> None:
        """Have the reader thread write the end-of-file character; messages that wait are not written."""
        if not self.closed and self._child.served:
            self.closed = True
            self._child.reader.call(self._child, self._end)

    def resize(self, rows: int, cols: int) -> None:
        """Change the size; nothing once it is closed."""
        self._child.stood = None
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            if self.fd >= 0:
                terminal.resize(self.fd, rows, cols)

    def interrupt(self) -> None:
        """Do what Ctrl-C does: the kernel interrupts the foreground job, or the program gets a key.

        A full input queue does not matter to the former; where the kernel cannot be asked, the key is written.
        """
        self._child.stood = None
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            if self.fd < 0:
                return
            modes = terminal.Modes(self.fd)
            if modes.signals and terminal.signal_foreground(self.fd, signal.SIGINT):
                if modes.flushes:
                    try:
                        terminal.flush_input(self.fd)
                        self._column = 0
                    except OSError:
                        pass  # nobody has the other end any more, or there is no fd left
                return
        self.put(Message(modes.interrupt))

    def _modes(self) -> Optional[terminal.Modes]:
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            return terminal.Modes(self.fd) if self.fd >= 0 else None

    def _end(self) -> None:
        me = self.guard.check()
        with self.guard.lock:
            self.guard.holder = me
            while self._queue:
                self._queue.pop(0).closed = True
            if self.fd < 0:
                return
            # Behind an unfinished line the first one only hands that over.
            message = Message(terminal.Modes(self.fd).eof * (2 if self._column else 1))
            self._write(message)
            if not message.done:
                self._queue.append(message)
                self._watch()
        self._child.wake()

    def _lies_unread(self) -> bool:
        return terminal.unread(self.fd)

    def _device(self) -> Device:
        return Device(0, terminal.number(self.fd))


def _write_quietly(fd: int, data: memoryview) -> int:
    """Write without a SIGPIPE: in an owner that has it at its default it would be the end of the owner."""
    if signal.getsignal(signal.SIGPIPE) is not signal.SIG_DFL:
        return os.write(fd, data)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        return os.write(fd, data)
    except BrokenPipeError:
        if signal.SIGPIPE not in blocked and signal.SIGPIPE in signal.sigpending():
            signal.sigwait({signal.SIGPIPE})
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
