"""The checkpoints of a run. One consists of three files in `checkpoints/NAME/`:

    000007.frames.npy   the replay's frames since checkpoint 6: each frame is written once
    000007.state.pt     everything else that the future of the run depends on
    000007.json         names both, and the older frames still in the replay, with checksums

The JSON file is written last and makes the checkpoint exist. Only then are the files removed that
no kept checkpoint needs. If the files of a checkpoint do not match it, a warning is printed and the
checkpoint before is used.
"""

import contextlib
import itertools
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import numpy as np

from mario_rl.console import warn
from mario_rl.errors import DamagedFile, UserError, first_line
from mario_rl.fields import Checksum, Count, FileName, Number, RunId
from mario_rl.machine import allow_open_files
from mario_rl.storage.files import atomic_write, read_json, reading_error, write_json
from mario_rl.storage.plain import read_as
from mario_rl.storage.tensor_file import SCHEMA, check_schema, load_tensors, save_tensors

KEPT_CHECKPOINTS = 3

State = TypeVar("State")
Frames = list[tuple[int, np.ndarray]]  # (first row, uint8 [rows, N, H, W]), oldest first


@dataclass(frozen=True)
class StateFile:
    """The file of the state, in a manifest."""

    file: FileName
    bytes: Count
    crc32: Checksum


@dataclass(frozen=True)
class Segment:
    """A file of frames, in a manifest."""

    first_row: Count
    end_row: Count
    file: FileName
    bytes: Count
    crc32: Checksum


@dataclass(frozen=True)
class Manifest:
    """The JSON file of a checkpoint."""

    schema: Number
    state: StateFile
    frames: list[Segment]  # oldest first
    run_id: RunId | None = None  # None for a run of an older version

    @property
    def files(self) -> list[StateFile | Segment]:
        return [self.state, *self.frames]


@dataclass(frozen=True)
class Checkpoint(Generic[State]):
    """What `CheckpointStore.load` returns."""

    state: State
    frames: Frames


