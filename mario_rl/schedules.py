"""Values that change over a run: pure functions of `env_steps`, so that a resume needs no state."""

from mario_rl.config import LearnerConfig

_LEARNING_RATE_LEFT = 0.1  # after the decay


def linear(start: float, end: float, duration_steps: int, env_steps: int) -> float:
    """`start` at 0, `end` from `duration_steps` on, a straight line between."""
    progress = min(1.0, env_steps / duration_steps)
    return start + progress * (end - start)


def learning_rate(config: LearnerConfig, env_steps: int) -> float:
    """Adam's step size."""
    if config.lr_decay == 0:
        return config.learning_rate
    left = linear(1.0, _LEARNING_RATE_LEFT, config.lr_decay, env_steps)
    return left * config.learning_rate
