"""Super Mario Bros. as it is usually wrapped, with OpenAI baselines' work for each step.

Written for both stacks of emulator packages. The wrappers are plain classes, which costs a
little less than deriving them from gym's.
"""

import contextlib
import io
from collections import deque
from typing import Any

import cv2
import numpy as np

with contextlib.redirect_stderr(io.StringIO()):  # gym's notice about its successor
    from gym_super_mario_bros import SuperMarioBrosEnv
from gym_super_mario_bros.actions import SIMPLE_MOVEMENT
from nes_py.wrappers import JoypadSpace

SKIP = 4
STACK = 4
SIZE = (84, 84)
NUM_ACTIONS = len(SIMPLE_MOVEMENT)

cv2.ocl.setUseOpenCL(False)


def joypad_env() -> Any:
    """Stage 1-1, one frame a step. `gym.make` is broken on the classic stack, hence directly."""
    return JoypadSpace(SuperMarioBrosEnv(target=(1, 1)), SIMPLE_MOVEMENT)


class MaxAndSkip:
    """Repeats an action for four frames; the observation is the maximum of the last two."""

    def __init__(self, env: Any) -> None:
        self.env = env
        shape = env.observation_space.shape
        self._last_two = np.zeros((2, *shape), dtype=np.uint8)

    def reset(self) -> np.ndarray:
        obs = self.env.reset()
        return obs[0] if isinstance(obs, tuple) else obs  # type: ignore[no-any-return]

    def step(self, action: int) -> tuple[np.ndarray, float, bool, dict[str, Any]]:
        total_reward = 0.0
        for i in range(SKIP):
            # One `done`, or on the new stack `terminated` and `truncated`.
            obs, reward, *done, info = self.env.step(action)
            if i >= SKIP - 2:
                self._last_two[i - (SKIP - 2)] = obs
            total_reward += reward
            if any(done):
                break
        return self._last_two.max(axis=0), total_reward, any(done), info


class Grey84:
    """Grey, 84x84 pixels, uint8 [84, 84, 1]."""

    def __init__(self, env: MaxAndSkip) -> None:
        self._env = env

    def reset(self) -> np.ndarray:
        return self._warp(self._env.reset())

    def step(self, action: int) -> tuple[np.ndarray, float, bool, dict[str, Any]]:
        obs, reward, done, info = self._env.step(action)
        return self._warp(obs), reward, done, info

    def _warp(self, frame: np.ndarray) -> np.ndarray:
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        return cv2.resize(grey, SIZE, interpolation=cv2.INTER_AREA)[:, :, None]


class LazyFrames:
    """A stack that shares its frames with its neighbours until an array is asked for."""

    def __init__(self, frames: list[np.ndarray]) -> None:
        self._frames = frames

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        stacked = np.concatenate(self._frames, axis=-1)
        return stacked if dtype is None else stacked.astype(dtype)


class FrameStack:
    """The last four observations, np.asarray(...) uint8 [84, 84, 4]."""

    def __init__(self, env: Grey84) -> None:
        self._env = env
        self._frames: deque[np.ndarray] = deque(maxlen=STACK)

    def reset(self) -> LazyFrames:
        self._frames.extend([self._env.reset()] * STACK)
        return LazyFrames(list(self._frames))

    def step(self, action: int) -> tuple[LazyFrames, float, bool, dict[str, Any]]:
        obs, reward, done, info = self._env.step(action)
        self._frames.append(obs)
        return LazyFrames(list(self._frames)), reward, done, info
