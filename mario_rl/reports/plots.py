"""Figures of what runs recorded: the course of one run, and several runs in the same axes.

Files are drawn without pyplot, so they need no display; only the window of `show` does.
"""

import math
import textwrap
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from mario_rl.reports.style import LINE_COLOURS, LINE_DASHES, our_style  # isort: split

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from mario_rl.console import warn
from mario_rl.errors import UserError
from mario_rl.reports.comparison import (
    X_COLUMNS,
    Curve,
    Group,
    merge,
    moving_average,
    moving_average_window,
)
from mario_rl.reports.output import write_output
from mario_rl.reports.panels import (
    FULL_GAME_PANELS,
    MANY_EVALUATIONS,
    SINGLE_STAGE_PANELS,
    Quantity,
    draw_line,
)
from mario_rl.reports.recorded_runs import RecordedRun
from mario_rl.storage.files import file_version

Draw = Callable[[Figure], None]

SIZE_INCHES = (16, 9)  # of two rows of panels
DPI = 120
PANELS_IN_A_ROW = 3
REFRESH_S = 2.0
MAX_LINES = len(LINE_COLOURS) * len(LINE_DASHES)  # more would repeat colour and dashes
LEGEND_ROW_INCHES = 0.2
TOOLKITS = ("macosx", "qtagg", "gtk4agg", "gtk3agg", "tkagg", "wxagg")  # as Matplotlib tries them

X_LABELS = {
    "episodes": "training episodes",
    "steps": "env steps (decisions of 4 frames)",
    "hours": "training time (hours)",
}


@our_style()
def draw_training(figure: Figure, run: RecordedRun) -> None:
    """Clear the figure and draw the course of one run over its env steps."""
    quantities = FULL_GAME_PANELS if run.full_game else SINGLE_STAGE_PANELS
    panels = _panels(figure, len(quantities), "steps", run.total("env_steps"))
    figure.suptitle(_headline(run), fontsize=13)
    for panel, quantity in zip(panels, quantities, strict=True):
        rows = quantity.rows(run)
        if len(rows):
            quantity.draw(panel, run, rows["env_steps"], rows[quantity.column])
            _add_legend(panel)
        _finish(panel, quantity, [run])
        panel.set_title(quantity.title, pad=24)  # above the legend


def _panels(figure: Figure, count: int, x: str, x_max: float, legend_rows: int = 0) -> list[Axes]:
    """Clear the figure and divide it into empty panels with a common x axis."""
    rows = math.ceil(count / PANELS_IN_A_ROW)
    if not figure.axes:  # later on, a person may have resized the window
        more_legend = LEGEND_ROW_INCHES * max(0, legend_rows - 2)
        figure.set_figheight(SIZE_INCHES[1] / 2 * rows + more_legend)
    figure.clear()
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    panels = list(figure.subplots(rows, PANELS_IN_A_ROW, sharex=True).flat)
    for unused in panels[count:]:
        unused.remove()
    for panel in panels[:count][-PANELS_IN_A_ROW:]:  # those with no panel below
        panel.set_xlabel(X_LABELS[x])
        panel.tick_params(labelbottom=True)
    axis = panels[0].xaxis
    if x != "hours":  # whole numbers, such as 500, 20k and 1.5M
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
        axis.set_major_formatter(EngFormatter(sep=""))
    panels[0].set_xlim(0, 1.02 * x_max or 1)
    return panels[:count]


def _headline(run: RecordedRun) -> str:
    """Title: the run, what was trained, its ancestors, and how far it came."""
    config = run.config
    stage = "full game" if run.full_game else f"stage {config.env.stage}"
    facts = [stage, f"{config.env.action_set} actions", f"seed {config.run.seed}"]
    if run.iteration > 1:
        names = [*run.ancestors, run.name]
        if len(names) > 5:
            names = [names[0], "...", *names[-3:]]
        facts.append(f"iteration {run.iteration}: {' -> '.join(names)}")
    return "\n".join(
        [
            run.name,
            textwrap.fill(" | ".join(facts), 150, break_on_hyphens=False),
            f"{run.total('episodes'):,.0f} episodes | {run.total('env_steps'):,.0f} env steps | "
            f"training time {timedelta(seconds=round(run.total('hours') * 3600))} (h:mm:ss)",
        ]
    )


def _finish(panel: Axes, quantity: Quantity, runs: Sequence[RecordedRun]) -> None:
    """Title and axes, after the data are drawn; without data, say what is missing."""
    panel.set_title(quantity.title)
    panel.set_ylabel(quantity.unit)
    if panel.has_data():
        quantity.set_axis(panel)
        return
    panel.grid(False)
    panel.set_yticks([])
    panel.text(0.5, 0.5, quantity.absence(runs), transform=panel.transAxes, ha="center")


def _add_legend(panel: Axes) -> None:
    """A legend between the title and the axes, where there are never data."""
    legend = panel.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=5,
        borderaxespad=0.2,
        borderpad=0.2,
        columnspacing=0.7,
        handlelength=1.2,
        handletextpad=0.4,
    )
    legend.set_in_layout(False)
    for handle in legend.legend_handles:
        if isinstance(handle, Line2D):  # the dots of thousands of episodes are small and pale
            handle.set(markersize=6, alpha=1)


