"""The training loop: it solves a small task, and a resumed run is the run that never stopped."""

import itertools
import os
import random
import signal
import threading
import time
from contextlib import closing
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from games import Corridor

from mario_rl.agent.dqn import DQN
from mario_rl.agent.saved_model import Lineage
from mario_rl.config import Config
from mario_rl.errors import UserError
from mario_rl.evaluation.figures import Evaluation
from mario_rl.games.interface import CLEAR, DEATH, RUNNING
from mario_rl.games.serial import SerialGames
from mario_rl.games.workers import WorkerGames
from mario_rl.registry import BACKENDS, LEARNERS
from mario_rl.storage.checkpoint import CheckpointStore
from mario_rl.storage.paths import RunPaths
from mario_rl.storage.plain import to_plain
from mario_rl.storage.recorder import Recorder
from mario_rl.storage.records import EVALUATIONS, UPDATES, read_records
from mario_rl.storage.trackers import Tracker
from mario_rl.training import rollout
from mario_rl.training.assembly import build_games, build_learner, build_trainer
from mario_rl.training.budget import budget_spent
from mario_rl.training.evaluator import Evaluator, EvaluatorState
from mario_rl.training.state import Progress, RunState

SMALL = Config().replaced(
    {
        "num_envs": 4,
        "batch_size": 16,
        "learning_starts": 64,
        "replay_capacity": 600,
        "replay_ratio": 1.0,
        "target_period": 100,
        "eps_decay": 800,
        "importance_steps": 1000,
        "hold_actions": False,  # the same action twice is death
        "action_set": "right",  # as many actions as the corridor has
    }
)


def make_trainer(config, tmp_path, name, contents=None):
    learner = build_learner(config, torch.device("cpu"))
    exploration = config.exploration
    games = SerialGames.of(
        [Corridor(save_points=i < exploration.num_retrying) for i in range(exploration.num_envs)]
    )
    recorder = Recorder(RunPaths(tmp_path, name), contents or {}, Tracker())
    return build_trainer(config, learner, games, recorder)


def evaluate(trainer, games, best=None, should_stop=lambda: False):
    """Returns the evaluation and the evaluator."""
    evaluator = Evaluator(trainer, EvaluatorState(best))
    return evaluator.evaluate(games, should_stop), evaluator


def figures(clear_rate, mean_stages_cleared, mean_x=0.0):
    """Of an earlier evaluation."""
    zeros = {item.name: 0 for item in fields(Evaluation)}
    values = {"clear_rate": clear_rate, "mean_stages_cleared": mean_stages_cleared}
    return Evaluation(**{**zeros, **values, "mean_x": mean_x})


def weights_of(trainer):
    return {k: v.clone() for k, v in trainer.learner.begin_state().result().online_net.items()}


def csv_without_clock(tmp_path, name, file):
    frame = pd.read_csv(tmp_path / "stats" / name / file)
    clock = ["hours", "env_steps_per_s", "updates_per_s", "memory_bytes"]
    return frame.drop(columns=[column for column in clock if column in frame])


def test_solves_a_small_task(tmp_path):
    config = SMALL.replaced(
        {"replay_ratio": 4.0, "learning_rate": 5e-4, "replay_capacity": 2000, "eps_decay": 1000,
         "eval_episodes": 5}
    )  # fmt: skip
    trainer = make_trainer(config, tmp_path, "solve")
    while trainer.env_steps < 1500:
        trainer.step()
    games = SerialGames.of([Corridor() for _ in range(2)])
    with torch.no_grad():
        trainer.learner.online_net.advantage[2].weight.zero_()
    evaluation, _ = evaluate(trainer, games)
    assert evaluation.clear_rate >= 0.8, "the average is judged"


def test_speeds_are_those_of_training_alone(tmp_path, monkeypatch):
    paused = 0.0
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + paused)
    monkeypatch.setattr("mario_rl.training.update_log.time", clock)
    trainer = make_trainer(SMALL, tmp_path, "speed")

    def slow() -> bool:
        nonlocal paused
        paused += 1000
        return False

    evaluate(trainer, SerialGames.of([Corridor()]), should_stop=slow)
    while trainer.update_log.loss is None:
        trainer.step()
    speeds = read_records(tmp_path / "stats" / "speed" / "updates.csv", UPDATES)["env_steps_per_s"]
    assert paused > 1000 and speeds[0] > 1


