"""A lock that tells when the thread that asks for it has it already, instead of hanging."""

from __future__ import annotations

import threading
import time

PATIENCE_SECS = 1.0  # far longer than any lock of ours is held, also where many threads want the GIL


class ReentryError(RuntimeError):
    """A verb was called from a signal handler that interrupted one."""


class Guard:
    """A `threading.Lock` that knows which thread took it last.

    Used in three lines, with nothing between them::

        me = guard.check()
        with guard.lock:
            guard.holder = me

    `with` on the bare lock is the one form that no Ctrl-C can break apart (a context manager written in Python
    can be interrupted after it took the lock and before `with` knows). A signal handler that calls a verb while
    its own thread is inside gets a `RuntimeError` from `check`.
    """

    __slots__ = ("lock", "holder")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.holder = 0

    def renew(self) -> None:
        """Forget, in the copy that a fork made, a thread that had the lock and is not there."""
        self.lock = threading.Lock()
        self.holder = 0

    def check(self) -> int:
        """Return this thread's id. Raises RuntimeError if the thread is inside the lock."""
        me = threading.get_ident()
        if self.holder != me or not self.lock.locked() or me != threading.main_thread().ident:
            return me  # signal handlers run in the main thread alone
        deadline = 0.0
        # The holder may be a trace of last time; a lock that somebody else has taken since shows another one.
        while self.holder == me and self.lock.locked():
            now = time.monotonic()
            if not deadline:
                deadline = now + PATIENCE_SECS
            elif now > deadline:
                raise ReentryError(
                    "procpool was called from a signal handler that interrupted procpool; "
                    "set a flag in the handler, and call from the main program"
                )
            time.sleep(PATIENCE_SECS / 50)
        return me
