"""A game that a person played, frame by frame, as a file from which it can be played again.

It is played on nes-py, whose game now and then misses the buttons of a frame (docs/emulators.md).
Where it may have, the same buttons are held for one frame more. So the game has read just the
buttons of the file, and FCEUmm plays the same game with them.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from mario_rl.config import FULL_GAME, STAGES
from mario_rl.errors import DamagedFile, UserError
from mario_rl.fields import Count, Items, Matching, Number, Within
from mario_rl.games.actions import button_bytes
from mario_rl.games.emulator import Emulator, resolved
from mario_rl.games.interface import FRAME_SKIP
from mario_rl.registry import EMULATORS
from mario_rl.storage.files import read_json, require_file, write_json
from mario_rl.storage.plain import read_as

_MOST_FRAMES = 10_000_000  # two days
# The buttons of the second player. The game reads both controllers, and ignores these.
SECOND_PLAYER, MARK = 0x06FD, 0x55
# Where Mario is, how fast, and to a fraction of a pixel
_MARIO = (0x1D, 0x57, 0x6D, 0x86, 0x9F, 0xB5, 0xCE, 0x0400, 0x0433)


@dataclass(frozen=True)
class Demonstration:
    """The content of the file."""

    stage: str
    outcome: Literal["clear", "death", "unfinished"]
    max_x: Count  # pixels
    game_score: Count
    # The buttons as in `actions.button_bytes`, and for how many frames each are held
    buttons: Annotated[list[Annotated[int, Within("[0, 255]")]], Items("[0, 200000]")]
    frames: Annotated[list[Number], Items("[0, 200000]")]
    positions: Annotated[str, Matching("[0-9a-f]{64}", "a SHA-256")]  # of Mario in each frame
    kind: Literal["mario-rl demonstration"] = "mario-rl demonstration"
    schema: Literal[1] = 1

    def by_frame(self) -> Iterator[int]:
        """The buttons of each frame."""
        for buttons, frames in zip(self.buttons, self.frames, strict=True):
            yield from [buttons] * frames

    def decisions(self, action_set: str) -> np.ndarray:
        """The same as decisions of an agent, uint8 [steps]: of each, the action whose buttons have
        most in common with those of its frames. They lead to another game unless the buttons were
        those of actions, and were held for whole decisions."""
        frames = np.fromiter(self.by_frame(), dtype=np.uint8)
        whole = np.pad(frames, (0, -len(frames) % FRAME_SKIP), mode="edge").reshape(-1, FRAME_SKIP)
        actions = np.array(button_bytes(action_set), dtype=np.uint8)
        differing = np.bitwise_xor(whole[:, :, None], actions)
        return np.unpackbits(differing[..., None], axis=-1).sum((1, 3)).argmin(1).astype(np.uint8)

    def write(self, path: Path) -> None:
        """
        Raises:
            OSError: if the file cannot be written.
        """
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "Demonstration":
        """
        Raises:
            UserError: if it is not such a file, or damaged.
        """
        require_file(path)
        content = read_json(path)
        if content.get("kind") != cls.kind:
            raise DamagedFile(f"{path} is not a demonstration")
        demonstration: Demonstration = read_as(cls, content, path)
        if demonstration.stage not in (FULL_GAME, *STAGES):
            raise DamagedFile(f"{path} is damaged: there is no stage {demonstration.stage!r:.20}")
        if len(demonstration.buttons) != len(demonstration.frames):
            raise DamagedFile(f"{path} is damaged: not as many buttons as frames")
        if sum(demonstration.frames) > _MOST_FRAMES:
            raise DamagedFile(f"{path} is damaged: more than {_MOST_FRAMES:,} frames")
        return demonstration

    def replay(
        self, emulator: str, on_frame: Callable[[Emulator], object] = lambda emulator: None
    ) -> None:
        """Play it again.

        Args:
            on_frame: called after each of its frames.

        Raises:
            UserError: if that leads to another game.
        """
        made: Emulator = EMULATORS.get(resolved(emulator))(self.stage, None)
        with closing(made):
            take = Take(made)
            for buttons in self.by_frame():
                if made.is_over:
                    break
                take.step(buttons)
                on_frame(made)
            if take.demonstration(self.stage) != self:
                raise UserError(f"on {emulator} this demonstration becomes another game")


class Take:
    """One game from its start on, which remembers the buttons."""

    def __init__(self, emulator: Emulator) -> None:
        emulator.reset()
        self.emulator = emulator
        self.max_x = emulator.memory.x
        self.retries = 0
        self._held: list[int] = []
        self._mario: list[bytes] = []  # in each frame
        self._may_have_missed = False
        self._saved = 0, self.max_x

    def __len__(self) -> int:
        """In frames."""
        return len(self._held)

    def step(self, buttons: int) -> None:
        """Let one frame pass with these buttons, or with those of the frame before if the game may
        have missed them."""
        ram = self.emulator.memory.ram
        if self._may_have_missed:
            buttons = self._held[-1]
        if not ram.readonly:  # nes-py; FCEUmm's game reads the buttons of every frame
            ram[SECOND_PLAYER] = MARK
        self.emulator.step(buttons)
        ram = self.emulator.memory.ram
        self._may_have_missed = not self._may_have_missed and ram[SECOND_PLAYER] == MARK
        self._held.append(buttons)
        self._mario.append(bytes(ram[address] for address in _MARIO))
        self.max_x = max(self.max_x, self.emulator.memory.x)

    @property
    def can_save(self) -> bool:
        """Whether the game has read all buttons. nes-py's states do without those it has not."""
        return not (self.emulator.is_over or self._may_have_missed)

    def save(self) -> None:
        self.emulator.save()
        self._saved = len(self), self.max_x

    def retry(self) -> None:
        """Go back to where it was saved, or to the start."""
        self.emulator.restore()
        frames, self.max_x = self._saved
        del self._held[frames:], self._mario[frames:]
        self._may_have_missed = False
        self.retries += 1

    @property
    def outcome(self) -> Literal["clear", "death", "unfinished"]:
        memory = self.emulator.memory
        if not self.emulator.is_over:
            return "unfinished"
        return "clear" if memory.has_flag or memory.is_won else "death"

    def demonstration(self, stage: str) -> Demonstration:
        runs = [(buttons, len(list(held))) for buttons, held in groupby(self._held)]
        return Demonstration(
            stage=stage,
            outcome=self.outcome,
            max_x=self.max_x,
            game_score=self.emulator.memory.score,
            buttons=[buttons for buttons, _ in runs],
            frames=[frames for _, frames in runs],
            positions=hashlib.sha256(b"".join(self._mario)).hexdigest(),
        )
