"""Many games in this process, one after the other."""

from collections.abc import Callable, Sequence

import numpy as np

from mario_rl.config import EnvConfig
from mario_rl.games.interface import (
    IDLE,
    RECORD_DTYPE,
    Game,
    Position,
    advance,
    bring,
    execute,
    states_of,
)
from mario_rl.games.mario_game import MarioGame


class SerialGames:
    """Implements `interface.Games`."""

    def __init__(
        self,
        config: EnvConfig,
        num_envs: int,
        report: Callable[[str], None],
        num_retrying: int = 0,
    ) -> None:
        """As `interface.Games` says. Nothing is reported: no worker can die."""
        self._hold([MarioGame(config, save_points=i < num_retrying) for i in range(num_envs)])

    @classmethod
    def of(cls, games: Sequence[Game]) -> "SerialGames":
        """From games that are made already."""
        serial = cls.__new__(cls)
        serial._hold(games)
        return serial

    def _hold(self, games: Sequence[Game]) -> None:
        self.num_envs = len(games)
        self.frame_shape = games[0].frame_shape
        self.positions = [Position(0, []) for _ in games]
        self._games = games
        self._frames = np.zeros((len(games), *self.frame_shape), dtype=np.uint8)
        self._records = np.zeros(len(games), dtype=RECORD_DTYPE)

    def step_async(self, commands: np.ndarray, noop_frames: np.ndarray) -> None:
        orders = zip(self._games, commands.tolist(), noop_frames.tolist(), strict=True)
        for i, (game, command, frames) in enumerate(orders):
            if command != IDLE:
                self._frames[i], self._records[i] = execute(game, command, frames)
        advance(self.positions, commands, noop_frames, self._records)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray]:
        return self._frames.copy(), self._records.copy()

    def states(self) -> list[bytes] | None:
        return states_of(self._games)

    def restore(
        self, positions: Sequence[Position], states: Sequence[bytes] | None = None
    ) -> np.ndarray:
        for i, game in enumerate(self._games):
            self._frames[i] = bring(game, positions[i], None if states is None else states[i])
        self.positions = list(positions)
        return self._frames.copy()

    def close(self) -> None:
        for game in self._games:
            game.close()
