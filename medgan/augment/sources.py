"""Runs as sources of images that stand in for one of MONAI's: on its grid, in its unit, and saying what made them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.utils.enums import SpaceKeys
from torch import Tensor

from medgan.data import flat_axis
from medgan.device import pick_device, settle
from medgan.ensemble import Member
from medgan.errors import InputError, RunError
from medgan.models.base import Sampler
from medgan.prep import Intensity, from_network, in_source_unit
from medgan.run import Run, SamplingRun, open_run, open_sampling_run
from medgan.sampling import latent, make
from medgan.volume import Grid, Synthesis, Volume

__all__ = ["Opened", "Samples", "Translations", "as_label", "kept", "made_by", "text_of"]

Array = npt.NDArray[Any]
T = TypeVar("T")
BATCH = 8
SCALED = 1.0  # an image whose values stay within this was scaled, if the run's window is that many times as wide
TIMES = 20.0
MOST_WHOLE = 2**24  # up to which float32 tells whole numbers apart
_OF_PLACE = ("affine", "original_affine", "space", "spatial_shape")
_OF_MAKER = ("filename_or_obj", "synthetic")


def made_by(mark: Synthesis | None) -> str:
    """What `meta["synthetic"]` says of an image: by what it was made, or "" for a real one.

    Example:
        >>> made_by(Synthesis("dcgan", weights_sha256="0123456789", description="MR made of random numbers"))
        'MR made of random numbers (weights 01234567)'
    """
    if mark is None:
        return ""
    weights = f" (weights {mark.weights_sha256[:8]})" if mark.weights_sha256 else ""
    return (mark.description or mark.model or "synthetic") + weights


class Opened(Generic[T]):
    """What is opened at its first use. Copies share it, and pickles leave it behind: each process opens its own."""

    def __init__(self, opening: Callable[[], T]) -> None:
        self.opening = opening
        self._open: list[T] = []

    def __call__(self) -> T:
        if not self._open:
            with torch.random.fork_rng(devices=[]):  # nets are made of random weights before theirs are loaded
                self._open.append(self.opening())
        return self._open[0]

    def __deepcopy__(self, memo: dict[int, Any]) -> Opened[T]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Opened, (self.opening,)


def _member(run: Run, to: str, device: str) -> Member:
    return Member.of(run, to=to, device=pick_device(device), batch=BATCH, overlap=None)


def _sampler(run: SamplingRun, device: str) -> Sampler:
    game = run.sampler()
    settle(game, pick_device(device), run.config.train.precision)
    return game


class Samples:
    """A sampler's run as a source of images that fit a given one.

    Args:
        run, truncation, device, axes: see `medgan.augment.transforms.RandSample`.

    Raises:
        RunError: if the folder is no run of a sampler.
    """

    def __init__(self, run: Path | str | SamplingRun, truncation: float | None, device: str, axes: str | None) -> None:
        if truncation is not None and not truncation > 0:
            raise InputError(f"truncation is above 0, or left out for none; seen {truncation:g}")
        self.run = run if isinstance(run, SamplingRun) else open_sampling_run(Path(run))
        self.truncation, self.axes, self.device = truncation, axes, device
        self.game = Opened(partial(_sampler, self.run, device))

    def sampled(self, like: Any, seed: int, conditions: Mapping[str, str]) -> tuple[MetaTensor, MetaTensor | None]:
        """The image of a seed in the place of another one, and its mask if the run makes masks."""
        prep, like = self.run.config.prep, _tensor(like)
        place, game = self._place(like), self.game()
        asked = {name: [value] for name, value in conditions.items()}
        z = latent(seed, [0], game.latent_size)
        (x,) = make(game, z, self.run.config, asked, device=pick_device(self.device), truncation=self.truncation)
        channels = [
            self._channel(x[number], like[number], place, intensity)
            for number, intensity in enumerate(prep.images.values())
        ]
        mark = self.run.synthesis(seed=seed, number=0, conditions=conditions, truncation=self.truncation)
        meta = {"filename_or_obj": f"SYN-{mark.weights_sha256[:8]}-{seed}", "synthetic": made_by(mark)}
        image = _replaced(like, np.stack(channels), meta)
        if prep.mask is None:
            return image, None
        mask = from_network(x[-1].reshape(1, *self.run.config.patch), place, _MASK, axes=prep.axes)
        inside = torch.from_numpy((mask.array > 0).astype(np.float32))
        return image, MetaTensor(inside.reshape(1, *like.shape[1:]), meta=meta)

    def _place(self, like: Tensor) -> Volume:
        """Nothing, on the run's grid with its axes in the order of those of the image."""
        prep, patch, size = self.run.config.prep, self.run.config.patch, _size(like)
        if len(like) != len(prep.images):
            raise InputError(
                f"an image of {len(like)} channels is given, and the run {self.run.path} makes {len(prep.images)} "
                f"({', '.join(prep.images)})"
            )
        place = _nothing(_nominal(patch, prep.spacing_mm, prep.axes)).reorient(self._axes(like))
        if place.grid.shape != size:
            seen, made = ("×".join(map(str, shape)) for shape in (size, place.grid.shape))
            raise InputError(
                f"an image of {seen} voxels is given, and the run {self.run.path} makes {made}; bring images to that "
                "size before, such as by Spacingd and ResizeWithPadOrCropd"
            )
        return place

    def _axes(self, like: Tensor) -> str:
        """To which sides the axes of an image run; as the run's, the one across a slice last, if nothing tells."""
        if self.axes is not None or isinstance(like, MetaTensor):
            return _grid_of(like, self.axes).orientation
        own, flat = self.run.config.prep.axes, flat_axis(self.run.config.patch)
        return own if flat is None or like.ndim > 3 else own.replace(own[flat], "") + own[flat]

    def _channel(self, x: Tensor, like: Tensor, place: Volume, intensity: Intensity) -> Array:
        _refuse_scaled(like, intensity)
        made = from_network(x.reshape(1, *self.run.config.patch), place, intensity, axes=self.run.config.prep.axes)
        return in_source_unit(made, _volume(like, place.grid, intensity), intensity).array


