"""What a run will need is checked before its first step: an error hours later would cost more."""

import os
import shutil
from pathlib import Path

from mario_rl.agent.network import Weights
from mario_rl.config import Config
from mario_rl.console import warn_once
from mario_rl.errors import UserError
from mario_rl.games.emulator import resolved
from mario_rl.games.workers import required_descriptors
from mario_rl.machine import allow_open_files
from mario_rl.replay.prioritized import PrioritizedReplay
from mario_rl.storage.checkpoint import KEPT_CHECKPOINTS
from mario_rl.storage.files import make_directory
from mario_rl.storage.paths import RunPaths
from mario_rl.storage.trackers import require_library

# The state in a checkpoint: four networks, and two numbers for each weight in the optimizer.
_STATE_PER_NETWORK = 6


def check_machine(paths: RunPaths, config: Config, weights: Weights) -> None:
    """
    Args:
        weights: of one network.

    Raises:
        UserError: if the run's files cannot be written, or its games not be opened.
    """
    for folder in (paths.checkpoints, paths.stats, paths.model.parent):
        _check_folder(folder)
    for path in (paths.model, paths.config_json, paths.run_json):
        if path.is_dir():
            raise UserError(f"{path} is a folder, and the run needs a file there: move it away")
    _check_disk(paths, config, weights)
    require_library(config.run.track)
    resolved(config.env.emulator)  # a run that is resumed may have come from another machine
    if config.run.games == "workers":
        # Twice: for the games of the training, and of the evaluations.
        allow_open_files(2 * required_descriptors(config.env, config.exploration.num_envs))


def _check_folder(folder: Path) -> None:
    make_directory(folder)
    probe = folder / f"probe.{os.getpid()}.tmp"
    try:
        probe.write_bytes(b"probe")
        probe.unlink()
    except OSError as error:
        raise UserError(f"cannot write in {folder}: {error.strerror}") from None


def _check_disk(paths: RunPaths, config: Config, weights: Weights) -> None:
    network = sum(tensor.nbytes for tensor in weights.values())
    states = (KEPT_CHECKPOINTS + 1) * _STATE_PER_NETWORK * network
    frames = PrioritizedReplay.required_bytes(config.replay, config.env.frame_shape)
    written = sum(path.stat().st_size for path in paths.checkpoints.iterdir())
    free = shutil.disk_usage(paths.checkpoints).free
    needed = f"{free / 2**30:.1f} GiB are free in {paths.checkpoints}, and checkpoints take"
    if free + written < states:
        raise UserError(f"{needed} {states / 2**30:.1f} GiB: free some, or use --output-dir")
    if free + written < states + frames:
        warn_once(f"{needed} {(states + frames) / 2**30:.1f} GiB when the replay is full")
