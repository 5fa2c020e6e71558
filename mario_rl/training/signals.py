"""Signals that stop a run, or suspend it."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """The signals that came."""

    def __init__(self) -> None:
        self._received: set[int] = set()
        self._asked = time.monotonic()  # when `stop_requested` was called last
        self._suspended_s = 0.0

    def stop_requested(self) -> bool:
        """Whether SIGINT, SIGTERM or SIGHUP came. Ask often: that tells when this process ran."""
        self._asked = time.monotonic()
        return bool(self._received)

    def take_suspended_s(self) -> float:
        """For how many seconds the process was stopped, as by Ctrl-Z, since the last call."""
        seconds, self._suspended_s = self._suspended_s, 0.0
        return seconds

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Inside the block signals are only noted; a second SIGINT interrupts at once.

        A signal that is ignored, such as SIGHUP under nohup, still is. Only the main thread may
        handle signals; in another one nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, _: Any) -> None:
            if number in self._received and number == signal.SIGINT:
                raise KeyboardInterrupt
            self._received.add(number)

        def resume(number: int, _: Any) -> None:
            self._suspended_s += time.monotonic() - self._asked
            self._asked = time.monotonic()

        handlers = {**dict.fromkeys(_STOPPING, stop), signal.SIGCONT: resume}
        before = {
            number: signal.signal(number, handler)
            for number, handler in handlers.items()
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
