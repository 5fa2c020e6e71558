"""Values that change over a run: pure functions of `env_steps`, so that a resume needs no state."""

from mario_rl.config import LearnerConfig, ReplayConfig

_LEARNING_RATE_LEFT = 0.1  # share after the decay


def linear(start: float, end: float, duration_steps: float, env_steps: float) -> float:
    """`start` at 0, `end` from `duration_steps` on, a straight line between."""
    progress = min(1.0, env_steps / duration_steps)
    return start + progress * (end - start)


def learning_rate(config: LearnerConfig, env_steps: int) -> float:
    """Adam's learning rate: constant for the first half of `lr_decay`, then a fall to a tenth."""
    if config.lr_decay == 0:
        return config.learning_rate
    half = config.lr_decay / 2
    left = linear(1.0, _LEARNING_RATE_LEFT, half, max(0, env_steps - half))
    return left * config.learning_rate


def importance_exponent(config: ReplayConfig, env_steps: int) -> float:
    """The correction of the sampling bias (Schaul et al. 2016): it grows to 1."""
    return linear(config.importance_exponent, 1.0, config.importance_steps, env_steps)
