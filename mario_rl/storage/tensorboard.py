"""Event files for TensorBoard, where it is installed.

They are an extra. Whatever fails in it, such as an installation that does not fit the other
packages, gives a warning, and the run goes on without event files.
"""

import importlib.util
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mario_rl.console import warn
from mario_rl.errors import first_line


class EventFiles:
    """The event files of a run."""

    def __init__(self, folder: Path, purge_step: int) -> None:
        """
        Args:
            purge_step: TensorBoard drops what earlier files in the folder hold from this step on.
        """
        self._writer: Any = None
        if importlib.util.find_spec("tensorboard") is None:
            return
        with self._optional():
            from torch.utils.tensorboard import SummaryWriter

            threading.excepthook = _without_tensorboard(threading.excepthook)
            self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def add(self, tag: str, row: Mapping[str, Any], step: int) -> None:
        """Add each number of a row, at `step`."""
        with self._optional():
            for name, value in row.items():
                if self._writer is not None and isinstance(value, int | float):
                    self._writer.add_scalar(f"{tag}/{name}", value, step)

    def flush(self) -> None:
        with self._optional():
            if self._writer is not None:
                self._writer.flush()

    def close(self) -> None:
        with self._optional():
            if self._writer is not None:
                self._writer.close()

    @contextmanager
    def _optional(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # other people's code, which can fail in any way
            self._writer = None
            failure = f"{type(error).__name__}: {first_line(error)}"
            warn(f"TensorBoard failed ({failure}); going on without it")


def _without_tensorboard(
    hook: Callable[[threading.ExceptHookArgs], object],
) -> Callable[[threading.ExceptHookArgs], object]:
    """A hook that prints no traceback of TensorBoard's thread: it hands its errors to the caller,
    too."""

    def filtered(args: threading.ExceptHookArgs) -> None:
        if not type(args.thread).__module__.startswith("tensorboard."):
            hook(args)

    return filtered
