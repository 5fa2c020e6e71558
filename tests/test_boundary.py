"""What is read from files: a wrong value is refused in one line that names the file and the field.

The wrong values come from the declarations (see mutations.py). So a new field is covered at once.
"""

import os
import random
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest
import torch
from mutations import (
    Mutant,
    mutants,
    random_mutant,
    vouch,
    vouch_for_state,
    writable,
    write_any_json,
    write_tensors,
)
from scripts import ROOT, call

from mario_rl.agent.saved_model import Lineage, Parent, SavedModel
from mario_rl.agent.shipped import model_file
from mario_rl.config import Config
from mario_rl.errors import UserError, shown
from mario_rl.fields import AnyFloat, Array, Count, RunName
from mario_rl.reports.plots import draw_training, save
from mario_rl.reports.recorded_runs import read_run
from mario_rl.storage.checkpoint import CheckpointStore, Manifest
from mario_rl.storage.files import read_json, write_json
from mario_rl.storage.lineage import MAX_PARENTS
from mario_rl.storage.paths import RunPaths
from mario_rl.storage.plain import from_plain, plain_type, to_plain
from mario_rl.storage.records import TABLES, Vouched
from mario_rl.storage.tensor_file import SCHEMA, load_tensors
from mario_rl.training.description import Description
from mario_rl.training.guide import GuideState
from mario_rl.training.state import RunState

SIZES = {"num_envs": 4, "num_actions": 7, "n_step": 10, "slots": 256}  # of the fixture
# More than the suite has time for: MARIO_RL_WRONG_VALUES=1000 writes all of them.
VALUES = int(os.environ.get("MARIO_RL_WRONG_VALUES", "1"))  # of each field, in files
RANDOM = 50 * VALUES  # changes of each kind of file


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunPaths:
    """A small run, in which no field is empty, in the newest format."""
    folder = tmp_path_factory.mktemp("boundary")
    with tarfile.open(ROOT / "tests/fixtures/continued.tar.gz") as archive:
        archive.extractall(folder)
    paths = RunPaths(folder, "before")
    model = SavedModel.load(paths.model)
    lineage = Lineage(2, [Parent("first", 1, 0.5, 300.0, 0.5, "1" * 32)], "2" * 32)
    model = replace(model, lineage=lineage)
    model.save(paths.model)
    store = CheckpointStore(paths.checkpoints)
    checkpoint = store.load(RunState.from_file, RunState.check_frames)
    assert checkpoint.state.learner.update is not None and checkpoint.state.progress is not None
    ways = [np.array([1, 2, 3], dtype=np.uint8), np.array([4], dtype=np.uint8)]
    guide = GuideState(ways, np.array([0, 1, 0, 0]), np.array([3, 1, 0, 0]))
    trainer = checkpoint.state.progress.trainer
    trainer = replace(trainer, rollout=replace(trainer.rollout, guide=guide))
    progress = replace(checkpoint.state.progress, unwritten_model=model, trainer=trainer)
    state = replace(checkpoint.state, lineage=lineage, progress=progress, demonstrations=ways)
    rows = range(checkpoint.frames[0][0], checkpoint.state.progress.trainer.replay.rows_written)
    for path in paths.checkpoints.glob("0*"):
        path.unlink()
    blocks = [np.array(block) for _, block in checkpoint.frames]
    store = CheckpointStore(paths.checkpoints, lineage.run_id)
    store.save(to_plain(state), rows, rows, lambda _: blocks)
    description = read_json(paths.run_json)
    write_json(paths.run_json, {**description, "lineage": to_plain(lineage)})
    return paths


@pytest.fixture
def copy(run, tmp_path, monkeypatch) -> RunPaths:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # thousands of them
    shutil.copytree(run.output_dir, tmp_path, dirs_exist_ok=True)
    return RunPaths(tmp_path, run.run_name)


def content_of(path: Path, kind: str) -> dict[str, Any]:
    content = load_tensors(path, kind)
    return {name: item for name, item in content.items() if name not in ("schema", "kind")}


