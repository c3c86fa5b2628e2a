"""Lay one image upon another: rigid or affine by SimpleITK, bent by elastix; none of the optimisation is ours.

World positions are RAS+ mm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np

from medgan.errors import GeometryError
from medgan.itk import matrix_of, one_thread, simpleitk
from medgan.registration.deformed import NOTHING, Deformation, deform
from medgan.registration.found import Kind, Registration, three
from medgan.registration.search import LEAST_OVERLAP, Scene
from medgan.volume import Volume

__all__ = ["Deformation", "Registration", "Way", "deform", "lay", "register"]

Way: TypeAlias = Registration | Deformation

# What a registration may find. Beyond, it is refused: heads and bodies do not lie so on a table.
_MOST_TURN_DEG, _MOST_SCALING = 50.0, 1.25


def register(
    fixed: Volume,
    moving: Volume,
    *,
    kind: Kind = "rigid",
    mask: Volume | None = None,
    seed: int = 0,
) -> Registration:
    """Find where each place of one image is in another, whatever the modalities, grids and units.

    SimpleITK maximises Mattes' mutual information, on images of 2 mm, from coarse to fine. It starts from the images as
    they lie, and from those two that tell most of others: equal middles or equal centres of the bodies, each also
    turned by 20 and 40 degrees about each axis. The best of what the coarse level makes of these goes on. The same
    images, seed and version of SimpleITK give the same bytes: it runs on one thread.

    Args:
        fixed: the image that stays.
        moving: the image to place.
        kind: `rigid` (turn and shift), or `affine` (stretch and shear as well).
        mask: where in the fixed image to look; its body and 8 mm around if not given. Any non-zero voxel counts, on any
            grid.
        seed: which voxels are looked at, from 0.

    Raises:
        GeometryError: if the result cannot be right: mutual information is no larger than before; less than half of
            the smaller body lies in the other one; a turn of more than 50°, a volume or axis stretched by more than
            25 %. Images are left as they were.
        InputError: if an image is constant or not finite, or SimpleITK is not installed.

    Source:
        Mattes et al. 2003, IEEE TMI 22(1).

    Example:
        >>> from medgan import Grid
        >>> from medgan.phantom import head
        >>> grid = Grid.regular((48, 60, 40), spacing_mm=(4, 4, 4), origin_mm=(-94, -118, -75))
        >>> one = head(1, grid=grid)
        >>> affine = one.ct.grid.affine.copy()
        >>> affine[0, 3] += 10
        >>> found = register(one.mr, Volume(one.ct.array, Grid(grid.shape, affine), "HU"))
        >>> [round(shift) for shift in found.translation_mm]
        [10, 0, 0]
    """
    sitk = simpleitk()
    scene = Scene.of(sitk, fixed, moving, mask, seed)
    with one_thread(sitk):
        found = scene.rigid()
        if kind == "affine":
            found = scene.affine(found)
    matrix = scene.no_worse(matrix_of(found))
    result = Registration(
        matrix,
        kind,
        three(scene.centre),
        scene.nmi(np.eye(4)),
        scene.nmi(matrix),
        scene.overlap(matrix),
        seed,
        sitk.Version_VersionString(),
    )
    _refuse_wrong(result)
    return result


def lay(
    fixed: Volume,
    moving: Volume,
    kind: Kind | Literal["deformable"] = "rigid",
    *,
    seed: int = 0,
    elastix: Mapping[str, Any] = NOTHING,
) -> Way:
    """`register`, and for `deformable` then `deform`; see there."""
    if kind != "deformable":
        return register(fixed, moving, kind=kind, seed=seed)
    return deform(fixed, moving, register(fixed, moving, seed=seed), elastix=elastix)


def _refuse_wrong(result: Registration) -> None:
    """Results that no patient's motion explains."""
    stretch = np.linalg.svd(result.matrix[:3, :3], compute_uv=False)
    turn = float(np.linalg.norm(result.rotation_deg))
    wrong = ""
    if not result.overlap >= LEAST_OVERLAP:
        wrong = f"only {result.overlap:.0%} of the smaller body lies in the other one"
    elif np.isnan(result.nmi_after):
        wrong = "the moving image shows too little of what is looked at in the fixed one"
    elif result.nmi_after < result.nmi_before:
        wrong = f"mutual information fell from {result.nmi_before:.3f} to {result.nmi_after:.3f}"
    elif turn > _MOST_TURN_DEG:
        wrong = f"it turned by {turn:.0f}°"
    elif max(stretch.max(), 1 / stretch.min()) > _MOST_SCALING:
        wrong = f"it stretched by {stretch.max():.2f} and {stretch.min():.2f}"
    if wrong:
        raise GeometryError(
            f"the registration failed: {wrong}. Are these images of one patient and place? "
            "Give a mask of what both show, or leave the case out"
        )
