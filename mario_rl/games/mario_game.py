"""Super Mario Bros. as an environment: the same frames and rewards on both emulator stacks.

The only importer of gym, gymnasium, nes_py and gym_super_mario_bros. On Python 3.10 to 3.12 that is
the classic stack (gym 0.26, nes-py 8.2), from 3.13 on the new one (gymnasium, nes-py 9).

Preprocessing follows Mnih et al. 2015: an action is held for 4 frames, the observation has 84x84
pixels. Deviations: 1. a pixel is its red, not its luminance, in which Mario is nearly as bright as
the sky behind him, and of the 4 frames the last counts: sprites do not flicker here, and the
maximum of two, made for light sprites on black, would wipe out dark ones (both as
`EnvConfig.pixels` says); 2. in place of the status bar, of no use to the agent, the top shows the
buttons that are held (`EnvConfig.show_buttons`): Mario jumps only when A is pressed anew, which the
picture of the game does not tell from A held since the last jump; 3. the picture is not the whole
screen but what is around Mario, larger, with him always in the same place (`EnvConfig.view`): where
an enemy is in the picture is then where it is to him; 4. frames are stacked by the replay, which
stores each frame once.
"""

import contextlib
import importlib.metadata
import io
import sys
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from mario_rl.config import FRAME_SHAPE, FULL_GAME, EnvConfig

CLASSIC = importlib.metadata.version("nes-py").startswith("8.")

if CLASSIC:
    # Gym prints a notice about its successor when it is imported.
    with contextlib.redirect_stderr(io.StringIO()):
        import gym  # noqa: F401
    from nes_py._rom import ROM

    # NumPy 2 keeps a byte a byte where the ROM reader needs an int.
    ROM.prg_rom_size = property(lambda rom: 16 * int(rom.header[4]))
    ROM.chr_rom_size = property(lambda rom: 8 * int(rom.header[5]))

from gym_super_mario_bros.actions import (  # noqa: E402
    COMPLEX_MOVEMENT,
    RIGHT_ONLY,
    SIMPLE_MOVEMENT,
)
from gym_super_mario_bros.smb_env import SuperMarioBrosEnv  # noqa: E402

FRAME_SKIP = 4
FRAMES_PER_SECOND = 60
BUTTON_ROWS = {"mario": 6, "screen": 11}  # of the 84 of an observation; 11 are the status bar
SCREEN_SHAPE = (240, 256, 3)

# The view of Mario, pixels of the screen: how far it goes from his middle.
VIEW_BEHIND, VIEW_AHEAD, VIEW_ABOVE, VIEW_BELOW = 48, 144, 84, 84
_STATUS_BAR_PX = 32

# Rewards are in units of ten pixels, about what Mario runs in one decision.
PROGRESS_REWARD_PER_PX = 0.1
MAX_PROGRESS_PX = 5 * FRAME_SKIP  # more is a pipe or a change of area, not running
STEP_REWARD = -0.05
CLEAR_REWARD = 5.0

SAVE_PERIOD_PX = 160  # ten blocks: hardly ever more than one obstacle
_BACKDROP = 4, 128  # row and column of a pixel above the status bar

# The console's memory
_HELD_BUTTONS = 0x0D  # A and B as the game last saw them
_A_BIT, _B_BIT = 0x80, 0x40
_FLOAT_STATE = 0x1D  # 0 while Mario stands or walks
_LEFT, _SCREEN_LEFT = 0x86, 0x071C  # of Mario and of the screen in the level, modulo 256
_WARP_ZONE = 0x06D6  # not 0 when the screen has come to one
_TOP, _TOP_PAGE = 0x03B8, 0xB5  # of Mario on the screen; page 0 is above it, 2 below

RUNNING, CLEAR, DEATH, TIME_UP, STALL = range(5)
OUTCOMES = ("running", "clear", "death", "time_up", "stall")

_BUTTONS = {
    "NOOP": 0,
    "A": 1,
    "B": 2,
    "up": 16,
    "down": 32,
    "left": 64,
    "right": 128,
}
_ACTION_SETS = {"right": RIGHT_ONLY, "simple": SIMPLE_MOVEMENT, "complex": COMPLEX_MOVEMENT}


def action_names(action_set: str) -> list[str]:
    """The names of an action set's actions, such as "right+A", in the order of their numbers."""
    return ["+".join(buttons) for buttons in _ACTION_SETS[action_set]]


