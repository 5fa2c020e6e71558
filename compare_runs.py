#!/usr/bin/env python3
"""Compare training runs: a table of their results, and their curves in the same axes."""

from argparse import Namespace
from functools import partial

from mario_rl.cli import Parser, run_script
from mario_rl.console import say, tell
from mario_rl.reports.output import FIGURES, output_file, write_output


def parse_flags() -> Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--run-names", nargs="+", required=True, help="the runs to compare")
    parser.add_argument(
        "--save", action="store_true", help="write the table (CSV) and the figure into stats/"
    )
    parser.add_argument("--show", action="store_true", help="show the figure in a window")
    parser.add_argument(
        "--x",
        choices=("episodes", "steps", "hours"),
        default="steps",
        help="the x axis of the curves (default: steps, the decisions of the agent)",
    )
    parser.add_argument(
        "--group",
        action="store_true",
        help="merge runs that differ only in seed, budget and use of the machine: mean and 95 %% "
        "bootstrap interval",
    )
    parser.add_argument(
        "--format",
        choices=FIGURES,
        default="png",
        help="file format of the figure that --save writes (default: png)",
    )
    parser.add_argument(
        "--html",
        action="store_true",
        help="write an interactive report for a browser into stats/",
    )
    parser.add_argument(
        "--output",
        type=output_file("csv", *FIGURES),
        metavar="FILE",
        help="write the table (.csv) or the figure (.png, .svg or .pdf) to this file",
    )
    parser.add_argument(
        "--output-dir",
        default=".",
        help="where models/, checkpoints/, stats/ and videos/ lie (default: the current directory)",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_flags()
    from mario_rl.reports import comparison
    from mario_rl.reports.recorded_runs import read_runs

    runs = read_runs(args.run_names, args.output_dir)
    groups = comparison.group_seeds(runs) if args.group else comparison.ungrouped(runs)
    table = comparison.table(groups)
    # Files are written, and a window opens, even if nobody reads the table.
    makes_file = args.save or args.output or args.show or args.html
    show_line = tell if makes_file else say
    show_line(comparison.format_table(table))
    for note in comparison.notes(groups):
        show_line(note)
    if not makes_file:
        return

    if args.html:
        from mario_rl.reports.html import comparison_report

        place = comparison.comparison_path(
            args.output_dir, args.run_names, "html", x="steps", grouped=args.group
        )
        page = comparison_report(groups, table).page()
        write_output(place, lambda file: file.write(page))
        show_line(str(place))
    if not (args.save or args.output or args.show):
        return

    from mario_rl.reports import plots

    draw = partial(plots.draw_comparison, groups=groups, x=args.x)
    files = [args.output] if args.output else []
    if args.save:
        csv = comparison.comparison_path(
            args.output_dir, args.run_names, "csv", x=args.x, grouped=args.group
        )
        files += [csv, csv.with_suffix(f".{args.format}")]
    for path in files:
        if path.suffix == ".csv":
            write_output(path, lambda file: table.to_csv(file, index=False))
        else:
            plots.save(draw, path)
        show_line(str(path))
    if args.show:
        plots.show(draw)


command = partial(run_script, main)

if __name__ == "__main__":
    command()
