"""A window that shows the game."""

import subprocess
import sys

import cv2
import numpy as np

from mario_rl.errors import UserError

SCALE = 3  # pixels of a screen for one of the console

_PROBE_S = 20  # a display on another machine may never answer


def enlarge(frame: np.ndarray) -> np.ndarray:
    """uint8 [240, 256, 3] -> [SCALE * 240, SCALE * 256, 3]."""
    return cv2.resize(frame, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_NEAREST)


def can_open() -> bool:
    """Whether there is a display that a window can be opened on. DISPLAY alone does not say so:
    in tmux it may be that of a session which has ended.
    """
    # Without a display OpenCV ends the whole process, so another process tries.
    probe = "import cv2; cv2.namedWindow('probe'); cv2.destroyAllWindows()"
    try:
        process = subprocess.run(
            [sys.executable, "-c", probe], capture_output=True, timeout=_PROBE_S
        )
    except subprocess.TimeoutExpired:
        return False
    return process.returncode == 0


class Window:
    """See the module."""

    def __init__(self, title: str, delay_s: float) -> None:
        """
        Args:
            delay_s: how long each frame is shown.

        Raises:
            UserError: if there is no display.
        """
        if not can_open():
            raise UserError(
                "there is no display to open a window on (--render); --record writes a video"
            )
        self._title = title
        self._delay_ms = max(1, round(1000 * delay_s))
        self._closed = False

    def is_closed(self) -> bool:
        """Whether the person closed the window or pressed Q or Escape."""
        return self._closed

    def show(self, picture: np.ndarray) -> None:
        """Show a picture, uint8 [height, width, 3] RGB; nothing once the window was closed."""
        if self._closed:
            return
        cv2.imshow(self._title, picture[:, :, ::-1])
        key = cv2.waitKey(self._delay_ms)
        gone = cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1
        if gone or key in (ord("q"), 27):
            self._closed = True
            cv2.destroyAllWindows()

    def close(self) -> None:
        cv2.destroyAllWindows()
