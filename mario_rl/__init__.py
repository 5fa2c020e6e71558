"""Train, continue, compare and evaluate a Dueling DQN on Super Mario Bros., from Python.

import gymnasium
import mario_rl

policy = mario_rl.load("1-1")               # a shipped model, or a file from models/
env = mario_rl.make_env(policy)             # the game as this policy sees it
obs, info = env.reset(seed=0)
obs, reward, terminated, truncated, info = env.step(policy.act(obs))

run = mario_rl.read_run("first")            # what a run recorded, as data frames
mario_rl.train("second", stage="1-1", max_steps=100_000)

env = gymnasium.make("mario_rl:SuperMarioBros-1-1-v0", frame_stack=4)    # for other agents
"""

from typing import TYPE_CHECKING, Any

import gymnasium

from mario_rl.config import FULL_GAME, STAGES

if TYPE_CHECKING:
    from mario_rl.agent.policy import Policy
    from mario_rl.api import load, make_env, read_run, train
    from mario_rl.errors import UserError
    from mario_rl.games.gymnasium_env import SuperMarioBros
    from mario_rl.reports.recorded_runs import RecordedRun

__version__ = "1.0.0"

__all__ = [
    "Policy", "RecordedRun", "SuperMarioBros", "UserError", "load", "make_env", "read_run", "train",
]  # fmt: skip

# The names are those of gym-super-mario-bros, which also registers them in Gymnasium on Python
# 3.13. If both packages are imported, the last one has the names.
for _stage in (FULL_GAME, *STAGES):
    _name = "SuperMarioBros-v0" if _stage == FULL_GAME else f"SuperMarioBros-{_stage}-v0"
    gymnasium.registry.pop(_name, None)
    gymnasium.register(
        _name,
        entry_point="mario_rl.games.gymnasium_env:SuperMarioBros",
        kwargs={"stage": _stage},
    )


def __getattr__(name: str) -> Any:
    """The worker processes import this file, too, and should not wait for PyTorch and pandas."""
    if name in __all__:
        from mario_rl import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
