"""The exceptions that end a script with one line."""


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