def test_reward_scale_is_a_factor_of_what_is_learned_from(tmp_path):
    returns = {}
    for scale in (1.0, 0.03):
        trainer = make_trainer(SMALL.replaced({"reward_scale": scale}), tmp_path, str(scale))
        while trainer.env_steps < 64:
            trainer.step()
        returns[scale] = trainer.replay.state().returns
    assert np.count_nonzero(returns[1.0]) > 20
    np.testing.assert_allclose(returns[0.03], 0.03 * returns[1.0], rtol=1e-5)


def test_updates_follow_the_replay_ratio_not_the_clock(tmp_path):
    trainer = make_trainer(SMALL, tmp_path, "ratio")
    while trainer.env_steps < 400:
        before = trainer.env_steps
        trainer.step()
        assert trainer.updates == max(0, int((before - 64) * 1.0 / 16))


def test_updates_shrink_as_the_learning_rate_decays(tmp_path):
    """Adam's steps are as large as its rate: 90 % of it goes, and with it most of the movement."""
    moved = {}
    for name, decay in (("constant", 0), ("decayed", 64)):
        trainer = make_trainer(SMALL.replaced({"lr_decay": decay}), tmp_path, name)
        while trainer.updates == 0:
            trainer.step()
        before = weights_of(trainer)
        while trainer.updates < 6:
            trainer.step()
        after = weights_of(trainer)
        moved[name] = sum((after[key] - before[key]).abs().sum().item() for key in before)
    assert moved["decayed"] == pytest.approx(0.1 * moved["constant"], rel=0.3)


def test_same_seed_same_run_and_another_seed_another(tmp_path):
    runs = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        trainer = make_trainer(SMALL.replaced({"seed": seed}), tmp_path, name)
        while trainer.env_steps < 600:
            trainer.step()
        runs[name] = weights_of(trainer)
    assert all(torch.equal(runs["a"][key], runs["b"][key]) for key in runs["a"])
    assert not all(torch.equal(runs["a"][key], runs["c"][key]) for key in runs["a"])


class SlowLearner(DQN):
    def update(self, batch):
        time.sleep(random.random() / 2)
        return super().update(batch)


class SlowWorkers(WorkerGames):
    def step_async(self, commands, arguments):
        super().step_async(commands, arguments)
        if random.random() < 0.2:
            pid = random.choice(self.pids())
            os.kill(pid, signal.SIGSTOP)
            threading.Timer(random.random() / 5, os.kill, (pid, signal.SIGCONT)).start()


def play_real_game(tmp_path, monkeypatch, learner_type, games_type):
    monkeypatch.setitem(LEARNERS._parts, "dqn", learner_type)
    monkeypatch.setitem(BACKENDS._parts, "workers", games_type)
    config = SMALL.replaced(
        {"stage": "1-1", "action_set": "simple", "num_envs": 2, "stall_steps": 5}
    )
    learner = build_learner(config, torch.device("cpu"))
    paths = RunPaths(tmp_path, f"{learner_type.__name__}-{games_type.__name__}")
    with (
        closing(build_games(config, 2, print)) as games,
        closing(Recorder(paths, {}, Tracker())) as recorder,
    ):
        trainer = build_trainer(config, learner, games, recorder)
        while trainer.env_steps < 200:
            trainer.step()
        assert trainer.updates > 3 and trainer.episodes > 1
        return weights_of(trainer), vars(trainer.replay.state())


def test_timing_changes_nothing(tmp_path, monkeypatch):
    expected, expected_replay = play_real_game(tmp_path, monkeypatch, DQN, WorkerGames)
    for types in ((SlowLearner, WorkerGames), (DQN, SlowWorkers), (DQN, SerialGames)):
        actual, replay = play_real_game(tmp_path, monkeypatch, *types)
        assert all(torch.equal(expected[key], actual[key]) for key in expected)
        assert all(np.array_equal(expected_replay[key], replay[key]) for key in replay)


