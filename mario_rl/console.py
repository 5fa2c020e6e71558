"""How the library speaks to the user: nothing else in it prints."""

import sys


def say(text: str) -> None:
    """A line of the result, on stdout.

    Raises:
        BrokenPipeError: if the reader, such as head, has gone.
    """
    print(text, flush=True)


def note(text: str) -> None:
    """A line beside the result, on stderr."""
    print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """A line about something that went wrong and does not end the program, on stderr."""
    note(f"warning: {text}")
