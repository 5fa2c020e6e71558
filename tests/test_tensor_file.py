"""Files of tensors: what was written is read, and nothing that was not."""

import os
import pickle
import random
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from mario_rl.agent.saved_model import SavedModel
from mario_rl.errors import DamagedFile, UserError
from mario_rl.storage.tensor_file import SCHEMA, load_tensors, save_tensors

CONTENT = {
    "weights": {"a": torch.arange(6.0).reshape(2, 3), "empty": torch.zeros(0)},
    "array": np.arange(300, dtype=np.uint8),
    "list": [1, 2.5, "text", None, True, (3, 4)],
    "channels last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "scalar": torch.tensor(7, dtype=torch.int64),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.pt"


def same(a, b):
    if isinstance(b, np.ndarray):
        b = torch.from_numpy(b)
    if isinstance(b, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in b)
    return a == b


def test_round_trip(path):
    save_tensors(path, "thing", CONTENT)
    loaded = load_tensors(path, "thing")
    assert loaded.pop("schema") == SCHEMA and loaded.pop("kind") == "thing"
    assert same(loaded, CONTENT)


def test_other_kinds_and_missing_files_are_refused(path):
    save_tensors(path, "checkpoint", {})
    with pytest.raises(DamagedFile, match="is no Mario RL model"):
        load_tensors(path, "model")
    with pytest.raises(UserError, match="no such file"):
        load_tensors(path.with_name("none"), "model")


@pytest.mark.parametrize("schema", [SCHEMA + 1, 10**9])
def test_newer_version_is_refused_with_the_way_out(path, schema):
    torch.save({"schema": schema, "kind": "thing", "other": 1}, path)
    with pytest.raises(UserError, match="update Mario RL") as caught:
        load_tensors(path, "thing")
    assert not isinstance(caught.value, DamagedFile)


@pytest.mark.parametrize("schema", [None, 0, -1, "1", 1.0, True])
def test_no_version_is_refused(path, schema):
    torch.save({"schema": schema, "kind": "thing"}, path)
    with pytest.raises(DamagedFile, match="no file version"):
        load_tensors(path, "thing")


def test_any_flipped_bit_is_noticed_or_harmless(path):
    """PyTorch itself reads a flipped weight without a word."""
    save_tensors(path, "thing", CONTENT)
    intact, expected = path.read_bytes(), load_tensors(path, "thing")
    rng = random.Random(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(intact)
        damaged[rng.randrange(len(intact))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            assert same(load_tensors(path, "thing"), expected)
        except UserError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
    assert refused > 150


def test_a_flipped_weight_is_noticed(path):
    save_tensors(path, "thing", {"weights": torch.full((100,), 1.5)})
    content = path.read_bytes()
    weight = np.float32(1.5).tobytes()
    assert content.count(weight) == 100
    path.write_bytes(content.replace(weight, np.float32(2.5).tobytes(), 1))
    assert torch.load(path, weights_only=True)["weights"].max() == 2.5
    with pytest.raises(DamagedFile, match="checksum"):
        load_tensors(path, "thing")


# files that were made to do harm


class Payload:
    def __reduce__(self):
        return os.system, ("touch payload-ran",)


def test_a_pickle_with_a_payload_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"schema": SCHEMA, "kind": "model", "weights": Payload()}, "evil.pth")
    Path("plain.pth").write_bytes(pickle.dumps(Payload()))
    torch.save({"kind": "model", "x": Payload()}, "old.pth", _use_new_zipfile_serialization=False)
    for name in ("evil.pth", "plain.pth", "old.pth"):
        with pytest.raises(UserError, match="damaged or is no Mario RL model"):
            SavedModel.load(Path(name))
    assert not Path("payload-ran").exists()


def hostile(**content):
    return {"schema": SCHEMA, "kind": "thing", "checksum": 0, **content}


def test_a_tensor_that_declares_more_than_it_holds_is_refused(path):
    torch.save(hostile(weights=torch.zeros(1).expand(10**6, 10**6)), path)
    assert path.stat().st_size < 10_000
    with pytest.raises(DamagedFile, match="share memory"):
        load_tensors(path, "thing")


def test_a_nest_of_the_same_lists_is_refused(path):
    nest = [0] * 10
    for _ in range(30):
        nest = [nest] * 10
    torch.save(hostile(nest=nest), path)
    with pytest.raises(DamagedFile, match="unfolds to more than its size"):
        load_tensors(path, "thing")
    loop = []
    loop.append(loop)
    torch.save(hostile(nest=loop), path)
    with pytest.raises(DamagedFile):
        load_tensors(path, "thing")


def test_a_compressed_file_is_refused_before_it_is_unpacked(path, tmp_path):
    torch.save(hostile(weights=torch.zeros(20_000_000)), path)
    bomb = tmp_path / "bomb.pt"
    with (
        zipfile.ZipFile(path) as source,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as zipped,
    ):
        for name in source.namelist():
            zipped.writestr(name, source.read(name))
    assert bomb.stat().st_size < 200_000
    assert torch.load(bomb, weights_only=True)["weights"].nbytes == 80_000_000
    with pytest.raises(DamagedFile, match="is damaged or is no Mario RL thing"):
        load_tensors(bomb, "thing")


def test_a_storage_shorter_than_declared_is_refused(path, tmp_path):
    torch.save(hostile(weights=torch.zeros(100_000)), path)
    short = tmp_path / "short.pt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(short, "w") as shortened:
        for name in source.namelist():
            content = source.read(name)
            shortened.writestr(name, content[:8] if "data/" in name else content)
    with pytest.raises(DamagedFile):
        load_tensors(short, "thing")


def test_the_content_is_a_plain_dictionary(path):
    torch.save(Counter({"kind": "thing", "schema": SCHEMA}), path)
    with pytest.raises(DamagedFile):
        load_tensors(path, "thing")


def tensor_with_attributes():
    """What `weights_only` lets through, although it hides a method of the tensor."""
    tensor = torch.zeros(2)
    tensor.numpy = 5
    return tensor


@pytest.mark.parametrize(
    "value",
    [
        b"bytes",
        {1, 2},
        1j,
        torch.zeros(2).to_sparse(),
        torch.zeros(2, dtype=torch.complex64),
        Counter("a"),
        tensor_with_attributes(),
    ],
)
def test_what_no_file_of_ours_holds_is_refused_or_checked(path, value):
    torch.save(hostile(value=value), path)
    with pytest.raises(DamagedFile):
        load_tensors(path, "thing")


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(1).expand(3),
        torch.zeros(4, 1).expand(4, 2),
        torch.arange(4.0).as_strided((3, 2), (1, 1)),
        torch.arange(9.0).as_strided((3, 3), (1, 2)),
    ],
)
def test_elements_that_share_memory_are_refused(path, value):
    torch.save(hostile(value=value, large_enough=torch.zeros(100)), path)
    with pytest.raises(DamagedFile, match="value is a tensor whose elements share memory"):
        load_tensors(path, "thing")


def test_other_orders_in_memory_are_read(path):
    values = torch.arange(24.0).reshape(2, 3, 4)
    orders = [values.permute(2, 0, 1), values[:, ::2, 1:], values[:, :1], values[:0], values[0, 0]]
    save_tensors(path, "thing", {"orders": [*orders, torch.zeros(1, 5).expand(1, 5)]})
    for ours, theirs in zip(load_tensors(path, "thing")["orders"], orders, strict=False):
        assert torch.equal(ours, theirs)
