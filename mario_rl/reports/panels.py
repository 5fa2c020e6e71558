"""The panels of the figures: which quantities are shown, and how each is drawn for one run.

To show another column of a run's tables, declare a `Quantity` and add it to the panels at the end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from mario_rl.reports.style import BLUE, GREEN, GREY, ORANGE, PALE_BLUE, VERMILION  # isort: split

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from mario_rl.config import STAGES
from mario_rl.reports.comparison import moving_average, moving_average_window
from mario_rl.reports.recorded_runs import RecordedRun

# Of more evaluations than this, single points and error bars would hide each other.
MANY_EVALUATIONS = 60


def _free_axis(panel: Axes) -> None:
    """Leave the limits to the data."""


def _axis_from_zero(panel: Axes) -> None:
    panel.set_ylim(0, 1.05 * panel.dataLim.y1 or 1)


def _percent_axis(panel: Axes) -> None:
    panel.set_ylim(-0.03, 1.03)
    panel.yaxis.set_major_formatter(PercentFormatter(1.0))


def _stage_axis(panel: Axes) -> None:
    panel.set_ylim(0, np.ceil(panel.dataLim.y1 + 0.05))
    panel.yaxis.set_major_locator(MaxNLocator(10, integer=True))
    panel.yaxis.set_major_formatter(_stage_name)


def _stage_name(position: float, _: object) -> str:
    return STAGES[int(position)] if position in range(len(STAGES)) else ""


def _log_axis(panel: Axes) -> None:
    if not panel.dataLim.y1 > 0:
        return  # 0 has no logarithm
    panel.set_yscale("log")
    low, high = panel.get_ylim()
    subs = (1, 1.5, 2, 3, 5, 7) if high < 10 * low else (1, 2, 5) if high < 1000 * low else (1,)
    panel.yaxis.set_major_locator(LogLocator(subs=subs))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_locator(NullLocator())


def _draw_episodes(panel: Axes, run: RecordedRun, steps: pd.Series, values: pd.Series) -> None:
    """A quantity of every episode, its moving average and the best so far."""
    window = moving_average_window(len(values))
    _draw_points(panel, steps, values, "o", GREY, "episode")
    draw_line(panel, steps, values.cummax(), color=GREEN, drawstyle="steps-post",
              label="best so far")  # fmt: skip
    _draw_average(panel, steps, values, window)


def _draw_progress(panel: Axes, run: RecordedRun, steps: pd.Series, values: pd.Series) -> None:
    if len(run.retries):
        retried = run.retries["env_steps"], run.retries[values.name]
        _draw_points(panel, *retried, "o", PALE_BLUE, "retry")
    _draw_episodes(panel, run, steps, values)
    cleared = run.episodes["stages_cleared"] > 0
    _draw_points(panel, steps[cleared], values[cleared], "^", ORANGE, f"clear ({cleared.sum()})")


def draw_line(panel: Axes, x: Any, y: Any, **style: Any) -> None:
    """A line through float [N] values, with a dot at each one between missing values, which would
    have no length.
    """
    known = np.pad(np.isfinite(np.asarray(y, dtype=float)), 1)
    alone = np.flatnonzero(known[1:-1] & ~known[:-2] & ~known[2:])
    if len(alone):
        style |= {"marker": "o", "markersize": 4, "markevery": alone.tolist()}
    panel.plot(x, y, **style)


def _draw_average(panel: Axes, steps: pd.Series, values: pd.Series, window: int) -> None:
    average = moving_average(values, window)
    draw_line(panel, steps, average, color=BLUE, label=f"mean of last {window}")


def _draw_points(
    panel: Axes, steps: pd.Series, values: pd.Series, marker: str, colour: str, label: str
) -> None:
    panel.plot(
        steps,
        values,
        marker,
        color=colour,
        alpha=0.4,
        markersize=float(np.clip(80 / np.sqrt(max(len(values), 1)), 2, 6)),
        markeredgewidth=0,
        label=label,
        rasterized=True,  # thousands of vector shapes make a file slow to open
    )


def _draw_updates(panel: Axes, run: RecordedRun, steps: pd.Series, values: pd.Series) -> None:
    window = moving_average_window(len(values))
    draw_line(panel, steps, values, color=GREY, alpha=0.4, linewidth=0.8, label="record")
    _draw_average(panel, steps, values, window)


def _draw_epsilon(panel: Axes, run: RecordedRun, steps: pd.Series, values: pd.Series) -> None:
    draw_line(panel, steps, values, color=BLUE, label="epsilon")


def _draw_evaluations(panel: Axes, run: RecordedRun, steps: pd.Series, values: pd.Series) -> None:
    if len(values) > MANY_EVALUATIONS:
        _draw_points(panel, steps, values, "o", GREY, "evaluation")
        _draw_average(panel, steps, values, moving_average_window(len(values)))
        return
    panel.plot(
        steps, values, "o-", color=BLUE, markersize=4, linewidth=1.2, label="mean of an evaluation"
    )


def _draw_clear_rate(panel: Axes, run: RecordedRun, steps: pd.Series, values: pd.Series) -> None:
    low, high = run.evaluations["clear_rate_low"], run.evaluations["clear_rate_high"]
    if len(values) > MANY_EVALUATIONS:
        window = moving_average_window(len(values))
        band = moving_average(low, window), moving_average(high, window)
        panel.fill_between(steps, *band, color=PALE_BLUE, linewidth=0, label="95 % interval")
        _draw_points(panel, steps, values, "o", GREY, "_")  # a label more is too wide
        _draw_average(panel, steps, values, window)
    else:
        _draw_error_bars(panel, steps, values, low, high)
    for i in run.best_evaluation.index:
        x, y = steps[i], values[i]
        panel.plot(
            x, y, "*", color=VERMILION, markersize=13, zorder=3, label=f"best model ({y:.0%})"
        )


def _draw_error_bars(
    panel: Axes, steps: pd.Series, values: pd.Series, low: pd.Series, high: pd.Series
) -> None:
    panel.errorbar(
        steps,
        values,
        # Lists: of a series or an array with one row, older pandas and numpy warn.
        # Matplotlib refuses negative ones, and a file can say anything.
        yerr=((values - low).clip(0).tolist(), (high - values).clip(0).tolist()),
        color=BLUE,
        ecolor=PALE_BLUE,
        elinewidth=3,
        marker="o",
        markersize=4,
        linewidth=1.2,
        label="clear rate, 95 % Wilson interval",
    )


_AXES = {
    "free": _free_axis,
    "from zero": _axis_from_zero,
    "percent": _percent_axis,
    "stage": _stage_axis,
    "log": _log_axis,
}


@dataclass(frozen=True)
class Quantity:
    """What one panel shows."""

    title: str
    unit: str  # label of the y axis
    table: Literal["episodes", "updates", "evaluations"]  # of a RecordedRun
    column: str
    noisy: bool  # whether runs are compared by its moving average
    draw: Callable[[Axes, RecordedRun, pd.Series, pd.Series], None]  # one run, over its env steps
    axis: Literal["free", "from zero", "percent", "stage", "log"]  # y

    def rows(self, run: RecordedRun) -> pd.DataFrame:
        """The table that has the quantity; no rows if the run has no value of it."""
        table: pd.DataFrame = getattr(run, self.table)
        recorded = self.column in table and np.isfinite(table[self.column]).any()
        return table if recorded else table.iloc[:0]

    def set_axis(self, panel: Axes) -> None:
        """Scale, limits and ticks of the y axis, after the data are drawn."""
        _AXES[self.axis](panel)

    def absence(self, runs: Sequence[RecordedRun]) -> str:
        """What is missing if no run has a value: a file, or rows of the table, or this column."""
        file = f"{self.table}.csv"
        if any(file in run.missing for run in runs):
            return f"{file} is missing"
        has_rows = any(len(getattr(run, self.table)) for run in runs)
        return f"no {self.column if has_rows else self.table} yet"


# fmt: off
RETURN = Quantity("Episode return", "undiscounted return (1 = 10 px)",
                  "episodes", "episode_return", noisy=True,
                  draw=_draw_episodes, axis="free")
FURTHEST_X = Quantity("Stage progression", "furthest x (px)",
                      "episodes", "max_x", noisy=True,
                      draw=_draw_progress, axis="from zero")
FURTHEST_STAGE = Quantity("Stage progression", "furthest world-stage, and part of it",
                          "episodes", "position", noisy=True,
                          draw=_draw_progress, axis="stage")
CLEAR_RATE = Quantity("Evaluation: clear rate", "episodes that cleared a stage",
                      "evaluations", "clear_rate", noisy=False,
                      draw=_draw_clear_rate, axis="percent")
LOSS = Quantity("Loss", "importance-weighted loss of the quantiles",
                "updates", "loss", noisy=True,
                draw=_draw_updates, axis="log")
EPSILON = Quantity("Exploration", "epsilon of the game that explores most",
                   "updates", "epsilon", noisy=False,
                   draw=_draw_epsilon, axis="percent")
MEAN_X = Quantity("Evaluation: furthest x", "mean furthest x (px)",
                  "evaluations", "mean_x", noisy=False,
                  draw=_draw_evaluations, axis="from zero")
MEAN_STAGES = Quantity("Evaluation: stages cleared", "mean stages per episode",
                       "evaluations", "mean_stages_cleared", noisy=False,
                       draw=_draw_evaluations, axis="from zero")
# fmt: on
SINGLE_STAGE_PANELS = (RETURN, FURTHEST_X, CLEAR_RATE, LOSS, EPSILON, MEAN_X)
# In the full game x begins again in each stage, and says little by itself.
FULL_GAME_PANELS = (RETURN, FURTHEST_STAGE, CLEAR_RATE, LOSS, EPSILON, MEAN_STAGES)
