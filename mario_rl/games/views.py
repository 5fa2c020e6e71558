"""The views that `--view` names; see `observation.View`."""

import cv2
import numpy as np

from mario_rl.games.memory import Memory

_STATUS_BAR_PX = 32  # at the top of the screen


class WholeScreen:
    """The whole screen; the buttons are drawn over the status bar."""

    button_rows = 11

    def crop(self, pixels: np.ndarray, memory: Memory) -> np.ndarray:
        return pixels


class AroundMario:
    """The surroundings of Mario, enlarged, with him always in the same place: an enemy's place in
    the picture is then its place relative to him. Black beyond the edges of the screen."""

    button_rows = 6

    # Pixels of the screen from Mario's middle
    BEHIND, AHEAD, ABOVE, BELOW = 48, 144, 84, 84

    def crop(self, pixels: np.ndarray, memory: Memory) -> np.ndarray:
        height, width = pixels.shape
        x, y = memory.mario_on_screen
        x, y = min(x, width), min(max(y, _STATUS_BAR_PX), height)
        top, bottom, left, right = y - self.ABOVE, y + self.BELOW, x - self.BEHIND, x + self.AHEAD
        game = pixels[max(top, _STATUS_BAR_PX) : bottom, max(left, 0) : right]
        return cv2.copyMakeBorder(
            game,
            max(_STATUS_BAR_PX - top, 0), max(bottom - height, 0),
            max(-left, 0), max(right - width, 0),
            cv2.BORDER_CONSTANT,
        )  # fmt: skip
