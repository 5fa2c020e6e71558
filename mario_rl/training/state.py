"""What a checkpoint holds, and how files of older versions are converted."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from mario_rl.agent.exploration import check_exploration
from mario_rl.agent.learner import LearnerState, check_learner
from mario_rl.agent.saved_model import Lineage, SavedModel
from mario_rl.config import Config
from mario_rl.errors import UserError, first_line
from mario_rl.fields import Count, Matching
from mario_rl.games.actions import action_names
from mario_rl.replay.prioritized import ReplayState
from mario_rl.storage.lineage import MAX_PARENTS
from mario_rl.storage.plain import from_plain
from mario_rl.storage.records import TABLES
from mario_rl.training.evaluator import EvaluatorState
from mario_rl.training.guide import Decisions
from mario_rl.training.rollout import Bytes
from mario_rl.training.trainer import TrainerState

_NAMES = "|".join(table.name for table in TABLES)
RecordName = Annotated[str, Matching(rf"({_NAMES})(\.csv)?", "the name of a file of records")]

_MAX_BEFORE_TRAINING = 10**12  # of any counter; a thousandth of what files may hold
_MAX_HOURS_BEFORE_TRAINING = 10**6


@dataclass(frozen=True)
class Progress:
    """What has happened in a run."""

    trainer: TrainerState
    evaluator: EvaluatorState
    checkpointed_episodes: Count  # the number of episodes at the newest checkpoint
    # What the CSV files held, by file name. Schema 1 had only their sizes.
    records: Mapping[RecordName, Bytes | Count]
    unwritten_model: SavedModel | None = None  # the best, if its file could not be written

    def check(self, config: Config) -> None:
        """
        Raises:
            ValueError: names a field that does not fit the others.
        """
        with _inside("trainer"):
            self.trainer.check(config)
        if self.unwritten_model is not None:
            with _inside("unwritten_model"):
                self.unwritten_model.check()
        if len({type(content) for content in self.records.values()}) > 1:
            raise ValueError("records holds sizes and contents")
        for table in TABLES:
            content = self.records.get(table.file)
            if isinstance(content, np.ndarray):
                try:
                    table.check(content.tobytes())
                except ValueError as error:
                    raise ValueError(f"records.{table.file}: {first_line(error)}") from None


@dataclass(frozen=True)
class RunState:
    """Everything that the future of a run depends on, except the replay's frames."""

    config: Config
    lineage: Lineage
    learner: LearnerState
    progress: Progress | None = None  # None before the first step
    replay: ReplayState | None = None  # inherited from another run; only before the first step
    demonstrations: list[Decisions] | None = None  # to be followed; only before the first step

    @classmethod
    def from_file(cls, content: dict[str, Any]) -> "RunState":
        """From the content of a file of any schema. The content may be changed.

        Raises:
            ValueError: names the field that is damaged.
            UserError: if the config is of another version.
        """
        del content["kind"]
        schema = content.pop("schema")
        try:
            for older, migrate in _MIGRATIONS.items():
                if schema <= older:
                    migrate(content)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise ValueError(f"its content is not that of schema {schema}: {error!r:.80}") from None
        config: Config = from_plain(Config, content.get("config"), "config")
        num_envs = config.exploration.num_envs
        sizes = {
            "num_envs": num_envs,
            "num_actions": len(action_names(config.env.action_set)),
            "n_step": config.learner.n_step,
            "slots": config.replay.replay_capacity // num_envs * num_envs,
        }
        state: RunState = from_plain(cls, content, sizes=sizes)
        with _inside("learner"):
            check_learner(config, state.learner)
        if state.progress is not None:
            with _inside("progress"):
                state.progress.check(config)
            with _inside("progress.trainer.rollout.exploration"):
                check_exploration(config, state.progress.trainer.rollout.exploration)
        return state

    def require_room(self) -> None:
        """Ask this before training: it counts on from the state, and files must hold the result.

        Raises:
            UserError: names a counter that is too near the greatest of `mario_rl.fields`.
        """
        trainer = self.progress.trainer if self.progress else None
        replay = trainer.replay if trainer else self.replay
        counters: dict[str, tuple[float, float]] = {
            "lineage.iteration": (self.lineage.iteration, _MAX_BEFORE_TRAINING),
            "lineage.parents": (len(self.lineage.parents), MAX_PARENTS),
            "learner.averaged_updates": (self.learner.averaged_updates, _MAX_BEFORE_TRAINING),
            "replay.rows_written": (replay.rows_written if replay else 0, _MAX_BEFORE_TRAINING),
        }
        if trainer is not None:
            counters |= {
                "env_steps": (trainer.env_steps, _MAX_BEFORE_TRAINING),
                "updates": (trainer.updates, _MAX_BEFORE_TRAINING),
                "episodes": (trainer.episodes, _MAX_BEFORE_TRAINING),
                "hours": (trainer.hours, _MAX_HOURS_BEFORE_TRAINING),
            }
        for name, (value, greatest) in counters.items():
            if value > greatest:
                raise UserError(
                    f"{name} is {value:,}, and a run that is trained may have at most {greatest:,}"
                )

    def check_frames(self, frames: list[tuple[int, np.ndarray]]) -> None:
        """
        Args:
            frames: the replay's, (first row, uint8 [rows, N, H, W]), oldest first.

        Raises:
            ValueError: if they are not those of the replay.
        """
        replay = self.progress.trainer.replay if self.progress else self.replay
        if replay is not None:
            with _inside("progress.trainer.replay" if self.progress else "replay"):
                config = self.config
                replay.check(config.exploration.num_envs, config.env.frame_shape, frames)


