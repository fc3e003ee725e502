"""A run folder: the paper's steps for any net, with the net and the solver of each step as files that run by themselves.

``RUN/run.json`` says what is trained from what, and refuses to be gone on with as something else. Each step has a folder:
``RUN/step2_swwae_layerwise/{train_val,solver}.prototxt``, its snapshots, and ``curve.csv``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

from ..data.database import Database
from ..errors import CaffeError, NetError, SolverError, WeightsError, nearest, prefixed, require_file
from ..files import atomic_path, sha256
from ..net import Net
from ..proto import caffe_pb2, format_text, read_net, read_solver
from ..solver import distributed
from ..solver import run as solver
from ..solver.snapshot import filename
from .blocks import Filler
from .decoder import KINDS, OBJECTIVES, Decoder, augment, paper_loss_weights, reconstruction_net, up_to
from .encoder import Unit, read_encoder
from .generate import BATCH, DECODING, FINETUNING, write_files
from .loss_weights import STRENGTH, is_vgg16, measure_blobs, rule_loss_weights
from .nets import imagenet_inputs, vgg
from .prototxt import LOSSES, format_readable, net_text
from .report import write_report
from .stages import Stage, train_stages

COMMAND = "caffe-train-stages"
MANIFEST = "run.json"
BASELINE = "baseline"
OWN_FIELDS = ("net", "net_param", "train_net", "train_net_param", "test_net", "test_net_param", "snapshot_prefix")
TESTED = 100  # test batches where the size of the test data is not known


@dataclass(frozen=True)
class Recipe:
    """What a run trains, from what, and how.

    Attributes:
        variants: ``sae_first`` … ``swwae_layerwise``; ``baseline`` is the classification net alone, trained on as in step 4.
        weights: the caffemodel of the classification net (step 1).
        net: the prototxt of the classification net with its data layers; ``""`` for VGG-16 on ImageNet.
        solver: a solver file whose fields, but for net and snapshot prefix, step 4 has; ``""`` for this project's.
        decoder_solver: the same for steps 2 and 3.
        loss_weights: of step 4, by the names that :func:`~.decoder.augment` takes; None for the paper's where the net is
            VGG-16, and for the rule of :mod:`~.loss_weights` elsewhere.
        strength: of that rule.
        seed: instead of the solvers' ``random_seed``; None leaves them.
        filler: of the decoder's weights; None for the paper's.
        source: the layer to decode from; ``""`` for the last one that is pooled.
        until: the last step: 2 or 3 for decoders alone, the encoder fixed; 4 for everything.
        image: the blob that holds the images.
        image_scale: what images are multiplied by before they are compared; None brings them to a range of 1.
    """

    variants: Sequence[str]
    weights: str
    net: str = ""
    solver: str = ""
    decoder_solver: str = ""
    loss_weights: Mapping[str, float] | None = None
    strength: float = STRENGTH
    seed: int | None = None
    filler: Filler | None = None
    source: str = ""
    until: int = 4
    image: str = "data"
    image_scale: float | None = None


@dataclass
class Run:
    """A run folder that is ready to be trained.

    Attributes:
        folder: where it is.
        manifest: what ``run.json`` holds.
        chains: the stages of each variant, in order; variants of a kind share the first.
    """

    folder: str
    manifest: dict[str, Any]
    chains: dict[str, list[Stage]] = field(default_factory=dict)

    @property
    def stages(self) -> list[Stage]:
        """Every stage once."""
        return list({stage.solver: stage for chain in self.chains.values() for stage in chain}.values())


def parse_variant(name: str) -> Decoder | None:
    """Return the decoder that ``swwae_all`` and its like name; None for ``baseline``.

    Raises:
        NetError: there is no such variant.
    """
    names = [f"{kind}_{objective}" for kind in KINDS for objective in OBJECTIVES]
    if name not in (*names, BASELINE):
        raise NetError(
            f'no variant "{name}"{nearest(name, [*names, BASELINE])}: there are {", ".join(names)} and {BASELINE}'
        )
    kind, _, objective = name.partition("_")
    return None if name == BASELINE else Decoder(kind, objective)


def step_folders(variants: Sequence[str], until: int) -> list[str]:
    """Return the names of the folders of a run's steps, in the order of the steps' numbers.

    Raises:
        NetError: there is no such variant.
    """
    names = [
        f"step{number}_{name}"
        for variant in variants
        for number, name in _numbered(variant, parse_variant(variant), until)
    ]
    return sorted(dict.fromkeys(names), key=lambda name: name[:5])


def _numbered(variant: str, decoder: Decoder | None, until: int) -> list[tuple[int, str]]:
    """The number and the name of each step of a variant, in order."""
    if decoder is None:
        return [(4, variant)]
    steps = [(2, f"{decoder.kind}_layerwise"), (3, decoder.name), (4, variant)]
    return [(n, name) for n, name in steps if n <= until and (n != 3 or decoder.objective != "layerwise")]


def train_run(recipe: Recipe, folder: str, **options: Any) -> dict[str, str]:
    """Train all variants of a recipe in ``folder`` and write the report; return the path of each one's final weights.

    Where the folder holds the same recipe, what is finished is skipped and what is not goes on from its newest snapshot.

    Args:
        recipe: what to train.
        folder: the run folder; made if it is missing.
        options: for :func:`~pycaffe_compat.solver.run.train`.

    Raises:
        NetError: the net has no mirror image. WeightsError: the weights do not fit it.
        SolverError: the folder is of another recipe, or holds other files; a step failed.
    """
    solver.launch_if_several(options.get("gpu", ""), options.get("cpu", False))
    modes = [read_solver(path).solver_mode for path in (recipe.solver, recipe.decoder_solver) if path]
    with distributed.group(use_gpu=not (options.get("cpu", False) or caffe_pb2.SolverParameter.CPU in modes)):
        run = _prepared_by_first(recipe, folder)
        finals = {name: train_stages(chain, recipe.weights, **options) for name, chain in run.chains.items()}
        if distributed.rank() == 0:
            write_report(run.folder, run.manifest, run.chains, recipe.weights)
    return finals


def _prepared_by_first(recipe: Recipe, folder: str) -> Run:
    """Prepare the run in the first of several processes, for all of them."""
    run = failed = None
    if distributed.rank() == 0:
        try:
            run = prepare_run(recipe, folder)
        except CaffeError as error:
            failed = error
    run, failed = distributed.from_first((run, failed))
    if failed is not None:
        raise failed
    assert run is not None
    return run


def prepare_run(recipe: Recipe, folder: str) -> Run:
    """Write the files of a run, or check that those that are there are these; return the run.

    Raises:
        As :func:`train_run`; nothing is written then.
    """
    folder = os.path.normpath(folder)
    require_file(recipe.weights, "the weights of the classification net")
    if not recipe.variants:
        raise NetError("no variant to train")
    if recipe.until not in (2, 3, 4):
        raise NetError(f"the last step is 2, 3 or 4, not {recipe.until}")
    decoders = {name: parse_variant(name) for name in dict.fromkeys(recipe.variants)}
    net = read_net(recipe.net) if recipe.net else vgg(inputs=imagenet_inputs(BATCH))
    solvers = {
        "solver": _solver_fields(recipe.solver, FINETUNING, net, recipe),
        "decoder_solver": _solver_fields(recipe.decoder_solver, DECODING, net, recipe),
    }
    wanted = _configuration(recipe, net, solvers)
    path = os.path.join(folder, MANIFEST)
    if os.path.exists(path):
        manifest = read_manifest(path)
        _refuse_another(path, manifest.get("configuration", {}), wanted)
    else:
        if os.path.isdir(folder) and os.listdir(folder):
            raise SolverError(
                f"{folder} has files but no {MANIFEST}: it is not a run folder; choose an empty or new one"
            )
        manifest = {"configuration": wanted, **_measure(recipe, net, any(decoders.values()))}
    run = Run(folder, manifest)
    with prefixed(recipe.net or "VGG-16"):
        files = _files(run, recipe, net, decoders, solvers)
    _refuse_changed(files)
    if not os.path.exists(path):
        _make_folder(folder)
        with atomic_path(path) as temporary, open(temporary, "w") as file:
            json.dump(manifest, file, indent=1)
            file.write("\n")
    write_files({name: text for name, text in files.items() if not os.path.exists(name)}, "")
    return run


# ---- the configuration


def _solver_fields(path: str, default: Mapping[str, Any], net: Any, recipe: Recipe) -> Any:
    """The ``SolverParameter`` of a step, without net and prefix."""
    if path:
        param = read_solver(path)
        for name in OWN_FIELDS:
            param.ClearField(name)
    else:
        param = caffe_pb2.SolverParameter(**default)
        if recipe.net:
            param.test_iter[0] = _test_batches(net)
    if recipe.seed is not None:
        param.random_seed = recipe.seed
    if not param.HasField("max_iter"):
        raise SolverError(f"{path}: max_iter is not set; set the number of iterations")
    return param


def _test_batches(net: Any) -> int:
    """How many batches the TEST data of a net are, where it reads an LMDB that is there."""
    for layer in net.layer:
        tested = any(rule.phase == caffe_pb2.TEST for rule in layer.include if rule.HasField("phase"))
        if layer.type == "Data" and tested and os.path.isdir(layer.data_param.source):
            return -(-len(Database(layer.data_param.source)) // max(layer.data_param.batch_size, 1))
    return TESTED


def _configuration(recipe: Recipe, net: Any, solvers: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs must have in common to be one, as JSON."""
    return {
        "variants": list(dict.fromkeys(recipe.variants)),
        "net": {_layer_key(layer): _one_line(layer) for layer in net.layer},
        "weights": f"sha256 {sha256(recipe.weights)}",
        **{name: _fields(param) for name, param in solvers.items()},
        "loss_weights": dict(recipe.loss_weights) if recipe.loss_weights is not None else "by rule",
        "strength": recipe.strength,
        "filler": dict(recipe.filler) if recipe.filler else "the paper's",
        "source": recipe.source,
        "until": recipe.until,
        "image": recipe.image,
        "image_scale": recipe.image_scale,
    }


