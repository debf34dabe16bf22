"""The order of an epoch: sizes, laws of supplementation, and a slow loop as oracle."""

import random as python_random

import numpy as np
import pytest
import torch

from mixcli.data.order import epoch, lone_classes
from mixcli.sampling import Random


def balanced(classes, each):
    return np.repeat(np.arange(classes), each)


def draw(labels, batch, supplement=2, seed=0, number=0):
    return epoch(labels, batch, supplement, Random(seed, "order", number))


def batches(order):
    return [order.step(k)[:2] for k in range(len(order))]


@pytest.mark.parametrize(
    ("classes", "each", "batch", "final"),
    [
        (10, 5000, 128, 128.0),
        (100, 500, 128, 163.75),
        (100, 500, 100, 137.0),
        (100, 500, 64, 98.0),
        (100, 500, 32, 55.4),
        (100, 500, 512, 515.0),
        (200, 500, 128, 195.8),
        (101, 750, 64, 98.2),
    ],
)
def test_the_final_batch_has_the_hypergeometric_size(classes, each, batch, final):
    order = draw(balanced(classes, each), batch)
    assert len(order) == classes * each // batch
    assert np.diff(order.starts).mean() == pytest.approx(final, abs=1.0)


@pytest.mark.parametrize("supplement", [2, 3, 5])
def test_every_class_present_is_filled_up_to_n_or_to_all_it_has(supplement):
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(40), [1, 2, 3, 4] + [30] * 36))
    size = np.bincount(labels)
    for rows, added in batches(draw(labels, 50, supplement)):
        before = np.bincount(labels[rows[: len(rows) - added]], minlength=40)
        after = np.bincount(labels[rows], minlength=40)
        filled = np.maximum(before, np.minimum(supplement, size))
        assert np.array_equal(after, np.where(before > 0, filled, 0))


def test_with_n_2_no_class_is_alone_and_each_grows_by_at_most_one():
    labels = balanced(100, 50)
    for rows, added in batches(draw(labels, 64)):
        after = np.bincount(labels[rows], minlength=100)
        growth = np.bincount(labels[rows[len(rows) - added :]], minlength=100)
        assert 1 not in after
        assert growth.max() == 1


def test_no_image_is_twice_in_a_batch():
    labels = np.random.default_rng(2).integers(0, 60, 3000)
    for supplement in (0, 2, 4, 7):
        for rows, _ in batches(draw(labels, 64, supplement)):
            assert len(np.unique(rows)) == len(rows)


def test_without_supplement_the_epoch_is_a_permutation_less_the_remainder():
    for supplement in (0, 1):
        order = draw(balanced(10, 103), 100, supplement)
        assert len(order) == 10 and (order.added == 0).all()
        assert len(order.rows) == 1000 and len(np.unique(order.rows)) == 1000


def test_the_extras_leave_the_first_images_as_they_are_without_them():
    labels = balanced(100, 20)
    plain, filled = draw(labels, 64, 0), draw(labels, 64, 3)
    for k in range(len(plain)):
        assert np.array_equal(plain.step(k)[0], filled.step(k)[0][:64])


def test_same_key_same_batches_and_another_epoch_or_seed_others():
    labels = balanced(100, 20)
    first = draw(labels, 64)
    assert np.array_equal(first.rows, draw(labels, 64).rows)
    assert not np.array_equal(first.rows[:64], draw(labels, 64, number=1).rows[:64])
    assert not np.array_equal(first.rows[:64], draw(labels, 64, seed=1).rows[:64])


def test_an_extra_is_uniform_among_the_images_not_in_the_batch():
    """Four images of class 1, of which a batch of one holds one: each of the other three is as likely."""
    labels = np.array([1, 1, 1, 1])
    pairs = np.zeros((4, 4), dtype=int)
    for number in range(1500):
        for rows, added in batches(draw(labels, 1, 2, number=number)):
            assert added == 1
            pairs[rows[0], rows[1]] += 1
    expected = 1500 / 3
    others = pairs[~np.eye(4, dtype=bool)]
    assert np.trace(pairs) == 0
    assert ((others - expected) ** 2 / expected).sum() < 31.3  # chi square with 8 degrees of freedom, 0.9999


def slow_epoch(labels, batch, supplement, seed):
    """METHODS 4.1, image by image."""
    draw = python_random.Random(seed)
    order = draw.sample(range(len(labels)), len(labels))
    for step in range(len(labels) // batch):
        rows = order[step * batch : (step + 1) * batch]
        for c in sorted(set(labels[rows])):
            have = [r for r in rows if labels[r] == c]
            free = [r for r in np.flatnonzero(labels == c) if r not in rows]
            rows = rows + draw.sample(free, max(0, min(supplement - len(have), len(free))))
        yield rows


@pytest.mark.parametrize("supplement", [2, 4])
def test_the_law_is_that_of_a_slow_loop(supplement):
    """How often each image is an extra, over many epochs of a small set with unequal classes, and batch sizes."""
    labels = np.repeat(np.arange(6), [1, 2, 3, 5, 8, 11])
    epochs = 500
    ours, slow, sizes = np.zeros(30), np.zeros(30), [0, 0]
    for seed in range(epochs):
        for rows, added in batches(draw(labels, 6, supplement, seed)):
            ours += np.bincount(rows[len(rows) - added :], minlength=30)
            sizes[0] += len(rows)
        for rows in slow_epoch(labels, 6, supplement, seed):
            slow += np.bincount(rows[6:], minlength=30)
            sizes[1] += len(rows)
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)
    assert np.abs(ours - slow).max() < 5 * np.sqrt(2 * slow.max())
    assert ours[0] == 0  # a class with one image has no other to add


def test_a_batch_larger_than_the_set_gives_no_step():
    order = draw(balanced(2, 5), 11)
    assert len(order) == 0 and len(order.rows) == 0
    with pytest.raises(IndexError):
        order.step(0)


def test_lone_classes_are_counted():
    assert lone_classes(np.array([0, 1, 1, 3])) == 2
    assert lone_classes(balanced(5, 2)) == 0


def test_no_global_generator_is_moved():
    before = np.random.get_state()[1].copy(), python_random.getstate(), torch.get_rng_state()
    draw(balanced(100, 20), 64, 4)
    after = np.random.get_state()[1], python_random.getstate(), torch.get_rng_state()
    assert np.array_equal(before[0], after[0]) and before[1] == after[1] and torch.equal(before[2], after[2])


def test_the_order_of_unlabelled_images_depends_on_nothing_of_the_labelled_ones():
    few, many = balanced(10, 4), balanced(5, 40)
    first = epoch(few, 8, 0, Random(0, "order", 1), steps=6, unlabelled=(50, 7))
    other = epoch(many, 16, 3, Random(0, "order", 1), steps=6, unlabelled=(50, 7))
    assert all((first.step(k).unlabelled == other.step(k).unlabelled).all() for k in range(6))
    each = [first.step(k).unlabelled for k in range(6)]
    assert len(np.unique(np.concatenate(each))) == 42  # a pass shows no image twice
