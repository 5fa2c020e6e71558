"""How well the workers use the cores: all games together against cores x one game alone.

No learner runs. The same random actions are played in both, game by game in the one and side by
side in the other, so that the emulators have the same work; resets happen where episodes end.
"""

import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.environment import CONFIG
from benchmarks.harness import Contender, Result, Turns, compare, main, result, scaled
from mario_rl.config import EnvConfig
from mario_rl.games.actions import action_names
from mario_rl.games.interface import RESET, Games
from mario_rl.games.mario_game import MarioGame
from mario_rl.games.workers import WorkerGames
from mario_rl.machine import available_cores

NUM_GAMES = 8
STEPS = scaled(120)
_NUM_ACTIONS = len(action_names(CONFIG.action_set))
# [steps, games]; what an episode's end leaves no use for is skipped.
ACTIONS = np.random.default_rng(0).integers(_NUM_ACTIONS, size=(STEPS, NUM_GAMES))


def run() -> Result:
    return _run(3, "actors", "nes-py")


def run_fceumm() -> Result:
    return _run(12, "fceumm actors", "fceumm")


def _run(number: int, name: str, emulator: str) -> Result:
    with (
        Contender(__spec__.name, "workers", arguments=[emulator]) as workers,
        Contender(__spec__.name, "alone", arguments=[emulator]) as alone,
    ):
        ratios = compare(name, workers, alone)
    return result(number, name, [ratio / available_cores() for ratio in ratios], bar=0.90)


def step(games: Games, commands: np.ndarray) -> np.ndarray:
    """Carry out actions and resets, int [N]; returns which episodes ended, bool [N]."""
    games.step_async(commands, np.zeros(games.num_envs, dtype=np.int64))
    _, records = games.step_wait()
    return records["terminated"] | records["truncated"]


def play_at_random(games: Games, done: np.ndarray, rng: np.random.Generator, steps: int) -> int:
    """Random actions, and a reset where `done`, bool [N], which is kept up to date.

    Returns:
        How many decisions were made.
    """
    decisions = 0
    for _ in range(steps):
        commands = np.where(done, RESET, rng.integers(_NUM_ACTIONS, size=games.num_envs))
        done[:] = step(games, commands)
        decisions += int((commands != RESET).sum())
    return decisions


def _config() -> EnvConfig:
    return replace(CONFIG, emulator=sys.argv[2])


def _workers(turns: Turns) -> None:
    games = WorkerGames(_config(), NUM_GAMES, print)

    def play() -> dict[str, Any]:
        done = step(games, np.full(NUM_GAMES, RESET))
        decisions = 0
        started = time.perf_counter()
        for actions in ACTIONS:
            commands = np.where(done, RESET, actions)
            done = step(games, commands)
            decisions += int((commands != RESET).sum())
        return _round(time.perf_counter() - started, decisions)

    turns.play(play)


def _alone(turns: Turns) -> None:
    game = MarioGame(_config())

    def play() -> dict[str, Any]:
        seconds, decisions = 0.0, 0
        for actions in ACTIONS.T.tolist():
            game.reset()
            done = False
            started = time.perf_counter()
            for action in actions:
                if done:
                    game.reset()
                    done = False
                    continue
                _, _, terminated, truncated, _ = game.step(action)
                done = terminated or truncated
                decisions += 1
            seconds += time.perf_counter() - started
        return _round(seconds, decisions)

    turns.play(play)


def _round(seconds: float, decisions: int) -> dict[str, Any]:
    return {"seconds": seconds, "work": decisions, "state": str(decisions)}


if __name__ == "__main__":
    main(run, {"workers": _workers, "alone": _alone})
