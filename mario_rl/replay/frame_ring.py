"""A ring that stores every frame of N games once, and gathers stacks of them.

A row of the ring holds one frame of each game. The frame of a game in a row has the slot
s = row * N + game; the game's frame before it lies at s - N, the next one at s + N. An observation
is a stack of four frames, gathered when it is needed. The age of a frame is the number of steps
since its episode began: it tells where the stack must repeat the first frame.
"""

import math

import numpy as np
import torch

from mario_rl.config import STACK
from mario_rl.replay.frame_store import DeviceFrames, FrameStore, HostFrames


class FrameRing:
    """See the module."""

    def __init__(
        self,
        num_rows: int,
        num_envs: int,
        frame_shape: tuple[int, int],
        frames_device: torch.device | None = None,
    ) -> None:
        """
        Args:
            num_rows: at least STACK.
            frame_shape: height and width, H and W.
            frames_device: keeps the frames and gathers the stacks, as tensors. None is main
                memory, where the stacks are arrays.
        """
        self.num_rows = num_rows
        self.num_envs = num_envs
        self._frame_shape = frame_shape
        self.num_slots = num_rows * num_envs
        self.ages = np.zeros(self.num_slots, dtype=np.uint8)  # 3 also stands for more
        self.rows_written = 0  # since the ring was made
        self._frames: FrameStore = (
            HostFrames(self.num_slots, frame_shape)
            if frames_device is None
            else DeviceFrames(self.num_slots, frame_shape, frames_device)
        )

    @staticmethod
    def required_bytes(slots: int, frame_shape: tuple[int, int]) -> int:
        """Memory that a full ring takes."""
        return (math.prod(frame_shape) + 1) * slots  # a frame and its age

    def append(self, frames: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        """Write one row over the oldest.

        Args:
            frames: uint8 [N, H, W].
            is_first: bool [N], whether the frame is the first of an episode.

        Returns:
            slots: int64 [N], of the frames.
        """
        self.rows_written += 1
        slots = self.newest_slots()
        previous_ages = self.ages[slots - self.num_envs]
        self._frames.write(slots, frames)
        self.ages[slots] = np.where(is_first, 0, np.minimum(previous_ages + 1, STACK - 1))
        return slots

    def newest_slots(self) -> np.ndarray:
        """The slots, int64 [N], of the frames written last."""
        return self.slots_of(np.array([self.rows_written - 1]))

    def slots_of(self, rows: np.ndarray) -> np.ndarray:
        """The slots, int64 [rows * N], of rows, int64 [rows], by their number since the start."""
        first_slots = rows % self.num_rows * self.num_envs
        return (first_slots[:, None] + np.arange(self.num_envs)).ravel()

    def slots_after(self, slots: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """The slots, int64 [B], that come `steps` (any integers, [B]) after `slots`, int64 [B]."""
        return (slots + steps.astype(np.int64) * self.num_envs) % self.num_slots

    def stacks(self, slots: np.ndarray) -> np.ndarray | torch.Tensor:
        """The observations, uint8 [B, 4, H, W], oldest frame first, that end at the slots.

        In memory the B oldest frames come first, then the B next ones, and so on.
        """
        return self._frames.gather(self._stack_slots(slots)).swapaxes(0, 1)

    def stack_pairs(self, slots: np.ndarray, later_slots: np.ndarray) -> np.ndarray | torch.Tensor:
        """The observations, uint8 [2, B, 4, H, W], that end at the two arrays of slots, int64
        [B]. The next call may overwrite them."""
        stack_slots = np.stack([self._stack_slots(slots), self._stack_slots(later_slots)])
        return self._frames.gather_batch(stack_slots).swapaxes(1, 2)

    def _stack_slots(self, slots: np.ndarray) -> np.ndarray:
        """The slots, int64 [4, B], of the frames in the observations that end at `slots`."""
        back = np.minimum(np.arange(STACK - 1, -1, -1)[:, None], self.ages[slots])
        return (slots - back * self.num_envs) % self.num_slots

    @property
    def rows(self) -> range:
        """The rows that are kept, by their number since the start."""
        return range(max(0, self.rows_written - self.num_rows), self.rows_written)

    @property
    def overwritten_row(self) -> int:
        """The row that the next one replaces; negative as long as there is room."""
        return self.rows_written - self.num_rows

    def frames_of(self, rows: range) -> list[np.ndarray]:
        """The frames of rows that the ring still holds, as one or two blocks in order, uint8
        [rows, N, H, W]. In main memory they are views of the ring."""
        first, count = rows.start % self.num_rows, len(rows)
        ranges = [
            (first, min(first + count, self.num_rows)),
            (0, max(0, first + count - self.num_rows)),
        ]
        return [
            self._frames.read(start * self.num_envs, stop * self.num_envs).reshape(
                -1, self.num_envs, *self._frame_shape
            )
            for start, stop in ranges
            if start < stop
        ]

    def load(
        self, ages: np.ndarray, rows_written: int, frames: list[tuple[int, np.ndarray]]
    ) -> None:
        """Take over another ring's content.

        Args:
            ages: uint8 [slots].
            frames: (first row, uint8 [rows, N, H, W]), oldest first.
        """
        for first_row, block in frames:
            slots = self.slots_of(np.arange(first_row, first_row + len(block)))
            self._frames.write(slots, block.reshape(-1, *self._frame_shape))
        self.ages[:] = ages
        self.rows_written = rows_written