class Translations:
    """A translator's run as a source of images on the grid of a given one.

    Args:
        run, to, device, axes: see `medgan.augment.transforms.RandTranslate`.

    Raises:
        RunError: if the folder is no run of a translator, or one that sees several contrasts.
    """

    def __init__(self, run: Path | str | Run, to: str, device: str, axes: str | None) -> None:
        self.run = run if isinstance(run, Run) else open_run(Path(run))
        if len(self.run.config.prep.sources) > 1:
            seen = ", ".join(self.run.config.prep.sources)
            raise RunError(f"{self.run.path}: sees {seen} together; translate whole tables by medgan augment instead")
        self.to, self.axes, self.member = to, axes, Opened(partial(_member, self.run, to, device))

    def translated(self, image: Any) -> MetaTensor:
        """(1, *spatial) to the same, in the unit of the run's output."""
        image, prep = _tensor(image), self.run.config.prep.towards(self.to)
        self._refuse_unfit(image, _size(image), prep.a)
        volume = _volume(image[0], _grid_of(image, self.axes, prep.spacing_mm), prep.a)
        member = self.member()
        made = member.told(member.answer(member.seen({"a": volume})), volume)
        text = made_by(self.run.synthesis(self.to))
        if before := getattr(image, "meta", {}).get("synthetic"):
            text = f"{text}, of what was: {before}"
        return _marked(_fitted(made.array, image), image, text)

    def _refuse_unfit(self, image: Tensor, size: Sequence[int], intensity: Intensity) -> None:
        if len(image) > 1:
            raise InputError(f"an image of {len(image)} channels is given; the run {self.run.path} translates one")
        if size[2] == 1 and self.run.config.spatial_dims == 3:
            raise InputError(f"a slice is given, and the run {self.run.path} translates blocks; use it before slicing")
        _refuse_scaled(image, intensity)


_MASK = Intensity(modality="", range=(-1, 1))


# --- images of MONAI and volumes --------------------------------------------------------------------------------------


def _size(image: Tensor) -> tuple[int, int, int]:
    """(X, Y, Z) of an image (C, X, Y, Z), or (C, U, V), which is one voxel thick."""
    if image.ndim not in (3, 4):
        raise InputError(f"an image is (C, X, Y) or (C, X, Y, Z); seen {tuple(image.shape)}")
    x, y, *z = map(int, image.shape[1:])
    return x, y, z[0] if z else 1


def _grid_of(image: Tensor, axes: str | None, spacing_mm: tuple[float, float, float] | None = None) -> Grid:
    """Where the voxels of an image are, by its affine, or by what was said of its axes."""
    if axes is not None:
        return _nominal(_size(image), spacing_mm or (1, 1, 1), axes)
    if not isinstance(image, MetaTensor):
        raise InputError("an image without affine is given; keep it a MetaTensor, or say by axes= how it lies")
    affine = np.asarray(to_affine_nd(3, image.affine.numpy()))
    flip = np.diag([-1.0, -1.0, 1.0, 1.0]) if image.meta.get("space") == SpaceKeys.LPS else np.eye(4)
    return Grid(_size(image), flip @ affine)


