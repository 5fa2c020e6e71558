#!/usr/bin/env python3
"""Draw the course of a training run: return, progress, clear rate, loss and exploration."""

from functools import partial
from typing import TYPE_CHECKING

from mario_rl.cli import Parser, run_script
from mario_rl.console import say, tell
from mario_rl.reports.output import FIGURES, output_file, write_output
from mario_rl.storage.paths import RunPaths

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--run-name", required=True, help="the run to draw")
    add_place = parser.add_mutually_exclusive_group().add_argument
    add_place("--format", choices=FIGURES, default="png", help="file format (default: png)")
    add_place(
        "--output",
        type=output_file(*FIGURES),
        metavar="FILE",
        help="write this .png, .svg or .pdf (default: training.png in the folder of the run)",
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
    parser.add_argument(
        "--html",
        action="store_true",
        help="write report.html instead, an interactive report for a browser",
    )
    parser.add_argument(
        "--serve",
        action="store_true",
        help="show that report under an address of this machine, and follow the run until Ctrl-C",
    )
    args = parser.parse_args()

    paths = RunPaths(args.output_dir, args.run_name)
    paths.require_stats()

    from mario_rl.reports import plots
    from mario_rl.reports.recorded_runs import read_run

    if args.serve:
        from mario_rl.reports.server import serve

        serve(paths, say)
        return
    if args.html:
        from mario_rl.reports.html import run_report

        place = paths.stats / "report.html"
        report = run_report(paths, read_run(args.run_name, args.output_dir), place)
        write_output(place, lambda file: file.write(report.page()))
        say(str(place))
        return

    def draw(figure: "Figure") -> None:
        plots.draw_training(figure, read_run(args.run_name, args.output_dir))

    path = args.output or paths.stats / f"training.{args.format}"
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
