"""A page that says what a model is, made from the model's own record."""

from mario_rl.agent.saved_model import SavedModel
from mario_rl.config import EVALUATION_EPSILON, FULL_GAME, MAX_NOOP_FRAMES, STACK, Config
from mario_rl.games.actions import action_names
from mario_rl.settings import flag_of


def model_card(model: SavedModel) -> str:
    """Markdown, with the metadata of the Hugging Face Hub at its top."""
    stage, evaluation = model.config.env.stage, model.evaluation
    game = "the full game" if stage == FULL_GAME else f"World {stage}"
    height, width = model.config.env.frame_shape
    names = action_names(model.config.env.action_set)
    cleared = (
        f"{evaluation.clears} of {evaluation.eval_episodes} ({evaluation.clear_rate:.0%}, "
        f"95 % interval {evaluation.interval()})"
    )
    training = (
        f"{evaluation.env_steps:,} decisions of 4 frames, {evaluation.updates:,} updates, "
        f"{evaluation.hours:.1f} hours"
    )
    return f"""---
library_name: mario-rl
license: mit
tags: [reinforcement-learning, super-mario-bros, dqn, mario-rl]
---

# {model.run_name}: {game} of Super Mario Bros.

A policy that Mario RL trained: a dueling network
that learns quantiles of the return from prioritized replay.

| | |
| --- | --- |
| stage | {stage} |
| games cleared | {cleared} |
| mean furthest x | {evaluation.mean_x:,.0f} px |
| trained for | {training} |
| iteration | {model.lineage.iteration} |

The games are greedy play with epsilon {EVALUATION_EPSILON}, each after 0 to {MAX_NOOP_FRAMES}
no-op frames. If they chose this model among others, a part of the figure is luck; `eval_mario.py`
measures it by others.

## Use

    python eval_mario.py --model-path THIS_FOLDER --episodes 100

```python
import mario_rl
policy = mario_rl.load("THIS_FOLDER")
env = mario_rl.make_env(policy)
```

`model.onnx`, if it is here, takes `obs`, uint8 [batch, {STACK}, {height}, {width}], the oldest
frame first, and returns `q_values`, float32 [batch, {len(names)}], of the actions
{", ".join(names)}.

## How it was trained

{_ancestors(model)}The settings that are not the default:

{_settings(model.config)}

## Licence

The weights are under the MIT licence. The game is not part of them: its cartridge belongs to
Nintendo, and gym-super-mario-bros and stable-retro have licences of their own.
"""


def _ancestors(model: SavedModel) -> str:
    parents = model.lineage.parents
    if not parents:
        return ""
    rows = "".join(
        f"| {one.iteration} | {one.run_name} | {one.clear_rate:.0%} | {one.mean_x:,.0f} |\n"
        for one in parents
    )
    return (
        "It descends from these models:\n\n| iteration | run | clear rate | mean x |\n"
        f"| --- | --- | --- | --- |\n{rows}\n"
    )


def _settings(config: Config) -> str:
    default = Config().flat()
    lines = [
        f"    {flag_of(name)} {value}"
        for name, value in config.flat().items()
        if value != default[name]
    ]
    return "\n".join(lines) or "    none"
