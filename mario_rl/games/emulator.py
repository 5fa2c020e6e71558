"""The console with the game in it: one interface, two emulators.

`fceumm` is the fast one, with which agents train where it is installed; `nes-py`, with which
gym-super-mario-bros plays, is the one that judges. docs/emulators.md says how far they agree.
"""

import importlib.util
from collections.abc import Callable
from typing import Protocol

import numpy as np

from mario_rl.config import FULL_GAME
from mario_rl.errors import UserError
from mario_rl.games.memory import Memory
from mario_rl.registry import EMULATORS

BACKDROP = 4, 128  # row and column of a pixel above the status bar

# Works on every Python. Its game is the same as that of 1.0.0, frame by frame.
INSTALL_FCEUMM = "pip install --no-deps stable-retro==1.0.1"

# (bgrx, uint8 [H, W, 4]; BGRX of the backdrop, uint8 [4]) -> the brightness of each pixel, uint8
# [H, W]. It may depend on nothing else.
Brightness = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Emulator(Protocol):
    """One console with the game in it, and room for one saved state.

    Scenes in which nobody plays, such as the change to another area, pass within one step.

    The classes in `registry.EMULATORS` are all made alike:

        Emulator(stage: str, on_frame: Callable[[np.ndarray], None] | None)

    `stage` is one of config.STAGES, which ends at the flag or with the life, or FULL_GAME.
    `on_frame` is called with `screen` after every emulated frame, also during the scenes that pass
    within one step.
    """

    memory: Memory  # always current

    @property
    def screen(self) -> np.ndarray:
        """uint8 [240, 256, 3] RGB, a view that the next frame may overwrite."""

    def brightness(self, of: Brightness) -> np.ndarray:
        """The brightness of the screen, uint8 [240, 256]. The backdrop is the colour of its top."""

    @property
    def is_over(self) -> bool:
        """Whether play has ended: no step is possible before a `reset` or `restore`."""

    def reset(self) -> None:
        """Go to the true start of the stage (or game), bit for bit the same every time."""

    def step(self, buttons: int) -> None:
        """Let one frame pass while buttons, an element of `actions.button_bytes`, are held.

        Raises:
            UserError: if play has ended. Only a checkpoint that contradicts itself leads there.
        """

    def save(self) -> None:
        """Save this state. It replaces the one that was saved before."""

    def restore(self) -> None:
        """Go back to the state that was saved last; after a `reset`, to the start."""

    def state(self) -> bytes | None:
        """All that its future depends on, the saved state too; of the same length every time. None
        if this emulator's states cannot leave their process."""

    def load(self, state: bytes) -> None:
        """Go to a `state`, also one of another process. It has no picture: `screen` is black until
        the next frame.

        Raises:
            ValueError: if it is not a state of this emulator.
        """

    def close(self) -> None:
        """Free the emulator. Closing twice is allowed."""


def target_of(stage: str) -> tuple[int, ...] | None:
    """World and stage; None for the full game."""
    return None if stage == FULL_GAME else tuple(map(int, stage.split("-")))


def require_play(is_over: bool) -> None:
    """Refuse a frame after the end of a game.

    Raises:
        UserError: if play has ended.
    """
    if is_over:
        raise UserError("a game cannot go on after its end: the checkpoint contradicts itself")


def resolved(name: str) -> str:
    """The emulator that a setting means: "auto" is fceumm where stable-retro is installed.

    Raises:
        UserError: if it is fceumm, and stable-retro is not installed.
    """
    is_installed = importlib.util.find_spec("stable_retro") is not None
    if name == "auto":
        return "fceumm" if is_installed else "nes-py"
    if name == "fceumm" and not is_installed:
        raise UserError(
            "--emulator fceumm needs stable-retro, which exists for Linux x86-64 and macOS arm64: "
            f"{INSTALL_FCEUMM}"
        )
    return name


def auto(stage: str, on_frame: Callable[[np.ndarray], None] | None = None) -> Emulator:
    """The emulator that "auto" means."""
    emulator: Emulator = EMULATORS.get(resolved("auto"))(stage, on_frame)
    return emulator
