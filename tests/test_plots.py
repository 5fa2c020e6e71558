"""Comparing runs, and the two scripts that draw them."""

import errno
import math
import os
import re
import runpy
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scripts import call

from mario_rl.config import Config
from mario_rl.errors import UserError
from mario_rl.evaluation.play import PlayedEpisode
from mario_rl.games.interface import OUTCOMES, Episode, Position
from mario_rl.reports import comparison, output, panels, plots
from mario_rl.reports.comparison import Curve
from mario_rl.reports.position_plot import ENDS, save_position_plot
from mario_rl.reports.recorded_runs import RecordedRun, read_run, read_runs
from mario_rl.storage.files import atomic_write, write_json
from mario_rl.storage.paths import RunPaths
from mario_rl.storage.records import (
    EPISODES,
    EVALUATIONS,
    TABLES,
    UPDATES,
    RecordLog,
    Table,
    read_records,
    write_checksums,
)

ROOT = Path(__file__).resolve().parents[1]
SLOW = ("torch", "cv2", "gym", "nes_py", "gym_super_mario_bros")


def row_of(table: Table, *values: Any) -> dict[str, Any]:
    """The values by column; those that older files lack may be left out."""
    columns = list(table.columns)
    assert len(columns) - len(table.added) <= len(values) <= len(columns)
    return {**table.added, **dict(zip(columns, values, strict=False))}


def write_run(
    output_dir: Path,
    name: str,
    episodes: int = 30,
    clears: tuple[int, ...] = (0, 4, 2),  # of 10 in each evaluation
    parents: tuple[str, ...] = (),
    steps_per_episode: int = 100,
    **changes: Any,
) -> RunPaths:
    """A run with evaluations every 1000 steps. Each episode comes 100 px further than the one
    before; every other earns nothing, every tenth clears the stage.
    """
    paths = RunPaths(output_dir, name)
    config = Config().replaced({"stage": "1-1", "eval_episodes": 10} | changes)
    write_json(paths.config_json, config.to_dict())
    ancestors = [
        {"run_name": parent, "iteration": i, "clear_rate": 0.5, "mean_x": 900.0}
        for i, parent in enumerate(parents, 1)
    ]
    lineage = {"iteration": len(parents) + 1, "parents": ancestors}
    write_json(paths.run_json, {"schema": 1, "run_name": name, "lineage": lineage})

    log = RecordLog(paths.episodes_csv, EPISODES)
    updates = RecordLog(paths.updates_csv, UPDATES)
    for i in range(1, episodes + 1):
        steps, cleared = steps_per_episode * i, int(i % 10 == 0)
        stage = 1 + cleared if config.env.stage == "full" else 1
        episode_return = 0.0 if i % 2 else 10.0 * i
        log.append(
            row_of(EPISODES, i, steps, steps / 3600, 0, 1 / i, episode_return, steps_per_episode,
                          100 * i, 1, stage, cleared, 0, 0, 300, "clear" if cleared else "death")
        )  # fmt: skip
        updates.append(
            row_of(UPDATES, steps, 2 * i, i, steps / 3600, 0.5 / i, 0.1, 1.0, 1.0, 1 / i, 0.4, 1.0,
                         2.0, 1, 0, 0)
        )  # fmt: skip
    log.flush()
    log.close()
    updates.flush()
    updates.close()

    log_evaluations = RecordLog(paths.evaluations_csv, EVALUATIONS)
    best = -1
    for i, cleared in enumerate(clears, 1):
        rate = cleared / 10
        log_evaluations.append(
            row_of(EVALUATIONS, 1000 * i, 20 * i, 10 * i, 1000 * i / 3600, 10, cleared, rate,
                   rate / 2, (1 + rate) / 2, 50.0, 500.0 + i, 2000, 0.0, rate, 1, 1,
                             int(cleared > best))
        )  # fmt: skip
        best = max(best, cleared)
    log_evaluations.flush()
    log_evaluations.close()
    return paths


def read(output_dir: Path, *names: str) -> list[RecordedRun]:
    return read_runs(names, output_dir)


def read_one(paths: RunPaths) -> RecordedRun:
    return read_run(paths.run_name, paths.output_dir)


def draw(run: RecordedRun) -> Any:
    figure = Figure(figsize=plots.SIZE_INCHES)
    plots.draw_training(figure, run)
    return figure


def draw_training(paths: RunPaths) -> Any:
    return draw(read_one(paths))


def run_script(
    tmp_path: Path, script: str, *flags: str, forbidden: tuple[str, ...] = SLOW
) -> subprocess.CompletedProcess[str]:
    """Run a script where importing a forbidden package fails."""
    modules = tmp_path / "forbidden"
    modules.mkdir()
    for name in forbidden:
        (modules / f"{name}.py").write_text("raise RuntimeError(f'{__name__} was imported')")
    output = [] if "--help" in flags else ["--output-dir", str(tmp_path)]
    return subprocess.run(
        [sys.executable, ROOT / script, *flags, *output],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(modules)},
    )


