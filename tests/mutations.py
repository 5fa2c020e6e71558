"""Wrong values for every field of a record, from its own declaration; and files that hold them,
with valid checksums."""

import json
import random
import types
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
import torch

from mario_rl.agent.adam_state import AdamState, Group, Moments
from mario_rl.agent.epsilon_greedy import EpsilonGreedyState
from mario_rl.config import Config, settings
from mario_rl.fields import ANY_NUMBER, FINITE, Array, Items, Matching, Within, matches
from mario_rl.settings import choices_of, contains
from mario_rl.storage.checkpoint import _fingerprint
from mario_rl.storage.files import _checksum as json_checksum
from mario_rl.storage.files import read_json, write_json
from mario_rl.storage.plain import field_kinds
from mario_rl.storage.tensor_file import SCHEMA, _checksum, _to_tensors

GONE = object()  # a value that is not there
HUGE = (2**62, 2**63, 10**30)
TEXTS = ("\ud800", "x" * 200_000)
NAMES = ("", "../../../../tmp/x", "a b", r"$\frac$", "\x1b[2J", "a\nb", "x" * 200)

# What whoever writes them declares; the records around them say only `Any`.
OWNED = {"exploration": EpsilonGreedyState, "optimizer": AdamState}


@dataclass(frozen=True)
class Mutant:
    """A place in a content, and a wrong value for it."""

    place: tuple[Any, ...]
    value: Any

    @property
    def field(self) -> str:
        """The innermost name; places in lists have none."""
        return next(name for name in reversed(self.place) if isinstance(name, str))

    def __str__(self) -> str:
        value = "gone" if self.value is GONE else f"{type(self.value).__name__} {self.value!r:.20}"
        return f"{'.'.join(map(str, self.place))} = {' '.join(value.split())}"

    def of(self, content: Any) -> Any:
        """The content with the value; what is around it is new, too."""
        return self._inside(content, self.place)

    def _inside(self, content: Any, place: tuple[Any, ...]) -> Any:
        changed = dict(content) if isinstance(content, dict) else list(content)
        name, *rest = place
        if rest:
            changed[name] = self._inside(content[name], tuple(rest))
        elif self.value is GONE:
            del changed[name]
        else:
            changed[name] = self.value
        return changed


