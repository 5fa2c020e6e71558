"""How an episode begins, in training and in evaluations: at the start of the stage, after a number
of no-op frames (Mnih et al. 2015), or at the last save point.

At most four no-op frames pass in one step, so that no step takes longer than a decision: the other
games wait for it.
"""

import numpy as np

from mario_rl.games.interface import FRAME_SKIP, NOOP, RESET, RETRY


class EpisodeStarts:
    """The episodes that are being started in N games.

    Attributes:
        noops_left: emulated frames before the first decision, int64 [N].
    """

    def __init__(self, num_envs: int) -> None:
        self.noops_left = np.zeros(num_envs, dtype=np.int64)

    def command(
        self,
        commands: np.ndarray,
        resets: np.ndarray,
        noop_frames: np.ndarray,
        retries: np.ndarray | None = None,
    ) -> np.ndarray:
        """Put the commands that begin episodes into the commands of a step.

        Args:
            commands: int [N], changed for the games in which an episode is being started.
            resets: bool [N], the games that begin at the start.
            noop_frames: int [N], the number of no-op frames in those games.
            retries: bool [N], the games that begin at their last save point; None: no game.

        Returns:
            The no-op frames of the step, int64 [N], as `Games.step_async` wants them.
        """
        self.noops_left = np.where(resets, noop_frames, self.noops_left)
        commands[self.noops_left > 0] = NOOP
        commands[resets] = RESET
        if retries is not None:
            commands[retries] = RETRY
        step_frames = np.where(commands == NOOP, np.minimum(self.noops_left, FRAME_SKIP), 0)
        self.noops_left -= step_frames
        return step_frames
