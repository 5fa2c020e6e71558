"""Whole training on 1-1 in env steps/s, against Stable-Baselines3's DQN (see `sb3_training`).

Both have 8 games, the same network, batches of 256 and 8 transitions learned from for each env
step, and have begun to learn when the first round starts.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import Contender, Result, Turns, compare, main, peers_python, result, scaled
from mario_rl.config import Config
from mario_rl.device import choose_device
from mario_rl.storage.paths import RunPaths
from mario_rl.storage.recorder import Recorder
from mario_rl.storage.trackers import Tracker
from mario_rl.training.assembly import build_games, build_learner, build_trainer
from mario_rl.training.trainer import Trainer

CONFIG = Config().replaced(
    {
        "stage": "1-1",
        "emulator": "nes-py",  # with which Stable-Baselines3 plays
        "num_envs": 8,
        "batch_size": 256,
        "replay_ratio": 8.0,
        "frame_size": 84,
        "network_width": 1.0,
        "num_quantiles": 1,
        "replay_capacity": 100_000,
        "learning_starts": max(256, scaled(1_000)),
        "device": "cpu",
    }
)
STEPS = 32 * scaled(12)  # of a round; 32 env steps to an update


def run() -> Result:
    peer = Contender(__spec__.name, "stable_baselines3", peers_python())
    with peer, Contender(__spec__.name, "ours") as ours:
        return result(8, "training", compare("training", ours, peer), bar=2.0)


def _ours(turns: Turns) -> None:
    with tempfile.TemporaryDirectory() as directory:
        trainer = new_trainer(CONFIG, Path(directory))
        train(trainer, CONFIG.learner.learning_starts + STEPS)
        turns.play(lambda: train(trainer, STEPS))


def new_trainer(config: Config, directory: Path) -> Trainer:
    """Without checkpoints, evaluation and display."""
    learner = build_learner(config, choose_device(config.run.device))
    exploration = config.exploration
    games = build_games(config, exploration.num_envs, print, exploration.num_retrying)
    recorder = Recorder(RunPaths(directory, "benchmark"), contents={}, trackers=Tracker())
    return build_trainer(config, learner, games, recorder)


def train(trainer: Trainer, steps: int) -> dict[str, Any]:
    env_steps, updates = trainer.env_steps, trainer.updates
    started = time.perf_counter()
    while trainer.env_steps < env_steps + steps:
        trainer.step()
    trainer.learner.wait()  # nothing may run while the other contender plays
    return {
        "seconds": time.perf_counter() - started,
        "work": trainer.env_steps - env_steps,
        "updates": trainer.updates - updates,
    }


def _stable_baselines3(turns: Turns) -> None:
    from benchmarks import sb3_training

    sb3_training.train(CONFIG, STEPS, turns)


if __name__ == "__main__":
    main(run, {"ours": _ours, "stable_baselines3": _stable_baselines3})
