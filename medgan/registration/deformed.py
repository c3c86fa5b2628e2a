"""Bend one image onto another, by elastix, after a registration; none of the optimisation is ours.

What it does to images that were not bent has been measured: docs/concepts/harmonisation.md. World positions are RAS+ mm
everywhere but between here and elastix, which has LPS.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medgan.errors import GeometryError, InputError
from medgan.itk import LPS, simpleitk
from medgan.registration.found import Array, Matrix, Registration
from medgan.registration.search import Mask, Scene, widened
from medgan.resample import blurred
from medgan.volume import Grid, Volume

__all__ = ["NOTHING", "Deformation", "deform"]

Vectors = npt.NDArray[np.float32]
Maps = Sequence[Mapping[str, Sequence[str]]]

_NUM_RANKS = 65
_SLAB_VOXELS = 500_000
_NODES_MM = 24.0
# Mattes' mutual information and 500 times the bending energy: less stiff, it bends what was not bent.
_SETTINGS = {
    "Metric1Weight": ["500"],
    "GridSpacingSchedule": ["4", "2", "1"],
    "MaximumNumberOfIterations": ["200"],
    "NumberOfSpatialSamples": ["4000"],
    "NumberOfHistogramBins": ["32"],
    "NumberOfSamplesForExactGradient": ["16384"],
    "RequiredRatioOfValidSamples": ["0.05"],
    "ErodeMask": ["false"],
}
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Deformation:
    """Where in the moving image each place x of the fixed one is: y = matrix · (x + u(x)), RAS+ mm.

    Args:
        start: the registration that came first, with its matrix.
        vectors_mm: (X, Y, Z, 3) u, float32.
        grid: of the vectors. Beyond it those at its border go on.
        jacobian: least and greatest volume that a piece of the body, 1 before, has in the moving image.
        nmi_after: normalised mutual information near the fixed body; `start` has that of before.
        maps: elastix' transforms, one upon the other, as transformix reads them, in LPS.
        version: of elastix.
    """

    start: Registration
    vectors_mm: Vectors
    grid: Grid
    jacobian: tuple[float, float] = (1.0, 1.0)
    nmi_after: float = float("nan")
    maps: Maps = ()
    version: str = ""

    @cached_property
    def lengths_mm(self) -> tuple[float, float]:
        """Mean and greatest length of the vectors."""
        lengths = np.linalg.norm(self.vectors_mm, axis=-1)
        return float(lengths.mean()), float(lengths.max())

    def carried(self, volume: Volume) -> Volume:
        """A moving image in the fixed one's world, in voxels like its own; lowest where it had none."""
        return self.moved(volume, self.start.carried(volume).grid, outside=float(volume.array.min()))

    def moved(self, volume: Volume, onto: Grid, *, order: int = 1, outside: float) -> Volume:
        """A moving image in the place of the fixed one, interpolated once.

        Args:
            volume: the moving image, or one that lies as it does.
            onto: the grid wanted, in the fixed image's world.
            order: 0 nearest (masks, labels), 1 linear.
            outside: the value where the moving image has no voxel, in its unit.

        Returns:
            float32 values, with order 0 in the type of the volume.

        Example:
            >>> right = np.broadcast_to(np.float32([1, 0, 0]), (2, 2, 2, 3))
            >>> bend = Deformation(Registration(np.eye(4)), right, Grid.regular((2, 2, 2)))
            >>> line = Volume(np.array([[[1.0]], [[2.0]], [[3.0]]]), Grid.regular((3, 1, 1)))
            >>> bend.moved(line, line.grid, outside=-1).array.ravel().tolist()
            [2.0, 3.0, -1.0]
        """
        source = volume.without_padding()
        placed = self.start.carried(source)
        values = blurred(placed, onto) if order else source.array
        array = np.empty(onto.shape, dtype=np.float32 if order else values.dtype)
        for part, at in _slabs(onto):
            index = np.moveaxis(placed.grid.to_index(at + self.at(at)), -1, 0)
            found = ndimage.map_coordinates(values, index, order=order, mode="nearest")
            array[..., part] = np.where(_within(index, source.grid.shape), found, outside)
        return replace(source, array=array, grid=onto)

    def at(self, position_mm: Array) -> Array:
        """(…, 3) vectors u at world positions of the fixed image."""
        index = np.moveaxis(self.grid.to_index(position_mm), -1, 0)
        parts = np.moveaxis(self.vectors_mm, -1, 0)
        return np.stack([ndimage.map_coordinates(one, index, order=1, mode="nearest") for one in parts], axis=-1)

    def to_json(self) -> dict[str, Any]:
        """What was found, in plain numbers; `elastix` is what transformix needs, after the matrix."""
        mean, most = self.lengths_mm
        return {
            **self.start.to_json(),
            "kind": "deformable",
            "nmi_after": self.nmi_after,
            "bend_mean_mm": mean,
            "bend_most_mm": most,
            "jacobian": list(self.jacobian),
            "elastix_version": self.version,
            "elastix": [{key: list(values) for key, values in one.items()} for one in self.maps],
        }


