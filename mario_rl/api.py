"""The functions and classes of `import mario_rl`."""

import multiprocessing
import sys
from pathlib import Path
from typing import Any

from mario_rl.agent.policy import Policy, load
from mario_rl.config import STACK
from mario_rl.console import tell
from mario_rl.errors import UserError
from mario_rl.games.gymnasium_env import SuperMarioBros
from mario_rl.reports.recorded_runs import RecordedRun, read_run
from mario_rl.storage.paths import RunPaths
from mario_rl.training import lifecycle

__all__ = [
    "Policy", "RecordedRun", "SuperMarioBros", "UserError", "load", "make_env", "read_run", "train",
]  # fmt: skip


def make_env(policy: Policy, **arguments: Any) -> SuperMarioBros:
    """The game as a policy sees it: with its stage, actions, view, reward and frame stack.

    Args:
        arguments: of `SuperMarioBros`, such as render_mode="human", or another stage.
    """
    settings = vars(policy.config.env)
    return SuperMarioBros(**{**settings, "frame_stack": STACK, **arguments})


def train(
    run_name: str, output_dir: str | Path = ".", *, resume: bool = False, **settings: Any
) -> None:
    """Train an agent, as progressive_mario_trainer.py does: until the budget is spent, or Ctrl-C.

    In a script, call it under `if __name__ == "__main__":`; the worker processes import the script.

    Args:
        settings: the flags of the script, such as stage="1-1", max_steps=100_000.

    Raises:
        UserError: for a setting that does not exist or is out of range, and for every other
            mistake that the caller can correct.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(
            'mario_rl.train: put the call under `if __name__ == "__main__":`, because the worker '
            "processes import your script, too"
        )
    lifecycle.train(RunPaths(output_dir, run_name), settings, resume, tell)
