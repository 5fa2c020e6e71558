"""The parts that can be exchanged, by the names that settings give them.

A new part is a file of its own and a line here; docs/extending.md has an example of each kind. A
line says where the part is defined, so that a process imports only the parts that it uses.
"""

import importlib
from collections.abc import Callable
from typing import Any


class Registry:
    """The parts of one kind."""

    def __init__(self, **places: str) -> None:
        """
        Args:
            places: "module:attribute" for each name; an underscore in a name stands for a hyphen.
        """
        self._parts: dict[str, Any] = {
            name.replace("_", "-"): place for name, place in places.items()
        }

    def names(self) -> tuple[str, ...]:
        return tuple(self._parts)

    def add(self, name: str, part: Callable[..., Any]) -> None:
        """Add a part from outside the package.

        Call it at the top level of your script, not under `if __name__ == "__main__"`: the worker
        processes import the script, and need the part as well.
        """
        self._parts[name] = part

    def get(self, name: str) -> Any:
        """The part of that name, which must be one of `names`."""
        part = self._parts[name]
        if isinstance(part, str):
            module, _, attribute = part.partition(":")
            part = self._parts[name] = getattr(importlib.import_module(module), attribute)
        return part


EMULATORS = Registry(  # games/emulator.py: Emulator
    auto="mario_rl.games.emulator:auto",
    fceumm="mario_rl.games.fceumm:Fceumm",
    nes_py="mario_rl.games.nes_py:NesPy",
)
VIEWS = Registry(  # games/observation.py: View
    mario="mario_rl.games.views:AroundMario",
    screen="mario_rl.games.views:WholeScreen",
)
REWARDS = Registry(  # games/rewards.py: Reward
    progress="mario_rl.games.rewards:Progress",
)
EXPLORATIONS = Registry(  # agent/exploration.py: Exploration
    epsilon_greedy="mario_rl.agent.epsilon_greedy:EpsilonGreedy",
)
LOSSES = Registry(  # agent/losses.py: Loss
    huber="mario_rl.agent.losses:huber",
)
LEARNERS = Registry(  # agent/learner.py: Learner
    dqn="mario_rl.agent.dqn:DQN",
)
TRACKERS = Registry(  # storage/trackers.py: Tracker
    none="mario_rl.storage.trackers:Tracker",
    wandb="mario_rl.storage.trackers:WeightsAndBiases",
    trackio="mario_rl.storage.trackers:Trackio",
    mlflow="mario_rl.storage.trackers:MLflow",
)
BACKENDS = Registry(  # games/interface.py: Games
    workers="mario_rl.games.workers:WorkerGames",
    serial="mario_rl.games.serial:SerialGames",
)
