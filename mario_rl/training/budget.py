"""When a run is over."""

from mario_rl.training.trainer import Trainer


def budget_spent(trainer: Trainer) -> float:
    """The used share of the budget: of its episodes, steps or hours, whichever is largest. 1 or
    more when the run is over."""
    run = trainer.config.run
    shares = [trainer.episodes / run.num_episodes]
    if run.max_steps is not None:
        shares.append(trainer.env_steps / run.max_steps)
    if run.max_hours is not None:
        shares.append(trainer.hours / run.max_hours)
    return max(shares)
