"""Generators trained with the reference implementation of pix2pix and CycleGAN become a run folder.

What a file holds is read off the shapes of its tensors; what the numbers of its images meant stands in no file, so a
config has to say it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import struct
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeGuard, get_args

import torch
import yaml
from torch import Tensor

from medgan import nets
from medgan.atomic import refuse_full_folder, replacing
from medgan.config import Config, load_translation
from medgan.data import flat_axis
from medgan.errors import ConfigError, InputError
from medgan.progress import say
from medgan.run import Run, open_run

__all__ = ["import_weights"]

ORIGIN = "imported from the reference implementation, pytorch-CycleGAN-and-pix2pix; nothing is known of their training"
HEADER = "# Imported weights. What stands here was given or seen in them; how they were trained is not known.\n"
EXPECTED = "the state dict of a generator is expected, as the reference implementation saves it in latest_net_G.pth"
# What torch.load and the pickle reader in it raise on files that are cut short or of another kind.
NO_WEIGHTS = (
    *(OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError, MemoryError),
    *(ArithmeticError, pickle.PickleError, struct.error),
)
WRAPPERS = {"module", "_orig_mod"}  # of DataParallel and DistributedDataParallel, and of torch.compile
ENTRIES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
STATISTICS = frozenset(ENTRIES[2:])
PUBLISHED = re.compile(rf"(?:(?:model|conv_block|[0-9]{{1,3}})\.)+(?:{'|'.join(ENTRIES)})")
NAMES = tuple(name for name in get_args(nets.GeneratorName) if name.startswith(("unet_", "resnet_")))
MANY = 64  # convolutions; no published net is nearly as deep
GIVEN = ("prep", "patch", "neighbours", "overlap")
KEPT: dict[str, Any] = {
    **dict.fromkeys(("cases", *GIVEN), True),
    "augment": {"gamma", "noise"},
    "model": {"name", "generator"},
    "train": {"precision"},
}

_Layers = dict[str, dict[str, Tensor]]  # a layer's name, and its tensors by theirs


@dataclass(frozen=True)
class _Shape:
    """What the tensors of a generator show of it."""

    name: str
    norm: str
    ins: int
    outs: int
    width: int

    def __str__(self) -> str:
        return f"{self.name} with {self.norm} norm, {self.ins} → {self.outs} channels, width {self.width}"


@dataclass(frozen=True)
class _Generator:
    """A file's generator; its tensors carry medgan's names."""

    path: Path
    sha256: str
    shape: _Shape
    tensors: dict[str, Tensor]


def import_weights(
    weights: Path | str,
    overrides: Sequence[str] = (),
    *,
    config: Path | str,
    back: Path | str | None = None,
    arch: str | None = None,
    out: Path | str = "run",
) -> Run:
    """Make a run folder of generator weights trained with pytorch-CycleGAN-and-pix2pix.

    Net, norm, channels and width are read off the tensors. The net works as that implementation's does with `--eval`:
    batch norm by its running statistics, no dropout.

    Args:
        weights: the generator that makes b from a: `latest_net_G.pth`, or `latest_net_G_A.pth` of a CycleGAN.
        overrides: `dotted.key=value` changes of the config, such as `prep.b.range=[-1000,2000]`.
        config: a YAML file, whose `prep`, `patch`, `neighbours`, `overlap` and `train.precision` are used: what the
            net saw in training. Its other settings are those of a training that did not take place.
        back: the generator that makes a from b: `latest_net_G_B.pth`. The run then goes both ways.
        arch: what the weights must be, such as `unet_256`; whatever they are if not given.
        out: the run folder, new or empty.

    Raises:
        InputError: if a file cannot be read, holds something else, or a net that medgan has not.
        ConfigError: if the config does not fit the net.
        OutputError: if `out` cannot be written.

    Source:
        The published layouts: Isola et al. 2017, arXiv:1611.07004, appendix 6.1; Zhu et al. 2017, arXiv:1703.10593,
        §7.2.
    """
    out = Path(out)
    _refuse_unknown(arch)
    refuse_full_folder(out)
    files = {"b": weights} if back is None else {"b": weights, "a": back}
    generators = {to: _read_generator(Path(path), arch) for to, path in files.items()}
    _refuse_two_kinds(generators)
    contract = _contract(Path(config), overrides, generators)
    _refuse_misfit(contract, generators["b"])
    return _write(out, contract, generators)


# --- a file -----------------------------------------------------------------------------------------------------------


def _read_generator(path: Path, arch: str | None) -> _Generator:
    held, sha256 = _read(path)
    tensors = _state_dict(held, path)
    _refuse_discriminator(tensors, path)
    _refuse_foreign(tensors, path)
    layers = _layers(tensors)
    shape = _shape(layers, path)
    _refuse_shape(shape, arch, path)
    return _Generator(path, sha256, shape, _carried(shape, layers, path))


def _read(path: Path) -> tuple[object, str]:
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({told}); name a file such as latest_net_G.pth") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            held = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except NO_WEIGHTS as error:
        raise InputError(f"{path}: {_fault(error)}") from None
    return held, hashlib.sha256(content).hexdigest()


def _fault(error: Exception) -> str:
    """Why a file was not loaded; torch's own words end in advice to run the code that is in it."""
    code = re.search(r"GLOBAL (\S+)", str(error))
    if code:
        return f"holds code ({code[1]}), and medgan runs none; save the state_dict() of the net instead of the net"
    return f"is cut short, damaged or no file of torch.save; {EXPECTED}"


