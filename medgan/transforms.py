"""The steps of `medgan prepare` for MONAI's `Compose`: transforms of dicts of images (1, X, Y, Z) with an affine.

They stand behind `LoadImaged` and `EnsureChannelFirstd`, where values are those of the files. What MONAI has itself is
not here twice: orientation is `Orientationd`, the crop to a mask `CropForegroundd`, both invertible and lazy.

```
OneGridd          all images onto one grid                   invertible, lazy
Registerd         images onto another one                    invertible
BiasCorrectd      slow changes of brightness taken out       -
BodyMaskd         a mask of the body                         -
BrainMaskd        a mask of the brain, by deepbet            -
FillBackgroundd   one value outside a mask                   -
Harmonised        the scale of a prepared cohort             -
```

What hangs on an image's content cannot be lazy: MONAI resamples what is pending before it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.transforms import InvertibleTransform, LazyTransform, MapTransform, SpatialResample
from monai.utils import SpaceKeys
from torch import Tensor

from medgan.bias import corrected
from medgan.bodies import body, brain, without_background
from medgan.errors import InputError
from medgan.prepare.place import spaced
from medgan.prepare.scales import read_scale
from medgan.registration import Registration, Way, lay
from medgan.volume import Grid, Volume

__all__ = ["BiasCorrectd", "BodyMaskd", "BrainMaskd", "FillBackgroundd", "Harmonised", "OneGridd", "Registerd"]

Item = dict[Hashable, Any]
_MODES = {"bilinear": 1, "nearest": 0}
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class OneGridd(MapTransform, InvertibleTransform, LazyTransform):  # type: ignore[misc]
    """All images onto one grid: that of a reference, with another spacing if one is given.

    The grid is that of `medgan prepare`. Values are MONAI's: linear as there, but not blurred before they go to larger
    voxels, and beyond an image its border continues.

    Args:
        keys: of the images; the reference may be among them.
        reference: key of the image whose place is taken.
        spacing_mm: of the grid, along the axes of the reference; None for its own.
        mode: `bilinear` or `nearest`, one for all or one a key.
        lazy: leave the resampling to MONAI, which then does all that is pending at once.
        allow_missing_keys: leave out images that are not there.

    Raises:
        InputError: when it is called, if the reference is missing or has no affine.
    """

    def __init__(
        self,
        keys: Any,
        reference: Hashable,
        spacing_mm: tuple[float, float, float] | None = None,
        *,
        mode: Any = "bilinear",
        lazy: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        LazyTransform.__init__(self, lazy=lazy)
        self.reference, self.spacing_mm = reference, spacing_mm
        self.modes = dict(zip(self.keys, _each(mode, len(self.keys)), strict=True))
        self.resample = SpatialResample(padding_mode="border", lazy=lazy)

    @LazyTransform.lazy.setter  # type: ignore[untyped-decorator]
    def lazy(self, value: bool) -> None:
        """Of this one, and of what it does it by."""
        self._lazy = value
        self.resample.lazy = value

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> Item:
        """A dict to a new one."""
        item = dict(data)
        grid = _pending_grid(_of(item, self.reference))
        grid = spaced(grid, self.spacing_mm) if self.spacing_mm else grid
        to = torch.tensor(grid.affine)
        for key in self.key_iterator(item):
            item[key] = self.resample(
                item[key], dst_affine=to, spatial_size=grid.shape, mode=self.modes[key], lazy=lazy
            )
        return item

    def inverse(self, data: Mapping[Hashable, Any]) -> Item:
        """The images on their own grids."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.resample.inverse(item[key])
        return item


