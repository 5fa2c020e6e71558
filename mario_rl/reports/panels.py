"""The panels of the figures: which quantities are shown, and how each is drawn for one run.

Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from mario_rl.config import STAGES
from mario_rl.reports.comparison import Run, moving_average, moving_average_window

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, GREY, PALE_BLUE = "#E69F00", "#56B4E9", "#808080", "#BBDDF3"


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
        return  # 0 and NaN, the loss of a run that diverged, have no logarithm
    panel.set_yscale("log")
    low, high = panel.get_ylim()
    subs = (1, 1.5, 2, 3, 5, 7) if high < 10 * low else (1, 2, 5) if high < 1000 * low else (1,)
    panel.yaxis.set_major_locator(LogLocator(subs=subs))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_locator(NullLocator())


def _draw_episodes(panel: Axes, run: Run, steps: pd.Series, values: pd.Series) -> None:
    """A quantity of every episode, its moving average and the best so far."""
    window = moving_average_window(len(values))
    _draw_points(panel, steps, values, "o", GREY, "episode")
    panel.plot(steps, values.cummax(), color=GREEN, drawstyle="steps-post", label="best so far")
    panel.plot(steps, moving_average(values, window), color=BLUE, label=f"mean of last {window}")


def _draw_progress(panel: Axes, run: Run, steps: pd.Series, values: pd.Series) -> None:
    if len(run.retries):
        retried = run.retries["env_steps"], run.retries[values.name]
        _draw_points(panel, *retried, "o", PALE_BLUE, "retry")
    _draw_episodes(panel, run, steps, values)
    cleared = run.episodes["stages_cleared"] > 0
    _draw_points(panel, steps[cleared], values[cleared], "^", ORANGE, f"clear ({cleared.sum()})")


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


def _draw_updates(panel: Axes, run: Run, steps: pd.Series, values: pd.Series) -> None:
    window = moving_average_window(len(values))
    panel.plot(steps, values, color=GREY, alpha=0.4, linewidth=0.8, label="record")
    panel.plot(steps, moving_average(values, window), color=BLUE, label=f"mean of last {window}")


def _draw_epsilon(panel: Axes, run: Run, steps: pd.Series, values: pd.Series) -> None:
    panel.plot(steps, values, color=BLUE, label="epsilon")


def _draw_evaluations(panel: Axes, run: Run, steps: pd.Series, values: pd.Series) -> None:
    panel.plot(
        steps, values, "o-", color=BLUE, markersize=4, linewidth=1.2, label="mean of an evaluation"
    )


def _draw_clear_rate(panel: Axes, run: Run, steps: pd.Series, values: pd.Series) -> None:
    low, high = run.evaluations["clear_rate_low"], run.evaluations["clear_rate_high"]
    panel.errorbar(
        steps,
        values,
        # Lists: of a series or an array with one row, older pandas and numpy warn.
        yerr=((values - low).tolist(), (high - values).tolist()),
        color=BLUE,
        ecolor=PALE_BLUE,
        elinewidth=3,
        marker="o",
        markersize=4,
        linewidth=1.2,
        label="clear rate, 95 % Wilson interval",
    )
    for i in run.best_evaluation.index:
        x, y = steps[i], values[i]
        panel.plot(
            x, y, "*", color=VERMILION, markersize=13, zorder=3, label=f"best model ({y:.0%})"
        )


@dataclass(frozen=True)
class Quantity:
    """What one panel shows."""

    title: str
    unit: str  # label of the y axis
    table: str  # attribute of Run: episodes, updates or evaluations
    column: str
    draw: Callable[[Axes, Run, pd.Series, pd.Series], None]  # over the env steps of one run
    set_axis: Callable[[Axes], None]  # scale, limits and ticks of the y axis

    @property
    def noisy(self) -> bool:
        """Whether it takes a moving average to compare it."""
        return self.draw in (_draw_episodes, _draw_progress, _draw_updates)


# fmt: off
RETURN = Quantity("Episode return", "undiscounted return (1 = 10 px)",
                  "episodes", "episode_return", _draw_episodes, _free_axis)
FURTHEST_X = Quantity("Stage progression", "furthest x (px)",
                      "episodes", "max_x", _draw_progress, _axis_from_zero)
FURTHEST_STAGE = Quantity("Stage progression", "furthest world-stage, and part of it",
                          "episodes", "position", _draw_progress, _stage_axis)
CLEAR_RATE = Quantity("Evaluation: clear rate", "episodes that cleared a stage",
                      "evaluations", "clear_rate", _draw_clear_rate, _percent_axis)
LOSS = Quantity("Loss", "importance-weighted loss of the quantiles",
                "updates", "loss", _draw_updates, _log_axis)
EPSILON = Quantity("Exploration", "epsilon of the game that explores most",
                   "updates", "epsilon", _draw_epsilon, _percent_axis)
MEAN_X = Quantity("Evaluation: furthest x", "mean furthest x (px)",
                  "evaluations", "mean_x", _draw_evaluations, _axis_from_zero)
MEAN_STAGES = Quantity("Evaluation: stages cleared", "mean stages per episode",
                       "evaluations", "mean_stages_cleared", _draw_evaluations, _axis_from_zero)
# fmt: on
SINGLE_STAGE = (RETURN, FURTHEST_X, CLEAR_RATE, LOSS, EPSILON, MEAN_X)
# x begins again in each stage of the full game, and says little by itself.
FULL_GAME = (RETURN, FURTHEST_STAGE, CLEAR_RATE, LOSS, EPSILON, MEAN_STAGES)
