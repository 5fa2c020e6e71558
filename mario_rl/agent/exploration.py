"""What every exploration scheme provides."""

from typing import Any, Protocol

import numpy as np


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
        """Take over a state."""
