"""How well a policy plays: episodes with a fixed policy, and what they amount to.

The protocol: greedy play with epsilon 0.01, each episode starting after a uniformly drawn 0 to 30
no-op frames (Mnih et al. 2015) at the true start. The game itself is deterministic, so without
both, N episodes would be one sample repeated. Each episode has a random generator of its own, so
that its result does not depend on which environment plays it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mario_rl.config import EVALUATION_EPSILON, FULL_GAME, MAX_NOOP_FRAMES, STACK
from mario_rl.games.episode_start import EpisodeStarts
from mario_rl.games.interface import IDLE, OUTCOMES, Games, Position
from mario_rl.replay.frame_ring import FrameRing


@dataclass
class EpisodeResult:
    """One episode of a fixed policy."""

    position: Position  # its no-op frames and actions, from which it can be played again
    episode_return: float = 0.0
    max_x: int = 0
    world: int = 0
    stage: int = 0
    stages_cleared: int = 0
    game_score: int = 0
    coins: int = 0
    time_left: int = 0
    outcome: str = "running"
    x: list[int] = field(default_factory=list)  # after each decision, pixels
    y: list[int] = field(default_factory=list)

    def observe(self, record: np.ndarray) -> None:
        """Take in the record (RECORD_DTYPE) of one decision."""
        self.episode_return += float(record["reward"])
        for name in ("max_x", "world", "stage", "stages_cleared", "game_score", "coins",
                     "time_left"):  # fmt: skip
            setattr(self, name, int(record[name]))
        self.outcome = OUTCOMES[record["outcome"]]
        self.x.append(int(record["x"]))
        self.y.append(int(record["y"]))

    def is_over(self, max_steps: int | None) -> bool:
        """Whether the game has ended, or is cut off after so many decisions."""
        return self.outcome != "running" or len(self.x) == max_steps


@dataclass(frozen=True)
class _Player:
    """An episode that is being played."""

    number: int
    result: EpisodeResult
    rng: np.random.Generator

    def decide(self, q_values: np.ndarray, epsilon: float) -> int:
        """An epsilon-greedy action, given float32 [num_actions], which is noted in the result."""
        explores = self.rng.random() < epsilon
        random_action = self.rng.integers(len(q_values))
        action = int(random_action if explores else q_values.argmax())
        self.result.position.actions.append(action)
        return action


def play_episodes(
    q_values: Callable[[np.ndarray | torch.Tensor], np.ndarray],
    games: Games,
    episodes: int,
    seed: int,
    *,
    epsilon: float = EVALUATION_EPSILON,
    max_noop_frames: int = MAX_NOOP_FRAMES,
    max_steps: int | None = None,
    first_episode: int = 0,
    on_end: Callable[[int, EpisodeResult], None] = lambda number, result: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[EpisodeResult]:
    """Play episodes, as many at a time as there are games.

    Args:
        q_values: float32 [N, num_actions] of observations, uint8 [N, 4, 84, 84].
        max_steps: cut an episode off after so many decisions; its outcome stays "running".
        first_episode: the number of the first: its random generator is that of `seed` and this.
        on_end: told of each episode, by its number, when it ends or is left unfinished, unless no
            decision was made in it.

    Returns:
        The results in the order of the episodes' numbers. If `should_stop` ends it early these are
        the episodes begun by then, the unfinished with the outcome "running".
    """
    results: list[EpisodeResult] = []
    players: dict[int, _Player] = {}  # by the number of the game
    starts = EpisodeStarts(games.num_envs)
    ring = FrameRing(STACK, games.num_envs)
    while not should_stop():
        commands = np.full(games.num_envs, IDLE)
        deciding = [i for i in sorted(players) if starts.noops_left[i] == 0]
        if deciding:
            q = q_values(ring.stacks(ring.newest_slots()))
            for i in deciding:
                commands[i] = players[i].decide(q[i], epsilon)
        resets = np.zeros(games.num_envs, dtype=np.bool_)
        noop_frames = np.zeros(games.num_envs, dtype=np.int64)
        for i in range(games.num_envs):
            if i not in players and len(results) < episodes:
                player = _new_player(seed, first_episode + len(results), max_noop_frames)
                players[i], resets[i] = player, True
                noop_frames[i] = player.result.position.noop_frames
                results.append(player.result)
        step_frames = starts.command(commands, resets, noop_frames)
        if (commands == IDLE).all():
            return results
        games.step_async(commands, step_frames)
        frames, records = games.step_wait()
        ring.append(frames, commands < 0)
        for i in deciding:
            players[i].result.observe(records[i])
            if players[i].result.is_over(max_steps):
                player = players.pop(i)
                on_end(player.number, player.result)
    for _, player in sorted(players.items()):
        if player.result.x:
            on_end(player.number, player.result)
    return results


def _new_player(seed: int, number: int, max_noop_frames: int) -> _Player:
    rng = np.random.default_rng([seed, number])
    noop_frames = int(rng.integers(max_noop_frames + 1))
    return _Player(number, EpisodeResult(Position(noop_frames, [])), rng)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % confidence interval of a proportion (Wilson 1927)."""
    z = 1.959964
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    margin = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - margin) / scale), min(1.0, (centre + margin) / scale)


