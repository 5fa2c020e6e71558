"""The sum tree against an array that is searched from its beginning."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies

from mario_rl.replay.sum_tree import SumTree

SIZES = [1, 2, 3, 5, 8, 13, 64, 100]


def naive_find(priorities: np.ndarray, target: float) -> int:
    running_sum = 0.0
    for index, priority in enumerate(priorities):
        running_sum += priority
        if running_sum > target:
            return index
    raise AssertionError("target beyond the total")


def tree_of(priorities: np.ndarray) -> SumTree:
    tree = SumTree(len(priorities))
    tree.set(np.arange(len(priorities)), priorities)
    return tree


@pytest.mark.parametrize("size", SIZES)
def test_equals_a_naive_array_under_random_operations(size):
    rng = np.random.default_rng(size)
    tree, naive = SumTree(size), np.zeros(size)
    assert tree.total == 0 and not tree.priorities().any()
    for _ in range(30):
        indices = rng.integers(size, size=rng.integers(1, 2 * size + 1))
        # Whole numbers, of which sums are exact, and many zeros.
        priorities = rng.integers(4, size=len(indices)) * rng.integers(2, size=len(indices))
        tree.set(indices, priorities.astype(np.float64))
        for index, priority in zip(indices, priorities, strict=True):
            naive[index] = priority
        assert tree.total == naive.sum()
        assert np.array_equal(tree.priorities(), naive)
        assert np.array_equal(tree.get(indices), naive[indices])
        if tree.total:
            edges = np.arange(tree.total)
            targets = np.concatenate([edges, edges + 0.5, rng.random(20) * tree.total])
            expected = [naive_find(naive, target) for target in targets]
            assert tree.find(targets).tolist() == expected


@pytest.mark.parametrize("size", SIZES)
def test_one_priority_for_all(size):
    tree = SumTree(size)
    tree.set(np.arange(size), 0.25)
    assert tree.total == size / 4
    assert tree.find(np.arange(size) / 4).tolist() == list(range(size))


def test_of_an_index_set_twice_the_last_priority_counts():
    tree = tree_of(np.ones(5))
    tree.set(np.array([3, 1, 3, 3, 1]), np.array([9.0, 8.0, 7.0, 6.0, 5.0]))
    assert tree.priorities().tolist() == [1, 5, 1, 6, 1]
    assert tree.total == 14


def test_arguments_and_results_are_not_shared():
    tree = tree_of(np.array([1.0, 2.0, 3.0]))
    targets = np.array([5.5, 0.5])
    assert tree.find(targets).tolist() == [2, 0]
    assert targets.tolist() == [5.5, 0.5]
    tree.priorities()[:] = 0
    assert tree.total == 6 and tree.get(np.array([2])).tolist() == [3]


@pytest.mark.parametrize("size", [3, 64, 100])
def test_draws_are_proportional_to_priority(size):
    rng = np.random.default_rng(0)
    priorities = rng.random(size)
    priorities[1::5] = 0
    draws = 40_000
    tree = tree_of(priorities)
    counts = np.bincount(tree.find(rng.random(draws) * tree.total), minlength=size)
    expected = draws * priorities / priorities.sum()
    assert not counts[priorities == 0].any()
    possible = priorities > 0
    chi_square = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    freedom = possible.sum() - 1
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    strategies.lists(
        strategies.just(0.0) | strategies.floats(1e-3, 1e3), min_size=1, max_size=40
    ).filter(any)
)
def test_zero_priority_is_never_drawn(values):
    priorities = np.array(values)
    tree = tree_of(priorities)
    sums = np.cumsum(priorities)
    # The edges: 0, each boundary from both sides, and the total, which i + u rounds up to.
    targets = np.concatenate(
        [[0.0], sums, np.nextafter(sums, 0), np.nextafter(sums, np.inf), [tree.total]]
    )
    targets = targets[targets <= tree.total]
    assert (tree.get(tree.find(targets)) > 0).all()


@pytest.mark.parametrize("size", [1, 5, 100])
@pytest.mark.parametrize("where", ["first", "last"])
def test_a_single_priority_is_always_drawn(size, where):
    index = 0 if where == "first" else size - 1
    tree = SumTree(size)
    tree.set(np.array([index]), 0.1)
    targets = np.array([0.0, 0.05, np.nextafter(0.1, 0), 0.1])
    assert tree.find(targets).tolist() == [index] * 4


def test_a_hundred_thousand_changes_leave_no_drift():
    size = 777
    rng = np.random.default_rng(1)
    tree, naive = SumTree(size), np.zeros(size)
    for _ in range(1000):
        indices = rng.integers(size, size=100)
        priorities = 10.0 ** rng.uniform(-6, 6, size=100)
        tree.set(indices, priorities)
        naive[indices] = priorities
    assert tree.total == tree_of(naive).total
    assert tree.total == pytest.approx(naive.sum(), rel=1e-12)
    tree.set(np.arange(size), 0.0)
    assert tree.total == 0.0
