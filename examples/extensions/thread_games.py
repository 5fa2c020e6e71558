"""A games backend: every game in a thread of its own, in the trainer's process."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from mario_rl.config import EnvConfig
from mario_rl.games.interface import (
    IDLE,
    RECORD_DTYPE,
    Position,
    advance,
    bring,
    execute,
    states_of,
)
from mario_rl.games.mario_game import MarioGame


class ThreadGames:
    """Results are put together in the order of the games, not of their arrival: so a run stays a
    function of its config and seed."""

    def __init__(
        self,
        config: EnvConfig,
        num_envs: int,
        report: Callable[[str], None],
        num_retrying: int = 0,
    ) -> None:
        self.num_envs = num_envs
        self.frame_shape = config.frame_shape
        self.positions = [Position(0, []) for _ in range(num_envs)]
        self._games = [MarioGame(config, save_points=i < num_retrying) for i in range(num_envs)]
        self._threads = ThreadPoolExecutor(num_envs)
        self._frames = np.zeros((num_envs, *config.frame_shape), dtype=np.uint8)
        self._records = np.zeros(num_envs, dtype=RECORD_DTYPE)

    def step_async(self, commands: np.ndarray, noop_frames: np.ndarray) -> None:
        self._commands, self._noop_frames = commands.copy(), noop_frames.copy()
        self._results: dict[int, Future] = {
            i: self._threads.submit(execute, game, int(commands[i]), int(noop_frames[i]))
            for i, game in enumerate(self._games)
            if commands[i] != IDLE
        }

    def step_wait(self) -> tuple[np.ndarray, np.ndarray]:
        for i, result in self._results.items():
            self._frames[i], self._records[i] = result.result()
        advance(self.positions, self._commands, self._noop_frames, self._records)
        return self._frames.copy(), self._records.copy()

    def states(self) -> list[bytes] | None:
        return states_of(self._games)

    def restore(
        self, positions: Sequence[Position], states: Sequence[bytes] | None = None
    ) -> np.ndarray:
        self.positions = list(positions)
        states_or_none = states or [None] * self.num_envs
        frames = self._threads.map(bring, self._games, positions, states_or_none)
        self._frames[:] = list(frames)
        return self._frames.copy()

    def close(self) -> None:
        self._threads.shutdown()
        for game in self._games:
            game.close()
