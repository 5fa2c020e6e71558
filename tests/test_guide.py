"""Ways that were searched, and training games that follow them."""

import itertools
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from scripts import ROOT, call

from mario_rl.config import Config, EnvConfig
from mario_rl.games.interface import CLEAR, RESET
from mario_rl.games.mario_game import MarioGame
from mario_rl.registry import EMULATORS, EXPLORATIONS
from mario_rl.search import Search
from mario_rl.search import main as search_main
from mario_rl.storage.demonstration import Demonstration, Take
from mario_rl.training.assembly import build_games
from mario_rl.training.guide import Guide, read_demonstrations
from mario_rl.training.rollout import Rollout

pytest.importorskip("stable_retro")
FILES = sorted((ROOT / "demonstrations").glob("*.json"))
SMALL = (
    "--stage 4-4 --num-envs 4 --batch-size 16 --learning-starts 60 --replay-capacity 2000 "
    "--eval-episodes 2 --checkpoint-interval 1 --replay-ratio 1 --threads 1 --no-record-best "
    "--games serial"
).split()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_ways_that_were_found_lead_to_the_flag(path):
    demonstration = Demonstration.read(path)
    assert demonstration.stage == path.stem and demonstration.outcome == "clear"
    demonstration.replay("fceumm")  # raises if it is another game
    action_set = "complex" if path.stem == "8-4" else "simple"
    actions = demonstration.decisions(action_set)
    config = EnvConfig(path.stem, "fceumm", action_set, stall_steps=1000)
    with closing(MarioGame(config)) as game:
        game.reset()
        for action in actions:
            *_, terminated, truncated, status = game.step(int(action))
            assert not truncated
    assert terminated and status.outcome == CLEAR


def test_a_search_is_a_function_of_its_seed_and_finds_states_that_lead_on():
    with closing(EMULATORS.get("fceumm")("1-1", None)) as emulator:
        first, second = Search(emulator, "simple", 7), Search(emulator, "simple", 7)
        for search in (first, second):
            while search.steps < 1500:
                search.explore()
        assert list(first.ways) == list(second.ways) and len(first.ways) > 100
        assert first.furthest_x > 500
        furthest = max(first.ways.values(), key=lambda way: way.x)
        actions = furthest.all_actions()
        assert len(actions) == furthest.length_steps
        with closing(MarioGame(EnvConfig("1-1", "fceumm"))) as game:
            game.reset()
            for action in actions:
                *_, status = game.step(action)
        assert status.x == furthest.x


def test_a_search_that_finds_nothing_leaves_nothing(tmp_path, monkeypatch):
    target = tmp_path / "way.json"
    words = ["search", "--stage", "8-1", "--output", str(target), "--max-steps", "300"]
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # that of this process stays
    with pytest.raises(Exception, match="no way through 8-1 in 300 decisions"):
        search_main()
    assert not target.exists()
    target.write_text("mine")
    with pytest.raises(Exception, match="exists already"):
        search_main()
    assert target.read_text() == "mine"


def test_a_search_that_is_ended_leaves_nothing(tmp_path):
    target = tmp_path / "way.json"
    command = [sys.executable, "-m", "mario_rl.search", "--stage", "8-1", "--output", str(target)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    while process.poll() is None and not target.exists():
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=60) == 130 and not target.exists()


def test_decisions_are_those_of_a_game_in_decisions_and_else_the_nearest():
    rng = np.random.default_rng(0)
    actions = rng.integers(7, size=40).astype(np.uint8)
    buttons = [0, 128, 129, 130, 131, 1, 64]
    frames = [buttons[action] for action in actions for _ in range(4)]

    def made(frames):
        runs = [(value, len(list(run))) for value, run in itertools.groupby(frames)]
        values, lengths = map(list, zip(*runs, strict=True))
        return Demonstration("1-1", "unfinished", 0, 0, values, lengths, "0" * 64)

    assert np.array_equal(made(frames).decisions("simple"), actions)
    # Two frames late, of each decision the longer part counts; the first action on a tie.
    assert made([130] * 3 + [0]).decisions("simple").tolist() == [3]
    assert made([130, 131, 131, 131, 64]).decisions("simple").tolist() == [4, 6]
    assert made([32] * 4).decisions("simple").tolist() == [0]
    assert made([32] * 4).decisions("complex").tolist() == [10]


