"""What is done to the images of a cohort, declared: which images and labels there are, and each step, in a fixed order.

```
1 orientation   of the first image                            orientation
2 registration  of the other images, and of what lies on them, to the first one      registration
3 grid          all onto one, interpolated once               spacing_mm
4 bias field    taken out                                     images.ROLE.bias_field
5 mask          of body or brain, or as given                 mask
6 background    outside the mask, couch and holders with it   images.ROLE.background
7 crop          to the mask and a margin                      crop_mm
8 harmonise     values across scanners                        images.ROLE.harmonise
9 clip          values                                        images.ROLE.clip
```

Each step is left out where its setting is null, or false.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from medgan.declared import overridden, read_yaml
from medgan.harmony import Harmony, Nyul, Percentile, WhiteStripe, ZScore
from medgan.settings import Settings

__all__ = ["Image", "Mask", "Plan", "Registering", "dump", "load"]

_ROLE = re.compile(r"[a-z][a-z0-9_]*")
_TAKEN = ("case", "patient", "split", "mask")
_PATHS = {("harmonisation",)}


class Image(Settings):
    """One kind of image, and what is done to its values.

    Args:
        modality: DICOM's code (`MR`, `CT`, `PT`).
        unit: of the files; values are in it until they are harmonised.
        bias_field: whether N4 takes out slow changes of brightness, as coils make them.
        background: the value that all outside the mask gets, in `unit`: -1000 for CT, 0 for MR.
        harmonise: brings MR of several scanners to one scale, as `{name: nyul}`; see `medgan.harmony`. The unit is then
            `normalised:nyul`.
        clip: lowest and highest value kept, in `unit`, or harmonised where that is done.
    """

    modality: str
    unit: str = "a.u."
    bias_field: bool = False
    background: float | None = None
    harmonise: Harmony | None = None
    clip: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _sound(self) -> Image:
        if self.clip and self.clip[0] >= self.clip[1]:
            raise ValueError(f"clip: the lower end {self.clip[0]:g} must be below the upper end {self.clip[1]:g}")
        if self.harmonise and self.unit == "HU":
            raise ValueError("harmonise: HU mean the same on every scanner; leave it out, or use clip")
        return self


class Registering(Settings):
    """How images are laid upon the first one.

    Args:
        roles: which are moved; null for all images but the first.
        kind: `rigid` (turn and shift), `affine`, or `deformable`: rigid, then bent by elastix, which moves images that
            are not bent as well, by half a millimetre and more.
        seed: of the voxels that are compared.
        must_fit: whether a case is refused whose images do not lie upon one another afterwards, as `medgan check` sees
            it; false tells it in a note: for bellies and pelves, which bend.
        elastix: its parameters that are to be others, by `deformable`, such as `{Metric1Weight: 50}`: less stiff.
    """

    roles: tuple[str, ...] | None = None
    kind: Literal["rigid", "affine", "deformable"] = "rigid"
    seed: int = Field(default=0, ge=0)
    must_fit: bool = True
    elastix: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _bending(self) -> Registering:
        if self.elastix and self.kind != "deformable":
            raise ValueError(f"elastix: these are settings of kind deformable, and this is {self.kind}")
        return self


class Mask(Settings):
    """Where errors count, patches are cut, and outside of which is background.

    Args:
        source: `body` or `brain`, found in an image, or `given`: the column `mask` of the table.
        of: the image in which it is found, or on which the given one was drawn; the first one if null.
    """

    source: Literal["body", "brain", "given"]
    of: str | None = None


class Plan(Settings):
    """The preparation of a cohort.

    Args:
        images: by role, as the columns of the table are named; the first one stays where it is, and the others are
            brought to its place.
        labels: label maps, by role, and the image on which each was drawn; they are never interpolated.
        orientation: three letters, the sides to which the axes run, such as `RAS`; null for those of the first image.
        registration: null if the images lie upon one another.
        spacing_mm: of the grid, along its axes; null for that of the first image.
        mask: null for none; a column `mask` of the table is then left out.
        crop_mm: margin around the mask that is kept; null to keep all.
        harmonisation: a file `harmonisation.json` that a cohort prepared before has left behind; with it nothing is
            fitted. In a YAML file relative to that file. Null to fit on the cases of the split train.
    """

    images: dict[str, Image] = Field(min_length=1)
    labels: dict[str, str] = Field(default_factory=dict)
    orientation: str | None = "RAS"
    registration: Registering | None = None
    spacing_mm: tuple[float, float, float] | None = None
    mask: Mask | None = None
    crop_mm: float | None = Field(default=None, ge=0)
    harmonisation: Path | None = None

    @property
    def first(self) -> str:
        """The role of the image that stays."""
        return next(iter(self.images))

    @property
    def harmonised(self) -> dict[str, Percentile | ZScore | WhiteStripe | Nyul]:
        """The method of each image that is harmonised."""
        return {role: image.harmonise for role, image in self.images.items() if image.harmonise}

    @property
    def moved(self) -> tuple[str, ...]:
        """Roles of the images that are registered."""
        if self.registration is None:
            return ()
        return self.registration.roles or tuple(role for role in self.images if role != self.first)

    @property
    def is_bent(self) -> bool:
        """Whether a registration bends images."""
        return self.registration is not None and self.registration.kind == "deformable"

    @model_validator(mode="after")
    def _roles(self) -> Plan:
        wrong = [role for role in (*self.images, *self.labels) if role in _TAKEN or not _ROLE.fullmatch(role)]
        if wrong or self.images.keys() & self.labels.keys():
            raise ValueError(
                f"images and labels are named by columns of the table in lower case, other than {', '.join(_TAKEN)}, "
                f"each once; seen {', '.join([*self.images, *self.labels])}"
            )
        named = {f"labels.{role}": of for role, of in self.labels.items()}
        named |= {"mask.of": self.mask.of} if self.mask and self.mask.of else {}
        named |= {f"registration.roles.{k}": role for k, role in enumerate(self.moved)}
        for key, role in named.items():
            if role not in self.images:
                raise ValueError(f"{key}: {role!r} is no image (images: {', '.join(self.images)})")
        if self.first in self.moved:
            raise ValueError(f"registration.roles: {self.first} is the first image, which stays; name others")
        return self

    @model_validator(mode="after")
    def _grid(self) -> Plan:
        if self.spacing_mm and min(self.spacing_mm) <= 0:
            raise ValueError("spacing_mm must be positive")
        letters = self.orientation or "RAS"
        if [sum(side in pair for side in letters) for pair in ("LR", "AP", "IS")] != [1, 1, 1] or len(letters) != 3:
            raise ValueError(f"orientation: three letters, one of each pair R/L, A/P, S/I; seen {letters!r}")
        return self

    @model_validator(mode="after")
    def _masked(self) -> Plan:
        wanting = [f"images.{role}.background" for role, one in self.images.items() if one.background is not None]
        wanting += [f"images.{role}.harmonise" for role in self.harmonised]
        wanting += ["crop_mm"] if self.crop_mm is not None else []
        if wanting and self.mask is None:
            raise ValueError(f"{wanting[0]}: needs a mask; set mask, or leave it out")
        return self


def load(path: Path, overrides: Sequence[str] = ()) -> Plan:
    """Read a YAML file and apply `dotted.key=value` overrides.

    Raises:
        InputError: if the file is missing or is no YAML.
        ConfigError: for unknown keys and values out of range, each named by its full key.
    """
    return Plan.parse(overridden(read_yaml(Path(path), _PATHS), overrides, _PATHS))


def dump(plan: Plan) -> str:
    """The plan as YAML, every default written out."""
    return yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
