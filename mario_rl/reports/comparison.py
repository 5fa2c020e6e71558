"""What runs recorded, read back and put side by side.

Runs meet on one of three axes: episodes, env steps or hours of training. Repeats of one setting
under several seeds are merged into their mean with a 95 % percentile bootstrap interval over the
runs (Efron 1979), since a handful of seeds says nothing about the shape of the distribution.
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

from mario_rl.config import FULL_GAME, Config, RunConfig
from mario_rl.errors import UserError
from mario_rl.storage.files import read_json
from mario_rl.storage.paths import RunPaths
from mario_rl.storage.records import EpisodeRecord, EvaluationRecord, UpdateRecord, read_records

Floats = NDArray[np.float64]

# --x and the column that it names.
X_COLUMNS = {"episodes": "episodes", "steps": "env_steps", "hours": "hours"}

# About the length of a stage; the few that are longer count as finished from here on.
STAGE_WIDTH_PX = 3_400

MAX_POINTS = 400  # of a merged curve


@dataclass(frozen=True)
class Run:
    """One run. Each table has the columns `episodes`, `env_steps` and `hours`."""

    name: str
    config: Config
    iteration: int
    ancestors: tuple[str, ...]  # names, oldest first
    episodes: pd.DataFrame  # EpisodeRecord, and `position` (see `_with_position`)
    retries: pd.DataFrame  # the same, of episodes that began at a save point, and not at the start
    updates: pd.DataFrame  # UpdateRecord
    evaluations: pd.DataFrame  # EvaluationRecord

    @property
    def full_game(self) -> bool:
        return self.config.env.stage == FULL_GAME

    @property
    def best_evaluation(self) -> pd.DataFrame:
        """The row of `evaluations` that chose the run's model; none before there is one."""
        return self.evaluations[self.evaluations["is_best"] == 1].tail(1)

    def total(self, column: str) -> float:
        """The newest value of `episodes`, `env_steps` or `hours`; 0 if nothing is recorded."""
        tables = (self.episodes, self.retries, self.updates, self.evaluations)
        return max((float(table[column].iloc[-1]) for table in tables if len(table)), default=0.0)


@dataclass(frozen=True)
class Group:
    """Runs that are shown as one: repeats of a setting, or a single run."""

    label: str
    runs: tuple[Run, ...]


