"""The share of the loop's time in which the policy chooses the actions of all games.

That is the gathering of their observations, the network and the draw of random actions; the
emulators stand still meanwhile. The rounds also tell where the rest of the loop's time goes.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import ROUNDS, Contender, Result, Turns, main, result
from benchmarks.training import CONFIG, STEPS, new_trainer, train


def run() -> Result:
    with Contender(__spec__.name, "loop") as loop:
        answers = [loop.round(benchmark="inference", round=number) for number in range(ROUNDS + 1)]
    shares = [
        (answer["stacks"] + answer["q_values"] + answer["choose"]) / answer["seconds"]
        for answer in answers[1:]
    ]
    return result(9, "inference", shares, bar=0.10, at_most=True)


def _loop(turns: Turns) -> None:
    spent: dict[str, float] = {}

    def timed(owner: Any, name: str) -> None:
        method: Callable[..., Any] = getattr(owner, name)

        def call(*arguments: Any) -> Any:
            started = time.perf_counter()
            value = method(*arguments)
            label = name.removeprefix("_")
            spent[label] = spent.get(label, 0.0) + time.perf_counter() - started
            return value

        setattr(owner, name, call)

    with tempfile.TemporaryDirectory() as directory:
        trainer = new_trainer(CONFIG, Path(directory))
        # One after the other, except `update`, which runs beside them.
        timed(trainer.replay.ring, "stacks")
        timed(trainer.learner.acting_net, "q_values")
        timed(trainer.rollout.exploration, "choose")
        timed(trainer, "_learn")  # waits for the last update, and draws the next batch
        timed(trainer, "_observe")  # `step_wait` is part of it
        timed(trainer.rollout.games, "step_wait")
        timed(trainer.learner, "update")
        train(trainer, CONFIG.learner.learning_starts + STEPS)

        def play() -> dict[str, Any]:
            spent.clear()
            return {**train(trainer, STEPS), **spent}

        turns.play(play)


if __name__ == "__main__":
    main(run, {"loop": _loop})
