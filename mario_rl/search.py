"""Search a way to the flag, and write it as a demonstration.

python -m mario_rl.search --stage 8-1 --output 8-1.json

This is the first phase of Go-Explore (Ecoffet et al. 2021): go back to a saved state of the game,
explore from there with random actions, and remember each new kind of place with its state and the
shortest way to it. No network is trained. A way that is found proves that the stage can be cleared
with these actions, and can be followed by training games (--demos).

Deviations from the paper: 1. a place is described by the game's memory, not by its picture; 2. two
thirds of the places are chosen among the newest or the furthest.
"""

import random
import signal
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mario_rl.cli import Parser, number, run_script
from mario_rl.config import STAGES
from mario_rl.console import say, tell
from mario_rl.errors import UserError
from mario_rl.games.actions import action_names, button_bytes
from mario_rl.games.emulator import INSTALL_FCEUMM, Emulator, resolved
from mario_rl.games.interface import FRAME_SKIP
from mario_rl.games.memory import Memory
from mario_rl.registry import EMULATORS
from mario_rl.storage.demonstration import Demonstration, Take
from mario_rl.storage.files import new_file

_SHOWN_EVERY_S = 15
_CELL_PX = 24
_CELL_SPEED = 12  # in the game's units, of which Mario runs 40
_EXPEDITIONS_STEPS = (16, 32, 64)  # from a place on
_HELD_STEPS = (1, 2, 3, 4, 6, 8, 12)  # of a random action
_FRONTIER = 300  # places
_DRAWN = 4  # of which the one that was chosen least is taken
_SHORTER_STEPS = 4  # by so many a way is shorter


class Place(NamedTuple):
    """What makes two moments of a game alike."""

    area: int
    maze: tuple[int, int]
    x: int
    y: int
    speed: int
    float_state: int  # whether Mario stands, jumps, falls, ...

    @classmethod
    def of(cls, memory: Memory) -> "Place":
        return cls(
            memory.area,
            memory.maze,
            memory.x // _CELL_PX,
            memory.y // _CELL_PX,
            max(0, memory.speed) // _CELL_SPEED,
            memory.float_state,
        )


@dataclass(eq=False)
class Way:
    """The shortest way to a place that is known.

    Attributes:
        state: of the emulator there, compressed.
        before: the way to where its expedition began.
        actions: since then.
        length_steps: of all of it, in decisions.
    """

    state: bytes
    before: "Way | None"
    actions: bytes
    length_steps: int
    x: int
    times_chosen: int = 0

    def all_actions(self) -> bytes:
        parts = []
        way: Way | None = self
        while way is not None:
            parts.append(way.actions)
            way = way.before
        return b"".join(reversed(parts))


class Search:
    """The places of a stage that were found so far.

    Attributes:
        ways: to each place.
        steps: decisions played.
        found: the actions of the shortest way to the flag.
    """

    def __init__(self, emulator: Emulator, action_set: str, seed: int) -> None:
        """
        Args:
            emulator: of one stage.
        """
        self._emulator = emulator
        self._rng = random.Random(seed)
        self._buttons = button_bytes(action_set)
        self._weights = [4 if "right" in name else 1 for name in action_names(action_set)]
        self.ways: dict[Place, Way] = {}
        self.steps = 0
        self.found: bytes | None = None
        emulator.reset()
        self._remember(None, b"", 0)

    @property
    def furthest_x(self) -> int:
        return max(way.x for way in self.ways.values())

    def explore(self) -> None:
        """One expedition: from a place that was chosen on, with random actions."""
        way = self._chosen()
        way.times_chosen += 1
        self._emulator.load(zlib.decompress(way.state))
        actions = bytearray()
        for action in self._random_actions():
            length = way.length_steps + len(actions) + 1
            if self.found is not None and length >= len(self.found):
                return
            actions.append(action)
            self._step(action)
            if self._emulator.is_over:
                memory = self._emulator.memory
                if memory.has_flag or memory.is_won:
                    self.found = way.all_actions() + bytes(actions)
                return
            self._remember(way, bytes(actions), length)

    def _step(self, action: int) -> None:
        self.steps += 1
        for _ in range(FRAME_SKIP):
            if not self._emulator.is_over:
                self._emulator.step(self._buttons[action])

    def _random_actions(self) -> Iterator[int]:
        left = self._rng.choice(_EXPEDITIONS_STEPS)
        while left > 0:
            action = self._rng.choices(range(len(self._buttons)), self._weights)[0]
            held = min(left, self._rng.choice(_HELD_STEPS))
            left -= held
            yield from [action] * held

    def _chosen(self) -> Way:
        """A place that was seldom chosen: among all, the newest, or the furthest."""
        ways = list(self.ways.values())
        kind = self._rng.randrange(3)
        if kind == 1:
            ways = ways[-_FRONTIER:]
        elif kind == 2:
            ways = sorted(ways, key=lambda way: way.x)[-_FRONTIER:]
        drawn = (self._rng.choice(ways) for _ in range(_DRAWN))
        return min(drawn, key=lambda way: way.times_chosen)

    def _remember(self, before: Way | None, actions: bytes, length: int) -> None:
        """That there is a way to where the game stands, if it is new or shorter."""
        place = Place.of(self._emulator.memory)
        known = self.ways.get(place)
        if known is None or length <= known.length_steps - _SHORTER_STEPS:
            state = self._emulator.state()
            assert state is not None  # FCEUmm's
            packed, x = zlib.compress(state, 1), self._emulator.memory.x
            self.ways[place] = Way(packed, before, actions, length, x)


