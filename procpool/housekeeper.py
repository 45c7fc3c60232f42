"""The cleanup timer: a daemon thread that sleeps on a `concurrent.futures.Future` until there is something to do."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Callable, Optional

from procpool.duty import start_thread
from procpool.guard import Guard

if TYPE_CHECKING:
    from concurrent.futures import Future


RETRY_SECS = 1.0


def show_error() -> None:
    """Show the error that is being handled, as one that ends a thread is shown; SystemExit is not."""
    if not isinstance(sys.exc_info()[1], SystemExit):
        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))


class Housekeeper:
    """A thread that calls `work()`, sleeps for as many seconds as that returned, or until `wake`, and so on.

    It ends when `work` returns None, and is started again by the next `wake`. Not an executor: a job of an
    executor that loops keeps the interpreter from ending.
    """

    def __init__(self, work: Callable[[], Optional[float]], name: str = "procpool-housekeeper") -> None:
        self._work = work
        self._name = name
        # Guards the rest; the thread takes itself in and out under it, so a `wake` is never lost.
        self._guard = Guard()
        self._thread: Optional[threading.Thread] = None
        self._alarm: Optional[Future[None]] = None
        self._rung = False

    def ensure(self) -> None:
        """Have the thread run; it need not look now. Raises RuntimeError if it cannot be started."""
        me = self._guard.check()
        with self._guard.lock:
            self._guard.holder = me
            self._rung = True
            if self._thread is None:
                # Imported here rather than in the thread: a fork meanwhile would leave half a module in the copy.
                import concurrent.futures

                concurrent.futures.Future  # noqa: B018  # the package imports its parts when they are asked for
                start_thread(self._name, self._run)

    def wake(self) -> None:
        """Have the work done now. Raises RuntimeError if a thread is needed and cannot be started."""
        self.ensure()
        self.review()

    def review(self) -> None:
        """Have the thread, if there is one, look whether it is still needed."""
        if threading.current_thread() is threading.main_thread():
            # Ctrl-C inside `Future.set_result` can leave its lock held for ever; no other thread can be hit by it.
            try:
                start_thread(f"{self._name}-bell", self._ring)
                return
            except RuntimeError:
                pass  # the limit of threads, or the interpreter ends
        self._ring()

    def stop(self, timeout: float) -> None:
        """Do so, and wait up to `timeout` seconds for its end."""
        self.review()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _ring(self) -> None:
        me = self._guard.check()
        with self._guard.lock:
            self._guard.holder = me
            if self._alarm is not None and not self._alarm.done():
                self._alarm.set_result(None)

    def _run(self) -> None:
        from concurrent.futures import Future, TimeoutError

        me = self._guard.check()
        with self._guard.lock:
            self._guard.holder = me
            if self._thread is not None:
                return  # an interrupted `ensure` made two of us
            self._thread = threading.current_thread()
        while True:
            me = self._guard.check()
            with self._guard.lock:
                self._guard.holder = me
                self._rung = False
                alarm: Future[None] = Future()
                self._alarm = alarm
            try:
                pause = self._work()
            except BaseException:  # a fault in one piece of work; it is shown, and the next one is done
                show_error()
                pause = RETRY_SECS
            me = self._guard.check()
            with self._guard.lock:
                self._guard.holder = me
                if pause is None and not self._rung:
                    self._thread = self._alarm = None
                    return
            if pause is None:
                continue
            try:
                alarm.result(pause if pause < threading.TIMEOUT_MAX else None)
            except TimeoutError:
                pass
