"""Playing episodes with a fixed policy, and the figures made of them."""

import math
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import pytest

from mario_rl.config import STACK
from mario_rl.evaluation.figures import (
    Evaluation,
    most_stages_cleared,
    summarize,
    wilson_interval,
)
from mario_rl.evaluation.play import PlayedEpisode, play_episodes
from mario_rl.games.interface import (
    CLEAR,
    DEATH,
    OUTCOMES,
    RUNNING,
    STALL,
    Episode,
    Position,
    Status,
)
from mario_rl.games.serial import SerialGames
from mario_rl.storage.plain import from_plain

NUM_ACTIONS = 3
FRAME_SHAPE = 8, 6


class Walk:
    """Action a moves by a pixels; where and how it ends depends on the no-op frames."""

    frame_shape = FRAME_SHAPE

    def __init__(self) -> None:
        self.resets: list[int] = []  # the no-op frames of each
        self.over = True

    def reset(self, noop_frames: int = 0) -> tuple[np.ndarray, Status]:
        self.resets.append(0)
        self.over = False
        self._x = self._steps = 0
        return self.noop(noop_frames)

    def noop(self, frames: int) -> tuple[np.ndarray, Status]:
        assert self._steps == 0, "no-op frames after a decision"
        self.resets[-1] += frames
        self._x = self._start = self.resets[-1]
        self._goal = 4 + self._x % 5
        return self._frame(), self._status(RUNNING)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, Status]:
        assert not self.over, "a step after the end"
        assert 0 <= action < NUM_ACTIONS
        self._steps += 1
        self._x += int(action)
        outcome = RUNNING
        if self._x - self._start >= self._goal:
            outcome = CLEAR if self._x % 2 else DEATH
        elif self._steps == 9:
            outcome = STALL
        self.over = outcome != RUNNING
        terminated, truncated = outcome in (CLEAR, DEATH), outcome == STALL
        return self._frame(), action / 4, terminated, truncated, self._status(outcome)

    def close(self) -> None:
        pass

    def _frame(self) -> np.ndarray:
        frame = np.zeros(FRAME_SHAPE, dtype=np.uint8)
        frame[0, 0] = (self._x * 29 + self._steps * 3) % 256
        return frame

    def _status(self, outcome: int) -> Status:
        return Status(
            x=self._x, y=2 * self._x, max_x=self._x, world=2, stage=3,
            stages_cleared=int(outcome == CLEAR), game_score=10 * self._steps, coins=5,
            time_left=400 - self._steps, outcome=outcome, saved=False,
        )  # fmt: skip


def policy(obs: np.ndarray) -> np.ndarray:
    """Depends on all four frames."""
    assert obs.shape[1:] == (STACK, *FRAME_SHAPE) and obs.dtype == np.uint8
    pixels = obs[:, :, 0, 0].astype(np.float64) @ np.array([1.0, 3.0, 5.0, 7.0])
    return np.cos(pixels[:, None] + 2.0 * np.arange(NUM_ACTIONS)).astype(np.float32)


def play(
    episodes: int, num_envs: int = 2, seed: int = 0, **options: Any
) -> tuple[list[PlayedEpisode], list[Walk]]:
    games = [Walk() for _ in range(num_envs)]
    results = play_episodes(policy, SerialGames.of(games), episodes, seed, **options)
    return results, games


def play_by_hand(noop_frames: int, actions: list[int] | None = None) -> PlayedEpisode:
    """One episode with the given actions, or else the greedy ones."""
    game, episode_return = Walk(), 0.0
    frame, _ = game.reset(noop_frames)
    frames, taken, statuses = [frame] * STACK, [], []
    while not game.over:
        if actions is None:
            action = int(policy(np.stack(frames[-STACK:])[None])[0].argmax())
        else:
            action = actions[len(taken)]
        frame, reward, _, _, status = game.step(action)
        frames.append(frame)
        taken.append(action)
        statuses.append(status)
        episode_return += reward
    last = statuses[-1]._asdict()
    figures = {item.name: last[item.name] for item in fields(Episode) if item.name in last}
    figures["outcome"] = OUTCOMES[last["outcome"]]
    return PlayedEpisode(
        Episode(episode_return=episode_return, length_steps=len(taken), **figures),
        Position(noop_frames, taken),
        [status.x for status in statuses],
        [status.y for status in statuses],
    )


# playing


@pytest.mark.parametrize("num_envs", [1, 2, 5, 12])
def test_results_do_not_depend_on_the_number_of_environments(num_envs):
    expected, _ = play(9, num_envs=3, epsilon=0.3)
    results, games = play(9, num_envs, epsilon=0.3)
    assert results == expected
    assert sum(len(game.resets) for game in games) == 9
    assert len({result.episode.outcome for result in results}) > 1
    assert len({len(result.x) for result in results}) > 1  # they end out of order


