"""A recording of a game that browsers play."""

import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from mario_rl.games.interface import FRAMES_PER_SECOND, SCREEN_SHAPE
from mario_rl.games.window import SCALE, enlarge
from mario_rl.storage.files import make_directory


class VideoWriter:
    """Writes an H.264 file of every emulated frame at 60 frames per second; a context manager.

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
        image = av.VideoFrame.from_ndarray(enlarge(frame), format="rgb24")
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
