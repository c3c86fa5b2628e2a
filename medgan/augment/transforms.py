"""Synthetic images while a net trains: random transforms for MONAI's `Compose`, by a run that is opened when needed.

`RandSample` and `RandTranslate` take an image, `RandSampled` and `RandTranslated` the dict that it stands in. All four
read and write values in the unit of the files, so they come before transforms that scale intensities; and they are as
random, and as repeatable, as MONAI's own: by `set_random_state`, `set_determinism` and the seeds of loaders.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform

from medgan.augment.sources import Samples, Translations, as_label, kept, text_of
from medgan.errors import InputError
from medgan.run import Run, SamplingRun

__all__ = ["RandSample", "RandSampled", "RandTranslate", "RandTranslated"]


class _Sampling(RandomizableTransform):  # type: ignore[misc]
    """What draws the seed of a sample besides whether there is one."""

    seed = 0

    def randomize(self, data: Any = None) -> None:
        """Whether there is a sample, and which."""
        super().randomize(data)
        if self._do_transform:
            self.seed = int(self.R.randint(2**31))


class RandSample(_Sampling):
    """With some probability, an image made by a sampler's run in place of the one that is given.

    It has the size, the orientation and the unit of the image in whose place it is put: where the run scales images by
    their median, that of the other image. Nothing else of that image is kept, its file name neither.

    Args:
        run: the folder of a sampler's run.
        prob: of a sample, 0 to 1.
        conditions: what all samples show, by the run's conditions.
        truncation: see the model's card; None for none.
        device: `auto`, `cpu` or `cuda`; in worker processes of a loader `cpu`, unless they are spawned.
        axes: the sides to which the axes of images run, such as `LPS`, where their affine does not tell: of plain
            tensors, and of PNG files, which MONAI reads with an affine of ones.

    Raises:
        RunError: if the folder is no run of a sampler.
        InputError: when it is called on an image of another size, or one that was scaled already.
    """

    def __init__(
        self,
        run: Path | str | SamplingRun,
        prob: float = 0.1,
        *,
        conditions: Mapping[str, str] | None = None,
        truncation: float | None = None,
        device: str = "cpu",
        axes: str | None = None,
    ) -> None:
        super().__init__(prob)
        self.source = Samples(run, truncation, device, axes)
        self.conditions = dict(conditions or {})

    def __call__(self, img: Any, randomize: bool = True) -> MetaTensor:
        """(C, *spatial) to the same."""
        if randomize:
            self.randomize()
        return self.source.sampled(img, self.seed, self.conditions)[0] if self._do_transform else kept(img)


class RandSampled(_Sampling, MapTransform):  # type: ignore[misc]
    """The same in a dict: a sample that shows what the dict says of its image, and `synthetic`, True or False.

    Args:
        keys: of the image.
        run, prob, truncation, device, axes: as for `RandSample`.
        conditions: the key of each of the run's conditions; its own name if not given.
        label: the key of the label image, in place of which the mask of a sample is put, 1 inside and 0 outside; of a
            run that makes image and mask together.
        allow_missing_keys: leave dicts without the image as they are.

    Raises:
        RunError: if the folder is no run of a sampler.
        InputError: if there is more than one image, or the run makes no mask for the label; and when it is called on a
            dict with a further image of the same size, which would not belong to the sample.
    """

    def __init__(
        self,
        keys: Any,
        run: Path | str | SamplingRun,
        prob: float = 0.1,
        *,
        conditions: Mapping[str, Hashable] | None = None,
        label: Hashable | None = None,
        truncation: float | None = None,
        device: str = "cpu",
        axes: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.source, self.label = Samples(run, truncation, device, axes), label
        known, place = self.source.run.config, self.source.run.path
        self.conditions: dict[str, Hashable] = {name: name for name in known.conditions} | dict(conditions or {})
        if len(self.keys) > 1:
            raise InputError(f"keys: {', '.join(map(str, self.keys))}: a sample takes the place of one image; name one")
        if unknown := [name for name in self.conditions if name not in known.conditions]:
            raise InputError(
                f"conditions: {', '.join(unknown)}: none of the run {place} ({', '.join(known.conditions)})"
            )
        if label is not None and known.prep.mask is None:
            raise InputError(f"label: the run {place} makes no mask; name one that does, or no label")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A dict to a new one."""
        item = dict(data)
        self.randomize()
        for key in self.key_iterator(item):
            item |= self._sampled(item, key) if self._do_transform else {key: kept(item[key])}
        return item | {"synthetic": bool(self._do_transform or item.get("synthetic", False))}

    def _sampled(self, item: Mapping[Hashable, Any], key: Hashable) -> dict[Hashable, Any]:
        self._refuse_strangers(item, key)
        asked = {name: text_of(item, own) for name, own in self.conditions.items()}
        image, mask = self.source.sampled(item[key], self.seed, asked)
        return {key: image} if self.label is None else {key: image, self.label: as_label(item, self.label, mask)}

    def _refuse_strangers(self, item: Mapping[Hashable, Any], key: Hashable) -> None:
        sizes = {other: tuple(getattr(value, "shape", ()))[1:] for other, value in item.items()}
        own = sizes.pop(key)
        if others := [str(other) for other, size in sizes.items() if size == own and other != self.label]:
            raise InputError(
                f"{', '.join(others)}: of the size of {key}, and would not belong to a sample in its place; name the "
                "label image by label=, with a run that makes masks, or take RandSampled out"
            )


class RandTranslate(RandomizableTransform):  # type: ignore[misc]
    """With some probability, an image translated to another modality by a run, on its own grid.

    The values are in the unit of the run's output. Place, file name and all that MONAI has noted of the image stay.

    Args:
        run: the folder of a translator's run that sees one contrast.
        prob: of a translation, 0 to 1.
        to: the domain to translate to: "b", or "a" by a model that learns both ways.
        device, axes: as for `RandSample`.

    Raises:
        RunError: if the folder is no run of a translator, or one that sees several contrasts.
        InputError: when it is called on an image of several channels, or one that was scaled already.
    """

    def __init__(
        self,
        run: Path | str | Run,
        prob: float = 0.1,
        *,
        to: str = "b",
        device: str = "cpu",
        axes: str | None = None,
    ) -> None:
        super().__init__(prob)
        self.source = Translations(run, to, device, axes)

    def __call__(self, img: Any, randomize: bool = True) -> MetaTensor:
        """(1, *spatial) to the same."""
        if randomize:
            self.randomize(None)
        return self.source.translated(img) if self._do_transform else kept(img)


class RandTranslated(RandomizableTransform, MapTransform):  # type: ignore[misc]
    """The same in a dict: all images or none, and `synthetic`, True or False. Labels stay right as they are.

    Args:
        keys: of the images; label images are not among them.
        run, prob, to, device, axes: as for `RandTranslate`.
        allow_missing_keys: leave out images that are not there.

    Raises:
        RunError: if the folder is no run of a translator, or one that sees several contrasts.
    """

    def __init__(
        self,
        keys: Any,
        run: Path | str | Run,
        prob: float = 0.1,
        *,
        to: str = "b",
        device: str = "cpu",
        axes: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.source = Translations(run, to, device, axes)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A dict to a new one."""
        item = dict(data)
        self.randomize(None)
        change = self.source.translated if self._do_transform else kept
        for key in self.key_iterator(item):
            item[key] = change(item[key])
        return item | {"synthetic": bool(self._do_transform or item.get("synthetic", False))}
