"""The emulator FCEUmm, through stable-retro: the same game about five times as fast as on nes-py.

It plays the cartridge of gym-super-mario-bros, and skips the same scenes as that environment.
What differs from nes-py, and how this module evens it out (docs/emulators.md has the evidence):

1. The colours are others. Each of the 64 colours of the console is shown as nes-py shows it, except
   that the two whites, 0x20 and 0x30, look alike here; the game uses the second alone.
2. The outermost 8 pixels of the picture are missing. The nearest pixels fill them.
3. nes-py's game reads the buttons one frame late. Here they are held back for a frame.
4. The state of the console can be read in microseconds, and can be continued in another process.
   The memory is a part of it, and is changed by changing the state.

A process can hold one console. Games take turns with it: each brings its state along.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import stable_retro

from mario_rl.config import FULL_GAME
from mario_rl.errors import UserError
from mario_rl.games.emulator import OVERSCAN_PX, Brightness
from mario_rl.games.memory import Memory

# The colours 0x00 to 0x3F as RGB, on nes-py and on FCEUmm. tests/test_emulators.py measures them.
_NES_PY_COLOURS = """
    7C7C7C 0000FC 0000BC 4428BC 940084 A80020 A81000 881400
    503000 007800 006800 005800 004058 000000 000000 000000
    BCBCBC 0078F8 0058F8 6844FC D800CC E40058 F83800 E45C10
    AC7C00 00B800 00A800 00A844 008888 000000 000000 000000
    F8F8F8 3CBCFC 6888FC 9878F8 F878F8 F85898 F87858 FCA044
    F8B800 B8F818 58D854 58F898 00E8D8 787878 000000 000000
    FCFCFC A4E4FC B8B8F8 D8B8F8 F8B8F8 F8A4C0 F0D0B0 FCE0A8
    F8D878 D8F878 B8F8B8 B8F8D8 00FCFC F8D8F8 000000 000000
""".split()
_FCEUMM_COLOURS = """
    707470 201888 0000A8 400098 880070 A80010 A00000 780800
    402C00 004400 005000 003C10 183C58 000000 000000 000000
    B8BCB8 0070E8 2038E8 8000F0 B800B8 E00058 D82800 C84C08
    887000 009400 00A800 009038 008088 000000 000000 000000
    F8FCF8 38BCF8 5894F8 4088F8 F078F8 F874B0 F87460 F89838
    F0BC38 80D010 48DC48 58F898 00E8D8 787878 000000 000000
    F8FCF8 A8E4F8 C0D4F8 D0C8F8 F8C4F8 F8C4D8 F8BCB0 F8D8A8
    F8E4A0 E0FCA0 A8F0B8 B0FCC8 98FCF0 C0C4C0 000000 000000
""".split()

_BLACK = np.zeros((224, 240), dtype=np.uint16)
_BACKDROP = 0, 120  # row and column of a pixel above the status bar

MEMORY_BYTES = 2048
_MEMORY_CHUNK = b"RAM\0" + MEMORY_BYTES.to_bytes(4, "little")  # in a state, before the memory
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


class _Console:
    """The console of this process."""

    def __init__(self) -> None:
        package = importlib.util.find_spec("gym_super_mario_bros")
        assert package is not None and package.origin is not None
        rom = Path(package.origin).parent / "_roms" / "super-mario-bros.nes"
        try:
            self.core = stable_retro.RetroEmulator(str(rom))
        except RuntimeError as error:
            raise UserError(
                f"FCEUmm cannot be started: {error}; --emulator nes-py does without"
            ) from None
        state = bytearray(self.core.get_state())
        self.memory_at = state.index(_MEMORY_CHUNK) + len(_MEMORY_CHUNK)
        # At first nes-py's memory is empty, FCEUmm's is not.
        state[self.memory_at : self.memory_at + MEMORY_BYTES] = bytes(MEMORY_BYTES)
        self.power_on = bytes(state)
        self.player: Fceumm | None = None  # whose game is in the console
        self.starts: dict[str, _Moment] = {}  # of the stages that were played
        self.masks = [_mask(buttons) for buttons in range(256)]
        self.colours = _colour_table()
        self.brightness: dict[tuple[Brightness, int], np.ndarray] = {}


_console: _Console | None = None


def _mask(buttons: int) -> np.ndarray:
    mask = np.zeros(16, dtype=np.uint8)
    for bit, place in enumerate(_BUTTONS):
        mask[place] = buttons >> bit & 1
    return mask


def _colour_table() -> np.ndarray:
    """nes-py's BGRX for each RGB565 colour, uint32 [65536]."""
    table = np.zeros(1 << 16, dtype=np.uint32)
    for ours, theirs in zip(_FCEUMM_COLOURS, _NES_PY_COLOURS, strict=True):
        red, green, blue = bytes.fromhex(ours)
        table[red >> 3 << 11 | green >> 2 << 5 | blue >> 3] = int(theirs, 16)
    return table


