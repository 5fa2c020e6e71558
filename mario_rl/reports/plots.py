"""Figures of what runs recorded: the course of one run, and several runs in the same axes.

Files are drawn without pyplot, so they need no display; only the window of `show` does.
"""

import textwrap
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from mario_rl.errors import UserError
from mario_rl.reports.comparison import (
    X_COLUMNS,
    Floats,
    Group,
    Run,
    merge,
    moving_average,
    moving_average_window,
)
from mario_rl.reports.panels import (
    BLUE,
    FULL_GAME,
    GREEN,
    ORANGE,
    PURPLE,
    SINGLE_STAGE,
    SKY,
    VERMILION,
    Quantity,
)
from mario_rl.storage.files import atomic_write

Draw = Callable[[Figure], None]

SIZE_INCHES = (16, 9)
DPI = 120
REFRESH_S = 2.0

LINE_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, "black")
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 12,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.8,
}
X_LABELS = {
    "episodes": "training episodes",
    "steps": "env steps (decisions of 4 frames)",
    "hours": "training time (hours)",
}


@matplotlib.rc_context(STYLE)
def draw_training(figure: Figure, run: Run) -> None:
    """Draw the course of one run over its env steps, in place of what the figure holds."""
    quantities = FULL_GAME if run.full_game else SINGLE_STAGE
    panels = _panels(figure, "steps", run.total("env_steps"))
    figure.suptitle(_headline(run), fontsize=13)
    for panel, quantity in zip(panels, quantities, strict=True):
        rows = getattr(run, quantity.table)
        if len(rows):
            quantity.draw(panel, run, rows["env_steps"], rows[quantity.column])
            _add_legend(panel)
        _finish(panel, quantity)
        panel.set_title(quantity.title, pad=24)  # above the legend


def _panels(figure: Figure, x: str, x_max: float) -> list[Axes]:
    """Six empty panels, in place of what the figure holds, with a common x axis."""
    figure.clear()
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    axes = figure.subplots(2, 3, sharex=True)
    for panel in axes[1]:
        panel.set_xlabel(X_LABELS[x])
    axis = axes[0, 0].xaxis
    if x != "hours":  # whole numbers, such as 500, 20k and 1.5M
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
        axis.set_major_formatter(EngFormatter(sep=""))
    axes[0, 0].set_xlim(0, 1.02 * x_max or 1)
    return list(axes.flat)


def _headline(run: Run) -> str:
    """Title: the run, what was trained, whose descendant it is and how far it came."""
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


def _finish(panel: Axes, quantity: Quantity) -> None:
    """Title and axes, when the data are drawn."""
    panel.set_title(quantity.title)
    panel.set_ylabel(quantity.unit)
    if panel.has_data():
        quantity.set_axis(panel)
        return
    panel.grid(False)
    panel.set_yticks([])
    panel.text(0.5, 0.5, f"no {quantity.table} yet", transform=panel.transAxes, ha="center")


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


@matplotlib.rc_context(STYLE)
def draw_comparison(figure: Figure, groups: Sequence[Group], x: str) -> None:
    """Draw one line for each group, in place of what the figure holds.

    Args:
        x: a key of X_COLUMNS.
    """
    runs = [run for group in groups for run in group.runs]
    quantities = FULL_GAME if any(run.full_game for run in runs) else SINGLE_STAGE
    panels = _panels(figure, x, max(run.total(X_COLUMNS[x]) for run in runs))
    for panel, quantity in zip(panels, quantities, strict=True):
        # One window for all: with one each, the line of the longer run would be the smoother one.
        window = moving_average_window(max(len(getattr(run, quantity.table)) for run in runs))
        for i, group in enumerate(groups):
            curves = _curves(group, quantity, X_COLUMNS[x], window)
            if curves:
                _draw_group(panel, curves, quantity.table == "evaluations", _line_style(i))
        _finish(panel, quantity)
        if quantity.noisy:
            panel.set_title(f"{quantity.title}, mean of last {window}")
    note = "line: mean of the seeds   band: its 95 % bootstrap interval   faint: single runs"
    figure.legend(
        handles=[
            Line2D([], [], label=_shortened(group.label), **_line_style(i))
            for i, group in enumerate(groups)
        ],
        title=note if len(runs) > len(groups) else None,
        alignment="left",
        loc="outside upper left",
        ncols=5,
    )


def _shortened(label: str) -> str:
    return label if len(label) <= 50 else f"{label[:38]}...{label[-9:]}"


def _line_style(index: int) -> dict[str, Any]:
    """Colours first, then dashes."""
    dashes, colour = divmod(index, len(LINE_COLOURS))
    return {"color": LINE_COLOURS[colour], "linestyle": ("-", "--", ":")[dashes % 3]}


def _curves(
    group: Group, quantity: Quantity, x_column: str, window: int
) -> list[tuple[Floats, Floats]]:
    """x and y of each run that has any."""
    curves = []
    for run in group.runs:
        rows = getattr(run, quantity.table)
        values = rows[quantity.column]
        if quantity.noisy:
            values = moving_average(values, window)
        present = values.notna()
        if present.any():
            curves.append((rows[x_column][present].to_numpy(float), values[present].to_numpy()))
    return curves


def _draw_group(
    panel: Axes, curves: list[tuple[Floats, Floats]], markers: bool, style: dict[str, Any]
) -> None:
    """The mean of a group with its interval, over its single runs drawn faintly."""
    x, mean, low, high = merge(curves)
    if len(curves) > 1:
        for curve in curves:
            panel.plot(*curve, alpha=0.25, linewidth=0.8, **style)
        panel.fill_between(x, low, high, color=style["color"], alpha=0.2, linewidth=0)
    marker = "o" if markers and len(x) <= 30 else ""
    panel.plot(x, mean, marker=marker, markersize=4, **style)


def save(draw: Draw, path: Path) -> None:
    """Write a figure as the suffix of `path` says: .png, .svg or .pdf.

    Raises:
        OSError: if the file cannot be written, and whatever `draw` raises.
    """
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI)
    draw(figure)
    atomic_write(path, lambda file: figure.savefig(file, format=path.suffix[1:]))


def show(draw: Draw, files: Sequence[Path] = ()) -> None:
    """Show a figure in a window until it is closed, and draw it again when one of `files` changes.

    Raises:
        UserError: if no window can be opened, and whatever `draw` raises.
    """
    from matplotlib import pyplot

    figure = _open_window()
    pyplot.show(block=False)
    drawn = None
    while pyplot.get_fignums():
        state = [(path.stat().st_mtime_ns, path.stat().st_size) for path in files if path.exists()]
        if state != drawn:
            draw(figure)
            # Now, not in the window's own loop, which would print an exception and go on.
            figure.canvas.draw()
            drawn = state
        figure.canvas.start_event_loop(REFRESH_S)


def _open_window() -> Figure:
    from matplotlib import pyplot

    cause = "no display, or no GUI toolkit such as Tk"
    try:
        figure = pyplot.figure(figsize=SIZE_INCHES)
        # Where it finds neither, pyplot quietly falls back to a canvas for files.
        if figure.canvas.required_interactive_framework is not None:
            return figure
    except ImportError as error:
        cause = str(error)
    raise UserError(f"no window can be opened ({cause}); leave out --show and --live")
