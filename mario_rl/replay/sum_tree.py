"""A sum tree: draws an index with probability proportional to its priority in O(log n).

Schaul et al. 2016, appendix B.2.1, but of width 64 instead of 2: all operations work on whole
batches, and three wide levels cost NumPy less than eighteen narrow ones. Priorities are float64,
and each sum is computed again from all its parts, so that rounding errors never accumulate.
"""

import numpy as np

_WIDTH = 64


class SumTree:
    """Priorities of the indices 0 to `size` - 1, all zero at first."""

    def __init__(self, size: int) -> None:
        self._size = size
        # The sums of a level's blocks are the entries of the level above, float64 [blocks, width].
        self._levels: list[np.ndarray] = []  # from the root to the leaves
        blocks = size
        while blocks > 1 or not self._levels:
            blocks = -(-blocks // _WIDTH)
            self._levels.insert(0, np.zeros((blocks, _WIDTH)))

    @staticmethod
    def required_bytes(size: int) -> int:
        """Memory that the tree takes, to within a few blocks."""
        return size * 8 * _WIDTH // (_WIDTH - 1)

    @property
    def total(self) -> float:
        """The sum of all priorities."""
        return float(self._levels[0].sum())

    def get(self, indices: np.ndarray) -> np.ndarray:
        """Priorities, float64 [B], of the indices, int64 [B]."""
        return self._levels[-1].ravel()[indices]

    def set(self, indices: np.ndarray, priorities: np.ndarray | float) -> None:
        """Set the priorities, [B] or one for all, >= 0, of the indices, int64 [B].

        Where an index occurs more than once, its last priority counts.
        """
        self._levels[-1].ravel()[indices] = priorities
        blocks = indices
        for level in range(len(self._levels) - 1, 0, -1):
            blocks = np.unique(blocks // _WIDTH)
            self._levels[level - 1].ravel()[blocks] = self._levels[level][blocks].sum(axis=1)

    def find(self, targets: np.ndarray) -> np.ndarray:
        """The index at which the running sum of priorities first exceeds each target.

        Args:
            targets: float64 [B], in [0, total).

        Returns:
            indices: int64 [B]; never one whose priority is zero.
        """
        batch = np.arange(len(targets))
        indices = np.zeros(len(targets), dtype=np.int64)
        for level in self._levels:
            running = level[indices].cumsum(axis=1)
            # Rounding may leave a target at the sum of its block or just beyond.
            targets = np.minimum(targets, np.nextafter(running[:, -1], 0))
            children = (running > targets[:, None]).argmax(axis=1)
            before = np.where(children > 0, running[batch, children - 1], 0)
            targets = targets - before
            indices = indices * _WIDTH + children
        return indices

    def priorities(self) -> np.ndarray:
        """All priorities, float64 [size], a copy."""
        return self._levels[-1].ravel()[: self._size].copy()
