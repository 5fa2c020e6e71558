"""A run from its creation to its end: files, budget, signals, memory and what the user is told.

A run begins its life as a checkpoint without any progress, made here or by continue_training.py,
so that starting, resuming and continuing are all the same: load the newest checkpoint and train.
"""

import datetime
import shlex
import sys
from contextlib import closing
from dataclasses import asdict
from typing import Any

import torch

from mario_rl.agent.learner import Learner
from mario_rl.agent.saved_model import Lineage, Model
from mario_rl.config import Config, RunConfig
from mario_rl.device import (
    choose_device,
    frames_device,
    leave_cores_to_the_games,
    limit_memory,
    make_deterministic,
    out_of_memory,
    trunk_dtype,
)
from mario_rl.errors import DamagedFile, UserError, WorkerDied
from mario_rl.games.actions import action_names
from mario_rl.machine import (
    available_memory_bytes,
    git_commit,
    hardware,
    versions,
)
from mario_rl.registry import BACKENDS
from mario_rl.replay.prioritized import PrioritizedReplay
from mario_rl.settings import flag_of
from mario_rl.storage.checkpoint import Checkpoint, CheckpointStore
from mario_rl.storage.files import RunPaths, read_json, write_json
from mario_rl.storage.recorder import Recorder
from mario_rl.storage.records import EpisodeRecord, with_new_columns
from mario_rl.training.display import Progress
from mario_rl.training.session import Session, resume_command, stop_signals
from mario_rl.training.trainer import Trainer

_HEADROOM_BYTES = 1 << 30  # for the networks, the workers and the system
# What a resumed run may change: the budget, how often it is saved and how the machine is used.
_RESUMABLE = frozenset(RunConfig.__dataclass_fields__) - {"seed"}


def create_run(
    paths: RunPaths,
    config: Config,
    learner_state: dict[str, Any],
    lineage: Lineage,
    inherited: Checkpoint | None = None,
) -> None:
    """Write a run's first checkpoint, its config.json and its run.json.

    Args:
        inherited: a checkpoint of another run, whose replay this one begins with.

    Raises:
        UserError: if there is a run of that name.
    """
    paths.require_new()
    replay, frames, rows = None, [], range(0)
    if inherited is not None:
        # A run that has not played yet has inherited its replay itself.
        replay = (inherited.state["progress"] or inherited.state)["replay"]
        frames = inherited.frames
        rows = range(frames[0][0], replay["rows_written"])
    state = {
        "config": config.to_dict(),
        "lineage": asdict(lineage),
        "learner": learner_state,
        "progress": None,
        "replay": replay,
    }
    CheckpointStore(paths.checkpoints).save(state, rows, lambda _: [block for _, block in frames])
    _describe(paths, config, lineage)


def train(paths: RunPaths, given: dict[str, Any], resume: bool) -> None:
    """Start a run with the given settings, or resume it, and train until its budget is spent.

    Ctrl-C and SIGTERM end it after the current step, with a checkpoint.

    Raises:
        UserError: for everything that the user can mend.
    """
    if resume:
        if not CheckpointStore(paths.checkpoints).exists():
            paths.require_stats()
            raise UserError(f"run {paths.run_name!r} has no checkpoint; choose another --run-name")
        with paths.lock():
            _train(paths, given)
        return
    paths.require_new()
    config = Config().replaced(given)
    device = choose_device(config.run.device)
    _place_replay(config, device, "use at most --replay-capacity {largest}")
    with paths.lock():
        learner = _new_learner(config, torch.device("cpu"))
        create_run(paths, config, learner.state_dict(), Lineage())
        _train(paths, given)


def _train(paths: RunPaths, given: dict[str, Any]) -> None:
    """Train from the newest checkpoint on."""
    store = CheckpointStore(paths.checkpoints)
    checkpoint = store.load()
    state = checkpoint.state
    config = _resumed_config(Config.from_dict(state["config"]), given)
    lineage = Lineage(**state["lineage"])
    device = choose_device(config.run.device)
    leave_cores_to_the_games()
    if config.run.deterministic:
        make_deterministic()
    print(limit_memory(device, config.run.gpu_memory_fraction))
    dtype = trunk_dtype(config.run.precision, device)
    print(f"precision: convolutions in {str(dtype).removeprefix('torch.')}, the rest in float32")
    frames_place, line = _place_replay(config, device, "free some to go on with this run")
    print(line)
    _describe(paths, config, lineage)
    progress = state["progress"]
    contents = _recorded(paths, progress["records"]) if progress else {}
    if progress and progress["counters"]["best_evaluation"]:
        _forget_lost_model(paths, progress)
    env_steps = progress["counters"]["env_steps"] if progress else 0
    _note_session(paths, env_steps)
    with (
        stop_signals() as stop_requested,
        closing(Progress(paths.run_name)) as display,
        closing(
            BACKENDS.get(config.run.games)(
                config.env,
                config.exploration.num_envs,
                display.line,
                config.exploration.num_retrying,
            )
        ) as games,
        closing(Recorder(paths, contents, env_steps)) as recorder,
    ):
        try:
            learner = _new_learner(config, device, dtype)
            learner.load_state_dict(state["learner"])
            trainer = Trainer(config, learner, games, recorder, frames_place)
            if progress:
                trainer.load_state_dict(progress, checkpoint.frames)
                display.line(f"resumed at {trainer.episodes} episodes, {trainer.env_steps:,} steps")
            elif state.get("replay"):  # of the run whose model this one begins with
                trainer.replay.load_state_dict(state["replay"], checkpoint.frames)
            # They are mapped, and would take up the disk until the end, although removed.
            checkpoint.frames.clear()
            with closing(
                Session(paths, trainer, store, lineage, display, stop_requested)
            ) as session:
                session.run()
        except WorkerDied as error:
            raise UserError(f"{error}; go on with: {resume_command(paths)}") from None
        except RuntimeError as error:  # CUDA has a type of its own for this, MPS has not
            if "out of memory" not in str(error):
                raise
            raise out_of_memory(config.run.gpu_memory_fraction) from None


