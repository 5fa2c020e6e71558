"""The emulator nes-py, with which gym-super-mario-bros plays, the same on both stacks.

The only importer of gym, nes_py and gym_super_mario_bros. On Python 3.10 to 3.12 that is the
classic stack (gym 0.26, nes-py 8.2), from 3.13 on the new one (gymnasium, nes-py 9).
"""

import contextlib
import importlib.metadata
import io
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from mario_rl.games.emulator import BACKDROP, Brightness, require_play, target_of
from mario_rl.games.memory import Memory

CLASSIC = importlib.metadata.version("nes-py").startswith("8.")

if CLASSIC:
    # Gym prints a notice about its successor when it is imported.
    with contextlib.redirect_stderr(io.StringIO()):
        import gym  # noqa: F401
    from nes_py._rom import ROM

    # With NumPy 2 the product would stay a byte and overflow.
    ROM.prg_rom_size = property(lambda rom: 16 * int(rom.header[4]))
    ROM.chr_rom_size = property(lambda rom: 8 * int(rom.header[5]))

else:
    from gymnasium.envs.registration import registry

    # The stock package registers its environments under the names of ours. Keep ours.
    _registered = dict(registry)
    registry.clear()

from gym_super_mario_bros.smb_env import SuperMarioBrosEnv  # noqa: E402

if not CLASSIC:
    registry.update(_registered)

# Frames after a restored state; by then the game has read all buttons of the controllers.
_RELEASE_FRAMES = 4


class NesPy:
    """Implements `emulator.Emulator`."""

    def __init__(self, stage: str, on_frame: Callable[[np.ndarray], None] | None = None) -> None:
        """As `emulator.Emulator` says."""
        target = target_of(stage)
        self._stock_env = _StockEnv(target)
        self._has_start = True  # whether the saved state is that of the start
        self.screen: np.ndarray = self._stock_env.screen
        # OpenCV would have to copy `screen`, because its channels are in reverse order.
        self._bgrx = _screen_memory(self.screen)
        self.memory = self._stock_env.memory
        if on_frame is not None:
            self._stock_env.on_frame = lambda: on_frame(self.screen)

    def brightness(self, of: Brightness) -> np.ndarray:
        return of(self._bgrx, self._bgrx[BACKDROP])

    @property
    def is_over(self) -> bool:
        return bool(self._stock_env.done)

    def reset(self) -> None:
        if not self._has_start:
            self._stock_env.start_again()
            self._has_start = True
        self._stock_env.reset()

    def step(self, buttons: int) -> None:
        require_play(self.is_over)
        self._stock_env.step(buttons)

    def save(self) -> None:
        self._stock_env._backup()
        self._has_start = False

    def restore(self) -> None:
        self._stock_env.reset()

    def state(self) -> None:
        """nes-py 8 has no states outside of the console."""

    def load(self, state: bytes) -> None:
        raise ValueError("a state of another emulator")

    def close(self) -> None:
        if self._stock_env._env is not None:
            self._stock_env.close()
            self._stock_env._env = None


class _StockEnv(SuperMarioBrosEnv):  # type: ignore[misc]
    """The stock environment without the parts that this package computes itself."""

    memory: Memory

    def __init__(self, target: tuple[int, ...] | None) -> None:
        self.on_frame: Callable[[], None] | None = None
        super().__init__(target=target)

    def start_again(self) -> None:
        """Play the start screen again. With cleared memory it leads to the same state."""
        self._has_backup = False
        self.ram[:] = bytes(len(self.ram))
        self.reset()
        self._skip_start_screen()
        self._backup()

    def _ram_buffer(self) -> memoryview:
        # Bytes of a memoryview are ints, with NumPy 1 and 2 alike, and faster to read.
        ram = memoryview(super()._ram_buffer())
        self.memory = Memory(ram)
        return ram

    def _get_reward(self) -> float:
        return 0.0

    def _get_info(self) -> dict[str, Any]:
        return {}

    def _get_done(self) -> bool:
        # After the last stage the stock environment would wait for a clock that has stopped.
        return bool(super()._get_done()) or self.memory.is_won

    if not CLASSIC:

        def _get_terminated(self) -> bool:
            return bool(super()._get_terminated()) or self.memory.is_won

    def _frame_advance(self, action: int) -> None:
        super()._frame_advance(action)
        if self.on_frame is not None:
            self.on_frame()

    def _did_step(self, done: bool) -> None:
        if self.on_frame is not None:
            self.on_frame()
        super()._did_step(done)

    def _backup(self) -> None:
        super()._backup()
        self._restore()  # so that the game continues now as it will after every later restore

    def _restore(self) -> None:
        # nes-py's state leaves out the controllers, and some frames end when the game has read only
        # a part of the buttons. The rest would be those of the game before: so none is held.
        super()._restore()
        for _ in range(_RELEASE_FRAMES):
            super()._frame_advance(0)
        super()._restore()


def _screen_memory(screen: np.ndarray) -> np.ndarray:
    """The emulator's own contiguous pixels behind its RGB view."""
    if screen.strides != (4 * screen.shape[1], 4, -1) or sys.byteorder != "little":
        raise RuntimeError("this version of nes-py keeps its screen in another form")
    bgr = screen[:, :, ::-1]
    return np.lib.stride_tricks.as_strided(bgr, (*bgr.shape[:2], 4), bgr.strides)
