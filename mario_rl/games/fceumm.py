"""The emulator FCEUmm, through stable-retro: the same game about five times as fast as on nes-py.

It plays the cartridge of gym-super-mario-bros, and skips the same scenes as that environment.
What differs from nes-py, and how this module evens it out (docs/emulators.md has the evidence):

1. The colours are others. `fceumm_screen` fetches the numbers of the console's 64 colours; each is
   shown as nes-py shows it.
2. By default the outermost 8 pixels of the picture are missing. `fceumm_screen` asks for them.
3. nes-py's game reads the buttons one frame late. Here they are held back for a frame.
4. The state of the console can be read in microseconds, and can be continued in another process.
   The memory is a part of it, and is changed by changing the state.

A process can hold one console. Games take turns with it: each brings its state along.
"""

import importlib.util
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mario_rl.errors import UserError, first_line
from mario_rl.games.emulator import BACKDROP, Brightness, require_play, target_of
from mario_rl.games.fceumm_screen import FceummScreen, code_of
from mario_rl.games.interface import SCREEN_SHAPE
from mario_rl.games.memory import Memory

# The colours 0x00 to 0x3F as RGB, as nes-py shows them. tests/test_emulators.py measures them.
_COLOURS = """
    7C7C7C 0000FC 0000BC 4428BC 940084 A80020 A81000 881400
    503000 007800 006800 005800 004058 000000 000000 000000
    BCBCBC 0078F8 0058F8 6844FC D800CC E40058 F83800 E45C10
    AC7C00 00B800 00A800 00A844 008888 000000 000000 000000
    F8F8F8 3CBCFC 6888FC 9878F8 F878F8 F85898 F87858 FCA044
    F8B800 B8F818 58D854 58F898 00E8D8 787878 000000 000000
    FCFCFC A4E4FC B8B8F8 D8B8F8 F8B8F8 F8A4C0 F0D0B0 FCE0A8
    F8D878 D8F878 B8F8B8 B8F8D8 00FCFC F8D8F8 000000 000000
""".split()

_BLACK = np.full(SCREEN_SHAPE[:2], code_of(0x0F), dtype=np.uint8)

MEMORY_BYTES = 2048
_MEMORY_CHUNK = b"RAM\0" + MEMORY_BYTES.to_bytes(4, "little")  # in a state, before the memory
_UNUSED_CHUNK = b"WRAM" + (8192).to_bytes(4, "little")  # before memory that the game does not use
_NOISE_CHUNK = b"NREG" + (2).to_bytes(4, "little")  # before the register of the sound's noise
_BUTTONS = (8, 0, 2, 3, 4, 5, 6, 7)  # of stable-retro's controller, for each bit of our byte
_START = 8  # the bit of the button

# Addresses, besides those of `Memory`
_MARIO_STATE = 0x0E
_BUSY = (0, 1, 2, 3, 4, 5, 7)  # on the screen between lives, in a pipe, walking by himself, ...
_DYING, _DEAD = 0x0B, 0x06
_TOP_PAGE = 0xB5  # more than 1: below the screen
_WORLD, _STAGE, _AREA = 0x075F, 0x075C, 0x0760
_BEFORE_STAGE_TIMER = 0x07A0
_CHANGE_OF_AREA_TIMER = 0x06DE


class _Moment(NamedTuple):
    """All that the future of a game depends on."""

    console: bytes
    held_back: int  # the buttons that it gets in the next frame
    picture: np.ndarray


def rom_path() -> Path:
    """The cartridge of gym-super-mario-bros."""
    package = importlib.util.find_spec("gym_super_mario_bros")
    assert package is not None and package.origin is not None
    return Path(package.origin).parent / "_roms" / "super-mario-bros.nes"


