"""Hashes of what the game does on fixed trajectories, for comparing emulator stacks.

Run as a script it prints them as JSON; `tests/data/trajectories.json` holds them.
"""

import hashlib
import json

import numpy as np

from mario_rl.config import EnvConfig
from mario_rl.games.emulator import resolved
from mario_rl.games.mario_game import MarioGame
from mario_rl.games.nes_py import CLASSIC

STAGES = ("1-1", "1-2", "4-2", "7-4", "full")
STEPS = 250


EMULATORS = ("nes-py", "fceumm")  # the second only where stable-retro is installed


def trajectory_hash(stage: str, emulator: str) -> str:
    """Of every frame, the console's memory, and our reward, end and info, over random play."""
    config = EnvConfig(
        stage=stage, emulator=emulator, action_set="complex", view="screen", frame_size=84,
        pixels="grey", show_buttons=False, stall_steps=60, death_penalty=2.5,
    )  # fmt: skip
    game = MarioGame(config)
    rng = np.random.default_rng(0)
    digest = hashlib.sha256()
    frame, _ = game.reset()
    action = 1
    for _ in range(STEPS):
        if rng.random() < 0.3:  # hold buttons for a while, or Mario gets nowhere
            action = int(rng.choice([1, 2, 3, 4, 4, 4, 5, 10, 11]))
        frame, reward, terminated, truncated, status = game.step(action)
        digest.update(frame.tobytes())
        digest.update(game.screen().tobytes())
        digest.update(game.ram())
        info = status._asdict()
        del info["saved"]  # there are no save points here, nor were there when the hashes were made
        digest.update(repr((reward, terminated, truncated, sorted(info.items()))).encode())
        if terminated or truncated:
            game.reset(int(rng.integers(31)))
    game.close()
    return digest.hexdigest()


def hashes(emulator: str) -> dict[str, str]:
    """By stage."""
    return {stage: trajectory_hash(stage, emulator) for stage in STAGES}


if __name__ == "__main__":
    installed = [name for name in EMULATORS if name == "nes-py" or resolved("auto") == name]
    print(
        json.dumps(
            {"classic": CLASSIC, "hashes": {name: hashes(name) for name in installed}}, indent=2
        )
    )
