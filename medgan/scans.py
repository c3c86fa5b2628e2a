"""A case → what the network sees of it: tensors on its grid, and what translations are compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medgan.cases import Case
from medgan.errors import GeometryError
from medgan.formats import read
from medgan.prep import (
    Intensity,
    Prep,
    SamplingPrep,
    check,
    foreground,
    in_contract_unit,
    network_grid,
    to_channels,
    to_network,
)
from medgan.resample import resample
from medgan.volume import Grid, Volume

__all__ = [
    "Pair",
    "Scan",
    "Study",
    "has_mask_of",
    "read_pair",
    "read_scan",
    "read_sources",
    "read_study",
]

Judge = Callable[[Volume, Intensity, str], None]
SAME_GRID_MM = 0.1


@dataclass(frozen=True)
class Scan:
    """One image, or several contrasts of one place, ready for the network.

    Args:
        name: of its case.
        x: (C, X, Y, Z) in [-1, 1] on the network's grid, a channel a contrast.
        body: (X, Y, Z) bool, where patches are centred.
        source: the first contrast as read.
        missing: channels of x that no image fills; they are background.
    """

    name: str
    x: Tensor
    body: npt.NDArray[np.bool_]
    source: Volume
    missing: tuple[int, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class Pair(Scan):
    """The scan to translate from, and what should come out.

    Args:
        b: (1, X, Y, Z) in [-1, 1], the target on the network's grid.
        target: the target in the unit of the run's output, on the grid of the source.
        mask: (X, Y, Z) bool on that grid, where errors are counted.
    """

    b: Tensor
    target: Volume
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Study:
    """All images that a sampler learns from of one case, as the network sees them.

    Args:
        name: of the case.
        patient: whose it is.
        x: (C, X, Y, Z) in [-1, 1], a channel an image; a last one, -1 or 1, for the mask if the contract has one.
        body: (X, Y, Z) bool, the foreground of the first image.
        conditions: what is known of the case.
    """

    name: str
    patient: str
    x: Tensor
    body: npt.NDArray[np.bool_]
    conditions: Mapping[str, str]

    def middle(self, size: Sequence[int]) -> list[int]:
        """Where an image of that size has its middle, voxels: in the body, but so that nothing needless is cut off.

        Along an axis that the image covers wholly it is the middle of the scan.
        """
        places = []
        for axis, (extent, own) in enumerate(zip(size, self.body.shape, strict=True)):
            hit = np.flatnonzero(self.body.any(axis=tuple(other for other in range(3) if other != axis)))
            wanted = int(hit[0] + hit[-1] + 1) // 2 if hit.size else own // 2
            lowest, highest = extent // 2, own - (extent - extent // 2)
            places.append(own // 2 if extent >= own else min(max(wanted, lowest), highest))
        return places


def read_study(case: Case, prep: SamplingPrep) -> Study:
    """Read one case's images and bring them to the network's grid and range.

    Raises:
        InputError: if an image is of another modality or unit than the contract's, or cannot be read.
        GeometryError: if its images are not on one grid (in whatever order of axes).
    """
    volumes: list[Volume] = []
    for role, intensity in prep.images.items():
        volume = read(case.images[role]).without_padding()
        check(volume, intensity, f"{case.name}, {role}")
        first = next(iter(prep.images))
        volumes.append(_on_grid(volume, volumes[0].grid, f"{case.name}, {role}", of=first) if volumes else volume)
    channels = [
        to_network(volume, intensity, prep.spacing_mm, prep.axes)
        for volume, intensity in zip(volumes, prep.images.values(), strict=True)
    ]
    grid = network_grid(volumes[0].grid, prep.spacing_mm, prep.axes)
    if prep.mask:
        mask = _on_grid(read(case.images[prep.mask]), volumes[0].grid, f"{case.name}, {prep.mask}", of="the image")
        channels.append(_two_valued(mask, grid))
    body = Volume(foreground(volumes[0].array).astype(np.uint8), volumes[0].grid)
    return Study(
        case.name, case.patient, torch.cat(channels), resample(body, grid, order=0).array > 0, dict(case.conditions)
    )


def _two_valued(mask: Volume, grid: Grid) -> Tensor:
    """(1, X, Y, Z): 1 where a label is above 0, else -1."""
    inside = resample(mask.with_array((mask.array > 0).astype(np.uint8)), grid, order=0).array > 0
    return torch.from_numpy(np.where(inside, np.float32(1), np.float32(-1)))[None]


def read_pair(case: Case, prep: Prep) -> Pair:
    """Read one case's images and bring them to the network's grid and range.

    Raises:
        InputError: if an image is of another modality or unit than the run's, or cannot be read, or if a source is
            missing and may not.
        GeometryError: if its images are not on one grid (in whatever order of axes).
    """
    sources = read_sources(case.images, prep, case.name)
    source = next(iter(sources.values()))
    target = read(case.images["b"]).without_padding()
    check(target, prep.b, f"{case.name}, b")
    target = _on_grid(target, source.grid, f"{case.name}, b")
    mask = _mask(case, source)
    return Pair(
        name=case.name,
        x=to_channels(sources, prep),
        body=_body(mask, source, prep),
        source=source,
        missing=tuple(channel for channel, role in enumerate(prep.sources) if role not in sources),
        b=to_network(target, prep.b, prep.spacing_mm, prep.axes),
        target=in_contract_unit(target, prep.b),
        mask=mask,
    )


def read_scan(case: Case, role: str, prep: Prep) -> Scan:
    """Read one image of a case and bring it to the network's grid and range.

    Raises:
        InputError: if it is of another modality or unit than the run's, or cannot be read.
        GeometryError: if its mask is not on its grid (in whatever order of axes).
    """
    intensity, source = getattr(prep, role), read(case.images[role]).without_padding()
    check(source, intensity, f"{case.name}, {role}")
    mask = _mask(case, source) if has_mask_of(case, role) else foreground(source.array)
    x = to_network(source, intensity, prep.spacing_mm, prep.axes)
    return Scan(case.name, x, _body(mask, source, prep), source)


def read_sources(
    images: Mapping[str, Path], prep: Prep, name: str, *, series: str | None = None, judge: Judge = check
) -> dict[str, Volume]:
    """Read all contrasts that there are of a case, by role, on the grid of the first.

    Args:
        images: path of the image in each role.
        prep: the contract.
        name: of the case, for messages, which name the files without one.
        series: which one to read of the first image's folder.
        judge: refuses an image that is not what its contract says.

    Raises:
        InputError: if one is of another modality or unit than the contract's, cannot be read, or is missing and may
            not be.
        GeometryError: if they are not on one grid (in whatever order of axes).
    """
    roles = [role for role in prep.sources if role in images]
    prep.refuse_missing(roles, name or str(next(iter(images.values()), "the case")))
    volumes: dict[str, Volume] = {}
    for role in roles:
        volume = read(images[role], series=None if volumes else series).without_padding()
        what = f"{name}, {role}" if name else ""
        judge(volume, prep.sources[role], what or str(images[role]))
        first = volumes.get(roles[0], volume)
        volumes[role] = _on_grid(volume, first.grid, what or str(images[role]), of=roles[0]) if volumes else volume
    return volumes


# --- one case ---------------------------------------------------------------------------------------------------------


def _body(mask: npt.NDArray[np.bool_], source: Volume, prep: Prep) -> npt.NDArray[np.bool_]:
    """The mask on the network's grid."""
    volume = Volume(mask.astype(np.uint8), source.grid)
    return np.asarray(resample(volume, network_grid(source.grid, prep.spacing_mm, prep.axes), order=0).array > 0)


def has_mask_of(case: Case, role: str) -> bool:
    """Whether the mask of a case lies upon its image in that role: on a, or on b where there is no a."""
    return role == "a" or "a" not in case.images


def _mask(case: Case, source: Volume) -> npt.NDArray[np.bool_]:
    if "mask" not in case.images:
        return foreground(source.array)
    return np.asarray(_on_grid(read(case.images["mask"]), source.grid, f"{case.name}, mask").array > 0)


def _on_grid(volume: Volume, grid: Grid, name: str, *, of: str = "a") -> Volume:
    turned = volume.reorient(grid.orientation)
    if not turned.grid.same_as(grid, tolerance_mm=SAME_GRID_MM):
        apart = f", up to {turned.grid.distance_mm(grid):.3g} mm apart" if turned.grid.shape == grid.shape else ""
        raise GeometryError(
            f"{name}: its grid ({volume.grid.describe()}) is not that of {of} ({grid.describe()}){apart}; "
            "register and resample the images onto one grid first"
        )
    return replace(turned, grid=grid)
