"""The settings: their flags, ranges and defaults, and the schedules made from them."""

import json
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, strategies
from hypothesis import settings as hypothesis_settings

from mario_rl.agent.schedules import learning_rate, linear
from mario_rl.cli import Parser, add_config_flags, given_settings, run_script
from mario_rl.config import Config, LearnerConfig, bound, settings
from mario_rl.errors import UserError
from mario_rl.settings import Binding, choices_of, contains, flag_of, setting, value_type
from mario_rl.training.lifecycle import _resumed_config

ROOT = Path(__file__).resolve().parents[1]
ITEMS = {item.name: item for _, item in settings()}
# Those of which a part is chosen, but there is only one as yet, have no flag.
FLAGS = [name for name, item in ITEMS.items() if len(choices_of(item)) != 1]
SLOW = {"torch", "cv2", "gym", "nes_py", "gym_super_mario_bros", "pandas"}


def print_help(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "progressive_mario_trainer.py", "--help"],
        capture_output=True, text=True, cwd=ROOT, check=True, env={**os.environ, "COLUMNS": "500"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def help_entries() -> dict[str, str]:
    """What --help says of each flag, on one line."""
    entries = [entry.partition("\n\n")[0] for entry in print_help().stdout.split("\n  --")[1:]]
    return {"--" + entry.split()[0].rstrip(","): " ".join(entry.split()) for entry in entries}


def parse(*words: str) -> dict[str, object]:
    parser = Parser("test")
    add_config_flags(parser)
    return given_settings(parser.parse_args(words))


def another_value(name: str) -> object:
    item = ITEMS[name]
    if choices := choices_of(item):
        return next(choice for choice in choices if choice != item.default)
    texts = {"demos": "mine.json,way.json", "ray": "10.0.0.1:6379"}
    return texts.get(name) or {int: 12_345, float: 0.625, bool: not item.default}[value_type(item)]


# --help


@pytest.mark.parametrize("name", FLAGS)
def test_help_gives_default_and_unit(name, help_entries):
    item = ITEMS[name]
    entry = help_entries[flag_of(name)]
    default = "no limit" if item.default is None else item.default
    unit = item.metadata["unit"]
    notes = f"({unit}; default: {default})" if unit else f"(default: {default})"
    assert entry.endswith(f"{item.metadata['help']} {notes}")


def test_every_count_and_duration_has_a_unit():
    without = [i.name for i in ITEMS.values() if value_type(i) is int and not i.metadata["unit"]]
    assert without == ["seed"]


def test_every_number_has_a_range_and_every_text_its_choices_or_pattern():
    for item in ITEMS.values():
        if value_type(item) is bool:
            continue
        is_text = value_type(item) is str
        limits = ("choices", "matching") if is_text else ("interval",)
        assert any(item.metadata[name] for name in limits), item.name


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("demos", "", "none, or files that end in .json"),
        ("demos", "way.txt", "none, or files that end in .json"),
        ("ray", "ray://a:1", "HOST:PORT, local or none"),
        ("ray", "a", "HOST:PORT, local or none"),
    ],
)
def test_a_text_that_does_not_match_is_refused(name, value, rule):
    with pytest.raises(UserError, match=re.escape(f"{flag_of(name)} {value!r}: must be {rule}")):
        Config().replaced({name: value})


def test_help_is_quick():
    times = []
    for _ in range(3):  # the best of three, for a machine that does other things as well
        start = time.monotonic()
        print_help()
        times.append(time.monotonic() - start)
        if times[-1] < 1.5:
            return
    raise AssertionError(f"--help took {min(times):.1f} s")


def test_help_imports_nothing_slow():
    lines = print_help("-X", "importtime").stderr.splitlines()
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    assert "mario_rl" in imported
    assert not imported & SLOW


# flags


@pytest.mark.parametrize("name", FLAGS)
def test_flag_sets_its_setting(name):
    value = another_value(name)
    words = [flag_of(name), str(value)]
    if value_type(ITEMS[name]) is bool:
        words = [flag_of(name) if value else flag_of(name).replace("--", "--no-", 1)]
    assert parse(*words) == {name: value}
    assert type(parse(*words)[name]) is value_type(ITEMS[name])


def test_flags_not_given_are_left_out():
    assert parse() == {}


