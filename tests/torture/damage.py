"""Every kind of file that is read, truncated and with flipped bits; and with other content, for
which the checksums are right.

What reads it must then say in one line that it is damaged, or come to what it came to before, or,
of a run with several checkpoints, to an older one, and say so. Only content whose checksums are
right may be read as something else.
"""

import contextlib
import io
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mutations import random_mutant, vouch, vouch_for_state, writable, write_any_json, write_tensors

from mario_rl.agent.saved_model import SavedModel
from mario_rl.errors import UserError
from mario_rl.reports.recorded_runs import read_run
from mario_rl.storage.checkpoint import CheckpointStore
from mario_rl.storage.files import read_json
from mario_rl.storage.plain import to_plain
from mario_rl.training.state import RunState
from torture.victims import Run, digest

LIMIT_S = 60  # an endless loop ends with an error


def damage(content: bytes, rng: random.Random) -> bytes:
    """Cut the end off, flip bits, overwrite a piece or put one in."""
    kind = rng.choice(["truncate", "flip", "flip", "overwrite", "insert"])
    place = rng.randrange(len(content))
    if kind == "truncate":
        return content[:place]
    if kind == "flip":
        flipped = bytearray(content)
        for _ in range(rng.choice([1, 1, 2, 8, 64])):
            flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    piece = rng.randbytes(rng.choice([1, 4, 16, 256]))
    return content[:place] + piece + content[place + (len(piece) if kind == "overwrite" else 0) :]


def rewrite(path: Path, rng: random.Random) -> dict[Path, bytes]:
    """Put something else somewhere into a file, and make the checksums right.

    Returns:
        What the files held that were written.
    """
    before = {path: path.read_bytes()}
    if path.suffix == ".json":
        content = read_json(path)
        mutant = random_mutant(content, rng)
        while not writable(mutant):
            mutant = random_mutant(content, rng)
        write_any_json(path, mutant.of(content))
    elif path.suffix == ".csv":
        lines = path.read_text().splitlines()
        cells = rng.choice(lines).split(",")
        number = lines.index(",".join(cells))
        cells[rng.randrange(len(cells))] = rng.choice(
            ["", "x", "-1", "nan", "inf", "9" * 30, "1,1"]
        )
        lines[number] = ",".join(cells)
        path.write_text("\n".join(lines) + "\n")
        checksums = path.with_name("checksums.json")
        if checksums.exists():
            before[checksums] = checksums.read_bytes()
            vouch(path.parent, path.name)
    else:
        content = torch.load(path, weights_only=True)
        content.pop("checksum", None)
        mutant = random_mutant(content, rng)
        write_tensors(path, content["kind"], mutant.of(content))
        if path.suffix == ".pt":
            manifest = path.with_name(f"{path.name.split('.')[0]}.json")
            before[manifest] = manifest.read_bytes()
            vouch_for_state(manifest)
    return before


def readers(run: Run) -> dict[Path, Callable[[], Any]]:
    """The files of a run, each with what reads it; a reader returns what can be compared."""

    def model() -> Any:
        return digest(vars(SavedModel.load(run.paths.model)))

    def statistics() -> Any:
        read = read_run(run.paths.run_name, run.paths.output_dir)
        tables = [frame.to_csv() for frame in (read.episodes, read.updates, read.evaluations)]
        return digest([read.iteration, read.ancestors, read.config, tables])

    return {
        run.paths.model: model,
        **{path: lambda: _checkpoint(run) for path in run.paths.checkpoints.glob("0*")},
        **{
            path: statistics
            for path in run.paths.stats.iterdir()
            if path.suffix in (".csv", ".json")
        },
    }


def _checkpoint(run: Run) -> str:
    loaded = CheckpointStore(run.paths.checkpoints).load(RunState.from_file, RunState.check_frames)
    return digest([to_plain(loaded.state), loaded.frames])


def torture(run: Run, damages: int, rng: random.Random) -> Counter[str]:
    """Damage each file in turn, read, and put it right again.

    Returns:
        How often each kind of file was damaged, and what came of it.
    """
    counts: Counter[str] = Counter()
    files = readers(run)
    intact = {path: _read(reader) for path, reader in files.items()}
    older = _older_checkpoints(run)
    for number in range(damages):
        path = sorted(files)[number % len(files)]
        before = {path: path.read_bytes()}
        vouched = path.suffix != ".npy" and rng.random() < 0.5
        try:
            if vouched:
                before = rewrite(path, rng)
            else:
                path.write_bytes(damage(before[path], rng))
            result, said = _read(files[path])
        finally:
            for changed, content in before.items():
                changed.write_bytes(content)
        if result is None:
            assert len(said) >= 1 and "Traceback" not in "".join(said), (path, said)
            outcome = "refused in one line"
        elif result == intact[path][0]:
            outcome = "read as it was"
        elif result in older and any("going back" in line for line in said):
            outcome = "fell back to an older checkpoint, and said so"
        else:
            assert vouched, (path, said)
            outcome = "read as what it says, with right checksums"
        counts["with right checksums"] += vouched
        counts[_kind(path)] += 1
        counts[outcome] += 1
    assert {path: _read(reader) for path, reader in files.items()} == intact
    return counts


def _read(reader: Callable[[], Any]) -> tuple[Any, list[str]]:
    """What it returns, None for a UserError; and the lines on stderr, or the error's."""
    stderr = io.StringIO()
    signal.alarm(LIMIT_S)
    try:
        with contextlib.redirect_stderr(stderr):
            result = reader()
    except UserError as error:
        assert len(str(error).splitlines()) == 1, error
        return None, [str(error)]
    finally:
        signal.alarm(0)
    return result, stderr.getvalue().splitlines()


def _older_checkpoints(run: Run) -> set[Any]:
    """What is read when the newest checkpoint is gone, and the one before that."""
    found = set()
    hidden = []
    try:
        for manifest in sorted(run.paths.checkpoints.glob("0*.json"))[:0:-1]:
            hidden.append((manifest, manifest.read_bytes()))
            manifest.unlink()
            found.add(_checkpoint(run))
    finally:
        for manifest, content in hidden:
            manifest.write_bytes(content)
    return found


def _kind(path: Path) -> str:
    return path.name.split(".", 1)[1] if path.name[0] == "0" else path.name
