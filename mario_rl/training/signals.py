"""Signals that stop a run, or suspend it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """The signals that came."""

    def __init__(self) -> None:
        self._received: set[int] = set()
        self._suspended = False

    def stop_requested(self) -> bool:
        """Whether SIGINT, SIGTERM or SIGHUP came."""
        return bool(self._received)

    def was_suspended(self) -> bool:
        """Whether the process was stopped, as by Ctrl-Z, and continued since the last call."""
        suspended, self._suspended = self._suspended, False
        return suspended

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
            self._suspended = True

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