def test_episodes_can_be_played_on():
    expected, _ = play(9, epsilon=0.3)
    results, _ = play(4, epsilon=0.3, first_episode=5)
    assert results == expected[5:]


def test_results_are_what_the_games_did():
    results, _ = play(9, epsilon=0.3)
    for result in results:
        assert result == play_by_hand(*result.position[:2])
        assert (result.episode.world, result.episode.stage) == (2, 3)
        assert result.episode.coins == 5


def test_greedy_play_takes_the_best_action_of_the_frames_it_saw():
    results, _ = play(9, epsilon=0.0)
    for result in results:
        assert result == play_by_hand(result.position.noop_frames)


def test_always_exploring_takes_every_action():
    results, _ = play(30, epsilon=1.0)
    actions = np.concatenate([result.position.actions for result in results])
    shares = np.bincount(actions, minlength=NUM_ACTIONS) / len(actions)
    assert shares == pytest.approx([1 / 3] * 3, abs=0.12)


def test_little_exploration_is_mostly_greedy():
    wait = np.array([1.0, 0.0, 0.0], dtype=np.float32)
    games = [Walk() for _ in range(4)]
    results = play_episodes(
        lambda obs: np.tile(wait, (len(obs), 1)), SerialGames.of(games), 100, 0, epsilon=0.1
    )
    actions = np.concatenate([result.position.actions for result in results])
    assert (actions != 0).mean() == pytest.approx(0.1 * 2 / 3, abs=0.03)


def test_noop_frames_are_drawn_from_the_range_and_passed_on():
    results, games = play(300, num_envs=5, max_noop_frames=3)
    drawn = [result.position.noop_frames for result in results]
    assert set(drawn) == {0, 1, 2, 3}
    assert np.bincount(drawn) == pytest.approx([75] * 4, abs=30)
    assert sorted(noop for game in games for noop in game.resets) == sorted(drawn)


def test_noop_frames_by_default_and_none():
    results, _ = play(300, num_envs=5)
    drawn = {result.position.noop_frames for result in results}
    assert (min(drawn), max(drawn)) == (0, 30)
    results, games = play(5, max_noop_frames=0)
    assert [result.position.noop_frames for result in results] == [0] * 5
    assert {noop for game in games for noop in game.resets} == {0}


