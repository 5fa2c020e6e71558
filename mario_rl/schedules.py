"""Values that change over a run: pure functions of `env_steps`, so that a resume needs no state."""


def linear(start: float, end: float, duration_steps: int, env_steps: int) -> float:
    """`start` at 0, `end` from `duration_steps` on, a straight line between."""
    progress = min(1.0, env_steps / duration_steps)
    return start + progress * (end - start)
