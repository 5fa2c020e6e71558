"""Epsilon-greedy exploration: now and then a random action, held for a while.

Epsilon falls linearly (Mnih et al. 2015). Each game has its own epsilon, a rung of a ladder (Horgan
et al. 2018) that ends at the epsilon of evaluations. A random action is held for a number of
decisions that is drawn from a Zipf distribution (epsilon-z-greedy, Dabney et al. 2021): jumping
over a high pipe takes A held for several decisions. Deviation: that number is at most 32.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from mario_rl.agent.schedules import linear
from mario_rl.config import EVALUATION_EPSILON, ExplorationConfig
from mario_rl.fields import Array
from mario_rl.storage.generator_state import GeneratorState
from mario_rl.storage.plain import from_plain, to_plain

_ZIPF_EXPONENT = 2.0
_MAX_HOLD_STEPS = 32


@dataclass(frozen=True)
class EpsilonGreedyState:
    """What the future of N games depends on."""

    rng: GeneratorState
    actions: Annotated[np.ndarray, Array("int64", "num_envs", "[0, inf)")]
    # Of holding the action
    steps_left: Annotated[np.ndarray, Array("int64", "num_envs", f"[0, {_MAX_HOLD_STEPS}]")]


class EpsilonGreedy:
    """The `Exploration` of N games."""

    def __init__(self, config: ExplorationConfig, seed: np.random.SeedSequence) -> None:
        self._config = config
        self.rng = np.random.default_rng(seed)
        self._actions = np.zeros(config.num_envs, dtype=np.int64)
        self._steps_left = np.zeros(config.num_envs, dtype=np.int64)  # of holding the action

    def epsilon(self, env_steps: int) -> float:
        """The probability that a random action begins, in the game that explores most."""
        config = self._config
        return linear(config.eps_start, config.eps_end, config.eps_decay, env_steps)

    def epsilons(self, env_steps: int) -> np.ndarray:
        """The epsilon of each game i, float64 [N]: epsilon ** (1 + ladder * i / (N - 1)), but at
        least that of evaluations, or epsilon if that is less."""
        rungs = np.linspace(0, 1, self._config.num_envs)
        epsilon = self.epsilon(env_steps)
        ladder = epsilon ** (1 + self._config.eps_ladder * rungs)
        return np.maximum(ladder, min(epsilon, EVALUATION_EPSILON))

    def choose(self, q_values: np.ndarray, env_steps: int, is_first: np.ndarray) -> np.ndarray:
        """Epsilon-greedy actions, int64 [N].

        Args:
            q_values: float32 [N, num_actions].
            is_first: bool [N], whether an episode begins; then no action is held any longer.
        """
        num_envs, num_actions = q_values.shape
        self._steps_left[is_first] = 0
        begins = self.rng.random(num_envs) < self.epsilons(env_steps)
        begins &= self._steps_left == 0
        actions = self.rng.integers(num_actions, size=num_envs)
        steps = np.minimum(self.rng.zipf(_ZIPF_EXPONENT, num_envs), _MAX_HOLD_STEPS)
        self._actions = np.where(begins, actions, self._actions)
        if not self._config.hold_actions:
            steps[:] = 1
        self._steps_left = np.where(begins, steps, self._steps_left)
        explores = self._steps_left > 0
        self._steps_left -= explores
        return np.where(explores, self._actions, q_values.argmax(axis=1))

    def state(self) -> dict[str, Any]:
        rng = GeneratorState.of(self.rng)
        return to_plain(EpsilonGreedyState(rng, self._actions, self._steps_left))

    def load_state(self, state: dict[str, Any]) -> None:
        sizes = {"num_envs": self._config.num_envs}
        loaded: EpsilonGreedyState = from_plain(EpsilonGreedyState, state, sizes=sizes)
        loaded.rng.restore(self.rng)
        self._actions[:] = loaded.actions
        self._steps_left[:] = loaded.steps_left