class _Emulator(SuperMarioBrosEnv):  # type: ignore[misc]
    """The game without the parts of the stock environment that this package computes itself.

    `on_frame`, if set, is called after every emulated frame, also during the scenes that the stock
    environment runs through inside one step.
    """

    on_frame: Callable[[], None] | None = None

    if CLASSIC:

        def _ram_buffer(self) -> memoryview:
            # Bytes of a memoryview are ints, with NumPy 1 and 2 alike, and faster to read.
            return memoryview(super()._ram_buffer())

    def _get_reward(self) -> float:
        return 0.0

    def _get_info(self) -> dict[str, Any]:
        return {}

    def _game_is_won(self) -> bool:
        return (self._world, self._stage) == (8, 4) and self._is_world_over

    def _get_done(self) -> bool:
        # After the last stage the stock environment would wait for a clock that has stopped.
        return bool(super()._get_done()) or self._game_is_won()

    if not CLASSIC:

        def _get_terminated(self) -> bool:
            return bool(super()._get_terminated()) or self._game_is_won()

    def _frame_advance(self, action: int) -> None:
        super()._frame_advance(action)
        if self.on_frame is not None:
            self.on_frame()

    def _backup(self) -> None:
        super()._backup()
        self._restore()  # so that the game goes on from here as it will whenever it is restored

    def _restore(self) -> None:
        # nes-py leaves out the controllers, of which some frames end with only a part of the
        # buttons read. The rest would be those of the game that was played before: none is held.
        super()._restore()
        for _ in range(FRAME_SKIP):
            super()._frame_advance(0)
        super()._restore()

    def _did_step(self, done: bool) -> None:
        if self.on_frame is not None:
            self.on_frame()
        super()._did_step(done)


