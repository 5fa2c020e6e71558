"""What a checkpoint holds, and how files of older versions are converted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mario_rl.agent.learner import LearnerState
from mario_rl.agent.saved_model import Lineage, SavedModel
from mario_rl.config import Config
from mario_rl.replay.prioritized import ReplayState
from mario_rl.storage.plain import from_plain
from mario_rl.training.evaluator import EvaluatorState
from mario_rl.training.trainer import TrainerState


@dataclass(frozen=True)
class Progress:
    """What has happened in a run."""

    trainer: TrainerState
    evaluator: EvaluatorState
    checkpointed_episodes: int  # the number of episodes at the newest checkpoint
    # What the CSV files held, uint8 [bytes] by file name. Schema 1 had only their sizes.
    records: dict[str, Any]
    unwritten_model: SavedModel | None = None  # the best, if its file could not be written


@dataclass(frozen=True)
class RunState:
    """Everything that the future of a run depends on, except the replay's frames."""

    config: Config
    lineage: Lineage
    learner: LearnerState
    progress: Progress | None = None  # None before the first step
    replay: ReplayState | None = None  # inherited from another run; only before the first step

    @classmethod
    def from_file(cls, content: dict[str, Any]) -> "RunState":
        """From the content of a file of any schema. The content may be changed.

        Raises:
            KeyError, TypeError, ValueError: if it is damaged.
        """
        del content["kind"]
        schema = content.pop("schema")
        for older, migrate in _MIGRATIONS.items():
            if schema <= older:
                migrate(content)
        state: RunState = from_plain(cls, content)
        return state


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
