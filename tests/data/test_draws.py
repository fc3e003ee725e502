import numpy as np
import pytest

from pycaffe_compat.data import draws
from pycaffe_compat.errors import DataError
from pycaffe_compat.proto import caffe_pb2


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


def test_shares_are_parts_of_one_and_of_this_version():
    assert draws.shares(5, 3, 3, draws.SIZES).tolist() == [0.6932120996030868, 0.5761042762983457, 0.9074714315848537]
    many = np.concatenate([draws.shares(1, position, 100, draws.PICTURES) for position in range(50)])
    assert 0 <= many.min() < 0.001 and 0.999 < many.max() < 1


def test_an_order_is_new_in_every_epoch_and_of_this_version():
    assert [draws.draw(seed, position, 100) for seed, position in ((1, 0), (1, 1), (2, 0))] == [95, 65, 85]
    epochs = [[1, 4, 0, 3, 2, 5], [5, 4, 3, 0, 1, 2]]
    assert [draws.permutation(7, epoch, 6).tolist() for epoch in (0, 1)] == epochs
    order = draws.Order(6, shuffle=True)
    assert [order.index(7, position) for position in range(12)] == [*epochs[0], *epochs[1]]
    assert [order.index(7, position) for position in (6, 0)] == [5, 1]
    assert [draws.Order(6).index(7, position) for position in range(8)] == [0, 1, 2, 3, 4, 5, 0, 1]


def test_an_order_begins_behind_what_it_skips():
    assert draws.draw(7, 0, 4, draws.SKIP) == 3
    assert [draws.Order(6, skip=4).index(7, position) for position in range(4)] == [3, 4, 5, 0]
    assert {draws.Order(6, skip=3).index(seed, 0) for seed in range(50)} == {0, 1, 2}


def test_an_order_of_options():
    options = caffe_pb2.ImageDataParameter(rand_skip=4, shuffle=True)
    order = draws.Order.of_list(4, options, "image_data_param", "images of list.txt")
    want = draws.Order(4, shuffle=True, skip=4)
    assert [order.index(3, position) for position in range(9)] == [want.index(3, position) for position in range(9)]
    with pytest.raises(DataError, match=r"^image_data_param.rand_skip 4 is more than the 3 images of list.txt$"):
        draws.Order.of_list(3, options, "image_data_param", "images of list.txt")
