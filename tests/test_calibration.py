"""How many threads PyTorch gets."""

import time
from contextlib import closing

import numpy as np
import pytest
import torch

import mario_rl
from mario_rl.config import Config
from mario_rl.errors import UserError
from mario_rl.games.interface import RECORD_DTYPE
from mario_rl.games.serial import SerialGames
from mario_rl.storage.paths import RunPaths
from mario_rl.training import calibration, decisions
from mario_rl.training.assembly import build_learner
from mario_rl.training.calibration import candidates, fastest_threads

CONFIG = Config().replaced(
    {"stage": "1-1", "num_envs": 2, "n_step": 1, "replay_ratio": 16.0, "batch_size": 32}
)  # an update for each step of the games


class Machine:
    """A learner and games that take as long as they are told to, at the same time."""

    def __init__(self, update_s: dict[int, float], step_s: float) -> None:
        self.num_envs = 2
        self.threads: list[int] = []
        self._update_s, self._step_s, self._ends = update_s, step_s, 0.0

    def set_threads(self, threads):
        self.threads.append(threads)

    def begin_update(self, batch):
        self._ends = time.perf_counter() + self._update_s[self.threads[-1]]

    def fetch_update(self):
        time.sleep(max(0.0, self._ends - time.perf_counter()))

    def step_async(self, commands, noop_frames):
        pass

    def step_wait(self):
        time.sleep(self._step_s)
        return None, np.zeros(2, dtype=RECORD_DTYPE)


@pytest.mark.parametrize(
    ("cores", "update_s", "step_s", "expected"),
    [
        (4, {1: 0.016, 2: 0.008, 4: 0.004}, 0.001, 4),
        (4, {1: 0.016, 2: 0.008, 4: 0.012}, 0.001, 2),
        (2, {1: 0.008, 2: 0.016}, 0.001, 1),  # they wait for each other
        (1, {1: 0.004}, 0.001, 1),
    ],
)
def test_the_least_time_for_a_step_wins(cores, update_s, step_s, expected, monkeypatch):
    monkeypatch.setattr(calibration, "available_cores", lambda: cores)
    machine = Machine(update_s, step_s)
    assert fastest_threads(CONFIG, machine, machine) == expected
    assert set(machine.threads) == set(update_s)


def test_it_measures_the_real_thing(monkeypatch):
    monkeypatch.setattr(calibration, "available_cores", lambda: 2)
    threads = []
    with (
        closing(SerialGames(CONFIG.env, 2, pytest.fail)) as games,
        closing(build_learner(CONFIG, torch.device("cpu"))) as learner,
    ):
        set_threads = learner.set_threads
        learner.set_threads = lambda number: [
            set_threads(number),
            threads.append(learner._thread.submit(torch.get_num_threads).result()),
        ]
        assert fastest_threads(CONFIG, learner, games) in candidates() == [1, 2]
        assert threads == [1, 1, 2]
        assert learner.fetch_update() is None, "all updates were fetched"


def test_other_threads_keep_their_number():
    """The thread that chooses actions has one, whatever the learner has."""
    before = torch.get_num_threads()
    with closing(build_learner(CONFIG, torch.device("cpu"))) as learner:
        learner.set_threads(before + 1)
        assert torch.get_num_threads() == before
    torch.set_num_threads(before)


SMALL = {
    "stage": "1-1", "num_envs": 2, "batch_size": 16, "learning_starts": 60, "max_steps": 60,
    "replay_capacity": 400, "stall_steps": 8, "eval_episodes": 1, "games": "serial",
}  # fmt: skip


@pytest.fixture
def measured(monkeypatch):
    """What the measurements of a run will find, and how often it measures."""
    found = [1, 2, 3]
    monkeypatch.setattr(decisions, "candidates", lambda: [1, 2, 3])
    monkeypatch.setattr(decisions, "fastest_threads", lambda *parts: found.pop(0))
    return found


@pytest.mark.parametrize("given", [{}, {"threads": 0}])
def test_a_run_measures_once_and_keeps_what_it_found(measured, tmp_path, given):
    mario_rl.train("run", tmp_path, **SMALL, **given)
    mario_rl.train("run", tmp_path, resume=True, max_steps=70, **given)
    assert measured == [2, 3]
    assert mario_rl.read_run("run", tmp_path).config.run.threads == 1


def test_a_shortage_while_measuring_is_one_line_and_leaves_nothing(monkeypatch, tmp_path):
    def fastest_threads(*parts):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 1 byte")

    monkeypatch.setattr(decisions, "candidates", lambda: [1, 2])
    monkeypatch.setattr(decisions, "fastest_threads", fastest_threads)
    with pytest.raises(UserError, match="memory is short"):
        mario_rl.train("run", tmp_path, **SMALL)
    assert not RunPaths(tmp_path, "run").exists()