@pytest.mark.parametrize(
    ("inherited", "stop_after"), [(0, 0), (0, 3), (0, 70), (0, 160), (38, 0), (38, 1)]
)
def test_resumed_run_equals_one_that_never_stopped(tmp_path, inherited, stop_after):
    config = SMALL.replaced({"hold_actions": True})
    parent = make_trainer(config, tmp_path, "parent")
    for _ in range(inherited):
        parent.step()
    frames = [(0, block) for block in parent.replay.ring.frames_of(parent.replay.ring.rows)]
    whole = make_trainer(config, tmp_path, "whole")
    first = make_trainer(config, tmp_path, "parts")
    store = CheckpointStore(tmp_path / "parts")
    for trainer in (whole, first):
        trainer.replay.load_state(parent.replay.state(), frames)
        for _ in range(stop_after):
            trainer.step()
    progress = Progress(
        first.state(),
        EvaluatorState(),
        checkpointed_episodes=0,
        records={
            name: np.frombuffer(content, np.uint8)
            for name, content in first.recorder.contents().items()
        },
    )
    state = RunState(config, Lineage(), first.learner.begin_state().result(), progress)
    rows = first.replay.ring.rows
    store.save(to_plain(state), rows, rows, first.replay.ring.frames_of)
    for _ in range(7):  # what happens after the checkpoint is lost in the crash
        first.step()

    checkpoint = CheckpointStore(tmp_path / "parts").load(RunState.from_file)
    state = checkpoint.state
    resumed = make_trainer(
        config,
        tmp_path,
        "parts",
        {name: content.tobytes() for name, content in state.progress.records.items()},
    )
    resumed.learner.load_state(state.learner)
    resumed.load_state(state.progress.trainer, checkpoint.frames)
    for trainer in (whole, resumed):
        for _ in range(60):
            trainer.step()

    expected, actual = weights_of(whole), weights_of(resumed)
    assert all(torch.equal(expected[key], actual[key]) for key in expected)
    priorities = [t.replay.state().priorities for t in (whole, resumed)]
    assert np.array_equal(*priorities)
    slots = np.flatnonzero(priorities[0])
    assert len(slots) > 60
    assert np.array_equal(whole.replay.ring.stacks(slots), resumed.replay.ring.stacks(slots))
    for file in ("episodes.csv", "updates.csv"):
        pd.testing.assert_frame_equal(
            csv_without_clock(tmp_path, "whole", file), csv_without_clock(tmp_path, "parts", file)
        )


def test_games_go_on_from_their_save_points(tmp_path, monkeypatch):
    monkeypatch.setattr(rollout, "MAX_RETRIES", 3)
    trainer = make_trainer(SMALL.replaced({"max_steps": 3000, "eps_end": 1.0}), tmp_path, "retries")
    while budget_spent(trainer) < 1:
        trainer.step()
    episodes = csv_without_clock(tmp_path, "retries", "episodes.csv")
    assert (episodes[episodes["env"] >= 2]["start_step"] == 0).all()
    for env in (0, 1):
        rows = list(episodes[episodes["env"] == env].itertuples())
        save_x = retries = given_up = 0
        for row, following in itertools.pairwise(rows):
            if row.start_step == 0:
                save_x = 0
            if row.outcome != "clear" and row.max_x >= save_x + 3:  # a column where it saves
                save_x, retries = row.max_x // 3 * 3, 0
            goes_on = row.outcome != "clear" and save_x > 0 and retries < 3
            assert (following.start_step > 0) == goes_on
            assert following.max_x >= save_x if goes_on else following.start_step == 0
            given_up += row.outcome != "clear" and retries == 3
            retries += goes_on
        assert sum(row.start_step > 0 for row in rows) > 30 and given_up > 0


