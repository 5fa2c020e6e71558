"""The next iteration of training: from the best model of the earlier runs to a new run."""

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mario_rl.agent.learner import LearnerState
from mario_rl.agent.saved_model import Lineage, Parent, SavedModel
from mario_rl.agent.schedules import importance_exponent, learning_rate
from mario_rl.config import Config, bound
from mario_rl.console import warn
from mario_rl.errors import RunInUse, UserError
from mario_rl.evaluation.figures import Evaluation
from mario_rl.fields import MAX_RUN_NAME
from mario_rl.settings import flag_of
from mario_rl.storage.checkpoint import Checkpoint, CheckpointStore
from mario_rl.storage.paths import RunPaths
from mario_rl.training.lifecycle import create_run
from mario_rl.training.state import RunState

# At most this: the model knows the way, and random play would undo that.
FINE_TUNING_EPSILON = 0.1


@dataclass(frozen=True)
class _Candidate:
    """What the table shows of a model."""

    path: Path
    run_name: str
    iteration: int
    stage: str
    evaluation: Evaluation

    @property
    def label(self) -> str:
        """The name of the file, and the run's if that is another."""
        named = self.run_name == self.path.stem
        return self.path.name if named else f"{self.path.name} (run {self.run_name})"


def find_best_model(output_dir: Path, iteration: int | None, say: Callable[[str], None]) -> Path:
    """Choose among models/*.pth and show the candidates.

    Args:
        iteration: only models of earlier iterations are candidates; None: all.

    Raises:
        UserError: if there is no candidate.
    """
    candidates = [
        candidate
        for candidate in _candidates(output_dir / "models")
        if iteration is None or candidate.iteration < iteration
    ]
    candidates.sort(key=lambda candidate: candidate.evaluation.rank, reverse=True)
    while candidates and not _is_intact(candidates[0].path):
        del candidates[0]
    if not candidates:
        earlier = "" if iteration is None else f" of an iteration before {iteration}"
        raise UserError(
            f"no model{earlier} in {output_dir / 'models'}: train one with "
            "progressive_mario_trainer.py, or name a file with --model-path"
        )
    say(_table(candidates))
    if len({candidate.stage for candidate in candidates}) > 1:
        say("the candidates play different stages, so their rates do not compare: "
            "--model-path chooses another")  # fmt: skip
    return candidates[0].path


def _candidates(folder: Path) -> Iterator[_Candidate]:
    """The models in a folder. One at a time is open, and its weights are not read."""
    for path in sorted(folder.glob("*.pth")):
        try:
            model = SavedModel.load(path, read_tensors=False)
        except UserError as error:
            warn(f"{error}; passed over")
            continue
        stage = model.config.env.stage
        yield _Candidate(path, model.run_name, model.lineage.iteration, stage, model.evaluation)


def _is_intact(path: Path) -> bool:
    try:
        SavedModel.load(path)
    except UserError as error:
        warn(f"{error}; passed over")
        return False
    return True


def _table(candidates: list[_Candidate]) -> str:
    width = max(len(candidate.label) for candidate in candidates)
    lines = [f"  {'model':{width}}  iteration  stage  clear rate (95 % interval)  mean x"]
    for place, candidate in enumerate(candidates):
        evaluation = candidate.evaluation
        rate = f"{evaluation.clear_rate:.0%} ({evaluation.interval()})"
        lines.append(
            f"{'>' if place == 0 else ' '} {candidate.label:{width}}  {candidate.iteration:9}  "
            f"{candidate.stage:5}  {rate:26}  {evaluation.mean_x:6.0f}"
            f"{evaluation.stages_a_game(candidate.stage)}"
        )
    return "\n".join(lines)


