"""Cases → what the network sees of them: tensors on its grid, and what translations are compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medgan.cache import Entry, Store, code_digest, digest, key_of, open_store
from medgan.cases import Case
from medgan.errors import GeometryError, MedganError
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
from medgan.processes import copies, place
from medgan.progress import track
from medgan.resample import resample
from medgan.volume import Grid, Synthesis, Volume

__all__ = [
    "Pair",
    "Scan",
    "Study",
    "read_pair",
    "read_pairs",
    "read_scan",
    "read_scans",
    "read_sources",
    "read_studies",
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


def read_pairs(cases: Sequence[Case], prep: Prep, label: str, workers: int = 0) -> list[Pair]:
    """Read and prepare the images of all cases, showing progress; what is in the cache is mapped from there.

    Args:
        cases: pairs.
        prep: the contract.
        label: of the progress.
        workers: processes that prepare what the cache lacks; without a cache, and below 2, it is done here.
    """
    form = _Form(partial(_pair_key, prep), partial(_pair_entry, prep))
    return [_pair(case, entry) for case, entry in zip(cases, _entries(cases, form, label, workers), strict=True)]


def read_scans(cases: Sequence[Case], role: str, prep: Prep, label: str, workers: int = 0) -> list[Scan]:
    """Read and prepare the images that the cases have in one role, "a" or "b", likewise."""
    having = [case for case in cases if role in case.images]
    form = _Form(partial(_scan_key, prep, role), partial(_scan_entry, prep, role))
    entries = _entries(having, form, label, workers)
    return [Scan(**_unpacked(case, entry)) for case, entry in zip(having, entries, strict=True)]


def read_studies(cases: Sequence[Case], prep: SamplingPrep, label: str, workers: int = 0) -> list[Study]:
    """Read and prepare the images of all cases for a sampler, likewise."""
    form = _Form(partial(_study_key, prep), partial(_study_entry, prep))
    return [_study(case, entry) for case, entry in zip(cases, _entries(cases, form, label, workers), strict=True)]


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
    mask = _mask(case, source) if _has_mask_of(case, role) else foreground(source.array)
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


# --- kept for the next time -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Form:
    """In what form cases are kept: under which key, and how it is made."""

    key: Callable[[Case], str]
    make: Callable[[Case], Entry]


def _entries(cases: Sequence[Case], form: _Form, label: str, workers: int) -> list[Entry]:
    store = open_store()
    keys = _made_ahead(store, cases, form, label, workers)
    entries = [
        store.recall(keys.get(case.name) or form.key(case), partial(form.make, case)) for case in track(cases, label)
    ]
    store.trim()
    return entries


def _made_ahead(store: Store, cases: Sequence[Case], form: _Form, label: str, workers: int) -> dict[str, str]:
    """Put into the store what it lacks, in several processes; the key of each case whose files can be read.

    Processes of one job begin at different cases, so that none does what another has done.
    """
    here = place()
    if not store.is_open or (workers < 2 and here.count == 1):
        return {}
    first = len(cases) * here.rank // here.count
    turned = [*cases[first:], *cases[:first]]
    with copies(min(workers, len(cases)), "reads cases") as over:
        done = list(track(over(partial(_put, store, form), turned), label, len(turned)))
    store.added = sum(is_new for _, is_new in done)  # of other processes as well
    return {case.name: key for case, (key, _) in zip(turned, done, strict=True) if key}


def _put(store: Store, form: _Form, case: Case) -> tuple[str, bool]:
    """The key of a case, and whether it was made now; "" for one that cannot be read, which is refused in its turn."""
    try:
        key = form.key(case)
        return key, store.put(key, partial(form.make, case))
    except MedganError:
        return "", False


def _pair_key(prep: Prep, case: Case) -> str:
    roles = [role for role in (*prep.sources, "b", "mask") if role in case.images]
    return _key(case, roles, prep.model_dump(mode="json", exclude={"contrast_dropout"}))


def _pair_entry(prep: Prep, case: Case) -> Entry:
    return _packed(read_pair(case, prep))


def _pair(case: Case, entry: Entry) -> Pair:
    return Pair(
        **_unpacked(case, entry),
        b=_by_case(entry.tensors["b"]),
        target=_volume(entry, "target"),
        mask=entry.tensors["mask"].numpy(),
    )


def _scan_key(prep: Prep, role: str, case: Case) -> str:
    roles = [role, *(["mask"] if "mask" in case.images and _has_mask_of(case, role) else [])]
    grid = prep.model_dump(mode="json", include={"spacing_mm", "axes"})
    return _key(case, roles, {**grid, "alone": getattr(prep, role).model_dump(mode="json")})


def _scan_entry(prep: Prep, role: str, case: Case) -> Entry:
    return _packed(read_scan(case, role, prep))


def _study_key(prep: SamplingPrep, case: Case) -> str:
    return _key(case, prep.roles, {"study": prep.model_dump(mode="json")})


def _study_entry(prep: SamplingPrep, case: Case) -> Entry:
    return _packed_study(read_study(case, prep))


def _study(case: Case, entry: Entry) -> Study:
    body = _by_case(entry.tensors["body"]).numpy()
    return Study(case.name, case.patient, _by_case(entry.tensors["x"]), body, dict(case.conditions))


def _packed_study(study: Study) -> Entry:
    """The voxels alone: whose they are is told by the table."""
    return Entry({"x": _by_slice(study.x), "body": _by_slice(torch.from_numpy(study.body))}, {})


def _key(case: Case, roles: Sequence[str], contract: dict[str, Any]) -> str:
    images = [[role, digest(case.images[role])] for role in roles]
    return key_of({"images": images, "contract": contract, "code": code_digest()})


def _packed(scan: Scan) -> Entry:
    """All but the name of the case and the headers, which name persons.

    What patches are cut from lies slice by slice: an axial patch then is one piece of memory, or of the file.
    """
    tensors = {"x": _by_slice(scan.x), "body": _by_slice(torch.from_numpy(scan.body)), "source": _tensor(scan.source)}
    facts: dict[str, Any] = {"missing": scan.missing, "source": _facts(scan.source)}
    if isinstance(scan, Pair):
        tensors |= {"b": _by_slice(scan.b), "mask": torch.from_numpy(scan.mask), "target": _tensor(scan.target)}
        facts["target"] = _facts(scan.target)
    return Entry(tensors, facts)


def _unpacked(case: Case, entry: Entry) -> dict[str, Any]:
    tensors, missing = entry.tensors, tuple(entry.facts["missing"])
    source = _volume(entry, "source")
    return {
        "name": case.name,
        "x": _by_case(tensors["x"]),
        "body": _by_case(tensors["body"]).numpy(),
        "source": source,
        "missing": missing,
    }


def _by_slice(x: Tensor) -> Tensor:
    """(…, X, Y, Z) to (…, Z, X, Y), in this order in memory."""
    return x.movedim(-1, -3).contiguous()


def _by_case(x: Tensor) -> Tensor:
    """The way back, without touching memory."""
    return x.movedim(-3, -1)


def _tensor(volume: Volume) -> Tensor:
    """The voxels in their own type, in one order: sums over them are the same from the cache and without it."""
    array = volume.array
    return torch.from_numpy(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))


def _facts(volume: Volume) -> dict[str, Any]:
    made = volume.synthetic and asdict(volume.synthetic)
    return {
        "affine": volume.grid.affine.tolist(), "unit": volume.unit, "modality": volume.modality, "synthetic": made,
    }  # fmt: skip


def _volume(entry: Entry, name: str) -> Volume:
    array, facts = entry.tensors[name].numpy(), entry.facts[name]
    grid = Grid((array.shape[0], array.shape[1], array.shape[2]), np.array(facts["affine"]))
    made = facts["synthetic"] and Synthesis(**facts["synthetic"])
    return Volume(array, grid, facts["unit"], facts["modality"], made)


# --- one case ---------------------------------------------------------------------------------------------------------


def _body(mask: npt.NDArray[np.bool_], source: Volume, prep: Prep) -> npt.NDArray[np.bool_]:
    """The mask on the network's grid."""
    volume = Volume(mask.astype(np.uint8), source.grid)
    return np.asarray(resample(volume, network_grid(source.grid, prep.spacing_mm, prep.axes), order=0).array > 0)


def _has_mask_of(case: Case, role: str) -> bool:
    """A mask lies on the grid of a, or of b where there is no a."""
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
