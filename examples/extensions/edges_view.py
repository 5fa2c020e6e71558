"""An observation view: the outlines of what is on the screen."""

import cv2
import numpy as np

from mario_rl.games.memory import Memory


class Edges:
    """Bright where the brightness changes; the status bar is cut off."""

    button_rows = 6  # of 84, at the top of the picture, may show the buttons

    def crop(self, pixels: np.ndarray, memory: Memory) -> np.ndarray:
        game = pixels[32:]  # below the status bar
        return cv2.Laplacian(game, cv2.CV_8U)
