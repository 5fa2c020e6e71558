"""The charts of a report: what `panels` shows, as plain data for a page in a browser.

A chart is a dictionary of JSON values:

    title, unit, axis   of its `Quantity`
    absence             what is missing, if there is nothing to draw
    x                   a list of {"episodes", "steps", "hours"}: lists of numbers
    x_title, x_stages   if the chart has an x of its own, under the key "own"
    picture             behind the chart: {"source", a data URL, and "width" in units of x}
    lines               a list of {name, x (an index into the list), y, shape, colour} and, for an
                        interval, low and high; shape is line, line+dots, steps,
                        dots, triangles, star or bars
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mario_rl.reports.comparison import (
    X_COLUMNS,
    Group,
    merge,
    moving_average,
    moving_average_window,
)
from mario_rl.reports.panels import FULL_GAME_PANELS, SINGLE_STAGE_PANELS, Quantity
from mario_rl.reports.plots import curves
from mario_rl.reports.recorded_runs import RecordedRun

Chart = dict[str, Any]

MAX_POINTS = 1_500  # of a line; more cannot be told apart on a screen
COLOURS = ("blue", "vermilion", "green", "purple", "orange", "sky", "grey")


def run_charts(run: RecordedRun) -> list[Chart]:
    """The panels of one run."""
    return [_run_chart(run, quantity) for quantity in _quantities([run])]


def losses_chart(run: RecordedRun) -> Chart:
    """Where training games ended without a clear, in the second half of the run: how many, for
    each 16 pixels (a block) of the stage or, in the full game, for each stage."""
    games = pd.concat([run.episodes, run.retries])
    late = games[games["env_steps"] > run.total("env_steps") / 2]
    lost = late[late["outcome"] != "clear"]
    column, unit, width = ("position", "stage", 1) if run.full_game else ("max_x", "px", 16)
    places = (lost[column] // width * width).value_counts().sort_index()
    return {
        "title": "Where games are lost",
        "unit": "games of the second half of the run",
        "axis": "free",
        "absence": "no game was lost yet",
        "x_title": "furthest x (px)" if unit == "px" else "furthest stage",
        "x_stages": run.full_game,
        "x": [{"own": _list(places.index.to_numpy(float) + (0 if run.full_game else width / 2))}],
        "lines": [
            {"name": "lost games", "x": 0, "y": _list(places.to_numpy()), "shape": "bars",
             "colour": "vermilion"}
        ] if len(places) else [],
    }  # fmt: skip


def comparison_charts(groups: Sequence[Group]) -> list[Chart]:
    """The same panels with a line for each group: the mean of its runs and the interval of it."""
    runs = [run for group in groups for run in group.runs]
    return [_comparison_chart(groups, quantity) for quantity in _quantities(runs)]


def _quantities(runs: Sequence[RecordedRun]) -> Sequence[Quantity]:
    return FULL_GAME_PANELS if any(run.full_game for run in runs) else SINGLE_STAGE_PANELS


def _run_chart(run: RecordedRun, quantity: Quantity) -> Chart:
    chart = _empty(quantity, [run])
    rows = quantity.rows(run)
    if rows.empty:
        return chart
    values = rows[quantity.column]
    if quantity.table == "evaluations":
        _add(
            chart, "mean of the games", rows, values, "line+dots", "blue", _interval(rows, quantity)
        )
        best = run.best_evaluation
        if quantity.column == "clear_rate" and len(best):
            _add(chart, "best model", best, best[quantity.column], "star", "vermilion")
        return chart
    window = moving_average_window(len(values))
    if quantity.table == "episodes":
        if quantity.column in ("max_x", "position") and len(run.retries):
            _add(chart, "retry", run.retries, run.retries[quantity.column], "dots", "sky")
        _add(chart, "episode", rows, values, "dots", "grey")
        _add(chart, "best so far", rows, values.cummax(), "steps", "green")
        cleared = rows[rows["stages_cleared"] > 0]
        if quantity.column in ("max_x", "position") and len(cleared):
            name = f"clear ({len(cleared):,})"
            _add(chart, name, cleared, cleared[quantity.column], "triangles", "orange")
    elif quantity.noisy:
        _add(chart, "record", rows, values, "line", "grey")
    if quantity.noisy:
        average = moving_average(values, window)
        _add(chart, f"mean of last {window}", rows, average, "line", "blue")
    else:
        _add(chart, quantity.column, rows, values, "line", "blue")
    return chart


def _comparison_chart(groups: Sequence[Group], quantity: Quantity) -> Chart:
    runs = [run for group in groups for run in group.runs]
    chart = _empty(quantity, runs)
    rows = max(len(quantity.rows(run)) for run in runs)
    window = moving_average_window(rows) if quantity.noisy else 1
    if window > 1:
        chart["title"] += f", mean of last {window}"
    for number, group in enumerate(groups):
        drawn = curves(group, quantity, X_COLUMNS["steps"], window)
        if not drawn:
            continue
        merged = {
            name: merge(curves(group, quantity, column, window))
            for name, column in X_COLUMNS.items()
        }
        # Each axis has values of its own, as runs differ in what they need for an env step.
        for name, line in merged.items():
            kept = _kept(len(line.x))
            interval = {"low": _list(line.low[kept]), "high": _list(line.high[kept])}
            chart["x"].append({name: _list(line.x[kept])})
            chart["lines"].append(
                {
                    "name": group.label,
                    "x": len(chart["x"]) - 1,
                    "y": _list(line.mean[kept]),
                    "shape": "line+dots" if quantity.table == "evaluations" else "line",
                    "colour": COLOURS[number % len(COLOURS)],
                    "dash": number // len(COLOURS),
                }
                | (interval if len(drawn) > 1 else {})
            )
    return chart


def _empty(quantity: Quantity, runs: Sequence[RecordedRun]) -> Chart:
    return {
        "title": quantity.title,
        "unit": quantity.unit,
        "axis": quantity.axis,
        "absence": quantity.absence(runs),
        "x": [],
        "lines": [],
    }


def _interval(rows: pd.DataFrame, quantity: Quantity) -> tuple[pd.Series, pd.Series] | None:
    if quantity.column != "clear_rate":
        return None
    return rows["clear_rate_low"], rows["clear_rate_high"]


def _add(
    chart: Chart,
    name: str,
    rows: pd.DataFrame,
    values: pd.Series,
    shape: str,
    colour: str,
    interval: tuple[pd.Series, pd.Series] | None = None,
) -> None:
    kept = _kept(len(rows))
    chart["x"].append(
        {key: _list(rows[column].to_numpy()[kept]) for key, column in X_COLUMNS.items()}
    )
    line = {
        "name": name,
        "x": len(chart["x"]) - 1,
        "y": _list(values.to_numpy()[kept]),
        "shape": shape,
        "colour": colour,
    }
    if interval is not None:
        low, high = (_list(bound.to_numpy()[kept]) for bound in interval)
        line |= {"low": low, "high": high}
    chart["lines"].append(line)


def _kept(length: int) -> np.ndarray:
    """The rows that are drawn: at most MAX_POINTS, the first and the last among them."""
    return np.unique(np.linspace(0, max(0, length - 1), min(length, MAX_POINTS)).astype(int))


def _list(values: np.ndarray) -> list[float | None]:
    """As JSON takes them: six digits, and null for what is not finite."""
    numbers = np.asarray(values, dtype=float).tolist()
    return [float(f"{number:.6g}") if np.isfinite(number) else None for number in numbers]
