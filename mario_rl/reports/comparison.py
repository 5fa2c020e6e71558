"""Several runs side by side: merged curves, and a table of their results.

The curves are drawn over training episodes, env steps or hours of training. Runs that differ only
in their seed are merged into their mean with a 95 % percentile bootstrap interval over the runs
(Efron 1979): a handful of seeds says nothing about the shape of the distribution.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mario_rl.config import FULL_GAME, RunConfig
from mario_rl.reports.recorded_runs import RecordedRun

Floats = NDArray[np.float64]

# --x and the column that it names.
X_COLUMNS = {"episodes": "episodes", "steps": "env_steps", "hours": "hours"}

MAX_POINTS = 400  # of a merged curve


@dataclass(frozen=True)
class Group:
    """Runs that are shown as one: repeats of a setting, or a single run."""

    label: str
    runs: tuple[RecordedRun, ...]


def ungrouped(runs: Sequence[RecordedRun]) -> list[Group]:
    """Each run by itself."""
    return [Group(run.name, (run,)) for run in runs]


def group_seeds(runs: Sequence[RecordedRun]) -> list[Group]:
    """Group the runs of the same iteration whose settings differ only in those of RunConfig: the
    seed, the budget and the use of the machine.
    """
    groups: dict[str, list[RecordedRun]] = {}
    for run in runs:
        settings = replace(run.config, run=RunConfig()).flat() | {"iteration": run.iteration}
        groups.setdefault(json.dumps(settings), []).append(run)
    prefixes = [_prefix([run.name for run in group]) for group in groups.values()]
    result = []
    for group in groups.values():
        names = [run.name for run in group]
        label = _prefix(names)
        if not label or prefixes.count(label) > 1:
            label = "+".join(names)
        result.append(Group(label + _repeats(group), tuple(group)))
    return result


def _prefix(names: list[str]) -> str:
    """What all names begin with, without the seed: a-seed1, a-seed2 -> a."""
    if len(names) == 1:
        return names[0]
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    prefix = "".join(letters[0] for letters in same)
    return re.sub(r"[-_.](seed|s)?[-_.]?\d*$", "", prefix)


def _repeats(runs: list[RecordedRun]) -> str:
    if len(runs) == 1:
        return ""
    if len({run.config.run.seed for run in runs}) == len(runs):
        return f" ({len(runs)} seeds)"
    return f" ({len(runs)} runs, seeds repeated)"  # such runs are not independent samples


def moving_average_window(length: int) -> int:
    """How many of `length` rows to average over: the usual 100, but fewer of a short run."""
    return max(5, min(100, length // 10))


def moving_average(values: pd.Series, window: int) -> pd.Series:
    """Mean of the last `window` values; of fewer at the beginning."""
    return values.rolling(window, min_periods=1).mean()


def bootstrap_interval(values: Floats, resamples: int = 10_000) -> tuple[Floats, Floats]:
    """The 95 % percentile bootstrap interval of the mean over runs.

    Args:
        values: float [runs, N].

    Returns:
        low and high, float64 [N]. The same values always give the same interval.
    """
    runs = len(values)
    # How often each resample draws each run, as a share: its mean is then a matrix product.
    shares = np.random.default_rng(0).multinomial(runs, [1 / runs] * runs, resamples) / runs
    low, high = np.percentile(shares @ values, [2.5, 97.5], axis=0)
    return low, high


@dataclass(frozen=True)
class Curve:
    """What one run recorded of a quantity: float64 [N] each, N > 0; x ascends."""

    x: Floats
    y: Floats


@dataclass(frozen=True)
class MergedCurve:
    """The mean of several curves and its 95 % interval: float64 [N] each."""

    x: Floats
    mean: Floats
    low: Floats
    high: Floats


def merge(curves: Sequence[Curve]) -> MergedCurve:
    """The mean of curves of any lengths and its interval, over the x that all of them cover.

    A single curve is its own mean, with an interval of no width.
    """
    if len(curves) == 1:
        curve = curves[0]
        return MergedCurve(curve.x, curve.y, curve.y, curve.y)
    grid = np.unique(np.concatenate([curve.x for curve in curves]))
    # Where some runs have ended, the mean would jump to that of the others.
    start, end = max(curve.x[0] for curve in curves), min(curve.x[-1] for curve in curves)
    grid = grid[(grid >= start) & (grid <= end)]
    if len(grid) > MAX_POINTS:
        grid = grid[np.linspace(0, len(grid) - 1, MAX_POINTS).astype(int)]
    values = np.stack([np.interp(grid, curve.x, curve.y) for curve in curves])
    return MergedCurve(grid, values.mean(axis=0), *bootstrap_interval(values))


def table(groups: Sequence[Group]) -> pd.DataFrame:
    """One row for each group, with the means of its runs.

    Columns:
        run, runs: the label of the group, and the names of its runs.
        stage: the stage that was trained.
        best_clear_rate, mean_x (pixels), mean_stages_cleared: from the evaluation that chose a
            run's model; NaN without an evaluation.
        clear_rate_low, clear_rate_high: 95 % interval of `best_clear_rate`. Of a single run it is
            Wilson's, over episodes; of several the bootstrap's, over runs.
        episodes, env_steps, hours: how long the training was.
        env_steps_per_s: with the time of evaluations.
    """
    rows = []
    for group in groups:
        results = pd.DataFrame([_results(run) for run in group.runs])
        row = results.mean().to_dict()  # NaN does not count
        rates = results["best_clear_rate"].dropna().to_numpy()
        if len(group.runs) > 1 and len(rates):
            low, high = bootstrap_interval(rates[:, None])
            row |= {"clear_rate_low": low[0], "clear_rate_high": high[0]}
        names = " ".join(run.name for run in group.runs)
        stage = group.runs[0].config.env.stage
        rows.append({"run": group.label, "runs": names, "stage": stage, **row})
    return pd.DataFrame(rows)


def _results(run: RecordedRun) -> dict[str, float]:
    hours = run.total("hours")
    best: Any = next(iter(run.best_evaluation.to_dict("records")), {})
    return {
        "best_clear_rate": best.get("clear_rate", math.nan),
        "clear_rate_low": best.get("clear_rate_low", math.nan),
        "clear_rate_high": best.get("clear_rate_high", math.nan),
        "mean_x": best.get("mean_x", math.nan),
        "mean_stages_cleared": best.get("mean_stages_cleared", math.nan),
        "episodes": run.total("episodes"),
        "env_steps": run.total("env_steps"),
        "hours": hours,
        "env_steps_per_s": run.total("env_steps") / (hours * 3600) if hours else math.nan,
    }


def format_table(rows: pd.DataFrame) -> str:
    """The rows of `table` as aligned text."""

    def number(form: str) -> Callable[[float], str]:
        return lambda value: "-" if math.isnan(value) else form.format(value)

    percent, whole = number("{:.1%}"), number("{:,.0f}")
    low, high = rows["clear_rate_low"].map(percent), rows["clear_rate_high"].map(percent)
    columns = {
        "run": rows["run"],
        "best clear rate": rows["best_clear_rate"].map(percent),
        "95 % interval": (low + " to " + high).replace("- to -", "-"),
        "its mean x": rows["mean_x"].map(whole),
        "its mean stages": rows["mean_stages_cleared"].map(number("{:.2f}")),
        "episodes": rows["episodes"].map(whole),
        "env steps": rows["env_steps"].map(whole),
        "hours": rows["hours"].map(number("{:.2f}")),
        "env steps/s": rows["env_steps_per_s"].map(whole),
    }
    if FULL_GAME not in set(rows["stage"]):
        del columns["its mean stages"]  # of a single stage it is the clear rate
    cells = [[name, *values] for name, values in columns.items()]
    widths = [max(map(len, column)) for column in cells]
    lines = []
    for line in zip(*cells, strict=True):
        first, *others = zip(line, widths, strict=True)
        lines.append("  ".join([first[0].ljust(first[1]), *(cell.rjust(w) for cell, w in others)]))
    return "\n".join(lines)


def notes(groups: Sequence[Group]) -> list[str]:
    """Lines that a reader of the table needs."""
    runs = [run for group in groups for run in group.runs]
    result = []
    if any(len(run.evaluations) > 1 for run in runs):
        result.append(
            "note: the best of a run's evaluations is one of the luckiest as well; eval_mario.py "
            "measures its model by games that did not choose it"
        )
    if len(groups) < len(runs):
        result.append(
            "note: a group's figures are means over its runs, and its interval is a bootstrap over "
            "them: of two or three runs no more than their range; a single run's interval is "
            "Wilson's, over its episodes"
        )
    names: dict[str, list[str]] = {}
    for run in runs:
        names.setdefault(run.config.env.stage, []).append(run.name)
    if len(names) > 1:
        stages = "; ".join(f"{stage}: {', '.join(played)}" for stage, played in names.items())
        result.append(f"note: clear rates of different stages are not comparable ({stages})")
    return result


def comparison_path(
    output_dir: str | Path, names: Sequence[str], suffix: str, x: str, grouped: bool
) -> Path:
    """The file of a comparison: stats/comparison_<names, joined by +>[,<x>][,grouped].<suffix>.

    Different comparisons have different files, as no name of a run holds a + or a comma. Many names
    are cut short and followed by a hash of all of them.

    Args:
        x: a key of X_COLUMNS; "steps", the default of --x, is left out.
    """
    joined = "+".join(names)
    if len(joined) > 100:
        joined = f"{joined[:90]},{hashlib.sha256(joined.encode()).hexdigest()[:16]}"
    axis = "" if x == "steps" else f",{x}"
    return Path(output_dir) / "stats" / f"comparison_{joined}{axis}{',grouped' * grouped}.{suffix}"
