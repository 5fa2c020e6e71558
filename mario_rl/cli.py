"""What the scripts share: flags made from the configuration, and errors as one line."""

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from mario_rl.config import Config
from mario_rl.console import drop_unwritten, note, open_closed_streams, say
from mario_rl.errors import UserError
from mario_rl.settings import choices_of, contains, flag_of, value_type
from mario_rl.settings_file import read_settings


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def __init__(self, description: str | None = None, prog: str | None = None) -> None:
        super().__init__(prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        note(f"{_one_line(f'{self.prog}: {message}')} (see --help)")
        sys.exit(2)

    def print_help(self, file: Any = None) -> None:
        say(self.format_help().rstrip("\n"))


def add_config_flags(parser: argparse.ArgumentParser, show_defaults: bool = True) -> None:
    """One flag for each setting of Config, in its groups, and --config. A setting that has only one
    choice gets no flag. A flag that is not given is left out of the result."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="take settings from this YAML file, such as recipes/1-1.yaml; flags override it",
    )
    for part in fields(Config):
        group_type: Any = part.default_factory
        group = parser.add_argument_group(group_type.__doc__)
        for item in fields(group_type):
            choices = choices_of(item)
            if len(choices) == 1:
                continue  # nothing to choose, until a second part is registered
            notes = [item.metadata["unit"]] if item.metadata["unit"] else []
            if show_defaults:
                notes.append(f"default: {'no limit' if item.default is None else item.default}")
            flag, kind = flag_of(item.name), value_type(item)
            help = item.metadata["help"] + (f" ({'; '.join(notes)})" if notes else "")
            if kind is bool:
                action = argparse.BooleanOptionalAction
                group.add_argument(flag, action=action, default=argparse.SUPPRESS, help=help)
                continue
            group.add_argument(
                flag,
                type=kind,
                choices=choices or None,
                metavar=None if choices and len(choices) < 6 else item.name.split("_")[-1].upper(),
                default=argparse.SUPPRESS,
                help=help,
            )


def number(kind: type[int] | type[float], interval: str) -> Callable[[str], float]:
    """The type of a flag whose value is a number in an interval such as "[0, 1]"."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r:.40} is no {kind.__name__}") from None
        if not contains(interval, value):
            raise argparse.ArgumentTypeError(f"{value} is not in {interval}")
        return value

    return parse


def given_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of Config that the command line or the file of --config named, by their flat
    names.

    Raises:
        UserError: as `read_settings`.
    """
    names = Config().flat()
    given = {name: value for name, value in vars(args).items() if name in names}
    return {**(read_settings(args.config) if args.config else {}), **given}


def setting_sources(args: argparse.Namespace) -> dict[str, str]:
    """Where the settings come from that are not the default, by their flat names: the command line
    or the file of --config."""
    flags = {name: "command line" for name in vars(args).keys() & Config().flat().keys()}
    if args.config is None:
        return flags
    return {**dict.fromkeys(read_settings(args.config), str(args.config)), **flags}


@contextmanager
def ending_at_ctrl_c() -> Iterator[None]:
    """Inside the block, Ctrl-C ends the process at once unless other code handles it.

    A KeyboardInterrupt in PyTorch's native code, above all while PyTorch is imported, would abort
    the process with a stack trace.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:  # as in the background of a script
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def run_script(main: Callable[[], None]) -> NoReturn:
    """Run a script: exit code 0, or 2 with one line on stderr, or 130 after Ctrl-C."""
    open_closed_streams()
    try:
        main()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # one more ends what Python does at its end
        sys.exit(130)
    except BrokenPipeError:  # the program that reads our output, such as head, has ended
        sys.exit(0)
    # OSError: a full disk, a read-only folder. The message names the file.
    except (UserError, OSError) as error:
        note(f"error: {_one_line(str(error))}")
        sys.exit(2)
    finally:
        drop_unwritten()
    sys.exit(0)


def _one_line(message: str) -> str:
    """The message without line breaks and cut, as it may quote anything that the user gave."""
    line = " ".join(message.splitlines())
    return line if len(line) <= 1000 else f"{line[:500]} ... {line[-500:]}"