class Fceumm:
    """Implements `emulator.Emulator`."""

    missing_px = OVERSCAN_PX

    def __init__(self, stage: str, on_frame: Callable[[np.ndarray], None] | None = None) -> None:
        """As `emulator.Emulator` says.

        Raises:
            UserError: if this process has a console of stable-retro already.
        """
        global _console
        if _console is None:
            _console = _Console()
        self._console = _console
        self._target = None if stage == FULL_GAME else tuple(map(int, stage.split("-")))
        self._on_frame = on_frame
        self._picture: np.ndarray | None = None  # None: not fetched since the last frame
        self._held_back = 0
        self.is_over = False
        self.memory = Memory(memoryview(b""))
        if stage not in _console.starts:
            self._put_in(_console.power_on)
            self._skip_start_screen()
            _console.starts[stage] = self._moment()
        self._start = _console.starts[stage]
        self.reset()

    @property
    def screen(self) -> np.ndarray:
        bgrx = self._console.colours.take(self._colours, mode="clip").view(np.uint8)
        bgr = bgrx.reshape(*self._colours.shape, 4)[:, :, :3]
        edges = 4 * (self.missing_px,)
        return cv2.copyMakeBorder(bgr, *edges, cv2.BORDER_REPLICATE)[:, :, ::-1]

    def brightness(self, of: Brightness) -> np.ndarray:
        # That of each colour is computed once.
        key = of, int(self._colours[_BACKDROP])
        table = self._console.brightness.get(key)
        if table is None:
            bgrx = self._console.colours.view(np.uint8).reshape(-1, 1, 4)
            table = self._console.brightness[key] = of(bgrx, bgrx[key[1], 0]).ravel()
        return table.take(self._colours, mode="clip")

    @property
    def _colours(self) -> np.ndarray:
        """The picture in the colours of FCEUmm, uint16 [224, 240]."""
        if self._picture is None:
            picture = cv2.cvtColor(self._console.core.get_screen(), cv2.COLOR_RGB2BGR565)
            self._picture = picture.view(np.uint16)[:, :, 0]
        return self._picture

    def reset(self) -> None:
        self._saved = self._start
        self.restore()

    def step(self, buttons: int) -> None:
        if self.is_over:
            raise UserError("a game cannot go on after its end: the checkpoint contradicts itself")
        self._take_turn()
        self._advance(buttons)
        self.is_over = self._has_ended()
        if not self.is_over:
            self._skip_scenes()

    def save(self) -> None:
        self._saved = self._moment()

    def restore(self) -> None:
        self._put_in(self._saved.console)
        self._held_back, self._picture = self._saved.held_back, self._saved.picture
        self.is_over = False

    def state(self) -> bytes:
        saved = self._saved
        header = bytes((self.is_over, self._held_back, saved.held_back))
        return header + self._console_state + saved.console

    def load(self, state: bytes) -> None:
        size = len(self._console.power_on)
        if len(state) != 3 + 2 * size:
            raise ValueError(f"{len(state)} bytes are not a state of this version of FCEUmm")
        is_over, self._held_back, saved_held_back = state[:3]
        self.is_over = bool(is_over)
        self._picture = _BLACK
        self._put_in(state[3 : 3 + size])
        self._saved = _Moment(state[3 + size :], saved_held_back, _BLACK)

    def close(self) -> None:
        if self._console.player is self:
            self._console.player = None

    def _moment(self) -> _Moment:
        return _Moment(self._console_state, self._held_back, self._colours)

    def _take_turn(self) -> None:
        """Put this game into the console."""
        if self._console.player is not self:
            self._put_in(self._console_state)

    def _put_in(self, state: bytes) -> None:
        if self._console.player not in (None, self):
            self._console.player._colours  # noqa: B018 - a state has no picture
        self._console.core.set_state(state)
        self._console.player = self
        self._look_at(state)

    def _look_at(self, state: bytes) -> None:
        self._console_state = state
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
        state = bytearray(self._console_state)
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
