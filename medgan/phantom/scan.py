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

__all__ = ["Head", "Sampled", "ct_of", "default_grid", "head", "mr_of", "sampled"]

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
    seen, rng = sampled(anatomy, grid), np.random.default_rng([seed, 1])
    density = _density(grid, rng)
    mr = mr_of(seen, rng)
    return Head(
        labels=_volume(seen.labels, grid, "label"),
        mr=mr,
        ct=_as_ct(seen, density, rng),
        body=_volume((seen.labels != Tissue.BACKGROUND).astype(np.uint8), grid, "label"),
        lesion=anatomy.lesion,
        anatomy=anatomy,
    )


@dataclass(frozen=True, eq=False)
class Sampled:
    """A head on a grid.

    Args:
        grid: the grid.
        labels: (X, Y, Z) tissues at the voxels' centres.
        mixed: (N, 3) voxels at boundaries.
        eighths: (8, N) tissues in the octants of those.
    """

    grid: Grid
    labels: Labels
    mixed: npt.NDArray[np.int64]
    eighths: Labels

    def mean_of(self, table: Array) -> Array:
        """(X, Y, Z) of a value that tissues have, each voxel the mean over its eighths (partial volume)."""
        image = table[self.labels]
        image[tuple(self.mixed.T)] = table[self.eighths].mean(axis=0)
        return image


def sampled(anatomy: Anatomy, grid: Grid) -> Sampled:
    """What of a head is where on a grid, from which any contrast can be made."""
    planes = [anatomy.labels_at(grid.to_world(_plane(grid, k))) for k in range(grid.shape[2])]
    labels = np.stack(planes, axis=2)
    mixed = np.argwhere(maximum_filter(labels, 3) != minimum_filter(labels, 3))
    eighths = np.stack([anatomy.labels_at(grid.to_world(mixed + offset)) for offset in EIGHTHS])
    return Sampled(grid, labels, mixed, eighths)


def mr_of(seen: Sampled, rng: np.random.Generator, table: Array | None = None) -> Volume:
    """An MR image of a head, int16, `a.u.`: T1-weighted, or of the contrast that a table of signals by tissue has."""
    signal = seen.mean_of(mr_table() if table is None else table)
    return _volume(_as_mr(signal, seen.grid, rng), seen.grid, "a.u.", "MR")


def ct_of(seen: Sampled, rng: np.random.Generator) -> Volume:
    """A CT image of a head, int16, HU."""
    return _as_ct(seen, _density(seen.grid, rng), rng)


def _volume(array: npt.NDArray[np.generic], grid: Grid, unit: str, modality: str = "") -> Volume:
    made = Synthesis("medgan.phantom", version=__version__, description="Phantom drawn by formulas; no patient")
    return Volume(array, grid, unit, modality, synthetic=made)


def _plane(grid: Grid, k: int) -> npt.NDArray[np.int64]:
    """(X, Y, 3) indices of the voxels of one slice."""
    x, y = np.meshgrid(*map(np.arange, grid.shape[:2]), indexing="ij")
    return np.stack([x, y, np.full_like(x, k)], axis=-1)


def _density(grid: Grid, rng: np.random.Generator) -> Array:
    """(X, Y, Z) by how much bone is denser or lighter than the mean."""
    return _field(Waves.drawn(rng, wavelength_mm=30), grid)


def _bone_table() -> Array:
    return np.isin(np.arange(len(Tissue)), (Tissue.CORTICAL_BONE, Tissue.SPONGY_BONE)).astype(np.float32)


def _as_ct(seen: Sampled, density: Array, rng: np.random.Generator) -> Volume:
    """HU with noise that the reconstruction has smoothed in plane."""
    hu = seen.mean_of(hu_table()) + 130 * seen.mean_of(_bone_table()) * density
    noise = gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), (0.6, 0.6, 0))
    noisy = np.rint(hu + np.float32(CT_NOISE_HU) / noise.std() * noise)
    return _volume(np.clip(noisy, -1024, 3071).astype(np.int16), seen.grid, "HU", "CT")


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
