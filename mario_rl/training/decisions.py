"""What a run decides on its machine when it is created: its emulator and its number of threads."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

from mario_rl.agent.learner import Learner
from mario_rl.config import Config
from mario_rl.console import warn
from mario_rl.device import prepare_device, shortage_is_told, trunk_dtype
from mario_rl.games.emulator import resolved
from mario_rl.games.interface import Games
from mario_rl.games.mario_game import MarioGame
from mario_rl.training.assembly import build_games, build_learner
from mario_rl.training.calibration import candidates, fastest_threads, step_s


def decided(config: Config) -> Config:
    """The config with what a run decides when it is created: its emulator and number of threads.

    Raises:
        UserError: if the machine cannot do what the config asks for.
    """
    config = config.replaced({"emulator": resolved(config.env.emulator)})
    MarioGame(config.env).close()  # so that no run is created that cannot play
    return with_threads(config)


def with_threads(config: Config) -> Config:
    """The config with a number of threads, measured if it has none."""
    if config.run.threads:
        return config
    if len(candidates()) == 1:
        return config.replaced({"threads": 1})
    with _spare_parts(config) as (learner, games):
        return config.replaced({"threads": fastest_threads(config, learner, games)})


@shortage_is_told()
def measured_steps_per_s(config: Config) -> float:
    """Env steps/s of updates and games beside each other, without the rest of training."""
    with _spare_parts(config) as (learner, games):
        step_s(config, learner, games, config.run.threads)  # the first ones are slow
        return games.num_envs / step_s(config, learner, games, config.run.threads)


@contextmanager
def _spare_parts(config: Config) -> Iterator[tuple[Learner, Games]]:
    """A learner and games to measure with."""
    device, _ = prepare_device(config.run)
    dtype = trunk_dtype(config.run.precision, device)
    games = build_games(config, config.exploration.num_envs, warn)
    with closing(games), closing(build_learner(config, device, dtype)) as learner:
        yield learner, games
