"""What the training command does on the GPU: it repeats a run bit for bit, resumes it on another
device, says when memory is out, and learns to clear 1-1."""

import csv
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.gpu_check.check import Check, Outcome
from benchmarks.harness import ROOT
from mario_rl.storage.checkpoint import CheckpointStore
from mario_rl.storage.paths import RunPaths
from mario_rl.training.state import RunState

_GOAL, _OF = 90, 100
_COMMAND_S = 90.0  # for a short run, even on a busy machine
_END_S = 15.0  # for what comes after the last check


class Ended(NamedTuple):
    """A command that has ended."""

    code: int
    last_line: str  # of what it printed


class Command:
    """The training command, in a process of its own."""

    def __init__(self, check: Check, run_name: str, *flags: str) -> None:
        self._check = check
        self._log = check.directory / f"{run_name}.log"
        script = str(ROOT / "progressive_mario_trainer.py")
        run = ["--run-name", run_name, "--output-dir", str(check.directory), "--plain"]
        device = [] if "--device" in flags else ["--device", check.device.type]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, script, *run, *device, *flags], stdout=log, stderr=log
            )

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> Ended:
        """Until it ends.

        Raises:
            subprocess.TimeoutExpired: if that takes too long, or time is up.
        """
        code = self._process.wait(timeout=max(1.0, min(_COMMAND_S, self._check.left_s())))
        return Ended(code, (self._log.read_text().splitlines() or [""])[-1])


def commands(check: Check) -> Iterator[Outcome]:
    """Short runs, some of them at the same time."""
    batch_size = check.sizes.batch_size
    first = batch_size + 22
    ends = [str(first + batch_size // 4 * i) for i in (1, 2, 3)]  # each six updates further
    small = (
        "--stage 1-1 --games serial --threads 1 --num-envs 2 --replay-capacity 1000 "
        f"--eval-episodes 1 --stall-steps 20 --batch-size {batch_size} --learning-starts {first}"
    ).split()
    to_first_end = ("--max-steps", ends[0])
    with ExitStack() as stack:

        def start(run_name: str, *flags: str) -> Command:
            return stack.enter_context(Command(check, run_name, *small, *to_first_end, *flags))

        twins = [start(name, "--deterministic") for name in ("twin-1", "twin-2")]
        on_cpu = start("crossing", "--device", "cpu")
        is_cuda = check.device.type == "cuda"
        starved = [start("starved", *_little_memory(check))] if is_cuda else []
        yield _repeats(check, twins)
        yield _crosses(check, on_cpu, ends[1:])
        for command in starved:
            ended = command.wait()
            passed = ended.code == 2 and "GPU's memory limit is reached" in ended.last_line
            text = f"exit code {ended.code}: {ended.last_line:.200}"
            yield Outcome("out of memory", passed, text)


def _repeats(check: Check, twins: list[Command]) -> Outcome:
    codes = [twin.wait().code for twin in twins]
    states = [_state(check, name) for name in ("twin-1", "twin-2")]
    networks = [(state.learner.online_net, state.learner.average_net or {}) for state in states]
    same = all(
        torch.equal(ours[name], theirs[name])
        for ours, theirs in zip(*networks, strict=True)
        for name in ours
    )
    updates = _updates(states[0])
    text = f"two runs of {updates} updates are {'' if same else 'not '}the same bit for bit"
    return Outcome("--deterministic", same and updates > 0 and codes == [0, 0], text)


def _crosses(check: Check, on_cpu: Command, ends: list[str]) -> Outcome:
    """From a checkpoint of the CPU on the device, and back."""
    codes, updates = [on_cpu.wait().code], [_updates(_state(check, "crossing"))]
    for device, end in zip((check.device.type, "cpu"), ends, strict=True):
        flags = ("--resume", "--device", device, "--max-steps", end)
        with Command(check, "crossing", *flags) as command:
            codes.append(command.wait().code)
        updates.append(_updates(_state(check, "crossing")))
    passed = codes == [0, 0, 0] and 0 < updates[0] < updates[1] < updates[2]
    text = f"updates after a session on cpu, {check.device.type}, cpu: {updates}"
    return Outcome("resumed on another device", passed, text, {"codes": codes})


def _little_memory(check: Check) -> tuple[str, str]:
    """Less than PyTorch takes at once for a batch."""
    total = torch.cuda.get_device_properties(check.device).total_memory
    return "--gpu-memory-fraction", f"{(16 << 20) / total:.3g}"


def _state(check: Check, run_name: str) -> RunState:
    checkpoints = RunPaths(check.directory, run_name).checkpoints
    return CheckpointStore(checkpoints).load(RunState.from_file).state


def _updates(state: RunState) -> int:
    return state.progress.trainer.updates if state.progress else 0


def learns(check: Check) -> Iterator[Outcome]:
    """Train on 1-1 until a policy clears 90 of 100 games, or until time is up."""
    flags = ("--stage", "1-1", "--num-envs", str(check.sizes.workers), "--eval-interval", "10000")
    evaluations: list[dict[str, float]] = []
    with Command(check, "learns", *flags) as command:
        while command.running() and check.left_s() > _END_S:
            time.sleep(1)
            evaluations = read_evaluations(RunPaths(check.directory, "learns").evaluations_csv)
            if evaluations and has_reached(evaluations[-1]):
                break
        ended_early = None if command.running() else command.wait()
    name = f"{_GOAL} of {_OF} on 1-1"
    if ended_early is not None:
        yield Outcome(name, False, f"exit code {ended_early.code}: {ended_early.last_line:.200}")
    elif not evaluations:
        yield Outcome(name, None, "time was up before the first evaluation")
    else:
        last = evaluations[-1]
        best = max(evaluations, key=lambda row: row["clears"] / row["eval_episodes"])
        reached = has_reached(last)
        text = f"{'' if reached else 'not yet '}after {60 * last['hours']:.1f} minutes and "
        text += f"{last['env_steps']:,.0f} env steps, evaluations included"
        if not reached:
            text += f": at best {best['clears']:.0f} of {best['eval_episodes']:.0f}"
        yield Outcome(name, True if reached else None, text, {"evaluations": evaluations})


def read_evaluations(path: Path) -> list[dict[str, float]]:
    """The rows that are complete, of a file that another process writes."""
    if not path.exists():
        return []
    columns = ("env_steps", "hours", "eval_episodes", "clears")
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if None not in row.values()]
    return [{name: float(row[name]) for name in columns} for row in rows]


def has_reached(row: dict[str, float]) -> bool:
    return row["eval_episodes"] >= _OF and row["clears"] >= _GOAL / _OF * row["eval_episodes"]
