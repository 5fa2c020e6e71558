"""Lines for the user. No other module prints.

Whether a line that cannot be written is an error depends on the command. Lines that are its result
go through `say`, which raises an error. A command that makes something else, such as a run, reports
with `tell`, and goes on if nobody can read it.

Text may hold names from files and from the user. Control characters in them are shown as escapes,
so that no name can command the terminal.
"""

import errno
import functools
import os
import re
import shlex
import sys
from collections.abc import Iterable
from typing import TextIO

# All but tab and newline, and what Python makes of the bytes of file names that are no text.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def say(text: str) -> None:
    """A line of the result, on stdout.

    Raises:
        BrokenPipeError: if the program that reads the output, such as head, has ended.
        OSError: if it cannot be written for another reason, such as a full disk.
    """
    _write(sys.stdout, "standard output", text)


def tell(text: str) -> None:
    """A line on stdout about what the command does. If it cannot be written, a warning says so
    once, and the command goes on."""
    try:
        say(text)
    except OSError as error:
        warn_once(f"standard output cannot be written ({error.strerror}); going on without it")


def note(text: str) -> None:
    """A line beside the result, on stderr; lost if it cannot be written."""
    try:
        _write(sys.stderr, "standard error", text)
    except OSError:
        return  # there is no other place to say it


def warn(text: str) -> None:
    """A line about something that went wrong and does not end the program, on stderr."""
    note(f"warning: {text}")


@functools.cache
def warn_once(text: str) -> None:
    """As `warn`, but the same text only once."""
    warn(text)


def printable(text: str, encoding: str = "utf-8") -> str:
    """The text with an escape, such as \\x1b, for each control character other than tab and
    newline, for each byte of a file name that is no text, and for what the encoding lacks."""
    return _UNPRINTABLE.sub(_escape, text).encode(encoding, "backslashreplace").decode(encoding)


def command_line(words: Iterable[str]) -> str:
    """Words as a shell reads them. For those that must not be printed as they are, it is a shell
    that knows $'...', such as bash and zsh."""

    def quoted(word: str) -> str:
        if printable(word) == word:
            return shlex.quote(word)
        escaped = word.replace("\\", r"\\").replace("'", r"\'")
        return f"$'{printable(escaped)}'"

    return " ".join(quoted(word) for word in words)


def is_live() -> bool:
    """Whether stdout is a terminal on which a program can replace what it wrote.

    The output of a notebook's `!command` looks like one, but keeps every line.
    """
    in_notebook = "JPY_PARENT_PID" in os.environ or "inline" in os.environ.get("MPLBACKEND", "")
    if in_notebook or os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        return False
    try:
        return sys.stdout is not None and sys.stdout.isatty()
    except ValueError:  # it is closed
        return False


def shows_warnings() -> bool:
    """Whether stderr is a terminal."""
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()


def open_closed_streams() -> None:
    """Open the null device as stdin, stdout and stderr, where a process was started without them.

    The next files to be opened would otherwise take their places, and native code would write its
    messages into them. Worker processes inherit the places.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The system gives out the lowest free number.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stderr is None:  # print would take stdout in its place
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def drop_unwritten() -> None:
    """Drop what could not be written. Python would try again when it ends, and fail with exit
    code 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except ValueError:  # it is closed
            continue
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


def _write(stream: TextIO | None, name: str, text: str) -> None:
    line = printable(text, getattr(stream, "encoding", None) or "utf-8")
    try:
        if stream is None:  # the process was started without it
            raise ValueError
        print(line, file=stream, flush=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from None
    except ValueError:
        raise OSError(errno.EBADF, "it is closed", name) from None


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that could not be decoded (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"
