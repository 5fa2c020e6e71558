"""The share of the loop's time in which the policy chooses the actions of all games.

That is the gathering of their observations, the network and the draw of random actions; the
emulators stand still meanwhile.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import ROUNDS, Contender, Result, Turns, main, result
from benchmarks.training import CONFIG, STEPS, new_trainer, train


def run() -> Result:
    with Contender(__spec__.name, "loop") as loop:
        answers = [loop.round(benchmark="inference", round=number) for number in range(ROUNDS + 1)]
    shares = [answer["inference_seconds"] / answer["seconds"] for answer in answers[1:]]
    return result(9, "inference", shares, bar=0.10, at_most=True)


def _loop(turns: Turns) -> None:
    with tempfile.TemporaryDirectory() as directory:
        trainer = new_trainer(CONFIG, Path(directory))
        choose_commands, spent = trainer._choose_commands, 0.0

        def timed_choose_commands() -> Any:
            nonlocal spent
            started = time.perf_counter()
            commands = choose_commands()
            spent += time.perf_counter() - started
            return commands

        trainer._choose_commands = timed_choose_commands  # type: ignore[method-assign]
        train(trainer, CONFIG.learner.learning_starts + STEPS)

        def play() -> dict[str, Any]:
            nonlocal spent
            spent = 0.0
            answer = train(trainer, STEPS)
            return {**answer, "inference_seconds": spent}

        turns.play(play)


if __name__ == "__main__":
    main(run, {"loop": _loop})
