"""The replay and the n-step sums against a reference that stores everything, the slow way."""

import copy
import itertools
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pytest
import torch

from mario_rl.config import STACK, ReplayConfig
from mario_rl.replay.frame_ring import FrameRing
from mario_rl.replay.n_step import NStepAccumulator, Transition, Transitions
from mario_rl.replay.prioritized import Batch, PrioritizedReplay

GAMMA = 0.9
FRAME_SHAPE = 42, 21


class Reference(NamedTuple):
    obs: np.ndarray
    action: int
    n_step_return: float
    discount: float
    steps: int
    next_obs: np.ndarray


@dataclass
class Episode:
    first_row: int
    frames: list[np.ndarray]
    actions: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False

    def obs(self, t: int) -> np.ndarray:
        """The frames t - 3 to t, the first one in place of those before it."""
        return np.stack([self.frames[max(0, t - back)] for back in range(STACK - 1, -1, -1)])

    def transitions(self, n_step: int, first_row: int) -> dict[int, Reference]:
        """Those that can be known by now and begin at `first_row` or later, by their row."""
        result = {}
        length, done = len(self.actions), self.terminated or self.truncated
        for t in range(max(0, first_row - self.first_row), length if done else length - n_step + 1):
            end = min(t + n_step, length)
            value = sum(GAMMA ** (i - t) * self.rewards[i] for i in range(t, end))
            at_terminal_state = self.terminated and end == length
            discount = 0.0 if at_terminal_state else GAMMA ** (end - t)
            result[self.first_row + t] = Reference(
                self.obs(t), self.actions[t], value, discount, end - t, self.obs(end)
            )
        return result