def _recorded(paths: RunPaths, records: dict[str, Any]) -> dict[str, bytes]:
    """What the CSV files held at a checkpoint, by their names."""
    if all(isinstance(value, int) for value in records.values()):  # schema 1 knew only their sizes
        sizes = {f"{name}.csv": size for name, size in records.items()}
        contents = {name: (paths.stats / name).read_bytes()[:size] for name, size in sizes.items()}
    else:
        contents = {name: content.numpy().tobytes() for name, content in records.items()}
    episodes = paths.episodes_csv.name
    return {**contents, episodes: with_new_columns(contents[episodes], EpisodeRecord)}


def _forget_lost_model(paths: RunPaths, progress: dict[str, Any]) -> None:
    """If the best model's file is gone or damaged, let the next evaluation write one."""
    try:
        Model.load(paths.model)
    except UserError as error:
        print(f"warning: {error}; the next evaluation writes another", file=sys.stderr)
        progress["counters"]["best_evaluation"] = None


def _new_learner(
    config: Config, device: torch.device, dtype: torch.dtype = torch.float32
) -> Learner:
    num_actions = len(action_names(config.env.action_set))
    return Learner(config.learner, num_actions, device, config.run.seed, dtype)


def _resumed_config(config: Config, given: dict[str, Any]) -> Config:
    before = config.flat()
    for name, value in given.items():
        if name not in _RESUMABLE and value != before[name]:
            raise UserError(
                f"{flag_of(name)} {value}: the run was started with {before[name]}, and a resumed "
                "run keeps its settings; leave the flag out, or use continue_training.py"
            )
    return config.replaced({name: value for name, value in given.items() if name in _RESUMABLE})


def _place_replay(
    config: Config, device: torch.device, way_out: str
) -> tuple[torch.device | None, str]:
    """Where the replay's frames go, as for `PrioritizedReplay`, and a line that says so.

    Args:
        way_out: what to do if there is too little memory; may name the largest capacity that fits.

    Raises:
        UserError: if it does not fit into what is free.
    """
    capacity = config.replay.replay_capacity
    required = PrioritizedReplay.required_bytes(config.replay)
    if place := frames_device(device, config.run.gpu_memory_fraction, required):
        return place, f"replay: {capacity:,} transitions, {required / 2**30:.2f} GiB on the GPU"
    free = available_memory_bytes()
    if required + _HEADROOM_BYTES > free:
        largest = int(capacity * max(0, free - _HEADROOM_BYTES) / required)
        raise UserError(
            f"--replay-capacity {capacity} takes {required / 2**30:.1f} GiB, but only "
            f"{free / 2**30:.1f} GiB are free; {way_out.format(largest=largest)}"
        )
    return None, (
        f"replay: {capacity:,} transitions, {required / 2**30:.2f} GiB of "
        f"{free / 2**30:.1f} GiB free memory"
    )


def _describe(paths: RunPaths, config: Config, lineage: Lineage) -> None:
    """Write config.json, whose budget a resume may have changed, and once run.json."""
    write_json(paths.config_json, config.to_dict())
    try:
        if paths.run_json.exists():
            read_json(paths.run_json)
            return
    except DamagedFile as error:
        print(f"warning: {error}; writing it anew", file=sys.stderr)
    description = {
        "schema": 1,
        "run_name": paths.run_name,
        "created": _now(),
        "command": shlex.join(sys.argv),
        "lineage": asdict(lineage),
        "git_commit": git_commit(),
        "versions": versions(),
        "hardware": hardware(),
        "sessions": [],
    }
    write_json(paths.run_json, description)


def _note_session(paths: RunPaths, env_steps: int) -> None:
    description = read_json(paths.run_json)
    session = {"started": _now(), "command": shlex.join(sys.argv), "env_steps": env_steps}
    description["sessions"] = [*description.get("sessions", []), session]
    write_json(paths.run_json, description)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
