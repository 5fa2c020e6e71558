"""The record files: what is written is read, and of a torn file all that is whole."""

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mario_rl.errors import DamagedFile, UserError
from mario_rl.storage.records import (
    EpisodeRecord,
    EvaluationRecord,
    RecordLog,
    UpdateRecord,
    read_records,
    write_checksums,
)

TYPES = [EpisodeRecord, UpdateRecord, EvaluationRecord]
EPISODE = EpisodeRecord(
    episode=1, env_steps=210, hours=0.125, env=3, epsilon=0.987, episode_return=-12.5,
    length_steps=200, max_x=722, world=1, stage=2, stages_cleared=1, game_score=1200, coins=4,
    time_left=311, outcome="death",
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stats" / "run" / "records.csv"


def make_record(record_type: type, number: int) -> Any:
    """A record in which every field has a value of its own."""
    values = {}
    for i, item in enumerate(fields(record_type)):
        value = 100 * number + i
        values[item.name] = {int: value, float: value + 0.5, str: f"outcome {value}"}[item.type]
    return record_type(**values)


def write(path: Path, *records: Any) -> bytes:
    """Go on with the file as it is."""
    content = path.read_bytes() if path.exists() else b""
    log = RecordLog(path, type(records[0]), content)
    for record in records:
        log.append(record)
    log.close()
    return path.read_bytes()


def rows(path: Path, record_type: type = EpisodeRecord) -> list[dict[str, Any]]:
    return read_records(path, record_type).to_dict("records")


@pytest.mark.parametrize("record_type", TYPES)
def test_round_trip(record_type, path):
    records = [make_record(record_type, number) for number in range(5)]
    write(path, *records)
    frame = read_records(path, record_type)
    assert frame.to_dict("records") == [asdict(record) for record in records]
    kinds = {int: "i", float: "f"}
    for item in fields(record_type):
        if item.type is str:
            assert pd.api.types.is_string_dtype(frame[item.name])
        else:
            assert frame[item.name].dtype.kind == kinds[item.type]
            assert frame[item.name].dtype.itemsize == 8


def test_floats_keep_six_digits(path):
    write(path, replace(EPISODE, hours=1 / 3, epsilon=1e-9, episode_return=-123456.4))
    row = rows(path)[0]
    assert b",0.333333," in path.read_bytes()
    assert row["hours"] == pytest.approx(1 / 3, rel=1e-5)
    assert row["epsilon"] == 1e-9
    assert row["episode_return"] == pytest.approx(-123456.4, rel=1e-5)


def test_values_that_are_no_numbers_survive(path):
    write(path, replace(EPISODE, hours=float("nan"), epsilon=float("inf"), outcome='a, "b"'))
    row = rows(path)[0]
    assert row["hours"] != row["hours"]
    assert row["epsilon"] == float("inf")
    assert row["outcome"] == 'a, "b"'


@pytest.mark.parametrize("record_type", TYPES)
def test_plain_pandas_reads_the_files(record_type, path):
    record = make_record(record_type, 1)
    write(path, record, record)
    pd.testing.assert_frame_equal(pd.read_csv(path), read_records(path, record_type))


def test_a_record_is_in_the_file_at_once(path):
    log = RecordLog(path, EpisodeRecord)
    for count in (1, 2):
        log.append(EPISODE)
        assert len(rows(path)) == count
    log.close()


@pytest.mark.parametrize("record_type", TYPES)
def test_missing_file_is_an_empty_table(record_type, path):
    frame = read_records(path, record_type)
    assert len(frame) == 0
    assert list(frame.columns) == [item.name for item in fields(record_type)]


def test_continued_file_has_one_header(path):
    for number in (1, 2, 3):
        write(path, replace(EPISODE, episode=number))
    assert [row["episode"] for row in rows(path)] == [1, 2, 3]
    assert path.read_bytes().count(b"episode,") == 1


def test_torn_last_line_is_dropped_when_read(path):
    content = write(path, EPISODE, replace(EPISODE, episode=2))
    last_line = content.rindex(b"\n", 0, -1) + 1
    for end in range(last_line, len(content)):
        path.write_bytes(content[:end])
        assert [row["episode"] for row in rows(path)] == [1], content[last_line:end]
    path.write_bytes(content)
    assert len(rows(path)) == 2


@pytest.mark.parametrize("damage", ["none", "flip", "truncate", "remove", "later rows"])
def test_file_becomes_what_the_checkpoint_remembers(damage, path, capsys):
    log = RecordLog(path, EpisodeRecord)
    contents = [log.content()]
    for number in (1, 2, 3):
        log.append(replace(EPISODE, episode=number))
        contents.append(log.content())
    log.close()
    assert path.read_bytes() == contents[-1]
    kept = contents[2]
    if damage == "flip":
        path.write_bytes(kept.replace(b"722", b"723", 1))
    elif damage == "truncate":
        path.write_bytes(kept[:-30])
    elif damage == "remove":
        path.unlink()
    elif damage == "none":
        path.write_bytes(kept)
    log = RecordLog(path, EpisodeRecord, kept)
    assert path.read_bytes() == kept
    log.append(replace(EPISODE, episode=3))
    log.close()
    assert path.read_bytes() == contents[-1]
    warned = "restores it" in capsys.readouterr().err
    assert warned == (damage in ("flip", "truncate", "remove"))


def test_torn_header_is_written_anew(path):
    content = write(path, EPISODE)
    header = content.index(b"\n") + 1
    for end in (0, 1, header // 2, header - 1):
        path.write_bytes(content[:end])
        assert len(rows(path)) == 0
        log = RecordLog(path, EpisodeRecord)
        log.append(EPISODE)
        log.close()
        assert path.read_bytes() == content


def test_a_flipped_digit_is_noticed(path):
    content = write(path, EPISODE, EPISODE)
    write_checksums(path.parent, {path.name: content})
    more = content + content.splitlines(keepends=True)[-1]
    path.write_bytes(more)
    assert len(rows(path)) == 3, "rows that came since are not vouched for yet"
    for damaged in (more.replace(b"722", b"732", 1), more[: len(content) - 40], b""):
        path.write_bytes(damaged)
        with pytest.raises(DamagedFile, match="resuming the run restores it"):
            read_records(path, EpisodeRecord)


@pytest.mark.parametrize(
    "header", [b"a,b,c\n", b"episode,env_steps\n", b"\n", b"\x89PNG\r\n\x1a\n", b"episode;x\n1;2\n"]
)
def test_foreign_columns_are_refused_and_left_alone(header, path):
    path.parent.mkdir(parents=True)
    path.write_bytes(header)
    with pytest.raises(UserError, match=r"records\.csv has other columns"):
        RecordLog(path, EpisodeRecord)
    assert path.read_bytes() == header
    with pytest.raises(DamagedFile, match=r"records\.csv is damaged"):
        read_records(path, EpisodeRecord)


def test_a_file_begun_before_there_was_a_column_gets_it(path):
    content = write(path, EPISODE, EPISODE)
    header, *old_rows = (line.rpartition(b",")[0] + b"\n" for line in content.splitlines())
    path.write_bytes(header + b"".join(old_rows))
    assert [row["start_step"] for row in rows(path)] == [0, 0]
    path.write_bytes(header)
    log = RecordLog(path, EpisodeRecord)
    log.append(EPISODE)
    log.append(EPISODE)
    log.close()
    assert path.read_bytes() == content


def test_file_of_another_kind_is_refused(path):
    write(path, make_record(UpdateRecord, 1))
    with pytest.raises(UserError, match="other columns"):
        RecordLog(path, EpisodeRecord)
    with pytest.raises(DamagedFile):
        read_records(path, EpisodeRecord)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (b",722,", b",many,"),
        (b",722,", b",7.5,"),
        (b",722,", b",,"),
        (b",722,", b"," + b"9" * 30 + b","),
        (b",722,", b",\0\0\0,"),
        (b",722,", b',"722,'),
        (b",0.987,", b",0.9.8,"),
        (b"death", b"\xff\xfe"),
        (b"death", b"death,5"),
        (b",0.987,", b",,"),
        (b",4,311,death", b""),
        (b",722,1,2,1,1200,4,311,death", b""),
    ],
)
def test_damaged_cells_are_refused_in_one_line(good, bad, path):
    content = write(path, EPISODE, EPISODE, EPISODE)
    lines = content.splitlines(keepends=True)
    assert good in lines[2]
    lines[2] = lines[2].replace(good, bad)
    path.write_bytes(b"".join(lines))
    with pytest.raises(UserError) as error:
        read_records(path, EpisodeRecord)
    assert type(error.value) is DamagedFile
    message = str(error.value)
    assert str(path) in message and "\n" not in message
