"""A run's best policy as a file, with all that is needed to play, judge and train it further."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from mario_rl.agent.network import DuelingNetwork, build_network
from mario_rl.config import Config
from mario_rl.errors import UserError
from mario_rl.evaluation.figures import Evaluation
from mario_rl.storage.tensor_file import load_tensors, save_tensors

_KIND = "model"


@dataclass(frozen=True)
class Parent:
    """A model that a run descends from."""

    run_name: str
    iteration: int
    clear_rate: float
    mean_x: float  # pixels
    mean_stages_cleared: float | None = None  # None in older files
    run_id: str | None = None  # None for a run of an older version


@dataclass(frozen=True)
class Lineage:
    """Which run this is, and the models that it descends from.

    A name can be given to another run, and a run can be renamed. The id stays: 32 random hex
    digits, made with the run. Training does not depend on it.
    """

    iteration: int = 1
    parents: list[Parent] = field(default_factory=list)  # oldest first
    run_id: str | None = None  # None: an older version began the run, whoever resumed it

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Lineage":
        """The inverse of `dataclasses.asdict`."""
        parents = [Parent(**parent) for parent in values["parents"]]
        return cls(values["iteration"], parents, values.get("run_id"))


@dataclass(frozen=True)
class SavedModel:
    """The content of a file in models/."""

    run_name: str
    config: Config
    lineage: Lineage
    evaluation: Evaluation  # that chose it
    weights: dict[str, torch.Tensor]  # of DuelingNetwork
    optimizer: dict[str, Any] | None  # Adam's state, to train on from here
    averaged_updates: int  # that the weights are the average of, in all iterations on its stage

    def save(self, path: Path) -> None:
        """
        Raises:
            OSError: if the file cannot be written; an older one is then untouched.
        """
        content = {item.name: getattr(self, item.name) for item in fields(self)}
        content["config"] = self.config.to_dict()
        content["lineage"] = asdict(self.lineage)
        content["evaluation"] = asdict(self.evaluation)
        save_tensors(path, _KIND, content)

    @classmethod
    def load(cls, path: Path, read_tensors: bool = True) -> "SavedModel":
        """
        Args:
            read_tensors: False is quick and takes no memory: the weights and the optimizer are read
                from the file when they are used, and are not checked.

        Raises:
            UserError: if the file is missing, damaged or not a model.
        """
        content = load_tensors(path, _KIND, read_tensors)
        try:
            evaluation = Evaluation.from_dict(content["evaluation"])
            model = cls(
                run_name=content["run_name"],
                config=Config.from_dict(content["config"]),
                lineage=Lineage.from_dict(content["lineage"]),
                evaluation=evaluation,
                weights=content["weights"],
                optimizer=content["optimizer"],
                # Older files do not count those of earlier iterations.
                averaged_updates=content.get("averaged_updates", evaluation.updates),
            )
            if read_tensors:
                model.network()
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except (KeyError, TypeError, RuntimeError, AttributeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{path} is not a model of this architecture: {reason:.120}") from None
        return model

    def network(self) -> DuelingNetwork:
        """The policy's network, on the CPU."""
        network = build_network(self.config)
        network.load_state_dict(self.weights)
        return network
