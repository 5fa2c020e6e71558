"""The shipped models, against what is said of them."""

import json
import re
from collections import Counter
from math import comb

import pytest
from scripts import ROOT, call

from mario_rl.config import FULL_GAME

MODELS = sorted((ROOT / "pretrained").glob("*.pth"))
GAMES = 6


def test_there_is_one_of_the_first_stage():
    assert "1-1" in [path.stem for path in MODELS]


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_plays_as_published(path, tmp_path):
    published = json.loads(path.with_suffix(".json").read_text())
    evaluation, episodes = published["evaluation"], published["episodes"]
    assert (published["stage"], published["epsilon"], published["noops"]) == (path.stem, 0.01, 30)
    assert evaluation["eval_episodes"] == len(episodes) == 100
    assert evaluation["clears"] == sum(e["stages_cleared"] > 0 for e in episodes)
    if path.stem != FULL_GAME:  # where play runs on after a flag
        assert evaluation["clears"] == Counter(e["outcome"] for e in episodes)["clear"]

    flags = ["--model-path", str(path), "--episodes", str(GAMES), "--seed", "1", "--json"]
    code, output, _ = call("eval_mario.py", flags, tmp_path)
    assert code == 0
    clears, rate = json.loads(output)["evaluation"]["clears"], evaluation["clear_rate_low"]
    as_few = sum(comb(GAMES, k) * rate**k * (1 - rate) ** (GAMES - k) for k in range(clears + 1))
    assert as_few > 0.01, f"only {clears} of {GAMES} cleared"


def test_training_continues_from_a_shipped_model_and_tells_the_stages_of_the_full_game(tmp_path):
    path = ROOT / "pretrained" / f"{FULL_GAME}.pth"
    published = json.loads(path.with_suffix(".json").read_text())["evaluation"]
    flags = f"""
        --iteration 2 --run-name next --model-path {path} --start --max-steps 112
        --learning-starts 96 --batch-size 64 --eval-episodes 1 --output-dir {tmp_path}
    """
    code, output, errors = call("continue_training.py", flags.split(), tmp_path)
    assert code == 0, errors
    for start in ("created run 'next'.*", "evaluation at 0 steps.*", ".*  best", "best model.*"):
        line = re.search(rf"^{start} (\d\.\d\d) stages a game", output, re.MULTILINE)
        assert line and float(line[1]) > published["mean_stages_cleared"] / 2, start
    parents = json.loads((tmp_path / "stats/next/run.json").read_text())["lineage"]["parents"]
    assert parents[-1]["mean_stages_cleared"] > published["mean_stages_cleared"] / 2
    assert (tmp_path / "models" / "next.pth").exists()
