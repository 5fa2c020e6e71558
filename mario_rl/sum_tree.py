"""A sum tree: draws an index with probability proportional to its priority in O(log n).

Schaul et al. 2016, appendix B.2.1. All operations work on whole batches. Priorities are float64,
and each sum is computed anew from its two children, so that rounding errors never accumulate.
"""

import numpy as np


class SumTree:
    """Priorities of the indices 0 to `size` - 1, all zero at first."""

    def __init__(self, size: int) -> None:
        self._levels = max(1, (size - 1).bit_length())
        self._first_leaf = 1 << self._levels
        self._size = size
        # Node 1 is the root, the children of node i are 2i and 2i + 1.
        self._nodes = np.zeros(2 * self._first_leaf)

    @property
    def total(self) -> float:
        """The sum of all priorities."""
        return float(self._nodes[1])

    def get(self, indices: np.ndarray) -> np.ndarray:
        """Priorities, float64 [B], of the indices, int64 [B]."""
        return self._nodes[indices + self._first_leaf]

    def set(self, indices: np.ndarray, priorities: np.ndarray | float) -> None:
        """Set the priorities, [B] or one for all, >= 0, of the indices, int64 [B].

        Where an index occurs more than once, its last priority counts.
        """
        nodes = indices + self._first_leaf
        self._nodes[nodes] = priorities
        for _ in range(self._levels):
            nodes >>= 1  # a parent of two of them is computed twice, which is cheaper than to sort
            self._nodes[nodes] = self._nodes[2 * nodes] + self._nodes[2 * nodes + 1]

    def find(self, targets: np.ndarray) -> np.ndarray:
        """The index at which the running sum of priorities first exceeds each target.

        Args:
            targets: float64 [B], in [0, total).

        Returns:
            indices: int64 [B]; never one whose priority is zero.
        """
        targets = targets.copy()
        nodes = np.ones(len(targets), dtype=np.int64)
        for _ in range(self._levels):
            left = 2 * nodes
            left_sum = self._nodes[left]
            # Rounding may leave a target just beyond the sum of a branch: an empty right-hand
            # branch is never entered.
            go_left = (targets < left_sum) | (self._nodes[left + 1] == 0)
            targets = np.where(go_left, targets, targets - left_sum)
            nodes = np.where(go_left, left, left + 1)
        return nodes - self._first_leaf

    def priorities(self) -> np.ndarray:
        """All priorities, float64 [size], a copy."""
        return self._nodes[self._first_leaf : self._first_leaf + self._size].copy()
