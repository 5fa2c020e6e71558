"""What a decision is worth."""

from dataclasses import dataclass
from typing import Protocol

from mario_rl.config import EnvConfig
from mario_rl.games.interface import DEATH, FRAME_SKIP, TIME_UP, Status

# In units of ten pixels, about what Mario runs in one decision
PROGRESS_REWARD_PER_PX = 0.1
MAX_PROGRESS_PX = 5 * FRAME_SKIP  # more is a pipe or a change of area, not running
STEP_REWARD = -0.05
CLEAR_REWARD = 5.0


@dataclass(frozen=True)
class Decision:
    """What happened in one decision."""

    before: Status
    after: Status
    sees_warp_zone: bool  # whether the screen has reached a Warp Zone; max_x does not grow there

    @property
    def clears_stage(self) -> bool:
        return self.after.stages_cleared > self.before.stages_cleared

    @property
    def dies(self) -> bool:
        return self.after.outcome in (DEATH, TIME_UP)


class Reward(Protocol):
    """Made from the config by its name, as `REWARDS.get(config.reward)(config)`.

    It depends only on the decision, so that a game that is played again earns the same.
    """

    def __call__(self, decision: Decision) -> float: ...


class Progress:
    """In units of ten pixels: the new furthest x in this stage (at most 20 pixels), -0.05 for the
    time, +5 for each stage cleared and `-config.death_penalty` for death.

    Only a new furthest x pays, so walking back and forth earns nothing. A Warp Zone earns nothing
    either: it lies beyond the way to the flag.
    """

    def __init__(self, config: EnvConfig) -> None:
        self._death_penalty = config.death_penalty

    def __call__(self, decision: Decision) -> float:
        if decision.clears_stage:
            return STEP_REWARD + CLEAR_REWARD
        if decision.dies:
            return STEP_REWARD - self._death_penalty
        progress = decision.after.max_x - decision.before.max_x
        return STEP_REWARD + PROGRESS_REWARD_PER_PX * min(progress, MAX_PROGRESS_PX)
