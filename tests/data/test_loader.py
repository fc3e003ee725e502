import gc
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from pycaffe_compat.data.loader import Buffers, Loader, to_tensor
from pycaffe_compat.errors import DataError


def counting(position):
    """A batch of 6 values: its position, filled in by three jobs of different length."""
    array = np.zeros(6)

    def fill(part):
        time.sleep(0.002 * ((position + part) % 3))
        array[2 * part : 2 * part + 2] = position

    return [array], [lambda part=part: fill(part) for part in range(3)]


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "pycaffe_compat data"]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    gc.collect()
    assert not threads()


@pytest.mark.parametrize("count", [1, 3, 8])
def test_batches_come_in_order_and_whole(count):
    loader = Loader(counting, stride=5, threads=count)
    for position in range(0, 100, 5):
        assert loader.position == position
        assert set(loader.next()[0]) == {position}
    assert len(threads()) == count
    loader.close()
    loader.close()


def test_seek_goes_anywhere():
    loader = Loader(counting, stride=5, threads=2)
    loader.next()
    for position in (50, 0, 7):
        loader.seek(position)
        assert [set(loader.next()[0]) for _ in range(3)] == [{position}, {position + 5}, {position + 10}]
    loader.close()


def test_no_more_is_made_ahead_than_asked():
    begun = []

    def begin(position):
        begun.append(position)
        return [np.zeros(1)], []

    loader = Loader(begin, stride=1, prefetch=3, threads=4)
    loader.next()
    time.sleep(0.2)
    assert begun == [0, 1, 2, 3]
    loader.close()


def test_an_error_is_raised_for_its_batch_and_again():
    def begin(position):
        def job(part):
            if position == 3 and part:
                time.sleep(0.05 if part == 1 else 0)
                raise DataError(f"part {part}")

        return [np.full(1, position)], [lambda part=part: job(part) for part in range(3)]

    loader = Loader(begin, stride=1, threads=3)
    assert [loader.next()[0][0] for _ in range(3)] == [0, 1, 2]
    for _ in range(2):
        with pytest.raises(DataError, match="part 1"):
            loader.next()
        assert loader.position == 3
    loader.seek(4)
    assert loader.next()[0][0] == 4
    loader.close()


def test_an_error_while_a_batch_is_begun_is_raised():
    def begin(position):
        raise DataError(f"at {position}")

    loader = Loader(begin, stride=1, threads=2)
    with pytest.raises(DataError, match="at 0"):
        loader.next()
    loader.close()


def test_closing_does_not_wait_for_a_hanging_job():
    release = threading.Event()

    def begin(position):
        release.wait()
        return [np.zeros(1)], []

    loader = Loader(begin, stride=1, threads=2)
    raised = []

    def wait():
        try:
            loader.next()
        except RuntimeError as error:
            raised.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    while loader._work is None or not loader._work.beginning:
        time.sleep(0.01)
    start = time.monotonic()
    loader._work.stop(patience=0.2)
    assert time.monotonic() - start < 2
    release.set()
    waiter.join(5)
    assert not waiter.is_alive() and len(raised) == 1
    for thread in threads():
        thread.join(5)


def test_a_loader_that_goes_away_takes_its_threads_along():
    loader = Loader(counting, stride=1, threads=3)
    loader.next()
    assert len(threads()) == 3
    del loader
    gc.collect()
    assert not threads()


def test_a_forked_process_continues_where_its_parent_was():
    loader = Loader(counting, stride=1, threads=2)
    loader.next()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, bytes(int(loader.next()[0][0]) for _ in range(4)))
        loader.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(read, 9) == bytes([1, 2, 3, 4])
    assert loader.next()[0][0] == 1
    loader.close()


PROGRAM = """
import time
import numpy as np
from pycaffe_compat.data.loader import Loader

def begin(position):
    if position == 3:
        time.sleep(1000)
    return work(position)

def work(position):
    return [np.zeros(100)], [lambda: time.sleep(0.001)] * 4

loader = Loader(begin, stride=1, threads=4)
try:
    for i in range(8):
        loader.next()
        print(i, flush=True)
except KeyboardInterrupt:
    other = Loader(work, stride=1, threads=4)
    print("interrupted", *(i for i in range(8) if other.next()), flush=True)
"""


def test_ctrl_c_gets_through_to_one_who_waits_and_the_program_ends_with_threads_at_work():
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], **pipes) as process:
        assert [process.stdout.readline().strip() for _ in range(3)] == ["0", "1", "2"]
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline().split() == ["interrupted", *"01234567"]
        assert process.wait(timeout=30) == 0
        assert not process.stderr.read()


def test_memory_is_used_again_once_nobody_holds_it():
    buffers = Buffers()
    first = to_tensor(buffers.take(4, 3))
    place = first.data_ptr()
    view = first[1:, :2].numpy()
    del first
    gc.collect()
    assert buffers.take(4, 3).ctypes.data != place, "a view of a view still holds it"
    del view
    gc.collect()
    again = {buffers.take(4, 3).ctypes.data for _ in range(1)}
    held = [buffers.take(4, 3) for _ in range(2)]
    assert place in again | {array.ctypes.data for array in held}
    assert held[0].ctypes.data != held[1].ctypes.data
    other = buffers.take(2, 2)
    assert other.shape == (2, 2)
    assert other.dtype == np.float32


def test_memory_begins_at_a_line_of_the_cache():
    buffers = Buffers()
    held = [buffers.take(3, 5, dtype=kind) for kind in (np.uint8, np.float32, np.int32) for _ in range(4)]
    assert not any(array.ctypes.data % 64 for array in held)
    for array in held:
        array[:] = 1
    assert all(array.flags.c_contiguous and (array == 1).all() for array in held)


def test_a_tensor_shares_the_memory_of_its_array():
    array = Buffers().take(2, 2)
    tensor = to_tensor(array)
    array[:] = 7
    assert tensor.tolist() == [[7, 7], [7, 7]]
    made = torch.zeros(3)
    assert to_tensor(made.numpy()).data_ptr() == made.data_ptr()