def deform(fixed: Volume, moving: Volume, start: Registration, *, elastix: Mapping[str, Any] = NOTHING) -> Deformation:
    """Find how an image is bent, beyond what a registration has found.

    elastix maximises Mattes' mutual information under a bending energy, by B-splines with nodes 24 mm apart, near the
    fixed body, on images of 2 mm. The same images, seed and version of elastix give the same result: it runs on one
    thread. Where images are not bent it still moves them, by half a millimetre and more; see `docs/concepts`.

    Args:
        fixed: the image that stays.
        moving: the image to bend.
        start: of `register`; its seed says which voxels are looked at.
        elastix: its parameters that are to be others, such as `{"Metric1Weight": 50}`: less stiff.

    Raises:
        GeometryError: if tissue is folded, mutual information is no larger than before, or elastix fails.
        InputError: if elastix is not installed or knows no such parameter; or as in `register`.

    Source:
        Klein et al. 2010, IEEE TMI 29(1); Rueckert et al. 1999, IEEE TMI 18(8).
    """
    itk = _library()
    scene = Scene.of(simpleitk(), fixed, start.carried(moving), None, start.seed)
    vectors, maps = _bent(itk, scene, _parameters(itk, elastix, start.seed))
    bend = Deformation(start, vectors, scene.fixed.grid, maps=maps, version=version("itk-elastix"))
    volumes = _volumes(vectors, scene.fixed.grid)[scene.looked_at]
    nmi = scene.nmi_at(scene.points + bend.at(scene.points))
    found = replace(bend, jacobian=(float(volumes.min()), float(volumes.max())), nmi_after=nmi)
    _refuse_wrong(found, scene.nmi(np.eye(4)))
    return found


def _refuse_wrong(found: Deformation, nmi_before: float) -> None:
    wrong = ""
    if not found.nmi_after >= nmi_before:
        wrong = f"mutual information fell from {nmi_before:.3f} to {found.nmi_after:.3f}"
    elif found.jacobian[0] <= 0:
        wrong = f"tissue is folded: a piece of it gets {found.jacobian[0]:.2f} times its volume"
    if wrong:
        raise GeometryError(f"bending failed: {wrong}. Take registration.kind=rigid, or leave the case out")


# --- elastix ----------------------------------------------------------------------------------------------------------


def _library() -> Any:
    try:
        import itk
    except ModuleNotFoundError:
        raise InputError("elastix is not installed: pip install 'medgan[elastix]'") from None
    return itk


