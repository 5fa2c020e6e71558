"""Converts records: dataclasses in the program; dictionaries, lists and arrays in files.

This is the boundary for everything that is read. A file can come from anywhere, and a checksum says
nothing about what it holds. So each value is checked against what the record declares for its field
(see `mario_rl.fields`), and a wrong one is refused with the name of the field.
"""

import functools
import math
import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from mario_rl.errors import DamagedFile, UserError, first_line, shown
from mario_rl.fields import ANY_NUMBER, FINITE, Array, Items, Matching, Within, matches
from mario_rl.settings import contains

_LONGEST_TEXT = 100_000  # characters; a command line can be long
_INT64 = "[-9223372036854775808, 9223372036854775807]"

Sizes = dict[str, Any]  # the values of the words in intervals, and the lengths of named axes


def to_plain(state: Any) -> dict[str, Any]:
    """A dataclass as nested dictionaries. Its arrays are copied."""
    return asdict(state)


def read_as(kind: Any, value: Any, path: Path) -> Any:
    """`from_plain` of the content of a file.

    Raises:
        DamagedFile: names the file and the field.
        UserError: the same, of settings that another version has, or other parts.
    """
    try:
        return from_plain(kind, value)
    except ValueError as error:
        raise DamagedFile(f"{path} is damaged: {error}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def from_plain(kind: Any, value: Any, where: str = "", sizes: Sizes | None = None) -> Any:
    """The inverse of `to_plain`; tensors become arrays where the type says so.

    Args:
        kind: a dataclass, or the type of one of its fields. A dataclass that has a `from_dict` is
            read by it.
        where: the name of the field.
        sizes: values of words such as "slots".

    Raises:
        ValueError: names the field, and says what it must be.
        UserError: what `from_dict` says, after the name of the field.
    """
    sizes = {} if sizes is None else sizes
    rule: Any = None
    if get_origin(kind) is Annotated:
        kind, rule, *_ = get_args(kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _one_of(arguments, value, where, sizes)
    if origin is Literal:
        same = (type(value) is type(one) and value == one for one in arguments)
        _require(any(same), where, value, " or ".join(map(repr, arguments)))
        return value
    if isinstance(kind, type) and is_dataclass(kind):
        return _record(kind, value, where, sizes)
    if isinstance(rule, Array):
        return _array(kind, rule, value, where, sizes)
    if origin is list:
        items = _items(value, where)
        if isinstance(rule, Items) and not contains(rule.interval, len(items), sizes):
            raise ValueError(f"{where} has {len(items)} items, not {rule.interval} of them")
        return [from_plain(arguments[0], x, f"{where}[{i}]", sizes) for i, x in enumerate(items)]
    if origin is tuple:
        items = _items(value, where)
        _require(len(items) == len(arguments), where, value, f"{len(arguments)} values")
        return tuple(
            from_plain(of, item, f"{where}[{i}]", sizes)
            for i, (of, item) in enumerate(zip(arguments, items, strict=True))
        )
    if origin in (dict, Mapping):
        return _dictionary(arguments, value, where, sizes)
    return value if kind is Any else _plain_value(kind, rule, value, where, sizes)


def _require(condition: bool, where: str, value: Any, expected: str) -> None:
    if not condition:
        raise ValueError(f"{where} is {shown(value)}, and must be {expected}")


def _one_of(kinds: tuple[Any, ...], value: Any, where: str, sizes: Sizes) -> Any:
    if value is None and type(None) in kinds:
        return None
    errors = []
    for kind in kinds:
        if kind is not type(None):
            try:
                return from_plain(kind, value, where, sizes)
            except ValueError as error:
                errors.append(error)
    raise errors[0]


@functools.cache
def field_kinds(record: type) -> dict[str, Any]:
    """The types of a dataclass's fields, with what is declared beside them."""
    hints = get_type_hints(record, include_extras=True)
    return {item.name: hints[item.name] for item in fields(record)}  # type: ignore[arg-type]


def _record(kind: Any, value: Any, where: str, sizes: Sizes) -> Any:
    _require(isinstance(value, dict), where or "the content", value, "a record with names")
    if hasattr(kind, "from_dict"):
        try:
            return kind.from_dict(value)
        except UserError as error:
            raise UserError(f"{where}: {error}" if where else str(error)) from None
    kinds = field_kinds(kind)
    for name in value:
        if name not in kinds:
            raise ValueError(f"{_inside(where, name)} is unknown to this program")
    for item in fields(kind):
        optional = item.default is not MISSING or item.default_factory is not MISSING
        if item.name not in value and not optional:
            raise ValueError(f"{_inside(where, item.name)} is missing")
    sizes = dict(sizes)  # the axes of this record
    return kind(
        **{
            name: from_plain(of, value[name], _inside(where, name), sizes)
            for name, of in kinds.items()
            if name in value
        }
    )


def _inside(where: str, name: Any) -> str:
    name = name if isinstance(name, str) and re.fullmatch(r"[\w./-]{1,80}", name) else shown(name)
    return f"{where}.{name}" if where else name


def _items(value: Any, where: str) -> list[Any]:
    _require(isinstance(value, list | tuple), where, value, "a list")
    return list(value)


def _dictionary(kinds: tuple[Any, ...], value: Any, where: str, sizes: Sizes) -> dict[Any, Any]:
    _require(isinstance(value, dict), where, value, "a dictionary")
    return {
        from_plain(kinds[0], key, f"a name in {where}", sizes): from_plain(
            kinds[1], item, _inside(where, key), sizes
        )
        for key, item in value.items()
    }


def _plain_value(kind: Any, rule: Any, value: Any, where: str, sizes: Sizes) -> Any:
    accepted = (int, float) if kind is float else (kind,)
    # A bool is not a number here.
    _require(type(value) in accepted, where, value, f"of type {kind.__name__}")
    if kind in (int, float):
        default = _INT64 if kind is int else FINITE
        interval = rule.interval if isinstance(rule, Within) else default
        if interval == ANY_NUMBER and type(value) is float and not math.isfinite(value):
            return value
        interval = FINITE if interval == ANY_NUMBER else interval
        _require(contains(interval, value, sizes), where, value, f"in {interval}")
        odd = isinstance(rule, Within) and rule.odd
        _require(not odd or value % 2 == 1, where, value, "odd")
        return kind(value)
    if kind is str:
        _require(len(value) <= _LONGEST_TEXT, where, value, f"at most {_LONGEST_TEXT} characters")
        _require(not re.search("[\ud800-\udfff]", value), where, value, "valid Unicode")
        if isinstance(rule, Matching):
            _require(matches(rule, value), where, value, rule.rule)
    return value


def _array(kind: Any, rule: Array, value: Any, where: str, sizes: Sizes) -> Any:
    _require(hasattr(value, "__array__"), where, value, "an array")
    _require(kind is np.ndarray or isinstance(value, kind), where, value, "a tensor")
    try:
        array = np.asarray(value)
    except (RuntimeError, TypeError) as error:  # of a tensor that is not plain
        raise ValueError(f"{where} cannot be read: {first_line(error)}") from None
    if str(array.dtype) not in rule.dtypes.split():
        raise ValueError(f"{where} is of {array.dtype}, and must be of {rule.dtypes}")
    if rule.axes is not None:
        _check_shape(rule.axes.split(), array.shape, where, sizes)
    check_numbers(array, rule.interval, where, sizes)
    return array if kind is np.ndarray else value


def _check_shape(axes: list[str], shape: tuple[int, ...], where: str, sizes: Sizes) -> None:
    """An axis without a size yet gets that of the array. A size can be a whole shape."""
    expected: list[Any] = []
    for name in axes:
        size = sizes.get(name, name)
        expected += size if isinstance(size, tuple) else [size]
    fits = len(expected) == len(shape) and all(
        isinstance(size, str) or size == length
        for size, length in zip(expected, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{where} has the shape {shape}, and must have ({', '.join(map(str, expected))})"
        )
    for size, length in zip(expected, shape, strict=True):
        if isinstance(size, str) and size != "any":
            sizes[size] = length


def check_numbers(array: np.ndarray, interval: str, where: str, sizes: Sizes | None = None) -> None:
    """
    Raises:
        ValueError: names the field, unless all numbers of the array lie in the interval.
    """
    if interval == ANY_NUMBER:
        array, interval = array[np.isfinite(array)], FINITE
    if array.size == 0 or array.dtype == np.bool_:
        return
    # Quicker, and what has four bytes or fewer cannot be huge.
    if interval == FINITE and array.itemsize <= 4 and np.isfinite(array).all():
        return
    for extreme in (array.min().item(), array.max().item()):  # NaN, if there is one
        if not contains(interval, extreme, sizes or {}):
            raise ValueError(f"{where} holds {shown(extreme)}, which is not in {interval}")


def plain_type(kind: Any) -> type:
    """The type of what a field holds, without what is declared beside it."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return type(get_args(kind)[0]) if get_origin(kind) is Literal else kind


def check_column(kind: Any, values: np.ndarray, where: str) -> None:
    """
    Args:
        kind: as for `from_plain`, of one of the values.

    Raises:
        ValueError: names the column, unless it declares such values.
    """
    if values.dtype.kind in "if":
        rule = get_args(kind)[1] if get_origin(kind) is Annotated else None
        check_numbers(values, rule.interval if rule else FINITE, where)
        return
    for value in set(values):
        from_plain(kind, value, where)