def test_episodes_differ_and_seeds_too():
    first, again, other = (play(12, seed=seed, epsilon=0.2)[0] for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len({(r.position.noop_frames, tuple(r.position.actions)) for r in first}) > 6


def test_more_episodes_begin_with_the_same_ones():
    assert play(12, epsilon=0.2)[0][:5] == play(5, num_envs=3, epsilon=0.2)[0]


@pytest.mark.parametrize("max_steps", [1, 3])
def test_max_steps_cuts_episodes_off(max_steps):
    whole, _ = play(8, epsilon=0.2)
    cut, _ = play(8, num_envs=3, epsilon=0.2, max_steps=max_steps)
    assert len(cut) == 8
    for result, full in zip(cut, whole, strict=True):
        assert result.position.actions == full.position.actions[:max_steps]
        assert result.x == full.x[:max_steps]
        ended = len(full.x) <= max_steps
        assert result.episode.outcome == (full.episode.outcome if ended else "running")
    assert any(result.episode.outcome == "running" for result in cut)


def stop_after(calls: int) -> Callable[[], bool]:
    left = iter(range(calls))
    return lambda: next(left, None) is None


def test_should_stop_ends_play_with_the_episodes_begun():
    whole, _ = play(9)
    assert play(9, should_stop=lambda: True)[0] == []
    told: dict[int, PlayedEpisode] = {}
    stopped, games = play(9, should_stop=stop_after(20), on_end=told.__setitem__)
    assert 0 < len(stopped) < 9
    assert all(result.x for result in stopped), "a game without a decision is no episode"
    assert len(stopped) <= sum(len(game.resets) for game in games)
    assert {"running"} < {result.episode.outcome for result in stopped}
    for result, full in zip(stopped, whole, strict=False):
        assert result.x == full.x[: len(result.x)]
        if result.episode.outcome != "running":
            assert result == full
    assert told == dict(enumerate(stopped))


def test_episodes_are_told_of_when_they_end():
    told: list[tuple[int, str, int]] = []
    results, _ = play(
        9,
        num_envs=5,
        epsilon=0.3,
        first_episode=5,
        on_end=lambda number, result: told.append((number, result.episode.outcome, len(result.x))),
    )
    assert sorted(told) == [(i + 5, r.episode.outcome, len(r.x)) for i, r in enumerate(results)]
    assert told != sorted(told), "in the order in which they end"


def test_more_environments_than_episodes():
    results, games = play(2, num_envs=5)
    assert len(results) == 2
    assert [len(game.resets) for game in games] == [1, 1, 0, 0, 0]


# figures


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (96, 100, 0.9016, 0.9843),
        (50, 100, 0.4038, 0.5962),
        (0, 20, 0.0, 0.1611),
        (20, 20, 0.8389, 1.0),
        (1, 1, 0.2065, 1.0),
        (5, 10, 0.2366, 0.7634),
    ],
)
def test_wilson_interval(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_stays_within_0_and_1_and_holds_the_rate():
    for trials in range(1, 10_001):
        assert wilson_interval(0, trials)[0] == 0.0 and wilson_interval(trials, trials)[1] == 1.0
        for successes in {0, 1, trials // 2, trials - 1, trials}:
            low, high = wilson_interval(successes, trials)
            assert 0 <= low <= successes / trials <= high <= 1
            assert low < high


def test_most_stages_cleared_counts_every_stage_of_a_game():
    def most(*stages_cleared: int) -> float:
        return most_stages_cleared([result_of(0, stages_cleared=n) for n in stages_cleared])

    assert most(0, 0, 0, 0) == 0
    assert most(0, 1, 1, 0) == wilson_interval(2, 4)[1]
    assert most(0, 1, 3, 0) == sum(wilson_interval(count, 4)[1] for count in (2, 1, 1))


def result_of(
    max_x: int, world: int = 1, stage: int = 1, stages_cleared: int = 0, **values: Any
) -> Episode:
    zeros = {item.name: 0 for item in fields(Episode)}
    return Episode(
        **{**zeros, "outcome": "death", "max_x": max_x, "world": world, "stage": stage,
           "stages_cleared": stages_cleared, **values}
    )  # fmt: skip


def summary_of(episodes: list[Episode]) -> Evaluation:
    return summarize(episodes, env_steps=7, updates=6, episodes=5, hours=0.5)


def test_summary():
    results = [
        result_of(3000, world=1, stage=2, stages_cleared=1, episode_return=10.0, game_score=400),
        result_of(100, world=2, stage=1, stages_cleared=4, episode_return=-1.0, game_score=1000),
        result_of(800, world=1, stage=4, episode_return=3.0, game_score=100),
        result_of(500, episode_return=0.5),
    ]
    low, high = wilson_interval(2, 4)
    evaluation = asdict(summary_of(results))
    assert evaluation == {
        "env_steps": 7,
        "updates": 6,
        "episodes": 5,
        "hours": 0.5,
        "eval_episodes": 4,
        "clears": 2,  # episodes, not stages
        "clear_rate": 0.5,
        "clear_rate_low": low,
        "clear_rate_high": high,
        "mean_return": 3.125,
        "mean_x": 1100.0,
        "max_x": 3000,
        "mean_game_score": 375.0,
        "mean_stages_cleared": 1.25,
        "furthest_world": 2,  # of one episode, not the greatest of each
        "furthest_stage": 1,
    }
    assert all(type(value) in (int, float) for value in evaluation.values())


def test_rank_puts_stages_before_x_and_does_not_care_in_how_many_games_they_are_cleared():
    names = ("clear_rate", "mean_stages_cleared", "mean_x")
    worst_first = [
        (0.0, 0.0, 3000.0),
        (0.1, 0.1, 200.0),
        (0.1, 0.1, 300.0),
        (1.0, 1.0, 400.0),
        (0.8, 1.2, 0.0),
    ]
    start = summary_of([result_of(0)])
    evaluations = [
        replace(start, **dict(zip(names, values, strict=True))) for values in worst_first
    ]
    assert sorted(evaluations[::-1], key=lambda evaluation: evaluation.rank) == evaluations
    assert not any(math.isnan(value) for value in evaluations[0].rank)


def test_an_evaluation_describes_itself():
    evaluation = summary_of(
        [result_of(300, stages_cleared=2, episode_return=4.0, game_score=100), result_of(100)]
    )
    assert evaluation.describe("1-1") == (
        "cleared 1 of 2 (50%, 95 % interval 9% to 91%), mean return 2.0, mean x 200, max x 300, "
        "mean score 50"
    )
    assert evaluation.brief("1-1") == "clear rate 50%, mean x 200"
    assert evaluation.brief("full") == "clear rate 50%, 1.00 stages a game, mean x 200"
    assert (evaluation.cleared("1-1"), evaluation.cleared("full")) == (
        "50% cleared", "1.00 stages a game"
    )  # fmt: skip
    assert from_plain(Evaluation, asdict(evaluation)) == evaluation
