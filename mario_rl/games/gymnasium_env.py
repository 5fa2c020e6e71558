"""The game as a Gymnasium environment, for agents other than ours.

    import gymnasium
    env = gymnasium.make("mario_rl:SuperMarioBros-1-1-v0", frame_stack=4)

There is one environment for each stage, and SuperMarioBros-v0 for the full game. Agents get the
same observations and rewards as ours. The keyword arguments are settings of `EnvConfig`, with its
defaults.
"""

from collections import deque
from typing import Any, Literal

import gymnasium
import numpy as np

from mario_rl.config import FULL_GAME, MAX_NOOP_FRAMES, Config, EnvConfig
from mario_rl.games.actions import action_names
from mario_rl.games.interface import FRAME_SKIP, FRAMES_PER_SECOND, OUTCOMES, Status
from mario_rl.games.mario_game import MarioGame
from mario_rl.games.window import Window, enlarge
from mario_rl.settings import contains, require

RenderMode = Literal["human", "rgb_array"]


class SuperMarioBros(gymnasium.Env[np.ndarray, np.int64]):
    """One game.

    Observations are uint8 [frame_stack, H, W], the oldest frame first; after a reset all of them
    are the first frame. Actions are the indices of `action_names`; each is held for 4 frames.
    Rewards and ends are those of `MarioGame`. The info has the fields of `Status`, with the outcome
    as a word: running, clear, death, time_up or stall.
    """

    metadata = {  # noqa: RUF012
        "render_modes": ["human", "rgb_array"],
        "render_fps": FRAMES_PER_SECOND // FRAME_SKIP,
    }

    def __init__(
        self,
        stage: str = FULL_GAME,
        *,
        frame_stack: int = 1,
        max_noop_frames: int = MAX_NOOP_FRAMES,
        render_mode: RenderMode | None = None,
        **settings: Any,
    ) -> None:
        """
        Args:
            stage: "1-1" to "8-4", or "full".
            frame_stack: frames in an observation; our agent sees 4.
            max_noop_frames: an episode begins after 0 to this many frames in which no button is
                held, drawn from a uniform distribution. Without them the game, which is
                deterministic, would be the same every time.
            render_mode: "human" opens a window, and shows all frames of the game.
            settings: action_set, view, frame_size, pixels, show_buttons, reward, death_penalty,
                stall_steps.

        Raises:
            UserError: for a setting that does not exist or is out of range.
        """
        names = EnvConfig.__dataclass_fields__.keys()
        require(settings.keys() <= names, f"SuperMarioBros takes {', '.join(names)}")
        _require_number("frame_stack", frame_stack, "[1, 64]")
        _require_number("max_noop_frames", max_noop_frames, "[0, 255]")
        modes = (None, *self.metadata["render_modes"])
        require(render_mode in modes, f"render_mode {render_mode!r:.80}: choose from {modes}")
        config = Config().replaced({"stage": stage, **settings}).env
        self.action_names = action_names(config.action_set)
        self.action_space = gymnasium.spaces.Discrete(len(self.action_names))
        shape = (frame_stack, *config.frame_shape)
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
        self.render_mode = render_mode
        self._max_noop_frames = max_noop_frames
        self._frames: deque[np.ndarray] = deque(maxlen=frame_stack)
        self._window: Window | None = None  # opened by the first reset
        self._is_over = True  # a reset is needed
        self._is_closed = False
        self._game = MarioGame(config, self._show if render_mode == "human" else None)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode.

        Args:
            options: {"noop_frames": n} for exactly n frames, 0 to 255, before the first decision.

        Raises:
            UserError: for other options, or if there is no display for "human".
            ClosedEnvironmentError: after `close`.
        """
        if self._is_closed:
            raise gymnasium.error.ClosedEnvironmentError("the environment is closed")
        super().reset(seed=seed)
        if self.render_mode == "human" and self._window is None:
            self._window = Window("Super Mario Bros.", 1 / FRAMES_PER_SECOND)
        noop_frames = int(self.np_random.integers(self._max_noop_frames + 1))
        if options:
            require(list(options) == ["noop_frames"], "the only option is noop_frames")
            noop_frames = options["noop_frames"]
            _require_number("noop_frames", noop_frames, "[0, 255]")
        frame, status = self._game.reset(noop_frames)
        self._is_over = False
        self._frames.extend([frame] * self._frames.maxlen)  # type: ignore[operator]
        return self._observation(), _info(status)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold an action for 4 frames, or until the episode ends.

        Raises:
            InvalidAction: for anything but an element of the action space.
            ResetNeeded: before the first reset, after the end of an episode, and after `close`.
        """
        if self._is_over:
            raise gymnasium.error.ResetNeeded("no episode is being played: call reset")
        if not self.action_space.contains(action):
            raise gymnasium.error.InvalidAction(f"{action!r:.80} is not in {self.action_space}")
        frame, reward, terminated, truncated, status = self._game.step(int(action))
        self._is_over = terminated or truncated
        self._frames.append(frame)
        return self._observation(), reward, terminated, truncated, _info(status)

    def _observation(self) -> np.ndarray:
        return np.stack(self._frames)

    def _show(self, screen: np.ndarray) -> None:
        if self._window is not None:
            self._window.show(enlarge(screen))

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The screen, uint8 [240, 256, 3] RGB, if the mode is "rgb_array"."""
        return self._game.screen() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        self._game.close()
        self._is_over = self._is_closed = True
        if self._window is not None:
            self._window.close()


def _require_number(name: str, value: Any, interval: str) -> None:
    is_number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    require(is_number and contains(interval, value), f"{name} {value!r:.80}: must be in {interval}")


def _info(status: Status) -> dict[str, Any]:
    return {**status._asdict(), "outcome": OUTCOMES[status.outcome]}
