"""Two dose distributions, such as a plan's on a CT and on a synthetic CT: how many voxels agree, by the gamma index."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from medgan import __version__
from medgan.errors import GeometryError, InputError, OutputError
from medgan.formats import read, write
from medgan.metrics.gamma import PRECISION, Criteria, gamma_pass_rate
from medgan.metrics.gamma import gamma as gamma_of
from medgan.volume import Volume

__all__ = ["SCHEMA", "GammaResult", "gamma"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Given = Path | str | Volume

SCHEMA = "medgan.gamma/1"
_IN_MEMORY = "in memory"
_DOSE, _UNKNOWN = "Gy", "a.u."
_NONE = -1.0  # in the map, where there is no gamma
_BIN = 0.1
_DEFAULTS: Criteria = {
    "dose_percent": 3.0,
    "distance_mm": 3.0,
    "cutoff_percent": 10.0,
    "local": False,
    "max_gamma": 2.0,
    "normalisation": None,
}


@dataclass(frozen=True)
class GammaResult:
    """What came of comparing two doses.

    Args:
        evaluated: path of the dose that was judged, or `in memory`.
        reference: path of the dose that it was held against, likewise.
        gamma_pass: percent of the voxels with a gamma of at most 1; None where no voxel reaches the cutoff.
        gamma_mean: over the same voxels, gammas above `max_gamma` counted as that; None where there are none.
        gamma_p95: their 95th percentile, likewise.
        num_voxels: that have a gamma.
        max_evaluated: greatest evaluated dose, in `unit`.
        max_reference: greatest reference dose, in `unit`.
        unit: `Gy`, or `a.u.` where none is recorded.
        grid: shape, spacing and orientation, for people.
        histogram: number of voxels by gamma, in bins `edges[n] <= gamma < edges[n + 1]`, the last one closed.
        edges: of the bins.
        settings: as of `medgan.metrics.gamma.gamma`, the normalisation as the dose that it was; and `precision`, by
            how much a gamma may be too great.
        mask: path of the mask, likewise, "" for none.
        map: path of the map of gamma, "" where none was asked for.
        notes: what people should know.
    """

    evaluated: str
    reference: str
    gamma_pass: float | None
    gamma_mean: float | None
    gamma_p95: float | None
    num_voxels: int
    max_evaluated: float
    max_reference: float
    unit: str
    grid: str
    histogram: tuple[int, ...]
    edges: tuple[float, ...]
    settings: dict[str, Any]
    mask: str = ""
    map: str = ""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values, with the schema that they follow."""
        lists = {"histogram": list(self.histogram), "edges": list(self.edges), "notes": list(self.notes)}
        versions = {"medgan": __version__, "numpy": np.__version__, "python": platform.python_version()}
        return {"schema": SCHEMA, **asdict(self), **lists, "versions": versions}

    def describe(self) -> str:
        """Lines for people: what was compared, and what came of it."""
        told = self.settings
        kind = "local" if told["local"] else "global"
        criteria = (
            f"{told['dose_percent']:g} % / {told['distance_mm']:g} mm {kind}, cutoff {told['cutoff_percent']:g} %"
        )
        if self.gamma_pass is None:
            found = "no voxel reaches the cutoff"
        else:
            found = (
                f"{self.gamma_pass:.2f} % pass, mean gamma {self.gamma_mean:.3f}, 95th percentile {self.gamma_p95:.3f}"
            )
        doses = f"up to {self.max_evaluated:.4g} against {self.max_reference:.4g} {self.unit}"
        lines = [f"{criteria}: {found}", f"{self.num_voxels} voxels of {self.grid}, doses {doses}"]
        return "\n".join([*lines, *self.notes, *([f"map: {self.map}"] if self.map else [])])


