"""The one exception for mistakes that a user can mend."""


class UserError(Exception):
    """One line that names the flag or file at fault and the way out.

    The scripts print it on stderr and exit with code 2; it never shows a traceback.
    """


class DamagedFile(UserError):
    """A file whose content is not what was written. An older one may serve instead."""
