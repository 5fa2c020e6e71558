"""Files of tensors and plain values: models, and the states in checkpoints.

They may come from the internet. So they are loaded with `weights_only=True` and cannot run code. A
file that unfolds to more than its own size is refused and cannot exhaust memory. A checksum of the
content, which PyTorch's format lacks, finds flipped bits. PyTorch has dozens of kinds of tensors,
and most of them fail somewhere later on: only plain ones are read.
"""

import warnings
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from mario_rl.errors import DamagedFile, UserError, shown
from mario_rl.storage.files import atomic_write, reading_error, require_file

SCHEMA = 5  # 1 had no checksum, 2 no save points, 3 no names for metrics, 4 no ids of runs

# Those that NumPy has, too.
_DTYPES = (
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.float32, torch.float64,
)  # fmt: skip
_LONGEST_INT = 128  # bits; the state of a random generator


def save_tensors(path: Path, kind: str, content: dict[str, Any]) -> None:
    """Write tensors, arrays and plain values atomically, with the schema version.

    Raises:
        OSError: if the file cannot be written; an older one is then untouched.
    """
    tagged = _to_tensors({"schema": SCHEMA, "kind": kind, **content})
    tagged["checksum"] = _checksum(tagged)

    def write(file: BinaryIO) -> None:
        try:
            torch.save(tagged, file)
        except RuntimeError as error:  # what torch makes of a full disk
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise

    atomic_write(path, write)


def load_tensors(path: Path, kind: str, read_tensors: bool = True) -> dict[str, Any]:
    """The inverse of `save_tensors`. Arrays come back as CPU tensors, and `schema` is the version
    of the content.

    Args:
        read_tensors: False leaves the tensors in the file until they are used, and does not check
            the checksum, which would read them. The rest has a checksum of its own in the zip file.

    Raises:
        UserError: if the file is missing or of a newer version.
        DamagedFile: if it is damaged or of another kind.
    """
    require_file(path)
    try:
        _require_plain_zip(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles, which are refused below
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=not read_tensors)
    except Exception as error:  # a damaged file can raise anything, at great length
        if not isinstance(cannot_read := reading_error(path, error), DamagedFile):
            raise cannot_read from None
        raise DamagedFile(
            f"{path} is damaged or is no Mario RL {kind} ({type(error).__name__})"
        ) from None
    found = content.get("kind") if type(content) is dict else None
    if not isinstance(found, str) or found != kind:
        raise DamagedFile(f"{path} is no Mario RL {kind}")
    check_schema(path, content.get("schema"))
    checksum = content.pop("checksum", None)
    if not read_tensors:
        return content
    try:
        expected = _checksum(content, path.stat().st_size)
    except ValueError as error:
        raise DamagedFile(f"{path} is no Mario RL {kind}: {error}") from None
    intact = type(checksum) is int and checksum == expected
    if not intact and content["schema"] > 1:
        raise DamagedFile(f"{path} is damaged: its checksum is wrong")
    return content


def check_schema(path: Path, schema: Any) -> None:
    """
    Raises:
        UserError: if a newer version of the program wrote the file.
        DamagedFile: if no version did.
    """
    if type(schema) is not int or schema < 1:
        raise DamagedFile(f"{path} is damaged: it has no file version")
    if schema > SCHEMA:
        raise UserError(
            f"{path} has file version {schema!r:.20}, and this program reads up to {SCHEMA}: "
            "update Mario RL"
        )


def _require_plain_zip(path: Path) -> None:
    """PyTorch stores its entries uncompressed. A compressed one could be a zip bomb."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("compressed")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError("entries overlap")


def _to_tensors(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, dict):
        return {key: _to_tensors(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to_tensors(item) for item in value)
    return value


def _checksum(content: dict[str, Any], budget: float = float("inf")) -> int:
    """CRC-32 of nested dictionaries, sequences, tensors and plain values.

    Args:
        budget: how much to read, in bytes of tensors and in values. A few bytes of a pickle can
            describe an endless tensor, or a list of a list of a list of the same values.

    Raises:
        ValueError: if the content exceeds it, or holds anything else; it names the place.
    """
    crc = 0
    unread: list[tuple[Any, _Place]] = [(content, ("", None))]
    while unread:
        value, place = unread.pop()
        items: list[tuple[Any, _Place]] = []
        data: Any = b""
        if isinstance(value, torch.Tensor):
            if strange := _strangeness(value):
                raise ValueError(f"{_name(place)} is {strange}")
            name = f"{value.dtype} {tuple(value.shape)}"
            budget -= value.numel() * value.element_size()
            if budget >= 0:
                data = np.ascontiguousarray(value.numpy())
        elif type(value) in (dict, OrderedDict):
            name = f"dict {len(value)}"
            for key, item in value.items():
                if not isinstance(key, int | str):
                    raise ValueError(f"{_name(place)} has {shown(key)} as a name")
                items += [(key, (key, place)), (item, (key, place))]
        elif isinstance(value, list | tuple):
            name = f"{type(value).__name__} {len(value)}"
            items = [(item, (i, place)) for i, item in enumerate(value)]
        elif isinstance(value, int) and value.bit_length() > _LONGEST_INT:
            raise ValueError(f"{_name(place)} is {shown(value)}")
        elif value is None or isinstance(value, bool | int | float | str):
            name = f"{type(value).__name__} {value!r}"
        else:
            raise ValueError(f"{_name(place)} is {shown(value)}")
        budget -= len(items)
        if budget < 0:
            raise ValueError("it unfolds to more than its size")
        unread += items
        crc = zlib.crc32(data, zlib.crc32(name.encode(), crc))
    return crc


_Place = tuple[Any, Any]  # a name or an index, and the place that it is in


def _name(place: _Place) -> str:
    """Such as "learner.optimizer.state.0"."""
    names: list[str] = []
    key, around = place
    while around is not None:
        printable = isinstance(key, str) and key.isprintable()
        names.insert(0, key if printable else shown(key))
        key, around = around
    return f"{'.'.join(names):.200}" or "the content"


def _strangeness(tensor: torch.Tensor) -> str:
    """What is not plain about a tensor; "" if nothing is."""
    if type(tensor) is not torch.Tensor:
        return f"a {type(tensor).__name__}"
    if tensor.layout != torch.strided or not tensor.is_cpu or tensor.is_nested:
        return f"a tensor of the kind {tensor.device.type} {tensor.layout}"
    if tensor.dtype not in _DTYPES:
        return f"a tensor of {tensor.dtype}"
    if tensor.requires_grad or tensor.is_conj() or tensor.is_neg():
        return "a tensor with a gradient or a lazy operation"
    if tensor.__dict__:
        return "a tensor with attributes"
    if _overlaps(tensor):
        return "a tensor whose elements share memory"
    return ""


def _overlaps(tensor: torch.Tensor) -> bool:
    """Whether elements may share memory. What writes to such a tensor, or takes its memory for as
    large as its shape says, destroys other data."""
    axes = zip(tensor.stride(), tensor.shape, strict=True)
    end = 1  # of what the axes with smaller strides span, in elements
    for stride, length in sorted((stride, length) for stride, length in axes if length > 1):
        if stride < end:
            return tensor.numel() > 0
        end += stride * (length - 1)
    return False
