"""A picture of a stage, put together from the screens of games that a model plays."""

from contextlib import closing

import numpy as np

from mario_rl.agent.policy import Policy
from mario_rl.agent.saved_model import SavedModel
from mario_rl.config import STACK
from mario_rl.games.interface import CLEAR, SCREEN_SHAPE
from mario_rl.games.mario_game import MarioGame
from mario_rl.games.memory import Memory

_STATUS_BAR_PX = 32
_STARTS = (0, 10, 20, 30)  # no-op frames before the games, which end when one is cleared
_MAX_DECISIONS = 1_000  # of a game
_MAX_WIDTH_PX = 8_192


def stage_picture(model: SavedModel) -> np.ndarray:
    """The stage without its status bar, from the left to where the model's greedy policy comes.

    Each column is shown as it was when it first came onto the screen, from the right: so Mario is
    on none but the first ones. The screen lags behind the memory by a frame, in which the stage
    moves by up to 3 pixels.

    Returns:
        uint8 [208, width, 3] RGB.
    """
    policy = Policy(model)
    height = SCREEN_SHAPE[0] - _STATUS_BAR_PX
    canvas = np.zeros((height, _MAX_WIDTH_PX, 3), dtype=np.uint8)
    width = 0
    with closing(MarioGame(model.config.replaced({"emulator": "auto"}).env)) as game:
        for noop_frames in _STARTS:
            frame, status = game.reset(noop_frames)
            obs = np.stack([frame] * STACK)
            for _ in range(_MAX_DECISIONS):
                width = _add_screen(canvas, width, game)
                frame, _, terminated, truncated, status = game.step(int(policy.act(obs)))
                obs = np.concatenate([obs[1:], frame[None]])
                if terminated or truncated:
                    break
            if status.outcome == CLEAR:
                break
    return canvas[:, :width]


def _add_screen(canvas: np.ndarray, width: int, game: MarioGame) -> int:
    """Add the columns of the screen that are new; returns the new width."""
    left = Memory(memoryview(game.ram())).screen_left
    right = left + SCREEN_SHAPE[1]
    if not left <= width < right <= canvas.shape[1]:
        return width  # nothing new, or another area
    canvas[:, width:right] = game.screen()[_STATUS_BAR_PX:, width - left :]
    return right
