"""Converts states: dataclasses in the program; dictionaries, lists and arrays in files."""

import types
from dataclasses import asdict, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np


def to_plain(state: Any) -> dict[str, Any]:
    """A dataclass as nested dictionaries. Its arrays are copied."""
    return asdict(state)


def from_plain(kind: Any, value: Any) -> Any:
    """The inverse of `to_plain`; tensors become arrays where the type says so.

    Args:
        kind: a dataclass, or the type of one of its fields. A dataclass that has a `from_dict` is
            read by it.

    Raises:
        KeyError, TypeError, ValueError: if the value does not fit.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        (kind,) = (argument for argument in arguments if argument is not type(None))
        return None if value is None else from_plain(kind, value)
    if isinstance(kind, type) and is_dataclass(kind):
        if hasattr(kind, "from_dict"):
            return kind.from_dict(value)
        hints = get_type_hints(kind)
        return kind(**{name: from_plain(hints[name], item) for name, item in value.items()})
    if kind is np.ndarray:
        return np.asarray(value)
    if origin is list:
        return [from_plain(arguments[0], item) for item in value]
    if origin is dict:
        return {key: from_plain(arguments[1], item) for key, item in value.items()}
    return tuple(value) if origin is tuple else value
