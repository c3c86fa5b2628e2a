"""Synthetic sets as MONAI data sets: alone, and mixed with real images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import Dataset, MetaTensor
from monai.data.utils import to_affine_nd
from torch import Tensor

from medgan.augment.sets import TABLE, contract_of
from medgan.augment.sources import made_by
from medgan.augment.translated import translated_manifest
from medgan.cases import Case, listed, read_cases
from medgan.data import flat_axis
from medgan.errors import GeometryError, InputError
from medgan.formats import read
from medgan.formats.marks import missing_marks
from medgan.scans import SAME_GRID_MM
from medgan.volume import Volume

__all__ = ["MixedDataset", "SyntheticDataset"]

_OWN_KEYS = ("image", "synthetic")


class SyntheticDataset(Dataset):  # type: ignore[misc]
    """The images of a folder that `medgan sample` or `medgan augment` made, as a MONAI data set of dicts.

    An item holds

    - `image`: (C, X, Y, Z) float32, a MetaTensor with its affine, in the unit of the files; of a run that makes slices
      (C, U, V). `meta` says in `synthetic` by what it was made, and names the file;
    - `label`: the label image, likewise (1, …), if the set has one; several stand under the names of their columns;
    - each condition under its name, as text;
    - `synthetic`: True.

    It is what `LoadImaged` and `EnsureChannelFirstd` would have made of it, so `transform` begins behind those two.

    Args:
        folder: of the set.
        transform: of the items, any that takes dicts.
        table: of part of the set, such as a selection; all of it if not given.
        labels: which columns are label images, by the key of an item that each goes under.
        split: whose images; those of an augmented table may be of patients that others are tried on.

    Raises:
        InputError: if the folder is no such set, an image does not say that it is synthetic, a column is not there, or
            two things would have one key.
    """

    def __init__(
        self,
        folder: Path | str,
        transform: Any = None,
        *,
        table: Path | str | None = None,
        labels: Mapping[str, str] | None = None,
        split: str = "train",
    ) -> None:
        folder = Path(folder)
        cases = _cases(folder, Path(table or folder / TABLE), split)
        self.channels, self.flat = _channels(folder)
        others = list(dict.fromkeys(role for case in cases for role in case.images if role not in self.channels))
        self.labels = dict(labels) if labels is not None else _named(others)
        self.conditions = list(dict.fromkeys(name for case in cases for name in case.conditions))
        self._refuse_keys(folder, others)
        _refuse_gaps(folder, cases, [*self.channels, *self.labels.values()])
        _refuse_unmarked(folder, [case.images[role] for case in cases for role in self.channels])
        super().__init__(data=cases, transform=transform)

    def _transform(self, index: int) -> Any:
        return self.transform(self._item(self.data[index]))

    def _refuse_keys(self, folder: Path, others: Sequence[str]) -> None:
        if unknown := [role for role in self.labels.values() if role not in others]:
            seen = ", ".join(others) or "none"
            raise InputError(f"{folder}: has no label image {', '.join(unknown)} (there are: {seen})")
        keys = Counter([*_OWN_KEYS, *self.labels, *self.conditions])
        if twice := [key for key, count in keys.items() if count > 1]:
            raise InputError(
                f"{folder}: two things of an item would be called {', '.join(twice)}; give label images other keys by "
                "labels=, such as {'mask': 'label'}, or rename the condition in the table"
            )

    def _item(self, case: Case) -> dict[str, Any]:
        volumes = [read(case.images[role]) for role in self.channels]
        item: dict[str, Any] = {"image": self._tensor(volumes, case.images[self.channels[0]])}
        for key, role in self.labels.items():
            label = read(case.images[role]).reorient(volumes[0].grid.orientation)
            if not label.grid.same_as(volumes[0].grid, tolerance_mm=SAME_GRID_MM):
                raise GeometryError(f"{case.name}: {role} is not on the grid of its image; resample it first")
            item[key] = self._tensor([label], case.images[role])
        known = {name: case.conditions.get(name, "") for name in self.conditions}
        return item | known | {"synthetic": True}

    def _tensor(self, volumes: Sequence[Volume], path: Path) -> MetaTensor:
        """(C, *spatial); of a slice the affine's last column is that across it."""
        first = volumes[0]
        x = torch.from_numpy(np.stack([volume.array for volume in volumes]).astype(np.float32))
        meta = {"filename_or_obj": str(path), "space": "RAS", "synthetic": made_by(first.synthetic)}
        affine = torch.tensor(first.grid.affine)
        if self.flat is not None:
            axes = [axis for axis in range(3) if axis != self.flat]
            x, affine = x.squeeze(self.flat + 1), affine[:, [*axes, self.flat, 3]]
        return MetaTensor(x, affine=affine, meta=meta)


