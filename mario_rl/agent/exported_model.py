"""A model as a folder to pass on: weights as safetensors, all else as JSON. Neither can run code.

config.json         everything of a `SavedModel` but its tensors
model.safetensors   the weights
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mario_rl.agent.saved_model import SavedModel
from mario_rl.errors import DamagedFile, UserError
from mario_rl.extras import import_extra
from mario_rl.storage.files import atomic_write, make_directory, reading_error, require_file
from mario_rl.storage.plain import read_as

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_KIND, _SCHEMA = "mario-rl model", 1
_LARGEST_CONFIG = 10_000_000  # bytes


def write_exported(model: SavedModel, folder: Path) -> None:
    """Write both files. The optimizer is left out: it is for training on, and as large as two
    models.

    Raises:
        UserError: if safetensors is not installed.
        OSError: if they cannot be written.
    """
    library = import_extra("safetensors.torch", "exported models", "safetensors")
    content = {
        "kind": _KIND,
        "schema": _SCHEMA,
        "run_name": model.run_name,
        "config": model.config.to_dict(),
        "lineage": asdict(model.lineage),
        "evaluation": asdict(model.evaluation),
        "averaged_updates": model.averaged_updates,
    }
    make_directory(folder)
    text = json.dumps(content, indent=2) + "\n"
    atomic_write(folder / CONFIG, lambda file: file.write(text.encode()))
    tensors = {name: tensor.contiguous() for name, tensor in model.weights.items()}
    weights = library.save(tensors, metadata={"format": "pt"})
    atomic_write(folder / WEIGHTS, lambda file: file.write(weights))


def load_model(path: Path) -> SavedModel:
    """A file from models/, or a folder that was exported.

    Raises:
        UserError: as `SavedModel.load` and `read_exported`.
    """
    is_exported = (path / CONFIG).exists()
    return read_exported(path) if is_exported else SavedModel.load(path)


def read_exported(folder: Path) -> SavedModel:
    """
    Raises:
        UserError: if it is not such a folder, or of a newer version, or safetensors is missing; it
            names the file and the field.
    """
    config, weights = folder / CONFIG, folder / WEIGHTS
    for file in (config, weights):
        require_file(file)
    library = import_extra("safetensors.torch", "exported models", "safetensors")
    content = _read_json(config)
    if content.pop("kind", None) != _KIND:
        raise DamagedFile(f"{config} is not the config of a Mario RL model")
    if content.pop("schema", None) != _SCHEMA:
        raise UserError(f"{config} is of another version of Mario RL")
    try:
        tensors = library.load_file(weights)
    except OSError as error:
        raise reading_error(weights, error) from None
    except Exception as error:  # what the library raises for a damaged file is its own affair
        raise DamagedFile(f"{weights} is damaged: {' '.join(str(error).split()):.200}") from None
    model: SavedModel = read_as(
        SavedModel, {**content, "weights": tensors, "optimizer": None}, config
    )
    try:
        model.check()
    except ValueError as error:
        raise DamagedFile(f"{weights} is damaged: {error}") from None
    return model


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise DamagedFile(f"{path} is too large for the config of a model")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise reading_error(path, error) from None
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{path} is damaged: {' '.join(str(error).split()):.200}") from None
    if not isinstance(content, dict):
        raise DamagedFile(f"{path} is not the config of a Mario RL model")
    return content
