# mypy: disable-error-code="import-not-found,misc"
"""Stable-Baselines3's DQN, set up to do the same work as ours: the contender of `training`.

The games are wrapped as usual (`stock_wrappers`), frames are stacked by VecFrameStack as its
documentation has it for Atari, the network is ours. What it lacks, it is spared: prioritized
replay and double DQN. Its returns are one step long, since its n-step replay does not allow
`optimize_memory_usage`.
"""

import time
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import SubprocVecEnv, VecFrameStack
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork
from torch import nn

from benchmarks.harness import Turns
from benchmarks.stock_wrappers import NUM_ACTIONS, SIZE, STACK, Grey84, MaxAndSkip, joypad_env
from mario_rl.config import Config

_ENDLESS = 10_000_000  # env steps: rounds continue as long as they are asked for


def train(config: Config, steps: int, turns: Turns) -> None:
    """Play rounds of this many env steps, the first when learning has begun."""
    envs = make_vec_env(_Game, config.exploration.num_envs, vec_env_cls=SubprocVecEnv)
    steps_per_update = config.learner.batch_size / config.learner.replay_ratio
    model = DQN(
        _DuelingPolicy,
        VecFrameStack(envs, STACK),
        learning_rate=config.learner.learning_rate,
        buffer_size=config.replay.replay_capacity,
        learning_starts=config.learner.learning_starts,
        batch_size=config.learner.batch_size,
        gamma=config.learner.gamma,
        train_freq=int(steps_per_update / config.exploration.num_envs),
        gradient_steps=1,
        optimize_memory_usage=True,
        replay_buffer_kwargs={"handle_timeout_termination": False},
        target_update_interval=config.learner.target_period,
        exploration_initial_eps=config.exploration.eps_start,
        exploration_final_eps=config.exploration.eps_end,
        exploration_fraction=config.exploration.eps_decay / _ENDLESS,
        max_grad_norm=config.learner.max_grad_norm,
        policy_kwargs={"features_extractor_class": _Convolutions},
        device="cpu",
        seed=config.run.seed,
    )
    model.learn(_ENDLESS, callback=_Rounds(config.learner.learning_starts, steps, turns))


class _Game(gymnasium.Env):
    """The stock wrappers, up to the single frame, with gymnasium's interface."""

    observation_space = spaces.Box(0, 255, (*SIZE, 1), np.uint8)
    action_space = spaces.Discrete(NUM_ACTIONS)

    def __init__(self) -> None:
        self._env = Grey84(MaxAndSkip(joypad_env()))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, Any]:
        return self._env.reset(), {}

    def step(self, action: np.integer) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        obs, reward, done, info = self._env.step(int(action))
        return obs, reward, done, False, info


class _Convolutions(BaseFeaturesExtractor):
    """The trunk of `mario_rl.agent.network`, without the layer that SB3's NatureCNN adds to it."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, features_dim=64 * 7 * 7)
        self._layers = nn.Sequential(
            nn.Conv2d(STACK, 32, kernel_size=8, stride=4),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=4, stride=2),
            nn.ReLU(),
            nn.Conv2d(64, 64, kernel_size=3, stride=1),
            nn.ReLU(),
            nn.Flatten(),
        )

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self._layers(obs)
        return features


class _DuelingNetwork(QNetwork):
    """With the two heads of our own network; `q_net` of the base class is the advantage."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._value = nn.Sequential(nn.Linear(self.features_dim, 512), nn.ReLU(), nn.Linear(512, 1))

    def forward(self, obs: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        features = self.extract_features(obs, self.features_extractor)
        advantage = self.q_net(features)
        q_values: torch.Tensor = (
            self._value(features) + advantage - advantage.mean(dim=1, keepdim=True)
        )
        return q_values


class _DuelingPolicy(DQNPolicy):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, net_arch=[512], **kwargs)

    def make_q_net(self) -> _DuelingNetwork:
        arguments = self._update_features_extractor(self.net_args, features_extractor=None)
        return _DuelingNetwork(**arguments).to(self.device)


class _Rounds(BaseCallback):
    """Ends a round after a number of env steps, and blocks until the next."""

    def __init__(self, learning_starts: int, steps: int, turns: Turns) -> None:
        super().__init__()
        self._steps = steps
        self._end = learning_starts + steps
        self._turns = turns
        self._begun: tuple[float, int, int] | None = None  # time, env steps and updates

    def _on_step(self) -> bool:
        if self.num_timesteps >= self._end:
            self._turns.wait(**self._answer())
            self._begun = time.perf_counter(), self.num_timesteps, self.model._n_updates
            self._end = self.num_timesteps + self._steps
        return True

    def _answer(self) -> dict[str, Any]:
        if self._begun is None:
            return {}
        started, env_steps, updates = self._begun
        return {
            "seconds": time.perf_counter() - started,
            "work": self.num_timesteps - env_steps,
            "updates": self.model._n_updates - updates,
        }