class MixedDataset(Dataset):  # type: ignore[misc]
    """Real items, and behind them a number of synthetic ones that is drawn anew for each epoch.

    Items are dicts, or lists of dicts, as cropping transforms make them. Each gets `synthetic`, True or False, unless
    it says so itself. Which synthetic image stands at an index is a function of (seed, epoch, index), whatever the
    workers; none comes twice in an epoch.

    Args:
        real: any sequence of items, such as a MONAI `Dataset` or `CacheDataset`.
        synthetic: likewise, such as a `SyntheticDataset`, or a `CacheDataset` of one.
        ratio: synthetic images for each real one; the number is rounded down.
        seed: another seed, other draws.
        transform: of all items alike, after they were mixed.

    Raises:
        InputError: if the ratio is negative, or asks for more synthetic images than there are.

    Example:
        >>> real, made = [{"image": n} for n in range(4)], [{"image": -n} for n in range(1, 10)]
        >>> mixed = MixedDataset(real, made, ratio=0.5)
        >>> len(mixed), mixed[0], mixed.is_synthetic(4)
        (6, {'image': 0, 'synthetic': False}, True)
    """

    def __init__(
        self, real: Sequence[Any], synthetic: Sequence[Any], ratio: float = 1.0, seed: int = 0, transform: Any = None
    ) -> None:
        if not 0 <= ratio < float("inf") or seed < 0:
            raise InputError(f"ratio and seed are 0 or more; seen {ratio:g} and {seed}")
        self.num_real, self.num_synthetic = len(real), int(ratio * len(real) + 1e-9)
        if self.num_synthetic > len(synthetic):
            raise InputError(
                f"ratio: {ratio:g} asks for {self.num_synthetic} synthetic images beside {len(real)} real ones, and "
                f"there are {len(synthetic)}; make more, or lower it"
            )
        super().__init__(data=range(self.num_real + self.num_synthetic), transform=transform)
        self.real, self.synthetic, self.seed = real, synthetic, seed
        # In shared memory, so that workers that live on see the epoch that is set here.
        self._epoch: Tensor = torch.zeros((), dtype=torch.long).share_memory_()  # type: ignore[no-untyped-call]
        self._keys: dict[bool, set[str]] = {}

    @property
    def epoch(self) -> int:
        """Whose draw is in force."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Draw the synthetic images of another epoch, 0 or later; call it before each pass of a loader."""
        if epoch < 0:
            raise InputError(f"epochs are counted from 0; seen {epoch}")
        self._epoch.fill_(epoch)

    def is_synthetic(self, index: int) -> bool:
        """Whether the item at an index is drawn from the synthetic ones."""
        return bool(self.data[index] >= self.num_real)

    def place(self, index: int) -> int:
        """Where the item of an index stands among the real ones, or among the synthetic ones."""
        number: int = self.data[index]
        if number < self.num_real:
            return number
        return int(_drawn(len(self.synthetic), self.seed, self.epoch)[number - self.num_real])

    def _transform(self, index: int) -> Any:
        synthetic = self.is_synthetic(index)
        item = (self.synthetic if synthetic else self.real)[self.place(index)]
        done = self.transform(_told(item, synthetic))
        for one in done if isinstance(done, list) else [done]:
            if isinstance(one, Mapping):
                self._refuse_unlike(synthetic, set(map(str, one)))
        return done

    def _refuse_unlike(self, synthetic: bool, keys: set[str]) -> None:
        """A loader puts items of the same keys alone into one batch, and fails where chance brings others together."""
        self._keys.setdefault(synthetic, keys)
        real, made = (self._keys.get(kind, keys) for kind in (False, True))
        if real != made:
            raise InputError(
                f"real items have the keys {', '.join(sorted(real))}, and synthetic ones {', '.join(sorted(made))}; "
                "make them alike, such as by SelectItemsd"
            )


def _told(item: Any, synthetic: bool) -> Any:
    """An item, or several that a transform made of it, which says whether it is synthetic."""
    if isinstance(item, list):
        return [_told(one, synthetic) for one in item]
    if not isinstance(item, Mapping):
        raise InputError(f"items of a mixed set are dicts, such as {{'image': …}}; seen {type(item).__name__}")
    told = {key: _saying(value, "synthetic" if synthetic else "") for key, value in item.items()}
    return told | {"synthetic": told.get("synthetic", synthetic)}


def _saying(value: Any, text: str) -> Any:
    """An image whose meta says in `synthetic` by what it was made, and whose affine is (4, 4).

    Batches keep of the meta what all images have. MONAI makes affines of slices (3, 3) in one way and (4, 4) in others,
    which do not go into one batch.
    """
    if not isinstance(value, MetaTensor):
        return value
    meta = {"synthetic": text, **value.meta, "affine": to_affine_nd(3, value.affine)}
    return MetaTensor(value.as_tensor(), meta=meta, applied_operations=value.applied_operations)


@lru_cache(maxsize=4)
def _drawn(available: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(available)


# --- what a folder holds ----------------------------------------------------------------------------------------------


def _cases(folder: Path, table: Path, split: str) -> list[Case]:
    cases = read_cases(table, required=())
    kept = [case for case in cases if case.split == split]
    if not kept:
        seen = ", ".join(sorted({case.split for case in cases}))
        raise InputError(f"{folder}: has no image in the split {split}, but in {seen}; name that by split=")
    return kept


def _channels(folder: Path) -> tuple[list[str], int | None]:
    """The columns of an image's channels, and the axis along which it is a slice."""
    if (told := translated_manifest(folder)) is not None:
        return [str(told["role"])], None
    contract = contract_of(folder)
    return list(contract.prep.images), flat_axis(contract.patch)


def _named(roles: Sequence[str]) -> dict[str, str]:
    """Columns of label images by key: the only one is the label."""
    return {"label": roles[0]} if len(roles) == 1 else {role: role for role in roles}


def _refuse_gaps(folder: Path, cases: Sequence[Case], roles: Sequence[str]) -> None:
    if missing := [f"{case.name} has no {role}" for case in cases for role in roles if role not in case.images]:
        raise InputError(
            f"{folder}: items would differ in what they hold: {listed(missing, most=3)}; leave columns out by labels=, "
            "or cases out of the table"
        )


def _refuse_unmarked(folder: Path, paths: Sequence[Path]) -> None:
    if unmarked := [line for path in paths for line in missing_marks(path)]:
        raise InputError(
            f"{folder}: images do not say that they are synthetic ({listed(unmarked, most=3)}); make the set again, or "
            "leave these out of its table"
        )
