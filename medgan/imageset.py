"""A set of images of one size as a network sees them, and whose they are: what sets are compared and learnt from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medgan.errors import InputError

__all__ = ["ImageSet"]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size, in one order with their names.

    Args:
        x: (N, C, X, Y) or (N, C, X, Y, Z) float32 in [-1, 1].
        names: of each image, unique.
        patients: whose each image is; several images may be of one person.
        conditions: what is known of each image, by its name: a class, or a number written as text.

    Raises:
        InputError: if these are not of one length, or a name comes twice.

    Example:
        >>> two = ImageSet(torch.zeros(2, 1, 4, 4), ["p1", "p2"], ["p1", "p2"], {"sex": ["f", "m"]})
        >>> two.where([False, True]).names
        ['p2']
    """

    x: Tensor
    names: Sequence[str]
    patients: Sequence[str]
    conditions: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {len(self.names), len(self.patients), *map(len, self.conditions.values())}
        if lengths != {len(self.x)}:
            raise InputError(f"a set of {len(self.x)} images has as many names, patients and conditions")
        if len(set(self.names)) < len(self.names):
            raise InputError("a set names an image twice; give each a name of its own")

    def __len__(self) -> int:
        return len(self.x)

    def where(self, chosen: Sequence[bool] | npt.NDArray[np.bool_]) -> ImageSet:
        """The images for which `chosen`, of the length of the set, is true."""
        return self.take(np.flatnonzero(np.asarray(chosen)))

    def take(self, order: Sequence[int] | npt.NDArray[np.int64]) -> ImageSet:
        """The images at these places, in this order, each at most once."""
        places = [int(place) for place in order]
        return ImageSet(
            self.x[torch.tensor(places, dtype=torch.long)],
            [self.names[place] for place in places],
            [self.patients[place] for place in places],
            {name: [values[place] for place in places] for name, values in self.conditions.items()},
        )

    def joined(self, other: ImageSet) -> ImageSet:
        """Both sets in one, with the conditions that both know."""
        shared = [name for name in self.conditions if name in other.conditions]
        return ImageSet(
            torch.cat([self.x, other.x]),
            [*self.names, *other.names],
            [*self.patients, *other.patients],
            {name: [*self.conditions[name], *other.conditions[name]] for name in shared},
        )
