"""The way of one case: images as they were read, onto one grid, with their mask, and at last their values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from medgan.bias import corrected
from medgan.bodies import body, brain, without_background
from medgan.errors import GeometryError, InputError
from medgan.plausible import doubts
from medgan.prep import Intensity, check
from medgan.prepare.place import STAYS, around, common_view, placed, spaced
from medgan.prepare.plan import Image, Plan
from medgan.prepare.scales import Scale
from medgan.prepare.verify import verified
from medgan.registration import Way, lay
from medgan.volume import Grid, Volume

__all__ = ["Half", "finished", "halfway"]

Volumes = Mapping[str, Volume]
AIR_HU = -1000.0
_MOST = 1e18
_MUCH_LOST = 0.05
_WRONG_SCALES = ("offset", "scaled")  # in HU: body, air and clipping are found by them, and hide them afterwards
_FOUND_BY = {"body": body, "brain": brain}


@dataclass(frozen=True)
class Half:
    """A case on its way: everything is done but the values.

    Args:
        volumes: on one grid, by role; the mask among them, where there is one.
        steps: what was done, in order, in plain values.
        notes: what people should know.
    """

    volumes: Volumes
    steps: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]


def halfway(read: Volumes, plan: Plan) -> Half:
    """All steps up to the harmonisation.

    Args:
        read: images, labels and mask as they were read, by role.
        plan: the steps.

    Raises:
        InputError: if an image is missing, constant, of another unit, or the same as another one; if a step fails.
        GeometryError: if images are registered wrongly, do not meet, or the mask is empty.
    """
    images = {role: _believed(read[role], one, role) for role, one in plan.images.items() if role in read}
    _refuse_useless(images, plan)
    walk = _Walk(plan, read, images)
    walk.choose_grid()
    walk.register()
    walk.resample()
    walk.take_out_bias()
    if plan.mask is not None:
        walk.find_mask(plan.mask.source, plan.mask.of or walk.first)
        walk.clear_background()
        walk.crop()
    return Half(walk.volumes, tuple(walk.steps), tuple(walk.notes))


def finished(half: Half, plan: Plan, scales: Mapping[str, Scale]) -> Half:
    """The last steps: values on the scale of the cohort, clipped.

    Args:
        half: of `halfway`.
        plan: the steps.
        scales: of the images that are harmonised, by role.

    Raises:
        InputError: if an image cannot be harmonised.
    """
    volumes, steps = dict(half.volumes), list(half.steps)
    for role, image in plan.images.items():
        if role in volumes and image.harmonise:
            volumes[role] = scales[role].apply(volumes[role], volumes["mask"])
            steps.append({"step": "harmonise", "role": role, **scales[role].to_json(), "unit": volumes[role].unit})
        if role in volumes and image.clip:
            steps.append({"step": "clip", "role": role, **_clipping(volumes[role], image.clip)})
            volumes[role] = volumes[role].with_array(np.clip(volumes[role].array, *image.clip))
    return Half({role: _stored(one) for role, one in volumes.items()}, tuple(steps), half.notes)


@dataclass
class _Walk:
    """A case under way: what it began with, where all of it goes, and what has become of it."""

    plan: Plan
    read: Volumes
    images: Volumes
    grid: Grid = field(init=False)
    ways: dict[str, Way] = field(init=False)
    volumes: dict[str, Volume] = field(default_factory=dict)
    steps: list[Mapping[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def first(self) -> str:
        """The role of the image that stays."""
        return next(iter(self.images))

    def did(self, step: str, **facts: Any) -> None:
        self.steps.append({"step": step, **facts})

    def choose_grid(self) -> None:
        """That of the first image, turned, and in other voxels where that is wanted."""
        seen = self.images[self.first].grid
        whole = Volume(np.broadcast_to(np.uint8(0), seen.shape), seen)
        turned = whole.reorient(self.plan.orientation).grid if self.plan.orientation else seen
        self.grid = spaced(turned, self.plan.spacing_mm) if self.plan.spacing_mm else turned
        told = {"before": seen.describe(), "after": self.grid.describe(), "affine_ras_mm": self.grid.affine.tolist()}
        self.did("grid", of=self.first, **told)

    def register(self) -> None:
        """The other images onto the first one; the rest lies as its header says."""
        self.ways, how = dict.fromkeys(self.images, STAYS), self.plan.registration
        for role in self.images:
            if how and role in self.plan.moved and role != self.first:
                fixed, moving = self.images[self.first], self.images[role]
                self.ways[role] = found = lay(fixed, moving, how.kind, seed=how.seed, elastix=how.elastix)
                after = self._fitting(role, must=how.must_fit)
                self.did("register", role=role, fixed=self.first, **found.to_json(), verified=after)

    def _fitting(self, role: str, *, must: bool) -> dict[str, Any] | None:
        """How a registered image lies now, seen by another search; a case whose images do not fit is refused."""
        names = f"{self.first} and {role}"
        seen = verified(self.images[self.first], self.ways[role].carried(self.images[role]), names)
        if seen.doubts and must:
            raise GeometryError(
                f"the registration failed: {'; '.join(seen.doubts)}. Are these images of one patient, none mirrored? "
                "Leave the case out; where anatomy bends, set registration.must_fit=false"
            )
        self.notes.extend(f"after registration, {doubt}" for doubt in seen.doubts)
        self.notes.extend([f"whether {names} fit could not be seen: {seen.unseen}"] if seen.unseen else [])
        return seen.to_json()

    def resample(self) -> None:
        """Everything onto the grid, once: images linearly, labels by the nearest voxel."""
        for role, volume in self.images.items():
            outside = _outside(volume, self.plan.images[role])
            with _about(role):
                self.volumes[role] = placed(volume, self.ways[role], self.grid, outside=outside)
            self._tell_of_grid(role, volume, outside)
        for role, of in self.plan.labels.items():
            if role in self.read:
                self.volumes[role] = replace(self._of_label(role, of), unit="label")
                self._tell_of_grid(role, self.read[role], 0)

    def _of_label(self, role: str, of: str) -> Volume:
        if of not in self.ways:
            raise InputError(f"{role} was drawn on {of}, which this case has not; add that, or remove {role}")
        return placed(replace(self.read[role], padding=None), self.ways[of], self.grid, order=0)

    def _tell_of_grid(self, role: str, volume: Volume, outside: float) -> None:
        told = {"before": volume.grid.describe(), "after": self.grid.describe(), "unit": volume.unit}
        self.did("resample", role=role, **told, outside=outside)

    def take_out_bias(self) -> None:
        """Where that is wanted."""
        for role, image in self.plan.images.items():
            if role in self.volumes and image.bias_field:
                self.volumes[role] = corrected(self.volumes[role])
                self.did("bias_field", role=role, method="N4")

    def find_mask(self, source: str, of: str) -> None:
        """Of body or brain, or the given one, where every image was measured."""
        if of not in self.images:
            here = f"find it in what there is (mask.of={self.first})"
            raise InputError(f"the mask is of {of}, which this case has not; add that, or {here}")
        found = self._given(of) if source == "given" else _FOUND_BY[source](self.volumes[of])
        inside = found.array != 0
        seen = inside & common_view({role: one.grid for role, one in self.images.items()}, self.ways, self.grid)
        if not seen.any():
            raise InputError(f"the mask ({source} of {of}) is empty where all images were measured; look at the case")
        if (lost := 1 - seen.sum() / inside.sum()) > _MUCH_LOST:
            self.notes.append(f"{lost:.0%} of the mask lies where an image was not measured, and is taken out of it")
        volume_ml = float(seen.sum() * np.prod(self.grid.spacing_mm) / 1000)
        self.did("mask", source=source, of=of, volume_ml=round(volume_ml, 3), lost_share=round(float(lost), 6))
        made = self.images[of].synthetic if source != "given" else found.synthetic
        self.volumes["mask"] = Volume(seen.astype(np.uint8), self.grid, "label", synthetic=made)

    def _given(self, of: str) -> Volume:
        if "mask" not in self.read:
            raise InputError("it has no mask, and the settings say given; add one, or find it by mask.source=body")
        drawn = self.read["mask"]
        if not drawn.array.any():
            raise InputError("its mask is empty; draw it, or remove the case")
        if not drawn.grid.same_as(self.images[of].grid, tolerance_mm=0.1):
            self.notes.append(f"its mask is on another grid than {of} ({drawn.grid.describe()}), and is resampled")
        inside = drawn.with_array((drawn.array != 0).astype(np.uint8))
        with _about("mask"):
            return placed(inside, self.ways[of], self.grid, order=0)

    def clear_background(self) -> None:
        """One value outside the mask, where that is wanted."""
        for role, image in self.plan.images.items():
            if role in self.volumes and image.background is not None:
                value = int(image.background) if image.background.is_integer() else image.background
                self.volumes[role] = without_background(self.volumes[role], self.volumes["mask"], value=value)
                self.did("background", role=role, value=image.background)

    def crop(self) -> None:
        """To the mask and a margin, where that is wanted."""
        if self.plan.crop_mm is not None:
            start, stop = around(self.volumes["mask"], self.plan.crop_mm)
            self.volumes = {role: volume.crop(start, stop) for role, volume in self.volumes.items()}
            after = self.volumes["mask"].grid.describe()
            self.did("crop", margin_mm=self.plan.crop_mm, start=start, stop=stop, after=after)


@contextmanager
def _about(role: str) -> Iterator[None]:
    """Errors say which image they are about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{role}: {error}") from error