def test_budgets_and_evaluation_times(tmp_path):
    config = SMALL.replaced({"max_steps": 120, "eval_interval": 50, "eval_episodes": 2})
    trainer = make_trainer(config, tmp_path, "budget")
    evaluator = Evaluator(trainer, EvaluatorState())
    games = SerialGames.of([Corridor()])
    evaluated_at = []
    while budget_spent(trainer) < 1 or evaluator.due:
        if evaluator.due:
            evaluator.evaluate(games, lambda: False)
            evaluated_at.append(trainer.env_steps)
        else:
            trainer.step()
    assert [steps // 50 for steps in evaluated_at] == [1, 2, 2]
    assert evaluated_at[-1] == trainer.env_steps >= 120


def test_interrupted_evaluation_stays_due(tmp_path):
    config = SMALL.replaced({"eval_interval": 10, "eval_episodes": 2})
    trainer = make_trainer(config, tmp_path, "interrupted")
    evaluator = Evaluator(trainer, EvaluatorState())
    while not evaluator.due:
        trainer.step()
    assert evaluator.evaluate(SerialGames.of([Corridor()]), lambda: True) is None
    assert evaluator.due and evaluator.best is None


def test_best_evaluation_is_kept(tmp_path):
    trainer = make_trainer(SMALL.replaced({"eval_episodes": 1}), tmp_path, "best")
    games = SerialGames.of([Corridor()])
    first, evaluator = evaluate(trainer, games)
    assert evaluator.best is first
    better = replace(first, mean_stages_cleared=1.5, mean_x=99.0)
    second, evaluator = evaluate(trainer, games, best=better)
    assert evaluator.best is better is not second
    evaluations = read_records(tmp_path / "stats" / "best" / "evaluations.csv", EVALUATIONS)
    assert evaluations["is_best"].tolist() == [1, 0]


class FirstEpisodes(Corridor):
    """The first so many episodes are cleared by the first decision, the others end in death."""

    def __init__(self, cleared: int) -> None:
        super().__init__()
        self._left = cleared

    def step(self, action):
        self._left -= 1
        return self._frame(), 0.0, True, False, self._status(CLEAR if self._left >= 0 else DEATH)


@pytest.mark.parametrize(
    ("cleared", "best", "played", "is_best"),
    # Of 1 of 2 the interval ends at 0.91.
    [(1, 0.95, 2, 0), (1, 0.85, 10, 0), (2, 0.85, 10, 0), (8, 0.85, 10, 0), (9, 0.85, 10, 1)],
)
def test_what_may_be_the_best_is_played_on_before_it_is(tmp_path, cleared, best, played, is_best):
    trainer = make_trainer(SMALL.replaced({"eval_episodes": 2}), tmp_path, "lucky")
    games = SerialGames.of([FirstEpisodes(cleared)])
    evaluation, evaluator = evaluate(trainer, games, figures(best, best))
    assert (evaluation.clears, evaluation.eval_episodes) == (cleared, played)
    assert evaluator.best.clear_rate == (cleared / played if is_best else best)


@pytest.mark.parametrize(("cleared", "is_best"), [(1, 0), (8, 1)])
def test_the_best_of_the_full_game_clears_most_stages(tmp_path, cleared, is_best):
    trainer = make_trainer(SMALL.replaced({"eval_episodes": 2}), tmp_path, "full")

    class TwoStages(FirstEpisodes):
        def _status(self, outcome):
            return super()._status(outcome)._replace(stages_cleared=2 * (outcome == CLEAR))

    games = SerialGames.of([TwoStages(cleared)])
    evaluation, evaluator = evaluate(trainer, games, figures(1.0, 1.0))
    assert (evaluation.clears, evaluation.eval_episodes) == (cleared, 10)
    assert (evaluator.best is evaluation) == is_best


def test_what_has_cleared_nothing_is_not_played_on(tmp_path):
    trainer = make_trainer(SMALL.replaced({"eval_episodes": 2}), tmp_path, "early")
    evaluation, evaluator = evaluate(trainer, SerialGames.of([FirstEpisodes(0)]))
    assert (evaluation.clears, evaluation.eval_episodes) == (0, 2)
    assert evaluator.best is evaluation


class LongerEpisodes(Corridor):
    """The first episode takes 3 decisions, then 1, then 2, and each of them earns 1."""

    def __init__(self) -> None:
        super().__init__()
        self._left = [3, 1, 2]

    def step(self, action):
        self._left[0] -= 1
        ended = self._left[0] == 0
        if ended:
            del self._left[0]
        return self._frame(), 1.0, ended, False, self._status(DEATH if ended else RUNNING)


def test_the_typical_game_is_the_median(tmp_path):
    trainer = make_trainer(SMALL.replaced({"eval_episodes": 3}), tmp_path, "median")
    _, evaluator = evaluate(trainer, SerialGames.of([LongerEpisodes()]))
    assert len(evaluator.typical.actions) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": {"loss": 1.0, "env_steps": 1.0}}, r"metrics\.env_steps has the name"),
        ({"metrics": {"loss": 1.0, "a b": 1.0}}, r"metrics\.'a b' names a column"),
        ({"metrics": {"td_error": 1.0}}, r"metrics\.loss is missing"),
        ({"slots": np.zeros(0, np.int64), "td_errors": np.zeros(0)}, "slots is empty"),
        ({"td_errors": np.full(16, np.inf)}, "diverged"),
    ],
)
def test_what_a_learner_returns_is_checked(change, message, tmp_path, monkeypatch):
    trainer = make_trainer(SMALL, tmp_path, "learner")
    update = trainer.learner.update
    monkeypatch.setattr(trainer.learner, "update", lambda batch: replace(update(batch), **change))
    with pytest.raises(UserError, match=message) as caught:
        while trainer.updates < 3:
            trainer.step()
    assert str(caught.value).isprintable()


def test_diverged_training_stops_with_one_line(tmp_path):
    trainer = make_trainer(SMALL, tmp_path, "diverged")
    with torch.no_grad():
        trainer.learner.online_net.value[2].bias.fill_(float("nan"))
    with pytest.raises(UserError, match="lower --learning-rate"):
        while trainer.env_steps < 200:
            trainer.step()
