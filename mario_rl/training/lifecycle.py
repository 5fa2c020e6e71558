"""A run from its creation to its end: open it, prepare the machine, build its parts, train.

A new run is first a checkpoint without progress, made here or by continue_training.py. So starting,
resuming and continuing are the same: load the newest checkpoint, and train.
"""

import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from mario_rl.agent.learner import LearnerState
from mario_rl.agent.saved_model import Lineage, SavedModel
from mario_rl.config import Config, bound
from mario_rl.console import warn
from mario_rl.device import (
    choose_device,
    frames_device,
    leave_cores_to_the_learner,
    prepare_device,
    shortage_is_told,
    trunk_dtype,
)
from mario_rl.errors import DamagedFile, Diverged, RunInUse, UserError, reason
from mario_rl.machine import available_memory_bytes, keep_freed_memory
from mario_rl.replay.prioritized import PrioritizedReplay
from mario_rl.settings import flag_of
from mario_rl.storage.checkpoint import Checkpoint, CheckpointStore
from mario_rl.storage.paths import RunPaths
from mario_rl.storage.plain import to_plain
from mario_rl.storage.recorder import Recorder
from mario_rl.storage.run_lock import RunLock
from mario_rl.storage.trackers import TrackedRun, Trackers
from mario_rl.training.assembly import build_games, build_learner, build_trainer
from mario_rl.training.decisions import decided, with_threads
from mario_rl.training.description import describe_run, note_session
from mario_rl.training.display import Display
from mario_rl.training.evaluator import Evaluator, EvaluatorState
from mario_rl.training.guide import read_demonstrations
from mario_rl.training.identity import require_own_files
from mario_rl.training.preflight import check_machine
from mario_rl.training.resume_command import resume_command
from mario_rl.training.saver import Saver
from mario_rl.training.session import Session
from mario_rl.training.signals import Signals
from mario_rl.training.state import Progress, RunState
from mario_rl.training.trainer import Trainer

_HEADROOM_BYTES = 1 << 30  # for the networks, the workers and the system


@shortage_is_told()
def create_run(
    paths: RunPaths,
    config: Config,
    learner: LearnerState,
    lineage: Lineage,
    inherited: Checkpoint[RunState] | None = None,
) -> None:
    """Write a run's first checkpoint, its config.json and its run.json; give it an id, and decide
    its emulator and its number of threads.

    Hold `paths.lock()`, so that no other process creates a run of that name.

    Args:
        inherited: a checkpoint of another run, whose replay this one begins with.

    Raises:
        UserError: if there is a run of that name.
    """
    paths.require_new()
    config = decided(config)
    check_machine(paths, config, learner.online_net)
    replay, frames, rows = None, [], range(0)
    if inherited is not None:
        progress = inherited.state.progress
        # A run that has not played yet still has the replay that it inherited.
        replay = progress.trainer.replay if progress else inherited.state.replay
        frames = inherited.frames
        if replay is not None:
            rows = range(frames[0][0], replay.rows_written)
    lineage = replace(lineage, run_id=uuid.uuid4().hex)
    state = RunState(
        config, lineage, learner, replay=replay, demonstrations=read_demonstrations(config)
    )
    state.require_room()
    blocks = [block for _, block in frames]
    store = CheckpointStore(paths.checkpoints, lineage.run_id)
    store.save(to_plain(state), rows, rows, lambda _: blocks)
    describe_run(paths, config, lineage)


def train(
    paths: RunPaths,
    given: dict[str, Any],
    resume: bool,
    say: Callable[[str], None],
    plain: bool = False,
) -> None:
    """Start a run with the given settings, or resume it, and train until its budget is spent.

    Ctrl-C, SIGTERM and SIGHUP end it after the current step, with a checkpoint.

    Args:
        given: settings by their flat names. A resume may change those that bind only the machine.
        say: called with lines about the device, the precision and the replay.
        plain: show plain lines instead of the live panel.

    Raises:
        UserError: for every mistake that the user can correct.
    """
    keep_freed_memory()
    leave_cores_to_the_learner()
    if resume:
        if not CheckpointStore(paths.checkpoints).exists():
            paths.require_stats()
            raise UserError(f"run {paths.run_name!r} has no checkpoint; choose another --run-name")
        with paths.lock() as lock:
            _train(paths, lock, given, say, plain)
        return
    paths.require_new()
    config = Config().replaced(given)
    device = choose_device(config.run.device)
    _place_replay(config, device, "use at most --replay-capacity {largest}")
    with paths.lock() as lock:
        learner = build_learner(config, torch.device("cpu"))
        create_run(paths, config, learner.begin_state().result(), Lineage())
        _train(paths, lock, given, say, plain)


@dataclass(frozen=True)
class _Machine:
    """The parts of the machine that a run uses."""

    device: torch.device
    trunk_dtype: torch.dtype
    frames_device: torch.device | None


@shortage_is_told()
def _train(
    paths: RunPaths, lock: RunLock, given: dict[str, Any], say: Callable[[str], None], plain: bool
) -> None:
    """Train from the newest checkpoint on."""
    with ExitStack() as stack:
        session = _open(paths, lock, given, say, plain, stack)
        try:
            session.run()
        except (Diverged, RunInUse):
            raise
        except (UserError, OSError) as error:
            raise UserError(f"{reason(error)}; go on with: {resume_command(paths)}") from None


