"""A run is known by its id. Names are labels, which the user may give to something else."""

import contextlib
import itertools
import os
import re
import shutil
import tarfile
import threading
from dataclasses import replace

import numpy as np
import pytest
from scripts import ROOT, call

from mario_rl.agent.saved_model import SavedModel
from mario_rl.errors import UserError
from mario_rl.machine import resident_memory_bytes
from mario_rl.reports import playback
from mario_rl.storage.checkpoint import CheckpointStore
from mario_rl.storage.files import reserved
from mario_rl.storage.paths import RunPaths
from mario_rl.training.continuation import create_iteration, find_best_model
from mario_rl.training.description import read_description
from mario_rl.training.state import RunState

OTHER_ID = "0" * 32


def unpack(fixture, folder):
    """The run "old" of a fixture; its paths."""
    with tarfile.open(ROOT / "tests" / "fixtures" / fixture) as archive:
        archive.extractall(folder)
    return RunPaths(folder, "old")


@pytest.fixture
def run(tmp_path):
    return unpack("schema5.tar.gz", tmp_path)


def give_another_id(path):
    """As a model file of another run."""
    model = SavedModel.load(path)
    replace(model, lineage=replace(model.lineage, run_id=OTHER_ID)).save(path)


def rename(run, name):
    """Rename all that a run has; returns its new paths."""
    renamed = RunPaths(run.output_dir, name)
    run.model.rename(renamed.model)
    run.checkpoints.rename(renamed.checkpoints)
    run.stats.rename(renamed.stats)
    return renamed


def continue_from(model_path, folder, name=None):
    """A run that begins with a model; its paths and what was said."""
    said = []
    paths = create_iteration(
        model_path, folder, run_name=name, iteration=None, changes={}, reset_optimizer=False,
        say=said.append,
    )  # fmt: skip
    return paths, said[0]


def lineages(paths):
    """What each file of a run says it is."""
    store = CheckpointStore(paths.checkpoints)
    yield store.load(RunState.from_file).state.lineage
    yield read_description(paths).lineage
    if paths.model.exists():
        yield SavedModel.load(paths.model).lineage


def test_a_run_its_files_and_its_descendants_have_its_id(run):
    heir, _ = continue_from(run.model, run.output_dir)
    heir_again, _ = continue_from(run.model, run.output_dir)
    ids = []
    for paths in (run, heir, heir_again):
        first, *others = lineages(paths)
        assert re.fullmatch("[0-9a-f]{32}", first.run_id)
        assert all(other == first for other in others)
        assert CheckpointStore(paths.checkpoints).saved_run_id() == first.run_id
        ids.append(first.run_id)
    assert len(set(ids)) == 3
    assert [parent.run_id for parent in next(lineages(heir)).parents] == ids[:1]


def test_a_descendant_measures_its_threads_on_its_own_machine(run, monkeypatch):
    monkeypatch.setattr("mario_rl.training.decisions.candidates", lambda: [1, 2, 3])
    monkeypatch.setattr("mario_rl.training.decisions.fastest_threads", lambda *parts: 3)
    model = SavedModel.load(run.model)
    replace(model, config=model.config.replaced({"threads": 64})).save(run.model)
    heir, _ = continue_from(run.model, run.output_dir)
    assert CheckpointStore(heir.checkpoints).load(RunState.from_file).state.config.run.threads == 3


def test_the_replay_is_that_of_the_models_run_whatever_has_its_name(run):
    base = run.model.rename(run.model.with_name("base.pth"))
    run.stats.rename(run.output_dir / "stats-moved-away")
    away = run.checkpoints.rename(run.output_dir / "moved-away")
    # Another run, with frames of its own, is called "old" now.
    (run.output_dir / "elsewhere").mkdir()
    donor = unpack("schema5.tar.gz", run.output_dir / "elsewhere")
    other, _ = continue_from(donor.model, donor.output_dir, "other")
    shutil.move(other.checkpoints, run.checkpoints)
    heir, said = continue_from(base, run.output_dir)
    assert f"replay empty: {run.checkpoints} is of another run" in said
    assert CheckpointStore(heir.checkpoints).load(RunState.from_file).state.replay is None

    away.rename(run.checkpoints.with_name("base"))
    heir, said = continue_from(base, run.output_dir)
    assert "replay of 'base'" in said and "by the name" not in said
    inherited = CheckpointStore(heir.checkpoints).load(RunState.from_file).state.replay
    original = CheckpointStore(run.checkpoints.with_name("base")).load(RunState.from_file)
    assert np.array_equal(inherited.actions, original.state.progress.trainer.replay.actions)


