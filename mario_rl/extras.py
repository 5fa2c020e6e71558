"""Libraries that only some features need, and that are not installed with this package."""

import importlib
from types import ModuleType

from mario_rl.errors import UserError, first_line


def import_extra(module: str, purpose: str, package: str) -> ModuleType:
    """Import a library when it is asked for.

    Args:
        purpose: what needs it, for the message: a flag or a noun in the plural.
        package: its name on PyPI.

    Raises:
        UserError: if it is missing or does not work; it names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # other people's code, which can fail in any way
        missing = isinstance(error, ModuleNotFoundError) and module.startswith(error.name or " ")
        cause = "" if missing else f", which does not work here ({first_line(error)})"
        raise UserError(f"{purpose} need {package}{cause}: pip install {package}") from None
