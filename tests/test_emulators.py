"""How far the two emulators show and play the same game: docs/emulators.md says it in words."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from colour_cartridge import FRAMES, cartridge, colours

from mario_rl.config import FULL_GAME, EnvConfig
from mario_rl.errors import UserError
from mario_rl.games import fceumm
from mario_rl.games.actions import button_bytes
from mario_rl.games.emulator import Emulator
from mario_rl.games.interface import FRAME_SKIP
from mario_rl.games.observation import Observer
from mario_rl.registry import EMULATORS
from mario_rl.storage.paths import RunPaths

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("stable_retro") is None, reason="needs stable-retro"
)

ROOT = Path(__file__).parent.parent
BUTTONS = button_bytes("complex")
NOOP, RIGHT, RIGHT_A, RIGHT_B, RIGHT_A_B = range(5)

# Addresses of the game's memory
FACTS = {"power": 0x756, "mario": 0x0E, "room": 0x750, "speed": 0x57, "part_of_x": 0x400}
ENEMIES = [*range(0x0F, 0x1C), *range(0x6E, 0x73), *range(0x87, 0x8C), *range(0xCF, 0xD4)]
KILL = {0xB5: 2}  # Mario is below the screen
TAKE_AXE = {0x770: 2, 0x772: 0}
NOTHING: Mapping[int, dict[int, int]] = {}


def go_to(world: int, stage: int, area: int) -> dict[int, int]:
    """What leads there with the next life."""
    return {0x75F: world - 1, 0x75C: stage - 1, 0x760: area - 1, **KILL}


def recorded(name: str) -> list[int]:
    """Actions of the complex set, a hexadecimal digit each."""
    return [int(digit, 16) for digit in (ROOT / "tests/data" / f"{name}.txt").read_text().strip()]


def walk(decisions: int, seed: int) -> list[int]:
    """Random actions, mostly to the right, each held for up to 8 decisions."""
    rng, actions = np.random.default_rng(seed), []
    while len(actions) < decisions:
        actions += [int(rng.choice([1, 2, 3, 4, 4, 4, 4, 4, 5, 6, 0, 9, 10]))] * rng.integers(1, 9)
    return actions[:decisions]


def facts(emulator: Emulator) -> dict[str, object]:
    """How the game stands."""
    memory = emulator.memory
    names = "x y world stage lives score coins clock has_flag is_won holds_a holds_b sees_warp_zone"
    return {
        "is_over": emulator.is_over,
        "enemies": [memory.ram[address] for address in ENEMIES],
        **{name: getattr(memory, name) for name in names.split()},
        **{name: memory.ram[address] for name, address in FACTS.items()},
    }


class Pair:
    """The same game on both emulators, with the same buttons frame by frame."""

    def __init__(self, stage: str) -> None:
        self.passed = Counter[str]()  # emulated frames, also those that pass within a step
        self.nes_py, self.fceumm = self.both = [
            EMULATORS.get(name)(stage, lambda screen, name=name: self.passed.update([name]))
            for name in ("nes-py", "fceumm")
        ]

    def frames(
        self,
        actions: list[int],
        noop_frames: int = 0,
        writes: Mapping[int, dict[int, int]] = NOTHING,
    ) -> Iterable[int]:
        """Play to the end of the game or the actions, and yield the number of each frame.

        Args:
            writes: what is written to the memory before a frame.
        """
        for emulator in self.both:
            emulator.reset()
        self.passed.clear()
        held = [BUTTONS[action] for action in actions for _ in range(FRAME_SKIP)]
        for number, buttons in enumerate([0] * noop_frames + held):
            self._write(writes.get(number, {}))
            for emulator in self.both:
                emulator.step(buttons)
            assert self.passed["nes-py"] == self.passed["fceumm"]
            yield number
            if any(emulator.is_over for emulator in self.both):
                break

    @property
    def shows_the_same(self) -> bool:
        """But for the first rows: there sprites that leave the screen are cut in other ways."""
        return np.array_equal(self.nes_py.screen[5:], self.fceumm.screen[5:])

    def _write(self, values: dict[int, int]) -> None:
        for address, value in values.items():
            self.nes_py.memory.ram[address] = value
        self.fceumm._write(values)


def observers(emulator: Emulator) -> list[Callable[[], np.ndarray]]:
    """The agent's frames by the default settings and by the first version's."""
    old = EnvConfig(view="screen", pixels="grey", show_buttons=False)
    return [Observer(config, emulator).frame for config in (EnvConfig(), old)]


def test_each_colour_is_shown_alike(tmp_path):
    from nes_py import NESEnv

    path = tmp_path / "colours.nes"
    path.write_bytes(cartridge())
    env = NESEnv(str(path))
    env.reset()

    def frames():
        for _ in range(FRAMES):
            env._frame_advance(0)
            yield int(env.ram[0]), env.screen

    nes_py = colours(frames())
    command = [sys.executable, "-m", "tests.colour_cartridge"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    assert json.loads(output) == nes_py
    assert len(set(map(tuple, nes_py))) == 55  # ten of them are black


# Above and under the ground, in water and in castles, by day and by night, on grass and in snow
STAGES = "1-1 1-2 1-3 1-4 2-2 2-3 3-1 4-2 6-3 7-4 8-3".split()


@pytest.mark.parametrize("stage", STAGES)
def test_the_picture_is_the_same(stage):
    pair = Pair(stage)
    nes_py, fceumm = map(observers, pair.both)
    for number in pair.frames(walk(26, seed=1), noop_frames=7):
        if number % FRAME_SKIP == FRAME_SKIP - 1:
            assert pair.shows_the_same
            for theirs, ours in zip(nes_py, fceumm, strict=True):
                assert np.array_equal(theirs(), ours())


class Scene(NamedTuple):
    """A way through the game, and how it stands at its end."""

    stage: str
    actions: list[int]
    writes: Mapping[int, dict[int, int]]
    end: dict[str, object]


SCENES = {
    "the flag of 1-1": Scene(
        FULL_GAME, recorded("flag_1-1") + [RIGHT_B] * 16, NOTHING,
        {"world": 1, "stage": 2, "lives": 2, "is_over": False},
    ),
    "down a pipe of 1-1 and out again, then three lives": Scene(
        FULL_GAME, recorded("pipe_1-1") + ([RIGHT] * 10 + [RIGHT_A] * 3) * 9, NOTHING,
        {"coins": 12, "lives": 255, "is_over": True},
    ),
    "the Warp Zone of 1-2": Scene(
        "1-2", recorded("warp_1-2") + [RIGHT] * 5, NOTHING, {"world": 2, "stage": 1, "room": 40}
    ),
    "the axe of 1-4": Scene(
        FULL_GAME, recorded("castle_1-4"), {20: go_to(1, 4, 5)},
        {"world": 2, "stage": 1, "lives": 1},
    ),
    "the end of the game": Scene(
        FULL_GAME, [NOOP] * 20, {20: go_to(8, 4, 4), 60: TAKE_AXE},
        {"world": 8, "is_won": True, "is_over": True},
    ),
    "a walk below flying fish": Scene("2-3", walk(70, seed=1), NOTHING, {"lives": 2}),
}  # fmt: skip


@pytest.mark.parametrize("name", SCENES)
def test_the_game_is_the_same(name):
    """Frame by frame, through scenes that pass within a step, deaths, and pipes."""
    scene = SCENES[name]
    pair = Pair(scene.stage)
    for number in pair.frames(scene.actions, writes=scene.writes):
        theirs, ours = map(facts, pair.both)
        assert theirs == ours
        assert number % 10 or pair.shows_the_same
    assert {name: ours[name] for name in scene.end} == scene.end


def test_now_and_then_nes_py_reads_the_buttons_at_once():
    """Not one frame late, where the game was slow to come to it. From there on the games part."""
    actions = [int(digit) for digit in "4234441341111325555333222222625121141534"]
    pair = Pair("2-1")
    frames = pair.frames(actions, noop_frames=13)
    equal = [facts(pair.nes_py) == facts(pair.fceumm) for _ in frames]
    # The jump (1 to 4) that begins with frame 153 was seen in that frame, not in the next one.
    assert equal.index(False) == 153 and not any(equal[153:])


class Alarm(Exception):
    """Raised by a signal, as Ctrl-C is."""


def test_no_signal_is_lost_while_a_frame_is_emulated():
    """Most come in the core. What its callbacks raise would be printed and forgotten."""

    def ring(*_):
        raise Alarm

    emulator = EMULATORS.get("fceumm")("1-1", None)
    before = signal.signal(signal.SIGALRM, ring)
    try:
        for number in range(100):
            emulator.reset()
            with pytest.raises(Alarm):
                signal.setitimer(signal.ITIMER_REAL, 0.001 + number * 1e-5)
                for _ in range(100):
                    emulator.step(NOOP)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_no_run_is_created_whose_emulator_does_not_load(tmp_path):
    (tmp_path / "broken" / "stable_retro").mkdir(parents=True)
    (tmp_path / "broken" / "stable_retro" / "__init__.py").write_text("raise OSError('no disk')")
    flags = "--run-name a --stage 1-1 --emulator fceumm --threads 1 --output-dir".split()
    result = subprocess.run(
        [sys.executable, str(ROOT / "progressive_mario_trainer.py"), *flags, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "broken")}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 2
    assert "FCEUmm cannot be started: no disk; --emulator nes-py does without" in result.stderr
    assert not RunPaths(tmp_path, "a").exists()


def test_a_stable_retro_that_does_not_load_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "stable_retro", None)
    monkeypatch.setattr(fceumm, "_console", None)
    with pytest.raises(UserError, match=r"FCEUmm cannot be started: .*--emulator nes-py"):
        fceumm.Fceumm("1-1")
