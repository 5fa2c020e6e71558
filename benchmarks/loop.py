"""How well acting and learning overlap: the whole loop on two cores against its halves on one each.

At the replay ratio where a core of actors and a core of learning take equally long, a perfect loop
on both cores is as fast as either. The halves are what the loop must do in any case: the workers
play given actions, and the learner draws batches, updates the network and renews the priorities.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.actors import play_at_random
from benchmarks.harness import (
    ROUNDS,
    Contender,
    Result,
    Turns,
    main,
    result,
    scaled,
    stay_on_one_core,
)
from benchmarks.training import CONFIG, new_trainer, train
from mario_rl.training.assembly import build_games

UPDATES = scaled(8)  # of a round


def run() -> Result:
    with (
        Contender(__spec__.name, "actors") as actors,
        Contender(__spec__.name, "learner") as learner,
    ):
        halves = [actors, learner]
        speeds = [_speeds(halves, "calibration", number) for number in range(4)]
        env_steps_per_s, samples_per_s = map(statistics.median, zip(*speeds[1:], strict=True))
        replay_ratio = samples_per_s / env_steps_per_s
        print(json.dumps({"benchmark": "loop", "replay_ratio": replay_ratio}), flush=True)
        ratios = []
        with Contender(__spec__.name, "loop", arguments=[str(replay_ratio)]) as loop:
            for number in range(ROUNDS + 1):
                acting, learning, both = _speeds([*halves, loop], "loop", number)
                ratios.append(both / min(acting, learning / replay_ratio))
    return result(4, "loop", ratios[1:], bar=0.85)


def _speeds(contenders: list[Contender], benchmark: str, number: int) -> list[float]:
    answers = [c.round(benchmark=benchmark, round=number) for c in contenders]
    return [answer["work"] / answer["seconds"] for answer in answers]


def _actors(turns: Turns) -> None:
    stay_on_one_core()
    envs = build_games(CONFIG, CONFIG.exploration.num_envs, print)
    rng = np.random.default_rng(0)
    done = np.ones(envs.num_envs, dtype=np.bool_)

    def play() -> dict[str, Any]:
        started = time.perf_counter()
        decisions = play_at_random(envs, done, rng, 4 * UPDATES)
        return {"seconds": time.perf_counter() - started, "work": decisions}

    turns.play(play)


def _learner(turns: Turns) -> None:
    stay_on_one_core()
    with tempfile.TemporaryDirectory() as directory:
        trainer = new_trainer(CONFIG, Path(directory))
        train(trainer, CONFIG.learner.learning_starts)
        batch_size, rng = CONFIG.learner.batch_size, np.random.default_rng(0)

        def play() -> dict[str, Any]:
            started = time.perf_counter()
            for _ in range(UPDATES):
                batch = trainer.replay.sample(batch_size, 0.4, rng)
                trainer.learner.begin_update(batch)
                update = trainer.learner.fetch_update()
                assert update is not None
                trainer.replay.update_priorities(update.slots, update.td_errors, update.drawn_at)
            return {"seconds": time.perf_counter() - started, "work": UPDATES * batch_size}

        turns.play(play)


def _loop(turns: Turns) -> None:
    config = CONFIG.replaced({"replay_ratio": float(sys.argv[2])})
    steps = round(UPDATES * config.learner.batch_size / config.learner.replay_ratio)
    with tempfile.TemporaryDirectory() as directory:
        trainer = new_trainer(config, Path(directory))
        train(trainer, config.learner.learning_starts + steps)
        turns.play(lambda: train(trainer, steps))


if __name__ == "__main__":
    main(run, {"actors": _actors, "learner": _learner, "loop": _loop})
