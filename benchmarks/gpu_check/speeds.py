"""How fast updates and the training loop are on the GPU."""

import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import torch

from benchmarks.gpu_check.check import CONFIG, Check, Outcome, name_of, new_batch, new_learner
from mario_rl.agent.cuda_graph import WARM_UPS
from mario_rl.agent.dqn import DQN
from mario_rl.config import Config
from mario_rl.device import frames_device, leave_cores_to_the_games, trunk_dtype
from mario_rl.games.interface import Games
from mario_rl.replay.prioritized import PrioritizedReplay
from mario_rl.storage.paths import RunPaths
from mario_rl.storage.recorder import Recorder
from mario_rl.storage.trackers import Tracker
from mario_rl.training.assembly import build_games, build_learner, build_trainer
from mario_rl.training.trainer import Trainer

_RATIOS = (8.0, 24.0, 96.0)


def updates(check: Check) -> Iterator[Outcome]:
    """How long an update of the default learner takes, kernel by kernel."""
    for dtype in (torch.float32, torch.bfloat16):
        yield _timed(f"update in {name_of(dtype)}", new_learner(check.device, dtype), check)


def graph(check: Check) -> Iterator[Outcome]:
    """How long the same takes as a CUDA graph, in the precision of a run, and which is faster."""
    dtype = trunk_dtype(CONFIG.run.precision, check.device)
    ms = {}
    for name, words in (("dqn", "kernel by kernel"), ("captured", "as a CUDA graph")):
        learner = new_learner(check.device, dtype, name=name)
        outcome = _timed(f"update in {name_of(dtype)} {words}", learner, check)
        ms[name] = outcome.figures["ms"]
        yield outcome
    if check.device.type != "cuda":
        yield Outcome("the graph", None, "only CUDA can tell whether it is faster")
        return
    ratio = ms["dqn"] / ms["captured"]
    default = "should be" if ratio > 1 else "should not be"
    text = f"{ratio:.2f} times as fast: it {default} the default on CUDA"
    yield Outcome("the graph", True, text, {"ratio": ratio})


def loops(emulator: str) -> Callable[[Check], Iterator[Outcome]]:
    """Env steps/s of the training loop at each replay ratio, with the usual update."""

    def run(check: Check) -> Iterator[Outcome]:
        yield from _loops(check, emulator, "dqn", _RATIOS)

    return run


def graph_loops(check: Check) -> Iterator[Outcome]:
    emulator = "fceumm" if importlib.util.find_spec("stable_retro") else "nes-py"
    yield from _loops(check, emulator, "captured", _RATIOS[1:])


def _loops(
    check: Check, emulator: str, learner: str, ratios: tuple[float, ...]
) -> Iterator[Outcome]:
    name = f"loop on {emulator}{', graph' if learner == 'captured' else ''}"
    package = {"fceumm": "stable_retro", "nes-py": "nes_py"}[emulator]
    if importlib.util.find_spec(package) is None:
        yield Outcome(name, None, f"{package} is not installed")
        return
    leave_cores_to_the_games()
    sizes = check.sizes
    config = CONFIG.replaced(
        {
            "emulator": emulator, "learner": learner, "num_envs": sizes.workers,
            "batch_size": sizes.batch_size, "learning_starts": sizes.learning_starts,
        }
    )  # fmt: skip
    with closing(build_games(config, sizes.workers, print, sizes.workers // 2)) as games:
        for ratio in ratios:
            if check.left_s() < 2 * sizes.loop_s:
                yield Outcome(f"{name}, replay ratio {ratio:g}", None, "no time is left")
                continue
            trainer = _trainer(check, config.replaced({"replay_ratio": ratio}), games)
            figures = _speed(trainer, sizes.loop_s)
            yield Outcome(
                f"{name}, replay ratio {ratio:g}",
                figures["updates_per_s"] > 0,
                f"{figures['env_steps_per_s']:.0f} env steps/s, "
                f"{figures['updates_per_s']:.0f} updates/s, {sizes.workers} games",
                figures,
            )


def _trainer(check: Check, config: Config, games: Games) -> Trainer:
    """As a run has it, without checkpoints and evaluations."""
    required = PrioritizedReplay.required_bytes(config.replay, config.env.frame_shape)
    return build_trainer(
        config,
        build_learner(config, check.device, trunk_dtype(config.run.precision, check.device)),
        games,
        Recorder(RunPaths(check.directory, "loop"), contents={}, trackers=Tracker()),
        frames_device(check.device, config.run.gpu_memory_fraction, required),
    )


def _speed(trainer: Trainer, least_s: float) -> dict[str, float]:
    while trainer.updates < WARM_UPS + 2:  # until the graph is captured
        trainer.step()
    trainer.learner.wait()
    env_steps, done, started = trainer.env_steps, trainer.updates, time.perf_counter()
    while time.perf_counter() - started < least_s:
        trainer.step()
    trainer.learner.wait()
    seconds = time.perf_counter() - started
    return {
        "env_steps_per_s": (trainer.env_steps - env_steps) / seconds,
        "updates_per_s": (trainer.updates - done) / seconds,
    }


def _timed(name: str, learner: DQN, check: Check) -> Outcome:
    batch, times_ms = new_batch(check.sizes, check.device), []
    for _ in range(check.sizes.updates + WARM_UPS + 2):
        started = time.perf_counter()
        learner.update(batch)  # which waits for its result
        times_ms.append(1000 * (time.perf_counter() - started))
    del times_ms[: WARM_UPS + 2]
    ms, low, high = statistics.median(times_ms), min(times_ms), max(times_ms)
    text = f"{ms:.2f} ms for {len(batch.slots)} transitions ({low:.2f} .. {high:.2f})"
    return Outcome(name, True, text, {"ms": ms, "min_ms": low, "max_ms": high})