# --- what came in, and what goes out ----------------------------------------------------------------------------------


def _believed(volume: Volume, image: Image, role: str) -> Volume:
    """The volume, holding what the plan says, unless it says otherwise itself."""
    _refuse_blank(volume, role)
    check(volume, Intensity(modality=image.modality, unit=image.unit, times_median=(0, 1)), role)
    believed = replace(volume, unit=image.unit, modality=image.modality).without_padding()
    if believed.unit == "HU" and np.isfinite(believed.array).all():
        for fault in doubts(believed, role):
            if fault.kind in _WRONG_SCALES:
                raise InputError(f"{fault.reason}; {fault.remedy}")
    return believed


def _refuse_useless(images: Volumes, plan: Plan) -> None:
    if not images:
        raise InputError(f"it has no image of the settings ({', '.join(plan.images)}); fill a cell, or remove the case")
    roles = list(images)
    for number, role in enumerate(roles):
        for other in roles[:number]:
            if np.array_equal(images[role].array, images[other].array):
                raise InputError(f"{other} and {role} are the same image; correct the table")


def _refuse_blank(volume: Volume, role: str) -> None:
    low, high = float(volume.array.min()), float(volume.array.max())
    if low == high:
        raise InputError(f"{role} is constant ({low:g} everywhere); replace the file")
    if max(abs(low), abs(high)) > _MOST:
        raise InputError(
            f"{role} has values from {low:g} to {high:g}, but no scanner measures beyond {_MOST:g}; mend it"
        )


def _outside(volume: Volume, image: Image) -> float:
    """What stands where an image was not measured: the background, else air, else the lowest value."""
    if image.background is not None:
        return image.background
    return AIR_HU if image.unit == "HU" else float(volume.array.min())


def _clipping(volume: Volume, limits: tuple[float, float]) -> dict[str, Any]:
    low, high = limits
    share = float(np.mean((volume.array < low) | (volume.array > high)))
    return {"low": low, "high": high, "unit": volume.unit, "clipped_share": round(share, 6)}


def _stored(volume: Volume) -> Volume:
    """HU as whole numbers of 16 bits where all fit, and no image in more than float32; labels as they are."""
    array = volume.array
    short = np.iinfo(np.int16)
    if volume.unit == "HU" and short.min <= array.min() and array.max() <= short.max:
        return volume.with_array(np.rint(array).astype(np.int16))
    is_wide = array.dtype == np.float64 and volume.unit != "label"
    return volume.with_array(array.astype(np.float32)) if is_wide else volume