def mutants(
    kind: Any, value: Any, sizes: Mapping[str, Any], place: tuple[Any, ...] = ()
) -> Iterator[Mutant]:
    """Wrong values for all fields of a content.

    Args:
        value: the content, in which optional fields have values.
        sizes: as for `from_plain`.
    """
    rule: Any = None
    if get_origin(kind) is Annotated:
        kind, rule, *_ = get_args(kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        options = [option for option in arguments if option is not type(None)]
        if len(options) == 1:
            wrong = mutants(options[0], value, sizes, place)
            optional = type(None) in arguments
            yield from (m for m in wrong if not (optional and m.place == place and m.value is None))
        else:
            yield from (Mutant(place, other) for other in ([], 0.5, -1.5))
        return
    if kind == dict[str, Any]:
        yield from _of_the_owner(value, sizes, place)
    elif isinstance(rule, Array):
        yield from (Mutant(place, wrong) for wrong in _wrong_arrays(rule, value, sizes))
    elif isinstance(kind, type) and issubclass(kind, Config):
        yield from _wrong_settings(place)
    elif isinstance(kind, type) and is_dataclass(kind):
        yield from _wrong_records(kind, value, sizes, place)
    elif origin in (list, tuple):
        yield from _wrong_sequences(origin, arguments, rule, value, sizes, place)
    elif origin in (dict, Mapping):
        yield from (Mutant(place, wrong) for wrong in ([], 5, "x", None) if place)
        for name, item in list(value.items())[:1]:
            yield from mutants(arguments[1], item, sizes, (*place, name))
            for wrong in (*wrong_values(arguments[0], sizes), 0.5):
                if isinstance(wrong, str | int | float) and not isinstance(wrong, bool):
                    yield Mutant(place, {**value, wrong: item})
    else:
        yield from (Mutant(place, wrong) for wrong in wrong_values(kind, sizes, rule))


def wrong_values(kind: Any, sizes: Mapping[str, Any], rule: Any = None) -> list[Any]:
    """Of a number, a text or a truth value."""
    if get_origin(kind) is Annotated:
        kind, rule, *_ = get_args(kind)
    if get_origin(kind) is Literal:
        return [other for other in ("other", 5, True, None) if other not in get_args(kind)]
    values: list[Any] = [None, [], {}]
    if kind is bool:
        return [*values, "True", 1, 0.0]
    if kind is str:
        names = [name for name in NAMES if isinstance(rule, Matching) and not matches(rule, name)]
        return [*values, 5, True, *TEXTS, *names]
    assert kind in (int, float), f"no wrong values are known for {kind}"
    values += ["text", "1", True, torch.zeros(3)]
    interval = FINITE if kind is float else "[-9e18, 9e18]"
    if isinstance(rule, Within):
        interval = rule.interval
    if interval == ANY_NUMBER:
        return [*values, 1e101, 10**400]
    values += [float("nan"), float("inf"), -float("inf"), 10**400]
    values += [0.5] if kind is int else []
    words = interval[1:-1].replace(" ", "").split(",")
    bounds = [sizes[w] if w in sizes else int(float(w)) for w in words if "inf" not in w]
    for number in (-1, *HUGE, 10**101, *(bound + step for bound in bounds for step in (-1, 0, 1))):
        if not contains(interval, kind(number), sizes):
            values.append(kind(number))
    if isinstance(rule, Within) and rule.odd:
        values += [0, 2, 2**100]
    return values


def _words(interval: str) -> list[str]:
    bounds = (bound.strip() for bound in interval[1:-1].split(","))
    return [bound for bound in bounds if bound.isidentifier() and bound != "inf"]


def _of_the_owner(value: Any, sizes: Mapping[str, Any], place: tuple[Any, ...]) -> Iterator[Mutant]:
    if place[-1] in OWNED:
        kind: Any = OWNED[place[-1]]
    elif place[-2:-1] == ("param_groups",):
        kind = Group
    else:
        assert "optimizer" in place and place[-2] == "state", f"nobody declares {place}"
        kind = Moments
        sizes = {**sizes, "parameter": tuple(value["exp_avg"].shape)}
    yield from mutants(kind, value, sizes, place)


def _wrong_records(
    kind: Any, value: Any, sizes: Mapping[str, Any], place: tuple[Any, ...]
) -> Iterator[Mutant]:
    if place:
        yield from (Mutant(place, wrong) for wrong in (None, [], 5, "x"))
    yield Mutant((*place, "other"), 1)
    for item in fields(kind):
        where = (*place, item.name)
        if item.default is MISSING and item.default_factory is MISSING:
            yield Mutant(where, GONE)
        if value.get(item.name) is not None:
            yield from mutants(field_kinds(kind)[item.name], value[item.name], sizes, where)


def _wrong_sequences(
    origin: Any,
    arguments: tuple[Any, ...],
    rule: Any,
    value: Any,
    sizes: Mapping[str, Any],
    place: tuple[Any, ...],
) -> Iterator[Mutant]:
    yield from (Mutant(place, wrong) for wrong in (None, 5, "text", {}))
    if isinstance(rule, Items):
        lengths = (0, len(value) + 1, 100)
        wrong = (n for n in lengths if not contains(rule.interval, n, sizes))
        yield from (Mutant(place, (list(value) * (n + 1))[:n]) for n in wrong)
    if origin is tuple:
        yield from (Mutant(place, wrong) for wrong in ([*value, 1], list(value)[:-1]))
    kinds = arguments if origin is tuple else arguments[:1]
    for i, (kind, item) in enumerate(zip(kinds, value, strict=False)):
        yield from mutants(kind, item, sizes, (*place, i))


def _wrong_arrays(rule: Array, value: Any, sizes: Mapping[str, Any]) -> Iterator[Any]:
    tensor = torch.as_tensor(np.asarray(value))
    yield from (None, "text", 5, [])
    others = (torch.int16, torch.float16, torch.float64, torch.bfloat16, torch.complex64)
    for dtype in others:
        if str(dtype).removeprefix("torch.") not in rule.dtypes.split():
            yield tensor.to(dtype)
    yield torch.ones(tensor.shape, dtype=torch.float32, requires_grad=True)
    yield torch.ones(4, 4).to_sparse()
    yield tensor.to("meta")
    yield tensor[None]
    if rule.axes is None or not tensor.numel():
        return
    if set(rule.axes.split()) & set(sizes):
        yield tensor[:-1]
        yield torch.cat([tensor, tensor])
    if rule.interval != ANY_NUMBER and tensor.dtype != torch.bool:
        bad = [float("nan"), float("inf"), -float("inf")] if tensor.is_floating_point() else []
        bad += [-1, 33, 255, 1e39, *(sizes[word] for word in _words(rule.interval))]
        for number in bad:
            changed = np.array(tensor)
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what becomes another number
                changed.reshape(-1)[-1:] = np.array([number]).astype(changed.dtype)
            if not contains(rule.interval, changed.reshape(-1)[-1].item(), sizes):
                yield torch.from_numpy(changed)


def _wrong_settings(place: tuple[Any, ...]) -> Iterator[Mutant]:
    for group, item in settings():
        where = (*place, group, item.name)
        wrong: list[Any] = [[], {}, "text", 10**30, 10**400]
        if item.default is not None:
            wrong.append(None)
        if choices_of(item):
            wrong.append("other")
        if interval := item.metadata["interval"]:
            bounds = [float(bound) for bound in interval[1:-1].split(",")]
            wrong += [x for b in bounds for x in (b - 1, b + 1, b) if not contains(interval, x)]
            wrong += [float("nan"), float("inf")]
        yield from (Mutant(where, value) for value in wrong)
    yield Mutant((*place, "env", "other"), 1)
    yield Mutant((*place, "other"), {})
    yield from (Mutant((*place, "env"), wrong) for wrong in (None, [], 5, "x"))


# files


def write_tensors(path: Path, kind: str, content: dict[str, Any]) -> None:
    """As `save_tensors`, but whatever the content; it may have none that can be made."""
    tagged = _to_tensors({"schema": SCHEMA, "kind": kind, **content})
    try:
        tagged["checksum"] = _checksum(tagged)
    except (ValueError, RuntimeError, TypeError):
        tagged["checksum"] = 0
    torch.save(tagged, path)


def writable(mutant: Mutant) -> bool:
    """Whether JSON can say it."""
    if mutant.value is GONE:
        return True
    try:
        json.dumps(mutant.value, sort_keys=True)
    except (TypeError, ValueError):
        return False
    return True


def write_any_json(path: Path, value: dict[str, Any]) -> None:
    """As `write_json`, but NaN, too."""
    path.write_text(json.dumps({**value, "checksum": json_checksum(value)}))


def vouch(folder: Path, name: str) -> None:
    """Write the checksum of a CSV file that was changed."""
    checksums = read_json(folder / "checksums.json")
    content = (folder / name).read_bytes()
    checksums[name] = {"bytes": len(content), "crc32": zlib.crc32(content)}
    write_json(folder / "checksums.json", checksums)


def vouch_for_state(manifest_path: Path) -> None:
    """Write the checksum of a state that was changed."""
    manifest = read_json(manifest_path)
    state = manifest_path.with_name(manifest["state"]["file"])
    write_json(manifest_path, {**manifest, "state": _fingerprint(state)})


# any change


def places(content: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Those of all values in nested dictionaries and sequences."""
    items: Any = ()
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list | tuple):
        items = enumerate(content)
    for name, item in items:
        yield (*place, name)
        yield from places(item, (*place, name))


def random_mutant(content: Any, rng: random.Random) -> Mutant:
    """Something else somewhere."""
    found = list(places(content))
    place = rng.choice(found)
    other = content
    for name in rng.choice(found):
        other = other[name]
    numbers = [-1, 0.5, 2**62, float("nan"), float("inf")]
    tensors = [torch.zeros(3), torch.zeros(0), torch.zeros(2, 2)]
    others = [GONE, other, None, True, "x", "\ud800", [], {}, (), [[]], {"a": 1}]
    values = [*numbers, *tensors, *others]
    return Mutant(place, rng.choice(values))