def search(stage: str, action_set: str, seed: int, max_steps: int) -> Demonstration:
    """Search until a way is found, and as long again for shorter ones.

    Args:
        max_steps: give up after so many decisions.

    Raises:
        UserError: if none is found.
    """
    if resolved("auto") != "fceumm":
        raise UserError(f"a search needs saved states, and so stable-retro: {INSTALL_FCEUMM}")
    with closing(EMULATORS.get("fceumm")(stage, None)) as emulator:
        searching = Search(emulator, action_set, seed)
        shown, end = time.monotonic(), max_steps
        while searching.steps < end:
            best = searching.found
            searching.explore()
            if best is None and searching.found is not None:
                end = min(max_steps, 2 * searching.steps)
            if searching.found is not best or time.monotonic() > shown + _SHOWN_EVERY_S:
                shown = time.monotonic()
                say(_line(searching))
        if searching.found is None:
            raise UserError(f"no way through {stage} in {max_steps:,} decisions")
        emulator.reset()
        take, buttons = Take(emulator), button_bytes(action_set)
        for action in searching.found:
            for _ in range(FRAME_SKIP):
                if not emulator.is_over:
                    take.step(buttons[action])
        return take.demonstration(stage)


def _line(searching: Search) -> str:
    line = (
        f"{searching.steps:,} decisions  {len(searching.ways):,} places  "
        f"furthest x={searching.furthest_x}"
    )
    return (
        line if searching.found is None else f"{line}  cleared in {len(searching.found)} decisions"
    )


def main() -> None:
    parser = Parser("Search a way to the flag of a stage.", "mario_rl.search")
    add = parser.add_argument
    add("--stage", choices=STAGES, metavar="STAGE", required=True)
    add("--output", type=Path, metavar="FILE", required=True, help="the demonstration")
    add(
        "--action-set",
        choices=("right", "simple", "complex"),
        default="simple",
        help="the actions that may be used (default: %(default)s)",
    )
    add(
        "--max-steps",
        type=number(int, "[1, inf)"),
        default=1_000_000,
        help="give up after so many decisions (default: %(default)s)",
    )
    add("--seed", type=number(int, "[0, 4294967295]"), default=0, help="default: 0")
    args = parser.parse_args()
    for ending in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: no empty file stays
        signal.signal(ending, signal.default_int_handler)
    with new_file(args.output, "--output"):
        demonstration = search(args.stage, args.action_set, args.seed, args.max_steps)
        demonstration.write(args.output)
    tell(f"{args.output}: {args.stage} cleared in {sum(demonstration.frames):,} frames")
    try:
        demonstration.replay("nes-py")
    except UserError as error:
        say(str(error))
    else:
        say("nes-py plays the same game")


if __name__ == "__main__":
    run_script(main)
