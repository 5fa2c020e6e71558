"""A run from its creation to its end: files, budget, signals, memory and what the user is told.

A run begins its life as a checkpoint without any progress, made here or by continue_training.py,
so that starting, resuming and continuing are all the same: load the newest checkpoint and train.
"""

import datetime
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mario_rl.actors import WorkerDied, WorkerEnvs
from mario_rl.checkpoint import CheckpointStore
from mario_rl.config import Config, RunConfig, flag_of
from mario_rl.device import choose_device, gpu_memory, limit_memory, out_of_memory
from mario_rl.env import action_names
from mario_rl.errors import UserError
from mario_rl.files import RunPaths, read_json, write_json
from mario_rl.learner import Learner
from mario_rl.machine import (
    available_memory_bytes,
    git_commit,
    hardware,
    resident_memory_bytes,
    versions,
)
from mario_rl.model import Lineage, Model
from mario_rl.progress import Progress, Status
from mario_rl.recorder import Recorder
from mario_rl.replay import PrioritizedReplay
from mario_rl.trainer import Trainer

_HEADROOM_BYTES = 1 << 30  # for the networks, the workers and the system
# What a resumed run may change: the budget and the machine, but not what it computes.
_RESUMABLE = frozenset(RunConfig.__dataclass_fields__) - {"seed"}


def create_run(
    paths: RunPaths, config: Config, learner_state: dict[str, Any], lineage: Lineage
) -> None:
    """Write a run's first checkpoint, its config.json and its run.json.

    Raises:
        UserError: if there is a run of that name.
    """
    if paths.exists():
        raise UserError(
            f"run {paths.run_name!r} exists: add --resume to go on with it, "
            "or choose another --run-name"
        )
    state = {
        "config": config.to_dict(),
        "lineage": asdict(lineage),
        "learner": learner_state,
        "progress": None,
    }
    CheckpointStore(paths.checkpoints).save(state, range(0), lambda row: torch.empty(0).numpy())
    _describe(paths, config, lineage)


def train(paths: RunPaths, given: dict[str, Any], resume: bool) -> None:
    """Start a run with the given settings, or resume it, and train until its budget is spent.

    Ctrl-C and SIGTERM end it after the current step, with a checkpoint.

    Raises:
        UserError: for everything that the user can mend.
    """
    if not resume and paths.exists():
        raise UserError(
            f"run {paths.run_name!r} exists: add --resume to go on with it, "
            "or choose another --run-name"
        )
    if resume and not CheckpointStore(paths.checkpoints).exists():
        paths.require_stats()
        raise UserError(f"run {paths.run_name!r} has no checkpoint; choose another --run-name")
    with paths.lock():
        if not resume:
            config = Config().replaced(given)
            _require_memory(config)
            learner = _new_learner(config, choose_device("cpu"))
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
    print(limit_memory(device, config.run.gpu_memory_fraction))
    print(_require_memory(config))
    _describe(paths, config, lineage)
    progress = state["progress"]
    positions = progress["records"] if progress else {}
    env_steps = progress["counters"]["env_steps"] if progress else 0
    _note_session(paths, env_steps)
    with (
        closing(WorkerEnvs(config.env, config.exploration.num_envs)) as envs,
        Recorder(paths, positions, env_steps) as recorder,
        Progress(paths.run_name) as display,
        _stop_signals() as stop_requested,
    ):
        learner = _new_learner(config, device)
        learner.load_state_dict(state["learner"])
        trainer = Trainer(config, learner, envs, recorder)
        if progress:
            trainer.load_state_dict(progress, checkpoint.frames)
            display.line(f"resumed at {trainer.episodes} episodes, {trainer.env_steps:,} steps")
        try:
            with closing(
                _Session(paths, trainer, store, lineage, display, stop_requested)
            ) as session:
                session.run()
        except torch.OutOfMemoryError:
            raise out_of_memory(config.run.gpu_memory_fraction) from None
        except WorkerDied as error:
            raise UserError(f"{error}; go on with: {resume_command(paths)}") from None