def _open(
    paths: RunPaths,
    lock: RunLock,
    given: dict[str, Any],
    say: Callable[[str], None],
    plain: bool,
    stack: ExitStack,
) -> Session:
    """The run as it was at the newest checkpoint. The stack closes its parts."""
    store = CheckpointStore(paths.checkpoints)
    checkpoint = store.load(RunState.from_file, RunState.check_frames)
    require_own_files(paths, checkpoint.state.lineage)
    checkpoint.state.require_room()
    config = _resumed_config(checkpoint.state.config, given)
    machine = _prepare_machine(config, say)
    config = with_threads(config)  # a run from before they were measured has none
    check_machine(paths, config, checkpoint.state.learner.online_net)
    describe_run(paths, config, checkpoint.state.lineage)
    progress, model = checkpoint.state.progress, None
    if progress and progress.evaluator.best:
        progress, model = _with_model(paths, progress)
    note_session(paths, progress.trainer.env_steps if progress else 0)
    state = replace(checkpoint.state, config=config, progress=progress)
    signals = Signals()
    stack.enter_context(signals.handled())
    display = stack.enter_context(closing(Display(paths.run_name, plain)))
    trainer = _build_trainer(paths, state, checkpoint.frames, machine, display, stack)
    evaluator = Evaluator(trainer, progress.evaluator if progress else EvaluatorState())
    saver = Saver(
        paths,
        trainer,
        evaluator,
        store,
        state.lineage,
        lock.confirm,
        model,
        not (progress and progress.unwritten_model),
        progress.checkpointed_episodes if progress else 0,
    )
    stack.enter_context(closing(saver))
    # A continued run is evaluated before its first step.
    evaluate_first = state.lineage.iteration > 1 and evaluator.best is None
    session = Session(paths, trainer, evaluator, saver, display, signals, evaluate_first)
    return stack.enter_context(closing(session))


def _prepare_machine(config: Config, say: Callable[[str], None]) -> _Machine:
    device, line = prepare_device(config.run)
    say(line)
    dtype = trunk_dtype(config.run.precision, device)
    say(f"precision: convolutions in {str(dtype).removeprefix('torch.')}, the rest in float32")
    frames_place, line = _place_replay(config, device, "free some to continue this run")
    say(line)
    return _Machine(device, dtype, frames_place)


def _build_trainer(
    paths: RunPaths,
    state: RunState,
    frames: list[tuple[int, np.ndarray]],
    machine: _Machine,
    display: Display,
    stack: ExitStack,
) -> Trainer:
    config, progress = state.config, state.progress
    exploration = config.exploration
    games = stack.enter_context(
        closing(build_games(config, exploration.num_envs, display.line, exploration.num_retrying))
    )
    contents = _recorded(paths, progress.records) if progress else {}
    env_steps = progress.trainer.env_steps if progress else 0
    run = TrackedRun(paths.run_name, paths.stats, config, state.lineage, env_steps)
    recorder = stack.enter_context(closing(Recorder(paths, contents, Trackers(run))))
    learner = stack.enter_context(
        closing(build_learner(config, machine.device, machine.trunk_dtype))
    )
    learner.set_threads(config.run.threads)
    learner.load_state(state.learner)
    guide = progress.trainer.rollout.guide if progress else None
    demonstrations = guide.demonstrations if guide else state.demonstrations
    trainer = build_trainer(config, learner, games, recorder, machine.frames_device, demonstrations)
    if progress:
        trainer.load_state(progress.trainer, frames)
        display.line(f"resumed at {trainer.episodes} episodes, {trainer.env_steps:,} steps")
    elif state.replay:  # inherited from the run of the model that this one begins with
        trainer.replay.load_state(state.replay, frames)
    return trainer


def _recorded(paths: RunPaths, records: Mapping[str, Any]) -> dict[str, bytes]:
    """What the CSV files held at a checkpoint, by file name."""
    if all(isinstance(value, int) for value in records.values()):  # schema 1 knew only their sizes
        sizes = {f"{name}.csv": size for name, size in records.items()}
        return {name: (paths.stats / name).read_bytes()[:size] for name, size in sizes.items()}
    return {name: np.asarray(content).tobytes() for name, content in records.items()}


def _with_model(paths: RunPaths, progress: Progress) -> tuple[Progress, SavedModel | None]:
    """The best model. If its file is gone or damaged, let the next evaluation write one."""
    if progress.unwritten_model is not None:
        return progress, progress.unwritten_model
    try:
        if paths.model.exists():
            return progress, SavedModel.load(paths.model)
        warn(f"{paths.model} is gone; the next evaluation writes another")
    except DamagedFile as error:
        warn(f"{error}; the next evaluation writes another")
    return replace(progress, evaluator=replace(progress.evaluator, best=None)), None


def _resumed_config(config: Config, given: dict[str, Any]) -> Config:
    # These were decided when the run was created.
    if given.get("emulator") == "auto":
        given = {**given, "emulator": config.env.emulator}
    if given.get("threads") == 0:
        given = {**given, "threads": config.run.threads}
    changed, before = config.replaced(given), config.flat()
    for name in given.keys() - set(bound("machine")):
        if given[name] != before[name]:
            was = _shown(name, before[name])
            raise UserError(
                f"{_flag(name, given[name])}: the run was started with {was}, and a resumed run "
                "keeps its settings; leave the flag out, or use continue_training.py"
            )
    return changed


def _flag(name: str, value: Any) -> str:
    """As one writes it on the command line."""
    return _shown(name, value) if isinstance(value, bool) else f"{flag_of(name)} {value}"


def _shown(name: str, value: Any) -> str:
    """The value; of a switch the flag that means it."""
    return flag_of(name if value else f"no_{name}") if isinstance(value, bool) else str(value)


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
    required = PrioritizedReplay.required_bytes(config.replay, config.env.frame_shape)
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
