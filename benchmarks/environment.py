"""What our environment costs: its frames/s against the bare emulator's.

Both press the same buttons frame for frame and must come to the same state of the console.

`python -m benchmarks.environment under PYTHON` compares another interpreter's environment, with
another emulator package or one that was compiled otherwise, with this one's.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.harness import (
    ROOT,
    Contender,
    Result,
    Turns,
    compare,
    digest,
    main,
    print_table,
    result,
    scaled,
)
from mario_rl.config import EnvConfig
from mario_rl.games.interface import FRAME_SKIP
from mario_rl.games.mario_game import MarioGame

CONFIG = EnvConfig(stage="1-1", emulator="nes-py", frame_size=84)
# They clear the stage in 550 decisions; they do not reach the flag here.
_SCRIPT = (ROOT / "tests" / "data" / "clear_1-1.txt").read_text().strip()
ACTIONS = [int(action) for action in _SCRIPT[: scaled(300)]]


def run() -> Result:
    with Contender(__spec__.name, "ours") as ours, Contender(__spec__.name, "bare") as bare:
        return result(1, "environment", compare("environment", ours, bare), bar=0.92)


def _ours(turns: Turns) -> None:
    game = MarioGame(CONFIG)

    def decide() -> None:
        for action in ACTIONS:
            game.step(action)

    turns.play(lambda: timed(game.reset, decide, lambda: game.ram()))


def _bare(turns: Turns) -> None:
    from benchmarks.stock_wrappers import joypad_env

    joypad = joypad_env()
    env = joypad.unwrapped
    button_bytes = [joypad._action_map[action] for action in ACTIONS]

    def advance() -> None:
        for button_byte in button_bytes:
            for _ in range(FRAME_SKIP):
                # Writes the byte to the controller and calls the emulator, no more.
                env._frame_advance(button_byte)

    turns.play(lambda: timed(env.reset, advance, lambda: bytes(env.ram)))


def timed(
    reset: Callable[[], object], play: Callable[[], None], ram: Callable[[], bytes]
) -> dict[str, Any]:
    """A round: the script from the start of the stage; only `play` is timed."""
    reset()
    started = time.perf_counter()
    play()
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "work": FRAME_SKIP * len(ACTIONS), "state": digest(ram())}


def _under(python: str) -> Result:
    with (
        Contender(__spec__.name, "ours", python) as other,
        Contender(__spec__.name, "ours") as ours,
    ):
        return result(0, "other python", compare("other python", other, ours), bar=1.0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["under"]:
        print_table([_under(sys.argv[2])])
    else:
        main(run, {"ours": _ours, "bare": _bare})
