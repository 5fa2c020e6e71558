"""Which models a run descends from. Models, checkpoints and run.json say it alike."""

from dataclasses import dataclass, field

from mario_rl.fields import Number, Positive, RunName, Share


@dataclass(frozen=True)
class Parent:
    """A model that a run descends from."""

    run_name: RunName
    iteration: Number
    clear_rate: Share
    mean_x: Positive  # pixels
    mean_stages_cleared: Positive | None = None  # None in older files


@dataclass(frozen=True)
class Lineage:
    """The models that a run descends from."""

    iteration: Number = 1
    parents: list[Parent] = field(default_factory=list)  # oldest first
