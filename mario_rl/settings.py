"""How a setting is declared: one dataclass field is a flag, a line of help and a checked value."""

import types
import typing
from collections.abc import Mapping
from dataclasses import Field, field
from types import MappingProxyType
from typing import Any, Literal

from mario_rl.errors import UserError, shown
from mario_rl.fields import Matching, matches
from mario_rl.registry import Registry

# What becomes invalid when a setting changes:
#   weights  the network: what it sees, its size, what its outputs mean
#   replay   the stored transitions, but not the weights
#   run      neither; a run keeps it, and the next iteration may change it
#   machine  nothing: the budget and the use of the machine, which a resume may change
Binding = Literal["weights", "replay", "run", "machine"]


def setting(
    default: Any,
    help: str,
    *,
    binds: Binding,
    unit: str = "",
    interval: str = "",
    choices: tuple[str, ...] | Registry = (),
    matching: Matching | None = None,
    before: Any = None,
) -> Any:
    """A dataclass field with all that its flag needs.

    Args:
        binds: what depends on its value.
        interval: the allowed values, as in mathematics: "(0, 1]" or "[1, inf)".
        matching: the allowed texts.
        before: the value in runs from before this setting existed, if not the default.
    """
    metadata = {
        "help": help,
        "binds": binds,
        "unit": unit,
        "interval": interval,
        "choices": choices,
        "matching": matching,
        "before": default if before is None else before,
    }
    return field(default=default, metadata=metadata)


def flag_of(name: str) -> str:
    """`eps_start` -> `--eps-start`."""
    return "--" + name.replace("_", "-")


def choices_of(item: Field[Any]) -> tuple[str, ...]:
    """The allowed values of a text setting; () for other settings."""
    choices: tuple[str, ...] | Registry = item.metadata["choices"]
    return choices.names() if isinstance(choices, Registry) else choices


def value_type(item: Field[Any]) -> type:
    """int, float, str or bool; of an optional setting, the type when it is given."""
    if isinstance(item.type, types.UnionType):
        return next(t for t in typing.get_args(item.type) if t is not type(None))
    assert isinstance(item.type, type)
    return item.type


def require(condition: bool, message: str) -> None:
    """Raise UserError unless the condition holds."""
    if not condition:
        raise UserError(message)


def check(item: Field[Any], value: Any) -> None:
    """Raise UserError unless `value` has the type and lies in the range that the field declares."""
    if value is None and item.default is None:
        return
    flag, kind = flag_of(item.name), value_type(item)
    accepted = (int, float) if kind is float else (kind,)
    if type(value) not in accepted:  # a bool is not a number here
        raise UserError(f"{flag} {shown(value)}: must be of type {kind.__name__}")
    if type(value) is int:
        require(abs(value) < 2**63, f"{flag} {shown(value)}: must be less than 2**63")
    if choices := choices_of(item):
        require(value in choices, f"{flag} {shown(value)}: choose from {', '.join(choices)}")
    if matching := item.metadata["matching"]:
        require(matches(matching, value), f"{flag} {shown(value)}: must be {matching.rule}")
    if interval := item.metadata["interval"]:
        require(contains(interval, value), f"{flag} {value}: must be in {interval}")


def contains(interval: str, value: float, sizes: Mapping[str, Any] = MappingProxyType({})) -> bool:
    """Whether a value lies in an interval written as in "(0, 1]"; NaN lies in none.

    Args:
        sizes: the values of words that stand for a bound; an unknown word is none.
    """
    low, high = (
        float(sizes.get(bound, "inf" if bound.isidentifier() else bound))
        for bound in interval[1:-1].replace(" ", "").split(",")
    )
    above = value >= low if interval[0] == "[" else value > low
    below = value <= high if interval[-1] == "]" else value < high
    return above and below
