"""Models to pass on: safetensors and JSON, ONNX, and a card."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scripts import call

import mario_rl
from mario_rl.agent.exported_model import load_model, read_exported, write_exported
from mario_rl.agent.model_card import model_card
from mario_rl.agent.onnx_file import write_onnx
from mario_rl.agent.saved_model import SavedModel
from mario_rl.agent.shipped import model_file
from mario_rl.config import STACK
from mario_rl.errors import UserError

ROOT = Path(__file__).parents[1]
SHIPPED = sorted(path.stem for path in (ROOT / "pretrained").glob("*.pth"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The model of 1-1, exported by the command."""
    for name in ("onnx", "safetensors"):
        pytest.importorskip(name)
    place = tmp_path_factory.mktemp("exported") / "1-1"
    command = [sys.executable, "-m", "mario_rl.export", "--model-path", "1-1", "--to", str(place)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stderr == "" and result.stdout.count("\n") == 4
    return place


def obs_of(model, size=8):
    shape = size, STACK, *model.config.env.frame_shape
    return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


@pytest.mark.parametrize("name", SHIPPED)
def test_onnx_runtime_gives_the_same_q_values(name, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    model = SavedModel.load(model_file(name))
    write_onnx(model.network(), model.config.env.frame_shape, tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    obs = obs_of(model)
    q_values, quantiles = session.run(["q_values", "quantiles"], {"obs": obs})
    expected = model.network().q_values(obs)
    assert np.abs(q_values - expected).max() < 1e-4
    assert np.allclose(quantiles.mean(axis=2), q_values, atol=1e-5)


def test_the_example_plays_a_stage_with_onnx_runtime(folder, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    example = re.search("```python\n(.*?)```", (ROOT / "docs/share.md").read_text(), re.S)[1]
    monkeypatch.chdir(folder.parents[1])
    exec(example.replace("exported/1-1", str(folder)), {})
    assert capsys.readouterr().out.startswith("clear 3")


def test_exported_model_is_the_same(folder):
    exported, original = read_exported(folder), SavedModel.load(model_file("1-1"))
    for name in ("run_name", "config", "lineage", "evaluation", "averaged_updates"):
        assert getattr(exported, name) == getattr(original, name), name
    assert exported.weights.keys() == original.weights.keys()
    assert all(
        torch.equal(exported.weights[name], original.weights[name]) for name in exported.weights
    )


def test_it_is_played_as_a_file_is(folder, tmp_path):
    obs = obs_of(load_model(folder))
    assert np.array_equal(mario_rl.load(folder).q_values(obs), mario_rl.load("1-1").q_values(obs))
    words = f"--model-path {folder} --episodes 1 --max-steps 3 --emulator auto".split()
    code, output, _ = call("eval_mario.py", words, tmp_path)
    assert code == 0 and "on 1-1" in output


def test_card_says_what_the_model_is(folder):
    card = (folder / "README.md").read_text()
    assert card == model_card(SavedModel.load(model_file("1-1")))
    for words in (
        "World 1-1",
        "96 of 100 (96%, 95 % interval 90% to 98%)",
        "--double-q True",
        "MIT",
    ):
        assert words in card, words
    assert card.startswith("---\nlibrary_name: mario-rl\n")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda config: {**config, "kind": "another model"},
            "is not the config of a Mario RL model",
        ),
        (lambda config: {**config, "schema": 2}, "another version"),
        (lambda config: {**config, "averaged_updates": -8}, "averaged_updates"),
        (lambda config: [config], "is not the config"),
        (lambda config: {**config, "config": {"env": {"frame_size": 42}}}, "has the shape"),
    ],
)
def test_what_is_not_such_a_model_is_refused(folder, tmp_path, change, words):
    copy = shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(change(config)))
    with pytest.raises(UserError) as caught:
        read_exported(copy)
    assert words in str(caught.value) and str(copy) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\xff" * 8 + b"{}", None])
def test_damaged_weights_are_refused(folder, tmp_path, content):
    copy = shutil.copytree(folder, tmp_path / "copy")
    weights = copy / "model.safetensors"
    if content is None:
        weights.write_bytes(weights.read_bytes()[:-1])
    else:
        weights.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        read_exported(copy)


def test_weights_that_are_not_numbers_are_refused(folder, tmp_path):
    model = SavedModel.load(model_file("1-1"))
    model.weights["value.2.bias"][0] = float("nan")
    write_exported(model, tmp_path / "nan")
    with pytest.raises(UserError, match="weights"):
        read_exported(tmp_path / "nan")


def test_nothing_is_overwritten(folder):
    command = [sys.executable, "-m", "mario_rl.export", "--model-path", "1-1", "--to", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"error: --to {folder}: exists already; name a new folder\n"


@pytest.mark.parametrize("package", ["safetensors", "onnx"])
def test_a_missing_library_is_named(package, tmp_path):
    code = f"import sys; sys.modules[{package!r}] = None\n"
    code += "from mario_rl.export import command; command()"
    command = [sys.executable, "-c", code, "--model-path", "1-1", "--to", str(tmp_path / "a")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert f"pip install {package}" in result.stderr
    assert not (tmp_path / "a").exists()