def png_size(path: Path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", header[16:24])


def line(panel: Any, label: str) -> Any:
    return next(item for item in panel.lines if item.get_label().startswith(label))


def texts(panel: Any) -> list[str]:
    return [text.get_text() for text in panel.texts]


# The bootstrap and the merging of runs


def test_bootstrap_of_equal_runs_has_no_width() -> None:
    low, high = comparison.bootstrap_interval(np.full((5, 3), 0.7))
    np.testing.assert_allclose([low, high], 0.7)


def test_bootstrap_of_two_runs_spans_both() -> None:
    # A quarter of the resamples draws the first twice and a quarter the second twice.
    low, high = comparison.bootstrap_interval(np.array([[0.0, 10.0], [1.0, 30.0]]))
    np.testing.assert_allclose(low, [0, 10])
    np.testing.assert_allclose(high, [1, 30])


def test_bootstrap_of_many_runs_is_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(5, 2, size=(400, 1))
    low, high = comparison.bootstrap_interval(values)
    margin = 1.96 * values.std() / math.sqrt(400)
    assert low[0] == pytest.approx(values.mean() - margin, abs=0.1 * margin)
    assert high[0] == pytest.approx(values.mean() + margin, abs=0.1 * margin)


def test_merge_interpolates_on_the_range_that_all_runs_cover() -> None:
    first = Curve(np.array([0.0, 10.0, 20.0]), np.array([0.0, 10.0, 20.0]))
    second = Curve(np.array([5.0, 15.0, 40.0]), np.array([1.0, 1.0, 1.0]))
    merged = comparison.merge([first, second])
    np.testing.assert_allclose(merged.x, [5, 10, 15, 20])
    np.testing.assert_allclose(merged.mean, [3, 5.5, 8, 10.5])
    np.testing.assert_allclose(merged.low, 1)
    np.testing.assert_allclose(merged.high, merged.x)


def test_merge_leaves_a_single_run_alone_and_thins_long_ones() -> None:
    x = np.arange(5000.0)
    single = comparison.merge([Curve(x, -x)])
    np.testing.assert_array_equal(single.x, x)
    for y in (single.mean, single.low, single.high):
        np.testing.assert_array_equal(y, -x)
    merged = comparison.merge([Curve(x, x), Curve(x, 3 * x)])
    assert len(merged.x) == comparison.MAX_POINTS
    assert (merged.x[0], merged.x[-1]) == (0, 4999)
    np.testing.assert_allclose(merged.mean, 2 * merged.x)


@pytest.mark.parametrize(("length", "window"), [(0, 5), (30, 5), (300, 30), (10_000, 100)])
def test_moving_average_window(length: int, window: int) -> None:
    assert comparison.moving_average_window(length) == window


def test_moving_average_begins_with_the_first_value() -> None:
    average = comparison.moving_average(pd.Series([4.0, 2.0, 6.0, 1.0]), 3)
    np.testing.assert_allclose(average, [4, 3, 4, 3])


# Grouping


def labels(output_dir: Path, *names: str) -> list[str]:
    return [group.label for group in comparison.group_seeds(read(output_dir, *names))]


def test_runs_that_differ_only_in_seed_are_grouped(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        write_run(tmp_path, f"base-seed{seed}", seed=seed, max_steps=1000 * seed, device="cpu")
    write_run(tmp_path, "fast", learning_rate=0.001)
    write_run(tmp_path, "child", parents=("base-seed1",), seed=4)
    names = ["base-seed1", "fast", "base-seed2", "child", "base-seed3"]
    groups = comparison.group_seeds(read(tmp_path, *names))
    assert [(group.label, len(group.runs)) for group in groups] == [
        ("base (3 seeds)", 3),
        ("fast", 1),
        ("child", 1),
    ]
    assert [len(group.runs) for group in comparison.ungrouped(read(tmp_path, *names))] == [1] * 5


def test_group_labels(tmp_path: Path) -> None:
    for i, name in enumerate(["x", "y", "run-a1", "run-a2", "boss1", "boss2"]):
        write_run(tmp_path, name, episodes=1, clears=(), seed=i)
    for i, name in enumerate(["run-b1", "run-b2"]):
        write_run(tmp_path, name, episodes=1, clears=(), seed=i, gamma=0.5)
    assert labels(tmp_path, "x", "y") == ["x+y (2 seeds)"]
    assert labels(tmp_path, "boss1", "boss2") == ["boss (2 seeds)"]
    assert labels(tmp_path, "run-a1", "x", "run-b1", "run-b2") == [
        "run-a1+x (2 seeds)",
        "run-b (2 seeds)",
    ]
    write_run(tmp_path, "run-c1", episodes=1, clears=(), seed=3, gamma=0.7)
    write_run(tmp_path, "run-c2", episodes=1, clears=(), seed=3, gamma=0.7)
    assert labels(tmp_path, "run-c1", "run-c2") == ["run-c (2 runs, seeds repeated)"]


def test_groups_of_the_same_prefix_are_told_apart(tmp_path: Path) -> None:
    for seed, gamma in ((1, 0.9), (2, 0.9), (3, 0.5), (4, 0.5)):
        write_run(tmp_path, f"run-{seed}", episodes=1, clears=(), seed=seed, gamma=gamma)
    assert labels(tmp_path, "run-1", "run-2", "run-3", "run-4") == [
        "run-1+run-2 (2 seeds)",
        "run-3+run-4 (2 seeds)",
    ]


# The table


def test_table_of_single_runs(tmp_path: Path) -> None:
    write_run(tmp_path, "a")
    write_run(tmp_path, "b", episodes=0, clears=())
    table = comparison.table(comparison.ungrouped(read(tmp_path, "a", "b")))
    first, second = table.to_dict("records")
    assert (first["run"], first["stage"]) == ("a", "1-1")
    # The best is the second of three evaluations, 4 of 10; the interval is that evaluation's.
    assert first["best_clear_rate"] == 0.4
    assert (first["clear_rate_low"], first["clear_rate_high"]) == (0.2, 0.7)
    assert first["mean_x"] == 502
    assert (first["episodes"], first["env_steps"]) == (30, 3000)
    assert first["hours"] == pytest.approx(3000 / 3600, rel=1e-4)
    assert first["env_steps_per_s"] == pytest.approx(1.0, rel=1e-4)
    assert math.isnan(second["best_clear_rate"]) and math.isnan(second["env_steps_per_s"])
    assert second["episodes"] == 0


def test_table_of_a_group(tmp_path: Path) -> None:
    write_run(tmp_path, "a-1", clears=(2,), seed=1)
    write_run(tmp_path, "a-2", clears=(6,), seed=2, episodes=10)
    write_run(tmp_path, "a-3", clears=(), seed=3, episodes=20)
    runs = read(tmp_path, "a-1", "a-2", "a-3")
    (row,) = comparison.table(comparison.group_seeds(runs)).to_dict("records")
    assert row["runs"] == "a-1 a-2 a-3"
    # The mean of those that were evaluated, and its bootstrap: not Wilson's (0.1, 0.6).
    assert row["best_clear_rate"] == pytest.approx(0.4)
    assert (row["clear_rate_low"], row["clear_rate_high"]) == (0.2, 0.6)
    assert row["episodes"] == 20


def test_formatted_table(tmp_path: Path) -> None:
    write_run(tmp_path, "a-long-name")
    write_run(tmp_path, "b", episodes=0, clears=())
    write_run(tmp_path, "full", stage="full")
    rows = comparison.table(comparison.ungrouped(read(tmp_path, "a-long-name", "b")))
    head, first, second = comparison.format_table(rows).splitlines()
    assert len(head) == len(first) == len(second)
    assert "its mean stages" not in head
    assert " ".join(first.split()) == "a-long-name 40.0% 20.0% to 70.0% 502 30 3,000 0.83 1"
    assert " ".join(second.split()) == "b - - - 0 0 0.00 -"
    full = comparison.table(comparison.ungrouped(read(tmp_path, "full")))
    assert "its mean stages" in comparison.format_table(full)


def test_notes(tmp_path: Path) -> None:
    write_run(tmp_path, "a")
    write_run(tmp_path, "b", stage="1-2")
    write_run(tmp_path, "c", seed=5)
    write_run(tmp_path, "once", clears=(3,))
    assert comparison.notes(comparison.ungrouped(read(tmp_path, "once"))) == []
    (lucky,) = comparison.notes(comparison.ungrouped(read(tmp_path, "a", "c")))
    assert "luckiest" in lucky
    (_, note) = comparison.notes(comparison.ungrouped(read(tmp_path, "a", "b", "c")))
    assert "not comparable (1-1: a, c; 1-2: b)" in note
    (_, note) = comparison.notes(comparison.group_seeds(read(tmp_path, "a", "c")))
    assert "bootstrap" in note


def test_comparison_path_is_short_and_depends_on_every_name(tmp_path: Path) -> None:
    def path(*names: str, x: str = "steps", grouped: bool = False) -> Path:
        return comparison.comparison_path(tmp_path, names, "csv", x, grouped)

    stats = tmp_path / "stats"
    assert path("a", "b") == stats / "comparison_a+b.csv"
    assert path("a", "b", x="hours") == stats / "comparison_a+b,hours.csv"
    assert path("a", x="episodes", grouped=True) == stats / "comparison_a,episodes,grouped.csv"
    ways = [
        path("a_b", "c"), path("a", "b_c"), path("a_b_c"), path("a", "b", "c"),
        path("a_b", "c_hours"), path("a", "b_c", x="hours"), path("a", "b_c_grouped"),
    ]  # fmt: skip
    assert len(set(ways)) == len(ways)
    names = [f"a-rather-long-name-{i}" for i in range(50)]
    assert len(path(*names).name) < 130
    assert path(*names) != path(*names[:-1], "other")
    assert path(*names) != path(*names, grouped=True)


# Reading


def test_every_recorded_column_is_described() -> None:
    described = RecordedRun.__doc__ or ""
    for table in TABLES:
        for column in table.columns:
            name = "episodes" if column == "episode" else column
            assert re.search(rf"^        (\w+, )*{name}(, \w+)*: ", described, re.MULTILINE), name


def test_position_counts_stages_and_the_part_passed(tmp_path: Path) -> None:
    paths = write_run(tmp_path, "a", episodes=0, clears=(), stage="full")
    log = RecordLog(paths.episodes_csv, EPISODES)
    for i, (world, stage, x) in enumerate([(1, 1, 1700), (1, 2, 0), (2, 1, 340), (8, 4, 9000)]):
        log.append(row_of(EPISODES, i, i, 0, 0, 0, 0, 1, x, world, stage, 0, 0, 0, 0, "death"))
    log.flush()
    log.close()
    position = read_one(paths).episodes["position"]
    np.testing.assert_allclose(position, [0.5, 1, 4.1, 32])


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"lineage": {"iteration": "x"}}'])
def test_damaged_run_json_is_named(tmp_path: Path, content: str) -> None:
    paths = write_run(tmp_path, "a", episodes=1)
    paths.run_json.write_text(content)
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        read_one(paths)


@pytest.mark.parametrize("content", ["{", '{"env": {"stage": "9-9"}}', '{"new": {}}'])
def test_damaged_config_json_is_named(tmp_path: Path, content: str) -> None:
    paths = write_run(tmp_path, "a", episodes=1)
    paths.config_json.write_text(content)
    with pytest.raises(UserError, match=r"config\.json"):
        read_one(paths)


def test_a_run_shows_itself_in_one_line(tmp_path: Path) -> None:
    run = read_one(write_run(tmp_path, "a", parents=("b",)))
    assert repr(run) == "<RecordedRun a: 1-1, iteration 2, 30 episodes, 3,000 env steps>"


@pytest.mark.parametrize(
    ("lost", "with_checksums"),
    [
        ("episodes.csv", True),
        ("updates.csv", True),
        ("updates.csv", False),
        ("evaluations.csv", True),
        ("run.json", True),
    ],
)
def test_what_is_there_is_drawn_without_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lost: str, with_checksums: bool
) -> None:
    paths = write_run(tmp_path, "a", parents=("b",))
    if with_checksums:
        write_checksums(paths.stats, {table.file: b"one" for table in TABLES if table.file == lost})
    (paths.stats / lost).unlink()
    run = read_one(paths)
    read_one(paths)
    assert capsys.readouterr().err == f"warning: {paths.stats / lost} is missing\n"  # once
    assert (run.missing, run.iteration) == ((lost,), 1 if lost == "run.json" else 2)
    seen = {text for panel in draw(run).axes for text in texts(panel)}
    assert seen == ({f"{lost} is missing"} if lost.endswith("csv") else set())


