"""An exploration scheme: actions are drawn in proportion to exp(Q / temperature)."""

from typing import Any

import numpy as np

from mario_rl.agent.schedules import linear
from mario_rl.config import ExplorationConfig


class Boltzmann:
    """Softmax exploration (Sutton & Barto 2018, section 2.8). Epsilon's flags are the schedule of
    the temperature."""

    def __init__(self, config: ExplorationConfig, seed: np.random.SeedSequence) -> None:
        self._config = config
        self.rng = np.random.default_rng(seed)

    def epsilon(self, env_steps: int) -> float:
        config = self._config
        return linear(config.eps_start, config.eps_end, config.eps_decay, env_steps)

    def epsilons(self, env_steps: int) -> np.ndarray:
        return np.full(self._config.num_envs, self.epsilon(env_steps))

    def choose(self, q_values: np.ndarray, env_steps: int, is_first: np.ndarray) -> np.ndarray:
        # The greatest of Q / temperature + Gumbel noise has just these probabilities.
        noise = self.rng.gumbel(size=q_values.shape)
        temperature = max(self.epsilon(env_steps), 1e-6)
        return (q_values / temperature + noise).argmax(axis=1)

    def state(self) -> dict[str, Any]:
        return {"rng": self.rng.bit_generator.state}

    def load_state(self, state: dict[str, Any]) -> None:
        self.rng.bit_generator.state = state["rng"]
