"""What a run recorded, read back as pandas data frames.

In a notebook:

    run = read_run("first")
    run.evaluations.plot("env_steps", "clear_rate")
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mario_rl.config import FULL_GAME, Config
from mario_rl.console import warn_once
from mario_rl.errors import UserError
from mario_rl.storage.files import read_json
from mario_rl.storage.lineage import Lineage
from mario_rl.storage.paths import RunPaths
from mario_rl.storage.plain import read_as
from mario_rl.storage.records import CHECKSUMS, EPISODES, EVALUATIONS, UPDATES, read_records
from mario_rl.training.description import read_description

# About the length of a stage. In the few that are longer, `position` stops growing here.
STAGE_WIDTH_PX = 3_400


@dataclass(frozen=True)
class RecordedRun:
    """The settings of one run and four tables of what it recorded.

    A row of `episodes` is an episode of training that began at the start of the game. `retries`
    has the same columns; its episodes began at a save point. A row of `updates` is a mean over the
    updates since the row before. A row of `evaluations` is one evaluation: greedy play with
    epsilon 0.01 after 0 to 30 no-op frames. Rows are in the order of time.

    Columns of every table, at the end of the episode, update or evaluation:
        env_steps: decisions of the agent so far, in all games together; one is 4 frames.
        episodes: training episodes so far. In `episodes` and `retries`: the number of this one.
        hours: training time so far, over all sessions.

    Columns of `episodes` and `retries`:
        env: the game of the run that played it, 0, 1, ...
        epsilon: of that game.
        episode_return: undiscounted sum of the rewards; by default 1 is 10 pixels of progress.
        length_steps: decisions.
        max_x: the furthest x in the furthest stage, pixels.
        world, stage: the furthest stage, such as 1 and 2.
        position: the same as one number: stages before the furthest (1-1 is 0, 8-4 is 31), and the
            share of it that was passed.
        stages_cleared: how many.
        game_score: the score on the screen.
        coins: the coins on the screen.
        time_left: the game's clock, in its own units.
        outcome: clear, death, time_up, or stall, which is too long without progress.
        start_step: decisions that led to the save point; 0 in `episodes`.

    Columns of `updates`, and others that the learner reports:
        updates: updates of the network so far.
        loss: importance-weighted.
        td_error: mean absolute TD error, in scaled rewards (--reward-scale).
        q_value: mean Q of the actions in the batch, in scaled rewards.
        grad_norm: norm of the gradient before clipping.
        epsilon: of the game that explores most.
        importance_exponent: the exponent of the importance weights (beta).
        env_steps_per_s, updates_per_s: speed of training, without the time of evaluations.
        memory_bytes: resident memory of the trainer and its workers.
        gpu_reserved_bytes, gpu_peak_bytes: memory of the GPU; 0 without one.

    Columns of `evaluations`:
        updates: updates of the network so far.
        eval_episodes: episodes played.
        clears: those that cleared a stage.
        clear_rate: their share, 0 to 1.
        clear_rate_low, clear_rate_high: its 95 % Wilson interval.
        mean_return: as `episode_return`.
        mean_x, max_x: of the furthest x of each episode, pixels.
        mean_game_score: as `game_score`.
        mean_stages_cleared: stages per episode; in the full game it can be above 1.
        furthest_world, furthest_stage: the furthest of all episodes.
        is_best: 1 if this policy became the run's model, else 0.
    """

    name: str
    config: Config
    iteration: int  # 1, or one more than that of the run whose model it continued
    ancestors: tuple[str, ...]  # names, oldest first
    episodes: pd.DataFrame
    retries: pd.DataFrame
    updates: pd.DataFrame
    evaluations: pd.DataFrame
    missing: tuple[str, ...] = ()  # names of its files that are gone; their tables have no rows

    def __repr__(self) -> str:
        return (
            f"<RecordedRun {self.name}: {self.config.env.stage}, iteration {self.iteration}, "
            f"{self.total('episodes'):,.0f} episodes, {self.total('env_steps'):,.0f} env steps>"
        )

    @property
    def full_game(self) -> bool:
        """Whether it plays the full game, not a single stage."""
        return self.config.env.stage == FULL_GAME

    @property
    def best_evaluation(self) -> pd.DataFrame:
        """The row of `evaluations` that chose the run's model; no row before the first."""
        return self.evaluations[self.evaluations["is_best"] == 1].tail(1)

    def total(self, column: str) -> float:
        """The newest value of `episodes`, `env_steps` or `hours`; 0 if nothing is recorded."""
        tables = (self.episodes, self.retries, self.updates, self.evaluations)
        return max((float(table[column].iloc[-1]) for table in tables if len(table)), default=0.0)


def read_run(name: str, output_dir: str | Path = ".") -> RecordedRun:
    """Read what a run recorded so far; it may still be training.

    Files that are gone, apart from config.json, give a warning. Without run.json the run counts as
    iteration 1.

    Args:
        name: of the run, the name of its folder in stats/.
        output_dir: where stats/ lies.

    Raises:
        UserError: if there is no such run, or one of its files is damaged.
    """
    paths = RunPaths(output_dir, name)
    paths.require_stats()
    missing = _missing(paths)
    for path in missing:
        warn_once(f"{path} is missing")  # a figure that follows a run reads it again and again
    config: Config = read_as(Config, read_json(paths.config_json), paths.config_json)
    known = paths.run_json not in missing
    lineage = read_description(paths).lineage if known else Lineage()
    episodes = read_records(paths.episodes_csv, EPISODES)
    episodes = _with_position(episodes.rename(columns={"episode": "episodes"}))
    from_start = episodes["start_step"] == 0
    return RecordedRun(
        name=name,
        config=config,
        iteration=lineage.iteration,
        ancestors=tuple(parent.run_name for parent in lineage.parents),
        episodes=episodes[from_start].reset_index(drop=True),
        retries=episodes[~from_start].reset_index(drop=True),
        updates=read_records(paths.updates_csv, UPDATES),
        evaluations=read_records(paths.evaluations_csv, EVALUATIONS),
        missing=tuple(path.name for path in missing),
    )


def _missing(paths: RunPaths) -> list[Path]:
    """The files that are gone. Before a run begins to play it has no tables yet."""
    tables = [paths.episodes_csv, paths.updates_csv, paths.evaluations_csv]
    begun = any(path.exists() for path in (*tables, paths.stats / CHECKSUMS))
    return [path for path in (paths.run_json, *tables * begun) if not path.exists()]


def _with_position(episodes: pd.DataFrame) -> pd.DataFrame:
    """Add `position`: stages before the furthest one, and the share of it that was passed."""
    share = (episodes["max_x"] / STAGE_WIDTH_PX).clip(0, 1)
    stage = 4 * (episodes["world"] - 1) + episodes["stage"] - 1
    return episodes.assign(position=stage + share)


def read_runs(names: Sequence[str], output_dir: str | Path = ".") -> list[RecordedRun]:
    """Read several runs, in the order of their names.

    Raises:
        UserError: for a name given twice, and as `read_run`.
    """
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--run-names: {name!r} is given twice; name each run once")
    return [read_run(name, output_dir) for name in names]
