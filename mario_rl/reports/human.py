"""A window in which a person plays the game, at 60 frames per second."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mario_rl.agent.saved_model import SavedModel
from mario_rl.errors import UserError
from mario_rl.evaluation.figures import wilson_interval
from mario_rl.extras import import_extra
from mario_rl.games.actions import BUTTON_BITS
from mario_rl.games.emulator import Emulator, resolved
from mario_rl.games.interface import FRAMES_PER_SECOND, SCREEN_SHAPE
from mario_rl.games.window import SCALE, can_open, enlarge
from mario_rl.registry import EMULATORS
from mario_rl.storage.demonstration import Demonstration, Take
from mario_rl.storage.files import new_file

HELP = (
    "arrows: move   X or space: jump   Z or shift: run   P: pause   Q: quit",
    "S: save here   R: go back to there   Enter: start again   (or a gamepad)",
)

_A, _B, _UP, _DOWN, _LEFT, _RIGHT = (
    BUTTON_BITS[name] for name in ("A", "B", "up", "down", "left", "right")
)
_OPPOSITES = (_UP | _DOWN, _LEFT | _RIGHT)
_STICK = 0.5  # how far a stick must be moved
_BEHIND_S = 0.1  # after a longer delay the game does not catch up


@dataclass(frozen=True)
class _Game:
    """A game that ended, or that was left."""

    demonstration: Demonstration
    retries: int

    @property
    def rank(self) -> tuple[bool, int, int]:
        """The better of two games is greater."""
        game = self.demonstration
        return game.outcome == "clear", game.max_x, -sum(game.frames)

    def __str__(self) -> str:
        game = self.demonstration
        seconds = sum(game.frames) / FRAMES_PER_SECOND
        retries = f", retries: {self.retries}" if self.retries else ""
        return (
            f"{game.outcome} at x={game.max_x}, {seconds:.1f} s, score {game.game_score}{retries}"
        )


class _Controls:
    """The keyboard, and all gamepads."""

    def __init__(self, pygame: Any) -> None:
        self._pygame = pygame
        self._keys = {
            pygame.K_LEFT: _LEFT, pygame.K_RIGHT: _RIGHT, pygame.K_UP: _UP, pygame.K_DOWN: _DOWN,
            pygame.K_x: _A, pygame.K_SPACE: _A,
            pygame.K_z: _B, pygame.K_y: _B, pygame.K_LSHIFT: _B, pygame.K_RSHIFT: _B,
        }  # fmt: skip
        self._commands = {
            pygame.K_q: "quit", pygame.K_ESCAPE: "quit", pygame.K_s: "save", pygame.K_r: "retry",
            pygame.K_RETURN: "again", pygame.K_p: "pause",
        }  # fmt: skip
        self._pads: dict[int, Any] = {}
        self._tapped: set[int] = set()  # since the last frame, and perhaps released again

    def commands(self) -> list[str]:
        """What was asked for since the last call, such as "quit" or "retry"."""
        pygame, asked = self._pygame, []
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                asked.append("quit")
            elif event.type == pygame.KEYDOWN:
                self._tapped.add(event.key)
                if event.key in self._commands:
                    asked.append(self._commands[event.key])
            elif event.type == pygame.JOYDEVICEADDED:
                pad = pygame.joystick.Joystick(event.device_index)
                self._pads[pad.get_instance_id()] = pad
            elif event.type == pygame.JOYDEVICEREMOVED:
                self._pads.pop(event.instance_id, None)
        return asked

    def buttons(self) -> int:
        """Those that are held now. Opposite directions cancel out."""
        pressed = self._pygame.key.get_pressed()
        held = 0
        for key, button in self._keys.items():
            held |= button * (pressed[key] or key in self._tapped)
        self._tapped.clear()
        for pad in self._pads.values():
            held |= _held_on(pad)
        for both in _OPPOSITES:
            if held & both == both:
                held &= ~both
        return held


def _held_on(pad: Any) -> int:
    """A stick or a cross moves; the first button jumps, the others run."""
    across = [pad.get_axis(0) if pad.get_numaxes() > 0 else 0.0]
    down = [pad.get_axis(1) if pad.get_numaxes() > 1 else 0.0]
    for hat in range(pad.get_numhats()):
        x, y = pad.get_hat(hat)
        across.append(x)
        down.append(-y)
    held = _RIGHT * any(x > _STICK for x in across) | _LEFT * any(x < -_STICK for x in across)
    held |= _DOWN * any(y > _STICK for y in down) | _UP * any(y < -_STICK for y in down)
    pressed = [pad.get_button(number) for number in range(min(4, pad.get_numbuttons()))]
    return held | _A * bool(pressed[:1] and pressed[0]) | _B * any(pressed[1:])


class _Window:
    """Shows the game, 60 times per second."""

    def __init__(self, pygame: Any, title: str) -> None:
        pygame.display.init()
        pygame.joystick.init()
        self._pygame = pygame
        height, width, _ = SCREEN_SHAPE
        self._size = SCALE * width, SCALE * height
        self._surface = pygame.display.set_mode(self._size)
        pygame.display.set_caption(title)
        self._next = self._began = time.perf_counter()
        self.frames = 0

    def show(self, screen: np.ndarray, text: str) -> None:
        """Show uint8 [240, 256, 3] RGB, and wait for the next frame."""
        picture = enlarge(screen)
        if text:
            x, y = 40, self._size[1] // 2
            for colour, width in (((0, 0, 0), 6), ((255, 255, 255), 2)):
                cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.8, colour, width)
        self._surface.blit(self._pygame.image.frombuffer(picture, self._size, "RGB"), (0, 0))
        self._pygame.display.flip()
        # pygame's own clock counts milliseconds, which would be 62 frames per second.
        self._next += 1 / FRAMES_PER_SECOND
        now = time.perf_counter()
        if now > self._next + _BEHIND_S:  # after a pause of the machine
            self._next = now
        time.sleep(max(0.0, self._next - now))
        self.frames += 1

    @property
    def rate(self) -> float:
        """Frames per second so far."""
        return self.frames / (time.perf_counter() - self._began)

    def close(self) -> None:
        self._pygame.quit()


def play(
    stage: str,
    emulator: str,
    rival: SavedModel | None,
    record: Path | None,
    say: Callable[[str], None],
) -> None:
    """Let a person play until the window is closed.

    Args:
        rival: the model to be compared with.
        record: where the best game is written as a demonstration.

    Raises:
        UserError: if pygame is missing, there is no display, or the demonstration cannot be
            written.
    """
    pygame = import_extra("pygame", "games of people (--human)", "pygame-ce")
    if not can_open():
        raise UserError("there is no display to open a window on (--human)")
    for line in HELP:
        say(line)
    made: Emulator = EMULATORS.get(resolved(emulator))(stage, None)
    window = _Window(pygame, f"Mario RL: {stage}")
    games: list[_Game] = []
    best: _Game | None = None
    reserved = nullcontext() if record is None else new_file(record, "--record-demo")
    with closing(made), closing(window), reserved:
        for game in _games(made, stage, window, _Controls(pygame)):
            games.append(game)
            say(f"game {len(games)}: {game}")
            if best is None or game.rank > best.rank:
                best = game
                if record is not None:
                    best.demonstration.write(record)
        say(f"{window.frames:,} frames, {window.rate:.1f} per second")
    if games:
        say(_score_line(games, rival))
    if record is not None and best is not None:
        say(f"demonstration: {record} ({best})")


def _games(emulator: Emulator, stage: str, window: _Window, controls: _Controls) -> Iterator[_Game]:
    """Each game when it ends or is left, until the window is closed."""
    take = Take(emulator)
    paused = saves = False
    while True:
        for command in controls.commands():
            if command == "pause":
                paused = not paused
            elif command == "save":
                saves = True
            elif command == "retry":
                take.retry()
            else:
                if len(take) and not emulator.is_over:
                    yield _Game(take.demonstration(stage), take.retries)
                if command == "quit":
                    return
                take = Take(emulator)
        if saves and take.can_save:
            take.save()
            saves = False
        if not (paused or emulator.is_over):
            take.step(controls.buttons())
            if emulator.is_over:
                yield _Game(take.demonstration(stage), take.retries)
        if emulator.is_over:
            text = f"{take.outcome}! Enter: again   R: go back   Q: quit"
        else:
            text = "pause" if paused else ""
        window.show(emulator.screen, text)


def _score_line(games: list[_Game], rival: SavedModel | None) -> str:
    """A person and a model, side by side. Games in which somebody went back do not count."""
    ended = [one for one in games if one.demonstration.outcome != "unfinished" and not one.retries]
    cleared = sum(one.demonstration.outcome == "clear" for one in ended)
    line = f"you: cleared {cleared} of {len(ended)}"
    if ended:
        low, high = wilson_interval(cleared, len(ended))
        line += f" (95 % interval {low:.0%} to {high:.0%})"
    if rival is not None:
        figures = rival.evaluation
        line += (
            f"; {rival.run_name}: cleared {figures.clears} of {figures.eval_episodes} "
            f"({figures.interval()})"
        )
    return line
