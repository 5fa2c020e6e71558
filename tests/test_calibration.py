"""How many threads PyTorch gets."""

import pytest
import torch

from mario_rl.config import Config
from mario_rl.training import calibration
from mario_rl.training.assembly import build_learner
from mario_rl.training.calibration import fastest_threads

CONFIG = Config().replaced({"stage": "1-1", "replay_ratio": 32.0, "batch_size": 32})


@pytest.mark.parametrize(
    ("cores", "update_s", "decision_s", "expected"),
    [
        # An update for each env step. The learner alone: the more threads the better, if they help
        (4, {1: 8.0, 2: 4.0, 4: 2.0}, 0.0, 4),
        (4, {1: 8.0, 2: 7.9, 4: 9.0}, 0.0, 2),
        # Slow games want the cores: 2 threads cost more work than they save
        (2, {1: 4.0, 2: 3.0}, 8.0, 1),
        # Fast games leave them: (2 * 3 + 0.5) / 2 = 3.25 s is less than 4
        (2, {1: 4.0, 2: 3.0}, 0.5, 2),
        (1, {1: 4.0}, 8.0, 1),
    ],
)
def test_the_least_time_for_an_env_step_wins(cores, update_s, decision_s, expected, monkeypatch):
    monkeypatch.setattr(calibration, "available_cores", lambda: cores)
    monkeypatch.setattr(calibration, "_decision_s", lambda config: decision_s)
    monkeypatch.setattr(
        calibration, "_update_s", lambda config, learner, threads: update_s[threads]
    )
    assert fastest_threads(CONFIG, None) == expected


def test_it_measures_the_real_thing():
    threads = torch.get_num_threads()
    try:
        spare = build_learner(CONFIG, torch.device("cpu"))
        assert calibration._decision_s(CONFIG) > 0
        assert calibration._update_s(CONFIG, spare, 1) > 0
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
