"""Recycled memory. Each test runs a program of its own: the switch holds for a whole process."""

from __future__ import annotations

import sys
import textwrap

import pytest
import warm_start

from pycaffe_compat import extension

LINUX = sys.platform == "linux"
compiled = pytest.mark.skipif(extension.load() is not None or not LINUX, reason="needs the compiled library, and Linux")


def run(program: str, **environment: str) -> str:
    """Run a program that has imported torch and ``memory``; return what it printed."""
    begin = "import torch\nfrom pycaffe_compat import memory\nMB = 1 << 20\n"
    done = warm_start.run("-c", begin + textwrap.dedent(program), env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@compiled
def test_importing_changes_nothing():
    program = """
        import pycaffe_compat.solver
        x = torch.ones(8 * MB)
        print(memory.recycling(), memory.state().in_use)
    """
    assert run(program) == "off 0"


@compiled
def test_freed_memory_is_used_again():
    program = """
        print(memory.recycle().split()[0])
        x = torch.ones(8 * MB)
        address = x.data_ptr()
        assert address % (2 * MB) == 0
        assert memory.state().in_use == 32 * MB
        del x
        assert memory.state().kept == 32 * MB and memory.state().in_use == 0
        y = torch.empty(8 * MB - 1000)
        assert y.data_ptr() == address
        assert memory.state().reused == 1 and memory.state().mapped == 1
        assert torch.zeros(8 * MB).data_ptr() != address
        small = torch.ones(1000)
        assert memory.state().in_use == 32 * MB
    """
    assert run(program) == "on"


@compiled
def test_the_variable_keeps_it_off():
    program = """
        print(memory.recycle())
        x = torch.ones(8 * MB)
        assert memory.state().in_use == 0
    """
    assert run(program, PYCAFFE_COMPAT_RECYCLE="0") == "off (PYCAFFE_COMPAT_RECYCLE=0)"


def test_a_wrong_value_of_the_variable_is_an_error():
    program = """
        from pycaffe_compat import CaffeError
        try:
            memory.recycle()
        except CaffeError as error:
            print(error)
    """
    assert run(program, PYCAFFE_COMPAT_RECYCLE="yes").startswith('PYCAFFE_COMPAT_RECYCLE is "yes"; valid: 1, or 0')


@compiled
def test_turning_it_off_gives_memory_back_and_tensors_live_on():
    program = """
        memory.recycle()
        kept, freed = torch.full((8 * MB,), 3.0), torch.ones(8 * MB)
        del freed
        assert memory.recycle(False) == "off"
        assert memory.state().kept == 0
        assert kept.sum() == 24 * MB
        later = torch.ones(8 * MB)
        assert memory.state().in_use == 32 * MB
        del kept
        assert memory.state().in_use == 0 and memory.state().kept <= 32 * MB
        memory.recycle()
        assert torch.ones(8 * MB).sum() == 8 * MB
    """
    run(program)


@compiled
def test_kept_and_used_stay_near_the_most_used():
    program = """
        import random
        memory.recycle()
        random.seed(1)
        live, most = [], 0
        for _ in range(3000):
            if live and random.random() < 0.5:
                live.pop(random.randrange(len(live)))
            else:
                live.append(torch.empty(random.randint(1, 40) * MB, dtype=torch.uint8))
            state = memory.state()
            most = max(most, state.in_use)
            assert state.most_in_use == most
            assert state.in_use + state.kept <= most + max(most // 8, 64 * MB)
        assert state.reused > 0 and state.returned > 0
    """
    run(program)


@compiled
def test_a_repeated_step_takes_nothing_from_the_system():
    program = """
        memory.recycle()
        net = torch.nn.Sequential(*(torch.nn.Conv2d(64, 64, 3, padding=1) for _ in range(6)))
        x = torch.randn(2, 64, 128, 128)
        for step in range(6):
            net.zero_grad()
            net(x).square().mean().backward()
            mapped = memory.state().mapped
            assert step < 4 or mapped == before
            before = mapped
    """
    run(program)


@compiled
def test_blocks_of_many_sizes_are_all_kept_for_the_next_step():
    program = """
        memory.recycle()
        for step in range(4):
            held = torch.empty(2 * MB, dtype=torch.uint8)
            for size in (13, 5, 3, 8):  # each is freed before the next: 13 are in use at most, and 29 are wanted in turns
                torch.empty(size * MB, dtype=torch.uint8)
            assert step < 2 or memory.state().mapped == mapped
            mapped = memory.state().mapped
        assert memory.state().returned == 0
    """
    run(program)


@compiled
def test_results_are_the_same():
    program = """
        net = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten())
        x = torch.randn(4, 3, 128, 128)
        def gradient():
            net.zero_grad()
            net(x).square().sum().backward()
            return net[0].weight.grad.clone()
        want = gradient()
        memory.recycle()
        for _ in range(3):
            assert torch.equal(gradient(), want)
    """
    run(program)


@compiled
def test_memory_of_raw_allocations_crosses_the_switch():
    """oneDNN keeps memory that it asks for without a deleter: what was taken before the switch is freed after it."""
    program = """
        net = torch.nn.Conv2d(64, 64, 3).to(memory_format=torch.channels_last)
        x = torch.randn(2, 64, 96, 96).to(memory_format=torch.channels_last).requires_grad_()
        y = net(x)
        memory.recycle()
        y.sum().backward()
        y = net(x)
        memory.recycle(False)
        y.sum().backward()
    """
    run(program)


@compiled
def test_threads_and_forks():
    program = """
        import os, threading
        memory.recycle()
        wrong = []
        def work(number):
            for i in range(200):
                n = (1 + (number + i) % 7) * MB // 4
                x = torch.full((n,), float(number))
                if x.sum() != number * n:
                    wrong.append(number)
        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        torch.set_num_threads(1)
        for thread in threads:
            thread.start()
        children = []
        for _ in range(20):
            child = os.fork()
            if not child:
                x = torch.empty(4 * MB)
                del x
                os._exit(memory.state().in_use < 0)
            children.append(child)
        for thread in threads:
            thread.join()
        assert not wrong
        assert all(os.waitpid(child, 0)[1] == 0 for child in children)
        assert memory.state().in_use == 0
    """
    run(program)


@compiled
def test_release_gives_everything_back():
    program = """
        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * 4096
        memory.recycle()
        before = resident()
        x = torch.ones(64 * MB)
        del x
        assert memory.state().kept == 256 * MB
        assert memory.release() == 256 * MB
        assert memory.state().kept == 0 and resident() - before < 32 * MB
    """
    run(program)


@compiled
def test_more_than_there_is_is_an_error():
    program = """
        memory.recycle()
        try:
            torch.empty(1 << 48)
        except RuntimeError as error:
            assert "not enough memory: 1073741824 MB are wanted" in str(error), error
        assert memory.state().in_use == 0
        assert torch.ones(8 * MB).sum() == 8 * MB
    """
    run(program)


@pytest.mark.skipif(not LINUX, reason="only Linux counts page faults this way")
def test_without_the_library_the_heap_keeps_memory():
    program = """
        import platform, resource
        from pycaffe_compat import extension
        extension.load = lambda: "not built"
        how = memory.recycle()
        if platform.libc_ver()[0] == "glibc":
            assert how.startswith("on (the C library's heap"), how
            assert memory.state() is None and memory.release() == 0
            faults = []
            for _ in range(4):
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                x = torch.ones(16 * MB)
                del x
                faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
            assert faults[-1] < 100, faults
        print(how)
    """
    assert run(program).startswith(("on", "off"))