@our_style()
def draw_comparison(figure: Figure, groups: Sequence[Group], x: str) -> None:
    """Clear the figure and draw the same panels with one line for each group.

    Args:
        x: a key of X_COLUMNS.

    Raises:
        UserError: if there are more groups than lines that can be told apart.
    """
    if len(groups) > MAX_LINES:
        raise UserError(
            f"{len(groups)} lines in one figure: no more than {MAX_LINES} can be told apart; name "
            "fewer runs in --run-names, or merge repeats with --group"
        )
    runs = [run for group in groups for run in group.runs]
    full_game = any(run.full_game for run in runs)
    quantities = FULL_GAME_PANELS if full_game else SINGLE_STAGE_PANELS
    x_max = max(run.total(X_COLUMNS[x]) for run in runs)
    labels = [_shortened(group.label) for group in groups]
    columns = max(1, min(5, 190 // (max(map(len, labels)) + 10)))  # as many as the width allows
    panels = _panels(figure, len(quantities), x, x_max, math.ceil(len(labels) / columns))
    for panel, quantity in zip(panels, quantities, strict=True):
        _compare(panel, quantity, groups, x)
    note = "line: mean of the seeds   band: its 95 % bootstrap interval   faint: single runs"
    figure.legend(
        handles=[Line2D([], [], label=label, **_line_style(i)) for i, label in enumerate(labels)],
        title=note if len(runs) > len(groups) else None,
        alignment="left",
        loc="outside upper left",
        ncols=columns,
    )


def _compare(panel: Axes, quantity: Quantity, groups: Sequence[Group], x: str) -> None:
    """Draw one quantity of all groups."""
    runs = [run for group in groups for run in group.runs]
    rows = max(len(quantity.rows(run)) for run in runs)
    evaluations = quantity.table == "evaluations"
    averaged = quantity.noisy or (evaluations and rows > MANY_EVALUATIONS)
    # The same window for all: with one each, the line of the longer run would be smoother.
    window = moving_average_window(rows) if averaged else 1
    for i, group in enumerate(groups):
        if drawn := curves(group, quantity, X_COLUMNS[x], window):
            _draw_group(panel, drawn, evaluations, _line_style(i))
    _finish(panel, quantity, runs)
    if averaged:
        panel.set_title(f"{quantity.title}, mean of last {window}")


def _shortened(label: str) -> str:
    """A label of at most 50 characters. What a group says of its runs, in brackets, stays whole."""
    if len(label) <= 50:
        return label
    name, bracket, runs = label.partition(" (")
    kept = bracket + runs
    return f"{name[: 38 - len(kept)]}...{name[-9:]}{kept}"


def _line_style(index: int) -> dict[str, Any]:
    """Colours first, then dashes."""
    dashes, colour = divmod(index, len(LINE_COLOURS))
    return {"color": LINE_COLOURS[colour], "linestyle": LINE_DASHES[dashes]}


def curves(group: Group, quantity: Quantity, x_column: str, window: int) -> list[Curve]:
    """What is drawn of each run that has the quantity."""
    found = []
    for run in group.runs:
        rows = quantity.rows(run)
        if rows.empty:
            continue
        values = rows[quantity.column]
        if window > 1:
            values = moving_average(values, window)
        present = values.notna()
        found.append(Curve(rows[x_column][present].to_numpy(float), values[present].to_numpy()))
    return found


def _draw_group(panel: Axes, curves: list[Curve], markers: bool, style: dict[str, Any]) -> None:
    """The mean of a group with its interval, over its single runs drawn faintly."""
    merged = merge(curves)
    if len(curves) > 1:
        # Without an x that all of them cover there is no mean: only they are seen.
        alpha = 0.25 if len(merged.x) else 0.6
        for curve in curves:
            draw_line(panel, curve.x, curve.y, alpha=alpha, linewidth=0.8, **style)
        band = {"color": style["color"], "alpha": 0.2}
        panel.fill_between(merged.x, merged.low, merged.high, linewidth=0, **band)
        if len(merged.x) == 1:  # a band of no width
            panel.vlines(merged.x, merged.low, merged.high, linewidth=4, **band)
    if markers and len(merged.x) <= 30:
        panel.plot(merged.x, merged.mean, marker="o", markersize=4, **style)
    else:
        draw_line(panel, merged.x, merged.mean, **style)


@our_style()
def save(draw: Draw, path: Path) -> None:
    """Write a figure as the suffix of `path` says: .png, .svg or .pdf.

    Raises:
        UserError: if the file cannot be written, and whatever `draw` raises.
    """
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI)
    draw(figure)
    write_output(path, lambda file: figure.savefig(file, format=path.suffix[1:]))


@our_style()
def show(draw: Draw, files: Sequence[Path] = ()) -> None:
    """Show a figure in a window until it is closed, and draw it again when one of `files` changes.

    While they cannot be read, the window keeps its last picture.

    Raises:
        UserError: if no window can be opened, and whatever `draw` raises at first.
    """
    from matplotlib import pyplot

    figure = _open_window()
    pyplot.show(block=False)
    drawn = None
    while pyplot.get_fignums():
        state = [file_version(path) for path in files]
        if state != drawn:
            try:
                draw(figure)
            except UserError as error:
                if drawn is None:
                    raise
                warn(f"{error}; the window keeps its last picture")
            # Now, not in the window's own loop, which would print an exception and go on.
            figure.canvas.draw()
            drawn = state
        figure.canvas.start_event_loop(REFRESH_S)


def _open_window() -> Figure:
    """A window of the user's backend or, where that has none, of any toolkit there is. A notebook
    names its own backend to what it starts, and a cluster one that only writes files.
    """
    from matplotlib import pyplot

    for backend in (None, *TOOLKITS):
        try:
            if backend:
                pyplot.switch_backend(backend)
            figure = pyplot.figure(figsize=SIZE_INCHES)
        except Exception:  # an ImportError, RuntimeError, TclError, ...: each fails in its own way
            continue
        # Where it finds no display, pyplot quietly falls back to a canvas for files.
        if figure.canvas.required_interactive_framework is not None:
            return figure
        pyplot.close(figure)
    raise UserError(
        "no window can be opened (no display, or no GUI toolkit such as Tk); leave out --show and "
        "--live"
    )
