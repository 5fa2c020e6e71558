"""What the fields of records may hold. A record that is read from a file declares it in the types
of its fields, and `storage.plain.from_plain` checks it:

    env_steps: Count
    returns: Annotated[np.ndarray, Array("float32", "slots")]

Without more, an int fits into 64 bits, a float is finite and not huge, and a str can be written as
UTF-8. A size such as "slots", which only the run's settings tell, stands as a word: for the length
of an axis, or in an interval.
"""

import re
from dataclasses import dataclass
from typing import Annotated

FINITE = "[-1e100, 1e100]"  # with greater numbers the means of a figure overflow
ANY_NUMBER = "[-inf, inf]"  # infinite, NaN or FINITE


@dataclass(frozen=True)
class Within:
    """The interval of a number, as in mathematics: "[0, 1)"."""

    interval: str
    odd: bool = False  # whether it must be


@dataclass(frozen=True)
class Items:
    """The interval of the number of items in a list."""

    interval: str


@dataclass(frozen=True)
class Matching:
    """A text that a pattern matches as a whole."""

    pattern: str
    rule: str  # the same for people


@dataclass(frozen=True)
class Array:
    """An array or a tensor."""

    dtypes: str  # those allowed, such as "float32 float16"
    # Names, such as "rows slots"; None: any number of axes. In a record, axes of the same name have
    # the same length, but "any" is any.
    axes: str | None = None
    interval: str = FINITE  # of its numbers


MAX_RUN_NAME = 80  # characters
RUN_NAME = Matching(
    f"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_RUN_NAME - 1}}}",
    f"1 to {MAX_RUN_NAME} letters, digits, '.', '_' and '-', beginning with a letter or digit",
)
COLUMN_NAME = Matching("[A-Za-z0-9_./-]{1,100}", "1 to 100 letters, digits, '_', '.', '/' and '-'")

Count = Annotated[int, Within("[0, 1e15]")]
Number = Annotated[int, Within("[1, 1e15]")]  # of something that is counted from 1
Share = Annotated[float, Within("[0, 1]")]
Positive = Annotated[float, Within("[0, 1e100]")]
Hours = Annotated[float, Within("[0, 1e7]")]  # a thousand years
AnyFloat = Annotated[float, Within(ANY_NUMBER)]
Checksum = Annotated[int, Within("[0, 4294967295]")]  # CRC-32
RunName = Annotated[str, RUN_NAME]
RunId = Annotated[str, Matching("[0-9a-f]{32}", "32 hex digits")]
ColumnName = Annotated[str, COLUMN_NAME]
Slot = Annotated[int, Within("[0, slots)")]  # of the replay
Action = Annotated[int, Within("[0, num_actions)")]
FileName = Annotated[str, Matching("[A-Za-z0-9][A-Za-z0-9._-]{0,99}", "a file name")]


def matches(matching: Matching, value: str) -> bool:
    return re.fullmatch(matching.pattern, value) is not None
