"""Which run this is, and which models it descends from: in models, checkpoints and run.json."""

from dataclasses import dataclass, field
from typing import Annotated

from mario_rl.fields import Items, Number, Positive, RunId, RunName, Share

MAX_PARENTS = 10_000  # reading them takes a second


@dataclass(frozen=True)
class Parent:
    """A model that a run descends from."""

    run_name: RunName
    iteration: Number
    clear_rate: Share
    mean_x: Positive  # pixels
    mean_stages_cleared: Positive | None = None  # None in older files
    run_id: RunId | None = None  # None for a run of an older version


@dataclass(frozen=True)
class Lineage:
    """Which run this is, and the models that it descends from.

    A name can be given to another run, and a run can be renamed. The id stays: 32 random hex
    digits, made with the run. Training does not depend on it.
    """

    iteration: Number = 1
    # Oldest first
    parents: Annotated[list[Parent], Items(f"[0, {MAX_PARENTS}]")] = field(default_factory=list)
    run_id: RunId | None = None  # None: an older version began the run, whoever resumed it
