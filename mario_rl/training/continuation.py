"""The next iteration of training: from the best model of the earlier runs to a new run."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mario_rl.agent.learner import LearnerState
from mario_rl.agent.saved_model import Lineage, Parent, SavedModel
from mario_rl.agent.schedules import importance_exponent, learning_rate
from mario_rl.config import Config, bound
from mario_rl.console import warn
from mario_rl.errors import UserError
from mario_rl.settings import flag_of
from mario_rl.storage.checkpoint import Checkpoint, CheckpointStore
from mario_rl.storage.paths import RunPaths
from mario_rl.training.lifecycle import create_run
from mario_rl.training.state import RunState

# At most this: the model knows the way, and random play would undo that.
FINE_TUNING_EPSILON = 0.1


def find_best_model(output_dir: Path, iteration: int | None, say: Callable[[str], None]) -> Path:
    """Choose among models/*.pth and show the candidates.

    Args:
        iteration: only models of earlier iterations are candidates; None: all.

    Raises:
        UserError: if there is no candidate.
    """
    candidates: list[tuple[Path, SavedModel]] = []
    for path in sorted((output_dir / "models").glob("*.pth")):
        try:
            model = SavedModel.load(path)
        except UserError as error:
            warn(f"{error}; passed over")
            continue
        if iteration is None or model.lineage.iteration < iteration:
            candidates.append((path, model))
    if not candidates:
        earlier = "" if iteration is None else f" of an iteration before {iteration}"
        raise UserError(
            f"no model{earlier} in {output_dir / 'models'}: train one with "
            "progressive_mario_trainer.py, or name a file with --model-path"
        )
    candidates.sort(key=lambda candidate: candidate[1].evaluation.rank, reverse=True)
    say(_table([model for _, model in candidates]))
    if len({model.config.env.stage for _, model in candidates}) > 1:
        say("the candidates play different stages, so their rates do not compare: "
            "--model-path chooses another")  # fmt: skip
    return candidates[0][0]


def _table(models: list[SavedModel]) -> str:
    width = max(len(model.run_name) for model in models)
    lines = [f"  {'run':{width}}  iteration  stage  clear rate (95 % interval)  mean x"]
    for place, model in enumerate(models):
        evaluation = model.evaluation
        rate = f"{evaluation.clear_rate:.0%} ({evaluation.interval()})"
        lines.append(
            f"{'>' if place == 0 else ' '} {model.run_name:{width}}  {model.lineage.iteration:9}  "
            f"{model.config.env.stage:5}  {rate:26}  {evaluation.mean_x:6.0f}"
            f"{evaluation.stages_a_game(model.config.env.stage)}"
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
    run is there, with the replay in it.

    It takes over the model's settings, with these exceptions: epsilon starts low; the learning rate
    and the importance exponent continue from the values they had reached; `changes` override all.
    On the same stage the average of the weights continues, too; otherwise the first update would
    replace the model. On another stage the average starts again.

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
    if run_name is None:
        run_name = f"{re.sub(r'-iter[0-9]+$', '', model.run_name)}-iter{iteration}"
    config = _fine_tuning_config(model, changes)
    optimizer = None if reset_optimizer else model.optimizer
    parent = Parent(
        run_name=model.run_name,
        iteration=model.lineage.iteration,
        clear_rate=model.evaluation.clear_rate,
        mean_x=model.evaluation.mean_x,
        mean_stages_cleared=model.evaluation.mean_stages_cleared,
    )
    paths = RunPaths(output_dir, run_name)
    same_stage = config.env.stage == model.config.env.stage
    learner = LearnerState(
        online_net=model.weights,
        averaged_updates=model.averaged_updates if same_stage else 0,
        optimizer=optimizer,
    )
    inherited, replay_line = _inherited_replay(RunPaths(output_dir, model.run_name), config)
    lineage = Lineage(iteration, [*model.lineage.parents, parent])
    create_run(paths, config, learner, lineage, inherited)
    say(
        f"created run {run_name!r}, iteration {iteration}, from {model_path} "
        f"({model.evaluation.brief(model.config.env.stage)}); optimizer "
        f"{'continued' if optimizer else 'reset'}; epsilon {config.exploration.eps_start:g} to "
        f"{config.exploration.eps_end:g} over {config.exploration.eps_decay:,} env steps; "
        f"learning rate {config.learner.learning_rate:.2g}; {replay_line}"
    )
    return paths


def _inherited_replay(parent: RunPaths, config: Config) -> tuple[Checkpoint[RunState] | None, str]:
    """The newest checkpoint of the model's run, if a run with this config can use its replay; and
    a phrase for the user that says so, or why not."""
    store = CheckpointStore(parent.checkpoints)
    if not store.exists():
        return None, f"replay empty: {parent.checkpoints} holds no checkpoint"
    try:
        checkpoint = store.load(RunState.from_file, RunState.check_frames)
    except UserError:
        return None, f"replay empty: {parent.checkpoints} holds no usable checkpoint"
    if not checkpoint.frames:
        return None, f"replay empty: run {parent.run_name!r} has not played yet"
    before, now = checkpoint.state.config.flat(), config.flat()
    for name in bound("weights", "replay"):
        if before[name] != now[name]:
            return None, f"replay empty: {flag_of(name)} was {before[name]}, and is {now[name]}"
    return checkpoint, f"replay of {parent.run_name!r}"


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
    }
    return model.config.replaced({**fine_tuning, **changes})
