"""Cases → what the network sees of them, each made once: kept in the cache, and mapped into memory from there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medgan.cache import Entry, Store, code_digest, digest, key_of, open_store
from medgan.cases import Case
from medgan.errors import MedganError
from medgan.prep import Prep, SamplingPrep
from medgan.processes import copies, place
from medgan.progress import track
from medgan.scans import Pair, Scan, Study, has_mask_of, read_pair, read_scan, read_study
from medgan.volume import Grid, Synthesis, Volume

__all__ = ["read_pairs", "read_scans", "read_studies"]


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
    roles = [role, *(["mask"] if "mask" in case.images and has_mask_of(case, role) else [])]
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