def _state_dict(held: object, path: Path) -> dict[str, Tensor]:
    """The tensors by name, without what wraps the dict or the names."""
    inner = next((held[key] for key in ("state_dict", "model") if key in held), held) if _is_dict(held) else held
    if not _is_dict(inner) or not inner:
        raise InputError(f"{path}: holds {_told(inner)}; {EXPECTED}")
    if not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in inner.items()):
        raise InputError(f"{path}: holds {_told(inner)}, which are not all tensors; {EXPECTED}")
    bare = {".".join(part for part in name.split(".") if part not in WRAPPERS): inner[name] for name in inner}
    if len(bare) < len(inner):
        raise InputError(f"{path}: holds tensors twice, with and without a wrapper's name; save one net alone")
    return bare


def _is_dict(held: object) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(held, Mapping)


def _told(held: object) -> str:
    if not _is_dict(held):
        return f"a {type(held).__name__}"
    names = ", ".join(str(name)[:40] for name in list(held)[:4]) + (" …" if len(held) > 4 else "")
    return f"{len(held)} entries ({names})" if held else "nothing, an empty dict"


def _layers(tensors: Mapping[str, Tensor]) -> _Layers:
    """By the numbers in their names: that is the order of the net, whatever the order of the file."""
    layers: _Layers = {}
    for name, tensor in tensors.items():
        layer, _, entry = name.rpartition(".")
        layers.setdefault(layer, {})[entry] = tensor
    return dict(sorted(layers.items(), key=lambda item: _order(item[0])))


def _order(layer: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in layer.split(".")]


# --- its net ----------------------------------------------------------------------------------------------------------


def _shape(layers: _Layers, path: Path) -> _Shape:
    convs = [layer["weight"].shape for layer in layers.values() if "weight" in layer and layer["weight"].ndim == 4]
    sizes = [tuple(shape[2:]) for shape in convs]
    if not 0 < len(convs) < MANY:
        raise InputError(f"{path}: holds {len(convs)} two-dimensional convolutions; {EXPECTED}")
    first, last = convs[0], convs[-1]
    norm = _norm(layers, path)
    if set(sizes) == {(4, 4)}:  # the last one is transposed
        return _Shape(f"unet_{2 ** (len(convs) // 2)}", norm, first[1], last[1], first[0])
    if sizes[0] == sizes[-1] == (7, 7):
        return _Shape(f"resnet_{(len(convs) - 6) // 2}blocks", norm, first[1], last[0], first[0])
    seen = f"{len(convs)} convolutions, the first {_times(first)}, the last {_times(last)}"
    raise InputError(f"{path}: looks like no generator of the reference implementation ({seen}); {EXPECTED}")