class MarioEnv:
    """One game, with the interface of a Gymnasium environment and its own reward.

    The reward of a decision is, in units of ten pixels: the new furthest x in this stage (at most
    20 pixels), -0.05 for the time, +5 for each stage cleared and `-config.death_penalty` for death.
    Only the furthest x pays, so walking to and fro earns nothing, nor does a Warp Zone, which lies
    beyond the way to the flag.

    An episode is one life. It terminates at death and, when a single stage is played, at its end;
    it is truncated after `config.stall_steps` decisions without a new furthest x. The game is
    deterministic: a position is the number of no-op frames after the reset and the actions since.
    """

    def __init__(
        self,
        config: EnvConfig,
        on_frame: Callable[[np.ndarray], None] | None = None,
        save_points: bool = False,
    ) -> None:
        """
        Args:
            save_points: keep the state of the game now and then, for `retry` to go back to.
            on_frame: called with every emulated frame, uint8 [240, 256, 3] RGB, a view that the
                next frame overwrites.
        """
        cv2.setNumThreads(1)  # every core has an environment of its own
        target = None if config.stage == FULL_GAME else tuple(map(int, config.stage.split("-")))
        self._emulator = _Emulator(target=target)
        self._stall_steps = config.stall_steps
        self._death_penalty = config.death_penalty
        self._single_stage = target is not None
        self._view = config.view
        self._pixels = config.pixels
        self._show_buttons = config.show_buttons
        self._save_points = save_points
        self._saved: tuple[tuple[int, int], int, int] | None = None  # stage, lives, x
        actions = _ACTION_SETS[config.action_set]
        self._action_bytes = [sum(_BUTTONS[name] for name in names) for names in actions]
        self._screen = self._emulator.screen
        self._bgrx = _screen_memory(self._screen)
        if on_frame is not None:
            self._emulator.on_frame = lambda: on_frame(self._screen)

    def reset(self, noop_frames: int = 0) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode at the true start of the stage (or game), and `noop` if asked to.

        Returns:
            frame: uint8 [84, 84].
            info: see `step`.
        """
        game = self._emulator
        if self._saved is not None:
            # The emulator keeps one state, and this is no longer that of the start. Without memory
            # of what was, the start is bit for bit what it was the first time.
            self._saved = None
            game._has_backup = False
            game.ram[:] = np.zeros(len(game.ram), dtype=np.uint8)
            game.reset()
            game._skip_start_screen()
            game._backup()
        game.reset()
        self._stage = int(game._world), int(game._stage)
        self._lives = int(game._life)
        self._next_save_x = int(game._x_position) + SAVE_PERIOD_PX
        self._begin_episode()
        return self.noop(noop_frames)

    def save(self) -> None:
        """Make this a save point. The emulator keeps one, until the next `reset`."""
        self._emulator._backup()
        self._saved = self._stage, self._lives, self._x
        self._next_save_x = self._x + SAVE_PERIOD_PX

    def retry(self) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode at the last save point.

        Returns:
            As `reset`.
        """
        assert self._saved is not None
        self._emulator.reset()
        self._stage, self._lives, x = self._saved
        self._next_save_x = x + SAVE_PERIOD_PX
        self._begin_episode()
        return self.noop(0)

    def _begin_episode(self) -> None:
        self._stages_cleared = 0
        self._steps_without_progress = 0
        self._saved_now = False

    def noop(self, frames: int) -> tuple[np.ndarray, dict[str, Any]]:
        """Let emulated frames pass between the reset and the first decision.

        Returns:
            As `reset`.
        """
        for _ in range(frames):
            self._emulator.step(0)
        self._look()
        self._max_x = self._x
        return self._observe(), self._info(RUNNING)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold an action for 4 frames, or until the episode ends.

        Args:
            action: the index of one of `action_names`.

        Returns:
            frame: uint8 [84, 84].
            reward: see the class.
            terminated: Mario died, or the single stage (or the whole game) is cleared.
            truncated: cut off for want of progress; not the end as far as returns go.
            info: x, y and max_x in pixels, world, stage, stages_cleared, game_score, coins,
                time_left (the game's clock), outcome, an index into OUTCOMES, and saved, whether
                `retry` leads here now.
        """
        button_byte = self._action_bytes[action]
        previous: np.ndarray | None = None
        for frame in range(FRAME_SKIP):
            if frame == FRAME_SKIP - 1 and self._pixels == "grey":
                previous = self._grey()
            self._emulator.step(button_byte)
            if self._emulator.done:
                break

        reward, outcome = self._judge()
        # Save points are where Mario first stands on the ground every 160 pixels, and at the
        # beginning of each stage but the first, but not in a Warp Zone. A stall is no matter: when
        # it comes depends on where the episode began, and the actions since the reset tell it all.
        on_ground = self._emulator.ram[_FLOAT_STATE] == 0
        terminated = outcome in (CLEAR, DEATH, TIME_UP)
        due = self._x >= self._next_save_x and on_ground and not terminated
        self._saved_now = self._save_points and due and not self._sees_warp_zone()
        if self._saved_now:
            self.save()
        truncated = outcome == STALL
        return self._observe(previous), reward, terminated, truncated, self._info(outcome)

    def _judge(self) -> tuple[float, int]:
        """Reward and outcome of the decision just made."""
        game = self._emulator
        reward = STEP_REWARD
        stage = int(game._world), int(game._stage)
        # The flag itself is missed at some castles and when play runs on, the new stage is not.
        # The numbers of the stage also change when a game is over, hence the look at the lives.
        # The counter runs 2, 1, 0, 255; it also goes up, with a 1-up.
        lost_life = (int(game._life) - self._lives) % 256 > 127
        won = game._game_is_won()
        if not lost_life:
            self._lives = int(game._life)
        cleared = not lost_life and (
            stage != self._stage or won or (self._single_stage and bool(game._flag_get))
        )
        if cleared:
            self._look()
            self._stages_cleared += 1
            reward += CLEAR_REWARD
            if not self._single_stage and not won:
                self._stage = stage
                self._max_x = self._x
                self._next_save_x = self._x
                self._steps_without_progress = 0
                return reward, RUNNING
            return reward, CLEAR
        if lost_life or game.done:
            # The full game has begun the next life by now: what counts is the time before.
            outcome = TIME_UP if self._time_left <= 1 else DEATH
            if not lost_life:
                self._look()
            return reward - self._death_penalty, outcome
        self._look()

        progress = 0 if self._sees_warp_zone() else self._x - self._max_x
        if progress > 0:
            self._max_x += progress
            self._steps_without_progress = 0
            return reward + PROGRESS_REWARD_PER_PX * min(progress, MAX_PROGRESS_PX), RUNNING
        self._steps_without_progress += 1
        stalled = self._steps_without_progress >= self._stall_steps
        return reward, STALL if stalled else RUNNING

    def _sees_warp_zone(self) -> bool:
        """Whether the screen has come to a Warp Zone, which lies beyond the way to the flag."""
        return bool(self._emulator.ram[_WARP_ZONE])

    def _look(self) -> None:
        """Note where Mario is and what the clock says."""
        game = self._emulator
        self._x, self._y = int(game._x_position), int(game._y_position)
        self._time_left = game._time

    def _info(self, outcome: int) -> dict[str, Any]:
        game = self._emulator
        return {
            "x": self._x,
            "y": self._y,
            "max_x": self._max_x,
            "world": self._stage[0],
            "stage": self._stage[1],
            "stages_cleared": self._stages_cleared,
            "game_score": game._score,
            "coins": game._coins,
            "time_left": self._time_left,
            "outcome": outcome,
            "saved": self._saved_now,
        }

    def screen(self) -> np.ndarray:
        """A copy of the screen, uint8 [240, 256, 3] RGB."""
        return self._screen.copy()

    def ram(self) -> bytes:
        """A copy of the console's 2048 bytes of memory."""
        return bytes(self._emulator.ram)

    def close(self) -> None:
        """Free the emulator. Closing twice is allowed."""
        if self._emulator._env is not None:
            self._emulator.close()
            self._emulator._env = None

    def _observe(self, previous: np.ndarray | None = None) -> np.ndarray:
        """What the agent sees of the screen, uint8 [84, 84].

        Args:
            previous: the frame before, in grey, to take the maximum with.
        """
        pixels = self._red() if self._pixels == "red" else self._grey()
        if previous is not None:
            pixels = np.maximum(pixels, previous)
        if self._view == "mario":
            pixels = self._around_mario(pixels)
        frame = cv2.resize(pixels, FRAME_SHAPE[::-1], interpolation=cv2.INTER_AREA)
        if self._show_buttons:
            held = self._emulator.ram[_HELD_BUTTONS]
            left, right = np.hsplit(frame[: BUTTON_ROWS[self._view]], 2)
            left[:] = 255 if held & _A_BIT else 0
            right[:] = 255 if held & _B_BIT else 0
        return frame

    def _around_mario(self, pixels: np.ndarray) -> np.ndarray:
        """The part of the screen around Mario, uint8 [168, 192]; black where there is no game."""
        ram = self._emulator.ram
        height, width = pixels.shape
        x = (int(ram[_LEFT]) - int(ram[_SCREEN_LEFT])) % 256 + 8
        y = 256 * (int(ram[_TOP_PAGE]) - 1) + int(ram[_TOP]) + 16
        x, y = min(x, width), min(max(y, _STATUS_BAR_PX), height)
        game = cv2.copyMakeBorder(
            pixels[_STATUS_BAR_PX:], VIEW_ABOVE, VIEW_BELOW, VIEW_BEHIND, VIEW_AHEAD,
            cv2.BORDER_CONSTANT,
        )  # fmt: skip
        top = y - _STATUS_BAR_PX
        return game[top : top + VIEW_ABOVE + VIEW_BELOW, x : x + VIEW_BEHIND + VIEW_AHEAD]

    def _red(self) -> np.ndarray:
        """The red of each pixel or, if that is more, by how much its green or blue exceeds that of
        the backdrop, so that on black one sees green and blue things, too."""
        blue, green, red, _ = cv2.split(self._bgrx)
        excesses = (
            cv2.subtract(channel, int(channel[_BACKDROP]))  # type: ignore[call-overload]
            for channel in (blue, green)
        )
        return cv2.max(red, cv2.max(*excesses))

    def _grey(self) -> np.ndarray:
        return cv2.cvtColor(self._bgrx, cv2.COLOR_BGRA2GRAY)


def _screen_memory(screen: np.ndarray) -> np.ndarray:
    """The emulator's own contiguous pixels, uint8 [240, 256, 4] BGRx, behind its RGB view.

    OpenCV would first have to copy the view, whose channels run backwards.
    """
    if screen.strides != (4 * screen.shape[1], 4, -1) or sys.byteorder != "little":
        raise RuntimeError("this version of nes-py keeps its screen in another form")
    bgr = screen[:, :, ::-1]
    return np.lib.stride_tricks.as_strided(bgr, (*bgr.shape[:2], 4), bgr.strides)
