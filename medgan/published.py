"""Files of generators, as the reference implementation of pix2pix and CycleGAN saves them.

What a file holds is read off the shapes of its tensors; those that are returned carry medgan's names.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeGuard, get_args

import torch
from torch import Tensor

from medgan import nets
from medgan.errors import InputError
from medgan.progress import say

__all__ = ["Generator", "Shape", "read_generator", "refuse_unknown", "too_many"]

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
COLOURS = ("red", "green", "blue")  # in the order in which that implementation reads and writes pictures
MANY = 64  # convolutions; no published net is nearly as deep

_Layers = dict[str, dict[str, Tensor]]  # a layer's name, and its tensors by theirs


@dataclass(frozen=True)
class Shape:
    """What the tensors of a generator show of it."""

    name: str
    norm: str
    ins: int
    outs: int
    width: int

    def __str__(self) -> str:
        return f"{self.name} with {self.norm} norm, {self.ins} → {self.outs} channels, width {self.width}"

    def net(self) -> nets.Net:
        """Without memory for its weights."""
        with torch.device("meta"):
            return nets.build(self.name, self.ins, self.outs, self.norm, width=self.width)


@dataclass(frozen=True)
class Generator:
    """A file's generator; its tensors carry medgan's names.

    Args:
        path: the file.
        sha256: of the file.
        shape: of the tensors.
        tensors: all that the net has.
        held: the shape of the net in the file.
        grey: how its colours became one channel; empty if they did not.
    """

    path: Path
    sha256: str
    shape: Shape
    tensors: dict[str, Tensor]
    held: Shape
    grey: str = ""


# --- a file -----------------------------------------------------------------------------------------------------------


def read_generator(path: Path, arch: str | None, grey: str | None) -> Generator:
    """The generator in a file.

    Args:
        path: a file of `torch.save`; no code in it is run.
        arch: what it must be; whatever it is if None.
        grey: of a net of grey pictures in three channels, the one to keep of those that it makes.

    Raises:
        InputError: if the file cannot be read, holds something else, or a net that medgan has not.
    """
    held, sha256 = _read(path)
    tensors = _state_dict(held, path)
    _refuse_discriminator(tensors, path)
    _refuse_foreign(tensors, path)
    layers = _layers(tensors)
    shape = _shape(layers, path)
    _refuse_shape(shape, arch, path)
    _refuse_colours(shape, grey, path)
    generator = Generator(path, sha256, shape, _carried(shape, layers, path), shape)
    return generator if grey is None else _made_grey(generator, grey)


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


def _shape(layers: _Layers, path: Path) -> Shape:
    convs = [layer["weight"].shape for layer in layers.values() if "weight" in layer and layer["weight"].ndim == 4]
    sizes = [tuple(shape[2:]) for shape in convs]
    if not 0 < len(convs) < MANY:
        raise InputError(f"{path}: holds {len(convs)} two-dimensional convolutions; {EXPECTED}")
    first, last = convs[0], convs[-1]
    norm = _norm(layers, path)
    if set(sizes) == {(4, 4)}:  # the last one is transposed
        return Shape(f"unet_{2 ** (len(convs) // 2)}", norm, first[1], last[1], first[0])
    if sizes[0] == sizes[-1] == (7, 7):
        return Shape(f"resnet_{(len(convs) - 6) // 2}blocks", norm, first[1], last[0], first[0])
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


def _carried(shape: Shape, layers: _Layers, path: Path) -> dict[str, Tensor]:
    """The tensors under medgan's names, in float32; every one has to fit."""
    wanted, seen = shape.net().state_dict(), dict(_entries(layers, shape.norm))
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


# --- one channel of three ---------------------------------------------------------------------------------------------


def _made_grey(generator: Generator, keep: str) -> Generator:
    """The net from one grey picture to one of the channels that it makes of it, but for rounding the same.

    The mean of the three would be another net: each goes through tanh first.
    """
    shape = replace(generator.shape, ins=1, outs=1)
    tensors = generator.tensors | _summed(generator) | _kept(generator, keep)
    return replace(generator, shape=shape, tensors=tensors, grey=_done(generator.shape, keep))


def _summed(generator: Generator) -> dict[str, Tensor]:
    """The first convolution: of three equal channels it adds up the products with three kernels."""
    name = _convs(generator)[0]
    return {name: generator.tensors[name].double().sum(1, keepdim=True).float()}


def _kept(generator: Generator, keep: str) -> dict[str, Tensor]:
    """The last convolution, in which each channel has kernels and a bias of its own."""
    if generator.shape.outs == 1:
        return {}
    name, at = _convs(generator)[-1], COLOURS.index(keep)
    bias = name.removesuffix("weight") + "bias"
    outs = 1 if generator.shape.name.startswith("unet") else 0  # a U-Net's is transposed
    return {
        name: generator.tensors[name].narrow(outs, at, 1).clone(),
        bias: generator.tensors[bias].narrow(0, at, 1).clone(),
    }


def _convs(generator: Generator) -> list[str]:
    return [name for name, tensor in generator.tensors.items() if tensor.ndim == 4]


def _done(shape: Shape, keep: str) -> str:
    summed = ["the first convolution's kernels are added up over red, green and blue"] if shape.ins == 3 else []
    kept = [f"{keep} is kept of what the net makes"] if shape.outs == 3 else []
    return ", ".join(summed + kept)


# --- what is refused --------------------------------------------------------------------------------------------------


def refuse_unknown(arch: str | None, grey: str | None) -> None:
    """Refuse names of nets and colours that there are not.

    Raises:
        InputError: if `arch` is no net of the reference implementation, or `grey` no colour of a picture.
    """
    if arch not in (None, *NAMES):
        raise InputError(
            f"--arch {arch}: is no generator of the reference implementation (accepted: {', '.join(NAMES)})"
        )
    if grey not in (None, *COLOURS):
        raise InputError(f"--grey {grey}: is none of the three channels of a picture (accepted: {', '.join(COLOURS)})")


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


def _refuse_shape(shape: Shape, arch: str | None, path: Path) -> None:
    if arch not in (None, shape.name):
        raise InputError(f"{path}: looks like {shape}; name that with --arch instead of {arch}, or leave --arch out")
    if shape.name not in NAMES:
        raise InputError(f"{path}: looks like {shape}; medgan has {', '.join(NAMES)}")


def _refuse_colours(shape: Shape, grey: str | None, path: Path) -> None:
    coloured = 3 in (shape.ins, shape.outs) and {shape.ins, shape.outs} <= {1, 3}
    if grey is not None and not coloured:
        raise InputError(f"{path}: looks like {shape}; --grey makes one channel of three: leave it out")
    if grey is None and shape.outs not in (1, shape.ins):
        raise too_many(shape, path)


def too_many(shape: Shape, path: Path) -> InputError:
    """That a net makes several channels, and what to do about it."""
    advice = ""
    if {shape.ins, shape.outs} <= {1, 3}:
        advice = "add --grey green if its pictures were grey, to keep green of what it makes, or "
    if shape.ins == shape.outs and shape.ins % 2:
        advice += f"name its --back and set neighbours={shape.ins // 2} if it turned slices and their neighbours, or "
    return InputError(
        f"{path}: looks like {shape}; medgan makes images of one channel: {advice}train with --input_nc 1 --output_nc 1"
    )
