import numpy as np

from pycaffe_compat.data import draws


def test_words_depend_on_the_position_not_on_the_company():
    together = draws.words(7, [3, 100, 5], 4)
    assert together.shape == (3, 4)
    assert together.dtype == np.uint64
    np.testing.assert_array_equal(together[1], draws.words(7, [100], 4)[0])
    np.testing.assert_array_equal(together[:, :2], draws.words(7, [3, 100, 5], 2))


def test_words_of_seeds_positions_and_streams_differ_and_fill_their_range():
    words = np.concatenate(
        [draws.words(seed, range(2000), 3, stream) for seed in (0, 1, 2**64 - 1) for stream in (0, 1)]
    )
    assert len(np.unique(words)) == words.size
    bits = (words.reshape(-1, 1) >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    # Each bit is set in half of the words: 5 standard deviations of a fair coin.
    assert abs(bits.mean(0) - 0.5).max() < 5 * 0.5 / words.size**0.5


def test_words_are_those_of_this_version():
    # Runs that were begun with an older version must go on with the same records: these values never change.
    assert draws.words(1, [0, 1], 2).tolist() == [
        [12793040940332582595, 17925934194126948328],
        [11446999876264359965, 9047282882916087253],
    ]


def test_permutation_is_one_and_changes_with_epoch_and_seed():
    orders = [tuple(draws.permutation(seed, epoch, 50)) for seed in (1, 2) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len(set(orders)) == 4


def test_draw_reaches_every_number_below():
    assert {draws.draw(seed, 0, 6) for seed in range(200)} == set(range(6))
