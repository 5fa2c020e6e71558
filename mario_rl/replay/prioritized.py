"""Proportional prioritized replay (Schaul et al. 2016) on a ring that stores every frame once.

A transition lies in the slot where its first observation ends. The last frame of an episode has a
slot, too, for bootstrapping after a truncation, but no transition begins there.

Deviations from the paper: 1. new transitions get the greatest priority seen so far in the whole
run, at least 1; 2. importance weights are divided by the greatest of the batch.
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import torch

from mario_rl.config import STACK, ReplayConfig
from mario_rl.fields import Array, Count, Within
from mario_rl.replay.frame_ring import FrameRing
from mario_rl.replay.n_step import Transitions
from mario_rl.replay.sum_tree import SumTree

_MIN_PRIORITY = 1e-4  # for an error of zero, so that every transition can be drawn again
_TRANSITION_BYTES = 1 + 4 + 4 + 1  # action, return, discount, steps


class Batch(NamedTuple):
    """A sample of B transitions."""

    slots: np.ndarray  # int64 [B]; these and `drawn_at` are for `update_priorities`
    drawn_at: int  # rows written to the ring until then
    obs: np.ndarray | torch.Tensor  # uint8 [B, 4, H, W]
    actions: np.ndarray  # uint8 [B]
    returns: np.ndarray  # float32 [B]
    discounts: np.ndarray  # float32 [B]
    next_obs: np.ndarray | torch.Tensor  # uint8 [B, 4, H, W]
    is_weights: np.ndarray  # float32 [B], in (0, 1]


@dataclass(frozen=True)
class ReplayState:
    """Everything except the frames. The arrays have an entry for each slot."""

    age: Annotated[np.ndarray, Array("uint8", "slots", "[0, 3]")]
    actions: Annotated[np.ndarray, Array("uint8", "slots", "[0, num_actions)")]
    returns: Annotated[np.ndarray, Array("float32", "slots")]
    discounts: Annotated[np.ndarray, Array("float32", "slots", "[0, 1]")]
    steps: Annotated[np.ndarray, Array("uint8", "slots", "[0, 32]")]
    # No more than the greatest float32, so that their sum is finite.
    priorities: Annotated[np.ndarray, Array("float64", "slots", "[0, 3.5e38]")]
    max_priority: Annotated[float, Within("[1, 3.5e38]")]
    rows_written: Count

    def check(
        self, num_envs: int, frame_shape: tuple[int, int], frames: list[tuple[int, np.ndarray]]
    ) -> None:
        """
        Args:
            frames: as for `FrameRing.load`.

        Raises:
            ValueError: names the field that does not fit the others or the frames.
        """
        num_rows = len(self.age) // num_envs
        if self.priorities[self.rows_written * num_envs :].any():
            raise ValueError(
                f"priorities are set where, by rows_written {self.rows_written}, nothing is"
            )
        positive = self.priorities[self.priorities > 0]
        if positive.size and positive.min() < _MIN_PRIORITY * (1 - 1e-9):  # with any exponent
            raise ValueError(
                f"priorities holds {positive.min():.4g}, which is neither 0 nor at least "
                f"{_MIN_PRIORITY}"
            )
        needed = max(0, self.rows_written - num_rows)
        first, end = (frames[0][0], frames[-1][0] + len(frames[-1][1])) if frames else (0, 0)
        if first > needed or end != self.rows_written:
            raise ValueError(
                f"rows_written is {self.rows_written}, and the frames are those of the rows from "
                f"{first} to {end - 1}"
            )
        for _, block in frames:
            if block.shape[1:] != (num_envs, *frame_shape):
                raise ValueError(f"the frames have the shape {block.shape[1:]} in each row")


class PrioritizedReplay:
    """See the module."""

    def __init__(
        self,
        config: ReplayConfig,
        num_envs: int,
        frame_shape: tuple[int, int],
        frames_device: torch.device | None = None,
    ) -> None:
        """
        Args:
            frame_shape, frames_device: as for `FrameRing`.
        """
        self._priority_exponent = config.priority_exponent
        num_rows = config.replay_capacity // num_envs
        self.ring = FrameRing(num_rows, num_envs, frame_shape, frames_device)
        slots = self.ring.num_slots
        self._actions = np.zeros(slots, dtype=np.uint8)
        self._returns = np.zeros(slots, dtype=np.float32)
        self._discounts = np.zeros(slots, dtype=np.float32)
        self._steps = np.zeros(slots, dtype=np.uint8)
        self._tree = SumTree(slots)
        self._max_priority = 1.0

    @staticmethod
    def required_bytes(config: ReplayConfig, frame_shape: tuple[int, int]) -> int:
        """Memory that a full replay takes."""
        slots = config.replay_capacity
        return (
            FrameRing.required_bytes(slots, frame_shape)
            + _TRANSITION_BYTES * slots
            + SumTree.required_bytes(slots)
        )

    def append_frames(self, frames: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        """Write one row over the oldest, as `FrameRing.append` does."""
        slots = self.ring.append(frames, is_first)
        # The observations of the next three rows are no longer complete.
        lost_rows = self.ring.rows_written - 1 + np.arange(STACK)
        self._tree.set(self.ring.slots_of(lost_rows), 0.0)
        return slots

    def add(self, transitions: Transitions) -> None:
        """Make transitions, whose frames are all appended, available to `sample`."""
        slots = transitions.slots
        self._actions[slots] = transitions.actions
        self._returns[slots] = transitions.returns
        self._discounts[slots] = transitions.discounts
        self._steps[slots] = transitions.steps
        self._tree.set(slots, self._max_priority**self._priority_exponent)

    def sample(
        self, batch_size: int, importance_exponent: float, rng: np.random.Generator
    ) -> Batch:
        """Draw transitions with probability proportional to their priority, one from each of
        `batch_size` equal shares of the total (Schaul et al. 2016, appendix B.2.1).

        The next call may overwrite the observations.
        """
        total = self._tree.total
        slots = self._tree.find(
            (np.arange(batch_size) + rng.random(batch_size)) * total / batch_size
        )
        # (N * P(i)) ** -beta; N cancels when the weights are divided by the greatest.
        weights = self._tree.get(slots) ** -importance_exponent
        next_slots = self.ring.slots_after(slots, self._steps[slots])
        obs, next_obs = self.ring.stack_pairs(slots, next_slots)
        return Batch(
            slots=slots,
            drawn_at=self.ring.rows_written,
            obs=obs,
            actions=self._actions[slots],
            returns=self._returns[slots],
            discounts=self._discounts[slots],
            next_obs=next_obs,
            is_weights=(weights / weights.max()).astype(np.float32),
        )

    def update_priorities(self, slots: np.ndarray, td_errors: np.ndarray, drawn_at: int) -> None:
        """Set the priorities of sampled transitions from their new TD errors, float [B].

        Args:
            slots, drawn_at: of the batch. Transitions overwritten since then are skipped.
        """
        priorities = np.abs(td_errors).astype(np.float64) + _MIN_PRIORITY
        self._max_priority = max(self._max_priority, float(priorities.max()))
        # How many rows come before the one that overwrites a slot, counted from the draw.
        turn = (slots // self.ring.num_envs - drawn_at) % self.ring.num_rows
        kept = turn >= self.ring.rows_written - drawn_at + STACK - 1
        self._tree.set(slots[kept], priorities[kept] ** self._priority_exponent)

    def state(self) -> ReplayState:
        """A view: the next step changes it."""
        return ReplayState(
            age=self.ring.ages,
            actions=self._actions,
            returns=self._returns,
            discounts=self._discounts,
            steps=self._steps,
            priorities=self._tree.priorities(),
            max_priority=self._max_priority,
            rows_written=self.ring.rows_written,
        )

    def load_state(self, state: ReplayState, frames: list[tuple[int, np.ndarray]]) -> None:
        """Take over a state and the frames, as for `FrameRing.load`."""
        self.ring.load(state.age, state.rows_written, frames)
        self._actions[:] = state.actions
        self._returns[:] = state.returns
        self._discounts[:] = state.discounts
        self._steps[:] = state.steps
        self._tree.set(np.arange(self.ring.num_slots), state.priorities)
        self._max_priority = state.max_priority
