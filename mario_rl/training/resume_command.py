"""What to type to resume a run."""

import os
import shutil
import sys
from pathlib import Path

from mario_rl.console import command_line
from mario_rl.storage.paths import RunPaths

# Those of pyproject.toml that train.
_INSTALLED_COMMANDS = ("mario-train", "mario-continue")


def resume_command(paths: RunPaths) -> str:
    """The command line that resumes a run, for the current directory.

    It names the installed command if this process was started by an installed command, or else the
    script.
    """
    started = Path(sys.argv[0])
    if started.name in _INSTALLED_COMMANDS:
        words = [_shortest("mario-train", started.with_name("mario-train"))]
    else:
        script = Path(__file__).parents[2] / "progressive_mario_trainer.py"
        words = [_shortest("python", Path(sys.executable)), _relative(script)]
    words += ["--run-name", paths.run_name, "--resume"]
    if not _is_here(paths.output_dir):
        folder = str(paths.output_dir)
        words += [f"--output-dir={folder}"] if folder.startswith("-") else ["--output-dir", folder]
    return command_line(words)


def _is_here(folder: Path) -> bool:
    try:
        return folder.resolve() == Path.cwd()
    except FileNotFoundError:  # the current directory was deleted
        return False


def _shortest(name: str, program: Path) -> str:
    """The name, if that finds the same program, or else its path."""
    found = shutil.which(name)
    same = found is not None and Path(found).absolute() == program.absolute()
    return name if same else _relative(program)


def _relative(path: Path) -> str:
    try:
        return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
    except FileNotFoundError:  # as above
        return str(path)
