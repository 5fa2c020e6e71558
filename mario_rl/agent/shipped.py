"""The trained models that come with Mario RL, by their names."""

from pathlib import Path

from mario_rl.errors import UserError, shown

# A link to pretrained/ at the top of the checkout; a wheel holds the files themselves.
_FOLDER = Path(__file__).parents[1] / "pretrained"


def shipped_model(name: str) -> Path:
    """The file of a shipped model.

    Args:
        name: the stage that it plays, such as "1-1", or "full".

    Raises:
        UserError: if there is none of that name.
    """
    names = sorted(path.stem for path in _FOLDER.glob("*.pth"))
    if name not in names:
        raise UserError(f"no shipped model is called {shown(name)}; there are {', '.join(names)}")
    return _FOLDER / f"{name}.pth"


def model_file(path: str) -> Path:
    """The file of this path or, if there is none, the shipped model of this name.

    Raises:
        UserError: if there is neither, and the path could be a name.
    """
    file = Path(path)
    is_name = file.suffix == "" and file.name == path
    if file.is_file() or not is_name:
        return file
    try:
        return shipped_model(path)
    except UserError as error:
        if file.exists():  # a directory or a pipe: whoever reads it will say so
            return file
        raise UserError(f"{path}: no such file, and {error}") from None
