"""What a checkpoint costs a run whose replay holds 200,000 transitions: `python -m
benchmarks.checkpoint`.

Rounds of training take turns, with a checkpoint begun at their start and without. A checkpoint
writes the networks, the optimizer, all that the replay knows but its frames, and the frames that
are new since the last: as many as 100 episodes, the default interval, are taken to bring.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import ROUNDS, scaled
from benchmarks.replay_memory import filled_replay
from benchmarks.training import CONFIG, new_trainer, train
from mario_rl.agent.saved_model import Lineage
from mario_rl.storage.checkpoint import CheckpointStore
from mario_rl.storage.paths import RunPaths
from mario_rl.training.evaluator import Evaluator, EvaluatorState
from mario_rl.training.saver import Saver

INTERVAL_STEPS = 100 * 200  # env steps of 100 episodes, of 200 each
ROUND_STEPS = 32 * scaled(24)


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        trainer = new_trainer(CONFIG, Path(directory))
        trainer.replay, _ = filled_replay(np.random.default_rng(0))
        paths = RunPaths(directory, "benchmark")
        store = CheckpointStore(paths.checkpoints)
        evaluator = Evaluator(trainer, EvaluatorState())
        saver = Saver(paths, trainer, evaluator, store, Lineage(), lambda: None)
        saver.begin()  # all frames, once
        saver.wait()
        train(trainer, CONFIG.learner.learning_starts + ROUND_STEPS)
        blocked, written, lost = [], [], []
        for number in range(ROUNDS):
            new_rows = INTERVAL_STEPS // trainer.replay.ring.num_envs
            rows = trainer.replay.ring.rows
            store._segments[-1] = replace(store._segments[-1], end_row=rows.stop - new_rows)
            undisturbed = _seconds(lambda: train(trainer, ROUND_STEPS))
            rows = trainer.replay.ring.rows
            store._segments[-1] = replace(store._segments[-1], end_row=rows.stop - new_rows)
            started = time.perf_counter()
            saver.begin()
            blocked.append(time.perf_counter() - started)
            ends: list[float] = []
            assert saver._saving is not None
            saver._saving.add_done_callback(
                lambda _, ends=ends: ends.append(time.perf_counter())  # type: ignore[misc]
            )
            train(trainer, ROUND_STEPS)
            took = time.perf_counter() - started
            saver.wait()
            written.append(ends[0] - started)
            lost.append(took - undisturbed)
            round_result = {"blocked": blocked[-1], "written": written[-1], "lost": lost[-1],
                            "round": number, "undisturbed": undisturbed}  # fmt: skip
            print(json.dumps(round_result), flush=True)
        bytes_written = sum(
            path.stat().st_size for path in sorted(paths.checkpoints.glob("*"))[-3:]
        )
        interval_s = INTERVAL_STEPS / ROUND_STEPS * undisturbed
        print(
            f"\na checkpoint of {bytes_written / 1e6:.0f} MB: training stands still for "
            f"{statistics.median(blocked):.3f} s (at most {max(blocked):.3f}), it is on disk after "
            f"{statistics.median(written):.1f} s, and training loses {statistics.median(lost):.2f} "
            f"s ({min(lost):.2f} to {max(lost):.2f}), "
            f"{statistics.median(lost) / interval_s:.2%} of the {interval_s:.0f} s between two"
        )
        saver.close()
        trainer.rollout.games.close()


def _seconds(play: Callable[[], object]) -> float:
    started = time.perf_counter()
    play()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