def create_iteration(
    model_path: Path,
    output_dir: Path,
    *,
    run_name: str | None,
    iteration: int | None,
    changes: dict[str, Any],
    reset_optimizer: bool,
    say: Callable[[str], None],
) -> RunPaths:
    """Create a run that begins with a model's weights and, if the newest checkpoint of the model's
    run is there, under whatever name, with the replay in it.

    It takes over the model's settings, with these exceptions: epsilon starts low; the learning rate
    and the importance exponent continue from the values they had reached; the threads are measured
    again and no cluster is used, as this may be another machine; demonstrations are not followed
    any more; `changes` override all.
    On the same stage the average of the weights continues, too; otherwise the first update would
    replace the model. On another stage the average starts again.

    Args:
        run_name: None: the first of NAME-iterN, NAME-iterN-2, NAME-iterN-3, ... that is free.

    Returns:
        The new run's paths, ready to be resumed.

    Raises:
        UserError: if the model does not fit the changes, or the run exists.
    """
    model = SavedModel.load(model_path)
    settings = model.config.flat()
    for name in bound("weights"):
        if changes.get(name, settings[name]) != settings[name]:
            raise UserError(
                f"{flag_of(name)} {changes[name]}: {model_path} was trained with {settings[name]}, "
                "without which its weights mean nothing; leave the flag out"
            )
    iteration = iteration or model.lineage.iteration + 1
    config = _fine_tuning_config(model, changes)
    optimizer = None if reset_optimizer else model.optimizer
    parent = Parent(
        run_name=model.run_name,
        iteration=model.lineage.iteration,
        clear_rate=model.evaluation.clear_rate,
        mean_x=model.evaluation.mean_x,
        mean_stages_cleared=model.evaluation.mean_stages_cleared,
        run_id=model.lineage.run_id,
    )
    same_stage = config.env.stage == model.config.env.stage
    learner = LearnerState(
        online_net=model.weights,
        averaged_updates=model.averaged_updates if same_stage else 0,
        optimizer=optimizer,
    )
    inherited, replay_line = _inherited_replay(model, output_dir, config)
    lineage = Lineage(iteration, [*model.lineage.parents, parent])

    def create(paths: RunPaths) -> None:
        create_run(paths, config, learner, lineage, inherited)

    if run_name is None:
        names = _default_names(model.run_name, iteration)
        paths = _create_first_free((RunPaths(output_dir, name) for name in names), create)
    else:
        paths = RunPaths(output_dir, run_name)
        paths.require_new()  # before the lock, which makes a folder
        with paths.lock():
            create(paths)
    say(
        f"created run {paths.run_name!r}, iteration {iteration}, from {model_path} "
        f"({model.evaluation.brief(model.config.env.stage)}); optimizer "
        f"{'continued' if optimizer else 'reset'}; epsilon {config.exploration.eps_start:g} to "
        f"{config.exploration.eps_end:g} over {config.exploration.eps_decay:,} env steps; "
        f"learning rate {config.learner.learning_rate:.2g}; {replay_line}"
    )
    return paths


def _default_names(parent: str, iteration: int) -> Iterator[str]:
    """NAME-iterN, NAME-iterN-2, NAME-iterN-3, ... for a parent called NAME or NAME-iterM[-K]."""
    name = re.sub(r"-iter[0-9]+(-[0-9]+)?$", "", parent)
    for number in itertools.count(1):
        suffix = f"-iter{iteration}" + (f"-{number}" if number > 1 else "")
        yield name[: MAX_RUN_NAME - len(suffix)] + suffix


def _create_first_free(runs: Iterator[RunPaths], create: Callable[[RunPaths], None]) -> RunPaths:
    """Create the first of endless runs that does not exist, and that no other process creates at
    this moment. Returns its paths."""
    while True:
        paths = next(runs)
        if paths.exists():
            continue
        with contextlib.suppress(RunInUse), paths.lock():
            if not paths.exists():
                create(paths)
                return paths


def _inherited_replay(
    model: SavedModel, output_dir: Path, config: Config
) -> tuple[Checkpoint[RunState] | None, str]:
    """The newest checkpoint of the model's run, if a run with this config can use its replay; and
    a phrase for the user that says so, or why not."""
    named = RunPaths(output_dir, model.run_name).checkpoints
    folder = _checkpoints_of(model.lineage.run_id, named)
    if folder is None:
        found = "is of another run" if CheckpointStore(named).exists() else "holds no checkpoint"
        return None, f"replay empty: {named} {found}"
    try:
        store = CheckpointStore(folder)
        checkpoint = store.load(RunState.from_file, RunState.check_frames)
    except UserError:
        return None, f"replay empty: {folder} holds no usable checkpoint"
    if not checkpoint.frames:
        return None, f"replay empty: run {folder.name!r} has not played yet"
    before, now = checkpoint.state.config.flat(), config.flat()
    for name in bound("weights", "replay"):
        if before[name] != now[name]:
            return None, f"replay empty: {flag_of(name)} was {before[name]}, and is {now[name]}"
    how = " (found by the name: older models have no run id)" * (model.lineage.run_id is None)
    return checkpoint, f"replay of {folder.name!r}{how}"


def _checkpoints_of(run_id: str | None, named: Path) -> Path | None:
    """The folder with checkpoints of a run: the one of its name or, if it was renamed, another."""
    others = [] if run_id is None else sorted(named.parent.glob("*"))
    for folder in (named, *others):
        store = CheckpointStore(folder)
        if store.exists() and store.saved_run_id() == run_id:
            return folder
    return None


def _fine_tuning_config(model: SavedModel, changes: dict[str, Any]) -> Config:
    exploration, learner = model.config.exploration, model.config.learner
    env_steps = model.evaluation.env_steps
    eps_start = changes.get("eps_start", min(exploration.eps_start, FINE_TUNING_EPSILON))
    fine_tuning = {
        "eps_start": eps_start,
        "eps_end": min(exploration.eps_end, eps_start),
        "importance_exponent": importance_exponent(model.config.replay, env_steps),
        "learning_rate": learning_rate(learner, env_steps),
        "lr_decay": 0,
        "threads": 0,
        "demos": "none",
        "ray": "none",
    }
    return model.config.replaced({**fine_tuning, **changes})
