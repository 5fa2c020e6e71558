"""How far the same actions lead to the same game on both emulators: `docs/emulators.md`.

`python -m benchmarks.agreement --stage 2-1 --games 40` lets the shipped model of a stage play on
FCEUmm by the protocol of the evaluations, and plays its actions again on nes-py, frame by frame.
`--walks` does so with random actions, mostly to the right, on all stages in turn.
"""

import argparse
import math
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.harness import ROOT
from mario_rl.agent.saved_model import SavedModel
from mario_rl.config import STAGES
from mario_rl.evaluation.play import play_episodes
from mario_rl.games.actions import button_bytes
from mario_rl.games.emulator import Emulator
from mario_rl.games.interface import FRAME_SKIP
from mario_rl.games.memory import Memory
from mario_rl.games.serial import SerialGames
from mario_rl.registry import EMULATORS
from mario_rl.storage.demonstration import MARK, SECOND_PLAYER

# Where Mario and the enemies are, how fast, and what they are
_GAME = (
    0x1D, 0x0400, 0x0433, 0x071A, 0x071C, 0xB5, *range(0x16, 0x1C), *range(0x57, 0x5E),
    *range(0x6D, 0x74), *range(0x86, 0x8D), 0x9F, *range(0xCE, 0xD5),
)  # fmt: skip


def _memories(emulator: Emulator, held: Sequence[int]) -> list[bytes]:
    """The memory after each frame of a game."""
    emulator.reset()
    memories = []
    for buttons in held:
        if not emulator.memory.ram.readonly:  # nes-py
            emulator.memory.ram[SECOND_PLAYER] = MARK
        emulator.step(buttons)
        memories.append(bytes(emulator.memory.ram))
        if emulator.is_over:
            break
    return memories


def _parts(ours: list[bytes], theirs: list[bytes]) -> float:
    """The first frame in which two games differ; infinite if there is none."""
    for number, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if any(one[address] != other[address] for address in _GAME):
            return number
    return math.inf


def _skipped(fceumm: Emulator, nes_py: list[bytes], held: list[int]) -> list[int] | None:
    """The frames whose buttons nes-py's game never saw: with these left out, FCEUmm plays the same.

    The game reads them at the end of a frame. When it is late it reads those of the next frame, and
    then finds the mark here at the end of its frame. It also does when it was just in time. So the
    frames with the mark are tried out, always the one next that explains most.

    Returns:
        None if there are no such frames.
    """

    def parts(skipped: list[int]) -> float:
        read = [held[min(i + (i in skipped), len(held) - 1)] for i in range(len(held))]
        return _parts(_memories(fceumm, read), nes_py)

    marked = [i for i, memory in enumerate(nes_py) if memory[SECOND_PLAYER] == MARK]
    skipped: list[int] = []
    first = parts(skipped)
    while first < math.inf:
        tries = {i: parts([*skipped, i]) for i in marked if i < first}
        best = max(tries, key=lambda i: tries[i], default=0)
        if tries.get(best, 0) <= first:
            return None
        skipped.append(best)
        first = tries[best]
    return sorted(skipped)


def _games_of_a_model(stage: str, games: int) -> Iterator[tuple[str, list[int]]]:
    """The stage, and the buttons of each frame, of every game."""
    model = SavedModel.load(ROOT / "pretrained" / f"{stage}.pth")
    config = model.config.replaced({"emulator": "fceumm", "stage": stage}).env
    serial = SerialGames(config, min(8, games), print)
    played = play_episodes(model.network().q_values, serial, games, seed=0)
    serial.close()
    for one in played:
        yield stage, [0] * one.position.noop_frames + _held(one.position.actions, config.action_set)


def _walks(games: int) -> Iterator[tuple[str, list[int]]]:
    """As `_games_of_a_model`."""
    for number in range(games):
        rng = np.random.default_rng(number)
        actions: list[int] = []
        while len(actions) < 400:
            action = int(rng.choice([1, 2, 3, 4, 4, 4, 4, 4, 5, 6, 0, 9, 10]))
            actions += [action] * int(rng.integers(1, 9))
        yield STAGES[number % len(STAGES)], _held(actions, "complex")


def _held(actions: Sequence[int], action_set: str) -> list[int]:
    buttons = button_bytes(action_set)
    return [buttons[action] for action in actions for _ in range(FRAME_SKIP)]


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", choices=STAGES, default="2-1")
    parser.add_argument("--games", type=int, default=40)
    parser.add_argument("--walks", action="store_true")
    arguments = parser.parse_args()
    frames = parted = unexplained = 0
    games = arguments.games
    for stage, held in (
        _walks(games) if arguments.walks else _games_of_a_model(arguments.stage, games)
    ):
        nes_py, fceumm = (EMULATORS.get(name)(stage, None) for name in ("nes-py", "fceumm"))
        theirs, ours = _memories(nes_py, held), _memories(fceumm, held)
        first, last = _parts(ours, theirs), min(len(ours), len(theirs)) - 1
        skipped = _skipped(fceumm, theirs, held)
        frames += len(theirs)
        parted += first < math.inf
        unexplained += skipped is None
        print(
            f"{stage}: parts in frame {first}, x in frame {last}: {_x(theirs[last])} (nes-py) and "
            f"{_x(ours[last])} (FCEUmm), skipped on nes-py: {skipped}"
        )
        nes_py.close()
        fceumm.close()
    print(f"{parted} of {games} games part, in {frames} frames; {unexplained} unexplained")


def _x(memory: bytes) -> int:
    return Memory(memoryview(memory)).x


if __name__ == "__main__":
    _main()