def read_run(paths: RunPaths) -> Run:
    """
    Raises:
        UserError: if there is no such run, or one of its files is damaged.
    """
    paths.require_stats()
    settings, description = read_json(paths.config_json), read_json(paths.run_json)
    try:
        config = Config.from_dict(settings)
    except UserError as error:
        raise UserError(f"{paths.config_json}: {error}") from None
    try:
        lineage = description["lineage"]
        iteration = int(lineage["iteration"])
        ancestors = tuple(str(parent["run_name"]) for parent in lineage["parents"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{paths.run_json} is damaged: it has no readable lineage") from None
    episodes = read_records(paths.episodes_csv, EpisodeRecord)
    episodes = _with_position(episodes.rename(columns={"episode": "episodes"}))
    from_start = episodes["start_step"] == 0
    return Run(
        paths.run_name,
        config,
        iteration,
        ancestors,
        episodes[from_start].reset_index(drop=True),
        episodes[~from_start].reset_index(drop=True),
        read_records(paths.updates_csv, UpdateRecord),
        read_records(paths.evaluations_csv, EvaluationRecord),
    )


def _with_position(episodes: pd.DataFrame) -> pd.DataFrame:
    """Add how far each episode came: the number of the stage (0 is 1-1, 31 is 8-4), and the share
    of it that was passed.
    """
    share = (episodes["max_x"] / STAGE_WIDTH_PX).clip(0, 1)
    stage = 4 * (episodes["world"] - 1) + episodes["stage"] - 1
    return episodes.assign(position=stage + share)


def read_runs(output_dir: str | Path, names: Sequence[str]) -> list[Run]:
    """
    Raises:
        UserError: for a name given twice, and as `read_run`.
    """
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--run-names: {name!r} is given twice; name each run once")
    return [read_run(RunPaths(output_dir, name)) for name in names]


def moving_average_window(length: int) -> int:
    """Episodes (or records) to average over: 100, as is usual, but fewer for a short run."""
    return max(5, min(100, length // 10))


def moving_average(values: pd.Series, window: int) -> pd.Series:
    """Mean of the last `window` values, of fewer at the beginning."""
    return values.rolling(window, min_periods=1).mean()


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
            "note: a group's figures are means over its runs and its interval is a bootstrap over "
            "them, which of two or three is no more than their range; a single run's interval is "
            "Wilson's, over its episodes"
        )
    names: dict[str, list[str]] = {}
    for run in runs:
        names.setdefault(run.config.env.stage, []).append(run.name)
    if len(names) > 1:
        stages = "; ".join(f"{stage}: {', '.join(played)}" for stage, played in names.items())
        result.append(f"note: clear rates of different stages are not comparable ({stages})")
    return result


def ungrouped(runs: Sequence[Run]) -> list[Group]:
    """Each run by itself."""
    return [Group(run.name, (run,)) for run in runs]


def group_seeds(runs: Sequence[Run]) -> list[Group]:
    """Put together the runs of one iteration whose settings differ in nothing but the seed, the
    budget and how the machine is used."""
    groups: dict[str, list[Run]] = {}
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
    """What the names begin with, less the rest of a seed's number: a-seed1, a-seed2 -> a."""
    if len(names) == 1:
        return names[0]
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    prefix = "".join(letters[0] for letters in same)
    return re.sub(r"[-_.](seed|s)?[-_.]?\d*$", "", prefix)


def _repeats(runs: list[Run]) -> str:
    if len(runs) == 1:
        return ""
    if len({run.config.run.seed for run in runs}) == len(runs):
        return f" ({len(runs)} seeds)"
    return f" ({len(runs)} runs, seeds repeated)"  # which are no independent samples


def bootstrap_interval(values: Floats, resamples: int = 10_000) -> tuple[Floats, Floats]:
    """The 95 % percentile bootstrap interval of the mean over runs.

    Args:
        values: float [runs, N].

    Returns:
        low and high, float64 [N]; the same for the same values.
    """
    runs = len(values)
    # How often each run is drawn, as a share: a resample's mean is then one matrix product.
    shares = np.random.default_rng(0).multinomial(runs, [1 / runs] * runs, resamples) / runs
    low, high = np.percentile(shares @ values, [2.5, 97.5], axis=0)
    return low, high


def merge(curves: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats, Floats, Floats]:
    """The mean of several curves and its interval, where all of them have values.

    Args:
        curves: x and y of each run, float64 [N] with an N > 0 of its own; x ascends.

    Returns:
        x, mean, low and high, float64 [M]; one curve comes back as it is.
    """
    if len(curves) == 1:
        x, y = curves[0]
        return x, y, y, y
    grid = np.unique(np.concatenate([x for x, _ in curves]))
    # Beyond the end of the shortest run, a run's end would look like a change of the mean.
    start, end = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    grid = grid[(grid >= start) & (grid <= end)]
    if len(grid) > MAX_POINTS:
        grid = grid[np.linspace(0, len(grid) - 1, MAX_POINTS).astype(int)]
    values = np.stack([np.interp(grid, x, y) for x, y in curves])
    return grid, values.mean(axis=0), *bootstrap_interval(values)


def table(groups: Sequence[Group]) -> pd.DataFrame:
    """One row for each group; the figures of several runs are their means.

    How well a run plays is what its best evaluation says, that of its model. The interval of the
    clear rate is Wilson's over episodes for a run, the bootstrap's over runs for a group. Without
    an evaluation, the figures that need one are NaN.
    """
    rows = []
    for group in groups:
        figures = pd.DataFrame([_figures(run) for run in group.runs])
        row = figures.mean().to_dict()  # of those runs that have the figure
        rates = figures["best_clear_rate"].dropna().to_numpy()
        if len(group.runs) > 1 and len(rates):
            low, high = bootstrap_interval(rates[:, None])
            row |= {"clear_rate_low": low[0], "clear_rate_high": high[0]}
        names = " ".join(run.name for run in group.runs)
        stage = group.runs[0].config.env.stage
        rows.append({"run": group.label, "runs": names, "stage": stage, **row})
    return pd.DataFrame(rows)


def _figures(run: Run) -> dict[str, float]:
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
        del columns["its mean stages"]  # it is the clear rate
    cells = [[name, *values] for name, values in columns.items()]
    widths = [max(map(len, column)) for column in cells]
    lines = []
    for line in zip(*cells, strict=True):
        first, *others = zip(line, widths, strict=True)
        lines.append("  ".join([first[0].ljust(first[1]), *(cell.rjust(w) for cell, w in others)]))
    return "\n".join(lines)


def comparison_path(output_dir: str | Path, names: Sequence[str], suffix: str) -> Path:
    """stats/comparison_<names>.<suffix>; of many names, the first and a hash of all of them."""
    joined = "_".join(names)
    if len(joined) > 100:
        joined = f"{joined[:90]}-{hashlib.sha256(joined.encode()).hexdigest()[:8]}"
    return Path(output_dir) / "stats" / f"comparison_{joined}.{suffix}"
