"""A run's best policy as a file: all that it takes to play it, judge it and train it further."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from mario_rl.agent.network import DuelingNetwork
from mario_rl.config import Config
from mario_rl.errors import UserError
from mario_rl.games.actions import action_names
from mario_rl.storage.tensor_file import load_tensors, save_tensors

_KIND = "model"


@dataclass(frozen=True)
class Lineage:
    """Which models a run goes back to."""

    iteration: int = 1
    # Oldest first, each {"run_name", "iteration", "clear_rate", "mean_x", "mean_stages_cleared"};
    # older files lack the last.
    parents: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Model:
    run_name: str
    config: Config
    lineage: Lineage
    evaluation: dict[str, Any]  # an EvaluationRecord
    weights: dict[str, torch.Tensor]  # of DuelingNetwork
    optimizer: dict[str, Any] | None  # Adam's state, to train on from here
    averaged_updates: int  # over the iterations on its stage, of which the weights are the average

    def save(self, path: Path) -> None:
        """
        Raises:
            OSError: if the file cannot be written; an older one is then untouched.
        """
        content = {item.name: getattr(self, item.name) for item in fields(self)}
        content["config"] = self.config.to_dict()
        content["lineage"] = asdict(self.lineage)
        save_tensors(path, _KIND, content)

    @classmethod
    def load(cls, path: Path) -> "Model":
        """
        Raises:
            UserError: if the file is missing, damaged or not a model.
        """
        content = load_tensors(path, _KIND)
        try:
            model = cls(
                run_name=content["run_name"],
                config=Config.from_dict(content["config"]),
                lineage=Lineage(**content["lineage"]),
                evaluation=content["evaluation"],
                weights=content["weights"],
                optimizer=content["optimizer"],
                # Older files do not tell those of earlier iterations.
                averaged_updates=content.get("averaged_updates", content["evaluation"]["updates"]),
            )
            model.network()
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except (KeyError, TypeError, RuntimeError, AttributeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{path} is not a model of this architecture: {reason:.120}") from None
        return model

    def network(self) -> DuelingNetwork:
        """The policy's network, on the CPU."""
        network = DuelingNetwork(
            len(action_names(self.config.env.action_set)),
            width=self.config.learner.network_width,
            num_quantiles=self.config.learner.num_quantiles,
        )
        network.load_state_dict(self.weights)
        return network