def gamma(
    evaluated: Given,
    reference: Given,
    *,
    mask: Given | None = None,
    out: Path | str | None = None,
    **criteria: Unpack[Criteria],
) -> GammaResult:
    """Compare two doses on one grid by the gamma index.

    Args:
        evaluated: the dose that is judged: a volume, or its file (RT dose in DICOM, NIfTI, MetaImage or NRRD).
        reference: the dose that it is held against, likewise. Array axes may run differently; nothing is resampled.
        mask: where it counts, likewise: any non-zero voxel; everywhere if not given.
        out: a `.nii` or `.nii.gz` for the map of gamma, −1 where there is none.
        **criteria: as of `medgan.metrics.gamma.gamma`: `dose_percent` 3, `distance_mm` 3, `cutoff_percent` 10, `local`
            False, `max_gamma` 2, `normalisation` the greatest reference dose.

    Raises:
        InputError: if a file cannot be read, is no dose, or a setting is out of range.
        GeometryError: if the volumes do not lie on one grid.
        OutputError: if `out` is not the name of a NIfTI file, or cannot be written.
    """
    target = _checked_out(out, (evaluated, reference, mask))
    judged, ref = (_opened(dose) for dose in (evaluated, reference))
    names = _named(evaluated, "the evaluated dose"), _named(reference, "the reference dose")
    unit, notes = _unit(judged, ref, names)
    _refuse_apart(judged, ref, *names)
    inside = None if mask is None else _inside(mask, ref, names[1])
    settings: Criteria = {**_DEFAULTS, **criteria}
    gammas = gamma_of(judged.array, ref.array, inside, spacing_mm=ref.grid.spacing_mm, **settings)
    if target:
        write(_map(gammas, ref), target, description="gamma index")
    peaks = float(judged.array.max()), float(ref.array.max())
    settings["normalisation"] = settings["normalisation"] or peaks[1]
    return GammaResult(
        _named(evaluated, _IN_MEMORY),
        _named(reference, _IN_MEMORY),
        **_found(gammas, settings["max_gamma"]),
        max_evaluated=peaks[0],
        max_reference=peaks[1],
        unit=unit,
        grid=ref.grid.describe(),
        settings={**settings, "precision": PRECISION},
        mask="" if mask is None else _named(mask, _IN_MEMORY),
        map=str(target or ""),
        notes=notes,
    )


def _opened(given: Given) -> Volume:
    return (given if isinstance(given, Volume) else read(Path(given))).reorient("RAS")


def _named(given: Given, otherwise: str) -> str:
    """Its path, or what it is called where it has none."""
    return otherwise if isinstance(given, Volume) else str(Path(given))


def _inside(mask: Given, ref: Volume, ref_name: str) -> Array:
    volume = _opened(mask)
    _refuse_apart(volume, ref, _named(mask, "the mask"), ref_name)
    return volume.array


def _found(gammas: Floats, max_gamma: float) -> dict[str, Any]:
    known = gammas[~np.isnan(gammas)]
    edges = np.linspace(0, max_gamma, max(1, round(max_gamma / _BIN)) + 1)
    return {
        "gamma_pass": gamma_pass_rate(known) if known.size else None,
        "gamma_mean": float(known.mean()) if known.size else None,
        "gamma_p95": float(np.percentile(known, 95)) if known.size else None,
        "num_voxels": known.size,
        "histogram": tuple(np.histogram(known, edges)[0].tolist()),
        "edges": tuple(edges.round(9).tolist()),
    }


def _map(gammas: Floats, ref: Volume) -> Volume:
    known = np.where(np.isnan(gammas), _NONE, gammas).astype(np.float32)
    return Volume(known, ref.grid, unit="gamma", padding=(_NONE, _NONE))


def _checked_out(out: Path | str | None, inputs: tuple[Given | None, ...]) -> Path | None:
    """Before the work, not after it."""
    if out is None:
        return None
    out = Path(out)
    if not out.name.endswith((".nii", ".nii.gz")):
        raise OutputError(f"{out}: a map of gamma is NIfTI; end the name in .nii.gz")
    if out.absolute() in [Path(given).absolute() for given in inputs if isinstance(given, Path | str)]:
        raise OutputError(f"{out}: is what is to be compared; choose another name for the map")
    return out


def _unit(judged: Volume, ref: Volume, names: tuple[str, str]) -> tuple[str, tuple[str, ...]]:
    """That of both doses, and a note where one of them does not say so."""
    for volume, name in zip((judged, ref), names, strict=True):
        if volume.unit not in {_DOSE, _UNKNOWN}:
            raise InputError(f"{name}: is in {volume.unit}, which is no dose; give doses in {_DOSE}, or without a unit")
    silent = [name for volume, name in zip((judged, ref), names, strict=True) if volume.unit == _UNKNOWN]
    if len(silent) == 1:
        return _DOSE, (f"{silent[0]} states no unit, taken as {_DOSE}",)
    return (_UNKNOWN, ("neither dose states its unit",)) if silent else (_DOSE, ())


def _refuse_apart(volume: Volume, ref: Volume, name: str, ref_name: str) -> None:
    if ref.grid.is_sheared:
        raise GeometryError(
            f"{ref_name}: its axes are not at right angles; resample it to a grid of right angles first"
        )
    if volume.grid.same_as(ref.grid):
        return
    apart = f", {volume.grid.distance_mm(ref.grid):.3g} mm apart" if volume.grid.shape == ref.grid.shape else ""
    raise GeometryError(
        f"{name} is not on the grid of {ref_name}: {volume.grid.describe()} and {ref.grid.describe()}{apart}; "
        "resample it to that grid first"
    )