class Recording:
    """Random episodes played in lockstep into a replay, and kept whole beside it."""

    def __init__(
        self,
        num_envs: int,
        capacity: int,
        n_step: int,
        seed: int = 0,
        frames_device: torch.device | None = None,
    ) -> None:
        config = ReplayConfig(replay_capacity=capacity)
        self.replay = PrioritizedReplay(config, num_envs, FRAME_SHAPE, frames_device)
        self.episodes: list[list[Episode]] = [[] for _ in range(num_envs)]
        self.rows = 0
        self._accumulator = NStepAccumulator(n_step, GAMMA, num_envs)
        self._n_step = n_step
        self._rng = np.random.default_rng(seed)
        self._slots = np.zeros(num_envs, dtype=np.int64)

    def step(self) -> None:
        """One row: in each environment a step, or a reset after an episode's end."""
        rng, num_envs = self._rng, len(self.episodes)
        frames = rng.integers(256, size=(num_envs, *FRAME_SHAPE), dtype=np.uint8)
        is_first = np.zeros(num_envs, dtype=np.bool_)
        completed = []
        for env, episodes in enumerate(self.episodes):
            if not episodes or episodes[-1].terminated or episodes[-1].truncated:
                is_first[env] = True
                episodes.append(Episode(self.rows, [frames[env]]))
                continue
            episode = episodes[-1]
            episode.actions.append(int(rng.integers(7)))
            episode.rewards.append(float(rng.normal()))
            episode.frames.append(frames[env])
            # In some stretches episodes last a step or two, in others longer than the replay.
            end_probability = (0.4, 0.1, 0.0)[self.rows // 40 % 3]
            episode.terminated = rng.random() < end_probability
            episode.truncated = not episode.terminated and rng.random() < end_probability
            completed += self._accumulator.append(
                env, int(self._slots[env]), episode.actions[-1], episode.rewards[-1],
                episode.terminated, episode.truncated,
            )  # fmt: skip
        self._slots = self.replay.append_frames(frames, is_first)
        if completed:
            self.replay.add(Transitions.of(completed))
        self.rows += 1

    def current_obs(self) -> np.ndarray:
        episodes = [episodes[-1] for episodes in self.episodes]
        return np.stack([episode.obs(len(episode.actions)) for episode in episodes])

    def available(self) -> dict[int, Reference]:
        """The transitions whose four frames are all kept, by slot."""
        num_rows, num_envs = self.replay.ring.num_rows, len(self.episodes)
        first_row = self.rows - num_rows + STACK - 1
        return {
            row % num_rows * num_envs + env: transition
            for env, episodes in enumerate(self.episodes)
            for episode in episodes
            for row, transition in episode.transitions(self._n_step, first_row).items()
        }


def sample_all(replay: PrioritizedReplay, seed: int = 0) -> Batch:
    """A sample so large that it holds every transition, as long as their priorities are equal."""
    return replay.sample(
        2 * replay.ring.num_rows * replay.ring.num_envs, 0.4, np.random.default_rng(seed)
    )


def assert_batch_is_right(batch: Batch, expected: dict[int, Reference]) -> None:
    for i in np.unique(batch.slots, return_index=True)[1]:
        reference = expected[batch.slots[i]]
        assert np.array_equal(batch.obs[i], reference.obs)
        assert batch.actions[i] == reference.action
        assert batch.returns[i] == pytest.approx(reference.n_step_return, rel=1e-5, abs=1e-6)
        assert batch.discounts[i] == pytest.approx(reference.discount, rel=1e-6)
        assert np.array_equal(batch.next_obs[i], reference.next_obs)


def filled_replay(rows: int = 40, num_envs: int = 2, **config: float) -> PrioritizedReplay:
    """A replay in which one endless episode in each environment left transitions of one step."""
    config = ReplayConfig(replay_capacity=rows * num_envs, **config)
    replay = PrioritizedReplay(config, num_envs, FRAME_SHAPE)
    frames = np.zeros((num_envs, *FRAME_SHAPE), dtype=np.uint8)
    replay.append_frames(frames, np.ones(num_envs, dtype=np.bool_))
    for _ in range(rows // 2):
        add_row(replay)
    return replay


def add_row(replay: PrioritizedReplay) -> np.ndarray:
    """One more step in each environment; returns the slots where the new transitions begin."""
    slots, num_envs = replay.ring.newest_slots(), replay.ring.num_envs
    frames = np.zeros((num_envs, *FRAME_SHAPE), dtype=np.uint8)
    replay.append_frames(frames, np.zeros(num_envs, dtype=np.bool_))
    replay.add(Transitions.of([Transition(int(slot), 0, 0.0, 0.9, 1) for slot in slots]))
    return slots


def priorities_of(replay: PrioritizedReplay, slots: np.ndarray) -> np.ndarray:
    return replay.state().priorities[slots]


# frames and transitions


@pytest.mark.parametrize("num_envs", [1, 3])
def test_stacks_equal_naive_frame_stacking(num_envs):
    recording = Recording(num_envs, capacity=17 * num_envs, n_step=1)
    for _ in range(17 * 8):
        recording.step()
        replay = recording.replay
        assert np.array_equal(
            replay.ring.stacks(replay.ring.newest_slots()), recording.current_obs()
        )


def test_four_rows_are_enough_for_the_newest_stacks():
    rng = np.random.default_rng(0)
    num_envs = 3
    ring = FrameRing(STACK, num_envs, FRAME_SHAPE)
    histories: list[list[np.ndarray]] = [[] for _ in range(num_envs)]
    for step in range(40):
        frames = rng.integers(256, size=(num_envs, *FRAME_SHAPE), dtype=np.uint8)
        is_first = rng.random(num_envs) < (1 if step == 0 else 0.2)
        stacks = ring.stacks(ring.append(frames, is_first))
        for env, history in enumerate(histories):
            if is_first[env]:
                history[:] = [frames[env]] * (STACK - 1)
            history.append(frames[env])
            assert np.array_equal(stacks[env], np.stack(history[-STACK:]))
        assert np.array_equal(stacks, ring.stacks(ring.newest_slots()))
    assert stacks.shape == (num_envs, STACK, *FRAME_SHAPE) and stacks.dtype == np.uint8


@pytest.mark.parametrize(("num_envs", "capacity"), [(1, 24), (3, 74)])
@pytest.mark.parametrize("n_step", [1, 3, 5])
def test_samples_are_the_transitions_that_were_played(num_envs, capacity, n_step):
    recording = Recording(num_envs, capacity, n_step)
    kinds = set()
    for row in range(24 * 6):
        recording.step()
        if row % 9 in (0, 4):
            expected = recording.available()
            if not expected:
                continue
            batch = sample_all(recording.replay, seed=row)
            assert set(batch.slots) == set(expected)
            assert_batch_is_right(batch, expected)
            kinds |= {(ref.discount == 0, ref.steps) for ref in expected.values()}
    # Terminal and bootstrapped ones of every length took part.
    assert kinds == set(itertools.product((True, False), range(1, n_step + 1)))


def test_many_environments():
    recording = Recording(num_envs=64, capacity=64 * 14, n_step=5)
    for _ in range(20):  # n_step * num_envs is more than a byte holds
        recording.step()
    batch = recording.replay.sample(200, 0.4, np.random.default_rng(0))
    assert_batch_is_right(batch, recording.available())


def test_truncation_bootstraps_from_the_final_frame():
    replay = PrioritizedReplay(ReplayConfig(replay_capacity=64), 1, FRAME_SHAPE)
    accumulator = NStepAccumulator(3, GAMMA, 1)
    rng = np.random.default_rng(0)
    frames = rng.integers(256, size=(4, 1, *FRAME_SHAPE), dtype=np.uint8)
    is_first = (True, False, False, True)  # two steps, and a reset
    slots = [
        int(replay.append_frames(frame, np.array([first]))[0])
        for frame, first in zip(frames, is_first, strict=True)
    ]
    completed = accumulator.append(0, slots[0], 1, 1.0, False, False)
    completed += accumulator.append(0, slots[1], 2, 1.0, False, True)
    replay.add(Transitions.of(completed))
    batch = replay.sample(2, 1.0, rng)
    assert batch.slots.tolist() == [0, 1]
    assert batch.discounts == pytest.approx([GAMMA**2, GAMMA])
    final = frames[[0, 0, 1, 2], 0]
    assert np.array_equal(batch.next_obs, np.stack([final, final]))


# priorities


def test_new_transitions_get_the_greatest_priority_so_far():
    replay = filled_replay(priority_exponent=0.5)
    slots = add_row(replay)
    assert priorities_of(replay, slots) == pytest.approx([1.0, 1.0])
    replay.update_priorities(
        slots, np.array([-8.0, 2.0], dtype=np.float32), replay.ring.rows_written
    )
    assert priorities_of(replay, slots) == pytest.approx(np.sqrt([8.0001, 2.0001]))
    assert priorities_of(replay, add_row(replay)) == pytest.approx(np.sqrt([8.0001] * 2))
    replay.update_priorities(slots, np.zeros(2, dtype=np.float32), replay.ring.rows_written)
    assert priorities_of(replay, slots) == pytest.approx(np.sqrt([0.0001] * 2))
    assert priorities_of(replay, add_row(replay)) == pytest.approx(np.sqrt([8.0001] * 2))


@pytest.mark.parametrize("delay", [1, 5, 13, 40])
def test_errors_that_come_late_do_not_revive_what_was_overwritten(delay):
    """From the first sample on, priorities are set `delay` rows after the draw."""
    recording = Recording(num_envs=2, capacity=36, n_step=3)
    replay, rng = recording.replay, np.random.default_rng(0)
    late = passed_over = 0
    for _ in range(60):
        recording.step()
    while recording.rows < 400:
        batch = replay.sample(16, 0.4, rng)
        before = recording.available()
        for _ in range(delay):
            recording.step()
        after = recording.available()
        priorities = priorities_of(replay, np.arange(36))
        replay.update_priorities(batch.slots, np.full(16, 0.5), batch.drawn_at)
        changed = priorities_of(replay, np.arange(36)) != priorities
        for slot in np.unique(batch.slots):
            same = slot in after and np.array_equal(after[slot].obs, before[slot].obs)
            assert changed[slot] <= same
            late += changed[slot]
            passed_over += not same
        assert set(np.flatnonzero(priorities_of(replay, np.arange(36)))) == set(after)
    assert passed_over > 10
    assert late > 3 or delay == 40  # longer than the ring


@pytest.mark.parametrize("exponent", [0.0, 0.6, 1.0])
def test_draws_follow_the_priorities(exponent):
    replay = filled_replay(priority_exponent=exponent)
    rng = np.random.default_rng(0)
    slots = np.unique(sample_all(replay).slots)
    errors = np.where(np.arange(len(slots)) % 4 == 0, 4.0, 0.25)
    replay.update_priorities(slots, errors, replay.ring.rows_written)
    drawn = np.concatenate([replay.sample(64, 1.0, rng).slots for _ in range(100)])
    priorities = (errors + 1e-4) ** exponent
    expected = len(drawn) * priorities / priorities.sum()
    counts = np.bincount(drawn, minlength=slots.max() + 1)[slots]
    assert counts.sum() == len(drawn)
    assert (abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_one_draw_from_each_share_of_the_total():
    replay = filled_replay()
    slots = np.unique(sample_all(replay).slots)
    for seed in range(5):
        batch = replay.sample(len(slots), 1.0, np.random.default_rng(seed))
        assert batch.slots.tolist() == slots.tolist()


@pytest.mark.parametrize("exponent", [0.0, 0.4, 1.0])
def test_importance_weights(exponent):
    replay = filled_replay(priority_exponent=0.7)
    slots = np.unique(sample_all(replay).slots)
    replay.update_priorities(slots, np.linspace(0.0, 3.0, len(slots)), replay.ring.rows_written)
    batch = replay.sample(32, exponent, np.random.default_rng(0))
    priorities = replay.state().priorities
    probabilities = priorities[batch.slots] / priorities.sum()
    weights = (len(slots) * probabilities) ** -exponent
    assert batch.is_weights.dtype == np.float32
    assert batch.is_weights == pytest.approx(weights / weights.max(), rel=1e-6)
    assert batch.is_weights.max() == 1 and batch.is_weights.min() > 0
    assert (batch.is_weights == 1).all() == (exponent == 0)


def test_same_generator_same_sample():
    replay = filled_replay()
    first, second = (replay.sample(16, 0.4, np.random.default_rng(5)) for _ in range(2))
    other = replay.sample(16, 0.4, np.random.default_rng(6))
    assert np.array_equal(first.slots, second.slots)
    assert not np.array_equal(first.slots, other.slots)


# memory


def bytes_of(value: object) -> int:
    if isinstance(value, np.ndarray):
        return value.nbytes
    return sum(map(bytes_of, vars(value).values())) if hasattr(value, "__dict__") else 0


@pytest.mark.parametrize(("capacity", "num_envs"), [(1000, 8), (4099, 4), (8192, 1)])
def test_required_bytes_are_what_the_arrays_take(capacity, num_envs):
    config = ReplayConfig(replay_capacity=capacity)
    actual = bytes_of(PrioritizedReplay(config, num_envs, FRAME_SHAPE))
    assert PrioritizedReplay.required_bytes(config, FRAME_SHAPE) == pytest.approx(actual, rel=0.01)


@pytest.mark.parametrize("capacity", [100_000, 200_000])
def test_a_transition_takes_the_memory_of_one_frame(capacity):
    config = ReplayConfig(replay_capacity=capacity)
    required = PrioritizedReplay.required_bytes(config, (84, 84))
    assert 84 * 84 < required / capacity <= 7200


@pytest.mark.parametrize(("capacity", "num_envs", "rows"), [(64, 8, 8), (71, 8, 8), (10, 1, 10)])
def test_capacity_is_rounded_down_to_whole_rows(capacity, num_envs, rows):
    replay = PrioritizedReplay(ReplayConfig(replay_capacity=capacity), num_envs, FRAME_SHAPE)
    assert replay.ring.num_rows == rows


# frames in the memory of a device


def test_frames_on_a_device_are_the_frames_in_main_memory():
    """A GPU's code path, on the CPU."""
    host = Recording(3, capacity=74, n_step=3)
    device = Recording(3, capacity=74, n_step=3, frames_device=torch.device("cpu"))
    for row in range(24 * 5):
        host.step()
        device.step()
        slots = host.replay.ring.newest_slots()
        assert np.array_equal(
            host.replay.ring.stacks(slots), device.replay.ring.stacks(slots).numpy()
        )
        if row > 10:
            for expected, actual in zip(
                sample_all(host.replay, row), sample_all(device.replay, row), strict=True
            ):
                assert np.array_equal(expected, np.asarray(actual))
    blocks = device.replay.ring.frames_of(device.replay.ring.rows)
    assert all(map(np.array_equal, blocks, host.replay.ring.frames_of(host.replay.ring.rows)))
    config = ReplayConfig(replay_capacity=74)
    restored = PrioritizedReplay(config, 3, FRAME_SHAPE, torch.device("cpu"))
    frames = [(device.replay.ring.rows.start, np.concatenate(blocks))]
    restored.load_state(copy.deepcopy(device.replay.state()), frames)
    for expected, actual in zip(sample_all(host.replay), sample_all(restored), strict=True):
        assert np.array_equal(expected, np.asarray(actual))


# state


@pytest.mark.parametrize("rows", [10, 24, 61])
def test_restored_replay_goes_on_as_the_original(rows):
    recording = Recording(num_envs=2, capacity=48, n_step=3)
    for _ in range(rows):
        recording.step()
    replay = recording.replay
    batch = sample_all(replay)
    replay.update_priorities(batch.slots, np.linspace(-5, 5, len(batch.slots)), batch.drawn_at)
    assert replay.ring.rows == range(max(0, rows - 24), rows)
    middle = replay.ring.rows.start + 7
    older = np.concatenate(replay.ring.frames_of(replay.ring.rows))
    assert older.shape == (len(replay.ring.rows), 2, *FRAME_SHAPE)
    newer = np.concatenate(replay.ring.frames_of(replay.ring.rows[7:]))
    assert np.array_equal(older[7:], newer)
    # The newer block is right where the two overlap.
    blocks = [
        (replay.ring.rows.start, np.concatenate([older[:7], 255 - older[7:9]])),
        (middle, newer),
    ]
    state = copy.deepcopy(replay.state())

    restored = PrioritizedReplay(ReplayConfig(replay_capacity=48), 2, FRAME_SHAPE)
    restored.load_state(state, blocks)
    for expected, actual in zip(sample_all(replay, 9), sample_all(restored, 9), strict=True):
        assert np.array_equal(expected, actual)
    assert np.array_equal(restored.ring.newest_slots(), replay.ring.newest_slots())
    assert restored.ring.rows == replay.ring.rows

    assert restored.state().max_priority == pytest.approx(5.0001)

    recording.replay = restored
    for _ in range(40):
        recording.step()
        batch = restored.sample(64, 0.4, np.random.default_rng(0))
        assert_batch_is_right(batch, recording.available())