def test_a_run_without_an_id_is_found_by_its_name(tmp_path, run):
    old = unpack("schema4.tar.gz", tmp_path / "before")
    heir, said = continue_from(old.model, old.output_dir)
    assert "replay of 'old' (found by the name: older models have no run id)" in said
    assert next(lineages(heir)).parents[0].run_id is None
    # What has an id is not the run of a model without one.
    shutil.rmtree(old.checkpoints)
    shutil.copytree(run.checkpoints, old.checkpoints)
    _, said = continue_from(old.model, old.output_dir)
    assert f"replay empty: {old.checkpoints} is of another run" in said


def test_a_renamed_run_is_resumed(run):
    before = next(lineages(run))
    renamed = rename(run, "t0")
    words = ["--run-name", "t0", "--resume", "--max-steps", "150"]
    code, output, errors = call("progressive_mario_trainer.py", words, run.output_dir)
    assert code == 0 and errors == "" and "resumed at 2 episodes" in output
    assert all(lineage == before for lineage in lineages(renamed))
    assert CheckpointStore(renamed.checkpoints).saved_run_id() == before.run_id
    assert not run.exists()


@pytest.mark.parametrize("kind", ["model", "stats"])
def test_a_resumed_run_does_not_overwrite_another_run(run, kind):
    taken = run.model if kind == "model" else run.stats
    if kind == "model":
        give_another_id(run.model)
    else:
        shutil.rmtree(run.stats)
        other, _ = continue_from(run.model, run.output_dir, "other")
        other.stats.rename(run.stats)
    files = [run.model, *run.stats.iterdir()]
    before = {path: path.read_bytes() for path in files}
    words = ["--run-name", "old", "--resume", "--output-dir", str(run.output_dir)]
    code, _, errors = call("progressive_mario_trainer.py", words, run.output_dir)
    assert code == 2 and errors.count("\n") == 1
    assert f"{taken} is of another run" in errors and "move it away" in errors
    assert {path: path.read_bytes() for path in files} == before


def test_the_table_shows_files(run):
    shutil.copy(run.model, run.model.with_name("from-b.pth"))
    said = []
    find_best_model(run.output_dir, None, said.append)
    header, *rows = said[0].splitlines()
    assert header.split()[0] == "model"
    labels = [re.split("  +", row[2:])[0] for row in rows]
    assert sorted(labels) == ["from-b.pth (run old)", "old.pth"]


def better(model, path, mean_x):
    replace(model, evaluation=replace(model.evaluation, mean_x=mean_x)).save(path)


