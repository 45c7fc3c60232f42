"""Notice of the interpreter's end, in time for those who still have trees to end.

Two moments matter.  When the *main thread* ends, non-daemon threads that are blocked in one of our calls would
keep the interpreter alive for ever, so they are woken with `ManagerClosedError`, as `ThreadPoolExecutor` does.
`atexit` comes only after all those threads have ended; everything else is closed there.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref

from procpool.duty import renew_after_fork, start_thread
from procpool.facts import Protocol
from procpool.guard import Guard


class Closable(Protocol):
    """What is closed at the end."""

    def close_at_exit(self) -> None:
        """End everything, and return when it has ended."""


# Guards _open and _watched; held for a look or a change only.
_guard = Guard()
renew_after_fork(_guard)
_open: weakref.WeakSet[Closable] = weakref.WeakSet()
_watched = 0  # the pid of the process whose main thread is watched


def close_at_exit(thing: Closable) -> None:
    """Have `thing` closed when the interpreter ends, unless it is gone by then."""
    me = _guard.check()
    with _guard.lock:
        _guard.holder = me
        _open.add(thing)


def watch_main_thread(*, always: bool = False) -> None:
    """Wake blocked calls when the main thread ends. To be called before a call blocks.

    Only a non-daemon thread other than the main one needs it (`always`: nobody knows who will wait): for these, once
    per process, one daemon thread joins the main thread, which is the one notice of its end that works on 3.9 to 3.13.
    """
    global _watched
    if _watched == os.getpid():
        return
    thread = threading.current_thread()
    if not always and (thread.daemon or thread is threading.main_thread()):
        return
    me = _guard.check()
    with _guard.lock:
        _guard.holder = me
        if _watched == os.getpid():
            return
        start_thread("procpool-exit", _watch)
        _watched = os.getpid()


def _watch() -> None:
    threading.main_thread().join()
    _close_all()


@atexit.register
def _close_all() -> None:
    me = _guard.check()
    with _guard.lock:
        _guard.holder = me
        things = list(_open)
    for thing in things:
        thing.close_at_exit()
