"""Train a variant of the agent: another view, reward and exploration, without touching the package.

python examples/train_variant.py variant
python examples/train_variant.py variant --resume
"""

import sys
from pathlib import Path

# The examples are no package.
sys.path.insert(0, str(Path(__file__).parent / "extensions"))

from boltzmann_exploration import Boltzmann
from coin_reward import CoinsToo
from edges_view import Edges

import mario_rl
from mario_rl.registry import EXPLORATIONS, REWARDS, VIEWS

# At the top level: the worker processes import this file, and need the parts as well.
VIEWS.add("edges", Edges)
REWARDS.add("coins-too", CoinsToo)
EXPLORATIONS.add("boltzmann", Boltzmann)

SETTINGS = {
    "stage": "1-1",
    "view": "edges",
    "reward": "coins-too",
    "exploration": "boltzmann",
    "eps_start": 0.5,  # the temperature
    "eps_end": 0.02,
    "max_steps": 400_000,
    "num_episodes": 1_000_000,
}

if __name__ == "__main__":
    name, *flags = sys.argv[1:]
    if flags == ["--resume"]:
        mario_rl.train(name, resume=True)
    else:
        mario_rl.train(name, **SETTINGS)