class _Console:
    """The console of this process."""

    def __init__(self) -> None:
        import stable_retro

        self.core = stable_retro.RetroEmulator(str(rom_path()))
        state = bytearray(self.core.get_state())
        self.memory_at = state.index(_MEMORY_CHUNK) + len(_MEMORY_CHUNK)
        self.noise_at = state.index(_NOISE_CHUNK) + len(_NOISE_CHUNK)
        # At first nes-py's memory is empty, FCEUmm's is not.
        state[self.memory_at : self.memory_at + MEMORY_BYTES] = bytes(MEMORY_BYTES)
        # And this, which nobody writes to, holds what was left in the process's memory.
        unused_at = state.index(_UNUSED_CHUNK) + len(_UNUSED_CHUNK)
        state[unused_at : unused_at + 8192] = bytes(8192)
        self.power_on = bytes(state)
        self.screen = FceummScreen(self.core, stable_retro.get_core_path("Nes"))
        self.lock = threading.RLock()  # of the player, for games in several threads
        self.player: Fceumm | None = None  # whose game is in the console
        self.starts: dict[str, _Moment] = {}  # of the stages that were played
        self.masks = [mask(buttons) for buttons in range(256)]
        self.colours = np.zeros((1, 256, 4), dtype=np.uint8)  # BGRX by their codes
        for number, colour in enumerate(_COLOURS):
            red, green, blue = bytes.fromhex(colour)
            self.colours[0, code_of(number)] = blue, green, red, 0
        self.brightness: dict[tuple[Brightness, int], np.ndarray] = {}


_console: _Console | None = None
_making_console = threading.Lock()


def mask(buttons: int) -> np.ndarray:
    """The buttons as stable-retro's controller takes them, uint8 [16]."""
    held = np.zeros(16, dtype=np.uint8)
    for bit, place in enumerate(_BUTTONS):
        held[place] = buttons >> bit & 1
    return held


