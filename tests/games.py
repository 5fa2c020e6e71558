"""Games small enough to be learned in seconds, and deterministic ones for tests of the loop."""

import numpy as np

from mario_rl.config import EnvConfig
from mario_rl.games.interface import CLEAR, DEATH, RUNNING, STALL, Status

FRAME_SHAPE = EnvConfig().frame_shape


class Corridor:
    """Walk from the left to the right; the agent's column is bright.

    The position decides which of two actions goes on; the other one is death. Random play survives
    a length of 8 once in 256 episodes. A game with save points has one at every third column.
    """

    num_actions = 5

    def __init__(
        self,
        length: int = 8,
        max_steps: int = 30,
        save_points: bool = False,
        frame_shape: tuple[int, int] = FRAME_SHAPE,
    ) -> None:
        self.frame_shape = frame_shape
        self._length = length
        self._max_steps = max_steps
        self._save_points = save_points
        self._saved_x = 0

    def reset(self, noop_frames: int = 0) -> tuple[np.ndarray, Status]:
        self._x = self._saved_x = self._steps = 0
        return self._frame(), self._status(RUNNING)

    def save(self) -> None:
        self._saved_x = self._x

    def retry(self) -> tuple[np.ndarray, Status]:
        self._x, self._steps = self._saved_x, 0
        return self._frame(), self._status(RUNNING)

    def noop(self, frames: int) -> tuple[np.ndarray, Status]:
        return self._frame(), self._status(RUNNING)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, Status]:
        self._steps += 1
        if action == 0:  # waits
            stalled = self._steps >= self._max_steps
            return self._frame(), 0.0, False, stalled, self._status(STALL if stalled else RUNNING)
        if action % 2 != self._x % 2:
            return self._frame(), -1.0, True, False, self._status(DEATH)
        self._x += 1
        cleared = self._x == self._length
        return self._frame(), 1.0, cleared, False, self._status(CLEAR if cleared else RUNNING)

    def state(self) -> bytes | None:
        return None

    def load(self, state: bytes) -> np.ndarray:
        raise ValueError("a corridor has no states")

    def close(self) -> None:
        pass

    def _frame(self) -> np.ndarray:
        frame = np.zeros(self.frame_shape, dtype=np.uint8)
        width = self.frame_shape[1] // (self._length + 1)
        frame[:, self._x * width : (self._x + 1) * width] = 255
        return frame

    def _status(self, outcome: int) -> Status:
        saved = self._save_points and outcome == RUNNING and self._x >= self._saved_x + 3
        if saved:
            self._saved_x = self._x
        return Status(
            x=self._x,
            y=0,
            max_x=self._x,
            world=1,
            stage=1,
            stages_cleared=int(outcome == CLEAR),
            game_score=0,
            coins=0,
            time_left=0,
            outcome=outcome,
            saved=saved,
        )