def _parameters(itk: Any, changed: Mapping[str, Any], seed: int) -> Any:
    found = itk.ParameterObject.New()
    values = {**found.GetDefaultParameterMap("bspline", 3, _NODES_MM), **_SETTINGS}
    if unknown := sorted(changed.keys() - values.keys()):  # elastix would say nothing
        raise InputError(f"elastix: {', '.join(unknown)}: no parameter of these: {', '.join(sorted(values))}")
    values |= {name: _words(value) for name, value in changed.items()}
    found.AddParameterMap({**values, "RandomSeed": [str(seed + 1)], "WriteResultImage": ["false"]})
    return found


def _words(value: Any) -> list[str]:
    """As elastix takes it: a list of texts."""
    values = value if isinstance(value, list | tuple) else [value]
    return [str(one).lower() if isinstance(one, bool) else str(one) for one in values]


def _bent(itk: Any, scene: Scene, parameters: Any) -> tuple[Vectors, Maps]:
    """(X, Y, Z, 3) vectors in RAS+ mm on the grid of the fixed image, and the transforms."""
    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(1)
    near = scene.fixed.with_array(scene.looked_at.astype(np.uint8))
    fixed = _ranked(scene.fixed, scene.looked_at)
    moving = _ranked(scene.moving, widened(scene.bodies[1], scene.moving.grid))
    a, b, mask = (_image(itk, one) for one in (fixed, moving, near))
    try:
        _, found = itk.elastix_registration_method(
            a, b, parameter_object=parameters, fixed_mask=mask, number_of_threads=1, log_to_console=False
        )
    except RuntimeError as error:
        raise GeometryError(f"elastix failed: {_last_line(error)}") from None
    with tempfile.TemporaryDirectory() as folder:
        vectors = itk.array_from_image(itk.transformix_deformation_field(a, found, output_directory=folder))
    maps = [dict(found.GetParameterMap(number)) for number in range(found.GetNumberOfParameterMaps())]
    return np.ascontiguousarray(vectors.transpose(2, 1, 0, 3) * np.diag(LPS)[:3], dtype=np.float32), maps


def _image(itk: Any, volume: Volume) -> Any:
    """ITK's image of a volume, at the same place."""
    image = itk.image_from_array(np.ascontiguousarray(volume.array.T))
    affine = LPS @ volume.grid.affine
    image.SetSpacing(list(volume.grid.spacing_mm))
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(affine[:3, :3] / volume.grid.spacing_mm)))
    return image


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


# --- images and vectors -----------------------------------------------------------------------------------------------


def _ranked(volume: Volume, near: Mask) -> Volume:
    """Values as their ranks in and near the body: soft tissue gets as many bins as it has voxels."""
    array = ndimage.gaussian_filter(volume.array.astype(np.float64), 0.5)
    levels = np.unique(np.quantile(array[near], np.linspace(0, 1, _NUM_RANKS)))
    return volume.with_array(np.interp(array, levels, np.linspace(0, 100, len(levels))).astype(np.float32))


def _volumes(vectors: Vectors, grid: Grid) -> Matrix:
    """(X, Y, Z) determinants of the Jacobian of x + u(x)."""
    by_index = np.stack([np.gradient(vectors.astype(np.float64), axis=axis) for axis in range(3)], axis=-1)
    return np.asarray(np.linalg.det(np.eye(3) + by_index @ np.linalg.inv(grid.affine[:3, :3])))


def _slabs(grid: Grid) -> Iterator[tuple[slice, Array]]:
    """World positions of the voxels, slab by slab along the last axis."""
    step = max(1, _SLAB_VOXELS // (grid.shape[0] * grid.shape[1]))
    for start in range(0, grid.shape[2], step):
        part = slice(start, min(start + step, grid.shape[2]))
        index = np.mgrid[: grid.shape[0], : grid.shape[1], part]
        yield part, grid.to_world(np.moveaxis(index, 0, -1))


def _within(index: Array, shape: tuple[int, int, int]) -> Mask:
    """Where indices lie in a voxel."""
    inside = [(one >= -0.5) & (one <= size - 0.5) for one, size in zip(index, shape, strict=True)]
    return np.asarray(np.logical_and.reduce(inside))
