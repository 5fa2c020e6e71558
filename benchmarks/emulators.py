"""FCEUmm: its environment against that of nes-py and against the bare core, and how long a game
takes to come back.

Every contender presses the same buttons. The two emulators do not come to the same state of the
console bit for bit (docs/emulators.md), so only the time is compared.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.environment import ACTIONS
from benchmarks.harness import ROUNDS, Contender, Result, Turns, compare, main, result, scaled
from mario_rl.config import EnvConfig
from mario_rl.games.actions import button_bytes
from mario_rl.games.fceumm import mask, rom_path
from mario_rl.games.interface import FRAME_SKIP, RESET
from mario_rl.games.mario_game import MarioGame

CONFIG = EnvConfig(stage="1-1", emulator="fceumm")
NUM_GAMES = 8
RESTORE_AT = scaled(1_000)  # decisions


def run_environment() -> Result:
    """Against nes-py on the fastest Python that `make bench` found: 3.13, if it is installed."""
    python = os.environ.get("MARIO_RL_OTHER_PYTHON", sys.executable)
    with (
        Contender(__spec__.name, "fceumm") as ours,
        Contender(__spec__.name, "nes-py", python) as other,
    ):
        return result(10, "fceumm environment", compare("fceumm", ours, other), bar=4.0)


def run_bare() -> Result:
    with Contender(__spec__.name, "fceumm") as ours, Contender(__spec__.name, "bare") as bare:
        return result(11, "fceumm bare", compare("fceumm bare", ours, bare), bar=0.85)


def run_restore() -> Result:
    """Milliseconds for each game, without the start of the processes."""
    with Contender(__spec__.name, "restore") as games:
        times = [games.round(benchmark="restore", round=i)["seconds"] for i in range(1 + ROUNDS)]
    each_ms = [1000 * seconds / NUM_GAMES for seconds in times[1:]]
    return result(13, "restore ms", each_ms, bar=20.0, at_most=True)


def _ours(emulator: str) -> Callable[[Turns], None]:
    def contend(turns: Turns) -> None:
        game = MarioGame(EnvConfig(stage="1-1", emulator=emulator))

        def decide() -> None:
            for action in ACTIONS:
                game.step(action)

        turns.play(lambda: _timed(game.reset, decide))

    return contend


def _bare(turns: Turns) -> None:
    import stable_retro

    # The start of the stage, from a process of its own: ours changes options of the core.
    code = (
        "import sys; from mario_rl.games.fceumm import Fceumm; "
        "sys.stdout.buffer.write(Fceumm('1-1').console_state)"
    )
    start = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout
    core = stable_retro.RetroEmulator(str(rom_path()))
    held = button_bytes(CONFIG.action_set)
    masks = [mask(held[action]) for action in ACTIONS]

    def play() -> None:
        for buttons in masks:
            core.set_button_mask(buttons, 0)
            for _ in range(FRAME_SKIP):
                core.step()
            core.get_screen()

    turns.play(lambda: _timed(lambda: core.set_state(start), play))


def _restore(turns: Turns) -> None:
    from mario_rl.games.workers import WorkerGames

    games = WorkerGames(CONFIG, NUM_GAMES, print)
    commands, noops = np.full(NUM_GAMES, RESET), np.zeros(NUM_GAMES, dtype=np.int64)
    for _ in range(RESTORE_AT):
        games.step_async(commands, noops)
        _, records = games.step_wait()
        ended = records["terminated"] | records["truncated"]
        commands = np.where(ended, RESET, 0)

    def play() -> dict[str, Any]:
        started = time.perf_counter()
        games.restore(games.positions, games.states())
        return {"seconds": time.perf_counter() - started, "work": NUM_GAMES}

    turns.play(play)


def _timed(reset: Callable[[], object], play: Callable[[], None]) -> dict[str, Any]:
    reset()
    started = time.perf_counter()
    play()
    return {"seconds": time.perf_counter() - started, "work": FRAME_SKIP * len(ACTIONS)}


if __name__ == "__main__":
    contenders = {"fceumm": _ours("fceumm"), "nes-py": _ours("nes-py")}
    main(run_environment, {**contenders, "bare": _bare, "restore": _restore})
