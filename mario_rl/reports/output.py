"""Where tables and figures are written: a place in stats/, or what --output names."""

from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from mario_rl.errors import UserError
from mario_rl.storage.files import atomic_write

FIGURES = ("png", "svg", "pdf")


def output_file(*formats: str) -> Callable[[str], Path]:
    """The type of --output: a path that ends in one of the formats."""

    def parse(text: str) -> Path:
        path = Path(text)
        if path.suffix[1:] not in formats:
            raise ArgumentTypeError(f"{text!r:.80}: the name must end in .{', .'.join(formats)}")
        return path

    return parse


def write_output(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """As `atomic_write`, for a file that may lie elsewhere, too.

    Raises:
        UserError: if it cannot be written.
    """
    try:
        atomic_write(path, write)
    except OSError as error:
        cause = error.strerror or error
        raise UserError(f"cannot write {path}: {cause}; name another file with --output") from None
