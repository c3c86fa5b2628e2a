"""The pictures of a report: source, synthetic, reference and signed error of a case in three planes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import GeometryError
from medgan.formats.png import data_uri, encode_png, synthetic_text
from medgan.pictures import Axis, colour_bar, diverging, grey, plane
from medgan.volume import Volume

__all__ = [
    "PLANES",
    "Exhibit",
    "Panel",
    "Picture",
    "Strip",
    "cropped",
    "hang",
    "on_one_grid",
    "picture_name",
    "place_of",
    "windows",
]

Array = npt.NDArray[Any]
Window = tuple[float, float]

# A grey pixel takes at most a byte, a coloured one two, and four thirds of it in a page. 9 grey and 3 coloured pictures
# a panel, be they pure noise, stay below 10 MB.
_BUDGET_PIXELS, _PICTURES_PER_PANEL = 7_500_000, 15
_LONGEST_PX = 320
_MARGIN = 0.04
_WINDOW_PERCENT = (0.5, 99.5)
# The plane, the world axis across it, what both ends of that axis are called, and the picture's left and right side.
PLANES: tuple[tuple[Axis, int, str, str], ...] = (
    ("axial", 2, "IS", "RL"),
    ("coronal", 1, "PA", "RL"),
    ("sagittal", 0, "LR", "AP"),
)


@dataclass(frozen=True)
class Panel:
    """A case to be shown in pictures; all its volumes lie on one grid.

    Args:
        case: name of the case.
        source: what was translated; None where it is not known.
        synthetic: what came out.
        reference: what was wanted.
        mask: where errors count; pictures are cropped to it and cross in its middle.
        error_limit: error shown in full colour, in the unit of the reference.
        window: values of synthetic and reference shown black and white; their central 99 % inside the mask if None.
    """

    case: str
    source: Volume | None
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
    """The pictures of one plane: those of the volumes, and the error."""

    axis: str
    place: str
    left: str
    right: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Exhibit:
    """All pictures of one case with their captions; `made` is the column of the synthetic ones."""

    case: str
    heads: tuple[str, ...]
    made: int
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
    volumes = cropped(on_one_grid(panel))
    scene = _Scene(
        panel.case,
        volumes,
        windows(volumes, panel.window),
        _error(volumes),
        panel.error_limit,
        _middle(volumes),
        min(_LONGEST_PX, math.isqrt(_BUDGET_PIXELS // (num_panels * _PICTURES_PER_PANEL))),
    )
    roles = list(scene.windows)
    unit = panel.reference.unit
    return Exhibit(
        case=panel.case,
        heads=(*(picture_name(role.capitalize(), volumes[role]) for role in roles), "Synthetic − reference"),
        made=roles.index("synthetic"),
        strips=tuple(_strip(scene, number) for number in range(len(PLANES))),
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


def on_one_grid(panel: Panel) -> dict[str, Volume]:
    """The volumes of a panel by role, in RAS order, without those that it has not.

    Raises:
        GeometryError: if they do not lie on one grid.
    """
    given = {
        "source": panel.source,
        "synthetic": panel.synthetic,
        "reference": panel.reference,
        "mask": panel.mask,
    }
    volumes = {role: volume.reorient("RAS") for role, volume in given.items() if volume is not None}
    grid = volumes["reference"].grid
    for role, volume in volumes.items():
        if not volume.grid.same_as(grid):
            raise GeometryError(
                f"case {panel.case!r}: the {role} is not on the reference's grid: {volume.grid.describe()} and "
                f"{grid.describe()}; resample it first"
            )
    return volumes


def cropped(volumes: dict[str, Volume]) -> dict[str, Volume]:
    """Volumes by role, cut to the mask and a margin around it."""
    if "mask" not in volumes or not volumes["mask"].array.any():
        return volumes
    shape = np.array(volumes["mask"].array.shape)
    found = np.argwhere(volumes["mask"].array != 0)
    margin = np.ceil(_MARGIN * shape).astype(int)
    start, stop = np.maximum(found.min(axis=0) - margin, 0), np.minimum(found.max(axis=0) + 1 + margin, shape)
    return {role: volume.crop(start.tolist(), stop.tolist()) for role, volume in volumes.items()}


def windows(volumes: dict[str, Volume], window: Window | None) -> dict[str, Window]:
    """Values shown black and white, by role: synthetic and reference share theirs."""
    shared = window or _central(volumes["reference"], volumes.get("mask"))
    own = {"source": _central(volumes["source"], volumes.get("mask"))} if "source" in volumes else {}
    return {**own, "synthetic": shared, "reference": shared}


def _central(volume: Volume, mask: Volume | None) -> Window:
    inside = volume.array[mask.array != 0] if mask is not None and mask.array.any() else volume.array
    inside = inside[np.isfinite(inside)]
    if not inside.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(inside, _WINDOW_PERCENT))
    return low, high if high > low else low + 1


def _error(volumes: dict[str, Volume]) -> Volume:
    synthetic, reference = volumes["synthetic"], volumes["reference"]
    error = synthetic.array.astype(np.float32) - reference.array.astype(np.float32)
    return reference.with_array(error * (volumes["mask"].array != 0) if "mask" in volumes else error)


def _strip(scene: _Scene, number: int) -> Strip:
    axis, across, _, sides = PLANES[number]
    index = scene.middle[across]
    images = [_image(scene, role, axis, index) for role in scene.windows]
    colours = diverging(plane(scene.error, axis, index, longest_px=scene.longest_px), scene.error_limit)
    alt = f"{scene.case}, {axis}, synthetic minus reference"
    images.append(_picture(colours, alt, synthetic_text(scene.volumes["synthetic"].synthetic)))
    return Strip(axis, place_of(scene.error, scene.middle, number), sides[0], sides[1], tuple(images))


def place_of(volume: Volume, index: Sequence[int], number: int) -> str:
    """Where the plane of `PLANES` through a voxel lies, such as `12 mm S`."""
    _, across, ends, _ = PLANES[number]
    place_mm = float(volume.grid.to_world(index)[across])
    return f"{abs(place_mm):.0f} mm {ends[int(place_mm >= 0)]}"


def _image(scene: _Scene, role: str, axis: Axis, index: int) -> Picture:
    volume = scene.volumes[role]
    pixels = grey(plane(volume, axis, index, longest_px=scene.longest_px), scene.windows[role])
    return _picture(pixels, f"{scene.case}, {axis}, {picture_name(role, volume)}", synthetic_text(volume.synthetic))


def picture_name(role: str, volume: Volume) -> str:
    """What a picture shows: its role and the modality."""
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
    target = _told(windows["reference"], panel.reference)
    source = f"{_told(windows['source'], panel.source)} in the source, " if panel.source else ""
    return f"Black to white: {source}{target} in synthetic and reference."


def _told(window: Window, volume: Volume) -> str:
    return f"{window[0]:.4g} to {window[1]:.4g} {volume.unit}".replace("-", "−")
