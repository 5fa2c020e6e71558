"""What every exploration scheme provides."""

from typing import Any, Protocol

import numpy as np

from mario_rl.config import Config
from mario_rl.errors import first_line
from mario_rl.games.actions import action_names
from mario_rl.registry import EXPLORATIONS
from mario_rl.storage.plain import check_numbers


class Exploration(Protocol):
    """Chooses the actions of N training games.

    It is built as `Scheme(config: ExplorationConfig, seed: np.random.SeedSequence)`.
    """

    rng: np.random.Generator  # for everything random in the training games

    def epsilon(self, env_steps: int) -> float:
        """How much is explored, 0 to 1, in the game that explores most. It is only recorded."""

    def epsilons(self, env_steps: int) -> np.ndarray:
        """The same for each game, float64 [N]."""

    def choose(self, q_values: np.ndarray, env_steps: int, is_first: np.ndarray) -> np.ndarray:
        """Actions, int64 [N].

        Args:
            q_values: float32 [N, num_actions].
            is_first: bool [N], whether an episode begins.
        """

    def state(self) -> dict[str, Any]:
        """Everything that its future depends on except its config, as arrays and plain values."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over a state, which may come from anywhere. If it does not fit, raise an error."""


def check_exploration(config: Config, state: dict[str, Any]) -> None:
    """Find out whether the scheme of this config takes over the state, and chooses actions that
    there are.

    Raises:
        ValueError: names the field that does not fit, if the scheme does.
    """
    num_envs, num_actions = config.exploration.num_envs, len(action_names(config.env.action_set))
    scheme = EXPLORATIONS.get(config.exploration.exploration)
    exploration: Exploration = scheme(config.exploration, np.random.SeedSequence(0))
    try:
        exploration.load_state(state)
        none = np.zeros(num_envs, dtype=np.bool_)
        actions = exploration.choose(np.zeros((num_envs, num_actions), np.float32), 0, none)
        check_numbers(actions, f"[0, {num_actions})", "actions")
    except Exception as error:  # what a scheme raises is its own affair
        raise ValueError(first_line(error)) from None
