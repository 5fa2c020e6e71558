"""Games that begin along a demonstration.

A game follows a demonstration from the start of the stage for a random number of decisions; from
there on the policy plays. So it practises everywhere along the way, long before it could get there
(jump-start RL, Uchendu et al. 2023; Salimans & Chen 2018 begin at its states). What is
demonstrated goes into the replay like all else.

Deviations from Uchendu et al.: 1. the number of decisions is drawn uniformly all along, without a
curriculum; 2. the other games never follow.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from mario_rl.config import Config
from mario_rl.console import warn
from mario_rl.errors import UserError
from mario_rl.fields import Array, Items
from mario_rl.games.interface import CLEAR, OUTCOMES, RUNNING, STALL, Position
from mario_rl.games.mario_game import MarioGame
from mario_rl.storage.demonstration import Demonstration

Decisions = Annotated[np.ndarray, Array("uint8", "any", "[0, num_actions)")]

# A demonstration that does not lead to the flag is followed until this long before its end: 4 s.
_BEFORE_THE_END_STEPS = 60


@dataclass(frozen=True)
class GuideState:
    """What the future of the games depends on, as it is in checkpoints."""

    demonstrations: Annotated[list[Decisions], Items("[1, 10000]")]
    # Which one each game follows, and how many of its decisions
    followed: Annotated[np.ndarray, Array("int64", "num_envs", "[0, inf)")]
    steps: Annotated[np.ndarray, Array("int64", "num_envs", "[0, inf)")]

    def check(self) -> None:
        """
        Raises:
            ValueError: names a field that does not fit the others.
        """
        lengths = np.array([len(one) for one in self.demonstrations])
        if (self.followed >= len(lengths)).any():
            raise ValueError(f"followed names more than {len(lengths)} demonstrations")
        if (self.steps > lengths[self.followed]).any():
            raise ValueError("steps are more than those of a demonstration")


class Guide:
    """Demonstrations, and how far each of the first games follows one."""

    def __init__(
        self,
        demonstrations: list[np.ndarray],
        num_envs: int,
        num_led: int,
        rng: np.random.Generator,
    ) -> None:
        """
        Args:
            demonstrations: of each the actions, uint8 [steps]; at least one.
            num_led: how many of the games follow.
        """
        self._demonstrations = demonstrations
        self._num_led = num_led
        self._rng = rng
        self._followed = np.zeros(num_envs, dtype=np.int64)
        self._steps = np.zeros(num_envs, dtype=np.int64)

    def begin(self, resets: np.ndarray) -> np.ndarray:
        """Draw what games follow after their reset, and how far.

        Args:
            resets: bool [N], the games that are reset now.

        Returns:
            Those that follow, int64 [M]. They need a start without no-op frames.
        """
        led = np.flatnonzero(resets[: self._num_led])
        for game in led:
            self._followed[game] = self._rng.integers(len(self._demonstrations))
            length = len(self._demonstrations[self._followed[game]])
            self._steps[game] = self._rng.integers(length + 1)
        return led

    def lead(self, commands: np.ndarray, positions: Sequence[Position]) -> None:
        """Put what is demonstrated in place of the actions among the commands, int [N].

        Args:
            positions: where the games stand now.
        """
        for game in np.flatnonzero(commands[: self._num_led] >= 0):
            step = len(positions[game].actions)
            if step < self._steps[game]:
                commands[game] = self._demonstrations[self._followed[game]][step]

    def state(self) -> GuideState:
        return GuideState(self._demonstrations, self._followed, self._steps)

    def load_state(self, state: GuideState) -> None:
        self._followed[:] = state.followed
        self._steps[:] = state.steps


def read_demonstrations(config: Config) -> list[np.ndarray] | None:
    """The demonstrations that the config names, as decisions, uint8 [steps], as far as they lead.

    Raises:
        UserError: if one cannot be read, is one of another stage, or leads nowhere.
    """
    if config.exploration.demos == "none":
        return None
    return [_decisions(Path(name.strip()), config) for name in config.exploration.demos.split(",")]


def _decisions(path: Path, config: Config) -> np.ndarray:
    demonstration = Demonstration.read(path)
    if demonstration.stage != config.env.stage:
        raise UserError(
            f"--demos {path}: a demonstration of stage {demonstration.stage}, and the run plays "
            f"{config.env.stage}"
        )
    decisions = demonstration.decisions(config.env.action_set)
    steps = 0
    with closing(MarioGame(config.env)) as game:
        _, status = game.reset()
        for action in decisions.tolist():
            steps += 1
            _, _, terminated, truncated, status = game.step(action)
            if terminated or truncated:
                break
    if status.outcome == CLEAR:
        return decisions[: steps - 1]
    usable = max(0, steps - _BEFORE_THE_END_STEPS)
    end = f"a {OUTCOMES[status.outcome]}" if status.outcome != RUNNING else "its end"
    hint = " (--stall-steps)" if status.outcome == STALL else ""
    leads = (
        f"--demos {path}: in these actions, each held for 4 frames, it leads to {end}{hint} at "
        f"x={status.max_x} of {demonstration.max_x}"
    )
    if not usable:
        raise UserError(f"{leads} after {steps} decisions, too few to be followed")
    warn(f"{leads}; followed for at most {usable} decisions")
    return decisions[:usable]