def read_statistics(paths: RunPaths) -> None:
    read_run(paths.run_name, paths.output_dir)


def load_checkpoint(paths: RunPaths) -> None:
    CheckpointStore(paths.checkpoints).load(RunState.from_file, RunState.check_frames)


def said(read: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> str | None:
    """The line that refuses a file, or that goes back to the checkpoint before; None if neither."""
    try:
        read()
        error = None
    except UserError as caught:
        error = str(caught)
    warned = capsys.readouterr().err
    lines = [line for line in warned.splitlines() if "going back" in line]
    return lines[0] if lines else error


def names(message: str, file: str, mutant: Mutant) -> bool:
    """Whether it is one line that names the file and the field."""
    flag = mutant.field.replace("_", "-")  # what names a setting
    named = shown(mutant.field).strip("'") in message or flag in message
    return file in message and named and len(message) < 400 and message.isprintable()


def some_of(wrong: list[Mutant], count: int = VALUES) -> list[Mutant]:
    """A few of each place, of another kind at each."""
    by_place: dict[tuple[Any, ...], list[Mutant]] = {}
    for mutant in wrong:
        if mutant.place[-1] == "threads" and mutant.value is None:
            continue  # as in older runs
        by_place.setdefault(mutant.place, []).append(mutant)
    chosen = []
    for of_place in by_place.values():
        first = len(chosen) % len(of_place)
        chosen += [*of_place[first:], *of_place[:first]][:count]
    return chosen


def refused(
    wrong: list[Mutant],
    write: Callable[[Any], None],
    read: Callable[[], object],
    content: Any,
    file: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Write and read some of them."""
    assert len(wrong) > 10
    write(content)
    assert said(read, capsys) is None, "what is right must be read"
    failures = []
    for mutant in some_of(wrong):
        write(mutant.of(content))
        try:
            message = said(read, capsys)
        except Exception as error:
            failures.append(f"{mutant}: {error!r:.200}")
            continue
        if message is None or not names(message, file, mutant):
            failures.append(f"{mutant}: {message}")
    write(content)
    assert not failures, f"{len(failures)} of {len(wrong)}:\n" + "\n".join(failures[:40])


def writer_of_state(paths: RunPaths) -> Callable[[Any], None]:
    path = paths.checkpoints / "000001.state.pt"

    def write(content: Any) -> None:
        write_tensors(path, "checkpoint", content)
        vouch_for_state(paths.checkpoints / "000001.json")

    return write


PARTS = ["config", "learner", "progress.trainer", "progress", "replay", ""]


def test_states_in_memory(copy):
    """More wrong values, without files."""
    content = content_of(copy.checkpoints / "000001.state.pt", "checkpoint")
    whole = {"schema": SCHEMA, "kind": "checkpoint", **content}
    RunState.from_file(dict(whole))
    wrong = list(mutants(RunState, content, SIZES))
    assert len(wrong) > 1500
    for mutant in some_of(wrong, 4 * VALUES):
        try:
            RunState.from_file(mutant.of(whole))
            message = "nothing"
        except (ValueError, UserError) as error:
            message = str(error)
        assert names(message, "", mutant), f"{mutant}: {message}"


@pytest.mark.parametrize("part", PARTS)
def test_states(part, copy, capsys):
    content = content_of(copy.checkpoints / "000001.state.pt", "checkpoint")
    if part == "replay":  # only before the first step
        content |= {"progress": None, "replay": content["progress"]["trainer"]["replay"]}
    wrong = list(mutants(RunState, content, SIZES))

    def part_of(mutant: Mutant) -> str:
        place = ".".join(map(str, mutant.place))
        return next(name for name in PARTS if not name or place.startswith(name))

    wrong = [mutant for mutant in wrong if part_of(mutant) == part]
    refused(
        wrong,
        writer_of_state(copy),
        lambda: load_checkpoint(copy),
        content,
        "000001.state.pt",
        capsys,
    )


def test_models(copy, capsys):
    content = content_of(copy.model, "model")
    refused(
        list(mutants(SavedModel, content, SIZES)),
        lambda content: write_tensors(copy.model, "model", content),
        lambda: SavedModel.load(copy.model),
        content,
        copy.model.name,
        capsys,
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("config.json", Config),
        ("run.json", Description),
        ("checksums.json", dict[str, Vouched]),
    ],
)
def test_json(name, kind, copy, capsys):
    path = copy.stats / name
    content = read_json(path)
    wrong = [m for m in mutants(kind, content, SIZES) if writable(m) and len(m.place) > 0]
    refused(
        wrong,
        lambda content: write_any_json(path, content),
        lambda: read_statistics(copy),
        content,
        name,
        capsys,
    )


def test_manifests(copy, capsys):
    path = copy.checkpoints / "000001.json"
    content = read_json(path)
    wrong = [m for m in mutants(Manifest, content, SIZES) if writable(m)]
    wrong = [m for m in wrong if m.field != "schema"]  # has a test of its own
    refused(
        wrong,
        lambda content: write_any_json(path, content),
        lambda: load_checkpoint(copy),
        content,
        path.name,
        capsys,
    )


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_tables(table, copy, capsys):
    path = copy.stats / table.file
    header, *rows = path.read_text().splitlines()
    columns = header.split(",")

    def write(lines: list[str]) -> None:
        path.write_text("\n".join(lines) + "\n")
        vouch(copy.stats, table.file)

    failures = []
    for i, (name, kind) in enumerate(zip(columns, table.columns.values(), strict=True)):
        wrong = {"text", "9" * 30, "9" * 5000, "'", "1;2", "0x10", "\x00", "[]"}
        if plain_type(kind) is int:
            wrong |= {"nan", "inf", "1.5", "1e400", "True", "-1"}
        elif kind != AnyFloat:
            wrong |= {"nan", "inf", "-inf", "1e999"}
        if plain_type(kind) is float:
            wrong -= {"9" * 30, *({"9" * 5000} if kind == AnyFloat else ())}
        for value in sorted(wrong)[i % 3 :: 3] if VALUES < 10 else wrong:
            cells = rows[-1].split(",")
            cells[i] = value
            write([header, *rows[:-1], ",".join(cells)])
            message = said(lambda: read_statistics(copy), capsys)
            if message is None or not names(message, table.file, Mutant((name,), value)):
                failures.append(f"{name} = {value!r:.20}: {message}")
        if name in table.added:
            continue
        for changed in (",".join(columns[:i] + columns[i + 1 :]), header.replace(name, columns[0])):
            if i > 0 and changed != header:
                write([changed])
                message = said(lambda: read_statistics(copy), capsys)
                assert message is not None and table.file in message, changed
    assert not failures, "\n".join(failures)


def test_a_rate_beside_its_interval_is_drawn(copy):
    path = copy.evaluations_csv
    table = pd.read_csv(path).assign(clear_rate=0.5, clear_rate_low=1, clear_rate_high=0)
    table.to_csv(path, index=False)
    vouch(copy.stats, path.name)
    run = read_run(copy.run_name, copy.output_dir)
    save(lambda figure: draw_training(figure, run), copy.stats / "figure.svg")


# not a matter of a single field


def changed_state(copy: RunPaths, change: Callable[[dict[str, Any]], None]) -> None:
    content = content_of(copy.checkpoints / "000001.state.pt", "checkpoint")
    change(content)
    writer_of_state(copy)(content)


def nothing_written(state: dict[str, Any]) -> dict[str, Any]:
    """A trainer before the first row of its replay; returns its state."""
    trainer: dict[str, Any] = state["progress"]["trainer"]
    trainer.update(env_steps=4, updates=0)
    trainer["replay"].update(rows_written=0, priorities=trainer["replay"]["priorities"] * 0)
    trainer["rollout"].update(
        needs_reset=torch.tensor([True] * 4),
        actions=[torch.zeros(0, dtype=torch.uint8)] * 4,
        saved=[0] * 4,
        start=[0] * 4,
    )
    trainer["n_step"] = [[[0, 0, 1.0]]] * 4
    return trainer


def add_to_records(state: dict[str, Any], rows: bytes, file: str = "episodes.csv") -> None:
    records = state["progress"]["records"]
    records[file] = torch.cat([records[file], torch.tensor(list(rows), dtype=torch.uint8)])


RELATIONS = {
    "updates": lambda s: s["progress"]["trainer"].update(env_steps=10**12),  # never to be caught up
    "start[0]": lambda s: s["progress"]["trainer"]["rollout"]["start"].__setitem__(0, 10**6),
    "saved[1]": lambda s: s["progress"]["trainer"]["rollout"]["saved"].__setitem__(1, 10**6),
    "rows_written": lambda s: s["progress"]["trainer"]["replay"].update(rows_written=5),
    "actions": lambda s: s["progress"]["trainer"]["rollout"]["exploration"].update(
        actions=torch.full((4,), 7), steps_left=torch.full((4,), 9)
    ),
    "metrics.loss": lambda s: s["progress"]["trainer"]["metrics"].pop("loss"),
    # NumPy would draw from it for ever.
    "exploration.rng.state.inc": lambda s: s["progress"]["trainer"]["rollout"]["exploration"][
        "rng"
    ].update(state={"state": 0, "inc": 0}),
    "sample_rng.state.inc": lambda s: s["progress"]["trainer"]["sample_rng"]["state"].update(inc=2),
    "update.metrics.loss": lambda s: s["learner"]["update"]["metrics"].pop("loss"),
    "update.metrics.env_steps": lambda s: s["learner"]["update"]["metrics"].update(env_steps=1.0),
    "metrics.hours": lambda s: s["progress"]["trainer"]["metrics"].update(hours=[1.0]),
    "update.slots": lambda s: s["learner"]["update"].update(
        slots=torch.zeros(0, dtype=torch.int64), td_errors=torch.zeros(0)
    ),
    "update.td_errors": lambda s: s["learner"]["update"].update(
        td_errors=s["learner"]["update"]["td_errors"].double() * 0 + 1e39
    ),
    "rows_written is 0, and something was played": lambda s: nothing_written(s)["rollout"].update(
        needs_reset=torch.tensor([False] * 4)
    ),
    "replay.priorities are all 0": lambda s: s["progress"]["trainer"]["replay"].update(
        priorities=s["progress"]["trainer"]["replay"]["priorities"] * 0
    ),
    "replay.priorities holds": lambda s: s["progress"]["trainer"]["replay"]["priorities"].mul_(
        1e-300
    ),
    "n_step[0][0][2]": lambda s: s["progress"]["trainer"].update(n_step=[[[0, 0, 1e39]]] * 4),
    "n_step has a slot": lambda s: nothing_written(s).update(n_step=[[[200, 0, 1.0]]] * 4),
    "records.episodes.csv": lambda s: add_to_records(s, b"garbage\xff\n"),
    "records.evaluations.csv: a row": lambda s: add_to_records(s, b"12\n", "evaluations.csv"),
    "records.episodes.csv: its last row": lambda s: add_to_records(s, b"12"),
    "param_groups": lambda s: s["learner"]["optimizer"].pop("param_groups"),
    "records.updates.csv": lambda s: s["progress"]["records"].update(
        {"updates.csv": torch.tensor([65, 44, 10], dtype=torch.uint8)}
    ),
}


@pytest.mark.parametrize("field", RELATIONS)
def test_fields_that_contradict_each_other(field, copy, capsys):
    changed_state(copy, RELATIONS[field])
    message = said(lambda: load_checkpoint(copy), capsys)
    assert message and "000001.state.pt is damaged" in message and field in message, message


COUNTERS = {
    "averaged_updates": lambda s: s["learner"].update(averaged_updates=10**12 + 1),
    "rows_written": lambda s: s.update(
        progress=None, replay={**s["progress"]["trainer"]["replay"], "rows_written": 10**15}
    ),
    "iteration": lambda s: s["lineage"].update(iteration=10**15),
    "episodes": lambda s: s["progress"]["trainer"].update(episodes=10**15),
    "hours": lambda s: s["progress"]["trainer"].update(hours=9e6),
}


@pytest.mark.parametrize("field", COUNTERS)
def test_a_run_that_could_count_beyond_what_files_hold_is_not_trained(field, copy):
    content = content_of(copy.checkpoints / "000001.state.pt", "checkpoint")
    COUNTERS[field](content)
    state = RunState.from_file({"schema": SCHEMA, "kind": "checkpoint", **content})
    with pytest.raises(UserError, match=rf"{field} is [\d,.]+, and a run .* at most 1,000,000"):
        state.require_room()


def test_neither_a_resume_nor_the_next_iteration_counts_beyond(copy):
    changed_state(copy, COUNTERS["averaged_updates"])
    words = ["--run-name", copy.run_name, "--resume"]
    code, _, errors = call("progressive_mario_trainer.py", words, copy.output_dir)
    assert code == 2 and "averaged_updates is 1,000,000,000,001" in errors, errors

    model = SavedModel.load(copy.model)
    parents = [Parent("first", 1, 0.5, 300.0)] * MAX_PARENTS
    for lineage, message in (
        (Lineage(10**15), "lineage.iteration is 1,000,000,000,000,001"),
        (Lineage(2, parents), "lineage.parents is 10,001"),
    ):
        replace(model, lineage=lineage).save(copy.model)
        words = ["--model-path", str(copy.model), "--device", "cpu"]
        code, _, errors = call("continue_training.py", words, copy.output_dir)
        assert code == 2 and message in errors, errors
        assert len(errors.splitlines()) == 1
        assert not list(copy.checkpoints.parent.glob("*-iter*/*.json")), "a run was created"


def test_a_long_lineage_is_refused_at_once(copy):
    model = SavedModel.load(copy.model)
    parents = [Parent("first", 1, 0.5, 300.0)] * (MAX_PARENTS + 1)
    replace(model, lineage=Lineage(2, parents)).save(copy.model)
    with pytest.raises(UserError, match=r"lineage.parents has 10001 items"):
        SavedModel.load(copy.model)


FRAMES = {
    "object": lambda a: np.array([None, 1], dtype=object),
    "dtype": lambda a: a.astype(np.int16),
    "axes": lambda a: a[0],
    "order": lambda a: np.asfortranarray(a),
    "fewer rows": lambda a: a[1:],
    "another game": lambda a: a[:, :2],
    "size": lambda a: a[:, :, :80],
}


@pytest.mark.parametrize("change", [*FRAMES, "truncated", "no header", "zip"])
def test_frames(change, copy, capsys):
    path = copy.checkpoints / "000001.frames.npy"
    frames = np.load(path)
    if change in FRAMES:
        np.save(path, FRAMES[change](frames), allow_pickle=True)
    elif change == "truncated":
        path.write_bytes(path.read_bytes()[:-5000])
    elif change == "no header":
        path.write_bytes(b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 0xFFFF)
    else:
        with path.open("wb") as file:
            np.savez(file, frames)
    manifest_path = copy.checkpoints / "000001.json"
    manifest = read_json(manifest_path)
    from mario_rl.storage.checkpoint import _fingerprint

    manifest["frames"][0] |= _fingerprint(path)
    write_json(manifest_path, manifest)
    message = said(lambda: load_checkpoint(copy), capsys)
    assert message and "frames" in message and message.isprintable(), message


def test_a_checksum_can_be_anything(copy):
    content = torch.load(copy.model, weights_only=True)
    for checksum in (torch.zeros(3), None, "0", True, [], 0.0):
        torch.save({**content, "checksum": checksum}, copy.model)
        with pytest.raises(UserError, match="checksum is wrong"):
            SavedModel.load(copy.model)


def test_json_that_python_cannot_hold(copy, capsys):
    for text in ("[" * 100_000, '{"lineage": ' + "9" * 5000 + "}", '{"a": NaN', "\0", "\xff"):
        copy.run_json.write_bytes(text.encode("latin-1"))
        message = said(lambda: read_statistics(copy), capsys)
        assert message and "run.json is damaged" in message and message.isprintable(), message


@pytest.mark.parametrize("kind", ["model", "checkpoint", "run.json", "config.json"])
def test_any_change_is_refused_or_harmless(kind, copy, capsys):
    rng = random.Random(kind)
    if kind == "model":
        content = content_of(copy.model, kind)
        write = lambda changed: write_tensors(copy.model, kind, changed)  # noqa: E731
        read: Callable[[], object] = lambda: SavedModel.load(copy.model).network()  # noqa: E731
    elif kind == "checkpoint":
        content = content_of(copy.checkpoints / "000001.state.pt", kind)
        write, read = writer_of_state(copy), lambda: load_checkpoint(copy)
    else:
        content = read_json(copy.stats / kind)
        write = lambda changed: write_any_json(copy.stats / kind, changed)  # noqa: E731
        read = lambda: read_statistics(copy)  # noqa: E731
    count = 0
    for _ in range(RANDOM):
        mutant = random_mutant(content, rng)
        if kind.endswith("json") and not writable(mutant):
            continue
        write(mutant.of(content))
        message = said(read, capsys)  # nothing but a UserError comes out
        assert message is None or message.isprintable()
        count += message is not None
    assert count > RANDOM / 3


def test_a_new_field_is_covered_the_day_it_is_added():
    @dataclass(frozen=True)
    class Part:
        level: Annotated[np.ndarray, Array("uint8", "slots", "[0, 5)")]

    @dataclass(frozen=True)
    class Record:
        name: RunName
        parts: list[Part]
        count: Count = 0
        ratio: float | None = None

    right = {
        "name": "a",
        "parts": [{"level": np.arange(3, dtype=np.uint8)}],
        "count": 1,
        "ratio": 1.5,
    }
    sizes = {"slots": 3}
    from_plain(Record, right, sizes=dict(sizes))
    wrong = list(mutants(Record, right, sizes))
    assert {mutant.field for mutant in wrong} == {
        "name",
        "parts",
        "level",
        "count",
        "ratio",
        "other",
    }
    for mutant in wrong:
        with pytest.raises(ValueError, match=mutant.field):
            from_plain(Record, mutant.of(right), sizes=dict(sizes))


def test_a_field_that_nobody_declares_is_found():
    @dataclass(frozen=True)
    class Record:
        more: dict[str, Any]

    with pytest.raises(AssertionError, match="nobody declares"):
        list(mutants(Record, {"more": {"a": 1}}, {}))


# what is no file


def test_what_is_no_file_is_called_what_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder.pth").mkdir()
    Path("folder").mkdir()
    os.mkfifo("pipe.pth")
    Path("gone.pth").symlink_to("nowhere")
    for path, problem in {
        "folder.pth": "is a directory, not a file",
        "folder": "is a directory, not a file",
        "pipe.pth": "is not a regular file",
        "/dev/null": "is not a regular file",
        "gone.pth": "no such file",
        "a\0b.pth": "no such file",
        "none.pth": "no such file",
    }.items():
        with pytest.raises(UserError, match=problem):
            SavedModel.load(model_file(path))
    code, _, errors = call("eval_mario.py", ["--model-path", "folder"], tmp_path)
    assert (code, errors) == (2, "error: folder is a directory, not a file\n")


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(UserError, match=r"model\.pth cannot be read: Permission denied"):
        SavedModel.load(path)
