"""A name can have come to mean another run: a run must not overwrite the files of that one."""

from pathlib import Path

from mario_rl.agent.saved_model import Lineage, SavedModel
from mario_rl.errors import DamagedFile, UserError
from mario_rl.storage.paths import RunPaths
from mario_rl.training.description import read_description


def require_own_files(paths: RunPaths, lineage: Lineage) -> None:
    """
    Raises:
        UserError: if the model file or the folder of statistics of this name is another run's.
    """
    require_own_model(paths, lineage)
    require_own_stats(paths, lineage)


def require_own_stats(paths: RunPaths, lineage: Lineage) -> None:
    """
    Raises:
        UserError: if the folder of statistics of this name is another run's.
    """
    if not paths.run_json.exists():
        return
    try:
        run_id = read_description(paths).lineage.run_id
    except DamagedFile:
        return  # it is written again, with a warning
    if run_id != lineage.run_id:
        raise _another_run(paths.stats, paths)


def require_own_model(paths: RunPaths, lineage: Lineage) -> None:
    """
    Raises:
        UserError: if the model file of this name is another run's.
    """
    if not paths.model.exists():
        return
    try:
        model = SavedModel.load(paths.model, read_tensors=False)
    except DamagedFile:
        return  # there is nothing to lose
    if model.lineage.run_id != lineage.run_id:
        raise _another_run(paths.model, paths)


def _another_run(path: Path, paths: RunPaths) -> UserError:
    return UserError(
        f"{path} is of another run than {paths.checkpoints}, and would be overwritten: move it away"
    )
