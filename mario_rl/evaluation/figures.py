"""How well a policy plays: the figures of its episodes, and which of two policies is better."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mario_rl.config import FULL_GAME
from mario_rl.fields import Count, Hours, Positive, Share
from mario_rl.games.interface import Episode


@dataclass(frozen=True)
class Evaluation:
    """The figures of one evaluation, and how far the policy had been trained."""

    env_steps: Count
    updates: Count
    episodes: Count  # of training
    hours: Hours  # of training
    eval_episodes: Count
    clears: Count  # episodes that cleared a stage
    clear_rate: Share
    clear_rate_low: Share  # Wilson 95 % interval
    clear_rate_high: Share
    mean_return: float
    mean_x: Positive  # pixels
    max_x: Count  # pixels
    mean_game_score: Positive
    mean_stages_cleared: Positive
    furthest_world: Count
    furthest_stage: Count

    @property
    def rank(self) -> tuple[float, float]:
        """What policies are ordered by: stages cleared in a game, which on a single stage is the
        clear rate, then mean x."""
        return self.mean_stages_cleared, self.mean_x

    def cleared(self, stage: str) -> str:
        """What is cleared: stages a game in the full game, else the share of the games."""
        if stage == FULL_GAME:
            return f"{self.mean_stages_cleared:.2f} stages a game"
        return f"{self.clear_rate:.0%} cleared"

    def stages_a_game(self, stage: str) -> str:
        """In the full game a clause that says how many stages are cleared; else nothing."""
        return f", {self.cleared(stage)}" if stage == FULL_GAME else ""

    def brief(self, stage: str) -> str:
        """The main figures, such as "clear rate 96%, mean x 3090"."""
        return (
            f"clear rate {self.clear_rate:.0%}{self.stages_a_game(stage)}, mean x {self.mean_x:.0f}"
        )

    def interval(self) -> str:
        """The interval of the clear rate, such as "90% to 98%"."""
        return f"{self.clear_rate_low:.0%} to {self.clear_rate_high:.0%}"

    def describe(self, stage: str) -> str:
        """All figures in one line."""
        return (
            f"cleared {self.clears} of {self.eval_episodes} ({self.clear_rate:.0%}, "
            f"95 % interval {self.interval()}){self.stages_a_game(stage)}, "
            f"mean return {self.mean_return:.1f}, mean x {self.mean_x:.0f}, "
            f"max x {self.max_x}, mean score {self.mean_game_score:.0f}"
        )


def summarize(
    played: Sequence[Episode], *, env_steps: int, updates: int, episodes: int, hours: float
) -> Evaluation:
    """The figures of one or more episodes of a policy, and how long it was trained."""
    clears = sum(result.stages_cleared > 0 for result in played)
    low, high = wilson_interval(clears, len(played))
    furthest = max((result.world, result.stage) for result in played)
    return Evaluation(
        env_steps=env_steps,
        updates=updates,
        episodes=episodes,
        hours=hours,
        eval_episodes=len(played),
        clears=clears,
        clear_rate=clears / len(played),
        clear_rate_low=low,
        clear_rate_high=high,
        mean_return=float(np.mean([result.episode_return for result in played])),
        mean_x=float(np.mean([result.max_x for result in played])),
        max_x=max(result.max_x for result in played),
        mean_game_score=float(np.mean([result.game_score for result in played])),
        mean_stages_cleared=float(np.mean([result.stages_cleared for result in played])),
        furthest_world=furthest[0],
        furthest_stage=furthest[1],
    )


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % confidence interval of a proportion (Wilson 1927)."""
    z = 1.959964
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    margin = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    # With no success or no failure rounding would miss the end by 1e-18, on either side.
    low = (centre - margin) / scale if successes > 0 else 0.0
    high = (centre + margin) / scale if successes < trials else 1.0
    return low, high


def most_stages_cleared(played: Sequence[Episode]) -> float:
    """How many stages a game the policy may clear, by 95 % confidence intervals.

    The sum over k of the upper end of the interval of the share of games that clear at least k
    stages. On a single stage that is the upper end of the clear rate's interval.
    """
    cleared = [result.stages_cleared for result in played]
    counts = (sum(stages >= k for stages in cleared) for k in range(1, max(cleared) + 1))
    return sum(wilson_interval(count, len(played))[1] for count in counts)
