"""A recording of a game that browsers play."""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import psutil

from mario_rl.errors import UserError, first_line
from mario_rl.games.interface import FRAMES_PER_SECOND
from mario_rl.storage.files import make_directory

# And their options. Builds from elsewhere than PyPI may lack x264, for its licence.
_H264_ENCODERS = {"libx264": {"crf": "20", "preset": "veryfast"}, "libopenh264": {"b": "8000000"}}
_REINSTALL = "install another one: pip install --force-reinstall --only-binary av av"
_ABANDONED_AFTER_S = 60  # a recording that is being made is written to more often


class VideoWriter:
    """Writes an H.264 file of the pictures that it is given; a context manager.

    The file appears under its name when the recording is complete.
    """

    def __init__(
        self, path: Path, height: int, width: int, frames_per_second: int = FRAMES_PER_SECOND
    ) -> None:
        """
        Args:
            height, width: of the pictures, even numbers of pixels.

        Raises:
            UserError: if PyAV is missing or has no H.264 encoder, or the file cannot be written.
                The methods raise it, too, for example when the disk is full.
        """
        self._av = _import_av()
        make_directory(path.parent)
        _remove_abandoned(path.parent)
        self._path = path
        self._temporary = path.with_name(f"{path.stem}.{os.getpid()}.tmp.mp4")
        with self._failures():
            self._container = self._av.open(
                # FFmpeg would take a name such as a:1/b.mp4 for the URL of a protocol called a.
                f"file:{self._temporary}", "w", options={"movflags": "+faststart"}
            )  # fmt: skip
            self._stream = self._add_stream(height, width, frames_per_second)

    def _add_stream(self, height: int, width: int, frames_per_second: int) -> Any:
        for encoder, options in _H264_ENCODERS.items():
            try:
                stream = self._container.add_stream(encoder, rate=frames_per_second)
            except ValueError:  # UnknownCodecError, which versions keep in different places
                continue
            stream.height, stream.width = height, width
            stream.pix_fmt = "yuv420p"  # the only format that every browser plays
            stream.time_base = Fraction(1, frames_per_second)
            stream.options = options
            return stream
        self._discard()
        raise UserError(f"this PyAV has no H.264 encoder; {_REINSTALL}")

    def add(self, picture: np.ndarray) -> None:
        """Append a picture, uint8 [height, width, 3] RGB."""
        with self._failures():
            image = self._av.VideoFrame.from_ndarray(picture, format="rgb24")
            self._container.mux(self._stream.encode(image))

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                with self._failures():
                    self._container.mux(self._stream.encode(None))
                    self._container.close()
                    self._temporary.replace(self._path)
        finally:
            self._discard()

    def _discard(self) -> None:
        """Close and remove the temporary file, if it is still there."""
        with contextlib.suppress(self._av.error.FFmpegError, OSError):  # what cannot be written
            self._container.close()
        self._temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (self._av.error.FFmpegError, OSError) as error:
            cause = error.strerror or error
            raise UserError(f"cannot write {self._path}: {cause}") from None


def _import_av() -> Any:
    try:
        import av
    except Exception as error:  # other people's code, which can fail in any way
        raise UserError(f"videos need PyAV, but {first_line(error)}; {_REINSTALL}") from None
    return av


def _remove_abandoned(folder: Path) -> None:
    """Remove what recordings left whose process was killed."""
    for path in folder.glob("*.tmp.mp4"):
        pid = re.fullmatch(r".+\.(\d{1,7})\.tmp\.mp4", path.name)
        with contextlib.suppress(OSError):  # another process removes it
            idle_s = time.time() - path.stat().st_mtime
            # A process that is not on this machine may be on another one that shares the folder.
            if pid and not psutil.pid_exists(int(pid[1])) and idle_s > _ABANDONED_AFTER_S:
                path.unlink()