def test_a_run_that_has_not_begun_misses_nothing(tmp_path: Path) -> None:
    paths = write_run(tmp_path, "a")
    for table in TABLES:
        (paths.stats / table.file).unlink()
    assert read_one(paths).missing == ()


# The figures


def test_training_figure_shows_the_records(tmp_path: Path) -> None:
    figure = draw_training(write_run(tmp_path, "a"))
    returns, progress, rate, loss, epsilon, mean_x = figure.axes
    steps = 100 * np.arange(1, 31)
    average = line(returns, "mean of last 5")
    np.testing.assert_array_equal(average.get_xdata(), steps)
    assert average.get_ydata()[-1] == pytest.approx(np.mean([260, 0, 280, 0, 300]))
    np.testing.assert_array_equal(line(returns, "best so far").get_ydata()[-3:], [280, 280, 300])
    np.testing.assert_array_equal(line(progress, "episode").get_ydata(), steps)
    np.testing.assert_array_equal(line(progress, "clear (3)").get_xdata(), [1000, 2000, 3000])
    best = line(rate, "best model (40%)")
    assert (best.get_xdata(), best.get_ydata()) == ([2000], [0.4])
    (bars,) = rate.collections
    np.testing.assert_allclose(bars.get_segments()[1], [[2000, 0.2], [2000, 0.7]])
    np.testing.assert_allclose(line(loss, "record").get_ydata(), 0.5 / np.arange(1, 31), rtol=1e-5)
    assert line(epsilon, "epsilon").get_ydata()[0] == 1
    np.testing.assert_allclose(line(mean_x, "mean of an evaluation").get_ydata(), [501, 502, 503])
    assert all(panel.get_title(loc="left") and panel.get_ylabel() for panel in figure.axes)


