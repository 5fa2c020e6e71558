"""Settings in a YAML file: --config."""

import argparse
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts import call

from mario_rl.agent.shipped import model_file
from mario_rl.cli import add_config_flags, given_settings
from mario_rl.config import Config
from mario_rl.errors import UserError
from mario_rl.settings_file import read_settings, text_of

ROOT = Path(__file__).parents[1]


def settings_of(folder, text, *flags):
    path = folder / "settings.yaml"
    path.write_text(text)
    parser = argparse.ArgumentParser()
    add_config_flags(parser)
    return given_settings(parser.parse_args(["--config", str(path), *flags]))


def test_flags_override_the_file(tmp_path):
    text = "stage: 1-2\ngamma: 0.9\nshow-buttons: no\nlearning_rate: 1e-4\n"
    given = settings_of(tmp_path, text, "--gamma", "0.5", "--seed", "3")
    assert given == {
        "stage": "1-2", "gamma": 0.5, "show_buttons": False, "learning_rate": 1e-4, "seed": 3,
    }  # fmt: skip
    assert settings_of(tmp_path, "# nothing\n", "--seed", "3") == {"seed": 3}


@given(st.integers(0, 10**6), st.floats(0, 0.99), st.booleans(), st.sampled_from(["1-1", "full"]))
def test_file_of_a_config_repeats_it(tmp_path_factory, seed, gamma, shown, stage):
    changes = {"seed": seed, "gamma": gamma, "show_buttons": shown, "stage": stage}
    config = Config().replaced({**changes, "max_hours": 1.5})
    path = tmp_path_factory.mktemp("file") / "config.yaml"
    path.write_text(text_of(config))
    assert Config().replaced(read_settings(path)) == config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gama: 0.9", "no setting 'gama'; did you mean gamma"),
        ("xyzzy: 1", "no setting 'xyzzy'"),
        ("eps_start: 1\neps-start: 1", "given twice"),
        ("- 1-1", "lines such as"),
        ("stage: [", "is not YAML"),
        ("!!python/object/apply:os.system [id]", "is not YAML"),
        ("\x00", "is not YAML"),
        ("gamma: high", "--gamma 'high': must be of type float"),
        ("num_envs: 1.5", "--num-envs 1.5: must be of type int"),
        ("stage: 9-9", "--stage '9-9': choose from"),
        ("1: 2", "no setting 1"),
    ],
)
def test_mistakes_are_one_line(tmp_path, text, words):
    with pytest.raises(UserError) as caught:
        Config().replaced(settings_of(tmp_path, text))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_no_such_file(tmp_path):
    words = ["--run-name", "a", "--config", "gone.yaml"]
    code, output, errors = call("progressive_mario_trainer.py", words, tmp_path)
    assert (code, output) == (2, "")
    assert errors == "error: --config gone.yaml: No such file or directory\n"


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_recipe_is_for_the_stage_that_its_name_says(recipe):
    given = read_settings(recipe)
    assert Config().replaced(given).env.stage == recipe.stem
    command = recipe.read_text().splitlines()[1].removeprefix("#   python ").split()
    assert (ROOT / command[0]).exists()
    assert Path(command[command.index("--config") + 1]) == recipe.relative_to(ROOT)
    if "--model-path" in command:
        assert model_file(command[command.index("--model-path") + 1]).exists()


def test_dry_run_tells_settings_sources_memory_and_time_and_starts_nothing(tmp_path):
    (tmp_path / "mine.yaml").write_text("stage: 1-1\ngamma: 0.9\nmax_steps: 36000\n")
    words = "--run-name a --config mine.yaml --gamma 0.5 --threads 1 --num-envs 2 --dry-run"
    code, output, errors = call("progressive_mario_trainer.py", words.split(), tmp_path)
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    for line in (
        "--stage 1-1  (mine.yaml)",
        "--gamma 0.5  (command line)",
        "--batch-size 256  (default)",
        "memory: 0.17 GiB for the replay",
        "speed: about ",
        "time: about ",
    ):
        assert any(one.startswith(line) for one in lines), line
    (emulator,) = (line for line in lines if line.startswith("--emulator"))
    assert emulator.endswith("(default, decided on this machine)") and "auto" not in emulator
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]
