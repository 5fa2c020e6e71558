"""A panel beside the game that shows what the agent sees, what it expects and what it does."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch

from mario_rl.agent.network import DuelingNetwork, to_tensor
from mario_rl.games.interface import SCREEN_SHAPE, Game
from mario_rl.games.window import SCALE, enlarge

HEIGHT, WIDTH = SCALE * SCREEN_SHAPE[0], 512  # of the panel, pixels
_VIEW = 252  # height and width of the agent's picture in it: a multiple of 21, 42, 63 and 84
_MARGIN = 20

_BACK, _TEXT, _QUIET, _LINE = (20, 23, 26), (232, 232, 232), (150, 150, 150), (58, 63, 69)
_BEST, _OTHER, _SPREAD, _PRESSED = (86, 180, 233), (110, 118, 126), (240, 228, 66), (230, 120, 60)


class Overlay:
    """Watches one game. Its `q_values` choose the actions, `watched` gives it the game, and
    `beside` draws the panel next to a screen."""

    def __init__(
        self, network: DuelingNetwork, action_names: Sequence[str], shows_saliency: bool
    ) -> None:
        self._network = network
        self._names = list(action_names)
        self._shows_saliency = shows_saliency
        self._action: int | None = None  # None: before the first decision
        self._reward = 0.0
        self._view = np.zeros((1, 1, 3), dtype=np.uint8)
        self._quantiles = np.zeros((len(self._names), 1), dtype=np.float32)
        self._panel: np.ndarray | None = None  # as long as nothing has changed

    def q_values(self, obs: np.ndarray | torch.Tensor) -> np.ndarray:
        """As `DuelingNetwork.q_values`, for one game."""
        tensor = to_tensor(obs, torch.device("cpu"))
        with torch.inference_mode():
            self._quantiles = self._network(tensor)[0].numpy()
        self._view = np.stack([tensor[0, -1].numpy()] * 3, axis=2)
        if self._shows_saliency:
            self._view = _shaded(self._view, saliency(self._network, tensor)[0])
        return self._quantiles.mean(axis=1)[None]

    def watched(self, game: Game) -> Game:
        """The same game, whose actions and rewards are shown."""
        return _Watched(game, self)  # type: ignore[return-value]

    def begins(self) -> None:
        self._action, self._reward, self._panel = None, 0.0, None

    def decides(self, action: int) -> None:
        self._action, self._panel = action, None

    def earns(self, reward: float) -> None:
        self._reward += reward
        self._panel = None

    def beside(self, screen: np.ndarray) -> np.ndarray:
        """
        Args:
            screen: uint8 [240, 256, 3] RGB.

        Returns:
            The enlarged screen and the panel, uint8 [720, 1280, 3] RGB.
        """
        if self._panel is None:
            self._panel = self._draw()
        return np.hstack([enlarge(screen), self._panel])

    def _draw(self) -> np.ndarray:
        panel = np.full((HEIGHT, WIDTH, 3), _BACK, dtype=np.uint8)
        height, width = self._view.shape[:2]
        _write(panel, f"what the agent sees ({width}x{height})", _MARGIN, 26, _QUIET)
        top = 38
        panel[top : top + _VIEW, _MARGIN : _MARGIN + _VIEW] = cv2.resize(
            self._view, (_VIEW, _VIEW), interpolation=cv2.INTER_NEAREST
        )
        right = _MARGIN + _VIEW + 24
        _write(panel, "reward so far", right, 60, _QUIET)
        _write(panel, f"{self._reward:.1f}", right, 96, _TEXT, 1.0)
        _write(panel, "buttons", right, 150, _QUIET)
        self._draw_buttons(panel, right, 165)
        _write(panel, "expected return of each action, and 10 % to 90 %", _MARGIN, 330, _QUIET)
        self._draw_values(panel, 345)
        return panel

    def _draw_buttons(self, panel: np.ndarray, left: int, top: int) -> None:
        held = self._names[self._action].split("+") if self._action is not None else []
        for i, name in enumerate(("left", "right", "down", "up", "B", "A")):
            row, column = divmod(i, 2)
            x, y = left + 100 * column, top + 42 * row
            colour = _PRESSED if name in held else _LINE
            cv2.rectangle(panel, (x, y), (x + 90, y + 34), colour, cv2.FILLED)
            _write(panel, name, x + 12, y + 23, _TEXT)

    def _draw_values(self, panel: np.ndarray, top: int) -> None:
        """A row for each action: its name, a bar to its mean, a line over its spread."""
        if self._action is None:
            return
        low, mean, high = (
            np.quantile(self._quantiles, 0.1, axis=1),
            self._quantiles.mean(axis=1),
            np.quantile(self._quantiles, 0.9, axis=1),
        )
        least, most = min(low.min(), 0.0), max(high.max(), 0.0)
        scale = 300 / max(most - least, 1e-6)
        row = min(48, (HEIGHT - top - 10) // len(self._names))

        def place(value: float) -> int:
            return 150 + round(scale * (value - least))

        for i, name in enumerate(self._names):
            y = top + row * i + row // 2
            colour = _BEST if i == mean.argmax() else _OTHER
            thick = row // 4
            cv2.rectangle(
                panel, (place(0.0), y - thick), (place(mean[i]), y + thick), colour, cv2.FILLED
            )
            cv2.line(panel, (place(low[i]), y), (place(high[i]), y), _SPREAD, 2, cv2.LINE_AA)
            _write(panel, name, _MARGIN, y + 6, _PRESSED if i == self._action else _TEXT)
            _write(panel, f"{mean[i]:.2f}", 458, y + 6, _TEXT)


class _Watched:
    """A game that tells an overlay what happens in it."""

    def __init__(self, game: Game, overlay: Overlay) -> None:
        self._game = game
        self._overlay = overlay

    def __getattr__(self, name: str) -> Any:
        return getattr(self._game, name)

    def reset(self, noop_frames: int = 0) -> Any:
        self._overlay.begins()
        return self._game.reset(noop_frames)

    def step(self, action: int) -> Any:
        self._overlay.decides(action)
        result = self._game.step(action)
        self._overlay.earns(result[1])
        return result


def saliency(network: DuelingNetwork, obs: torch.Tensor) -> np.ndarray:
    """How much the value of the best action depends on each pixel: the absolute gradient, summed
    over the stacked frames (Simonyan et al. 2014), divided by the greatest.

    Args:
        obs: uint8 [B, 4, H, W].

    Returns:
        float32 [B, H, W], 0 to 1.
    """
    with torch.enable_grad():
        pixels = obs.float().requires_grad_()
        best = network(pixels).mean(dim=2).max(dim=1).values.sum()
        (gradient,) = torch.autograd.grad(best, pixels)
    strength = gradient.abs().sum(dim=1)
    return (strength / strength.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)).numpy()


def _shaded(view: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """The view, uint8 [H, W, 3], with red where the strength, 0 to 1, is great."""
    smooth = cv2.GaussianBlur(strength, (3, 3), 0)[:, :, None]
    share = np.clip(smooth / max(float(np.quantile(smooth, 0.995)), 1e-12), 0, 1)
    red = np.array([255.0, 60.0, 30.0])
    return ((1 - share) * view + share * red).astype(np.uint8)


def _write(
    panel: np.ndarray, text: str, x: int, y: int, colour: tuple[int, ...], size: float = 0.5
) -> None:
    cv2.putText(panel, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)
