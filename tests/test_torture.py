"""The short form of `make torture`: a run that is stopped in every way ends as one that is not."""

import random
import tarfile
from pathlib import Path

import pytest
from torture import damage, faults, stops
from torture.victims import Run, reference

EPISODES = 8
SEED = 1


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return reference(tmp_path_factory.mktemp("expected"), "expected", EPISODES, SEED)


@pytest.mark.parametrize(
    "disturbances",
    [[stops.kill, stops.let_the_clock_jump],
     [stops.fill_disk, stops.make_read_only, stops.kill_worker]],
    ids=["kills", "others"],
)  # fmt: skip
def test_a_run_that_is_stopped_ends_as_one_that_is_not(expected, disturbances, tmp_path):
    run = Run(tmp_path, "stopped", EPISODES, SEED)
    counts = stops.torment(run, iter(disturbances), random.Random(3))
    assert counts, "nothing was stopped"
    assert run.outcome() == expected


def test_damaged_files_are_noticed(tmp_path):
    fixture = Path(__file__).parent / "fixtures" / "schema2.tar.gz"
    with tarfile.open(fixture) as archive:
        archive.extractall(tmp_path)
    counts = damage.torture(Run(tmp_path, "old", 1, 0), 40, random.Random(0))
    assert counts["refused in one line"] > 10
    assert {"old.pth", "state.pt", "json", "frames.npy", "episodes.csv"} <= set(counts)


def test_a_run_whose_writes_fail_ends_as_one_whose_writes_succeed(tmp_path):
    rng = random.Random(0)
    runs = faults.Torture(tmp_path)
    for at in rng.sample(range(runs.writes), 3):
        counts = runs.fail(at, rng)
        assert counts["survived"] == 1
