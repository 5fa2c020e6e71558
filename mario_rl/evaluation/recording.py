"""A video of a game that was played."""

from contextlib import closing
from pathlib import Path

from mario_rl.config import EnvConfig
from mario_rl.games.interface import SCREEN_SHAPE, Position, replay
from mario_rl.games.mario_game import MarioGame
from mario_rl.storage.video import VideoWriter


def record_game(config: EnvConfig, position: Position, path: Path) -> None:
    """Play a game again, and write its frames as an MP4 of the console's size.

    Raises:
        UserError: if the file cannot be written.
    """
    height, width, _ = SCREEN_SHAPE
    with VideoWriter(path, height, width) as video, closing(MarioGame(config, video.add)) as game:
        replay(game, position)
