"""Cases → whole images of one size, as a sampler sees and makes them; in 2-D the slices of a volume.

Which image comes at which step, and how it is changed, depends on (seed, step) alone, as in `medgan.data`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from monai.data import Dataset
from torch import Tensor

from medgan.cases import Case
from medgan.conditions import Condition, encode
from medgan.data import flat_axis, paste, turn
from medgan.errors import InputError
from medgan.imageset import ImageSet
from medgan.jitter import Augment, Move, Size, crop_size
from medgan.kept import read_studies
from medgan.prep import SamplingPrep
from medgan.scans import Study

__all__ = ["View", "Views", "image_set", "views_of"]


@dataclass(frozen=True)
class View:
    """One image of a case: all of it, or one slice.

    Args:
        study: the case as the network sees it.
        place: index of the slice along the flat axis; None for all of it.
        alone: whether it is the only image of its case there could be.
    """

    study: Study
    place: int | None
    alone: bool = True

    @property
    def name(self) -> str:
        """Unique among the views of different cases; the case's where it has but one image."""
        return self.study.name if self.alone else f"{self.study.name}_{self.place:03d}"


def views_of(studies: Sequence[Study], patch: Size, least_area: float) -> list[View]:
    """The images of all cases: where the patch is one voxel thick, the slices with enough of the body in them.

    Args:
        studies: cases as the network sees them.
        patch: size of an image, voxels.
        least_area: of the body in a slice, as a share of that in its largest slice.
    """
    flat = flat_axis(patch)
    if flat is None:
        return [View(study, None) for study in studies]
    return [
        View(study, place, alone=study.body.shape[flat] == 1)
        for study in studies
        for place in _slices(study, flat, least_area)
    ]


def _slices(study: Study, flat: int, least_area: float) -> list[int]:
    areas = np.moveaxis(study.body, flat, 0).reshape(study.body.shape[flat], -1).sum(1)
    return [int(place) for place in np.flatnonzero(areas >= max(least_area * areas.max(), 1))]


class Views(Dataset):  # type: ignore[misc]
    """Whole images of training cases: item i is a function of (seed, i).

    Items are dicts of `b`, (C, U, V) or (C, X, Y, Z), and of `condition`, (K,), if there are conditions. An image lies
    in the middle of its patch: where the patch is smaller than the scan the middle of the body, else that of the scan.

    Args:
        views: the images.
        patch: their size, voxels.
        augment: random changes.
        seed: of order and changes.
        conditions: what is known of each.
        balance: the condition whose classes come equally often.

    Raises:
        InputError: if a case's condition is not one of those accepted.
    """

    def __init__(
        self,
        views: Sequence[View],
        patch: Size,
        augment: Augment,
        seed: int,
        *,
        conditions: Mapping[str, Condition] | None = None,
        balance: str | None = None,
    ) -> None:
        super().__init__(data=views, transform=None)
        self.patch, self.seed, self.flat = patch, seed, flat_axis(patch)
        self.crop = crop_size(patch, augment, self.flat)
        self.move = Move(patch, augment, self.flat)
        known = {name: [view.study.conditions[name] for view in views] for name in conditions or {}}
        self.known = known
        self.condition = encode(conditions or {}, known)
        self.shares = _by_class(known[balance]) if balance else [list(range(len(views)))]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        place = self._place(index)
        image = self.move(self._cut(self.data[place]), _seed(self.seed, index))
        return {"b": image} | ({} if self.condition is None else {"condition": self.condition[place]})

    def _place(self, index: int) -> int:
        """Of an item among the views: each class in turn, and in it each view once before any comes again."""
        position, number = divmod(index, len(self.shares))
        share = self.shares[number]
        return share[turn(len(share), position, self.seed, number)]

    def plain(self, place: int) -> Tensor:
        """A view as it is, (C, *patch without its flat axis)."""
        return self._cut(self.data[place], self.patch)

    def _cut(self, view: View, size: Size | None = None) -> Tensor:
        size = size or self.crop
        x = view.study.x
        start = [middle - extent // 2 for middle, extent in zip(view.study.middle(self.patch), size, strict=True)]
        if self.flat is not None and view.place is not None:
            start[self.flat] = view.place
        box = torch.empty(len(x), *size)
        paste(box, x, start)
        return box if self.flat is None else box.squeeze(self.flat + 1)

    @cached_property
    def all(self) -> ImageSet:
        """All views as they are."""
        x = torch.stack([self.plain(place) for place in range(len(self.data))])
        return ImageSet(x, [view.name for view in self.data], [view.study.patient for view in self.data], self.known)


def image_set(
    cases: Sequence[Case],
    prep: SamplingPrep,
    patch: Size,
    label: str,
    *,
    least_area: float = 0.5,
    conditions: Sequence[str] = (),
) -> ImageSet:
    """The images of cases as a sampler sees them.

    Raises:
        InputError: if an image is of another modality or unit than the contract's, or cannot be read, or if there are
            none.
        GeometryError: if the channels of a case do not lie on one grid.
    """
    views = views_of(read_studies(cases, prep, label), patch, least_area)
    if not views:
        raise InputError("there are no images to look at; give a table with cases")
    plain = Views(views, patch, Augment(flip_axes=(), rotate_deg=0, scale=0, gamma=0, noise=0), seed=0).all
    known = {name: [view.study.conditions[name] for view in views] for name in conditions}
    return ImageSet(plain.x, plain.names, plain.patients, known)


def _by_class(values: Sequence[str]) -> list[list[int]]:
    """The places of each class, the classes in the order of the alphabet."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, value in enumerate(values):
        places[value].append(place)
    return [places[value] for value in sorted(places)]


def _seed(seed: int, index: int) -> int:
    return int(np.random.default_rng((seed, index)).integers(2**31))
