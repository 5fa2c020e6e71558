"""Settings in a YAML file, by the names of their flags without the dashes:

stage: 1-1
max_steps: 400000
"""

import difflib
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
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--config {path} is not YAML: {reason:.300}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"--config {path}: must hold lines such as 'stage: 1-1'")
    kinds = {item.name: value_type(item) for _, item in settings()}
    found = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in kinds:
            nearest = difflib.get_close_matches(name, kinds, 1, 0.5)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise UserError(f"--config {path}: there is no setting {shown(key)}{hint}")
        if name in found:
            raise UserError(f"--config {path}: {name} is given twice")
        found[name] = _number(value) if kinds[name] is float else value
    return found


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
