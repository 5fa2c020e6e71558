"""The configuration of a run.

Each field is declared once, here, and is at the same time a command-line flag (`eps_start` is
`--eps-start`), a line of `--help`, a checked value and an entry of `config.json`. The reasons for
the defaults are in docs/flags.md.
"""

from collections.abc import Iterator
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any

from mario_rl.errors import UserError, shown
from mario_rl.fields import Matching
from mario_rl.registry import (
    BACKENDS,
    EMULATORS,
    EXPLORATIONS,
    LEARNERS,
    LOSSES,
    REWARDS,
    TRACKERS,
    VIEWS,
)
from mario_rl.settings import Binding, check, require, setting

STAGES = tuple(f"{world}-{stage}" for world in range(1, 9) for stage in range(1, 5))
FULL_GAME = "full"

STACK = 4  # frames in an observation (Mnih et al. 2015)

# The protocol by which policies are judged
EVALUATION_EPSILON = 0.01
# That of gym-super-mario-bros. Evaluations in training play where the run trains.
EVALUATION_EMULATOR = "nes-py"
MAX_NOOP_FRAMES = 30


@dataclass(frozen=True)
class EnvConfig:
    """Game"""

    stage: str = setting(
        FULL_GAME,
        "the stage to play; in the full game, play continues into the next stage after a flag",
        binds="replay",
        choices=(FULL_GAME, *STAGES),
    )
    emulator: str = setting(
        "auto",
        "the emulator of the training: fceumm, four times as fast; nes-py, that of "
        "gym-super-mario-bros; auto takes fceumm if stable-retro is installed",
        binds="run",
        choices=EMULATORS,
        before="nes-py",
    )
    action_set: str = setting(
        "simple",
        "the actions of the agent: right (5 actions), simple (7) or complex (12)",
        binds="weights",
        choices=("right", "simple", "complex"),
    )
    view: str = setting(
        "mario",
        "the part of the screen that the agent sees: mario, the surroundings of Mario, with him "
        "always in the same place; or screen, the whole screen",
        binds="weights",
        choices=VIEWS,
        before="screen",
    )
    frame_size: int = setting(
        42,
        "height and width of the picture that the agent sees, a multiple of 21; Mnih et al. 2015 "
        "have 84",
        binds="weights",
        unit="pixels",
        interval="[21, 168]",
        before=84,
    )
    pixels: str = setting(
        "red",
        "the brightness of a pixel: red, its red channel, in which Mario and enemies stand out; or "
        "grey, its luminance",
        binds="weights",
        choices=("red", "grey"),
        before="grey",
    )
    show_buttons: bool = setting(
        True,
        "show the agent, at the top of the picture, whether A and B are held",
        binds="weights",
        before=False,
    )
    reward: str = setting("progress", "the reward", binds="replay", choices=REWARDS)
    death_penalty: float = setting(
        10.0,
        "subtracted from the reward at a death; ten pixels of progress earn 1",
        binds="replay",
        interval="[0, inf)",
        before=2.5,
    )
    stall_steps: int = setting(
        150,
        "an episode ends after this long without a new furthest x",
        binds="run",
        unit="env steps",
        interval="[1, inf)",
    )

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Height and width of a frame. An observation is uint8 [STACK, *frame_shape]."""
        return self.frame_size, self.frame_size


@dataclass(frozen=True)
class ExplorationConfig:
    """Exploration"""

    num_envs: int = setting(
        8, "games played side by side", binds="replay", unit="environments", interval="[1, 256]"
    )
    exploration: str = setting(
        "epsilon-greedy", "the exploration scheme", binds="run", choices=EXPLORATIONS
    )
    eps_start: float = setting(
        1.0,
        "epsilon at the start of the run: the probability that a random action begins",
        binds="run",
        interval="[0, 1]",
    )
    eps_end: float = setting(0.02, "epsilon after its decay", binds="run", interval="[0, 1]")
    eps_decay: int = setting(
        50_000,
        "epsilon falls linearly from --eps-start to --eps-end over this long",
        binds="run",
        unit="env steps",
        interval="[1, inf)",
    )
    eps_ladder: float = setting(
        7.0,
        "spread of epsilon over the games: game i of N has epsilon ** (1 + this * i / (N - 1)), "
        "but at least 0.01, or epsilon if that is less; 0: all games have the same",
        binds="run",
        interval="[0, 100]",
        before=0.0,
    )
    hold_actions: bool = setting(
        True,
        "hold each random action for a random number of env steps (1 to 32, 3 on average)",
        binds="run",
        before=False,
    )
    retry_share: float = setting(
        0.5,
        "share of the games that continue from their last save point after a death; a save point "
        "is made every 160 pixels; the other games start the stage again",
        binds="run",
        interval="[0, 1]",
        before=0.0,
    )
    demos: str = setting(
        "none",
        "files of demonstrations, separated by commas: the games that continue from save points "
        "begin somewhere along one of them",
        binds="run",
        matching=Matching(r"none|.+\.json", "none, or files that end in .json"),
    )

    @property
    def num_retrying(self) -> int:
        """How many of the games, the first ones, continue from save points."""
        return int(self.retry_share * self.num_envs)


@dataclass(frozen=True)
class ReplayConfig:
    """Replay (Schaul et al. 2016)"""

    replay_capacity: int = setting(
        100_000,
        "transitions kept; rounded down to a multiple of --num-envs",
        binds="replay",
        unit="transitions",
        interval="[1, inf)",
    )
    priority_exponent: float = setting(
        0.6,
        "how strongly transitions with large errors are preferred; 0: all alike",
        binds="run",
        interval="[0, 1]",
    )
    importance_exponent: float = setting(
        0.4,
        "correction of the sampling bias at the start; it grows linearly to 1",
        binds="run",
        interval="[0, 1]",
    )
    importance_steps: int = setting(
        200_000,
        "the correction reaches 1 after this long",
        binds="run",
        unit="env steps",
        interval="[1, inf)",
    )


@dataclass(frozen=True)
class LearnerConfig:
    """Learning"""

    learner: str = setting("dqn", "the learning algorithm", binds="weights", choices=LEARNERS)
    loss: str = setting("huber", "the loss of the TD errors", binds="run", choices=LOSSES)
    batch_size: int = setting(
        256, "transitions in one update", binds="run", unit="transitions", interval="[1, 65536]"
    )
    learning_rate: float = setting(
        0.0001, "Adam's learning rate at the start", binds="run", interval="(0, 1]"
    )
    lr_decay: int = setting(
        400_000,
        "length of the learning rate's schedule: constant for the first half, then a linear fall "
        "to a tenth; 0: constant",
        binds="run",
        unit="env steps",
        interval="[0, inf)",
        before=0,
    )
    gamma: float = setting(0.97, "discount of one env step", binds="replay", interval="[0, 1)")
    reward_scale: float = setting(
        0.03,
        "factor of all rewards before they are learned from, and the TD error at which the "
        "quantile Huber loss changes from square to linear",
        binds="weights",
        interval="(0, inf)",
        before=1.0,
    )
    n_step: int = setting(
        10,
        "rewards summed before the value of the next state is added",
        binds="run",
        unit="env steps",
        interval="[1, 32]",
    )
    replay_ratio: float = setting(
        24.0,
        "transitions learned from for each env step",
        binds="run",
        unit="transitions/env step",
        interval="(0, 1024]",
    )
    learning_starts: int = setting(
        5_000,
        "learning begins after this long",
        binds="run",
        unit="env steps",
        interval="[1, inf)",
    )
    double_q: bool = setting(
        False,
        "double Q-learning (van Hasselt et al. 2016): the online network chooses the action whose "
        "value the target network tells",
        binds="run",
        before=True,
    )
    target_period: int = setting(
        2_000,
        "the target network is updated this often",
        binds="run",
        unit="env steps",
        interval="[1, inf)",
    )
    network_width: float = setting(
        0.5,
        "size of the network: channels and units as a multiple of those of Mnih et al. 2015",
        binds="weights",
        interval="(0, 4]",
        before=1.0,
    )
    num_quantiles: int = setting(
        32,
        "quantiles of the return learned for each action (Dabney et al. 2018); 1: only its mean",
        binds="weights",
        unit="quantiles",
        interval="[1, 256]",
        before=1,
    )
    max_grad_norm: float = setting(
        10.0, "gradients are clipped to this norm", binds="run", interval="(0, inf)"
    )


@dataclass(frozen=True)
class EvaluationConfig:
    """Evaluation"""

    eval_interval: int = setting(
        20_000,
        "the policy is evaluated this often",
        binds="run",
        unit="env steps",
        interval="[1, inf)",
    )
    eval_episodes: int = setting(
        20,
        "games of an evaluation; a policy that may be the best yet plays four times as many again",
        binds="run",
        unit="episodes",
        interval="[1, 10000]",
    )


@dataclass(frozen=True)
class RunConfig:
    """Budget and machine"""

    num_episodes: int = setting(
        10_000,
        "the run ends after this many",
        binds="machine",
        unit="episodes",
        interval="[1, inf)",
    )
    max_steps: int | None = setting(
        None, "... or after this many", binds="machine", unit="env steps", interval="[1, inf)"
    )
    max_hours: float | None = setting(
        None,
        "... or after this much training time",
        binds="machine",
        unit="hours",
        interval="(0, inf)",
    )
    checkpoint_interval: int = setting(
        100,
        "a checkpoint, from which the run can be resumed, is saved this often",
        binds="machine",
        unit="episodes",
        interval="[1, inf)",
    )
    record_best: bool = setting(
        True, "record a game of each new best model as a video in videos/", binds="machine"
    )
    track: str = setting(
        "none",
        "also show the run in a tracker: wandb, trackio or mlflow, which are installed separately",
        binds="machine",
        choices=TRACKERS,
    )
    games: str = setting(
        "workers",
        "where the games run: workers, in processes on all cores; or serial, one after the other "
        "in the trainer's process",
        binds="machine",
        choices=BACKENDS,
    )
    ray: str = setting(
        "none",
        "play the games on the nodes of a Ray cluster: its address, such as 10.0.0.1:6379; local, "
        "for a cluster of this machine alone; or none",
        binds="machine",
        matching=Matching(r"none|local|[\w.:-]+:[0-9]{1,5}", "HOST:PORT, local or none"),
    )
    device: str = setting(
        "auto",
        "where the network computes; auto takes a GPU if there is one",
        binds="machine",
        choices=("auto", "cpu", "cuda", "mps"),
    )
    threads: int = setting(
        0,
        "threads of PyTorch on the CPU; 0: as many as are fastest, measured when the run begins",
        binds="machine",
        unit="threads",
        interval="[0, 1024]",
    )
    precision: str = setting(
        "auto",
        "arithmetic of the convolutions; auto takes bfloat16 if the hardware is faster in it",
        binds="machine",
        choices=("auto", "float32", "bfloat16"),
    )
    gpu_memory_fraction: float = setting(
        0.8, "share of the GPU's memory that the run may use", binds="machine", interval="(0, 1]"
    )
    deterministic: bool = setting(
        False,
        "make a GPU compute the same bits every time, which is slower; a CPU always does",
        binds="machine",
    )
    seed: int = setting(
        0,
        "seed of all random numbers; on a CPU the same settings and seed give the same run",
        binds="run",
        interval="[0, 4294967295]",
    )


@dataclass(frozen=True)
class Config:
    """All of a run's settings. Constructing one validates it.

    Raises:
        UserError: names the flag, its value and the allowed range.
    """

    env: EnvConfig = field(default_factory=EnvConfig)
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        for group, item in settings():
            check(item, getattr(getattr(self, group), item.name))
        require(
            self.env.frame_size % 21 == 0,
            f"--frame-size {self.env.frame_size}: must be a multiple of 21",
        )
        require(
            self.exploration.eps_end <= self.exploration.eps_start,
            f"--eps-end {self.exploration.eps_end:g}: must be at most --eps-start "
            f"({self.exploration.eps_start:g})",
        )
        require(
            self.learner.learning_starts >= self.learner.batch_size,
            f"--learning-starts {self.learner.learning_starts}: must be at least --batch-size "
            f"({self.learner.batch_size})",
        )
        require(
            self.exploration.demos == "none" or self.exploration.num_retrying > 0,
            f"--demos {shown(self.exploration.demos)}: --retry-share "
            f"{self.exploration.retry_share:g} leaves no game that would follow them",
        )
        complete = self.exploration.num_envs * (self.learner.n_step + 1)
        require(
            self.learner.learning_starts >= complete,
            f"--learning-starts {self.learner.learning_starts}: must be at least --num-envs * "
            f"(--n-step + 1) ({complete}), when the first transitions are complete",
        )
        require(
            self.replay.replay_capacity >= self.learner.learning_starts,
            f"--replay-capacity {self.replay.replay_capacity}: must be at least --learning-starts "
            f"({self.learner.learning_starts})",
        )
        smallest = 64 * self.exploration.num_envs
        require(
            self.replay.replay_capacity >= smallest,
            f"--replay-capacity {self.replay.replay_capacity}: must be at least 64 for each of "
            f"the --num-envs games ({smallest})",
        )

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Nested primitives, one dictionary for each group of settings."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Config":
        """The inverse of `to_dict`. A setting that is missing did not exist yet: it gets `before`.

        Raises:
            UserError: for a setting that this version does not know, or a bad value.
        """
        if not isinstance(values, dict):
            raise UserError("config: not a dictionary")
        parts = {}
        for part in fields(cls):
            group_type = part.default_factory
            given = values.get(part.name, {})
            before = {item.name: item.metadata["before"] for item in fields(group_type)}  # type: ignore[arg-type]
            if not isinstance(given, dict):
                raise UserError(f"config: {part.name} is {shown(given)}, and must be a dictionary")
            if unknown := given.keys() - before.keys():
                names = ", ".join(sorted(map(shown, unknown)))
                raise UserError(f"config: unknown settings in {part.name!r}: {names:.200}")
            if given.get("threads", 0) is None:  # from before they were measured
                given = {**given, "threads": 0}
            parts[part.name] = group_type(**{**before, **given})  # type: ignore[operator,misc]
        if unknown := set(values) - set(parts):
            raise UserError(f"config: unknown groups {sorted(map(str, unknown))}")
        return cls(**parts)

    def replaced(self, changes: dict[str, Any]) -> "Config":
        """A copy with some settings changed, by their flat names (`{"gamma": 0.95}`).

        Raises:
            UserError: for a name or a value that does not exist.
        """
        values = self.to_dict()
        if unknown := changes.keys() - self.flat().keys():
            raise UserError(f"there is no setting {min(unknown)!r}")
        for group, item in settings():
            if item.name in changes:
                values[group][item.name] = changes[item.name]
        return Config.from_dict(values)

    def flat(self) -> dict[str, Any]:
        """Every setting by its flat name."""
        return {item.name: getattr(getattr(self, group), item.name) for group, item in settings()}


def settings() -> Iterator[tuple[str, Field[Any]]]:
    """Every setting as (name of its group in Config, dataclass field)."""
    for part in fields(Config):
        for item in fields(part.default_factory):  # type: ignore[arg-type]
            yield part.name, item


def bound(*bindings: Binding) -> list[str]:
    """The names of the settings that bind one of these."""
    return [item.name for _, item in settings() if item.metadata["binds"] in bindings]
