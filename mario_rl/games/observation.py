"""What the agent sees: a small square frame, made from the screen.

As in Mnih et al. 2015, with these deviations:

1. A pixel is its red channel, not its luminance, in which Mario is nearly as bright as the sky
   behind him. Only the last emulated frame of a decision counts: sprites do not flicker here, and
   the maximum of two frames, made for light sprites on black, would wipe out dark ones. Both can
   be undone (`EnvConfig.pixels`).
2. The top shows which buttons are held, in the place of the status bar (`EnvConfig.show_buttons`).
   Mario jumps only when A is pressed after it was released, and the game's picture looks the same
   if A is still held since the last jump.
3. The picture is a part of the screen (`EnvConfig.view`).
4. The replay stacks the frames, and stores each once.
"""

from typing import Protocol

import cv2
import numpy as np

from mario_rl.config import EnvConfig
from mario_rl.games.emulator import Emulator
from mario_rl.games.memory import Memory
from mario_rl.registry import VIEWS


class View(Protocol):
    """The part of the screen that the agent sees. It is made without arguments, by its name in
    `registry.VIEWS`."""

    button_rows: int  # how many 84ths of the picture, from the top, may show the held buttons

    def crop(self, pixels: np.ndarray, memory: Memory) -> np.ndarray:
        """
        Args:
            pixels: the brightness of the screen, uint8 [240, 256].
            memory: tells where Mario is.

        Returns:
            A picture of any size, uint8 [height, width], which is then scaled to a frame.
        """


class Observer:
    """Makes the frames of one game."""

    def __init__(self, config: EnvConfig, emulator: Emulator) -> None:
        cv2.setNumThreads(1)  # every core has games of its own
        self._emulator = emulator
        self._view: View = VIEWS.get(config.view)()
        self._frame_shape = config.frame_shape
        self._button_rows = self._view.button_rows * config.frame_size // 84
        self._is_grey = config.pixels == "grey"
        self._shows_buttons = config.show_buttons
        self._previous: np.ndarray | None = None  # pixels of the frame before; only if grey

    def before_last_frame(self) -> None:
        """Call this before the last emulated frame of a decision, if the episode gets there."""
        if self._is_grey:
            self._previous = self._emulator.brightness(_grey)

    def frame(self) -> np.ndarray:
        """What the agent sees now, uint8 [H, W]."""
        memory = self._emulator.memory
        pixels = self._emulator.brightness(_grey if self._is_grey else _red)
        if self._previous is not None:
            pixels, self._previous = np.maximum(pixels, self._previous), None
        pixels = self._view.crop(pixels, memory)
        frame = cv2.resize(pixels, self._frame_shape, interpolation=cv2.INTER_AREA)
        if self._shows_buttons:
            rows, middle = self._button_rows, frame.shape[1] // 2
            frame[:rows, :middle] = 255 if memory.holds_a else 0
            frame[:rows, middle:] = 255 if memory.holds_b else 0
        return frame


def _red(bgrx: np.ndarray, backdrop: np.ndarray) -> np.ndarray:
    """The red of each pixel or, if that is more, by how much its green or blue exceeds that of the
    backdrop, so that on black one sees green and blue things, too."""
    blue, green, red, _ = cv2.split(bgrx)
    excesses = cv2.subtract(blue, int(backdrop[0])), cv2.subtract(green, int(backdrop[1]))  # type: ignore[call-overload]
    return cv2.max(red, cv2.max(*excesses))


def _grey(bgrx: np.ndarray, backdrop: np.ndarray) -> np.ndarray:
    """The luminance of each pixel."""
    return cv2.cvtColor(bgrx, cv2.COLOR_BGRA2GRAY)
