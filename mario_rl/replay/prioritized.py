"""Proportional prioritized replay (Schaul et al. 2016) in which every frame is stored once.

The replay is a ring of rows. A row holds one frame of each of the N environments, in lockstep, so
that slot s = row * N + environment, the frame before it lies at s - N and the one after at s + N.
An observation is gathered from four slots when it is needed; `age`, the number of steps since the
episode's reset, tells where the stack must repeat the first frame. The last frame of an episode
has a slot, from which bootstrapping at a truncation starts, but begins no transition.

Deviations from the paper: 1. new transitions get the greatest priority seen so far in the whole
run, at least 1; 2. importance weights are divided by the greatest of the batch.
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from mario_rl.config import FRAME_SHAPE, STACK, ReplayConfig
from mario_rl.replay.frame_store import DeviceFrames, FrameStore, HostFrames
from mario_rl.replay.sum_tree import SumTree

_MIN_PRIORITY = 1e-4  # of an error of zero, so that every transition can be drawn again


class Transitions(NamedTuple):
    """n-step transitions that begin at the given slots."""

    slots: np.ndarray  # int64 [B]
    actions: np.ndarray  # uint8 [B]
    returns: np.ndarray  # float32 [B], discounted sum of the rewards
    discounts: np.ndarray  # float32 [B], gamma^k, or 0 at a terminal state
    steps: np.ndarray  # uint8 [B], k, the number of rewards summed

    @classmethod
    def from_rows(cls, rows: list[tuple[int, int, float, float, int]]) -> "Transitions":
        """From what `NStepAccumulator.append` returns."""
        dtypes = (np.int64, np.uint8, np.float32, np.float32, np.uint8)
        columns = zip(*rows, strict=True)
        return cls(*map(np.array, columns, dtypes))


class Batch(NamedTuple):
    """A sample. `slots` is what `update_priorities` wants back."""

    slots: np.ndarray  # int64 [B]
    obs: np.ndarray | torch.Tensor  # uint8 [B, 4, 84, 84]
    actions: np.ndarray  # uint8 [B]
    returns: np.ndarray  # float32 [B]
    discounts: np.ndarray  # float32 [B]
    next_obs: np.ndarray | torch.Tensor  # uint8 [B, 4, 84, 84]
    is_weights: np.ndarray  # float32 [B], in (0, 1]


class PrioritizedReplay:
    """See the module."""

    def __init__(
        self, config: ReplayConfig, num_envs: int, frames_device: torch.device | None = None
    ) -> None:
        """
        Args:
            frames_device: where the frames are kept and batches gathered; None is main memory,
                and the observations are arrays instead of tensors.
        """
        self._priority_exponent = config.priority_exponent
        self.num_envs = num_envs
        self.num_rows = config.replay_capacity // num_envs
        slots = self.num_rows * num_envs
        self._frames: FrameStore = (
            HostFrames(slots) if frames_device is None else DeviceFrames(slots, frames_device)
        )
        self._age = np.zeros(slots, dtype=np.uint8)  # steps since the reset, at most 3
        self._actions = np.zeros(slots, dtype=np.uint8)
        self._returns = np.zeros(slots, dtype=np.float32)
        self._discounts = np.zeros(slots, dtype=np.float32)
        self._steps = np.zeros(slots, dtype=np.uint8)
        self._tree = SumTree(slots)
        self._max_priority = 1.0
        self.rows_written = 0  # over the whole run

    @staticmethod
    def required_bytes(config: ReplayConfig) -> int:
        """Memory that a full replay takes."""
        per_slot = int(np.prod(FRAME_SHAPE)) + 1 + 1 + 4 + 4 + 1
        return per_slot * config.replay_capacity + SumTree.required_bytes(config.replay_capacity)

    def append_frames(self, frames: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        """Write one row over the oldest.

        Args:
            frames: uint8 [N, 84, 84].
            is_first: bool [N], whether the frame is the first of an episode.

        Returns:
            slots: int64 [N], where they went.
        """
        row = self.rows_written % self.num_rows
        slots = row * self.num_envs + np.arange(self.num_envs)
        previous_age = self._age[slots - self.num_envs]
        self._frames.write(slots, frames)
        self._age[slots] = np.where(is_first, 0, np.minimum(previous_age + 1, STACK - 1))
        # The observations of the next three rows are no longer complete.
        lost_rows = (row + np.arange(STACK)) % self.num_rows
        lost = lost_rows[:, None] * self.num_envs + np.arange(self.num_envs)
        self._tree.set(lost.ravel(), 0.0)
        self.rows_written += 1
        return slots

    def add(self, transitions: Transitions) -> None:
        """Make transitions, whose frames are all appended, available to `sample`."""
        slots = transitions.slots
        self._actions[slots] = transitions.actions
        self._returns[slots] = transitions.returns
        self._discounts[slots] = transitions.discounts
        self._steps[slots] = transitions.steps
        self._tree.set(slots, self._max_priority**self._priority_exponent)

    def stacks(self, slots: np.ndarray) -> np.ndarray | torch.Tensor:
        """The observations, uint8 [B, 4, 84, 84], oldest frame first, that end at the slots.

        In memory all B oldest frames come first, and so on.
        """
        return self._frames.gather(self._stack_slots(slots)).swapaxes(0, 1)

    def _stack_slots(self, slots: np.ndarray) -> np.ndarray:
        """The slots, int64 [4, B], of the frames in the observations that end at `slots`."""
        back = np.minimum(np.arange(STACK - 1, -1, -1)[:, None], self._age[slots])
        return (slots - back * self.num_envs) % len(self._age)

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
        next_slots = (slots + self._steps[slots].astype(np.int64) * self.num_envs) % len(self._age)
        stack_slots = np.stack([self._stack_slots(slots), self._stack_slots(next_slots)])
        obs, next_obs = self._frames.gather_batch(stack_slots).swapaxes(1, 2)
        return Batch(
            slots=slots,
            obs=obs,
            actions=self._actions[slots],
            returns=self._returns[slots],
            discounts=self._discounts[slots],
            next_obs=next_obs,
            is_weights=(weights / weights.max()).astype(np.float32),
        )

    def update_priorities(
        self, slots: np.ndarray, td_errors: np.ndarray, sampled_at: int | None = None
    ) -> None:
        """Set the priorities of sampled transitions from their new TD errors, float [B].

        Args:
            sampled_at: `rows_written` when they were drawn, if that has grown: what has been
                overwritten since is passed over.
        """
        priorities = np.abs(td_errors).astype(np.float64) + _MIN_PRIORITY
        self._max_priority = max(self._max_priority, float(priorities.max()))
        if sampled_at is not None:
            # How many rows had to be written then until a slot's turn came.
            turn = (slots // self.num_envs - sampled_at) % self.num_rows
            kept = turn >= self.rows_written - sampled_at + STACK - 1
            slots, priorities = slots[kept], priorities[kept]
        self._tree.set(slots, priorities**self._priority_exponent)

    def frames_of(self, rows: range) -> list[np.ndarray]:
        """The frames of rows that are kept: at most two blocks, one after the other, uint8
        [rows, N, 84, 84], in main memory views of the ring."""
        first, count = rows.start % self.num_rows, len(rows)
        ranges = [
            (first, min(first + count, self.num_rows)),
            (0, max(0, first + count - self.num_rows)),
        ]
        return [
            self._frames.read(start * self.num_envs, stop * self.num_envs).reshape(
                -1, self.num_envs, *FRAME_SHAPE
            )
            for start, stop in ranges
            if start < stop
        ]

    @property
    def rows(self) -> range:
        """The rows that are kept, by their number over the whole run."""
        return range(max(0, self.rows_written - self.num_rows), self.rows_written)

    @property
    def overwritten_row(self) -> int:
        """The row that the next one replaces; negative as long as there is room."""
        return self.rows_written - self.num_rows

    def newest_slots(self) -> np.ndarray:
        """The slots, int64 [N], of the frames written last."""
        row = (self.rows_written - 1) % self.num_rows
        return row * self.num_envs + np.arange(self.num_envs)

    def state_dict(self) -> dict[str, Any]:
        """All but the frames."""
        return {
            "age": self._age,
            "actions": self._actions,
            "returns": self._returns,
            "discounts": self._discounts,
            "steps": self._steps,
            "priorities": self._tree.priorities(),
            "max_priority": self._max_priority,
            "rows_written": self.rows_written,
        }

    def load_state_dict(self, state: dict[str, Any], frames: list[tuple[int, np.ndarray]]) -> None:
        """Take over a state and the frames: (first row, uint8 [rows, N, 84, 84]), oldest first."""
        for first_row, block in frames:
            rows = np.arange(first_row, first_row + len(block)) % self.num_rows
            slots = rows[:, None] * self.num_envs + np.arange(self.num_envs)
            self._frames.write(slots.ravel(), block.reshape(-1, *FRAME_SHAPE))
        for name in ("age", "actions", "returns", "discounts", "steps"):
            getattr(self, f"_{name}")[:] = state[name]
        self._tree.set(np.arange(len(self._age)), state["priorities"])
        self._max_priority = state["max_priority"]
        self.rows_written = state["rows_written"]


class NStepAccumulator:
    """Sums rewards into n-step transitions (Sutton 1988), shortening them at an episode's end."""

    def __init__(self, n_step: int, gamma: float, num_envs: int) -> None:
        self._n_step = n_step
        self._gamma = gamma
        # For each environment its steps that are not yet part of a transition: slot, action, reward
        self._pending: list[list[tuple[int, int, float]]] = [[] for _ in range(num_envs)]

    def append(
        self, env: int, slot: int, action: int, reward: float, terminated: bool, truncated: bool
    ) -> list[tuple[int, int, float, float, int]]:
        """Take one step of one environment.

        At a termination and a truncation alike every pending step is completed with the rewards
        there are; only after a termination is the discount 0, so that nothing is bootstrapped.

        Returns:
            The transitions completed by it: slot, action, return, discount, steps.
        """
        pending = self._pending[env]
        pending.append((slot, action, reward))
        done = terminated or truncated
        completed = []
        while pending and (done or len(pending) == self._n_step):
            first_slot, first_action, _ = pending[0]
            value = 0.0
            for _, _, later_reward in reversed(pending):
                value = later_reward + self._gamma * value
            discount = 0.0 if terminated else self._gamma ** len(pending)
            completed.append((first_slot, first_action, value, discount, len(pending)))
            del pending[0]
        return completed

    def state_dict(self) -> list[list[tuple[int, int, float]]]:
        return self._pending

    def load_state_dict(self, pending: list[list[tuple[int, int, float]]]) -> None:
        self._pending = [list(map(tuple, steps)) for steps in pending]  # type: ignore[arg-type]
