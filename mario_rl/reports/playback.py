"""Playing a saved model for a person: figures, a window, a recording, a plot of the positions."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mario_rl.agent.exported_model import load_model
from mario_rl.agent.saved_model import SavedModel
from mario_rl.config import (
    EVALUATION_EMULATOR,
    EVALUATION_EPSILON,
    MAX_NOOP_FRAMES,
    Config,
    RunConfig,
)
from mario_rl.console import warn
from mario_rl.device import leave_cores_to_the_games
from mario_rl.errors import UserError
from mario_rl.evaluation.figures import summarize
from mario_rl.evaluation.play import PlayedEpisode, play_episodes
from mario_rl.games.actions import action_names
from mario_rl.games.emulator import Emulator, resolved
from mario_rl.games.interface import SCREEN_SHAPE, Games
from mario_rl.games.mario_game import MarioGame
from mario_rl.games.serial import SerialGames
from mario_rl.games.window import SCALE, Window, enlarge
from mario_rl.reports.overlay import WIDTH, Overlay
from mario_rl.reports.position_plot import save_position_plot
from mario_rl.storage.demonstration import Demonstration
from mario_rl.storage.files import reserved
from mario_rl.storage.video import VideoWriter
from mario_rl.training.assembly import build_games

_GAMES_AT_A_TIME = 8


@dataclass(frozen=True, kw_only=True)
class Viewing:
    """How a game is shown, by the names of the flags of eval_mario.py."""

    output_dir: Path = Path(".")
    render: bool = False
    record: bool = False
    delay: float = 1 / 60  # seconds


@dataclass(frozen=True, kw_only=True)
class Request(Viewing):
    """What eval_mario.py was asked for, by the names of its flags."""

    model_path: Path
    stage: str | None = None  # None: the one that the model was trained on
    emulator: str = EVALUATION_EMULATOR
    episodes: int = 20
    epsilon: float = EVALUATION_EPSILON
    noops: int = MAX_NOOP_FRAMES  # at most this many frames
    max_steps: int | None = None
    seed: int = 0
    plot: bool = False
    overlay: bool = False  # beside a game that is rendered or recorded
    saliency: bool = False  # in the overlay


def evaluate_model(
    request: Request,
    say: Callable[[str], None],
    interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Play the episodes and make what was asked for.

    Args:
        interrupted: once it is True, play ends, and only the games count that were played to their
            end. A recording keeps what it has.

    Returns:
        The evaluation as primitives, for JSON. Its figures are those of the games that were played
        to their end; None if there was none.

    Raises:
        UserError: if the model cannot be loaded or there is no display for `render`.
        KeyboardInterrupt: if `interrupted` before the end of the first game.
    """
    model = load_model(request.model_path)
    leave_cores_to_the_games()
    # How a machine is used is not for the model to say.
    config = replace(model.config, run=RunConfig())
    config = config.replaced({"emulator": resolved(request.emulator)})
    if request.stage is not None:
        config = config.replaced({"stage": request.stage})
    stage = config.env.stage
    played = _play(model, config, request, say, interrupted)
    if interrupted():
        played = [one for one in played if one.finished]
        if not played:
            raise KeyboardInterrupt
        say(f"interrupted after {len(played)} of {request.episodes} games")
    if not played:
        raise UserError("stopped before the first decision")
    # A game on which the window was closed is neither cleared nor lost.
    finished = [one.episode for one in played if one.finished]
    trained = model.evaluation
    evaluation = None
    if finished:
        evaluation = summarize(
            finished,
            env_steps=trained.env_steps,
            updates=trained.updates,
            episodes=trained.episodes,
            hours=trained.hours,
        )
    title = f"{model.run_name} on {stage}"
    figures = evaluation.describe(stage) if evaluation else "no game was played to its end"
    say(f"{title}: {figures}")
    if request.plot:
        with reserved(request.output_dir / "videos", _stem(model, stage), "png") as path:
            save_position_plot(path, played, title)
        say(f"plot: {path}")
    return {
        "model": str(request.model_path),
        "run_name": model.run_name,
        "stage": stage,
        "emulator": config.env.emulator,
        "epsilon": request.epsilon,
        "noops": request.noops,
        "max_steps": request.max_steps,
        "seed": request.seed,
        "evaluation": asdict(evaluation) if evaluation else None,
        "episodes": [
            {"noop_frames": one.position.noop_frames, **asdict(one.episode)} for one in played
        ],
    }


