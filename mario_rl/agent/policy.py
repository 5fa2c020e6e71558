"""A trained policy, for use from Python."""

from pathlib import Path

import numpy as np

from mario_rl.agent.exported_model import load_model
from mario_rl.agent.saved_model import SavedModel
from mario_rl.agent.shipped import model_file
from mario_rl.config import STACK, Config
from mario_rl.evaluation.figures import Evaluation
from mario_rl.games.actions import action_names


class Policy:
    """A policy that was loaded from a model, on the CPU.

    Attributes:
        run_name: of the run that trained it.
        config: the settings of that run.
        evaluation: the figures of the games that chose it; of a shipped model, those of 100 games
            that did not.
        action_names: such as "right+A", in the order of their numbers.
    """

    def __init__(self, model: SavedModel) -> None:
        self.run_name: str = model.run_name
        self.config: Config = model.config
        self.evaluation: Evaluation = model.evaluation
        self.action_names: list[str] = action_names(model.config.env.action_set)
        self._network = model.network()

    def q_values(self, obs: np.ndarray) -> np.ndarray:
        """The expected return of each action, in rewards times --reward-scale.

        Args:
            obs: uint8 [4, H, W], or [B, 4, H, W], the oldest frame first.

        Returns:
            float32 [num_actions], or [B, num_actions].

        Raises:
            ValueError: if the observations are of another size.
        """
        shape = STACK, *self.config.env.frame_shape
        if obs.shape[-3:] != shape:
            raise ValueError(
                f"observations of the shape {obs.shape} for a policy that sees {shape}"
            )
        if obs.ndim == 3:
            one: np.ndarray = self._network.q_values(obs[None])[0]
            return one
        return self._network.q_values(obs)

    def act(self, obs: np.ndarray) -> int | np.ndarray:
        """The best action; of a batch, one for each observation, int64 [B].

        Args:
            obs: as for `q_values`.
        """
        best = self.q_values(obs).argmax(axis=-1)
        return int(best) if obs.ndim == 3 else best


def load(path: str | Path) -> Policy:
    """Load a policy.

    Args:
        path: a file in models/, or the name of a shipped model, such as "1-1".

    Raises:
        UserError: if there is no such model, or the file is damaged.
    """
    return Policy(load_model(model_file(str(path))))