def test_retries_are_shown_apart(tmp_path: Path) -> None:
    paths = write_run(tmp_path, "a")
    log = RecordLog(paths.episodes_csv, EPISODES, paths.episodes_csv.read_bytes())
    log.append(
        row_of(EPISODES, 31, 3100, 1.0, 0, 0.1, 9999.0, 20, 9000, 1, 1, 0, 0, 0, 300, "death", 5)
    )
    log.flush()
    log.close()
    run = read_one(paths)
    assert (len(run.episodes), len(run.retries), run.total("episodes")) == (30, 1, 31)
    returns, progress, *_ = draw_training(paths).axes
    assert line(returns, "best so far").get_ydata()[-1] == 300
    assert line(progress, "best so far").get_ydata()[-1] == 3000
    assert list(line(progress, "retry").get_ydata()) == [9000]


def test_title_names_run_stage_seed_and_lineage(tmp_path: Path) -> None:
    title = draw_training(write_run(tmp_path, "first", seed=7)).get_suptitle()
    assert "first" in title and "stage 1-1 | simple actions | seed 7" in title
    assert "iteration" not in title
    title = draw_training(write_run(tmp_path, "c", parents=("first",))).get_suptitle()
    assert "iteration 2: first -> c" in title
    ancestors = tuple(f"{'long' * 18}-{i}" for i in range(9))
    title = draw_training(write_run(tmp_path, "d", parents=ancestors)).get_suptitle()
    assert "iteration 10" in title and "..." in title
    assert max(map(len, title.splitlines())) <= 150


