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

from mario_rl.config import EVALUATION_EPSILON, FRAME_SHAPE, FULL_GAME, MAX_NOOP_FRAMES, STACK
from mario_rl.games.mario_game import FRAME_SKIP, OUTCOMES
from mario_rl.games.workers import IDLE, NOOP, RESET, Envs, Position


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


@dataclass
class _Player:
    """An episode that is being played."""

    number: int
    result: EpisodeResult
    rng: np.random.Generator
    noops_left: int  # emulated frames before the first decision


class FrameStacks:
    """The observations of N games, uint8 [N, 4, 84, 84], oldest frame first."""

    def __init__(self, num_envs: int) -> None:
        self.obs = np.zeros((num_envs, STACK, *FRAME_SHAPE), dtype=np.uint8)

    def append(self, frames: np.ndarray, is_first: np.ndarray) -> None:
        """Add frames, uint8 [N, 84, 84]; where an episode begins, its first fills the stack."""
        self.obs[:, :-1] = self.obs[:, 1:]
        self.obs[:, -1] = frames
        self.obs[is_first] = frames[is_first][:, None]


def play_episodes(
    q_values: Callable[[np.ndarray], np.ndarray],
    envs: Envs,
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
    """Play episodes, as many at a time as there are environments.

    Args:
        q_values: float32 [N, num_actions] of observations, uint8 [N, 4, 84, 84].
        max_steps: cut an episode off after so many decisions; its outcome stays "running".
        first_episode: the number of the first: its random generator is that of `seed` and this.
        on_end: told of each episode, by its number, when it ends or is left unfinished, but for
            those without a decision.

    Returns:
        The results in the order of the episodes' numbers. If `should_stop` ends it early these are
        the episodes begun by then, the unfinished with the outcome "running".
    """
    results: list[EpisodeResult] = []
    players: list[_Player | None] = [None] * envs.num_envs
    stacks = FrameStacks(envs.num_envs)
    commands = np.full(envs.num_envs, IDLE)
    arguments = np.zeros(envs.num_envs, dtype=np.int32)
    while not should_stop():
        q = q_values(stacks.obs)
        for i, player in enumerate(players):
            commands[i] = IDLE
            if player is None and len(results) < episodes:
                number = first_episode + len(results)
                rng = np.random.default_rng([seed, number])
                noop_frames = int(rng.integers(max_noop_frames + 1))
                results.append(EpisodeResult(Position(noop_frames, [])))
                players[i] = _Player(number, results[-1], rng, noop_frames)
                commands[i] = RESET
            elif player is not None and player.noops_left > 0:
                commands[i], arguments[i] = NOOP, min(player.noops_left, FRAME_SKIP)
                player.noops_left -= int(arguments[i])
            elif player is not None:
                explore = player.rng.random() < epsilon
                random_action = player.rng.integers(q.shape[1])
                commands[i] = random_action if explore else q[i].argmax()
                player.result.position.actions.append(int(commands[i]))
        if (commands == IDLE).all():
            return results
        envs.step_async(commands, arguments)
        frames, records = envs.step_wait()
        stacks.append(frames, (commands == RESET) | (commands == NOOP))
        for i in np.flatnonzero(commands >= 0):
            player = players[i]
            assert player is not None
            player.result.observe(records[i])
            if player.result.is_over(max_steps):
                players[i] = None
                on_end(player.number, player.result)
    for player in players:
        if player is not None and player.result.x:
            on_end(player.number, player.result)
    return results


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