@pytest.mark.parametrize(
    "words",
    [
        ("--batch-size", "many"),
        ("--batch-size", "2.5"),
        ("--gamma", "0,9"),
        ("--stage", "9-9"),
        ("--device", "gpu"),
        ("--batch", "32"),
    ],
)
def test_unreadable_flag_is_one_line_with_exit_code_2(words, capsys):
    with pytest.raises(SystemExit) as exit_info:
        parse(*words)
    error = capsys.readouterr().err
    assert exit_info.value.code == 2
    assert error.count("\n") == 1
    assert all(word in error for word in words)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UserError("--gamma 2: no"), 2, "error: --gamma 2: no\n"),
        (UserError("a\nb: no"), 2, "error: a b: no\n"),
        (UserError("x" * 5000 + ": no"), 2, f"error: {'x' * 500} ... {'x' * 496}: no\n"),
        (OSError(28, "No space left", "a\nb"), 2, "error: [Errno 28] No space left: 'a\\nb'\n"),
        (KeyboardInterrupt(), 130, ""),
        (None, 0, ""),
    ],
)
def test_exit_codes(error, code, text, capsys):
    def main() -> None:
        if error is not None:
            raise error

    with pytest.raises(SystemExit) as exit_info:
        run_script(main)
    assert exit_info.value.code == code
    assert capsys.readouterr().err == text


# defaults


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_episodes", 10_000),
        ("batch_size", 256),
        ("learning_rate", 1e-4),
        ("gpu_memory_fraction", 0.8),
        ("stage", "full"),
    ],
)
def test_promised_default(name, value):
    assert Config().flat()[name] == value


# validation

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("stage", "9-1", "full, 1-1"),
        ("stage", "1-5", "8-4"),
        ("stage", "", "full"),
        ("stage", 11, "type str"),
        ("action_set", "all", "right, simple, complex"),
        ("stall_steps", 0, "[1, inf)"),
        ("stall_steps", 1.5, "type int"),
        ("num_envs", 0, "[1, 256]"),
        ("num_envs", 257, "[1, 256]"),
        ("num_envs", 8.0, "type int"),
        ("num_envs", True, "type int"),
        ("num_envs", None, "type int"),
        ("eps_start", 1.01, "[0, 1]"),
        ("eps_start", NAN, "[0, 1]"),
        ("eps_start", "1", "type float"),
        ("eps_end", -0.01, "[0, 1]"),
        ("eps_end", False, "type float"),
        ("eps_decay", 0, "[1, inf)"),
        ("replay_capacity", -1, "[1, inf)"),
        ("replay_capacity", INF, "type int"),
        ("priority_exponent", 1.1, "[0, 1]"),
        ("priority_exponent", NAN, "[0, 1]"),
        ("importance_exponent", -0.4, "[0, 1]"),
        ("importance_exponent", [], "type float"),
        ("importance_steps", 0, "[1, inf)"),
        ("batch_size", 0, "[1, 65536]"),
        ("batch_size", 65537, "[1, 65536]"),
        ("batch_size", "256", "type int"),
        ("learning_rate", 0.0, "(0, 1]"),
        ("learning_rate", 1.5, "(0, 1]"),
        ("learning_rate", -1e-4, "(0, 1]"),
        ("learning_rate", NAN, "(0, 1]"),
        ("learning_rate", INF, "(0, 1]"),
        ("learning_rate", None, "type float"),
        ("gamma", 1.0, "[0, 1)"),
        ("gamma", 1, "[0, 1)"),
        ("gamma", -0.1, "[0, 1)"),
        ("gamma", NAN, "[0, 1)"),
        ("n_step", 0, "[1, 32]"),
        ("n_step", 33, "[1, 32]"),
        ("replay_ratio", 0.0, "(0, 1024]"),
        ("replay_ratio", INF, "(0, 1024]"),
        ("learning_starts", 0, "[1, inf)"),
        ("target_period", 0, "[1, inf)"),
        ("max_grad_norm", 0.0, "(0, inf)"),
        ("max_grad_norm", INF, "(0, inf)"),
        ("max_grad_norm", NAN, "(0, inf)"),
        ("eval_interval", 0, "[1, inf)"),
        ("eval_episodes", 0, "[1, 10000]"),
        ("eval_episodes", 10_001, "[1, 10000]"),
        ("num_episodes", 0, "[1, inf)"),
        ("num_episodes", -5, "[1, inf)"),
        ("num_episodes", None, "type int"),
        ("max_steps", 0, "[1, inf)"),
        ("max_steps", 1e6, "type int"),
        ("max_hours", 0.0, "(0, inf)"),
        ("max_hours", -1, "(0, inf)"),
        ("max_hours", NAN, "(0, inf)"),
        ("max_hours", INF, "(0, inf)"),
        ("checkpoint_interval", 0, "[1, inf)"),
        ("device", "gpu", "auto, cpu, cuda, mps"),
        ("device", None, "type str"),
        ("gpu_memory_fraction", 0.0, "(0, 1]"),
        ("gpu_memory_fraction", 1.01, "(0, 1]"),
        ("gpu_memory_fraction", NAN, "(0, 1]"),
        ("seed", -1, "[0, 4294967295]"),
        ("seed", 2**32, "[0, 4294967295]"),
        ("seed", "0", "type int"),
    ],
)
def test_bad_value_names_flag_value_and_range(name, value, allowed):
    with pytest.raises(UserError) as error:
        Config().replaced({name: value})
    message = str(error.value)
    shown = repr(value) if isinstance(value, str) else str(value)
    assert message.startswith(f"{flag_of(name)} {shown}: ")
    assert allowed in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"eps_start": 0.1, "eps_end": 0.2}, ["--eps-end 0.2", "--eps-start (0.1)"]),
        (
            {"batch_size": 512, "learning_starts": 511},
            ["--learning-starts 511", "--batch-size (512)"],
        ),
        (
            {"replay_capacity": 4_999, "learning_starts": 5_000},
            ["--replay-capacity 4999", "--learning-starts (5000)"],
        ),
        (
            {"replay_capacity": 16_383, "num_envs": 256},
            ["--replay-capacity 16383", "--num-envs", "(16384)"],
        ),
    ],
)
def test_settings_that_do_not_fit_together(changes, words):
    with pytest.raises(UserError) as error:
        Config().replaced(changes)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    "changes",
    [
        {"eps_start": 0.2, "eps_end": 0.2},
        {"eps_start": 0, "eps_end": 0},
        {"batch_size": 512, "learning_starts": 512, "replay_capacity": 512},
        {"num_envs": 256, "replay_capacity": 16_384},
        {"gamma": 0, "priority_exponent": 0, "importance_exponent": 1},
        {"learning_rate": 1.0, "gpu_memory_fraction": 1, "replay_ratio": 1024},
        {"n_step": 1, "eval_episodes": 10_000, "seed": 2**32 - 1},
        {"n_step": 32, "max_steps": 1, "max_hours": 1e-9},
        {"max_steps": None, "max_hours": None},
        {"stage": "8-4", "device": "mps", "action_set": "complex"},
    ],
)
def test_edges_of_the_ranges_are_allowed(changes):
    flat = Config().replaced(changes).flat()
    assert {name: flat[name] for name in changes} == changes


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[0, 1]", (0, 0.5, 1), (-1e-9, 1 + 1e-9, NAN, INF)),
        ("(0, 1]", (1e-300, 1), (0, 1.1, NAN)),
        ("[0, 1)", (0, 1 - 1e-9), (1, -0.1, NAN)),
        ("[1, inf)", (1, 1e300), (0.999, INF, NAN, -INF)),
    ],
)
def test_intervals(interval, inside, outside):
    assert all(contains(interval, value) for value in inside)
    assert not any(contains(interval, value) for value in outside)


