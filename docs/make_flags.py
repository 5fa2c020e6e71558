"""Writes docs/flags.md: the tables from `Config`, the reasons from docs/flag_reasons.py.

python -m docs.make_flags
"""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from docs.flag_reasons import INTRODUCTION, REASONS
from mario_rl.config import STAGES, Config
from mario_rl.settings import choices_of, flag_of, value_type

PAGE = Path(__file__).with_name("flags.md")
HEADER = "| flag | default | values | what it does | kept by |\n| --- | --- | --- | --- | --- |"
KEPT_BY = {"weights": "model", "replay": "replay", "run": "run", "machine": "nothing"}


def page() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *_groups()])


def _groups() -> Iterator[str]:
    for part in fields(Config):
        group: Any = part.default_factory
        items = fields(group)
        yield f"## {group.__doc__}\n\n{HEADER}"
        yield from map(_row, items)
        yield ""
        yield from (_reason(item.name) for item in items if item.name in REASONS)
        yield ""


def _row(item: Field[Any]) -> str:
    cells = [
        f"`{flag_of(item.name)}`",
        _number(item.default),
        _values(item),
        re.sub(r"(--[a-z-]+)", r"`\1`", item.metadata["help"]).replace("*", r"\*"),
        KEPT_BY[item.metadata["binds"]],
    ]
    return f"| {' | '.join(cells)} |"


def _values(item: Field[Any]) -> str:
    """The allowed values in words, and their unit."""
    if value_type(item) is bool:
        return "yes or no"
    if choices := choices_of(item):
        *others, last = choices
        if choices[1:] == STAGES:
            return f"{choices[0]}, {STAGES[0]} to {STAGES[-1]}"
        return f"{', '.join(others)} or {last}" if others else f"only {last} so far"
    if matching := item.metadata["matching"]:
        return str(matching.rule)
    unit = item.metadata["unit"]
    return f"{_range(item.metadata['interval'])} {unit}".strip()


def _range(interval: str) -> str:
    """`(0, 1]` -> `above 0 to 1`."""
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    start = _number(low) if interval[0] == "[" else f"above {_number(low)}"
    if high == float("inf"):
        return f"{start} or more" if interval[0] == "[" else start
    if interval[-1] == ")":
        return f"{start} to below {_number(high)}"
    return f"{start} to {_number(high)}"


def _number(value: object) -> str:
    """A value as a person writes it."""
    if value is None:
        return "no limit"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{int(value):,}" if value.is_integer() else str(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _reason(name: str) -> str:
    text = f"- `{flag_of(name)}`: {' '.join(REASONS[name].split())}"
    return textwrap.fill(
        text, 100, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


if __name__ == "__main__":
    PAGE.write_text(page())