class CheckpointStore:
    """The checkpoints of one run."""

    def __init__(self, directory: Path, run_id: str | None = None) -> None:
        """
        Args:
            run_id: of a new run. `load` finds the id of an earlier one.
        """
        self._directory = directory
        self._run_id = run_id
        self._segments: list[Segment] = []  # frames on disk that are still in the replay
        self._damaged: list[Path] = []

    def exists(self) -> bool:
        return bool(self._manifests())

    def saved_run_id(self) -> str | None:
        """The id of the run that saved the newest checkpoint; None if it has none."""
        for path in sorted(self._manifests(), key=_number, reverse=True):
            with contextlib.suppress(UserError):
                return self._manifest(path).run_id
        return None

    def new_rows(self, rows: range) -> range:
        """The rows of the replay whose frames are not on disk, or not any more."""
        if not all(self._is_there(segment) for segment in self._segments):
            warn(f"files in {self._directory} are gone or changed; the next checkpoint has all")
            self._segments = []
        first = self._segments[-1].end_row if self._segments else 0
        return range(max(rows.start, first), rows.stop)

    def _is_there(self, segment: Segment) -> bool:
        try:
            return (self._directory / segment.file).stat().st_size == segment.bytes
        except OSError:
            return False

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
            frames_of: returns the frames of rows, contiguous uint8 [rows, N, H, W].

        Raises:
            UserError: if the disk is full or not writable; older checkpoints are untouched.
        """
        # A folder of such a name, which is none of ours, keeps its number.
        number = max(map(_number, self._named_as_manifests()), default=0) + 1
        stem = f"{number:06}"
        segments = [segment for segment in self._segments if segment.end_row > rows.start]
        try:
            if new_rows:
                blocks = frames_of(new_rows)
                path = self._directory / f"{stem}.frames.npy"
                atomic_write(path, lambda file: _write_npy(file, blocks))
                segments.append(Segment(new_rows.start, rows.stop, **_fingerprint(path)))
            path = self._directory / f"{stem}.state.pt"
            save_tensors(path, "checkpoint", state)
            manifest = Manifest(SCHEMA, StateFile(**_fingerprint(path)), segments, self._run_id)
            write_json(self._directory / f"{stem}.json", asdict(manifest))
        except OSError as error:
            raise UserError(
                f"cannot save a checkpoint in {self._directory}: {error.strerror}; "
                "the checkpoints before it are intact"
            ) from None
        self._segments = segments
        self._prune()

    def load(
        self,
        decode: Callable[[dict[str, Any]], State],
        check_frames: Callable[[State, Frames], None] = lambda state, frames: None,
    ) -> Checkpoint[State]:
        """The newest checkpoint whose files are intact.

        Args:
            decode: turns what was saved into the state. It raises a ValueError that names the
                field if that is damaged.
            check_frames: raises a ValueError unless the frames are those of the state.

        Raises:
            UserError: if there is none.
        """
        for path in sorted(self._manifests(), key=_number, reverse=True):
            try:
                checkpoint, self._segments = self._load(path, decode, check_frames)
                return checkpoint
            except DamagedFile as error:
                warn(f"{error}; going back to the checkpoint before")
                self._damaged.append(path)
        raise UserError(
            f"{self._directory} holds no usable checkpoint; continue_training.py "
            "starts a new run from the best model"
        )

    def _load(
        self,
        path: Path,
        decode: Callable[[dict[str, Any]], State],
        check_frames: Callable[[State, Frames], None],
    ) -> tuple[Checkpoint[State], list[Segment]]:
        manifest = self._manifest(path)
        for entry in manifest.files:
            self._verify(entry)
        state_path = self._directory / manifest.state.file
        content = load_tensors(state_path, "checkpoint")
        allow_open_files(len(manifest.frames))  # one for each that is mapped
        frames = [self._frames(path, segment) for segment in manifest.frames]
        try:
            state = decode(content)
            check_frames(state, frames)
        except ValueError as error:
            raise DamagedFile(f"{state_path} is damaged: {error}") from None
        except UserError as error:
            raise UserError(f"{state_path}: {error}") from None
        self._run_id = manifest.run_id
        return Checkpoint(state, frames), manifest.frames

    def _manifest(self, path: Path) -> Manifest:
        content = read_json(path)
        check_schema(path, content.get("schema"))
        manifest: Manifest = read_as(Manifest, content, path)
        for before, segment in itertools.pairwise(manifest.frames):
            if segment.first_row != before.end_row:
                raise DamagedFile(
                    f"{path} is damaged: frames.first_row is {segment.first_row} after the end_row "
                    f"{before.end_row}"
                )
        return manifest

    def _verify(self, entry: StateFile | Segment) -> None:
        path = self._directory / entry.file
        try:
            found = _fingerprint(path)
        except FileNotFoundError:
            raise DamagedFile(f"{path} is missing") from None
        except OSError as error:
            raise reading_error(path, error) from None
        if (found["bytes"], found["crc32"]) != (entry.bytes, entry.crc32):
            raise DamagedFile(f"{path} is damaged: its checksum is wrong")

    def _frames(self, manifest_path: Path, segment: Segment) -> tuple[int, np.ndarray]:
        path = self._directory / segment.file
        try:
            frames = np.lib.format.open_memmap(path, mode="r")  # type: ignore[no-untyped-call]
        except OSError as error:
            raise reading_error(path, error) from None
        except Exception as error:  # NumPy reads the header as Python, which can fail in any way
            raise DamagedFile(f"{path} is damaged: {first_line(error)}") from None
        if frames.dtype != np.uint8 or frames.ndim != 4 or not frames.flags.c_contiguous:
            raise DamagedFile(f"{path} is damaged: it holds {frames.dtype} {frames.shape}")
        if len(frames) != segment.end_row - segment.first_row:
            raise DamagedFile(
                f"{manifest_path} is damaged: {segment.file} has {len(frames)} rows, which does "
                f"not lead from its first_row to end_row {segment.end_row}"
            )
        return segment.first_row, frames

    def _manifests(self) -> list[Path]:
        return [path for path in self._named_as_manifests() if path.is_file()]

    def _named_as_manifests(self) -> list[Path]:
        return [p for p in self._directory.glob("*.json") if re.fullmatch(r"\d{6,}", p.stem)]

    def _prune(self) -> None:
        manifests = sorted(self._manifests(), key=_number)
        kept = [path for path in manifests if path not in self._damaged][-KEPT_CHECKPOINTS:]
        needed = {path.name for path in kept}
        for path in kept:
            try:
                needed.update(entry.file for entry in self._manifest(path).files)
            except UserError as error:
                warn(str(error))
        for path in set(manifests) - set(kept):
            path.unlink()  # first, so that no checkpoint ever names a file that is gone
        for path in self._directory.iterdir():
            is_ours = re.match(r"\d{6,}\.", path.name) and path.is_file()
            if is_ours and path.name not in needed:
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
