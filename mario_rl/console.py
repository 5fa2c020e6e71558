"""Lines for the user. No other module prints."""

import sys


def say(text: str) -> None:
    """A line of the result, on stdout.

    Raises:
        BrokenPipeError: if the program that reads the output, such as head, has ended.
    """
    print(text, flush=True)


def note(text: str) -> None:
    """A line beside the result, on stderr."""
    print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """A line about something that went wrong and does not end the program, on stderr."""
    note(f"warning: {text}")
