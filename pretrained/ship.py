"""Make a shipped model of a run's best: weights in half precision, judged by 100 games.

    python -m pretrained.ship --run-name RUN

writes pretrained/STAGE.pth and pretrained/STAGE.json: the evaluation by the protocol, and how the
run was trained.
"""

import json
from dataclasses import replace
from pathlib import Path

from mario_rl.cli import Parser, run_script

EPISODES = 100
FOLDER = Path(__file__).parent


def main() -> None:
    parser = Parser("Make a shipped model of a run's best.")
    parser.add_argument("--run-name", required=True)
    parser.add_argument("--output-dir", default=".", help="where models/ and stats/ lie")
    args = parser.parse_args()

    from mario_rl.files import RunPaths, read_json
    from mario_rl.model import Model
    from mario_rl.playback import Request, evaluate_model

    paths = RunPaths(args.output_dir, args.run_name)
    model = Model.load(paths.model)
    run = read_json(paths.run_json)
    path = FOLDER / f"{model.config.env.stage}.pth"
    weights = {name: tensor.half() for name, tensor in model.weights.items()}
    replace(model, weights=weights, optimizer=None).save(path)

    request = Request(
        path, Path(args.output_dir), stage=None, episodes=EPISODES, epsilon=0.01, noops=30,
        max_steps=None, seed=0, render=False, record=False, plot=False, delay=0,
    )  # fmt: skip
    report = evaluate_model(request, print)
    report["model"] = path.name
    report["training"] = {
        **{name: model.evaluation[name] for name in ("env_steps", "updates", "episodes", "hours")},
        **{name: run[name] for name in ("git_commit", "versions", "hardware")},
        "command": run["sessions"][0]["command"],
    }
    path.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    run_script(main)
