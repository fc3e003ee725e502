"""Files with damage: read, they give a result or an error of the family, and no more memory than they could hold."""

from __future__ import annotations

import io
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import lmdb
import numpy as np
import pytest
from golden_files import ROOT, golden, names
from hypothesis import given
from hypothesis import strategies as st
from strategies import FUZZ, damaged, randomly, shuffled

from pycaffe_compat.data.database import Database
from pycaffe_compat.data.datum import array_to_datum, datum_to_array, parse_datum
from pycaffe_compat.data.hdf5 import Hdf5Reader
from pycaffe_compat.data.mean import read_mean
from pycaffe_compat.errors import CaffeError
from pycaffe_compat.proto import (
    Weights,
    array_to_blob,
    caffe_pb2,
    format_text,
    parse_text,
    read_net,
    read_solver,
    read_weights,
    upgrade_net,
    upgrade_solver,
    write_weights,
)
from pycaffe_compat.solver import Solver, snapshot

RNG = np.random.default_rng(0)
TEXTS = [path.read_text() for path in sorted((ROOT / "upgrade").glob("*.prototxt"))]


def bytes_of(write: Callable[[str], Any], name: str = "file") -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(str(path))
        return path.read_bytes()


def with_file(data: bytes, read: Callable[[str], Any], name: str = "file") -> None:
    """Read ``data`` as a file: a result, or an error of the family."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        try:
            read(str(path))
        except CaffeError as error:
            assert str(error)


# ---- text


@FUZZ
@given(randomly(shuffled, TEXTS))
def test_text(text: str) -> None:
    for message, upgrade in ((caffe_pb2.NetParameter, upgrade_net), (caffe_pb2.SolverParameter, upgrade_solver)):
        try:
            parsed = parse_text(text, message)
        except CaffeError:
            continue
        assert parse_text(format_text(parsed), message) == parsed or "nan" in format_text(parsed)
        try:
            upgrade(parsed)
        except CaffeError:
            continue


@FUZZ
@given(randomly(damaged, [text.encode() for text in TEXTS]))
def test_text_as_bytes(data: bytes) -> None:
    with_file(data, read_net, "net.prototxt")
    with_file(data, read_solver, "solver.prototxt")


# ---- weights


def small_weights(path: str, **options: Any) -> None:
    net = caffe_pb2.NetParameter(name="small")
    net.layer.add(name="conv", type="Convolution", bottom=["data"], top=["conv"]).convolution_param.kernel_size.append(
        3
    )
    net.layer.add(name="conv/relu", type="ReLU")
    net.layer.add(name="ip", type="InnerProduct")
    conv = [RNG.standard_normal((2, 3, 3, 3), np.float32), RNG.standard_normal(2, np.float32)]
    ip = [RNG.standard_normal((4, 5))]
    write_weights(path, net, {"conv": conv, "ip": ip}, diffs={"conv": conv, "ip": ip}, **options)


MODELS = [(ROOT / "upgrade" / "v1.caffemodel").read_bytes(), bytes_of(small_weights)]
HDF5_MODEL = bytes_of(lambda path: small_weights(path, hdf5=True))


def look_at(path: str) -> None:
    weights: Weights = read_weights(path)
    for name in weights:
        total = sum(array.nbytes for array in weights[name] if array is not None)
        assert total <= 1100 * Path(path).stat().st_size + 4096
        for index, shape in enumerate(weights.shapes(name)):
            if shape is not None:
                weights.readinto(name, index, np.empty(shape, np.float32))
        weights.diffs(name)
    weights.skeleton()


@FUZZ
@given(randomly(damaged, MODELS))
def test_caffemodel(data: bytes) -> None:
    with_file(data, look_at, "damaged.caffemodel")


@FUZZ
@given(randomly(damaged, [HDF5_MODEL]))
def test_hdf5_weights(data: bytes) -> None:
    with_file(data, look_at, "damaged.caffemodel.h5")


# ---- solver states


def solver_of(name: str, folder: str) -> Solver:
    case = golden("solvers", name)
    (Path(folder) / "net.prototxt").write_text(case.meta["net"])
    solver = f'net: "{folder}/net.prototxt" snapshot_prefix: "{folder}/snap" {case.meta["solver"]}'
    return Solver(parse_text(solver, caffe_pb2.SolverParameter), device="cpu")


STATES = {name: golden("solvers", name).group("file")["solverstate"].tobytes() for name in names("solvers")}


@pytest.fixture(scope="module")
def solvers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Solver]:
    return {name: solver_of(name, str(tmp_path_factory.mktemp(name))) for name in list(STATES)[:3]}


@FUZZ
@given(st.data())
def test_solverstate(solvers: dict[str, Solver], data: Any) -> None:
    name = data.draw(st.sampled_from(sorted(solvers)))
    with_file(data.draw(randomly(damaged, [STATES[name]])), solvers[name].restore, "damaged.solverstate")


@FUZZ
@given(st.data())
def test_hdf5_solverstate(solvers: dict[str, Solver], data: Any) -> None:
    name = sorted(solvers)[0]
    solver = solvers[name]
    learned = [learnable.tensor for learnable in solver.net.learnable]
    state = snapshot.State(3, "", 0, extra={"losses": [1.0]})
    sound = bytes_of(
        lambda path: snapshot.write_state(path, state, solver.optimizer.history(learned)), "a.solverstate.h5"
    )
    with_file(data.draw(randomly(damaged, [sound])), solver.restore, "damaged.solverstate.h5")


# ---- data


IMAGE = RNG.integers(0, 256, (9, 7, 3), dtype=np.uint8)
DATUMS = [
    array_to_datum(IMAGE.transpose(2, 0, 1), 3).SerializeToString(),
    array_to_datum(RNG.standard_normal((1, 2, 3))).SerializeToString(),
    *(
        caffe_pb2.Datum(data=cv2.imencode(kind, IMAGE)[1].tobytes(), encoded=True, label=1).SerializeToString()
        for kind in (".png", ".jpg", ".bmp", ".tiff", ".webp")
    ),
]


@FUZZ
@given(randomly(damaged, DATUMS))
def test_datum(data: bytes) -> None:
    try:
        record = parse_datum(data)
        for color in (None, True, False):
            assert datum_to_array(record, color).nbytes < 1 << 28
    except CaffeError:
        pass


@FUZZ
@given(randomly(damaged, DATUMS))
def test_records_of_a_database(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with lmdb.open(folder, map_size=1 << 20, lock=False) as env, env.begin(write=True) as transaction:
            transaction.put(b"00000000", data)
        try:
            database = Database(folder)
            datum_to_array(parse_datum(database.read(0)[1]))
        except CaffeError:
            pass


MEANS = [
    array_to_blob(RNG.standard_normal((3, 4, 5))).SerializeToString(),
    caffe_pb2.BlobProto(num=1, channels=3, height=2, width=2, data=range(12)).SerializeToString(),
]


@FUZZ
@given(randomly(damaged, MEANS))
def test_mean(data: bytes) -> None:
    with_file(data, read_mean, "mean.binaryproto")


def hdf5_data(path: str) -> None:
    with h5py.File(path, "w") as file:
        file["data"] = RNG.standard_normal((6, 2, 3)).astype(np.float32)
        file.create_dataset("label", data=np.arange(6), compression="gzip", chunks=(3,))


HDF5_DATA = bytes_of(hdf5_data)


@FUZZ
@given(randomly(damaged, [HDF5_DATA]))
def test_hdf5_data(data: bytes) -> None:
    def read(path: str) -> None:
        Path(path + ".txt").write_text(path)
        reader = Hdf5Reader(path + ".txt", ["data", "label"], 4)
        assert all(len(rows) == reader._rows[0] for rows in reader._load(0))

    with_file(data, read, "damaged.h5")


# ---- nothing is unpickled


class Bomb:
    """Raises when it is unpickled."""

    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('a pickle was loaded')",)


def test_pickles_are_never_loaded(tmp_path: Path, solvers: dict[str, Solver]) -> None:
    array = io.BytesIO()
    np.save(array, np.array([Bomb()], object), allow_pickle=True)
    archive = io.BytesIO()
    np.savez(archive, conv=np.array([Bomb()], object))
    for data in (pickle.dumps(Bomb()), array.getvalue(), archive.getvalue()):
        for read in (read_weights, read_mean, read_net, read_solver, *(s.restore for s in solvers.values())):
            for ending in ("caffemodel", "solverstate", "solverstate.h5", "npy", "pt"):
                path = tmp_path / f"bomb.{ending}"
                path.write_bytes(data)
                with pytest.raises(CaffeError):
                    read(str(path))