def _nominal(shape: tuple[int, ...], spacing_mm: tuple[float, float, float], axes: str) -> Grid:
    """A grid at the origin whose axes run to those sides."""
    direction = [[(side == plus) - (side == minus) for side in axes] for plus, minus in ("RL", "AP", "SI")]
    return Grid.regular(shape, spacing_mm=spacing_mm, direction=np.array(direction, dtype=np.float64))


def _nothing(grid: Grid) -> Volume:
    return Volume(np.broadcast_to(np.float32(0), grid.shape), grid)


def _volume(channel: Tensor, grid: Grid, intensity: Intensity) -> Volume:
    """A channel, in the unit that the run expects, on its grid.

    Whole numbers become integers again, as which they are in files and are read by `medgan translate`: the threshold
    between air and body, and with it the median by which images are scaled, is not quite the same for other types.
    """
    values = torch.as_tensor(channel).detach().cpu().numpy().astype(np.float32)
    if bool((values == np.rint(values)).all()) and np.abs(values).max() < MOST_WHOLE:
        values = values.astype(np.int32)
    return Volume(values.reshape(grid.shape), grid, intensity.unit, intensity.modality)


def _refuse_scaled(image: Tensor, intensity: Intensity) -> None:
    """Values that were scaled before would be taken for values in the unit of the files."""
    low, high = intensity.range or (0, 0)
    least, most = float(image.min()), float(image.max())
    if high - low > TIMES * SCALED and least < most and max(abs(least), abs(most)) <= SCALED:
        raise InputError(
            f"the values of an image are {least:g} to {most:g}, and the run sees {low:g} to {high:g} "
            f"{intensity.unit}; put this transform before those that scale intensities"
        )


def _tensor(image: Any) -> Tensor:
    return image if isinstance(image, Tensor) else torch.as_tensor(image)


def _fitted(array: Array, like: Tensor) -> Tensor:
    """Values in the type and shape of an image's, so that both can be in one batch."""
    values = torch.from_numpy(np.ascontiguousarray(array)).reshape(like.shape)
    if not like.dtype.is_floating_point and like.dtype != torch.bool:
        info = torch.iinfo(like.dtype)
        values = values.round().clamp(info.min, info.max)
    return values.to(like.device, like.dtype)


def kept(image: Any) -> MetaTensor:
    """An image as it is; its meta says that it is not synthetic, unless it says that it is."""
    image = _tensor(image)
    return _marked(image, image, getattr(image, "meta", {}).get("synthetic", ""))


def _marked(values: Tensor, like: Tensor, text: str) -> MetaTensor:
    """Values in the place of an image's, with all that is known of it, saying by what they were made."""
    if not isinstance(like, MetaTensor):
        return MetaTensor(values, meta={"synthetic": text})
    made = MetaTensor(values.as_tensor() if isinstance(values, MetaTensor) else values).copy_meta_from(like)
    made.meta["synthetic"] = text
    return made


def _replaced(like: Tensor, array: Array, meta: Mapping[str, Any]) -> MetaTensor:
    """Values that have nothing to do with those of an image, in its place."""
    values = _fitted(array, like)
    if not isinstance(like, MetaTensor):
        return MetaTensor(values, meta=dict(meta))
    kept = {key: like.meta[key] for key in _OF_PLACE if key in like.meta}
    return MetaTensor(values, meta=kept | dict(meta), applied_operations=like.applied_operations)


def as_label(item: Mapping[Hashable, Any], key: Hashable, mask: MetaTensor | None) -> MetaTensor:
    """A mask in the place of a label image."""
    label = _tensor(_given(item, key))
    if mask is None or label.shape != mask.shape:
        raise InputError(
            f"{key}: a label of {tuple(label.shape)} is given; a mask has one channel and the image's size"
        )
    return _replaced(label, mask.numpy(), {key: mask.meta[key] for key in _OF_MAKER})


def _given(item: Mapping[Hashable, Any], key: Hashable) -> Any:
    if key not in item:
        raise InputError(f"an item has no {key}, which a sample hangs on (it has {', '.join(map(str, item))})")
    return item[key]


def text_of(item: Mapping[Hashable, Any], key: Hashable) -> str:
    """What a dict says under a key, as a table of cases would write it."""
    value = _given(item, key)
    return str(value.item() if hasattr(value, "item") else value)