# dictionaries


@strategies.composite
def configs(draw: strategies.DrawFn) -> Config:
    batch_size = draw(strategies.integers(1, 65_536))
    learning_starts = batch_size + 256 * 33 + draw(strategies.integers(0, 10**6))
    changes = {
        "stage": draw(strategies.sampled_from(ITEMS["stage"].metadata["choices"])),
        "eps_start": draw(strategies.floats(0.5, 1)),
        "eps_end": draw(strategies.floats(0, 0.5)),
        "learning_rate": draw(strategies.floats(0, 1, exclude_min=True)),
        "gamma": draw(strategies.floats(0, 1, exclude_max=True)),
        "batch_size": batch_size,
        "learning_starts": learning_starts,
        "replay_capacity": learning_starts + draw(strategies.integers(16_384, 10**9)),
        "num_envs": draw(strategies.integers(1, 256)),
        "max_steps": draw(strategies.none() | strategies.integers(1, 10**12)),
        "max_hours": draw(strategies.none() | strategies.floats(1e-6, 1e6)),
        "seed": draw(strategies.integers(0, 2**32 - 1)),
    }
    return Config().replaced(changes)


@hypothesis_settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(configs())
def test_json_round_trip(config):
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_missing_settings_are_what_runs_did_before_there_were_these():
    before = {
        "hold_actions": False, "retry_share": 0.0, "view": "screen", "pixels": "grey",
        "emulator": "nes-py", "show_buttons": False, "reward_scale": 1.0, "eps_ladder": 0.0,
        "network_width": 1.0,
        "num_quantiles": 1, "lr_decay": 0, "death_penalty": 2.5, "frame_size": 84, "double_q": True,
    }  # fmt: skip
    assert Config.from_dict({}) == Config().replaced(before) != Config()
    assert Config.from_dict({"run": {"threads": None}}) == Config.from_dict({})
    partial = {"learner": {"gamma": 0.5}}
    assert Config.from_dict(partial) == Config().replaced({**before, "gamma": 0.5})


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"learner": {"momentum": 0.9}}, "momentum"),
        ({"optimizer": {}}, "optimizer"),
        ({"gamma": 0.9}, "gamma"),
        ({"learner": 3}, "learner"),
        ({"learner": {"gamma": 2.0}}, "--gamma"),
        ({"learner": {"gamma": "0.9"}}, "--gamma"),
    ],
)
def test_unknown_or_bad_entries_are_refused(values, word):
    with pytest.raises(UserError, match=word):
        Config.from_dict(values)


