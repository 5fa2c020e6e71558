"""Puts a run together: the only place where its parts are built."""

from collections.abc import Callable

import numpy as np
import torch

from mario_rl.agent.learner import Learner
from mario_rl.agent.network import build_network
from mario_rl.config import Config
from mario_rl.games.interface import Games
from mario_rl.games.ray_games import RayGames
from mario_rl.registry import BACKENDS, EXPLORATIONS, LEARNERS
from mario_rl.replay.prioritized import PrioritizedReplay
from mario_rl.storage.recorder import Recorder
from mario_rl.training.guide import Guide
from mario_rl.training.rollout import Rollout
from mario_rl.training.trainer import Trainer


def build_games(
    config: Config, num_envs: int, report: Callable[[str], None], num_retrying: int = 0
) -> Games:
    """New games, on the cluster or the backend that the config names.

    Args:
        report: called with each line that the user should see.
        num_retrying: how many of the games make save points; they are the first ones.
    """
    if config.run.ray != "none":
        return RayGames(config.env, num_envs, report, num_retrying, config.run.ray)
    games: Games = BACKENDS.get(config.run.games)(config.env, num_envs, report, num_retrying)
    return games


def build_learner(
    config: Config, device: torch.device, trunk_dtype: torch.dtype = torch.float32
) -> Learner:
    """A learner whose network has random weights, drawn from the seed."""
    torch.manual_seed(config.run.seed)
    network = build_network(config, trunk_dtype).to(device)
    learner: Learner = LEARNERS.get(config.learner.learner)(network, config.learner)
    return learner


def build_trainer(
    config: Config,
    learner: Learner,
    games: Games,
    recorder: Recorder,
    frames_device: torch.device | None = None,
    demonstrations: list[np.ndarray] | None = None,
) -> Trainer:
    """A trainer at the beginning of a run.

    Args:
        frames_device: where the replay keeps its frames; None is main memory.
        demonstrations: that games follow, of each the actions, uint8 [steps].
    """
    exploration_seed, sample_seed = np.random.SeedSequence(config.run.seed).spawn(2)
    scheme = EXPLORATIONS.get(config.exploration.exploration)
    exploration = scheme(config.exploration, exploration_seed)
    guide = None
    if demonstrations:
        num_envs, num_led = config.exploration.num_envs, config.exploration.num_retrying
        guide = Guide(demonstrations, num_envs, num_led, exploration.rng)
    return Trainer(
        config,
        learner,
        PrioritizedReplay(
            config.replay, config.exploration.num_envs, config.env.frame_shape, frames_device
        ),
        Rollout(games, exploration, guide),
        np.random.default_rng(sample_seed),
        recorder,
    )
