"""The exceptions that end a script with one line."""

_SHOWN = 80  # characters of a value


def shown(value: object) -> str:
    """A value from outside, for a message: short, in one line, without control characters."""
    if isinstance(value, int) and value.bit_length() > 10_000:  # Python would refuse to write it
        return "an endless number"
    empty = isinstance(value, list | tuple | dict) and not value
    if not empty and value is not None and not isinstance(value, bool | int | float | str):
        return f"a {type(value).__name__}"
    text = repr(value[: _SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def first_line(error: Exception) -> str:
    """Why something failed, when the error comes from a library and may be long."""
    lines = str(error).splitlines() or [""]
    return f"{lines[0] or type(error).__name__:.120}"


class UserError(Exception):
    """One line that names the flag or file at fault and the way out.

    The scripts print it on stderr and exit with code 2; it never shows a traceback.
    """


class DamagedFile(UserError):
    """A file whose content is not what was written. The caller may use an older one."""


class RunInUse(UserError):
    """Another process trains or creates the run."""


class Diverged(UserError):
    """The loss is not a finite number: to go on makes no sense."""


class WorkerDied(UserError):
    """A worker process is gone: killed, or out of memory."""


def reason(error: Exception) -> str:
    """An error as a clause: of an OSError the file, and what is wrong."""
    if isinstance(error, OSError) and error.strerror:
        file = error.filename2 or error.filename
        return f"{file}: {error.strerror}" if file else error.strerror
    return str(error) or type(error).__name__
