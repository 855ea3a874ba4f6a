import numpy as np
import pytest

from unibrain.evaluation.controls import derangements, shuffled_control


@pytest.mark.parametrize("n", [2, 3, 5, 120])
def test_nothing_stays_in_its_place_and_nothing_is_lost(n):
    orders = derangements(n, 20, seed=4)
    assert orders.shape == (20, n)
    assert not (orders == np.arange(n)).any()
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(n), (20, 1)))


def test_every_derangement_is_equally_likely():
    orders, counts = np.unique(derangements(4, 9000, seed=0), axis=0, return_counts=True)
    assert len(orders) == 9  # the number of derangements of four items
    assert (abs(counts - 1000) < 5 * np.sqrt(1000)).all()


def test_the_seed_decides():
    np.testing.assert_array_equal(derangements(30, 3, seed=1), derangements(30, 3, seed=1))
    assert (derangements(30, 3, seed=1) != derangements(30, 3, seed=2)).any()


def test_one_item_cannot_be_shuffled():
    with pytest.raises(ValueError, match="1 items"):
        derangements(1, 1, seed=0)


def test_control_is_the_mean_over_images_and_orders():
    values = np.array([[1.0, 2, 4], [8, 16, 32], [64, 128, 256]])
    orders = np.array([[1, 2, 0], [2, 0, 1]])
    control = shuffled_control(lambda order: values[np.arange(3), order], orders)
    assert control == pytest.approx((2 + 32 + 64 + 4 + 8 + 128) / 6)
