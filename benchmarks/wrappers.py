"""Our environment against gym-super-mario-bros with the usual wrappers, in decisions/s.

Both play the same actions, deliver a stack of four frames for each, as an array, and must come to
the same state of the console.
"""

from collections import deque

import numpy as np

from benchmarks.environment import ACTIONS, CONFIG, timed
from benchmarks.harness import Contender, Result, Turns, compare, main, result
from mario_rl.config import STACK
from mario_rl.games.mario_game import MarioGame


def run() -> Result:
    with Contender(__spec__.name, "ours") as ours, Contender(__spec__.name, "stock") as stock:
        return result(2, "wrappers", compare("wrappers", ours, stock), bar=1.15)


def _ours(turns: Turns) -> None:
    game = MarioGame(CONFIG)
    frames: deque[np.ndarray] = deque(maxlen=STACK)

    def reset() -> None:
        frame, _ = game.reset()
        frames.extend([frame] * STACK)

    def play() -> None:
        for action in ACTIONS:
            frame, *_ = game.step(action)
            frames.append(frame)
            np.stack(frames)

    turns.play(lambda: timed(reset, play, lambda: game.ram()))


def _stock(turns: Turns) -> None:
    from benchmarks.stock_wrappers import FrameStack, Grey84, MaxAndSkip, joypad_env

    joypad = joypad_env()
    env = FrameStack(Grey84(MaxAndSkip(joypad)))

    def play() -> None:
        for action in ACTIONS:
            obs, *_ = env.step(action)
            np.asarray(obs)

    turns.play(lambda: timed(env.reset, play, lambda: bytes(joypad.unwrapped.ram)))


if __name__ == "__main__":
    main(run, {"ours": _ours, "stock": _stock})
