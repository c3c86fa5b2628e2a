"""What an MR and a CT scanner make of a head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter

from medgan import __version__
from medgan.errors import InputError
from medgan.phantom.anatomy import Anatomy, Lesion
from medgan.phantom.shapes import Array, Waves
from medgan.phantom.tissue import Tissue, hu_table, mr_table
from medgan.volume import Grid, Synthesis, Volume

__all__ = ["Head", "default_grid", "head"]

Labels = npt.NDArray[np.uint8]
CT_NOISE_HU = 7.0
MR_NOISE = 0.013
EIGHTHS = np.array([(i, j, k) for i in (-0.25, 0.25) for j in (-0.25, 0.25) for k in (-0.25, 0.25)])


@dataclass(frozen=True, eq=False)
class Head:
    """A phantom and its two scans, all on one grid.

    Args:
        labels: uint8 `Tissue` at the centre of each voxel, unit `label`.
        mr: T1-weighted, int16, unit `a.u.`, of a gain that differs from head to head.
        ct: int16, unit `HU`.
        body: uint8, 1 within the skin (air inside the head counts), unit `label`.
        lesion: where the mass is.
        anatomy: the head itself, to be asked for the tissue at any point.
    """

    labels: Volume
    mr: Volume
    ct: Volume
    body: Volume
    lesion: Lesion
    anatomy: Anatomy


def default_grid() -> Grid:
    """An axial grid around the whole head: 112×136×50 voxels of 1.8×1.8×3.8 mm, DICOM's usual axes (LPS)."""
    return Grid.regular(
        (112, 136, 50), spacing_mm=(1.8, 1.8, 3.8), origin_mm=(100, 122, -90), direction=np.diag([-1.0, -1.0, 1.0])
    )


def head(seed: int, *, grid: Grid | None = None) -> Head:
    """Scan one random adult head; the same seed is the same head wherever the grid lies.

    Args:
        seed: which head, from 0.
        grid: where to sample it, RAS+ mm; `default_grid()` if not given. The head is within 110 mm of the origin.

    Raises:
        InputError: if the seed is negative.

    Example:
        >>> head(3, grid=Grid.regular((8, 8, 8), spacing_mm=(20, 20, 20), origin_mm=(-70, -70, -70))).ct.unit
        'HU'
    """
    if seed < 0:
        raise InputError(f"seed {seed}: a phantom is numbered from 0; give 0 or more")
    grid = grid or default_grid()
    anatomy = Anatomy.drawn(np.random.default_rng([seed, 0]))
    labels = _sampled(anatomy, grid)
    mr, ct = _scanned(anatomy, labels, grid, np.random.default_rng([seed, 1]))
    return Head(
        labels=_volume(labels, grid, "label"),
        mr=_volume(mr, grid, "a.u.", "MR"),
        ct=_volume(ct, grid, "HU", "CT"),
        body=_volume((labels != Tissue.BACKGROUND).astype(np.uint8), grid, "label"),
        lesion=anatomy.lesion,
        anatomy=anatomy,
    )


def _volume(array: npt.NDArray[np.generic], grid: Grid, unit: str, modality: str = "") -> Volume:
    made = Synthesis("medgan.phantom", version=__version__, description="Phantom drawn by formulas; no patient")
    return Volume(array, grid, unit, modality, synthetic=made)


def _sampled(anatomy: Anatomy, grid: Grid) -> Labels:
    """(X, Y, Z) labels at the voxels' centres."""
    planes = [anatomy.labels_at(grid.to_world(_plane(grid, k))) for k in range(grid.shape[2])]
    return np.stack(planes, axis=2)


def _plane(grid: Grid, k: int) -> npt.NDArray[np.int64]:
    """(X, Y, 3) indices of the voxels of one slice."""
    x, y = np.meshgrid(*map(np.arange, grid.shape[:2]), indexing="ij")
    return np.stack([x, y, np.full_like(x, k)], axis=-1)


def _scanned(
    anatomy: Anatomy, labels: Labels, grid: Grid, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
    """MR and CT, each voxel the mean over its eighths (partial volume)."""
    mr, ct, bone = (table[labels] for table in (mr_table(), hu_table(), _bone_table()))
    mixed = np.argwhere(maximum_filter(labels, 3) != minimum_filter(labels, 3))
    eighths = np.stack([anatomy.labels_at(grid.to_world(mixed + offset)) for offset in EIGHTHS])
    for image, table in ((mr, mr_table()), (ct, hu_table()), (bone, _bone_table())):
        image[tuple(mixed.T)] = table[eighths].mean(axis=0)
    density = _field(Waves.drawn(rng, wavelength_mm=30), grid)
    return _as_mr(mr, grid, rng), _as_ct(ct + 130 * bone * density, rng)


def _bone_table() -> Array:
    return np.isin(np.arange(len(Tissue)), (Tissue.CORTICAL_BONE, Tissue.SPONGY_BONE)).astype(np.float32)


def _as_ct(hu: Array, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """HU with noise that the reconstruction has smoothed in plane."""
    noise = gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), (0.6, 0.6, 0))
    noisy = np.rint(hu + np.float32(CT_NOISE_HU) / noise.std() * noise)
    return np.asarray(np.clip(noisy, -1024, 3071).astype(np.int16))


def _as_mr(signal: Array, grid: Grid, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """Signal under a coil's smooth sensitivity, with Rician noise, times an arbitrary gain."""
    coil = np.exp(0.12 * _field(Waves.drawn(rng, wavelength_mm=260, count=6), grid))
    texture = 1 + 0.025 * _field(Waves.drawn(rng, wavelength_mm=14), grid)
    noise = MR_NOISE * rng.standard_normal((2, *grid.shape), dtype=np.float32)
    gain = rng.uniform(500, 1600)
    magnitude = np.hypot(signal * coil * texture + noise[0], noise[1])
    return np.asarray(np.rint(gain * magnitude).astype(np.int16))


def _field(waves: Waves, grid: Grid) -> Array:
    """(X, Y, Z) smooth noise at the voxels' places in the world."""
    return np.stack([_on_plane(waves, grid, k) for k in range(grid.shape[2])], axis=2)


def _on_plane(waves: Waves, grid: Grid, k: int) -> Array:
    world = grid.to_world(_plane(grid, k)).reshape(-1, 3)
    return waves(world.T.astype(np.float32)).reshape(grid.shape[:2])
