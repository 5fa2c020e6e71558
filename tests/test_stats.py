"""The record files: what is written is read, and of a torn file all that is whole."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pytest

from mario_rl.errors import DamagedFile, UserError
from mario_rl.fields import Within
from mario_rl.storage import records
from mario_rl.storage.files import atomic_write, read_json
from mario_rl.storage.paths import RunPaths
from mario_rl.storage.plain import plain_type
from mario_rl.storage.recorder import Recorder
from mario_rl.storage.records import (
    EPISODES,
    TABLES,
    UPDATES,
    RecordLog,
    Table,
    read_records,
    write_checksums,
)
from mario_rl.storage.trackers import Tracker

by_table = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
EPISODE = {
    "episode": 1, "env_steps": 210, "hours": 0.125, "env": 3, "epsilon": 0.987,
    "episode_return": -12.5, "length_steps": 200, "max_x": 722, "world": 1, "stage": 2,
    "stages_cleared": 1, "game_score": 1200, "coins": 4, "time_left": 311, "outcome": "death",
    "start_step": 0,
}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stats" / "run" / "records.csv"


def make_row(table: Table, number: int) -> dict[str, Any]:
    """A row in which every column has a value of its own."""
    row = {}
    for i, (name, kind) in enumerate(table.columns.items()):
        value = 100 * number + i
        row[name] = {int: value, float: value + 0.5, str: "stall"}[plain_type(kind)]
        if Within("[0, 1]") in get_args(kind):
            row[name] = plain_type(kind)(0.5)
    return row


def write(path: Path, *rows: dict[str, Any], table: Table = EPISODES) -> bytes:
    """Go on with the file as it is."""
    content = path.read_bytes() if path.exists() else b""
    log = RecordLog(path, table, content)
    for row in rows:
        log.append(row)
    log.flush()
    log.close()
    return path.read_bytes()


def rows(path: Path, table: Table = EPISODES) -> list[dict[str, Any]]:
    return read_records(path, table).to_dict("records")


@by_table
def test_round_trip(table, path):
    written = [make_row(table, number) for number in range(5)]
    write(path, *written, table=table)
    frame = read_records(path, table)
    assert frame.to_dict("records") == written
    kinds = {int: "i", float: "f"}
    for name, kind in table.columns.items():
        kind = plain_type(kind)
        if kind is str:
            assert pd.api.types.is_string_dtype(frame[name])
        else:
            assert frame[name].dtype.kind == kinds[kind]
            assert frame[name].dtype.itemsize == 8


def test_a_new_statistic_is_recorded_from_the_row_on_in_which_it_comes(path):
    plain, more = make_row(UPDATES, 1), {**make_row(UPDATES, 2), "entropy": 0.75, "spread": 3}
    write(path, plain, table=UPDATES)
    last = make_row(UPDATES, 3)
    write(path, more, last, table=UPDATES)
    frame = read_records(path, UPDATES)
    assert list(frame.columns) == [*UPDATES.columns, "entropy", "spread"]
    assert frame["entropy"].fillna(-1).tolist() == [-1, 0.75, -1]
    assert frame["spread"].fillna(-1).tolist() == [-1, 3, -1]
    assert frame[list(plain)].to_dict("records") == [plain, make_row(UPDATES, 2), last]


def test_a_row_without_a_value_is_nan_there(path):
    row = make_row(UPDATES, 1)
    del row["td_error"]
    write(path, row, table=UPDATES)
    assert read_records(path, UPDATES)["td_error"].isna().all()


def test_floats_keep_six_digits(path):
    write(path, EPISODE | dict(hours=1 / 3, epsilon=1e-9, episode_return=-123456.4))
    row = rows(path)[0]
    assert b",0.333333," in path.read_bytes()
    assert row["hours"] == pytest.approx(1 / 3, rel=1e-5)
    assert row["epsilon"] == 1e-9
    assert row["episode_return"] == pytest.approx(-123456.4, rel=1e-5)


def test_values_that_are_no_numbers_survive(path):
    row = make_row(UPDATES, 1) | dict(td_error=float("nan"), grad_norm=float("inf"))
    write(path, row, table=UPDATES)
    row = rows(path, UPDATES)[0]
    assert row["td_error"] != row["td_error"]
    assert row["grad_norm"] == float("inf")


@by_table
def test_plain_pandas_reads_the_files(table, path):
    row = make_row(table, 1)
    write(path, row, row, table=table)
    pd.testing.assert_frame_equal(pd.read_csv(path), read_records(path, table))


def test_a_record_is_in_the_file_at_once(path):
    log = RecordLog(path, EPISODES)
    for count in (1, 2):
        log.append(EPISODE)
        log.flush()
        assert len(rows(path)) == count
    log.flush()
    log.close()


@by_table
def test_missing_file_is_an_empty_table(table, path):
    frame = read_records(path, table)
    assert len(frame) == 0
    assert list(frame.columns) == list(table.columns)


def test_continued_file_has_one_header(path):
    for number in (1, 2, 3):
        write(path, EPISODE | dict(episode=number))
    assert [row["episode"] for row in rows(path)] == [1, 2, 3]
    assert path.read_bytes().count(b"episode,") == 1


def test_torn_last_line_is_dropped_when_read(path):
    content = write(path, EPISODE, EPISODE | dict(episode=2))
    last_line = content.rindex(b"\n", 0, -1) + 1
    for end in range(last_line, len(content)):
        path.write_bytes(content[:end])
        assert [row["episode"] for row in rows(path)] == [1], content[last_line:end]
    path.write_bytes(content)
    assert len(rows(path)) == 2


@pytest.mark.parametrize("damage", ["none", "flip", "truncate", "remove", "later rows"])
def test_file_becomes_what_the_checkpoint_remembers(damage, path, capsys):
    log = RecordLog(path, EPISODES)
    contents = [log.content()]
    for number in (1, 2, 3):
        log.append(EPISODE | dict(episode=number))
        contents.append(log.content())
    log.flush()
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
    log = RecordLog(path, EPISODES, kept)
    assert path.read_bytes() == kept
    log.append(EPISODE | dict(episode=3))
    log.flush()
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
        log = RecordLog(path, EPISODES)
        log.append(EPISODE)
        log.flush()
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
            read_records(path, EPISODES)


@pytest.mark.parametrize(
    "header", [b"a,b,c\n", b"episode,env_steps\n", b"\n", b"\x89PNG\r\n\x1a\n", b"episode;x\n1;2\n"]
)
def test_foreign_columns_are_refused_and_left_alone(header, path):
    path.parent.mkdir(parents=True)
    path.write_bytes(header)
    with pytest.raises(UserError, match=r"records\.csv has other columns"):
        RecordLog(path, EPISODES)
    assert path.read_bytes() == header
    with pytest.raises(DamagedFile, match=r"records\.csv is damaged"):
        read_records(path, EPISODES)


def test_a_file_begun_before_there_was_a_column_gets_it(path):
    content = write(path, EPISODE, EPISODE)
    header, *old_rows = (line.rpartition(b",")[0] + b"\n" for line in content.splitlines())
    path.write_bytes(header + b"".join(old_rows))
    assert [row["start_step"] for row in rows(path)] == [0, 0]
    path.write_bytes(header)
    log = RecordLog(path, EPISODES)
    log.append(EPISODE)
    log.append(EPISODE)
    log.flush()
    log.close()
    assert path.read_bytes() == content


def test_file_of_another_kind_is_refused(path):
    write(path, make_row(UPDATES, 1), table=UPDATES)
    with pytest.raises(UserError, match="other columns"):
        RecordLog(path, EPISODES)
    with pytest.raises(DamagedFile):
        read_records(path, EPISODES)


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
        read_records(path, EPISODES)
    assert type(error.value) is DamagedFile
    message = str(error.value)
    assert str(path) in message and "\n" not in message


@pytest.mark.parametrize("name", ["a,b", "a\nb", "", "a b"])
def test_a_name_that_is_no_column_is_refused(name, path):
    content = write(path, make_row(UPDATES, 1), table=UPDATES)
    log = RecordLog(path, UPDATES, content)
    with pytest.raises(UserError, match="cannot be called"):
        log.append({**make_row(UPDATES, 2), name: 1.0})
    log.flush()
    log.close()
    assert path.read_bytes() == content


def test_a_new_column_and_a_checkpoint_at_the_same_time(tmp_path, monkeypatch):
    """The checkpoint's thread syncs while the file is written again."""
    recorder = Recorder(RunPaths(tmp_path, "run"), {}, Tracker())
    recorder.record(UPDATES, make_row(UPDATES, 1))
    begun, done = threading.Event(), []

    def slow_write(path, write):
        begun.set()
        time.sleep(0.2)
        atomic_write(path, write)

    monkeypatch.setattr(records, "atomic_write", slow_write)
    with ThreadPoolExecutor(1) as thread:
        row = {**make_row(UPDATES, 2), "entropy": 0.5}
        done.append(thread.submit(recorder.record, UPDATES, row))
        begun.wait()
        recorder.sync()
        done[0].result()
    recorder.close()
    frame = read_records(tmp_path / "stats" / "run" / "updates.csv", UPDATES)
    assert frame["entropy"].fillna(-1).tolist() == [-1, 0.5]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda lines: lines.replace(b"\n", b"\r\n"), "carriage return"),
        (lambda lines: b"".join(reversed_rows(lines)), "env_steps does not ascend"),
        (lambda lines: lines.replace(b"\n", b",1" * 2000 + b"\n"), "columns"),
    ],
    ids=["line ends", "order", "columns"],
)
def test_a_file_that_we_did_not_write_is_refused(path, content, reason):
    log = RecordLog(path, UPDATES)
    for number in (1, 2):
        log.append(make_row(UPDATES, number) | {"env_steps": number})
    log.flush()
    log.close()
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(DamagedFile, match=reason):
        read_records(path, UPDATES)


def reversed_rows(lines):
    header, *rows = lines.splitlines(keepends=True)
    return [header, *reversed(rows)]


def test_a_pipe_is_no_file(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    with pytest.raises(UserError, match="not a regular file"):
        read_records(path, UPDATES)
    with pytest.raises(UserError, match="not a regular file"):
        read_json(path)
