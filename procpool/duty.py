"""What must be brought to an end even if Ctrl-C interrupts the thread that is at it.

A KeyboardInterrupt comes at any call that the main thread makes, also between an `except` and the first step of a
clean-up.  So whatever must not be left half done is finished by another thread, where none can reach it.  Three rules
make that possible:

- what is taken (a slot, an fd, a claim) is noted in the very step that takes it: plain assignments are not broken
  apart (3.9 and 3.10 may do so), nor is a call into C that calls C, such as `fds.extend(map(os.dup, fds))`; an fd
  that is needed for a moment is held by a `FileIO`, which closes it when it is dropped
- finishing can be done twice
- a `Duty` that nobody settled is handed over when it is dropped, at the latest
"""

from __future__ import annotations

import _thread
import itertools
import os
import sys
import threading
from collections import deque
from collections.abc import Iterator
from io import FileIO
from typing import Callable

from procpool.guard import Guard, ReentryError

Finish = Callable[[], None]


def renew_after_fork(guard: Guard) -> None:
    """Have a lock that is as old as its module be free in every copy."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=guard.renew)


class Duties:
    """What interrupted calls left to do: by a thread made for it, or by whoever calls `finish`."""

    def __init__(self, wake: Finish) -> None:
        self._wake = wake  # has somebody call `finish`; takes no lock, for it is called by finalizers
        self._left: deque[Finish] = deque()

    def __bool__(self) -> bool:
        return bool(self._left)

    def add(self, finish: Finish) -> None:
        """Leave something to others."""
        self._left.append(finish)
        self._wake()

    def finish(self) -> None:
        """Do all that was left; what the system has no means for is left for later. Not in the main thread."""
        for _ in range(len(self._left)):
            try:
                finish = self._left.popleft()
            except IndexError:
                return  # another thread took it
            try:
                finish()
            except OSError:
                self._left.append(finish)


class Duty:
    """Something to finish. `settled` is set by whoever did it."""

    __slots__ = ("_finish", "_duties", "settled")

    def __init__(self, finish: Finish, duties: Duties) -> None:
        self._finish = finish
        self._duties = duties
        self.settled = False

    def hand_over(self, *, wait: bool = True) -> None:
        """Have it finished where no Ctrl-C comes, and wait until it is, or is left for later."""
        finish = self._finish
        if threading.current_thread() is not threading.main_thread():
            self.settled = True
            try:
                return finish()
            except OSError:
                return self._duties.add(finish)
        done = threading.Lock()
        done.acquire()

        def finish_and_tell() -> None:
            try:
                finish()
            finally:
                if done.locked():
                    done.release()

        self._duties.add(finish_and_tell)
        self.settled = True
        try:
            start_thread("procpool-finish", self._duties.finish)
        except RuntimeError:  # the limit of threads, or the interpreter ends
            self._duties.finish()
        if wait and not isinstance(sys.exc_info()[1], ReentryError):  # whoever finishes it may need what we hold
            done.acquire()

    def __del__(self) -> None:
        if not getattr(self, "settled", True):  # it has none if its making was interrupted
            self._duties.add(self._finish)


def start_thread(name: str, function: Callable[..., None], *args: object) -> None:
    """Start a daemon thread. Raises RuntimeError if there can be none.

    `Thread.start` waits for the thread; Ctrl-C meanwhile can leave the lock of its Condition held for ever, on which
    the thread then hangs. So the main thread has it called by another, and waits on a bare lock.
    """
    thread = threading.Thread(target=function, args=args, name=name, daemon=True)
    if threading.current_thread() is not threading.main_thread():
        return thread.start()
    called = threading.Lock()
    called.acquire()
    errors: list[RuntimeError] = []

    def start() -> None:
        try:
            thread.start()
        except RuntimeError as error:
            errors.append(error)
        finally:
            called.release()

    _thread.start_new_thread(start, ())
    called.acquire()
    if errors:
        raise errors[0]


def open_pipes(fds: list[int], count: int) -> None:
    """Append the two fds of each of so many pipes to a list, in one step. Raises OSError."""
    fds.extend(itertools.chain.from_iterable(itertools.starmap(os.pipe, itertools.repeat((), count))))


def pidfd(pid: int) -> FileIO:
    """Open a pidfd, in one step, as an object that closes it when it is dropped. Raises OSError."""
    files: list[FileIO] = []
    files.extend(map(FileIO, map(os.pidfd_open, (pid,))))
    return files.pop()


def close_all(fds: Iterator[int]) -> None:
    """Close what an iterator of fds still has to give; none is closed twice, however often this is interrupted."""
    deque(map(os.close, fds), maxlen=0)
