"""Make a shipped model of a run's best: weights in half precision, judged by 100 games.

    python -m pretrained.ship --run-name RUN

writes pretrained/STAGE.pth, pretrained/STAGE.json (the evaluation by the protocol, and how the run
was trained) and docs/images/STAGE.gif (the first of its games without random actions that clears).
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from mario_rl.cli import Parser, run_script
from mario_rl.errors import UserError

EPISODES = 100
GIF_FRAME_PERIOD = 4  # 15 frames per second
FOLDER = Path(__file__).parent
IMAGES = FOLDER.parent / "docs" / "images"


def main() -> None:
    parser = Parser("Make a shipped model of a run's best.")
    parser.add_argument("--run-name", required=True)
    parser.add_argument("--output-dir", default=".", help="where models/ and stats/ lie")
    args = parser.parse_args()

    from mario_rl.agent.saved_model import SavedModel
    from mario_rl.console import say
    from mario_rl.evaluation.figures import Evaluation
    from mario_rl.reports.playback import Request, evaluate_model
    from mario_rl.storage.files import read_json
    from mario_rl.storage.paths import RunPaths
    from mario_rl.storage.plain import from_plain

    paths = RunPaths(args.output_dir, args.run_name)
    model = SavedModel.load(paths.model)
    run = read_json(paths.run_json)
    path = FOLDER / f"{model.config.env.stage}.pth"
    weights = {name: tensor.half() for name, tensor in model.weights.items()}
    shipped = replace(model, weights=weights, optimizer=None)
    shipped.save(path)

    report = evaluate_model(
        Request(model_path=path, output_dir=Path(args.output_dir), episodes=EPISODES), say
    )
    # The games that chose a model flatter it.
    replace(shipped, evaluation=from_plain(Evaluation, report["evaluation"])).save(path)
    report["model"] = path.name
    report["training"] = {
        **{
            name: report["evaluation"][name]
            for name in ("env_steps", "updates", "episodes", "hours")
        },
        **{
            name: run[name] for name in ("command", "lineage", "git_commit", "versions", "hardware")
        },
    }
    path.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
    save_gif(path, IMAGES / f"{path.stem}.gif")


def save_gif(model_path: Path, gif_path: Path) -> None:
    """Play until a game clears the stage, and save that one."""
    from PIL import Image

    from mario_rl.agent.saved_model import SavedModel
    from mario_rl.evaluation.play import play_episodes
    from mario_rl.games.mario_game import MarioGame
    from mario_rl.games.serial import SerialGames

    model = SavedModel.load(model_path)
    frames: list[np.ndarray] = []
    game = MarioGame(model.config.env, lambda frame: frames.append(frame.copy()))
    games = SerialGames.of([game])
    for seed in range(EPISODES):
        frames.clear()
        (played,) = play_episodes(model.network().q_values, games, 1, seed, epsilon=0)
        if played.episode.stages_cleared:
            break
    else:
        raise UserError(f"{model_path} clears none of {EPISODES} games: no GIF")
    images = [Image.fromarray(frame) for frame in frames[::GIF_FRAME_PERIOD]]
    images[0].save(
        gif_path, save_all=True, append_images=images[1:], duration=70, loop=0, optimize=True
    )


if __name__ == "__main__":
    run_script(main)