def _norm(layers: _Layers, path: Path) -> str:
    """A conv in front of batch norm has no bias, and instance norm has no weights."""
    biased = next("bias" in layer for layer in layers.values() if "weight" in layer and layer["weight"].ndim == 4)
    weighted = any(layer["weight"].ndim == 1 for layer in layers.values() if "weight" in layer)
    if biased != weighted:
        return "instance" if biased else "batch"
    seen = "an instance norm with weights of its own" if weighted else "no norm"
    raise InputError(f"{path}: is of a net with {seen}; medgan has batch norm, and instance norm without weights")


def _carried(shape: _Shape, layers: _Layers, path: Path) -> dict[str, Tensor]:
    """The tensors under medgan's names, in float32; every one has to fit."""
    wanted, seen = _net(shape).state_dict(), dict(_entries(layers, shape.norm))
    for one, other in zip_longest(seen, wanted):
        if one is None or other is None or not _fit(one, seen[one], other, wanted[other]):
            counts = f"{len(seen)} tensors, {len(wanted)} belong"
            raise InputError(
                f"{path}: looks like {shape}, but {_difference(one, seen, other, wanted)} ({counts}); copy it anew, "
                "or save it from the published net"
            )
    carried = {name: _number(*found, path) for name, found in zip(wanted, seen.items(), strict=True)}
    _tell_types(seen, path)
    return carried


def _net(shape: _Shape) -> nets.Net:
    """Without memory for its weights."""
    with torch.device("meta"):
        return nets.build(shape.name, shape.ins, shape.outs, shape.norm, width=shape.width)


def _entries(layers: _Layers, norm: str) -> Iterator[tuple[str, Tensor]]:
    """In medgan's order; torch before 0.4 kept statistics that instance norm never used, and did not count batches."""
    for name, layer in layers.items():
        if norm == "instance" and STATISTICS.issuperset(layer):
            continue
        known = {"num_batches_tracked": torch.tensor(0)} | layer if "running_mean" in layer else layer
        yield from ((f"{name}.{entry}", known[entry]) for entry in ENTRIES if entry in known)


def _fit(one: str, tensor: Tensor, other: str, target: Tensor) -> bool:
    return one.rpartition(".")[2] == other.rpartition(".")[2] and tensor.shape == target.shape


def _difference(one: str | None, seen: Mapping[str, Tensor], other: str | None, wanted: Mapping[str, Tensor]) -> str:
    if other is None or one is None:
        return f"{one} is one too many" if one else "its last ones are missing"
    found, entry = _times(seen[one].shape), other.rpartition(".")[2]
    return f"{one} is {found}, and a {entry} of {_times(wanted[other].shape)} belongs there"


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "one number"


def _tell_types(seen: Mapping[str, Tensor], path: Path) -> None:
    types = {tensor.dtype for tensor in seen.values() if tensor.is_floating_point()} - {torch.float32}
    if types:
        say(f"{path}: {', '.join(sorted(str(kind).removeprefix('torch.') for kind in types))} became float32")


def _number(name: str, tensor: Tensor, path: Path) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return tensor.detach().to(torch.int64)
    if not tensor.is_floating_point() or tensor.layout is not torch.strided:
        raise InputError(f"{path}: {name} is {tensor.dtype}, {tensor.layout}; weights are dense floating-point numbers")
    number = tensor.detach().to(torch.float32)
    if not number.isfinite().all():
        raise InputError(f"{path}: {name} holds values that are not finite; name a file of an earlier epoch")
    return number


# --- what is refused --------------------------------------------------------------------------------------------------


def _refuse_unknown(arch: str | None) -> None:
    if arch not in (None, *NAMES):
        raise InputError(
            f"--arch {arch}: is no generator of the reference implementation (accepted: {', '.join(NAMES)})"
        )


def _refuse_discriminator(tensors: Mapping[str, Tensor], path: Path) -> None:
    convs = [tensor.shape for tensor in tensors.values() if tensor.ndim == 4]
    sizes = {tuple(shape[2:]) for shape in convs}
    if sizes == {(1, 1)} or (sizes == {(4, 4)} and convs[-1][0] == 1):
        kind = "pixel" if sizes == {(1, 1)} else f"PatchGAN of {len(convs)} convolutions"
        raise InputError(f"{path}: is a discriminator ({kind}), which makes no images; {EXPECTED}")


