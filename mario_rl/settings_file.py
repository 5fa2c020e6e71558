"""Settings in a YAML file, by the names of their flags without the dashes:

stage: 1-1
max_steps: 400000
"""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from mario_rl.config import Config, settings
from mario_rl.errors import UserError, shown
from mario_rl.settings import value_type


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a file by their flat names.

    Raises:
        UserError: if it cannot be read, or names a setting that does not exist.
    """
    where = f"--config {path}"
    return named_settings(read_yaml(path, where), where)


def read_yaml(path: Path, where: str) -> dict[Any, Any]:
    """The dictionary that a file holds; empty if the file is.

    Args:
        where: begins the messages.

    Raises:
        UserError: if it cannot be read, or holds something else.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{where}: {error.strerror}") from None
    except Exception as error:  # PyYAML raises anything at values that it cannot convert
        reason = " ".join(str(error).split())
        raise UserError(f"{where} is not YAML: {reason:.300}") from None
    if values is not None and not isinstance(values, dict):
        raise UserError(f"{where}: must hold lines such as 'stage: 1-1'")
    return values or {}


def named_settings(values: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Settings by their flat names. Their values are not checked.

    Raises:
        UserError: if there is no setting of a name, or it is given twice.
    """
    kinds = {item.name: value_type(item) for _, item in settings()}
    found = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in kinds:
            raise UserError(f"{where}: there is no setting {shown(key)}{nearest(name, kinds)}")
        if name in found:
            raise UserError(f"{where}: {name} is given twice")
        found[name] = _number(value) if kinds[name] is float else value
    return found


def nearest(name: str, names: Iterable[str]) -> str:
    """A question after the name that was meant, or nothing."""
    found = difflib.get_close_matches(name, names, 1, 0.5)
    return f"; did you mean {found[0]}?" if found else ""


def _number(value: Any) -> Any:
    """PyYAML takes 1e-4 for a text, and only 1.0e-4 for a number."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def text_of(config: Config) -> str:
    """A file with all settings of a config."""
    text: str = yaml.safe_dump(config.flat(), sort_keys=False)
    return f"# progressive_mario_trainer.py --run-name NAME --config THIS_FILE\n{text}"
