"""Playing a saved model for a person: figures, a window, a recording, a plot of the positions."""

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mario_rl.agent.saved_model import Model
from mario_rl.config import EnvConfig
from mario_rl.device import leave_cores_to_the_games
from mario_rl.errors import UserError
from mario_rl.evaluation.play import EpisodeResult, play_episodes, stages_a_game, summarize
from mario_rl.games.interface import Games
from mario_rl.games.mario_game import MarioGame
from mario_rl.games.serial import SerialGames
from mario_rl.games.workers import WorkerGames
from mario_rl.reports.position_plot import save_position_plot
from mario_rl.reports.video import VideoWriter, Window

_GAMES_AT_A_TIME = 8


class Request(NamedTuple):
    """What eval_mario.py was asked for, by the names of its flags."""

    model_path: Path
    output_dir: Path
    stage: str | None  # None: the one that the model was trained on
    episodes: int
    epsilon: float
    noops: int  # at most so many frames
    max_steps: int | None
    seed: int
    render: bool
    record: bool
    plot: bool
    delay: float  # seconds


def evaluate_model(request: Request, say: Callable[[str], None]) -> dict[str, Any]:
    """Play the episodes and make what was asked for.

    Returns:
        The evaluation as primitives, for JSON. Its figures are those of the games played to their
        end, None if there is none.

    Raises:
        UserError: if the model cannot be loaded or there is no display for `render`.
    """
    model = Model.load(request.model_path)
    leave_cores_to_the_games()
    env_config = model.config.env
    if request.stage is not None:
        env_config = model.config.replaced({"stage": request.stage}).env
    results = _play(model, env_config, request, say)
    if not results:
        raise UserError("stopped before the first decision")
    # A game on which the window was closed is neither cleared nor lost.
    finished = [result for result in results if result.is_over(request.max_steps)]
    evaluation = summarize(finished) if finished else None
    title = f"{model.run_name} on {env_config.stage}"
    say(f"{title}: {_figures(evaluation, env_config.stage)}")
    if request.plot:
        path = _free_path(request, model, env_config, "png")
        save_position_plot(path, results, title)
        say(f"plot: {path}")
    return {
        "model": str(request.model_path),
        "run_name": model.run_name,
        "stage": env_config.stage,
        "epsilon": request.epsilon,
        "noops": request.noops,
        "max_steps": request.max_steps,
        "seed": request.seed,
        "evaluation": evaluation,
        "episodes": [_plain(result) for result in results],
    }


def _play(
    model: Model, env_config: EnvConfig, request: Request, say: Callable[[str], None]
) -> list[EpisodeResult]:
    def on_end(number: int, result: EpisodeResult) -> None:
        say(
            f"episode {number + 1}: {result.outcome} at {result.world}-{result.stage} "
            f"x={result.max_x}, return {result.episode_return:.1f}, "
            f"{len(result.x)} steps, score {result.game_score}"
        )

    video = _free_path(request, model, env_config, "mp4")
    with contextlib.ExitStack() as stack:
        viewers: list[Callable[[np.ndarray], None]] = []
        should_stop: Callable[[], bool] = lambda: False  # noqa: E731
        if request.render:
            window = Window(f"Mario RL: {model.run_name}", request.delay)
            stack.enter_context(contextlib.closing(window))
            viewers.append(window.show)
            should_stop = window.is_closed
        if request.record:
            viewers.append(stack.enter_context(VideoWriter(video)).add)
        if viewers:

            def on_frame(frame: np.ndarray) -> None:
                for view in viewers:
                    view(frame)

            games: Games = SerialGames.of([MarioGame(env_config, on_frame)])
        else:
            games = WorkerGames(env_config, min(request.episodes, _GAMES_AT_A_TIME), say)
        stack.enter_context(contextlib.closing(games))
        results = play_episodes(
            model.network().q_values,
            games,
            request.episodes,
            request.seed,
            epsilon=request.epsilon,
            max_noop_frames=request.noops,
            max_steps=request.max_steps,
            on_end=on_end,
            should_stop=should_stop,
        )
    if request.record:
        say(f"video: {video}")
    return [result for result in results if result.x]  # the others were stopped while waiting


def _figures(evaluation: dict[str, Any] | None, stage: str) -> str:
    if evaluation is None:
        return "no game was played to its end"
    return (
        f"cleared {evaluation['clears']} of {evaluation['eval_episodes']} "
        f"({evaluation['clear_rate']:.0%}, 95 % interval "
        f"{evaluation['clear_rate_low']:.0%} to {evaluation['clear_rate_high']:.0%})"
        f"{stages_a_game(evaluation, stage)}, "
        f"mean return {evaluation['mean_return']:.1f}, mean x {evaluation['mean_x']:.0f}, "
        f"max x {evaluation['max_x']}, mean score {evaluation['mean_game_score']:.0f}"
    )


def _plain(result: EpisodeResult) -> dict[str, Any]:
    """An episode without its trace."""
    values = asdict(result)
    for name in ("position", "x", "y"):
        del values[name]
    return {"noop_frames": result.position.noop_frames, "length_steps": len(result.x), **values}


def _free_path(request: Request, model: Model, env_config: EnvConfig, suffix: str) -> Path:
    """A name in videos/ that no file has yet."""
    folder = request.output_dir / "videos"
    stem = f"{Path(model.run_name).name}_{env_config.stage}"
    names = itertools.chain([stem], (f"{stem}_{number}" for number in itertools.count(2)))
    return next(path for name in names if not (path := folder / f"{name}.{suffix}").exists())
