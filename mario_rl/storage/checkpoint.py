"""The checkpoints of a run. One consists of three files in `checkpoints/NAME/`:

    000007.frames.npy   the replay's frames since checkpoint 6: each frame is written once
    000007.state.pt     everything else that the future of the run depends on
    000007.json         names both, and the older frames still in the replay, with checksums

The JSON file is written last and makes the checkpoint exist. Only then are the files removed that
no kept checkpoint needs. If the files of a checkpoint do not match it, a warning is printed and the
checkpoint before is used.
"""

import contextlib
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import numpy as np

from mario_rl.console import warn
from mario_rl.errors import DamagedFile, UserError
from mario_rl.storage.files import atomic_write, read_json, write_json
from mario_rl.storage.tensor_file import SCHEMA, check_schema, load_tensors, save_tensors

KEPT_CHECKPOINTS = 3

State = TypeVar("State")


@dataclass(frozen=True)
class Checkpoint(Generic[State]):
    """What `CheckpointStore.load` returns."""

    state: State
    frames: list[tuple[int, np.ndarray]]  # (first row, uint8 [rows, N, 84, 84]), oldest first


class CheckpointStore:
    """The checkpoints of one run."""

    def __init__(self, directory: Path, run_id: str | None = None) -> None:
        """
        Args:
            run_id: of a new run. `load` finds the id of an earlier one.
        """
        self._directory = directory
        self._run_id = run_id
        self._segments: list[dict[str, Any]] = []  # frames on disk that are still in the replay
        self._damaged: list[Path] = []

    def exists(self) -> bool:
        return bool(self._manifests())

    def saved_run_id(self) -> str | None:
        """The id of the run that saved the newest checkpoint; None if it has none."""
        for path in sorted(self._manifests(), key=_number, reverse=True):
            with contextlib.suppress(UserError):
                return read_json(path).get("run_id")
        return None

    def new_rows(self, rows: range) -> range:
        """The rows of the replay whose frames are not on disk, or not any more."""
        if not all(self._is_there(segment) for segment in self._segments):
            warn(f"files in {self._directory} are gone or changed; the next checkpoint has all")
            self._segments = []
        first = self._segments[-1]["end_row"] if self._segments else 0
        return range(max(rows.start, first), rows.stop)

    def _is_there(self, segment: dict[str, Any]) -> bool:
        path = self._directory / segment["file"]
        return path.is_file() and path.stat().st_size == segment["bytes"]

    def save(
        self,
        state: dict[str, Any],
        rows: range,
        new_rows: range,
        frames_of: Callable[[range], list[np.ndarray]],
    ) -> None:
        """Write a checkpoint, then remove what only checkpoints older than the last three need.

        Args:
            state: tensors, arrays and primitives.
            rows: the rows that the replay holds.
            new_rows: what `new_rows` returned for them.
            frames_of: returns the frames of rows, contiguous uint8 [rows, N, 84, 84].

        Raises:
            UserError: if the disk is full or not writable; older checkpoints are untouched.
        """
        number = max((_number(path) for path in self._manifests()), default=0) + 1
        stem = f"{number:06}"
        segments = [segment for segment in self._segments if segment["end_row"] > rows.start]
        try:
            if new_rows:
                blocks = frames_of(new_rows)
                path = self._directory / f"{stem}.frames.npy"
                atomic_write(path, lambda file: _write_npy(file, blocks))
                segments.append(
                    {"first_row": new_rows.start, "end_row": rows.stop, **_fingerprint(path)}
                )
            path = self._directory / f"{stem}.state.pt"
            save_tensors(path, "checkpoint", state)
            manifest = {
                "schema": SCHEMA,
                "run_id": self._run_id,
                "state": _fingerprint(path),
                "frames": segments,
            }
            write_json(self._directory / f"{stem}.json", manifest)
        except OSError as error:
            raise UserError(
                f"cannot save a checkpoint in {self._directory}: {error.strerror}; "
                "the checkpoints before it are intact"
            ) from None
        self._segments = segments
        self._prune()

    def load(self, decode: Callable[[dict[str, Any]], State]) -> Checkpoint[State]:
        """The newest checkpoint whose files are intact.

        Args:
            decode: turns what was saved into the state. It may raise
                AttributeError, KeyError, TypeError or ValueError if that is damaged.

        Raises:
            UserError: if there is none.
        """
        for path in sorted(self._manifests(), key=_number, reverse=True):
            try:
                checkpoint, self._segments = self._load(path, decode)
                return checkpoint
            except DamagedFile as error:
                warn(f"{error}; going back to the checkpoint before")
                self._damaged.append(path)
        raise UserError(
            f"{self._directory} holds no usable checkpoint; continue_training.py "
            "starts a new run from the best model"
        )

    def _load(
        self, path: Path, decode: Callable[[dict[str, Any]], State]
    ) -> tuple[Checkpoint[State], list[dict[str, Any]]]:
        manifest = read_json(path)
        check_schema(path, manifest.get("schema"))
        try:
            segments = manifest["frames"]
            for entry in (manifest["state"], *segments):
                self._verify(entry)
            state = load_tensors(self._directory / manifest["state"]["file"], "checkpoint")
            decoded = decode(state)
            frames = [
                (segment["first_row"], np.load(self._directory / segment["file"], mmap_mode="r"))
                for segment in segments
            ]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DamagedFile(f"{path} is damaged: {error!r:.80}") from None
        self._run_id = manifest.get("run_id")
        return Checkpoint(decoded, frames), segments

    def _verify(self, entry: dict[str, Any]) -> None:
        path = self._directory / Path(entry["file"]).name
        if not path.is_file():
            raise DamagedFile(f"{path} is missing")
        if _fingerprint(path) != {key: entry[key] for key in ("file", "bytes", "crc32")}:
            raise DamagedFile(f"{path} is damaged: its checksum is wrong")

    def _manifests(self) -> list[Path]:
        return [p for p in self._directory.glob("*.json") if re.fullmatch(r"\d{6,}", p.stem)]

    def _prune(self) -> None:
        manifests = sorted(self._manifests(), key=_number)
        kept = [path for path in manifests if path not in self._damaged][-KEPT_CHECKPOINTS:]
        needed = {path.name for path in kept}
        for path in kept:
            try:
                manifest = read_json(path)
                needed.update(entry["file"] for entry in (manifest["state"], *manifest["frames"]))
            except (DamagedFile, KeyError, TypeError) as error:
                warn(f"{path} is damaged: {error!r:.80}")
        for path in set(manifests) - set(kept):
            path.unlink()  # first, so that no checkpoint ever names a file that is gone
        for path in self._directory.iterdir():
            if re.match(r"\d{6,}\.", path.name) and path.name not in needed:
                path.unlink(missing_ok=True)


def _write_npy(file: BinaryIO, blocks: list[np.ndarray]) -> None:
    """Write blocks, uint8, as one array. Joining them could take as much memory as the replay."""
    shape = (sum(map(len, blocks)), *blocks[0].shape[1:])
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
    for block in blocks:
        file.write(block.data)


def _number(path: Path) -> int:
    return int(path.stem)


def _fingerprint(path: Path) -> dict[str, Any]:
    crc, size = 0, 0
    for block in _blocks(path):
        crc, size = zlib.crc32(block, crc), size + len(block)
    return {"file": path.name, "bytes": size, "crc32": crc}


def _blocks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            yield block
