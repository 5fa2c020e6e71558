"""A reward: coins and points beside progress."""

from mario_rl.config import EnvConfig
from mario_rl.games.rewards import Decision, Progress


class CoinsToo:
    """The default reward, +1 for each coin and +0.001 for each point of the score."""

    def __init__(self, config: EnvConfig) -> None:
        self._progress = Progress(config)

    def __call__(self, decision: Decision) -> float:
        before, after = decision.before, decision.after
        coins = (after.coins - before.coins) % 100  # the game counts to 99
        points = after.game_score - before.game_score
        return self._progress(decision) + 1.0 * coins + 0.001 * points
