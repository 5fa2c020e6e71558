"""run.json, config.json and config.yaml: what a run is, and how it was made."""

import datetime
import sys
from dataclasses import asdict, dataclass, field, replace

from mario_rl.config import Config
from mario_rl.console import command_line, warn
from mario_rl.errors import DamagedFile
from mario_rl.fields import Count, Number, RunName
from mario_rl.machine import git_commit, hardware, versions
from mario_rl.settings_file import text_of
from mario_rl.storage.files import atomic_write, read_json, write_json
from mario_rl.storage.lineage import Lineage
from mario_rl.storage.paths import RunPaths
from mario_rl.storage.plain import read_as


@dataclass(frozen=True)
class SessionNote:
    """When a run was started or resumed, and how."""

    started: str
    command: str
    env_steps: Count


@dataclass(frozen=True, kw_only=True)
class Description:
    """The content of run.json. Only the lineage is needed to read a run."""

    schema: Number = 1
    run_name: RunName | None = None
    created: str = ""
    command: str = ""
    lineage: Lineage
    git_commit: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, str | int | bool | None] = field(default_factory=dict)
    sessions: list[SessionNote] = field(default_factory=list)


def read_description(paths: RunPaths) -> Description:
    """
    Raises:
        UserError: if run.json is missing or damaged.
    """
    description: Description = read_as(Description, read_json(paths.run_json), paths.run_json)
    return description


def describe_run(paths: RunPaths, config: Config, lineage: Lineage) -> None:
    """Write config.json and config.yaml, as a resume may have changed the budget; and run.json, if
    it is new."""
    write_json(paths.config_json, config.to_dict())
    text = text_of(config).encode()
    atomic_write(paths.config_yaml, lambda file: file.write(text))
    try:
        if paths.run_json.exists():
            read_description(paths)
            return
    except DamagedFile as error:
        warn(f"{error}; it is written again")
    description = Description(
        run_name=paths.run_name,
        created=_now(),
        command=command_line(sys.argv),
        lineage=lineage,
        git_commit=git_commit(),
        versions=versions(),
        hardware=hardware(),
    )
    write_json(paths.run_json, asdict(description))


def note_session(paths: RunPaths, env_steps: int) -> None:
    """Add to run.json that the run is started or resumed here."""
    description = read_description(paths)
    session = SessionNote(_now(), command_line(sys.argv), env_steps)
    sessions = [*description.sessions, session]
    write_json(paths.run_json, asdict(replace(description, sessions=sessions)))


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
