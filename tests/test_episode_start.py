"""The commands with which episodes begin."""

import numpy as np

from mario_rl.games.episode_start import EpisodeStarts
from mario_rl.games.interface import NOOP, RESET, RETRY

NO = np.zeros(4, dtype=np.bool_)


def test_no_op_frames_pass_a_decision_at_a_time_after_a_reset_and_not_after_a_retry():
    starts = EpisodeStarts(4)
    resets, retries = NO.copy(), NO.copy()
    resets[:2], retries[2] = True, True
    drawn = np.array([9, 0, 30, 30])
    told = []
    for step in range(5):
        commands = np.array([1, 2, 3, 4])
        now = (resets, drawn, retries) if step == 0 else (NO, np.full(4, 30), NO)
        frames = starts.command(commands, *now)
        told.append(list(zip(commands.tolist(), frames.tolist(), strict=True)))
    assert [row[0] for row in told] == [(RESET, 0), (NOOP, 4), (NOOP, 4), (NOOP, 1), (1, 0)]
    assert [row[1] for row in told] == [(RESET, 0)] + [(2, 0)] * 4
    assert [row[2] for row in told] == [(RETRY, 0)] + [(3, 0)] * 4
    assert [row[3] for row in told] == [(4, 0)] * 5
    assert not starts.noops_left.any()


def test_a_reset_during_the_no_op_frames_begins_with_its_own():
    starts = EpisodeStarts(4)
    for resets, frames in ((~NO, 20), (NO, 0), (~NO, 3)):
        starts.command(np.zeros(4, dtype=np.int64), resets, np.full(4, frames))
    assert starts.noops_left.tolist() == [3] * 4
