#!/usr/bin/env python3
"""Draw the course of a training run: return, progress, clear rate, loss and exploration."""

from functools import partial

from mario_rl.cli import Parser, run_script
from mario_rl.console import say, tell
from mario_rl.storage.paths import RunPaths


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--run-name", required=True, help="the run to draw")
    parser.add_argument(
        "--format", choices=("png", "svg", "pdf"), default="png", help="file format (default: png)"
    )
    parser.add_argument("--show", action="store_true", help="also show it in a window")
    parser.add_argument(
        "--live",
        action="store_true",
        help="also show it in a window that follows the run, until it is closed or Ctrl-C",
    )
    parser.add_argument(
        "--output-dir",
        default=".",
        help="where models/, checkpoints/, stats/ and videos/ lie (default: the current directory)",
    )
    args = parser.parse_args()

    paths = RunPaths(args.output_dir, args.run_name)
    paths.require_stats()

    from matplotlib.figure import Figure

    from mario_rl.reports import plots
    from mario_rl.reports.recorded_runs import read_run

    def draw(figure: Figure) -> None:
        plots.draw_training(figure, read_run(args.run_name, args.output_dir))

    path = paths.stats / f"training.{args.format}"
    plots.save(draw, path)
    # A window is for somebody who need not read the output.
    (tell if args.show or args.live else say)(str(path))
    if args.live:
        plots.show(draw, [paths.episodes_csv, paths.updates_csv, paths.evaluations_csv])
    elif args.show:
        plots.show(draw)


command = partial(run_script, main)

if __name__ == "__main__":
    command()