class Fceumm:
    """Implements `emulator.Emulator`.

    Attributes:
        console_state: that of the console, after the last frame.
    """

    console_state: bytes

    def __init__(self, stage: str, on_frame: Callable[[np.ndarray], None] | None = None) -> None:
        """As `emulator.Emulator` says.

        Raises:
            UserError: if stable-retro does not work here, or this process has a console of it.
        """
        global _console
        with _making_console:
            try:
                _console = _console or _Console()
            except Exception as error:  # a broken installation may raise anything
                raise UserError(
                    f"FCEUmm cannot be started: {first_line(error)}; --emulator nes-py does without"
                ) from None
        self._console = _console
        self._target = target_of(stage)
        self._on_frame: Callable[[np.ndarray], None] | None = None
        self._picture: np.ndarray | None = None  # None: not fetched yet
        self._held_back = 0
        self.is_over = False
        self.memory = Memory(memoryview(b""))
        with _console.lock:
            if stage not in _console.starts:
                self._put_in(_console.power_on)
                self._skip_start_screen()
                _console.starts[stage] = self._moment()
        self._start = _console.starts[stage]
        self.reset()
        self._on_frame = on_frame

    @property
    def screen(self) -> np.ndarray:
        picture = cv2.merge([self._codes] * 3)
        return cv2.LUT(picture, self._console.colours[:, :, 2::-1])

    def brightness(self, of: Brightness) -> np.ndarray:
        # That of each colour is computed once.
        key = of, int(self._codes[BACKDROP])
        table = self._console.brightness.get(key)
        if table is None:
            colours = self._console.colours
            table = self._console.brightness[key] = of(colours, colours[0, key[1]])
        return cv2.LUT(self._codes, table)

    @property
    def _codes(self) -> np.ndarray:
        """The picture as codes of colours, uint8 [240, 256]."""
        with self._console.lock:
            if self._picture is None:
                self._picture = self._console.screen.picture()
            return self._picture

    def reset(self) -> None:
        self._saved = self._start
        self.restore()

    def step(self, buttons: int) -> None:
        require_play(self.is_over)
        with self._console.lock:
            self._take_turn()
            self._advance(buttons)
            self.is_over = self._has_ended()
            if not self.is_over:
                self._skip_scenes()

    def save(self) -> None:
        self._saved = self._moment()

    def restore(self) -> None:
        with self._console.lock:
            self._put_in(self._saved.console)
            self._held_back, self._picture = self._saved.held_back, self._saved.picture
            self.is_over = False

    def state(self) -> bytes:
        saved = self._saved
        header = bytes((self.is_over, self._held_back, saved.held_back))
        return header + self._silent(self.console_state) + self._silent(saved.console)

    def _silent(self, state: bytes) -> bytes:
        """A state with the noise at its beginning. Its register alone depends on when a state was
        loaded, and nothing depends on it but the sound."""
        at = self._console.noise_at
        return state[:at] + b"\1\0" + state[at + 2 :]

    def load(self, state: bytes) -> None:
        size = len(self._console.power_on)
        if len(state) != 3 + 2 * size:
            raise ValueError(f"{len(state)} bytes are not a state of this version of FCEUmm")
        is_over, held_back, saved_held_back = state[:3]
        with self._console.lock:
            for one in (state[3 + size :], state[3 : 3 + size]):
                self._put_in(one)
                # The core passes over what it does not understand, and says nothing.
                if self._silent(self._console.core.get_state()) != self._silent(one):
                    raise ValueError("it holds a state that FCEUmm does not take over")
            self._held_back, self._picture = held_back, _BLACK
            self._saved = _Moment(state[3 + size :], saved_held_back, _BLACK)
            self.is_over = bool(is_over)

    def close(self) -> None:
        with self._console.lock:
            if self._console.player is self:
                self._codes  # noqa: B018 - as below
                self._console.player = None

    def _moment(self) -> _Moment:
        return _Moment(self.console_state, self._held_back, self._codes)

    def _take_turn(self) -> None:
        """Put this game into the console."""
        if self._console.player is not self:
            self._put_in(self.console_state)

    def _put_in(self, state: bytes) -> None:
        player = self._console.player
        if player is not None and player is not self:
            player._codes  # noqa: B018 - fetches the picture, which a state has not
        self._console.core.set_state(state)
        self._console.player = self
        self._look_at(state)

    def _look_at(self, state: bytes) -> None:
        self.console_state = state
        at = self._console.memory_at
        self.memory.ram = memoryview(state)[at : at + MEMORY_BYTES]

    def _advance(self, buttons: int) -> None:
        """Let one frame pass, with the buttons of the frame before."""
        core = self._console.core
        core.set_button_mask(self._console.masks[self._held_back], 0)
        core.step()
        self._held_back = buttons
        self._picture = None
        self._look_at(core.get_state())
        if self._on_frame is not None:
            self._on_frame(self.screen)

    def _write(self, values: dict[int, int]) -> None:
        """Write bytes to addresses of the memory."""
        state = bytearray(self.console_state)
        for address, value in values.items():
            state[self._console.memory_at + address] = value
        self._put_in(bytes(state))

    # What follows skips the same scenes as gym_super_mario_bros.SuperMarioBrosEnv, frame by frame.

    def _has_ended(self) -> bool:
        memory = self.memory
        if self._target is None:
            return memory.lives == 0xFF or memory.is_won
        return self._is_dying or memory.ram[_MARIO_STATE] == _DEAD or memory.has_flag

    @property
    def _is_dying(self) -> bool:
        return self.memory.ram[_MARIO_STATE] == _DYING or self.memory.ram[_TOP_PAGE] > 1

    def _skip_start_screen(self) -> None:
        self._advance(_START)
        self._advance(0)
        while self.memory.clock == 0:
            self._advance(_START)
            if self._target is not None:
                world, stage = self._target
                # In these worlds a walk into a pipe is an area of its own.
                area = stage + 1 if world in (1, 2, 4, 7) and stage >= 2 else stage
                self._write({_WORLD: world - 1, _STAGE: stage - 1, _AREA: area - 1})
            self._advance(0)
            self._write({_BEFORE_STAGE_TIMER: 0})
        clock = self.memory.clock
        while self.memory.clock >= clock:
            clock = self.memory.clock
            self._advance(_START)
            self._advance(0)

    def _skip_scenes(self) -> None:
        if self._is_dying:
            self._write({_MARIO_STATE: _DEAD})
            self._advance(0)
        if self._target is None and self.memory.is_end_of_world:
            clock = self.memory.clock
            while self.memory.clock == clock:
                self._advance(0)
        if 1 < self.memory.ram[_CHANGE_OF_AREA_TIMER] < 255:
            self._write({_CHANGE_OF_AREA_TIMER: 1})
        while self.memory.ram[_MARIO_STATE] in _BUSY or self.memory.is_end_of_world:
            self._write({_BEFORE_STAGE_TIMER: 0})
            self._advance(0)
