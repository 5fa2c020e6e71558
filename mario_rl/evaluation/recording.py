"""A video of a game that was played."""

from contextlib import closing
from itertools import count
from pathlib import Path

import numpy as np

from mario_rl.config import EnvConfig
from mario_rl.games.interface import FRAMES_PER_SECOND, SCREEN_SHAPE, Position, replay
from mario_rl.games.mario_game import MarioGame
from mario_rl.storage.video import VideoWriter

_EVERY = 2  # of the frames is written: half of the time


def record_game(config: EnvConfig, position: Position, path: Path) -> None:
    """Play a game again, and write an MP4 of the console's size, at 30 frames per second.

    Raises:
        UserError: if the file cannot be written.
    """
    height, width, _ = SCREEN_SHAPE
    numbers = count()
    with VideoWriter(path, height, width, FRAMES_PER_SECOND // _EVERY) as video:

        def on_frame(screen: np.ndarray) -> None:
            if next(numbers) % _EVERY == 0:
                video.add(screen)

        with closing(MarioGame(config, on_frame)) as game:
            replay(game, position)
