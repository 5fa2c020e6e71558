"""run.json and config.json: what a run is, and how it was made."""

import datetime
import sys
from dataclasses import asdict

from mario_rl.agent.saved_model import Lineage
from mario_rl.config import Config
from mario_rl.console import command_line, warn
from mario_rl.errors import DamagedFile
from mario_rl.machine import git_commit, hardware, versions
from mario_rl.storage.files import read_json, write_json
from mario_rl.storage.paths import RunPaths


def describe_run(paths: RunPaths, config: Config, lineage: Lineage) -> None:
    """Write config.json, as a resume may have changed the budget; and run.json, if it is new."""
    write_json(paths.config_json, config.to_dict())
    try:
        if paths.run_json.exists():
            read_json(paths.run_json)
            return
    except DamagedFile as error:
        warn(f"{error}; it is written again")
    description = {
        "schema": 1,
        "run_name": paths.run_name,
        "created": _now(),
        "command": command_line(sys.argv),
        "lineage": asdict(lineage),
        "git_commit": git_commit(),
        "versions": versions(),
        "hardware": hardware(),
        "sessions": [],
    }
    write_json(paths.run_json, description)


def note_session(paths: RunPaths, env_steps: int) -> None:
    """Add to run.json that the run is started or resumed here."""
    description = read_json(paths.run_json)
    session = {"started": _now(), "command": command_line(sys.argv), "env_steps": env_steps}
    description["sessions"] = [*description.get("sessions", []), session]
    write_json(paths.run_json, description)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
