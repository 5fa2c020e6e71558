"""Showing a game to a person: a window, and a recording that browsers play."""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np

from mario_rl.errors import UserError
from mario_rl.games.interface import FRAMES_PER_SECOND, SCREEN_SHAPE
from mario_rl.storage.files import make_directory

SCALE = 3  # the console's pixels on today's screens


def _enlarge(frame: np.ndarray) -> np.ndarray:
    return cv2.resize(frame, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_NEAREST)


class VideoWriter:
    """An H.264 file of every emulated frame at 60 frames per second; a context manager.

    The file appears under its name when the recording is complete.
    """

    def __init__(self, path: Path) -> None:
        make_directory(path.parent)
        self._path = path
        self._temporary = path.with_name(f"{path.stem}.{os.getpid()}.tmp.mp4")
        self._container = av.open(str(self._temporary), "w", options={"movflags": "+faststart"})
        self._stream = self._container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        self._stream.height, self._stream.width = (SCALE * size for size in SCREEN_SHAPE[:2])
        self._stream.pix_fmt = "yuv420p"  # the only format that every browser plays
        self._stream.time_base = Fraction(1, FRAMES_PER_SECOND)
        self._stream.options = {"crf": "18"}

    def add(self, frame: np.ndarray) -> None:
        """Append one frame, uint8 [240, 256, 3] RGB."""
        image = av.VideoFrame.from_ndarray(_enlarge(frame), format="rgb24")
        self._container.mux(self._stream.encode(image))

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        if error is None:
            self._temporary.replace(self._path)
        else:
            self._temporary.unlink(missing_ok=True)


class Window:
    """A window that shows the game."""

    def __init__(self, title: str, delay_s: float) -> None:
        """
        Args:
            delay_s: how long each frame is shown.

        Raises:
            UserError: if there is no display.
        """
        # OpenCV ends the whole process when it finds no display, so let another one try first.
        probe = "import cv2; cv2.namedWindow('probe'); cv2.destroyAllWindows()"
        if subprocess.run([sys.executable, "-c", probe], capture_output=True).returncode != 0:
            raise UserError(
                "--render: there is no display to open a window on; use --record for a video"
            )
        self._title = title
        self._delay_ms = max(1, round(1000 * delay_s))
        self._closed = False

    def is_closed(self) -> bool:
        """Whether the person closed the window or pressed Q or Escape."""
        return self._closed

    def show(self, frame: np.ndarray) -> None:
        """Show one frame, uint8 [240, 256, 3] RGB; nothing once the window is closed."""
        if self._closed:
            return
        cv2.imshow(self._title, _enlarge(frame)[:, :, ::-1])
        key = cv2.waitKey(self._delay_ms)
        gone = cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1
        if gone or key in (ord("q"), 27):
            self._closed = True
            cv2.destroyAllWindows()

    def close(self) -> None:
        cv2.destroyAllWindows()