def test_the_first_games_follow_from_the_start_on_and_the_others_never():
    path = ROOT / "demonstrations" / "4-4.json"
    config = Config().replaced(
        {"stage": "4-4", "demos": str(path), "num_envs": 4, "emulator": "fceumm",
         "games": "serial"}
    )  # fmt: skip
    (way,) = read_demonstrations(config)
    exploration = EXPLORATIONS.get("epsilon-greedy")(config.exploration, np.random.SeedSequence(3))
    guide = Guide([way], 4, 2, exploration.rng)
    begun = []
    with closing(build_games(config, 4, pytest.fail, 2)) as games:
        rollout = Rollout(games, exploration, guide)
        for step in range(900):
            rollout.step_async(np.zeros((4, 7), dtype=np.float32), step)
            commands = rollout.step_wait().actions
            begun += [(game, step) for game in np.flatnonzero(commands == RESET)]
            state = guide.state()
            for game in (0, 1):
                position, length = games.positions[game], int(state.steps[game])
                assert position.noop_frames == 0
                led = position.actions[:length]
                assert led == way[: len(led)].tolist()
            assert not state.steps[2:].any()
        assert any(position.noop_frames for position in games.positions[2:])
        # After its demonstration a game is on its own.
        assert any(len(games.positions[game].actions) > state.steps[game] for game in (0, 1))
    assert len({game for game, _ in begun}) == 4


def test_a_run_that_follows_is_resumed_exactly_without_its_files(tmp_path):
    (tmp_path / "way.json").write_bytes((ROOT / "demonstrations" / "4-4.json").read_bytes())
    words = [*SMALL, "--demos", "way.json"]
    script = "progressive_mario_trainer.py"
    for name, budgets in (("whole", (1600,)), ("parts", (500, 1100, 1600))):
        for number, steps in enumerate(budgets):
            more = ["--resume"] if number else words
            if number:
                (tmp_path / "way.json").unlink(missing_ok=True)
            given = ["--run-name", name, "--max-steps", str(steps), *more]
            code, _, errors = call(script, given, tmp_path)
            assert code == 0, errors
    whole, parts = (
        (tmp_path / "stats" / name / "episodes.csv").read_text().splitlines()
        for name in ("whole", "parts")
    )
    hours = whole[0].split(",").index("hours")
    without = [[line.split(",")[:hours] + line.split(",")[hours + 1 :] for line in lines]
               for lines in (whole, parts)]  # fmt: skip
    assert without[0] == without[1] and len(whole) > 5
    furthest = max(int(line.split(",")[whole[0].split(",").index("max_x")]) for line in whole[1:])
    assert furthest > 1000  # 4-4 is a maze with lava, and nothing was learned yet


def test_demonstrations_that_do_not_fit_are_refused_in_one_line(tmp_path):
    way = ROOT / "demonstrations" / "4-4.json"
    short = tmp_path / "short.json"
    replace(Demonstration.read(way), buttons=[128], frames=[8]).write(short)
    for words, message in (
        (["--stage", "4-4", "--demos", str(short)], "after 2 decisions, too few to be followed"),
        (["--stage", "4-4", "--demos", str(short), "--dry-run"], "too few to be followed"),
        (["--stage", "4-4", "--demos", f"{way}, none.json"], "error: none.json: no such file"),
        (["--stage", "1-1", "--demos", str(way)], "a demonstration of stage 4-4, and the run"),
        (["--demos", "none.json", "--stage", "4-4"], "none.json"),
        (["--stage", "4-4", "--demos", str(way), "--retry-share", "0"], "leaves no game"),
    ):
        code, _, errors = call(
            "progressive_mario_trainer.py", ["--run-name", "r", *words], tmp_path
        )
        assert code == 2 and message in errors and errors.count("\n") == 1, errors
        assert not (tmp_path / "checkpoints" / "r" / "checkpoint.json").exists()


def test_a_demonstration_whose_buttons_are_not_decisions_is_followed_as_far_as_it_leads(
    tmp_path, capsys
):
    """A person changes buttons in any frame."""
    with closing(EMULATORS.get("fceumm")("1-1", None)) as emulator:
        take = Take(emulator)
        rng = np.random.default_rng(0)
        while not emulator.is_over and len(take) < 2000:
            for _ in range(int(rng.integers(1, 12))):
                if not emulator.is_over:
                    take.step(int(rng.choice([128, 130, 131, 131])))
        take.demonstration("1-1").write(tmp_path / "mine.json")
    config = Config().replaced({"stage": "1-1", "emulator": "fceumm"})
    files = f"{ROOT}/demonstrations/1-1.json,{tmp_path}/mine.json"
    whole, part = read_demonstrations(config.replaced({"demos": files}))
    assert len(part) > 10
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and f"followed for at most {len(part)} decisions" in lines[0]
    assert len(whole) == len(Demonstration.read(FILES[0]).decisions("simple")) - 1
    with closing(MarioGame(config.env)) as game:
        game.reset()
        for action in part:
            *_, terminated, truncated, _ = game.step(int(action))
            assert not (terminated or truncated)
