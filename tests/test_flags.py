"""Whatever is on the command line: no traceback, and exit code 0 or 2.

MARIO_RL_FUZZ_EXAMPLES sets how many command lines are tried for each script.
"""

import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from scripts import ROOT, call
from torture.victims import FLAGS, Run

from mario_rl.config import settings as config_settings
from mario_rl.settings import flag_of, value_type

SHORT = "MARIO_RL_FUZZ_EXAMPLES" not in os.environ  # always the same command lines
EXAMPLES = int(os.environ.get("MARIO_RL_FUZZ_EXAMPLES", "8"))

ODD = ["", "-", "--", "-1", "0", "1", "2", "1e999", "-1e999", "nan", "inf", "1e-320", "1_0", "0x10",
       " 5 ", "٣", "½", "True", "None", "../x", "/", "/dev/null/x", "x" * 300, "é", "a b", "\n",
       "1\n2", "\x1b[31m", "😀", "%s", "{}", "$(id)", "'", '"', "1-1", "full", "8-5", "models",
       "999999999999999999999999", "9" * 5000]  # fmt: skip
values = st.one_of(
    st.sampled_from(ODD),
    st.integers().map(str),
    st.floats().map(repr),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
)
# Where a great value is allowed and would only take long.
SLOW = {"eval_episodes", "stall_steps", "num_envs", "n_step"}
small = st.integers(-2, 12).map(str)
CONFIG_FLAGS = {flag_of(item.name): item.name for _, item in config_settings()}
SWITCHES = [
    flag_of(prefix + item.name)
    for _, item in config_settings()
    if value_type(item) is bool
    for prefix in ("", "no_")
]


def pairs(flags, without_value=()):
    """Up to three flags, each with a value."""
    with_value = st.sampled_from(sorted(flags)).flatmap(
        lambda flag: st.tuples(st.just(flag), small if CONFIG_FLAGS.get(flag) in SLOW else values)
    )
    bare = st.sampled_from(sorted(without_value) or ["--help"]).map(lambda flag: (flag,))
    groups = st.lists(st.one_of(with_value, with_value, bare), min_size=1, max_size=3)
    return groups.map(lambda chosen: [word for group in chosen for word in group])


def check(script, words, folder):
    code, output, errors = call(script, words, folder)
    assert code in (0, 2), (words, errors)
    assert "Traceback" not in output + errors, (words, errors)
    if code == 2:
        lines = [line for line in errors.splitlines() if not line.startswith("warning: ")]
        assert len(lines) == 1 or "--json" in words, (words, errors)  # which reports there
        assert 0 < len(lines[-1]) < 2000, (words, errors)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a finished run called "first"."""
    folder = tmp_path_factory.mktemp("fuzz")
    Run(folder, "first", 4, seed=0).finish()
    return folder


fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=SHORT,
    suppress_health_check=list(HealthCheck),
    phases=[
        Phase.explicit,
        Phase.generate,
    ],  # command lines are short as they are, and some take seconds
)


@fuzz
@given(
    words=pairs(
        {*CONFIG_FLAGS, "--run-name", "--output-dir", "--config"},
        ["--resume", "--plain", "--dry-run", *SWITCHES],
    )
)
@example(words=["--max-hours", "1e-320"])
def test_train(words, tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    budget = ["--num-episodes", "1", "--max-steps", "64", "--run-name", "fuzz"]
    check("progressive_mario_trainer.py", [*FLAGS, *budget, *words], folder)


@fuzz
@given(words=pairs({*CONFIG_FLAGS, "--run-name", "--output-dir"}, SWITCHES))
def test_resume(trained, words):
    check("progressive_mario_trainer.py", ["--run-name", "first", "--resume", *words], trained)


@fuzz
@given(
    words=pairs(
        {*CONFIG_FLAGS, "--run-name", "--output-dir", "--iteration", "--model-path", "--config"},
        ["--reset-optimizer", "--plain"],
    )
)
@example(words=["--action-set", "9" * 5000])
def test_continue(trained, words):
    check("continue_training.py", words, trained)


@fuzz
@given(
    words=pairs(
        {"--model-path", "--stage", "--epsilon", "--noops", "--max-steps", "--seed", "--delay",
         "--output-dir", "--record-demo", "--replay-demo"},
        ["--human", "--json", "--plot", "--record", "--render", "--overlay", "--saliency"],
    )
)  # fmt: skip
@example(words=["--model-path", "1\n2"])
def test_evaluate(trained, words, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    limits = ["--model-path", "models/first.pth", "--episodes", "2", "--max-steps", "5"]
    check("eval_mario.py", [*limits, *words], trained)


@fuzz
@given(words=pairs({"--run-name", "--format", "--output-dir", "--output"}, ["--html"]))
def test_visualize(trained, words):
    check("visualize_training.py", ["--run-name", "first", *words], trained)


@fuzz
@given(
    words=pairs(
        {"--run-names", "--x", "--format", "--output-dir", "--output"},
        ["--save", "--group", "--html"],
    )
)
def test_compare(trained, words):
    check("compare_runs.py", ["--run-names", "first", *words], trained)


def test_every_flag_is_fuzzed(trained, monkeypatch):
    """Each flag of `--help` occurs in this file or is a setting."""
    monkeypatch.setenv("COLUMNS", "1000")  # so that no flag is broken over two lines
    here = Path(__file__).read_text()
    for script in ROOT.glob("*.py"):
        _, help, _ = call(script.name, ["--help"], trained)
        flags = set(re.findall(r"--[a-z][a-z-]*", help)) - set(CONFIG_FLAGS)
        unknown = {flag for flag in flags if f'"{flag}"' not in here and flag not in SWITCHES}
        # Windows and servers are tested elsewhere, and --start is training.
        assert unknown <= {"--start", "--show", "--live", "--serve", "--help"}, unknown