def _refuse_foreign(tensors: Mapping[str, Tensor], path: Path) -> None:
    foreign = next((name for name in tensors if not PUBLISHED.fullmatch(name)), None)
    if foreign is not None:
        raise InputError(f"{path}: {foreign[:80]!r} is no name of the published nets; {EXPECTED}")
    if any(".conv_block.0." in name for name in tensors):
        raise InputError(f"{path}: its blocks are padded by zeros; medgan has the published padding, by reflection")


def _refuse_shape(shape: _Shape, arch: str | None, path: Path) -> None:
    if arch not in (None, shape.name):
        raise InputError(f"{path}: looks like {shape}; name that with --arch instead of {arch}, or leave --arch out")
    if shape.name not in NAMES:
        raise InputError(f"{path}: looks like {shape}; medgan has {', '.join(NAMES)}")
    if shape.outs != 1:
        raise InputError(
            f"{path}: looks like {shape}; medgan makes images of one channel: train with --input_nc 1 --output_nc 1, "
            "or make one channel of these weights as the documentation of import-weights shows"
        )


def _refuse_two_kinds(generators: Mapping[str, _Generator]) -> None:
    kinds = {generator.shape: generator.path for generator in generators.values()}
    if len(kinds) > 1:
        seen = ", ".join(f"{path} looks like {shape}" for shape, path in kinds.items())
        raise InputError(f"{seen}; both directions of a run have one kind of net: import them one by one")


def _refuse_misfit(config: Config, generator: _Generator) -> None:
    flat, ins = flat_axis(config.patch), generator.shape.ins
    if flat is None:
        raise ConfigError(
            f"patch: {list(config.patch)} is a block, and the net of {generator.path} takes slices; make one of its "
            "sizes 1, such as [256, 256, 1]"
        )
    try:
        _net(generator.shape).require_size([size for axis, size in enumerate(config.patch) if axis != flat])
    except InputError as error:
        raise ConfigError(f"patch: {error}") from None
    if ins != config.in_channels:
        advice = (
            f"set neighbours={ins // 2} if it saw {ins // 2} slices on either side" if ins % 2 else "no number fits"
        )
        raise ConfigError(
            f"neighbours: {config.neighbours} makes {config.in_channels} channels of {len(config.prep.sources)} "
            f"source(s), but {generator.path} looks like "
            f"{generator.shape}; {advice}; colours of one image are to be made one channel first, as the documentation "
            "of import-weights shows"
        )


# --- the run ----------------------------------------------------------------------------------------------------------


def _contract(path: Path, overrides: Sequence[str], generators: Mapping[str, _Generator]) -> Config:
    """The config's side of the run; the model is what the weights are."""
    for key in (override.partition("=")[0] for override in overrides):
        if key.partition(".")[0] not in GIVEN and key != "train.precision":
            raise ConfigError(f"{key}: has no effect on weights that are trained; accepted: {', '.join(GIVEN)}")
    shape = generators["b"].shape
    net = {"name": shape.name, "norm": shape.norm, "width": shape.width, "dropout": False}
    model = {"name": "cyclegan" if "a" in generators else "pix2pix", "generator": net}
    imposed = [f"cases={os.devnull}", f"model={json.dumps(model)}", "augment={gamma: 0, noise: 0}"]
    return load_translation(path, [*overrides, *imposed])


def _write(out: Path, config: Config, generators: Mapping[str, _Generator]) -> Run:
    tensors = {f"{to}.{name}": value for to, one in generators.items() for name, value in one.tensors.items()}
    known = yaml.safe_dump(config.model_dump(mode="json", include=KEPT), sort_keys=False, allow_unicode=True)
    with replacing(out) as temporary:
        temporary.mkdir()
        (temporary / "config.yaml").write_text(HEADER + known, encoding="utf-8")
        run = Run(temporary, config)
        run.save_weights(tensors, best={})
        run.write_card(_facts(generators))
    return open_run(out)


def _facts(generators: Mapping[str, _Generator]) -> dict[str, Any]:
    """For the card: where the weights are from, and that nobody knows how they came about."""
    files = {to: {"file": one.path.name, "sha256": one.sha256, "net": str(one.shape)} for to, one in generators.items()}
    imported = {"origin": ORIGIN, "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "generators": files}
    return {"seed": None, "cases_sha256": None, "split_sha256": None, "imported": imported}
