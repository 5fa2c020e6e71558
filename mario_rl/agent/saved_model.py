"""A run's best policy as a file, with all that is needed to play, judge and train it further."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mario_rl.agent.learner import LearnerState, check_learner
from mario_rl.agent.network import DuelingNetwork, Weights, build_network, load_weights
from mario_rl.config import Config
from mario_rl.errors import DamagedFile
from mario_rl.evaluation.figures import Evaluation
from mario_rl.fields import Count, RunName
from mario_rl.storage.lineage import Lineage as Lineage
from mario_rl.storage.lineage import Parent as Parent
from mario_rl.storage.plain import read_as
from mario_rl.storage.tensor_file import load_tensors, save_tensors

_KIND = "model"


@dataclass(frozen=True)
class SavedModel:
    """The content of a file in models/."""

    run_name: RunName
    config: Config
    lineage: Lineage
    evaluation: Evaluation  # that chose it
    weights: Weights
    optimizer: dict[str, Any] | None  # the learner's, to train on from here
    averaged_updates: Count  # that the weights are the average of, in all iterations on its stage

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
            read_tensors: False is quick and takes no memory: the weights and the optimizer are left
                out, and are not checked.

        Raises:
            UserError: if the file is missing, damaged or not a model; it names the field.
        """
        content = load_tensors(path, _KIND, read_tensors)
        schema = content.pop("schema")
        del content["kind"]
        evaluation = content.get("evaluation")
        if schema < 4 and isinstance(evaluation, dict):
            evaluation.pop("is_best", None)
            # Older files do not count those of earlier iterations.
            content.setdefault("averaged_updates", evaluation.get("updates"))
        if not read_tensors:
            content |= {"weights": {}, "optimizer": None}
        model: SavedModel = read_as(cls, content, path)
        try:
            if read_tensors:
                model.check()
        except ValueError as error:
            raise DamagedFile(f"{path} is damaged: {error}") from None
        return model

    def check(self) -> None:
        """
        Raises:
            ValueError: names the field that does not fit the config.
        """
        load_weights(build_network(self.config), self.weights, "weights")
        if self.optimizer is not None:
            check_learner(self.config, LearnerState(self.weights, optimizer=self.optimizer))

    def network(self) -> DuelingNetwork:
        """The policy's network, on the CPU."""
        network = build_network(self.config)
        load_weights(network, self.weights, "weights")
        return network