def test_a_damaged_candidate_is_passed_over(run, capsys):
    """Whether the damage is in what the table shows, or in the weights, which it does not read."""
    model = SavedModel.load(run.model)
    in_header, in_weights = (run.model.with_name(f"damaged{number}.pth") for number in (1, 2))
    better(model, in_header, 9_000.0)
    content = bytearray(in_header.read_bytes())
    content[content.index(b"run_name") + 2] ^= 1
    in_header.write_bytes(content)
    better(model, in_weights, 8_000.0)
    content = bytearray(in_weights.read_bytes())
    content[len(content) // 2] ^= 1
    in_weights.write_bytes(content)
    said = []
    assert find_best_model(run.output_dir, None, said.append) == run.model
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 2 and all("passed over" in line for line in warnings)
    assert str(in_header) in warnings[0] and str(in_weights) in warnings[1]
    assert "damaged" not in said[0]


def test_candidates_are_not_held_in_memory(run):
    for number in range(20):
        os.link(run.model, run.model.with_name(f"copy{number}.pth"))
    memory = []
    find_best_model(run.output_dir, None, lambda _: None)  # what Python and PyTorch need once
    before = resident_memory_bytes()
    find_best_model(run.output_dir, None, lambda _: memory.append(resident_memory_bytes()))
    assert memory[0] - before < 5 * run.model.stat().st_size < 60e6


def test_the_default_name_is_free(run):
    folder = run.output_dir
    names = [continue_from(run.model, folder)[0].run_name for _ in range(2)]
    with RunPaths(folder, "old-iter2-3").lock():  # as while another process creates it
        third, _ = continue_from(run.model, folder)
    assert [*names, third.run_name] == ["old-iter2", "old-iter2-2", "old-iter2-4"]
    assert [next(lineages(RunPaths(folder, name))).iteration for name in names] == [2, 2]
    model = SavedModel.load(run.model)
    lineage = next(lineages(RunPaths(folder, "old-iter2-2")))
    replace(model, run_name="old-iter2-2", lineage=lineage).save(folder / "models/third.pth")
    assert continue_from(folder / "models/third.pth", folder)[0].run_name == "old-iter3"
    longest = "n" * 80
    replace(model, run_name=longest).save(folder / "models" / f"{longest}.pth")
    heirs = [continue_from(folder / "models" / f"{longest}.pth", folder)[0] for _ in range(2)]
    assert [heir.run_name[-10:] for heir in heirs] == ["nnnn-iter2", "nn-iter2-2"]


def test_a_name_that_was_asked_for_is_not_changed(run):
    continue_from(run.model, run.output_dir, "mine")
    with pytest.raises(UserError, match="run 'mine' exists"):
        continue_from(run.model, run.output_dir, "mine")
    with (
        RunPaths(run.output_dir, "yours").lock(),
        pytest.raises(UserError, match="is being trained by"),
    ):
        continue_from(run.model, run.output_dir, "yours")


def test_names_are_taken_when_they_are_chosen(tmp_path):
    start, names = threading.Barrier(8), []

    def take():
        start.wait()
        with reserved(tmp_path / "videos", "run_1-1", "mp4") as path:
            names.append(path.name)
            start.wait()

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbered = (f"run_1-1_{number}.mp4" for number in itertools.count(2))
    assert sorted(names) == sorted(["run_1-1.mp4", *itertools.islice(numbered, 7)])


def test_a_name_that_cannot_be_taken_is_told(tmp_path):
    with (
        pytest.raises(UserError, match=r"cannot write .*mp4: "),
        reserved(tmp_path, "n" * 300, "mp4"),
    ):
        pass


def test_an_aborted_recording_leaves_nothing(run, monkeypatch):
    folder = run.output_dir / "videos"
    folder.mkdir()
    (folder / "old_1-1.mp4").write_bytes(b"an earlier one")
    seen = []

    def play(*_, **__):
        seen.extend(path.name for path in folder.glob("old_1-1_2.mp4"))
        raise KeyboardInterrupt

    monkeypatch.setattr(playback, "play_episodes", play)
    request = playback.Request(
        model_path=run.model, output_dir=run.output_dir, episodes=1, record=True
    )
    with contextlib.suppress(KeyboardInterrupt):
        playback.evaluate_model(request, seen.append)
    assert seen == ["old_1-1_2.mp4"]
    assert [path.name for path in folder.iterdir()] == ["old_1-1.mp4"]


def test_a_loop_goes_on_after_an_iteration_that_was_no_better(run):
    for name in ("old-iter2", "old-iter2-2"):
        code, output, errors = call("continue_training.py", [], run.output_dir)
        assert code == 0 and errors == ""
        assert re.search(r"^> old\.pth", output, re.MULTILINE) and f"created run '{name}'" in output
        better(SavedModel.load(run.model), run.model.with_name(f"{name}.pth"), 0.0)
