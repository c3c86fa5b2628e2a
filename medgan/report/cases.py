"""The images of a case, read when it is their turn, so that a report over many cases needs the memory of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medgan.formats import read
from medgan.prep import NORMALISED_UNIT, Intensity, in_contract_unit
from medgan.resample import resample
from medgan.volume import Synthesis, Volume

__all__ = ["CaseImages", "CaseVolumes", "read_case"]

_UNKNOWN = Synthesis("an unknown model")
_BY_MEDIAN = Intensity(modality="MR", times_median=(0, 1))  # the ends do not matter: nothing is clipped


@dataclass(frozen=True)
class CaseImages:
    """Where the images of one case are.

    Args:
        case: name of the case, as in its row.
        pred: the synthetic image.
        ref: the real one.
        source: what was translated, None where it is not known.
        mask: any non-zero voxel counts; None is the whole volume.
    """

    case: str
    pred: Path
    ref: Path
    source: Path | None = None
    mask: Path | None = None


@dataclass(frozen=True, eq=False)
class CaseVolumes:
    """The images of one case, all on the grid of the reference; the prediction says that it is synthetic."""

    pred: Volume
    ref: Volume
    source: Volume | None
    mask: Volume | None


def read_case(images: CaseImages) -> CaseVolumes:
    """Read a case.

    What lies on another grid than the reference is resampled to it: linearly, masks by nearest voxel. Where the
    prediction is in `normalised` values, as translators of MR write it, the reference is brought to them too.

    Raises:
        InputError: if a file cannot be read.
        GeometryError: if two grids do not overlap at all.
    """
    pred, ref = read(images.pred), read(images.ref)
    if pred.unit == NORMALISED_UNIT != ref.unit:
        ref = in_contract_unit(ref, _BY_MEDIAN)
    pred = _on_grid(pred, ref)
    return CaseVolumes(
        pred=pred if pred.synthetic else pred.marked(_UNKNOWN),
        ref=ref,
        source=None if images.source is None else _on_grid(read(images.source), ref),
        mask=None if images.mask is None else _on_grid(read(images.mask), ref, order=0),
    )


def _on_grid(volume: Volume, ref: Volume, order: int = 1) -> Volume:
    volume = volume.reorient(ref.grid.orientation)
    return volume if volume.grid.same_as(ref.grid) else resample(volume, ref.grid, order=order)
