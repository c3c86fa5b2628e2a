"""The pictures of a report: source, synthetic, reference and signed error of a case in three planes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import GeometryError
from medgan.formats.png import data_uri, encode_png, synthetic_text
from medgan.pictures import Axis, colour_bar, diverging, grey, plane
from medgan.volume import Volume

__all__ = ["Exhibit", "Panel", "Picture", "Strip", "hang"]

Array = npt.NDArray[Any]
Window = tuple[float, float]

# A grey pixel takes at most a byte, a coloured one two, and four thirds of it in a page. 9 grey and 3 coloured pictures
# a panel, be they pure noise, stay below 10 MB.
_BUDGET_PIXELS, _PICTURES_PER_PANEL = 7_500_000, 15
_LONGEST_PX = 320
_MARGIN = 0.04
_WINDOW_PERCENT = (0.5, 99.5)
# The plane, the world axis across it, what both ends of that axis are called, and the picture's left and right side.
_PLANES: tuple[tuple[Axis, int, str, str], ...] = (
    ("axial", 2, "IS", "RL"),
    ("coronal", 1, "PA", "RL"),
    ("sagittal", 0, "LR", "AP"),
)


@dataclass(frozen=True)
class Panel:
    """A case to be shown in pictures; all its volumes lie on one grid.

    Args:
        case: name of the case.
        source: what was translated.
        synthetic: what came out.
        reference: what was wanted.
        mask: where errors count; pictures are cropped to it and cross in its middle.
        error_limit: error shown in full colour, in the unit of the reference.
        window: values of synthetic and reference shown black and white; their central 99 % inside the mask if None.
    """

    case: str
    source: Volume
    synthetic: Volume
    reference: Volume
    mask: Volume | None
    error_limit: float
    window: Window | None = None


@dataclass(frozen=True)
class Picture:
    """One image of a page."""

    uri: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class Strip:
    """The four pictures of one plane."""

    axis: str
    place: str
    left: str
    right: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Exhibit:
    """All pictures of one case with their captions."""

    case: str
    heads: tuple[str, ...]
    strips: tuple[Strip, ...]
    bar: Picture
    limit: str
    unit: str
    caption: str


def hang(panel: Panel, num_panels: int) -> Exhibit:
    """Make the pictures of a case.

    Args:
        panel: the case.
        num_panels: how many share the page: the more, the smaller each picture.

    Raises:
        GeometryError: if its volumes do not lie on one grid.
        InputError: if the error limit or the window cannot be used.
    """
    volumes = _cropped(_on_one_grid(panel))
    scene = _Scene(
        panel.case,
        volumes,
        _windows(volumes, panel.window),
        _error(volumes),
        panel.error_limit,
        _middle(volumes),
        min(_LONGEST_PX, math.isqrt(_BUDGET_PIXELS // (num_panels * _PICTURES_PER_PANEL))),
    )
    roles = ("source", "synthetic", "reference")
    unit = panel.reference.unit
    return Exhibit(
        case=panel.case,
        heads=(*(_name(role.capitalize(), volumes[role]) for role in roles), "Synthetic − reference"),
        strips=tuple(_strip(scene, number) for number in range(len(_PLANES))),
        bar=_picture(colour_bar(128, 1), f"colours from plus to minus {panel.error_limit:g} {unit}", {}),
        limit=f"{panel.error_limit:g}",
        unit=unit,
        caption=_caption(panel, scene.windows),
    )


@dataclass(frozen=True)
class _Scene:
    """The volumes of a panel, ready to be cut: on one grid, cropped, with their windows and the signed error."""

    case: str
    volumes: dict[str, Volume]
    windows: dict[str, Window]
    error: Volume
    error_limit: float
    middle: list[int]
    longest_px: int


def _on_one_grid(panel: Panel) -> dict[str, Volume]:
    volumes = {"source": panel.source, "synthetic": panel.synthetic, "reference": panel.reference}
    if panel.mask is not None:
        volumes["mask"] = panel.mask
    volumes = {role: volume.reorient("RAS") for role, volume in volumes.items()}
    grid = volumes["reference"].grid
    for role, volume in volumes.items():
        if not volume.grid.same_as(grid):
            raise GeometryError(
                f"case {panel.case!r}: the {role} is not on the reference's grid: {volume.grid.describe()} and "
                f"{grid.describe()}; resample it first"
            )
    return volumes


def _cropped(volumes: dict[str, Volume]) -> dict[str, Volume]:
    """To the mask and a margin around it."""
    if "mask" not in volumes or not volumes["mask"].array.any():
        return volumes
    shape = np.array(volumes["mask"].array.shape)
    found = np.argwhere(volumes["mask"].array != 0)
    margin = np.ceil(_MARGIN * shape).astype(int)
    start, stop = np.maximum(found.min(axis=0) - margin, 0), np.minimum(found.max(axis=0) + 1 + margin, shape)
    return {role: volume.crop(start.tolist(), stop.tolist()) for role, volume in volumes.items()}


def _windows(volumes: dict[str, Volume], window: Window | None) -> dict[str, Window]:
    shared = window or _central(volumes["reference"], volumes.get("mask"))
    return {
        "source": _central(volumes["source"], volumes.get("mask")),
        "synthetic": shared,
        "reference": shared,
    }


def _central(volume: Volume, mask: Volume | None) -> Window:
    inside = volume.array[mask.array != 0] if mask is not None and mask.array.any() else volume.array
    low, high = (float(value) for value in np.percentile(inside, _WINDOW_PERCENT))
    return low, high if high > low else low + 1


def _error(volumes: dict[str, Volume]) -> Volume:
    synthetic, reference = volumes["synthetic"], volumes["reference"]
    error = synthetic.array.astype(np.float32) - reference.array.astype(np.float32)
    return reference.with_array(error * (volumes["mask"].array != 0) if "mask" in volumes else error)


def _strip(scene: _Scene, number: int) -> Strip:
    axis, across, ends, sides = _PLANES[number]
    index, place_mm = scene.middle[across], float(scene.error.grid.to_world(scene.middle)[across])
    images = [_image(scene, role, axis, index) for role in scene.windows]
    colours = diverging(plane(scene.error, axis, index, longest_px=scene.longest_px), scene.error_limit)
    alt = f"{scene.case}, {axis}, synthetic minus reference"
    images.append(_picture(colours, alt, synthetic_text(scene.volumes["synthetic"].synthetic)))
    return Strip(axis, f"{abs(place_mm):.0f} mm {ends[int(place_mm >= 0)]}", sides[0], sides[1], tuple(images))


def _image(scene: _Scene, role: str, axis: Axis, index: int) -> Picture:
    volume = scene.volumes[role]
    pixels = grey(plane(volume, axis, index, longest_px=scene.longest_px), scene.windows[role])
    return _picture(pixels, f"{scene.case}, {axis}, {_name(role, volume)}", synthetic_text(volume.synthetic))


def _name(role: str, volume: Volume) -> str:
    return f"{role} {volume.modality}".strip()


def _middle(volumes: dict[str, Volume]) -> list[int]:
    """Index of the voxel in the mask's centre of mass, or in the volume's middle."""
    mask = volumes.get("mask")
    if mask is None or not mask.array.any():
        return [length // 2 for length in volumes["reference"].array.shape]
    return [round(float(centre)) for centre in np.argwhere(mask.array != 0).mean(axis=0)]


def _picture(pixels: Array, alt: str, text: dict[str, str]) -> Picture:
    return Picture(data_uri(encode_png(pixels, text=text)), alt, pixels.shape[1], pixels.shape[0])


def _caption(panel: Panel, windows: dict[str, Window]) -> str:
    target, source = (
        f"{windows[role][0]:.4g} to {windows[role][1]:.4g} {volume.unit}".replace("-", "−")
        for role, volume in (("reference", panel.reference), ("source", panel.source))
    )
    return f"Black to white: {source} in the source, {target} in synthetic and reference."
