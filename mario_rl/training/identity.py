"""A name can have come to mean another run: a run must not overwrite the files of that one."""

from pathlib import Path

from mario_rl.agent.saved_model import Lineage, SavedModel
from mario_rl.errors import UserError
from mario_rl.storage.paths import RunPaths
from mario_rl.training.description import read_description


def require_own_files(paths: RunPaths, lineage: Lineage) -> None:
    """
    Raises:
        UserError: if the model file or the folder of statistics of this name is another run's.
    """
    require_own_model(paths, lineage)
    try:
        run_id = read_description(paths).lineage.run_id
    except UserError:
        return  # missing or damaged: it is written again, with a warning
    if run_id != lineage.run_id:
        raise _another_run(paths.stats, paths)


def require_own_model(paths: RunPaths, lineage: Lineage) -> None:
    """
    Raises:
        UserError: if the model file of this name is another run's.
    """
    try:
        model = SavedModel.load(paths.model, read_tensors=False)
    except UserError:
        return  # missing or damaged: nothing to lose
    if model.lineage.run_id != lineage.run_id:
        raise _another_run(paths.model, paths)


def _another_run(path: Path, paths: RunPaths) -> UserError:
    return UserError(
        f"{path} is of another run than {paths.checkpoints}, and would be overwritten: move it away"
    )