class Registerd(MapTransform, InvertibleTransform):  # type: ignore[misc]
    """Images onto a fixed one, on its grid, in one interpolation; what lies on them goes along.

    Args:
        keys: of the images that are moved, each registered by itself.
        fixed: key of the image that stays.
        kind: `rigid`, `affine`, or `deformable`, which has no inverse.
        along: label images that are moved as an image is, by nearest neighbour: `{"organs": "ct"}`.
        outside: the value where an image was not measured, one for all or one a key.
        seed: of the voxels that are compared.
        allow_missing_keys: leave out images that are not there.

    Raises:
        GeometryError: when it is called, if the result cannot be right; as `medgan.registration.register`.
        InputError: when it is called, if an image is constant or has no affine, or SimpleITK is not installed.
    """

    def __init__(
        self,
        keys: Any,
        fixed: Hashable,
        *,
        kind: Literal["rigid", "affine", "deformable"] = "rigid",
        along: Mapping[Hashable, Hashable] | None = None,
        outside: Any = 0.0,
        seed: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.fixed, self.kind, self.seed = fixed, kind, seed
        self.along = dict(along or {})
        self.outside = dict(zip(self.keys, _each(outside, len(self.keys)), strict=True))
        if unknown := [str(key) for key, of in self.along.items() if of not in self.keys]:
            raise InputError(
                f"along: {', '.join(unknown)}: goes along with an image that is not moved; name one of keys"
            )

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """A dict to a new one."""
        item = dict(data)
        fixed = _volume(_of(item, self.fixed))
        for key in self.key_iterator(item):
            moving = _volume(item[key])
            found = lay(fixed, moving, self.kind, seed=self.seed)
            item[key] = self._moved(item[key], found, fixed.grid, 1, self.outside[key])
            for label in [one for one, of in self.along.items() if of == key and one in item]:
                item[label] = self._moved(item[label], found, fixed.grid, 0, 0)
        return item

    def inverse(self, data: Mapping[Hashable, Any]) -> Item:
        """Images and what went along with them, on the grids that they had."""
        item = dict(data)
        for key in [*self.key_iterator(item), *(label for label in self.along if label in item)]:
            told = self.pop_transform(item[key])["extra_info"]
            if told["matrix"] is None:
                raise InputError(f"{key}: was bent, which has no inverse; take kind='rigid', or keep the image")
            way = Registration(np.array(told["matrix"])).inverse()
            x, y, z = told["shape"]
            grid = Grid((x, y, z), np.array(told["affine"]))
            moved = way.moved(_volume(item[key]), grid, order=told["order"], outside=told["outside"])
            item[key] = _placed(moved, item[key])
        return item

    def _moved(self, image: MetaTensor, way: Way, grid: Grid, order: int, outside: float) -> MetaTensor:
        volume = _volume(image)
        made = _placed(way.moved(volume, grid, order=order, outside=outside), image)
        matrix = way.matrix.tolist() if isinstance(way, Registration) else None
        told = {"matrix": matrix, "order": order, "outside": float(outside)}
        told |= {"shape": list(volume.grid.shape), "affine": volume.grid.affine.tolist()}
        return self.push_transform(made, orig_size=volume.grid.shape, extra_info=told)


class BiasCorrectd(MapTransform):  # type: ignore[misc]
    """Images without the slow changes of brightness that coils make, by N4.

    Args:
        keys: of the images.
        mask: key of a mask inside which they are looked at; None for N4's own.
        allow_missing_keys: leave out images that are not there.

    Raises:
        InputError: when it is called, if an image cannot be corrected, or SimpleITK is not installed.
    """

    def __init__(self, keys: Any, mask: Hashable | None = None, *, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mask = mask

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """A dict to a new one."""
        item = dict(data)
        mask = None if self.mask is None else _volume(_of(item, self.mask))
        for key in self.key_iterator(item):
            item[key] = _valued(corrected(_volume(item[key]), mask), item[key])
        return item


class _Masking(MapTransform):  # type: ignore[misc]
    """What adds a mask to a dict."""

    def __init__(self, keys: Any, mask: Hashable, modality: str, unit: str, allow_missing_keys: bool) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mask, self.modality, self.unit = mask, modality, unit
        if len(self.keys) > 1:
            raise InputError(f"keys: {', '.join(map(str, self.keys))}: a mask is found in one image; name one")

    def found(self, volume: Volume) -> Volume:
        """The mask of an image."""
        raise NotImplementedError

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """A dict to a new one, with the mask: uint8, 1 inside."""
        item = dict(data)
        for key in self.key_iterator(item):
            mask = self.found(_volume(item[key], self.modality, self.unit))
            item[self.mask] = _placed(mask.with_array(mask.array.astype(np.uint8)), item[key], torch.uint8)
        return item


class BodyMaskd(_Masking):
    """A mask of the body, found in one image, without couch and holders.

    Args:
        keys: of the image.
        mask: key of the mask that is added.
        modality: DICOM's code.
        unit: of the image, such as `HU`.
        allow_missing_keys: leave dicts without the image as they are.

    Raises:
        InputError: if there is more than one image; when it is called, if there is no body in it.
    """

    def __init__(
        self,
        keys: Any,
        mask: Hashable = "mask",
        *,
        modality: str = "",
        unit: str = "a.u.",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, mask, modality, unit, allow_missing_keys)

    def found(self, volume: Volume) -> Volume:
        """The body in an image."""
        return body(volume)


class BrainMaskd(_Masking):
    """A mask of the brain, found in one T1-weighted image by deepbet.

    Args:
        keys: of the image.
        mask: key of the mask that is added.
        allow_missing_keys: leave dicts without the image as they are.

    Raises:
        InputError: if there is more than one image; when it is called, if deepbet is not installed.
    """

    def __init__(self, keys: Any, mask: Hashable = "mask", *, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, mask, "MR", "a.u.", allow_missing_keys)

    def found(self, volume: Volume) -> Volume:
        """The brain in an image."""
        return brain(volume)


class FillBackgroundd(MapTransform):  # type: ignore[misc]
    """Images with one value outside a mask: air where couch and holders were.

    Args:
        keys: of the images.
        mask: key of the mask.
        value: outside, one for all or one a key: -1000 for HU, 0 for MR.
        allow_missing_keys: leave out images that are not there.

    Raises:
        InputError: when it is called, if the mask is missing; a GeometryError, if it lies on another grid.
    """

    def __init__(
        self, keys: Any, mask: Hashable = "mask", value: Any = 0.0, *, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mask = mask
        self.values = dict(zip(self.keys, _each(value, len(self.keys)), strict=True))

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """A dict to a new one."""
        item = dict(data)
        mask = _volume(_of(item, self.mask))
        for key in self.key_iterator(item):
            item[key] = _valued(without_background(_volume(item[key]), mask, value=self.values[key]), item[key])
        return item


class Harmonised(MapTransform):  # type: ignore[misc]
    """Images on the scale of a cohort that `medgan prepare` has prepared; values are then `normalised`.

    Args:
        keys: of the images.
        harmonisation: the file `harmonisation.json` of that cohort.
        role: of the image there; its key if not given.
        mask: key of the mask inside which values are looked at.
        allow_missing_keys: leave out images that are not there.

    Raises:
        ConfigError: if the file is none, or knows no such role.
    """

    def __init__(
        self,
        keys: Any,
        harmonisation: Path | str,
        *,
        role: str | None = None,
        mask: Hashable = "mask",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mask = mask
        self.scales = {key: read_scale(Path(harmonisation), role or str(key)) for key in self.keys}

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """A dict to a new one."""
        item = dict(data)
        mask = _volume(_of(item, self.mask))
        for key in self.key_iterator(item):
            item[key] = _valued(self.scales[key].apply(_volume(item[key]), mask), item[key])
        return item


# --- images of MONAI and volumes --------------------------------------------------------------------------------------


def _each(value: Any, count: int) -> list[Any]:
    """One value a key."""
    values = list(value) if isinstance(value, (list, tuple)) else [value] * count
    if len(values) != count:
        raise InputError(f"{len(values)} values are given for {count} keys; give one for all, or one a key")
    return values


def _of(item: Mapping[Hashable, Any], key: Hashable) -> Any:
    if key not in item:
        raise InputError(f"an item has no {key} (it has {', '.join(map(str, item))}); load it first")
    return item[key]


def _volume(image: Any, modality: str = "", unit: str = "a.u.") -> Volume:
    if not isinstance(image, MetaTensor) or image.ndim != 4 or image.shape[0] != 1:
        seen = f"{type(image).__name__} {tuple(getattr(image, 'shape', ()))}"
        raise InputError(f"an image is a MetaTensor (1, X, Y, Z) with its affine; seen {seen}; load it by LoadImaged")
    array: Any = image.as_tensor()[0].detach().cpu().numpy()
    return Volume(array, Grid(array.shape, _flip(image) @ _affine(image.affine)), unit, modality)


def _pending_grid(image: Any) -> Grid:
    """Where an image will lie once what is pending is done."""
    if not isinstance(image, MetaTensor) or image.ndim != 4:
        return _volume(image).grid
    x, y, z = (int(n) for n in image.peek_pending_shape())
    return Grid((x, y, z), _affine(image.peek_pending_affine()))


def _affine(affine: Tensor) -> Any:
    return np.asarray(to_affine_nd(3, affine.detach().cpu().numpy()), dtype=np.float64)


def _flip(like: MetaTensor) -> Any:
    """From the space that an image's affine is in to RAS+, and back."""
    return _TO_RAS if like.meta.get("space") == SpaceKeys.LPS else np.eye(4)


def _placed(volume: Volume, like: MetaTensor, dtype: torch.dtype | None = None) -> MetaTensor:
    """A volume on a grid of its own, with what is known of the image from which it comes."""
    values = torch.from_numpy(np.ascontiguousarray(volume.array))[None].to(like.device, dtype or like.dtype)
    made = MetaTensor(values, meta=dict(like.meta), applied_operations=list(like.applied_operations))
    made.affine = torch.as_tensor(_flip(like) @ volume.grid.affine)
    made.meta["spatial_shape"] = np.array(volume.grid.shape)
    return made


def _valued(volume: Volume, like: MetaTensor) -> MetaTensor:
    """Other values in the place of an image's, float32 if those are no whole numbers of its type."""
    values = torch.from_numpy(np.ascontiguousarray(volume.array))[None].to(like.device)
    made = values if values.is_floating_point() else values.to(like.dtype)
    return MetaTensor(made.float() if made.is_floating_point() else made).copy_meta_from(like)
