"""Super Mario Bros. as a game of decisions: an action is held for 4 emulated frames (Mnih et al.
2015), and an episode is one life."""

from collections.abc import Callable

import numpy as np

from mario_rl.config import FULL_GAME, EnvConfig
from mario_rl.games.actions import button_bytes
from mario_rl.games.emulator import Emulator, resolved
from mario_rl.games.interface import (
    CLEAR,
    DEATH,
    FRAME_SKIP,
    OUTCOMES,
    RUNNING,
    STALL,
    TIME_UP,
    Status,
)
from mario_rl.games.observation import Observer
from mario_rl.games.rewards import Decision, Reward
from mario_rl.registry import EMULATORS, REWARDS

_MAX_NUMBER = 10**9  # in a state; they are counted on, as 32 bits

SAVE_PERIOD_PX = 160  # ten blocks: hardly ever more than one obstacle


class MarioGame:
    """Implements `interface.Game`.

    An episode terminates at death and, when a single stage is played, at its end; it is truncated
    after `config.stall_steps` decisions without a new furthest x.
    """

    def __init__(
        self,
        config: EnvConfig,
        on_frame: Callable[[np.ndarray], None] | None = None,
        save_points: bool = False,
    ) -> None:
        """
        Args:
            on_frame: called with every emulated frame, uint8 [240, 256, 3] RGB, a view that the
                next frame overwrites.
            save_points: save the state of the game at save points, to which `retry` returns.
        """
        self._emulator: Emulator = EMULATORS.get(resolved(config.emulator))(config.stage, on_frame)
        self._observer = Observer(config, self._emulator)
        self._reward: Reward = REWARDS.get(config.reward)(config)
        self._buttons = button_bytes(config.action_set)
        self._stage = config.stage
        self._single_stage = config.stage != FULL_GAME
        self._stall_steps = config.stall_steps
        self._save_points = save_points
        self.frame_shape = config.frame_shape
        self._head = _head_of_state(config.frame_shape)
        # The state of the episode
        self._status: Status
        self._lives: int
        self._steps_without_progress: int
        self._next_save_x: int
        self._begin_episode()
        self._frame = self._saved_frame = self._observer.frame()

    def reset(self, noop_frames: int = 0) -> tuple[np.ndarray, Status]:
        """Begin an episode at the true start of the stage (or game), and `noop` if asked to.

        Returns:
            frame: uint8 [H, W].
            status: how the episode stands.
        """
        self._emulator.reset()
        self._begin_episode()
        self._saved_frame = self._observer.frame()
        return self.noop(noop_frames)

    def noop(self, frames: int) -> tuple[np.ndarray, Status]:
        """Let emulated frames pass between the reset and the first decision.

        Returns:
            As `reset`.
        """
        for _ in range(frames):
            self._emulator.step(0)
        now = self._look()
        self._status = now._replace(max_x=now.x)
        self._frame = self._observer.frame()
        return self._frame, self._status

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, Status]:
        """Hold an action for 4 frames, or until the episode ends.

        Args:
            action: the index of one of `actions.action_names`.

        Returns:
            frame: uint8 [H, W].
            reward: by `config.reward`.
            terminated: Mario died, or the single stage (or the whole game) is cleared.
            truncated: cut off without progress; returns do not treat that as an end.
            status: how the episode stands now.
        """
        buttons = self._buttons[action]
        for number in range(FRAME_SKIP):
            if number == FRAME_SKIP - 1:
                self._observer.before_last_frame()
            self._emulator.step(buttons)
            if self._emulator.is_over:
                break
        before, after = self._status, self._judge()
        sees_warp_zone = self._emulator.memory.sees_warp_zone
        reward = self._reward(Decision(before, after, sees_warp_zone))
        terminated = after.outcome in (CLEAR, DEATH, TIME_UP)
        self._status = after
        if self._save_points and not terminated and self._is_at_save_point():
            self._status = after._replace(saved=True)
            self._emulator.save()
            self._next_save_x = after.x + SAVE_PERIOD_PX
        self._frame = self._observer.frame()
        if self._status.saved:
            self._saved_frame = self._observer.frame()
        return self._frame, reward, terminated, after.outcome == STALL, self._status

    def save(self) -> None:
        """Make this the save point. The emulator keeps one, until the next `reset`."""
        self._emulator.save()
        self._saved_frame = self._observer.frame()
        self._next_save_x = self._status.x + SAVE_PERIOD_PX

    def retry(self) -> tuple[np.ndarray, Status]:
        """Begin an episode at the save point; without one, at the start.

        Returns:
            As `reset`.
        """
        self._emulator.restore()
        self._begin_episode()
        self._frame = self._saved_frame
        return self._frame, self._status

    def state(self) -> bytes | None:
        """All that its future depends on, of the same length every time; None if the emulator has
        no states that can leave the process."""
        emulator = self._emulator.state()
        if emulator is None:
            return None
        head = np.zeros((), dtype=self._head)
        head["status"] = self._status
        head["lives"] = self._lives
        head["steps_without_progress"] = self._steps_without_progress
        head["next_save_x"] = self._next_save_x
        head["frame"] = self._frame
        head["saved_frame"] = self._saved_frame
        return head.tobytes() + emulator

    def load(self, state: bytes) -> np.ndarray:
        """Go to a `state`, also one of another process.

        Returns:
            The frame there, uint8 [H, W].

        Raises:
            ValueError: if it is not a state of this game.
        """
        if len(state) < self._head.itemsize:
            raise ValueError(f"{len(state)} bytes are not the state of a game")
        head = np.frombuffer(state, dtype=self._head, count=1)[0]
        self._emulator.load(state[self._head.itemsize :])
        names = ("status", "lives", "steps_without_progress", "next_save_x")
        numbers = np.hstack([head[name] for name in names])
        if numbers.min() < 0 or numbers.max() > _MAX_NUMBER:
            raise ValueError(f"no game has the numbers {numbers.tolist()}")
        status = Status(*head["status"].tolist())
        if status.outcome >= len(OUTCOMES):
            raise ValueError(f"there is no outcome {status.outcome}")
        if self._single_stage and f"{status.world}-{status.stage}" != self._stage:
            raise ValueError(f"a state of stage {status.world}-{status.stage}")
        self._status = status._replace(saved=bool(status.saved))
        self._lives = int(head["lives"])
        self._steps_without_progress = int(head["steps_without_progress"])
        self._next_save_x = int(head["next_save_x"])
        self._frame = head["frame"].copy()
        self._saved_frame = head["saved_frame"].copy()
        return self._frame

    def _begin_episode(self) -> None:
        memory = self._emulator.memory
        self._lives = memory.lives
        self._steps_without_progress = 0
        self._next_save_x = memory.x + SAVE_PERIOD_PX
        self._status = Status(
            x=memory.x,
            y=memory.y,
            max_x=memory.x,
            world=memory.world,
            stage=memory.stage,
            stages_cleared=0,
            game_score=memory.score,
            coins=memory.coins,
            time_left=memory.clock,
            outcome=RUNNING,
            saved=False,
        )

    def _look(self) -> Status:
        """The last status, with what the screen shows now."""
        memory = self._emulator.memory
        return self._status._replace(
            x=memory.x,
            y=memory.y,
            game_score=memory.score,
            coins=memory.coins,
            time_left=memory.clock,
            saved=False,
        )

    def _judge(self) -> Status:
        """How the episode stands after the emulated frames of a decision."""
        memory, before, now = self._emulator.memory, self._status, self._look()
        # The counter runs 2, 1, 0, 255; it also goes up, with a 1-up.
        if (memory.lives - self._lives) % 256 > 127:
            # The full game has already begun the next life: take what was true before.
            now = now._replace(x=before.x, y=before.y, time_left=before.time_left)
            return now._replace(outcome=_end_of_life(before))
        self._lives = memory.lives
        if self._has_cleared_stage():
            return self._cleared(now)
        if self._emulator.is_over:
            return now._replace(outcome=_end_of_life(before))
        if now.x > now.max_x and not memory.sees_warp_zone:
            self._steps_without_progress = 0
            return now._replace(max_x=now.x)
        self._steps_without_progress += 1
        stalled = self._steps_without_progress >= self._stall_steps
        return now._replace(outcome=STALL) if stalled else now

    def _has_cleared_stage(self) -> bool:
        """Ask only while Mario lives: the number of the stage also changes at the end of a game."""
        memory = self._emulator.memory
        # The flag is missed at some castles and when play continues; the new stage never is.
        has_moved = (memory.world, memory.stage) != (self._status.world, self._status.stage)
        return has_moved or memory.is_won or (self._single_stage and memory.has_flag)

    def _cleared(self, now: Status) -> Status:
        """How the episode stands when its stage is cleared."""
        memory = self._emulator.memory
        now = now._replace(stages_cleared=now.stages_cleared + 1)
        if self._single_stage or memory.is_won:
            return now._replace(outcome=CLEAR)
        self._steps_without_progress = 0
        self._next_save_x = now.x
        return now._replace(world=memory.world, stage=memory.stage, max_x=now.x)

    def _is_at_save_point(self) -> bool:
        """A save point is where Mario first stands on the ground after another 160 pixels, and at
        the beginning of each later stage, but never in a Warp Zone.

        Whether the episode stalls plays no part: that depends on where it began, and save points
        must follow from the actions since the reset alone.
        """
        memory = self._emulator.memory
        due = self._status.x >= self._next_save_x
        return due and memory.is_on_ground and not memory.sees_warp_zone

    def screen(self) -> np.ndarray:
        """A copy of the screen, uint8 [240, 256, 3] RGB."""
        return self._emulator.screen.copy()

    def ram(self) -> bytes:
        """A copy of the console's 2048 bytes of memory."""
        return bytes(self._emulator.memory.ram)

    def close(self) -> None:
        """Free the emulator. Closing twice is allowed."""
        self._emulator.close()


def _head_of_state(frame_shape: tuple[int, int]) -> np.dtype[np.void]:
    """What a state of a game says before that of the emulator."""
    return np.dtype(
        [
            ("status", np.int32, len(Status._fields)),
            ("lives", np.int32),
            ("steps_without_progress", np.int32),
            ("next_save_x", np.int32),
            ("frame", np.uint8, frame_shape),
            ("saved_frame", np.uint8, frame_shape),
        ]
    )


def _end_of_life(before: Status) -> int:
    """The outcome of a life that ended in the decision after a status."""
    return TIME_UP if before.time_left <= 1 else DEATH