def _one_line(layer: Any) -> str:
    return " ".join(format_text(layer).split())


def _layer_key(layer: Any) -> str:
    phases = [caffe_pb2.Phase.Name(rule.phase) for rule in layer.include if rule.HasField("phase")]
    return " ".join([f'layer "{layer.name}"', *phases])


def _fields(param: Any) -> dict[str, str]:
    lines = format_text(param).splitlines()
    fields: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), []).append(value.strip())
    return {name: ", ".join(values) for name, values in fields.items()}


def read_manifest(path: str) -> dict[str, Any]:
    """Return what ``run.json`` holds.

    Raises:
        SolverError: it is not the description of a run.
    """
    try:
        with open(path) as file:
            manifest = json.load(file)
    except (ValueError, OSError) as error:
        raise SolverError(f"{path}: not the description of a run: {error}") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("configuration"), dict):
        raise SolverError(f"{path}: not the description of a run: it has no configuration")
    return manifest


def _refuse_another(path: str, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise where two configurations differ, with what differs.

    Raises:
        SolverError: they do.
    """
    found = list(_differences("", there, wanted))
    if found:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise SolverError(
            f"{path} has a different configuration: {'; '.join(found[:5])}{more}. Choose another folder, or remove this one"
        )


def _differences(where: str, there: Any, wanted: Any) -> list[str]:
    if there == wanted:
        return []
    if isinstance(there, Mapping) and isinstance(wanted, Mapping):
        names = list(dict.fromkeys([*there, *wanted]))
        return [
            words
            for name in names
            for words in _differences(f"{where} {name}".strip(), there.get(name), wanted.get(name))
        ]
    return [f"{where} is {_shown(there)} there and {_shown(wanted)} here"]


def _shown(value: Any) -> str:
    if value is None:
        return "missing"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _refuse_changed(files: Mapping[str, str]) -> None:
    """Raise where a file of the run is not what the run writes.

    Raises:
        SolverError: it was changed.
    """
    for name, text in files.items():
        if os.path.exists(name):
            with open(name) as file:
                if file.read() != text:
                    raise SolverError(
                        f"{name} was changed since the run began; delete it to have it written again, "
                        "or choose another folder"
                    )


def _make_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise CaffeError(f"cannot make the folder {folder}: {error.strerror}") from error


# ---- what is measured once


def _measure(recipe: Recipe, net: Any, decoding: bool) -> dict[str, Any]:
    """Look at the net with its weights: whether they fit, the shape of its images, loss weights.

    Raises:
        NetError: there is no mirror image. WeightsError: the weights do not fit the net.
    """
    name = recipe.net or "VGG-16"
    with closing(Net(net, "TRAIN", weights=[recipe.weights], file=recipe.net)) as built:
        if recipe.image not in built.blob_shapes:
            tops = [top for step in built.steps if not step.bottoms for top in step.tops]
            raise NetError(
                f'{name}: no blob "{recipe.image}"{nearest(recipe.image, tops)}; the data layers make {", ".join(tops)}: '
                "say which holds the images"
            )
        shape = tuple(built.blob_shapes[recipe.image][1:])
        scale = recipe.image_scale if recipe.image_scale is not None else _image_scale(net, recipe.image)
        facts: dict[str, Any] = {"image_shape": list(shape), "image_scale": scale}
        with prefixed(name):
            units = up_to(read_encoder(net, recipe.image, shape), recipe.source) if decoding else []
        _require_fitting(built, units, recipe.weights, name)
        if not decoding:
            return facts
        if recipe.loss_weights is not None:
            return {**facts, "loss_weights": dict(recipe.loss_weights), "loss_weights_from": "given"}
        if is_vgg16(units):
            return {**facts, "loss_weights": paper_loss_weights(units, recipe.image), "loss_weights_from": "the paper"}
        with prefixed(name):
            measured = measure_blobs(built, units, recipe.image, scale)
        return {
            **facts,
            "loss_weights": rule_loss_weights(measured, recipe.image, recipe.strength),
            "loss_weights_from": "the rule",
            "measured": {blob: asdict(each) for blob, each in measured.items()},
        }


def _require_fitting(built: Net, units: Sequence[Unit], weights: str, name: str) -> None:
    report = built.load_report
    missing = [unit.name for unit in units if unit.name in report.missing]
    if missing or not report.loaded:
        raise WeightsError(
            f"{weights} has no weights for {', '.join(missing) or 'any layer'} of {name}: is it from another net?"
        )


def _image_scale(net: Any, image: str) -> float:
    """What brings the pixels of the data layers to a range of 1."""
    scales = [layer.transform_param.scale for layer in net.layer if image in layer.top and not layer.bottom]
    return 1 / 255 / scales[0] if scales and scales[0] else 1 / 255


# ---- the files


@dataclass(frozen=True)
class _Step:
    """What one step trains: its number in the paper, the name of its folder, a title, its net and what that is."""

    number: int
    name: str
    title: str
    net: Any
    about: str


def _steps(net: Any, variant: str, decoder: Decoder | None, facts: Mapping[str, Any], recipe: Recipe) -> list[_Step]:
    """The steps of a variant, in order."""
    if decoder is None:
        return [
            _Step(
                4, variant, "the classification net alone, trained on", net, "The classification net as it was given."
            )
        ]
    induced: dict[str, Any] = {
        "filler": recipe.filler,
        "image": recipe.image,
        "image_shape": tuple(facts["image_shape"]),
        "image_scale": facts["image_scale"],
    }
    steps = []
    for number, name in _numbered(variant, decoder, recipe.until):
        if number < 4:
            each = Decoder(decoder.kind, name.partition("_")[2], **induced)
            about = f"{each.name}, the encoder fixed (lr_mult 0), every loss with weight 1: {LOSSES[each.objective]}."
            title = f"the {each.name} decoder, the encoder fixed"
            steps.append(_Step(number, name, title, reconstruction_net(net, each, recipe.source), about))
        else:
            whole = Decoder(decoder.kind, decoder.objective, **induced)
            augmented = augment(net, whole, facts["loss_weights"], recipe.source)
            about = f"The net with a mirrored decoder, {variant}: {LOSSES[decoder.objective]}."
            steps.append(_Step(number, name, f"{variant}, the whole net", augmented, about))
    return steps


def _files(
    run: Run, recipe: Recipe, net: Any, decoders: Mapping[str, Decoder | None], solvers: Mapping[str, Any]
) -> dict[str, str]:
    """Fill the chains of ``run``; return the text of every net and solver file by path."""
    files: dict[str, str] = {}
    for variant, decoder in decoders.items():
        start = recipe.weights
        for step in _steps(net, variant, decoder, run.manifest, recipe):
            folder = os.path.join(run.folder, f"step{step.number}_{step.name}")
            path, solver = os.path.join(folder, "train_val.prototxt"), os.path.join(folder, "solver.prototxt")
            param = caffe_pb2.SolverParameter()
            param.CopyFrom(solvers["solver" if step.number == 4 else "decoder_solver"])
            param.net, param.snapshot_prefix = path, os.path.join(folder, "snapshot")
            header = f"Step {step.number}: {step.title}. To run it alone, where {run.folder} is:"
            alone = f"caffe-train-net --solver {solver} --weights {start}"
            files[path] = net_text(step.net, step.about, COMMAND)
            fields = [descriptor.name for descriptor, _ in param.ListFields() if descriptor.name not in OWN_FIELDS]
            order = ["net", *fields, "snapshot_prefix"]
            files[solver] = format_readable(param, f"{header}\n{alone}\nGenerated by: {COMMAND}", order=order)
            run.chains.setdefault(variant, []).append(
                Stage(step.number, step.title, solver, os.path.join(folder, "curve.csv"))
            )
            start = f"{recipe.weights},{filename(param, param.max_iter, '.caffemodel')}"
    return files