@pytest.mark.parametrize("episodes", [30, 3000])
def test_nothing_overlaps(tmp_path: Path, episodes: int) -> None:
    paths = write_run(tmp_path, "a", episodes=episodes, clears=(3,) * (episodes // 10))
    assert_nothing_overlaps(draw_training(paths))


def assert_nothing_overlaps(figure: Any) -> None:
    figure.draw_without_rendering()  # which lays it out
    title = figure._suptitle.get_window_extent()
    width = figure.bbox.width
    for panel in figure.axes:
        legend = panel.get_legend().get_window_extent()
        heading = panel._left_title.get_window_extent()
        assert legend.y0 >= panel.bbox.y1 - 1, "the legend hides data"
        assert heading.y0 >= legend.y1 - 1, "the legend hides the panel's title"
        assert heading.y1 <= title.y0, "the panel's title hides the figure's"
        right = [other.bbox.x0 for other in figure.axes if other.bbox.x0 > panel.bbox.x1]
        assert legend.x1 <= min(right, default=width), "the legend hides its neighbour"
        assert panel.bbox.width == pytest.approx(figure.axes[0].bbox.width)
    labels = [panel.yaxis.label.get_window_extent() for panel in figure.axes]
    for i, label in enumerate(labels):
        assert label.count_overlaps(labels[i + 1 :]) == 0, "the labels of the y axes overlap"


def test_steps_are_written_with_k_and_m(tmp_path: Path) -> None:
    figure = draw_training(write_run(tmp_path, "a", steps_per_episode=50_000))
    ticks = [label.get_text() for label in figure.axes[3].get_xticklabels()]
    assert "500k" in ticks and "1M" in ticks


def test_full_game_shows_world_stages(tmp_path: Path) -> None:
    figure = draw_training(write_run(tmp_path, "a", stage="full"))
    progress, result = figure.axes[1], figure.axes[5]
    assert [label.get_text() for label in progress.get_yticklabels()][:3] == ["1-1", "1-2", "1-3"]
    assert "stages cleared" in result.get_title(loc="left")
    assert line(result, "mean of").get_ydata()[1] == pytest.approx(0.4)


@pytest.mark.filterwarnings("error")
def test_empty_run_says_what_is_missing(tmp_path: Path) -> None:
    figure = draw_training(write_run(tmp_path, "a", episodes=0, clears=()))
    missing = ["episodes", "episodes", "evaluations", "updates", "updates", "evaluations"]
    assert [texts(panel) for panel in figure.axes] == [[f"no {what} yet"] for what in missing]
    figure = draw_training(write_run(tmp_path, "b", episodes=1, clears=(0,), stage="full"))
    assert [texts(panel) for panel in figure.axes] == [[]] * 6


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("figure", ["training", "comparison"])
@pytest.mark.parametrize("absent", ["column", "values"])
def test_a_quantity_without_values_is_missing(tmp_path: Path, figure: str, absent: str) -> None:
    run = read_one(write_run(tmp_path, "a"))
    updates = run.updates.assign(loss=np.nan)
    if absent == "column":
        updates = updates.drop(columns="loss")
    run = replace(run, updates=updates)
    if figure == "training":
        axes = draw(run).axes
    else:
        whole = Figure()
        plots.draw_comparison(whole, comparison.ungrouped([run]), "steps")
        axes = whole.axes
    assert [texts(panel) for panel in axes] == [[], [], [], ["no loss yet"], [], []]


@pytest.mark.filterwarnings("error")
def test_a_run_without_a_quantity_is_compared_in_the_others(tmp_path: Path) -> None:
    write_run(tmp_path, "new")
    write_run(tmp_path, "old", seed=1)
    new, old = read(tmp_path, "new", "old")
    old = replace(old, updates=old.updates.drop(columns="loss"))
    figure = Figure()
    plots.draw_comparison(figure, comparison.group_seeds([old, new]), "steps")
    assert [len(panel.lines) for panel in figure.axes[3:5]] == [1, 3]


@pytest.mark.parametrize("count", [1, 3, 5])
def test_another_panel_is_one_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    entropy = replace(panels.LOSS, title="Entropy", unit="nats", column="entropy")
    shown = panels.SINGLE_STAGE_PANELS + count * (entropy,)
    monkeypatch.setattr(plots, "SINGLE_STAGE_PANELS", shown)
    paths = write_run(tmp_path, "a")
    rows = read_records(paths.updates_csv, UPDATES).to_dict("records")
    paths.updates_csv.unlink()
    log = RecordLog(paths.updates_csv, UPDATES)
    for values in rows:
        log.append({**values, "entropy": 0.5})
    log.flush()
    log.close()
    run = read_one(paths)
    figure = draw(run)
    assert_nothing_overlaps(figure)
    assert len(figure.axes) == 6 + count
    assert set(line(figure.axes[6], "record").get_ydata()) == {0.5}
    for i, panel in enumerate(figure.axes):
        lowest = i >= 3 + count
        assert bool(panel.get_xlabel()) == lowest
        assert any(label.get_visible() for label in panel.get_xticklabels()) == lowest
    plots.draw_comparison(figure, comparison.ungrouped([run]), "steps")
    assert "Entropy, mean of last 5" in figure.axes[6].get_title(loc="left")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("loss", ["0", "0.25", "1e-9", "1e9"])
def test_any_loss_can_be_drawn(tmp_path: Path, loss: str) -> None:
    paths = write_run(tmp_path, "a")
    table = pd.read_csv(paths.updates_csv)
    table["loss"] = table["loss"].astype(object)
    table.loc[5 if loss.startswith("1e") else slice(None), "loss"] = loss
    table.to_csv(paths.updates_csv, index=False)
    labels = [label.get_text() for label in draw_training(paths).axes[3].get_yticklabels()]
    assert 2 <= len(labels) <= 20


def test_torn_last_line_is_left_out(tmp_path: Path) -> None:
    paths = write_run(tmp_path, "a")
    for path in (paths.episodes_csv, paths.updates_csv, paths.evaluations_csv):
        path.write_bytes(path.read_bytes()[:-3])
    figure = draw_training(paths)
    assert len(line(figure.axes[0], "episode").get_xdata()) == 29


def test_the_mark_of_every_outcome_can_be_seen() -> None:
    # A marker that has only an edge would be drawn in white.
    assert {end.marker for end in ENDS.values()} <= set(Line2D.filled_markers)
    assert set(ENDS) == set(OUTCOMES)


@pytest.mark.filterwarnings("error")
def test_a_line_of_one_point_is_seen(tmp_path: Path) -> None:
    paths = write_run(tmp_path, "a", episodes=1, clears=(1,))
    figure = draw_training(paths)
    for panel in figure.axes:
        for item in panel.lines:
            assert item.get_marker() == "o" or item.get_label().startswith(("best model", "clear"))
    run = read_one(write_run(tmp_path, "gaps", episodes=4))
    figure = draw(replace(run, updates=run.updates.assign(loss=[1, 2, np.nan, 3])))
    losses = line(figure.axes[3], "record")
    assert (losses.get_marker(), losses.get_markevery()) == ("o", [3])
    long = draw_training(write_run(tmp_path, "long"))
    assert line(long.axes[3], "record").get_marker() == "None"


@pytest.mark.filterwarnings("error")
def test_groups_of_runs_of_one_point_are_seen(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path, f"a-{seed}", episodes=1, clears=(seed,), seed=seed,
                  steps_per_episode=100 * seed)  # fmt: skip
    figure = Figure()
    plots.draw_comparison(figure, comparison.group_seeds(read(tmp_path, "a-1", "a-2")), "steps")
    for panel in figure.axes:
        singles = [item for item in panel.lines if len(item.get_xdata()) == 1]
        assert len(singles) >= 2 and {item.get_marker() for item in singles} == {"o"}
    _, interval = figure.axes[2].collections  # no band has a width at a single evaluation
    np.testing.assert_allclose(interval.get_segments(), [[[1000, 0.1], [1000, 0.2]]])


def test_many_evaluations_are_averaged(tmp_path: Path) -> None:
    write_run(tmp_path, "a", episodes=1, clears=(0, 10) * 100)
    run = read(tmp_path, "a")[0]
    rate = draw(run).axes[2]
    (band,) = rate.collections
    low, high = band.get_datalim(rate.transData).get_points()[:, 1]
    assert low < 0.3 and high > 0.7
    assert line(rate, "mean of last 20").get_ydata()[-1] == pytest.approx(0.5)
    figure: Any = Figure()
    plots.draw_comparison(figure, comparison.ungrouped([run]), "steps")
    assert figure.axes[2].get_title(loc="left") == "Evaluation: clear rate, mean of last 20"
    assert figure.axes[2].lines[0].get_ydata()[-1] == pytest.approx(0.5)


@pytest.mark.filterwarnings("error")
def test_lines_are_told_apart_or_refused(tmp_path: Path) -> None:
    run = read_one(write_run(tmp_path, "a", episodes=1, clears=(1,)))
    names = [f"{'a-long-name-' * 5}{i}" for i in range(plots.MAX_LINES)]
    groups = comparison.ungrouped([replace(run, name=name) for name in names])
    figure: Any = Figure(figsize=plots.SIZE_INCHES, dpi=plots.DPI)
    plots.draw_comparison(figure, groups, "steps")
    figure.draw_without_rendering()
    (legend,) = figure.legends
    looks = {(item.get_color(), item.get_linestyle()) for item in legend.get_lines()}
    assert len(looks) == len(names)
    extent = legend.get_window_extent()
    assert extent.x0 >= 0 and extent.x1 <= figure.bbox.x1 and extent.y1 <= figure.bbox.y1
    assert all(panel.bbox.height > 350 and panel.bbox.y1 < extent.y0 for panel in figure.axes)
    with pytest.raises(UserError, match=rf"{len(names) + 1} lines .* {len(names)} .*--group"):
        plots.draw_comparison(figure, [*groups, *comparison.ungrouped([run])], "steps")


def test_comparison_figure(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path, f"a-{seed}", seed=seed, episodes=10 * seed)
    write_run(tmp_path, "b", gamma=0.5)
    write_run(tmp_path, "empty", episodes=0, clears=(), gamma=0.6)
    groups = comparison.group_seeds(read(tmp_path, "a-1", "a-2", "b", "empty"))
    figure: Any = Figure(figsize=plots.SIZE_INCHES)
    plots.draw_comparison(figure, groups, "hours")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a (2 seeds)", "b", "empty"]
    assert "bootstrap" in legend.get_title().get_text()
    panel = figure.axes[0]
    single_1, single_2, mean, b = panel.lines
    assert (len(single_1.get_xdata()), len(single_2.get_xdata())) == (10, 20)
    assert mean.get_xdata().max() == pytest.approx(1000 / 3600, rel=1e-5)
    assert b.get_xdata().max() == pytest.approx(3000 / 3600, rel=1e-5)
    assert b.get_ydata()[-1] == pytest.approx(np.mean([260, 0, 280, 0, 300]))
    assert len(panel.collections) == 1, "one band, for the group"
    averaged = ["mean of last 5" in panel.get_title(loc="left") for panel in figure.axes]
    assert averaged == [True, True, False, True, False, False]
    assert figure.axes[5].get_xlabel() == "training time (hours)"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("x", ["episodes", "steps", "hours"])
def test_comparison_of_empty_runs(tmp_path: Path, x: str) -> None:
    for seed in (1, 2):
        write_run(tmp_path, f"a-{seed}", seed=seed, episodes=0, clears=())
    figure = Figure()
    plots.draw_comparison(figure, comparison.group_seeds(read(tmp_path, "a-1", "a-2")), x)
    assert texts(figure.axes[3]) == ["no updates yet"]


@pytest.mark.parametrize(("suffix", "magic"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_vector_formats(tmp_path: Path, suffix: str, magic: bytes) -> None:
    path = tmp_path / f"figure.{suffix}"
    plots.save(lambda figure: None, path)
    assert path.read_bytes().startswith(magic)


def test_unwritable_figure_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*a\.png: Is a directory; .* --output"):
        plots.save(lambda figure: None, tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_window_is_drawn_again_only_when_a_file_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib import pyplot

    file, missing = tmp_path / "a.csv", tmp_path / "b.csv"
    file.write_text("1")
    drawn, passes = [], []

    def wait(canvas: Any, seconds: float) -> None:
        passes.append(seconds)
        if len(passes) == 3:
            file.write_text("12")
        if len(passes) == 5:
            missing.write_text("1")
        if len(passes) == 7:
            pyplot.close("all")

    pyplot.switch_backend("agg")
    canvas = type(pyplot.figure().canvas)
    pyplot.close("all")
    monkeypatch.setattr(canvas, "start_event_loop", wait)
    monkeypatch.setattr(plots, "_open_window", pyplot.figure)
    monkeypatch.setattr(pyplot, "show", lambda block: None)
    plots.show(lambda figure: drawn.append(len(passes)), [file, missing])
    assert drawn == [0, 3, 5]
    assert len(passes) == 7


def test_window_keeps_its_picture_when_the_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from matplotlib import pyplot

    paths = write_run(tmp_path, "a", episodes=1)
    passes = []

    def wait(canvas: Any, seconds: float) -> None:
        passes.append(len(pyplot.gcf().axes))
        if len(passes) == 1:
            shutil.rmtree(paths.stats)
        if len(passes) == 3:
            pyplot.close("all")

    pyplot.switch_backend("agg")
    monkeypatch.setattr(type(pyplot.figure().canvas), "start_event_loop", wait)
    pyplot.close("all")
    monkeypatch.setattr(plots, "_open_window", pyplot.figure)
    monkeypatch.setattr(pyplot, "show", lambda block: None)
    plots.show(lambda figure: plots.draw_training(figure, read_one(paths)), [paths.episodes_csv])
    assert passes == [6, 6, 6]
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: ") and "last picture" in warning


def test_no_window_without_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib import pyplot

    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    pyplot.switch_backend("agg")  # what pyplot falls back to
    monkeypatch.setattr(pyplot, "get_fignums", lambda: [])  # or a wrong answer waits for ever
    with pytest.raises(UserError, match=r"no window can be opened .*; leave out --show and --live"):
        plots.show(lambda figure: None)
    pyplot.close("all")


# The scripts


@pytest.mark.parametrize("script", ["visualize_training.py", "compare_runs.py"])
def test_help_is_quick(tmp_path: Path, script: str) -> None:
    slow = ("pandas", "matplotlib", *SLOW)
    result = run_script(tmp_path, script, "--help", forbidden=slow)
    assert (result.returncode, result.stderr) == (0, "")
    assert "--output-dir" in result.stdout


def test_visualize_training_writes_a_png(tmp_path: Path) -> None:
    paths = write_run(tmp_path, "a")
    result = run_script(tmp_path, "visualize_training.py", "--run-name", "a")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{paths.stats / 'training.png'}\n"
    assert png_size(paths.stats / "training.png") == (1920, 1080)
    assert not list(paths.stats.glob("*.tmp"))


@pytest.mark.parametrize("backend", ["agg", "Qt4Agg"])
def test_a_window_takes_a_toolkit_that_there_is(display: None, backend: str) -> None:
    pytest.importorskip("tkinter")
    script = (
        "from mario_rl.reports.plots import _open_window\n"
        "print(_open_window().canvas.required_interactive_framework)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"MPLBACKEND": backend},
    )
    assert result.stdout.strip() not in ("", "None"), result.stderr


ODD_SETTINGS = {"text.usetex": True, "savefig.dpi": 30, "svg.fonttype": "none", "axes.grid": False}


def test_no_setting_of_the_user_changes_a_figure(tmp_path: Path) -> None:
    """MPLBACKEND is one that Matplotlib does not know, as the one of a notebook can be."""
    paths = write_run(tmp_path, "a")
    plots.save(lambda figure: plots.draw_training(figure, read_one(paths)), tmp_path / "here.png")
    settings = tmp_path / "matplotlibrc"
    settings.write_text("".join(f"{name}: {value}\n" for name, value in ODD_SETTINGS.items()))
    environment = {"MPLBACKEND": "Qt4Agg", "MATPLOTLIBRC": str(settings)}
    png = tmp_path / "there.png"
    words = ["--run-name", "a", "--output-dir", str(tmp_path), "--output", str(png), "--show"]
    result = subprocess.run(
        [sys.executable, ROOT / "visualize_training.py", *words],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if "DISPLAY" not in k} | environment,
    )
    assert (result.returncode, result.stdout) == (2, f"{png}\n"), result.stderr
    assert result.stderr.startswith("error: no window can be opened ")
    assert result.stderr.count("\n") == 1
    assert png.read_bytes() == (tmp_path / "here.png").read_bytes()


def test_a_figure_changes_no_setting_of_the_user(tmp_path: Path) -> None:
    run = read_one(write_run(tmp_path, "a", episodes=1))
    episode = Episode(1.0, 2, 40, 1, 1, 0, 0, 0, 300, "death")
    played = PlayedEpisode(episode, Position(0, [1, 1]), [20, 40], [80, 80])
    with matplotlib.rc_context(ODD_SETTINGS):
        before = dict(matplotlib.rcParams)
        plots.save(lambda figure: plots.draw_training(figure, run), tmp_path / "a.png")
        plots.draw_comparison(Figure(), comparison.ungrouped([run]), "steps")
        save_position_plot(tmp_path / "b.png", [played], "a on 1-1")
        assert dict(matplotlib.rcParams) == before
    assert png_size(tmp_path / "b.png") == (1200, 840)


def test_a_name_is_not_read_as_mathematics(tmp_path: Path) -> None:
    run = read_one(write_run(tmp_path, "a", parents=("b",)))
    named = replace(run, name=r"$\frac$", ancestors=(r"$x_1$",))
    groups = comparison.ungrouped([named])
    plots.save(lambda figure: plots.draw_training(figure, named), tmp_path / "a.svg")
    plots.save(lambda figure: plots.draw_comparison(figure, groups, "steps"), tmp_path / "b.svg")


def test_missing_run_names_the_nearest_first(tmp_path: Path) -> None:
    for name in ("zebra", "mario-first", "apple"):
        write_run(tmp_path, name, episodes=1)
    flags, forbidden = ["--run-name", "mario-frist"], ("pandas", "matplotlib")
    result = run_script(tmp_path, "visualize_training.py", *flags, forbidden=forbidden)
    assert result.returncode == 2
    assert result.stderr.startswith("error: no run 'mario-frist': there are mario-first, ")
    assert result.stderr.count("\n") == 1


def test_compare_runs_prints_a_table_and_writes_nothing(tmp_path: Path) -> None:
    write_run(tmp_path, "a")
    write_run(tmp_path, "b", stage="1-2")
    write_run(tmp_path, "c", seed=1)
    before = sorted((tmp_path / "stats").rglob("*"))
    flags, forbidden = ["--run-names", "a", "b", "c"], ("matplotlib", *SLOW)
    result = run_script(tmp_path, "compare_runs.py", *flags, forbidden=forbidden)
    assert (result.returncode, result.stderr) == (0, "")
    *lines, lucky, note = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["run", "a", "b", "c"]
    assert "luckiest" in lucky and "not comparable" in note
    assert sorted((tmp_path / "stats").rglob("*")) == before


def test_compare_runs_saves_csv_and_png(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path, f"a-{seed}", seed=seed, clears=(2 * seed,))
    flags = ["--run-names", "a-1", "a-2", "--group", "--save", "--x", "episodes"]
    result = run_script(tmp_path, "compare_runs.py", *flags)
    assert (result.returncode, result.stderr) == (0, "")
    png = tmp_path / "stats/comparison_a-1+a-2,episodes,grouped.png"
    csv = png.with_suffix(".csv")
    assert result.stdout.splitlines()[-2:] == [str(csv), str(png)]
    (row,) = pd.read_csv(csv).to_dict("records")
    assert (row["run"], row["runs"], row["episodes"]) == ("a (2 seeds)", "a-1 a-2", 30)
    assert row["best_clear_rate"] == pytest.approx(0.3)
    assert (row["clear_rate_low"], row["clear_rate_high"]) == (0.2, 0.4)
    assert png_size(png) == (1920, 1080)


def test_no_comparison_overwrites_another(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path, f"a-{seed}", seed=seed)
    ways = [[], ["--group"], ["--x", "hours"], ["--x", "hours", "--group"], ["--x", "episodes"]]
    words = ["--run-names", "a-1", "a-2", "--save", "--x", "steps"]
    for way in ways:
        assert call("compare_runs.py", [*words, *way], tmp_path)[0] == 0
    names = {path.name for path in (tmp_path / "stats").glob("comparison_*")}
    assert len(names) == 2 * len(ways)
    assert names > {"comparison_a-1+a-2.csv", "comparison_a-1+a-2.png"}


def test_runs_of_others_are_drawn_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_run(tmp_path, "a", episodes=1)

    def read_only(path: Path, write: Any) -> None:
        if paths.stats.parent in path.resolve().parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), f"{path}.1.tmp")
        atomic_write(path, write)

    monkeypatch.setattr(output, "atomic_write", read_only)
    plot = ["visualize_training.py", "--run-name", "a"]
    compare = ["compare_runs.py", "--run-names", "a"]
    for script, *words in (plot, [*compare, "--save"]):
        code, _, error = call(script, words, tmp_path)
        assert code == 2 and "Permission denied" in error and "--output" in error
        assert error.count("\n") == 1
    for (script, *words), name in ((plot, "a.svg"), (compare, "b.pdf"), (compare, "b.csv")):
        code, said, _ = call(script, [*words, "--output", str(tmp_path / name)], tmp_path)
        assert code == 0 and said.endswith(f"{tmp_path / name}\n")
    assert [(tmp_path / name).read_bytes()[:4] for name in ("a.svg", "b.pdf", "b.csv")] == [
        b"<?xm", b"%PDF", b"run,"
    ]  # fmt: skip
    for words in (["--output", "a.jpg"], ["--output", "a.png", "--format", "svg"]):
        code, _, error = call(plot[0], [*plot[1:], *words], tmp_path)
        assert code == 2 and error.count("\n") == 1


def test_compare_runs_refuses_a_name_given_twice(tmp_path: Path) -> None:
    write_run(tmp_path, "a", episodes=1)
    result = run_script(tmp_path, "compare_runs.py", "--run-names", "a", "a")
    assert result.returncode == 2
    assert result.stderr == "error: --run-names: 'a' is given twice; name each run once\n"


@pytest.mark.parametrize("x", ["episodes", "hours"])
def test_compare_runs_draws_over_the_chosen_axis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, x: str
) -> None:
    write_run(tmp_path, "a")
    command = ["compare_runs.py", "--run-names", "a", "--save", "--x", x]
    monkeypatch.setattr(sys, "argv", [*command, "--output-dir", str(tmp_path)])
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    figure = Figure()
    monkeypatch.setattr(plots, "save", lambda draw, path: draw(figure))
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(ROOT / "compare_runs.py"), run_name="__main__")
    assert x in figure.axes[3].get_xlabel()