def _play(
    model: SavedModel,
    config: Config,
    request: Request,
    say: Callable[[str], None],
    interrupted: Callable[[], bool],
) -> list[PlayedEpisode]:
    def on_end(number: int, played: PlayedEpisode) -> None:
        if interrupted() and not played.finished:
            return
        episode = played.episode
        say(
            f"episode {number + 1}: {episode.outcome} at {episode.world}-{episode.stage} "
            f"x={episode.max_x}, return {episode.episode_return:.1f}, "
            f"{episode.length_steps} steps, score {episode.game_score}"
        )

    network, overlay = model.network(), None
    if request.overlay and (request.render or request.record):
        overlay = Overlay(network, action_names(config.env.action_set), request.saliency)
    width = SCALE * SCREEN_SHAPE[1] + (WIDTH if overlay else 0)
    stem = _stem(model, config.env.stage)
    with _viewers(request, model.run_name, stem, width, say) as (viewers, is_closed):
        games = _games(config, request, viewers, overlay, say)
        with contextlib.closing(games):
            return play_episodes(
                overlay.q_values if overlay else network.q_values,
                games,
                request.episodes,
                request.seed,
                epsilon=request.epsilon,
                max_noop_frames=request.noops,
                max_steps=request.max_steps,
                on_end=on_end,
                should_stop=lambda: interrupted() or is_closed(),
            )


def replay_demonstration(
    path: Path, emulator: str, viewing: Viewing, say: Callable[[str], None]
) -> None:
    """Play a demonstration again, and make what was asked for.

    Raises:
        UserError: if it cannot be read, or becomes another game.
    """
    demonstration = Demonstration.read(path)
    width = SCALE * SCREEN_SHAPE[1]
    with _viewers(viewing, path.stem, path.stem, width, say) as (viewers, _):

        def on_frame(emulator: Emulator) -> None:
            if viewers:
                picture = enlarge(emulator.screen)
                for view in viewers:
                    view(picture)

        demonstration.replay(emulator, on_frame)
    say(
        f"{demonstration.outcome} at x={demonstration.max_x}, "
        f"{sum(demonstration.frames):,} frames, the same on {resolved(emulator)}"
    )


@contextlib.contextmanager
def _viewers(
    viewing: Viewing, title: str, stem: str, width: int, say: Callable[[str], None]
) -> Iterator[tuple[list[Callable[[np.ndarray], None]], Callable[[], bool]]]:
    """What takes the pictures, uint8 [720, width, 3] RGB, and whether a person closed the window.
    The recording is complete when the block ends."""
    viewers: list[Callable[[np.ndarray], None]] = []
    window = _window(title, viewing) if viewing.render else None
    with contextlib.ExitStack() as stack:
        if window is not None:
            stack.enter_context(contextlib.closing(window))
            viewers.append(window.show)
        if viewing.record:
            video = stack.enter_context(reserved(viewing.output_dir / "videos", stem, "mp4"))
            writer = VideoWriter(video, SCALE * SCREEN_SHAPE[0], width)
            viewers.append(stack.enter_context(writer).add)
        yield viewers, window.is_closed if window else lambda: False
    if viewing.record:
        say(f"video: {video}")


def _window(title: str, viewing: Viewing) -> Window | None:
    """None if there is no display, and the game is recorded: then that is enough."""
    try:
        return Window(f"Mario RL: {title}", viewing.delay)
    except UserError:
        if not viewing.record:
            raise
        warn("there is no display to open a window on (--render); recording without one")
        return None


def _games(
    config: Config,
    request: Request,
    viewers: list[Callable[[np.ndarray], None]],
    overlay: Overlay | None,
    say: Callable[[str], None],
) -> Games:
    """One game if somebody watches, else several at a time."""
    if not viewers:
        config = config.replaced({"ray": "none"})
        return build_games(config, min(request.episodes, _GAMES_AT_A_TIME), say)

    def on_frame(screen: np.ndarray) -> None:
        picture = overlay.beside(screen) if overlay else enlarge(screen)
        for view in viewers:
            view(picture)

    game = MarioGame(config.env, on_frame)
    return SerialGames.of([overlay.watched(game) if overlay else game])


def _stem(model: SavedModel, stage: str) -> str:
    return f"{Path(model.run_name).name}_{stage}"