@contextmanager
def _inside(where: str) -> Iterator[None]:
    """Put the name of the field before the name of what is wrong in it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}.{error}") from None


def _to_schema_2(state: dict[str, Any]) -> None:
    """Updates run beside the games. Before, the policy acted with the newest weights, no update was
    pending, and no-op frames were part of the reset."""
    learner, progress = state["learner"], state["progress"]
    if progress is None:
        return
    learner.setdefault("acting_net", learner["online_net"])
    learner.setdefault("result", None)
    progress.setdefault("learning", np.zeros(0, dtype=np.int64))
    progress.setdefault("learning_since", 0)
    progress.setdefault("noops_left", np.zeros(len(progress["actions"]), dtype=np.int64))


def _to_schema_3(state: dict[str, Any]) -> None:
    """There are save points and held actions."""
    progress = state["progress"]
    if progress is None:
        return
    zeros = np.zeros(len(progress["actions"]), dtype=np.int64)
    rng = progress.pop("explore_rng")
    moved = ("noop_frames", "actions", "needs_reset", "noops_left", "episode_returns")
    progress["rollout"] = {
        **{name: progress.pop(name) for name in moved},
        "exploration": {"rng": rng, "actions": zeros, "steps_left": zeros},
        "saved": zeros.tolist(),
        "retries_left": zeros,
        "start": zeros.tolist(),
    }


def _to_schema_4(state: dict[str, Any]) -> None:
    """Each part of a run has a state, an update has its slots, and metrics have names."""
    learner, progress = state["learner"], state["progress"]
    result = learner.pop("result", None)
    if progress is None:
        return
    if progress["counters"]["best_evaluation"] is not None:
        progress["counters"]["best_evaluation"].pop("is_best", None)
    if result is not None:
        td_errors = np.asarray(result.pop("td_errors"))
        learner["update"] = {
            "slots": progress["learning"],
            "drawn_at": progress["learning_since"],
            "td_errors": td_errors,
            "metrics": {**result, "td_error": float(abs(td_errors).mean())},
        }
    names = ("loss", "td_error", "q_value", "grad_norm")
    metrics = zip(names, zip(*progress["results"], strict=True), strict=False)
    counters = progress["counters"]
    state["progress"] = {
        "trainer": {
            **{name: counters[name] for name in ("env_steps", "updates", "episodes", "furthest")},
            **{
                name: progress[name]
                for name in ("hours", "recent_returns", "sample_rng", "replay", "rollout", "n_step")
            },
            "metrics": {name: list(values) for name, values in metrics},
        },
        "evaluator": {
            "best": counters["best_evaluation"],
            "evaluated_at": counters["evaluated_at"],
        },
        "checkpointed_episodes": counters["checkpointed_episodes"],
        "records": progress["records"],
    }


# By the newest schema that needs it, in the order of application.
_MIGRATIONS: dict[int, Callable[[dict[str, Any]], None]] = {
    1: _to_schema_2,
    2: _to_schema_3,
    3: _to_schema_4,
}