def summarize(results: list[EpisodeResult]) -> dict[str, Any]:
    """The figures of an evaluation, as in EvaluationRecord."""
    clears = sum(result.stages_cleared > 0 for result in results)
    low, high = wilson_interval(clears, len(results))
    furthest = max((result.world, result.stage) for result in results)
    return {
        "eval_episodes": len(results),
        "clears": clears,
        "clear_rate": clears / len(results),
        "clear_rate_low": low,
        "clear_rate_high": high,
        "mean_return": float(np.mean([result.episode_return for result in results])),
        "mean_x": float(np.mean([result.max_x for result in results])),
        "max_x": max(result.max_x for result in results),
        "mean_game_score": float(np.mean([result.game_score for result in results])),
        "mean_stages_cleared": float(np.mean([result.stages_cleared for result in results])),
        "furthest_world": furthest[0],
        "furthest_stage": furthest[1],
    }


def cleared(evaluation: dict[str, Any], stage: str) -> str:
    """What a policy clears: in the full game, where a game can clear more than one, stages a game;
    else the share of the games."""
    if stage == FULL_GAME:
        return f"{evaluation['mean_stages_cleared']:.2f} stages a game"
    return f"{evaluation['clear_rate']:.0%} cleared"


def stages_a_game(evaluation: dict[str, Any], stage: str) -> str:
    """In the full game a clause that says how many stages are cleared; else nothing."""
    return f", {cleared(evaluation, stage)}" if stage == FULL_GAME else ""


def brief(evaluation: dict[str, Any], stage: str) -> str:
    """The figures that tell a model from others, such as "clear rate 96%, mean x 3090"."""
    return (
        f"clear rate {evaluation['clear_rate']:.0%}{stages_a_game(evaluation, stage)}, "
        f"mean x {evaluation['mean_x']:.0f}"
    )


def most_stages_cleared(results: list[EpisodeResult]) -> float:
    """How many stages a game the policy may clear by 95 % confidence intervals: the sum, over k, of
    the upper ends of those of the share of games that clear at least k. On a single stage that is
    the upper end of the clear rate's."""
    cleared = [result.stages_cleared for result in results]
    counts = (sum(stages >= k for stages in cleared) for k in range(1, max(cleared) + 1))
    return sum(wilson_interval(count, len(results))[1] for count in counts)


def rank(evaluation: dict[str, Any]) -> tuple[float, float]:
    """What policies are ordered by: the stages they clear in a game, which on a single stage is the
    clear rate, then mean x."""
    return evaluation["mean_stages_cleared"], evaluation["mean_x"]
