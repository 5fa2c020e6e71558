"""The configuration of a run.

Each field is declared once, here, and is at the same time a command-line flag (`eps_start` is
`--eps-start`), a line of `--help`, a validated value and an entry of `config.json`.
"""

import types
import typing
from collections.abc import Iterator
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any

from mario_rl.errors import UserError

STAGES = tuple(f"{world}-{stage}" for world in range(1, 9) for stage in range(1, 5))
FULL_GAME = "full"

# An observation is a stack of frames, uint8 [STACK, 84, 84] (Mnih et al. 2015).
FRAME_SHAPE = (84, 84)
STACK = 4

# Of the protocol by which policies are judged.
EVALUATION_EPSILON = 0.01
MAX_NOOP_FRAMES = 30


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    interval: str = "",
    choices: tuple[str, ...] = (),
    before: Any = None,
) -> Any:
    """A dataclass field with what its flag needs: help, unit and the allowed values.

    `interval` is written as in mathematics, such as "(0, 1]" or "[1, inf)". `before`, if not the
    default, is the value that stands for what runs did before there was this setting.
    """
    metadata = {
        "help": help,
        "unit": unit,
        "interval": interval,
        "choices": choices,
        "before": default if before is None else before,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class EnvConfig:
    """Game"""

    stage: str = setting(
        FULL_GAME,
        "the stage to play, or the full game, where play runs on into the next stage after a flag",
        choices=(FULL_GAME, *STAGES),
    )
    action_set: str = setting(
        "simple",
        "buttons the agent may press: right (5 actions), simple (7), complex (12)",
        choices=("right", "simple", "complex"),
    )
    view: str = setting(
        "mario",
        "what the agent sees: mario, what is around him, with him always in the same place, so "
        "that it need not learn anew for each place what an enemy beside him means; or screen, all",
        choices=("mario", "screen"),
        before="screen",
    )
    pixels: str = setting(
        "red",
        "what becomes of the colours: red, in which Mario and what moves stand out, or grey, in "
        "which they are nearly as bright as the sky",
        choices=("red", "grey"),
        before="grey",
    )
    show_buttons: bool = setting(
        True,
        "the agent sees, at the top of the picture, whether A and B are held",
        before=False,
    )
    death_penalty: float = setting(
        10.0,
        "what a death costs, where running ten pixels earns 1",
        interval="[0, inf)",
        before=2.5,
    )
    stall_steps: int = setting(
        150,
        "an episode is cut off after this long without a new furthest x",
        unit="env steps",
        interval="[1, inf)",
    )


@dataclass(frozen=True)
class ExplorationConfig:
    """Exploration"""

    num_envs: int = setting(
        8, "games played side by side", unit="environments", interval="[1, 256]"
    )
    eps_start: float = setting(
        1.0,
        "epsilon, the probability to begin a random action, at the start of the run",
        interval="[0, 1]",
    )
    eps_end: float = setting(0.02, "epsilon after its decay", interval="[0, 1]")
    eps_decay: int = setting(
        50_000,
        "epsilon falls linearly from --eps-start to --eps-end over this long",
        unit="env steps",
        interval="[1, inf)",
    )
    eps_ladder: float = setting(
        7.0,
        "game i explores with epsilon ** (1 + this * i / (--num-envs - 1)), but as long as epsilon "
        "is with no less than evaluations do (0.01); 7 as in Horgan et al. 2018; 0: all alike",
        interval="[0, 100]",
        before=0.0,
    )
    hold_actions: bool = setting(
        True,
        "random actions are held for a random number of env steps, mostly few, some many, 3 in the "
        "mean: so much more than epsilon is the share of random env steps",
        before=False,
    )
    retry_share: float = setting(
        0.5,
        "share of the games, rounded down, those with the largest epsilons, that begin an episode "
        "at their last save point, not at the start, unless the one before cleared the stage; save "
        "points are where Mario stands on the ground every 160 pixels",
        interval="[0, 1]",
        before=0.0,
    )

    @property
    def num_retrying(self) -> int:
        """How many of the games, the first, go on from save points."""
        return int(self.retry_share * self.num_envs)


@dataclass(frozen=True)
class ReplayConfig:
    """Replay (Schaul et al. 2016)"""

    replay_capacity: int = setting(
        100_000,
        "transitions kept; rounded down to a multiple of --num-envs",
        unit="transitions",
        interval="[1, inf)",
    )
    priority_exponent: float = setting(
        0.6, "how strongly large errors are preferred; 0 samples uniformly", interval="[0, 1]"
    )
    importance_exponent: float = setting(
        0.4, "initial correction of the sampling bias; it grows linearly to 1", interval="[0, 1]"
    )
    importance_steps: int = setting(
        200_000,
        "how long the correction takes to reach 1",
        unit="env steps",
        interval="[1, inf)",
    )


@dataclass(frozen=True)
class LearnerConfig:
    """Learning"""

    batch_size: int = setting(
        256, "transitions in one update", unit="transitions", interval="[1, 65536]"
    )
    learning_rate: float = setting(0.0001, "Adam's step size at the start", interval="(0, 1]")
    lr_decay: int = setting(
        400_000,
        "Adam's step size stays for half of this long, and falls to a tenth in the other half: "
        "large steps make a good policy come and go; 0: it stays",
        unit="env steps",
        interval="[0, inf)",
        before=0,
    )
    gamma: float = setting(
        0.97,
        "discount of one env step; 0.97 because at 0.9 what comes later does not make up for a "
        "run-up that it takes: 1-3 was not cleared with it; at 0.99 learning is slow to begin",
        interval="[0, 1)",
    )
    reward_scale: float = setting(
        0.03,
        "rewards are multiplied by this before they are learned from; 0.03 because Adam's small "
        "steps take long to reach large Q-values",
        interval="(0, inf)",
        before=1.0,
    )
    n_step: int = setting(
        10,
        "rewards summed before bootstrapping; 10, so that what is learned of a jump that fails "
        "comes from the fall itself, not from what the next state seems worth",
        unit="env steps",
        interval="[1, 32]",
    )
    replay_ratio: float = setting(
        24.0,
        "transitions learned from for each env step; Mnih et al. 2015: 8; more learns from fewer "
        "games, and 24 keeps two CPU cores as busy as the games do",
        unit="transitions/env step",
        interval="(0, 1024]",
    )
    learning_starts: int = setting(
        5_000, "first update after this long", unit="env steps", interval="[1, inf)"
    )
    target_period: int = setting(
        2_000, "the target network is renewed this often", unit="env steps", interval="[1, inf)"
    )
    network_width: float = setting(
        0.5,
        "channels and units of the network, as a multiple of those of Mnih et al. 2015; half of "
        "them learn three times as fast on a CPU",
        interval="(0, 4]",
        before=1.0,
    )
    num_quantiles: int = setting(
        32,
        "quantiles of the return that are learned for each action, as in QR-DQN (Dabney et al. "
        "2018); 1: only its mean",
        unit="quantiles",
        interval="[1, 256]",
        before=1,
    )
    max_grad_norm: float = setting(10.0, "gradients are clipped to this norm", interval="(0, inf)")


@dataclass(frozen=True)
class EvaluationConfig:
    """Evaluation"""

    eval_interval: int = setting(
        20_000, "the policy is evaluated this often", unit="env steps", interval="[1, inf)"
    )
    eval_episodes: int = setting(
        20,
        "games of one evaluation, and five times as many for a policy that cleared something and, "
        "by the interval of what it clears, may be the best, lest luck choose the model",
        unit="episodes",
        interval="[1, 10000]",
    )


@dataclass(frozen=True)
class RunConfig:
    """Budget and machine"""

    num_episodes: int = setting(
        10_000, "the run ends after this many", unit="episodes", interval="[1, inf)"
    )
    max_steps: int | None = setting(
        None, "... or after this many", unit="env steps", interval="[1, inf)"
    )
    max_hours: float | None = setting(
        None, "... or after this much training time", unit="hours", interval="(0, inf)"
    )
    checkpoint_interval: int = setting(
        100, "a resumable state is saved this often", unit="episodes", interval="[1, inf)"
    )
    device: str = setting("auto", "where the networks live", choices=("auto", "cpu", "cuda", "mps"))
    precision: str = setting(
        "auto",
        "arithmetic of the convolutions; auto takes bfloat16 where the hardware is faster in it",
        choices=("auto", "float32", "bfloat16"),
    )
    gpu_memory_fraction: float = setting(
        0.8, "share of the GPU's memory that the run may use", interval="(0, 1]"
    )
    deterministic: bool = setting(
        False,
        "let a GPU compute the same bits every time, which is slower; a CPU always does",
    )
    seed: int = setting(
        0, "a run on the CPU is a function of its config and this", interval="[0, 4294967295]"
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
            _check(item, getattr(getattr(self, group), item.name))
        _require(
            self.exploration.eps_end <= self.exploration.eps_start,
            f"--eps-end {self.exploration.eps_end:g}: must be at most --eps-start "
            f"({self.exploration.eps_start:g})",
        )
        _require(
            self.learner.learning_starts >= self.learner.batch_size,
            f"--learning-starts {self.learner.learning_starts}: must be at least --batch-size "
            f"({self.learner.batch_size})",
        )
        complete = self.exploration.num_envs * (self.learner.n_step + 1)
        _require(
            self.learner.learning_starts >= complete,
            f"--learning-starts {self.learner.learning_starts}: must be at least --num-envs * "
            f"(--n-step + 1) ({complete}), when the first transitions are complete",
        )
        _require(
            self.replay.replay_capacity >= self.learner.learning_starts,
            f"--replay-capacity {self.replay.replay_capacity}: must be at least --learning-starts "
            f"({self.learner.learning_starts})",
        )
        smallest = 64 * self.exploration.num_envs
        _require(
            self.replay.replay_capacity >= smallest,
            f"--replay-capacity {self.replay.replay_capacity}: must be at least 64 for each of "
            f"the --num-envs games ({smallest})",
        )

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Nested primitives, one dictionary for each group of settings."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Config":
        """The inverse of `to_dict`. A missing setting is one that there was not yet.

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
            if not isinstance(given, dict) or not before.keys() >= given.keys():
                raise UserError(f"config: unknown settings in {part.name!r}: {given!r:.200}")
            parts[part.name] = group_type(**{**before, **given})  # type: ignore[operator,misc]
        if unknown := set(values) - set(parts):
            raise UserError(f"config: unknown groups {sorted(map(str, unknown))}")
        return cls(**parts)

    def replaced(self, changes: dict[str, Any]) -> "Config":
        """A copy with some settings changed, by their flat names (`{"gamma": 0.95}`)."""
        values = self.to_dict()
        assert set(changes) <= set(self.flat()), changes
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


def flag_of(name: str) -> str:
    """`eps_start` -> `--eps-start`."""
    return "--" + name.replace("_", "-")


def value_type(item: Field[Any]) -> type:
    """int, float, str or bool; of an optional setting, the type when it is given."""
    if isinstance(item.type, types.UnionType):
        return next(t for t in typing.get_args(item.type) if t is not type(None))
    assert isinstance(item.type, type)
    return item.type


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)


def _check(item: Field[Any], value: Any) -> None:
    """Raise UserError unless `value` has the type and lies in the range that the field declares."""
    if value is None and item.default is None:
        return
    flag, kind = flag_of(item.name), value_type(item)
    accepted = (int, float) if kind is float else (kind,)
    if type(value) not in accepted:  # a bool is no number here
        raise UserError(f"{flag} {value!r:.80}: must be of type {kind.__name__}")
    if choices := item.metadata["choices"]:
        _require(value in choices, f"{flag} {value!r:.80}: choose from {', '.join(choices)}")
    if interval := item.metadata["interval"]:
        _require(contains(interval, value), f"{flag} {value}: must be in {interval}")


def contains(interval: str, value: float) -> bool:
    """Whether a value lies in an interval written as in "(0, 1]"; NaN lies in none."""
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    above = value >= low if interval[0] == "[" else value > low
    below = value <= high if interval[-1] == "]" else value < high
    return above and below