class _Session:
    """One process's share of a run."""

    def __init__(
        self,
        paths: RunPaths,
        trainer: Trainer,
        store: CheckpointStore,
        lineage: Lineage,
        display: Progress,
        stop_requested: Callable[[], bool],
    ) -> None:
        self._paths = paths
        self._trainer = trainer
        self._store = store
        self._lineage = lineage
        self._eval_envs: WorkerEnvs | None = None  # started with the first evaluation
        self._display = display
        self._stop_requested = stop_requested

    def close(self) -> None:
        if self._eval_envs is not None:
            self._eval_envs.close()

    def run(self) -> None:
        trainer = self._trainer
        self._display.update(self._status())
        if self._lineage.iteration > 1 and trainer.best_evaluation is None:
            self._evaluate()  # what this iteration starts from
        while True:
            if trainer.evaluation_due():
                self._evaluate()
            if trainer.checkpoint_due():
                self._save()
            if self._stop_requested() or trainer.budget_spent() >= 1:
                break
            trainer.step()
            if self._display.due:
                self._display.update(self._status())
        self._save()
        self._display.update(self._status())
        self._say_farewell()

    def _evaluate(self) -> None:
        trainer = self._trainer
        if self._eval_envs is None:
            config = trainer.config
            self._eval_envs = WorkerEnvs(config.env, config.exploration.num_envs)
        is_best = trainer.evaluate(self._eval_envs, self._stop_requested)
        if self._stop_requested() or trainer.last_evaluation is None:
            return
        record = trainer.last_evaluation
        if is_best:
            state = trainer.learner.state_dict()
            Model(
                run_name=self._paths.run_name,
                config=trainer.config,
                lineage=self._lineage,
                evaluation=asdict(record),
                weights=state["online_net"],
                optimizer=state["optimizer"],
            ).save(self._paths.model)
        self._display.line(
            f"evaluation at {record.env_steps:,} steps: {record.clears} of "
            f"{record.eval_episodes} cleared, mean x {record.mean_x:.0f}, best x {record.max_x}"
            + (f" -> {self._paths.model}" if is_best else "")
        )

    def _save(self) -> None:
        trainer = self._trainer
        trainer.checkpointed_episodes = trainer.episodes
        state = {
            "config": trainer.config.to_dict(),
            "lineage": asdict(self._lineage),
            "learner": trainer.learner.state_dict(),
            "progress": trainer.state_dict(),
        }
        self._store.save(state, trainer.replay.rows, trainer.replay.frames_since)

    def _status(self) -> Status:
        trainer = self._trainer
        returns, evaluation = trainer.recent_returns, trainer.best_evaluation
        return Status(
            episodes=trainer.episodes,
            num_episodes=trainer.config.run.num_episodes,
            env_steps=trainer.env_steps,
            updates=trainer.updates,
            epsilon=trainer.epsilon,
            loss=trainer.last_update.loss if trainer.last_update else None,
            mean_return=sum(returns) / len(returns) if returns else None,
            furthest=trainer.furthest,
            clear_rate=evaluation["clear_rate"] if evaluation else None,
            memory_bytes=resident_memory_bytes(),
            gpu_bytes=gpu_memory(trainer.learner.device)[0],
            budget_spent=trainer.budget_spent(),
        )

    def _say_farewell(self) -> None:
        trainer, paths = self._trainer, self._paths
        if trainer.budget_spent() < 1:
            self._display.line(f"stopped and saved; go on with: {resume_command(paths)}")
            return
        self._display.line(
            f"finished: {trainer.episodes} episodes, {trainer.env_steps:,} steps, "
            f"{trainer.hours:.2f} h (a larger --num-episodes with --resume goes on)"
        )
        best = trainer.best_evaluation
        assert best is not None
        self._display.line(
            f"best model: {paths.model} (clear rate {best['clear_rate']:.0%}, "
            f"mean x {best['mean_x']:.0f})"
        )


def resume_command(paths: RunPaths) -> str:
    """The command line that goes on with a run, as it works in the current directory."""
    script = Path(__file__).parent.parent / "progressive_mario_trainer.py"
    words = [_python(), _relative(script), "--run-name", paths.run_name, "--resume"]
    if paths.output_dir.resolve() != Path.cwd():
        words += ["--output-dir", str(paths.output_dir)]
    return shlex.join(words)


def _python() -> str:
    """The interpreter as a short name if that finds the same one."""
    found = shutil.which("python")
    same = found is not None and Path(found).absolute() == Path(sys.executable).absolute()
    return "python" if same else _relative(Path(sys.executable))


def _relative(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _new_learner(config: Config, device: torch.device) -> Learner:
    num_actions = len(action_names(config.env.action_set))
    return Learner(config.learner, num_actions, device, config.run.seed)


def _resumed_config(config: Config, given: dict[str, Any]) -> Config:
    before = config.flat()
    for name, value in given.items():
        if name not in _RESUMABLE and value != before[name]:
            raise UserError(
                f"{flag_of(name)} {value}: the run was started with {before[name]}, and a resumed "
                "run keeps its settings; leave the flag out, or use continue_training.py"
            )
    return config.replaced({name: value for name, value in given.items() if name in _RESUMABLE})


def _require_memory(config: Config) -> str:
    """A line on the replay's memory.

    Raises:
        UserError: if it does not fit into what is free, with the largest capacity that does.
    """
    capacity = config.replay.replay_capacity
    required = PrioritizedReplay.required_bytes(config.replay)
    free = available_memory_bytes()
    if required + _HEADROOM_BYTES > free:
        largest = int(capacity * max(0, free - _HEADROOM_BYTES) / required)
        raise UserError(
            f"--replay-capacity {capacity} takes {required / 2**30:.1f} GiB, but only "
            f"{free / 2**30:.1f} GiB are free; use at most --replay-capacity {largest}"
        )
    return (
        f"replay: {capacity:,} transitions, {required / 2**30:.2f} GiB of "
        f"{free / 2**30:.1f} GiB free memory"
    )


def _describe(paths: RunPaths, config: Config, lineage: Lineage) -> None:
    write_json(paths.config_json, config.to_dict())
    description = read_json(paths.run_json) if paths.run_json.exists() else None
    if description is None:
        description = {
            "schema": 1,
            "run_name": paths.run_name,
            "created": _now(),
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
    description["sessions"].append(session)
    write_json(paths.run_json, description)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """While inside, SIGINT and SIGTERM are only noted; a second SIGINT interrupts at once."""
    received: list[int] = []

    def note(number: int, _: Any) -> None:
        if number in received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