def test_replaced_changes_only_what_it_is_given():
    config = Config().replaced({"seed": 3})
    changed = config.replaced({"gamma": 0.5, "max_steps": 7})
    assert changed.flat() == {**config.flat(), "gamma": 0.5, "max_steps": 7}
    assert config == Config().replaced({"seed": 3})
    assert config.replaced({}) == config


def test_flat_names_are_unique():
    assert len(list(settings())) == len(ITEMS) == len(Config().flat())


# schedules


@pytest.mark.parametrize(
    ("env_steps", "value"), [(0, 1.0), (250, 0.775), (500, 0.55), (1000, 0.1), (10**9, 0.1)]
)
def test_linear_schedule_falls_and_then_stays(env_steps, value):
    assert linear(1.0, 0.1, 1000, env_steps) == pytest.approx(value)


@pytest.mark.parametrize(("env_steps", "value"), [(0, 0.4), (1, 0.7), (2, 1.0), (3, 1.0)])
def test_linear_schedule_rises_too(env_steps, value):
    assert linear(0.4, 1.0, 2, env_steps) == pytest.approx(value)


@pytest.mark.parametrize(
    ("lr_decay", "env_steps", "value"),
    [
        (1000, 0, 0.02), (1000, 500, 0.02), (1000, 750, 0.011), (1000, 1000, 0.002),
        (1000, 10**9, 0.002), (1, 0, 0.02), (1, 1, 0.002), (0, 99, 0.02),
    ],
)  # fmt: skip
def test_learning_rate_stays_and_then_falls_to_a_tenth_if_at_all(lr_decay, env_steps, value):
    config = LearnerConfig(learning_rate=0.02, lr_decay=lr_decay)
    assert learning_rate(config, env_steps) == pytest.approx(value)


def test_linear_schedule_ends_exactly():
    assert linear(0.4, 1.0, 200_000, 200_000) == 1.0
    assert linear(0.3, 0.3, 5, 2) == 0.3


def test_learning_starts_when_transitions_are_complete() -> None:
    changes = {"num_envs": 8, "batch_size": 16, "learning_starts": 16, "n_step": 32}
    with pytest.raises(UserError, match=r"--learning-starts 16.*264"):
        Config().replaced(changes)


def test_huge_number_is_one_line() -> None:
    with pytest.raises(UserError, match="--seed 1000"):
        Config().replaced({"seed": 10**400})


# what settings bind


def test_every_setting_says_what_it_binds():
    assert {item.metadata["binds"] for item in ITEMS.values()} == set(get_args(Binding))


def test_a_setting_must_say_what_it_binds():
    with pytest.raises(TypeError, match="binds"):
        setting(1, "help")


def test_weights_depend_on_what_the_network_sees_and_means():
    # A setting that is moved from here lets a model be continued with weights that mean nothing.
    assert set(bound("weights")) == {
        "action_set", "view", "frame_size", "pixels", "show_buttons", "learner", "network_width",
        "num_quantiles", "reward_scale",
    }  # fmt: skip
    assert set(bound("replay")) == {
        "stage", "reward", "death_penalty", "gamma", "num_envs", "replay_capacity"
    }  # fmt: skip
    assert "seed" not in bound("machine") and "max_steps" in bound("machine")


def test_the_automatic_emulator_of_a_run_that_exists_is_its_own():
    """A new run, too: its first checkpoint is written before its training begins."""
    for name in ("fceumm", "nes-py"):
        config = Config().replaced({"emulator": name})
        assert _resumed_config(config, {"emulator": "auto"}) == config
    with pytest.raises(UserError, match="--emulator fceumm: the run was started with nes-py"):
        _resumed_config(config, {"emulator": "fceumm"})
