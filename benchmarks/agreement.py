"""How far the same actions lead to the same game on both emulators: `docs/emulators.md`.

`python -m benchmarks.agreement --stage 2-1 --games 40` lets the shipped model of a stage play on
FCEUmm by the protocol of the evaluations, and plays its actions again on nes-py, frame by frame.
"""

import argparse
import math
from collections.abc import Callable, Sequence

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

# The buttons of the second player. The game reads both controllers, and ignores these.
_SECOND_PLAYER, _MARK = 0x06FD, 0x55
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
            emulator.memory.ram[_SECOND_PLAYER] = _MARK
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

    marked = [i for i, memory in enumerate(nes_py) if memory[_SECOND_PLAYER] == _MARK]
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


def _main(say: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", choices=STAGES, default="2-1")
    parser.add_argument("--games", type=int, default=40)
    arguments = parser.parse_args()
    model = SavedModel.load(ROOT / "pretrained" / f"{arguments.stage}.pth")
    config = model.config.replaced({"emulator": "fceumm", "stage": arguments.stage}).env
    games = SerialGames(config, min(8, arguments.games), say)
    played = play_episodes(model.network().q_values, games, arguments.games, seed=0)
    games.close()
    nes_py, fceumm = (EMULATORS.get(name)(arguments.stage, None) for name in ("nes-py", "fceumm"))
    frames = parted = unexplained = 0
    for number, one in enumerate(played, start=1):
        buttons = button_bytes(config.action_set)
        held = [0] * one.position.noop_frames
        held += [buttons[action] for action in one.position.actions for _ in range(FRAME_SKIP)]
        theirs, ours = _memories(nes_py, held), _memories(fceumm, held)
        first, last = _parts(ours, theirs), min(len(ours), len(theirs)) - 1
        skipped = _skipped(fceumm, theirs, held)
        frames += len(theirs)
        parted += first < math.inf
        unexplained += skipped is None
        say(
            f"game {number}: {len(held)} frames, parts in frame {first}, "
            f"x in frame {last}: {_x(theirs[last])} (nes-py) and {_x(ours[last])} (FCEUmm), "
            f"skipped on nes-py: {skipped}"
        )
    say(f"{parted} of {len(played)} games part, in {frames} frames; {unexplained} unexplained")


def _x(memory: bytes) -> int:
    return Memory(memoryview(memory)).x


if __name__ == "__main__":
    _main()
