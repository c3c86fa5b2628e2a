"""SSIM and MS-SSIM of two volumes: medgan beside scikit-image, SciPy's filters and MONAI, timed in turn.

    python tools/bench/ssim.py [--shape 256 256 128] [--rounds 5] [--masked]

All ways of a table compute the same number, which is shown, but for torchmetrics (where it is installed), which treats
borders in its own way; they are given float32 in memory. SciPy's filters are what
the published code of the SynthRAD challenges does: whole volumes in float64. The first way is the baseline: a ratio
below 1 means that medgan is faster than the other way. CPU seconds are those of all threads. Memory is the peak of a
fresh process above what it holds once its imports are done, over the bytes of both images.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from interleaved import machine, table
from monai.metrics.regression import KernelType, compute_ms_ssim, compute_ssim_and_cs
from scipy.ndimage import convolve1d, gaussian_filter, uniform_filter
from skimage.metrics import structural_similarity

from medgan.metrics.image import MS_SSIM_WEIGHTS, ms_ssim_2025, ssim_2023
from medgan.metrics.ssim import ms_ssim_2003, ssim_2004
from medgan.tables import columns

Array = npt.NDArray[Any]
Way = Callable[[Array, Array, Array | None], float]
RANGE = (-1024.0, 3071.0)
L = RANGE[1] - RANGE[0]
C1, C2 = (0.01 * L) ** 2, (0.03 * L) ** 2
CORE = (slice(3, -3),) * 3
OTHERS: Any = import_module("torchmetrics.functional.image") if find_spec("torchmetrics") else None
IN_CHILD = """
import resource, sys
import numpy as np
from ssim import JOBS
pages = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
held = pages()
images = [np.load(path) if path else None for path in {paths!r}]
JOBS[{job!r}][{way!r}](*images)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("BYTES", int(peak.split()[1]) * 1024 - held)
"""


# --- ways -------------------------------------------------------------------------------------------------------------


def prepared(image: Array, mask: Array | None) -> Array:
    """As the challenges have it: clipped, its lowest value off the mask, from 0 on."""
    made = np.clip(image.astype(np.float64), *RANGE) - RANGE[0]
    return made if mask is None else np.where(mask, made, 0)


def mean(values: Array, mask: Array | None) -> float:
    return float(values.mean() if mask is None else values[mask].mean())


def scikit_uniform(pred: Array, ref: Array, mask: Array | None) -> float:
    x, y = prepared(ref, mask), prepared(pred, mask)
    values = structural_similarity(x, y, win_size=7, data_range=L, full=True)[1]
    return mean(values[CORE], None if mask is None else mask[CORE])


def scipy_map(x: Array, y: Array) -> Array:
    """Luminance, contrast and structure by SciPy's filters on whole volumes, one after the other."""
    ux, uy = uniform_filter(x, 7), uniform_filter(y, 7)
    vx, vy, vxy = (
        343 / 342 * (uniform_filter(a * b, 7) - u) for a, b, u in ((x, x, ux * ux), (y, y, uy * uy), (x, y, ux * uy))
    )
    return np.asarray((2 * ux * uy + C1) * (2 * vxy + C2) / ((ux**2 + uy**2 + C1) * (vx + vy + C2)))


def scipy_uniform(pred: Array, ref: Array, mask: Array | None) -> float:
    values = scipy_map(prepared(ref, mask), prepared(pred, mask))
    return mean(values[CORE], None if mask is None else mask[CORE])


def scipy_ms_ssim(pred: Array, ref: Array, mask: Array | None) -> float:
    """Axes of 97 voxels or more."""
    x, y, result = prepared(ref, mask), prepared(pred, mask), 1.0
    for weight in MS_SSIM_WEIGHTS:
        values = np.maximum(scipy_map(x, y), 0)[CORE] ** weight
        result *= min(mean(values, None if mask is None else mask[CORE]), 1)
        x, y = halved(x), halved(y)
        mask = None if mask is None else mask[::2, ::2, ::2]
    return result


def halved(image: Array) -> Array:
    for axis in range(3):
        image = convolve1d(image, [0, 0.5, 0.5], axis, mode="constant")
    return image[::2, ::2, ::2]


def scikit_gaussian(pred: Array, ref: Array, mask: Array | None) -> float:
    x, y = (image.astype(np.float64) - RANGE[0] for image in (ref, pred))
    how: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": L}
    if mask is None:
        return float(structural_similarity(x, y, **how))
    core = (slice(5, -5),) * 3
    return mean(structural_similarity(x, y, full=True, **how)[1][core], mask[core])


def monai_gaussian(pred: Array, ref: Array, mask: Array | None) -> float:
    x, y = (torch.from_numpy(image - np.float32(RANGE[0]))[None, None] for image in (ref, pred))
    values = compute_ssim_and_cs(
        y, x, 3, kernel_size=(11,) * 3, kernel_sigma=(1.5,) * 3, data_range=L, kernel_type=KernelType.GAUSSIAN
    )[0]
    return mean(values[0, 0].numpy(), None if mask is None else mask[5:-5, 5:-5, 5:-5])


def scipy_slices(pred: Array, ref: Array, _: Array | None) -> float:
    """MS-SSIM of Wang 2003, slice after slice."""
    found = []
    for k in range(ref.shape[2]):
        x, y, result = ref[..., k].astype(np.float64) - RANGE[0], pred[..., k].astype(np.float64) - RANGE[0], 1.0
        for level, weight in enumerate(MS_SSIM_WEIGHTS):
            ux, uy, xx, yy, xy = (
                gaussian_filter(one, 1.5, truncate=3.5)[5:-5, 5:-5] for one in (x, y, x * x, y * y, x * y)
            )
            values = (2 * (xy - ux * uy) + C2) / (xx - ux**2 + yy - uy**2 + C2)
            if level == len(MS_SSIM_WEIGHTS) - 1:
                values *= (2 * ux * uy + C1) / (ux**2 + uy**2 + C1)
            result *= max(float(values.mean()), 0) ** weight
            x, y = (pooled(one) for one in (x, y))
        found.append(result)
    return float(np.mean(found))


def pooled(image: Array) -> Array:
    image = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
    return np.asarray((image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4)


def monai_slices(pred: Array, ref: Array, _: Array | None) -> float:
    x, y = (torch.from_numpy(np.moveaxis(image - np.float32(RANGE[0]), 2, 0)[:, None].copy()) for image in (ref, pred))
    return float(compute_ms_ssim(y, x, spatial_dims=2, data_range=L).mean())


def monai_four_scales(pred: Array, ref: Array, _: Array | None) -> float:
    x, y = (torch.from_numpy(image - np.float32(RANGE[0]))[None, None] for image in (ref, pred))
    weights = [weight / sum(MS_SSIM_WEIGHTS[:4]) for weight in MS_SSIM_WEIGHTS[:4]]
    return float(compute_ms_ssim(y, x, spatial_dims=3, data_range=L, weights=weights))


def torchmetrics_gaussian(pred: Array, ref: Array, mask: Array | None) -> float:
    """It keeps windows that reach beyond the border, so its number is another."""
    x, y = (torch.from_numpy(image - np.float32(RANGE[0]))[None, None] for image in (ref, pred))
    values = OTHERS.structural_similarity_index_measure(y, x, data_range=L, return_full_image=True)[1]
    return mean(values[0, 0].numpy(), mask)


def torchmetrics_four_scales(pred: Array, ref: Array, _: Array | None) -> float:
    x, y = (torch.from_numpy(image - np.float32(RANGE[0]))[None, None] for image in (ref, pred))
    weights = tuple(weight / sum(MS_SSIM_WEIGHTS[:4]) for weight in MS_SSIM_WEIGHTS[:4])
    return float(OTHERS.multiscale_structural_similarity_index_measure(y, x, data_range=L, betas=weights))


JOBS: dict[str, dict[str, Way]] = {
    "SSIM of SynthRAD2023, range of 2025": {
        "medgan": lambda pred, ref, mask: ssim_2023(pred, ref, mask, RANGE),
        "scikit-image": scikit_uniform,
        "SciPy, as published": scipy_uniform,
    },
    "MS-SSIM of SynthRAD2025": {
        "medgan": lambda pred, ref, mask: ms_ssim_2025(pred, ref, mask, RANGE),
        "SciPy, as published": scipy_ms_ssim,
    },
    "SSIM of Wang 2004 in 3-D": {
        "medgan": lambda pred, ref, mask: ssim_2004(pred, ref, mask, RANGE),
        "scikit-image": scikit_gaussian,
        "MONAI": monai_gaussian,
    },
    "MS-SSIM of Wang 2003 in 3-D, four scales, whole": {
        "medgan": lambda pred, ref, _: ms_ssim_2003(pred, ref, None, RANGE, num_scales=4),
        "MONAI": monai_four_scales,
    },
    "MS-SSIM of Wang 2003 in slices, five scales, whole": {
        "medgan": lambda pred, ref, _: ms_ssim_2003(pred, ref, None, RANGE, axis=2),
        "SciPy": scipy_slices,
        "MONAI": monai_slices,
    },
}

if OTHERS:
    JOBS["SSIM of Wang 2004 in 3-D"]["torchmetrics"] = torchmetrics_gaussian
    JOBS["MS-SSIM of Wang 2003 in 3-D, four scales, whole"]["torchmetrics"] = torchmetrics_four_scales


# --- measuring --------------------------------------------------------------------------------------------------------


def images(shape: Sequence[int], masked: bool) -> tuple[Array, Array, Array | None]:
    """A head with noise in air, float32, and what was made of it; the mask is an ellipsoid around the head."""
    rng = np.random.default_rng(0)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij", sparse=True)
    radius = (x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 0.95) ** 2
    ref = np.where(radius < 1, 40 + 60 * np.sin(9 * x) * np.cos(7 * y) + 25 * np.sin(13 * z), -1000)
    ref += rng.normal(0, 20, shape)
    pred = ref + gaussian_filter(rng.normal(0, 400, shape), 2)
    return pred.astype(np.float32), ref.astype(np.float32), radius < 1.05 if masked else None


def timed(ways: Mapping[str, Way], given: tuple[Array, Array, Array | None], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each call, in rounds after one that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for n in range(rounds + 1):
        for name, way in ways.items():
            began = time.process_time()
            number = way(*given)
            if n:
                taken[name].append(time.process_time() - began)
            else:
                print(f"  {name}: {number:.12f}")
    return taken


def memory(job: str, paths: Sequence[str | None], held: int) -> str:
    """Peak bytes of a fresh process by way, the images themselves included, over those of the images."""
    rows = [["", "peak MiB", "× images"]]
    where = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    for way in JOBS[job]:
        code = IN_CHILD.format(paths=list(paths), job=job, way=way)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, env=where)
        peak = int(done.stdout.split("BYTES")[1])
        rows.append([way, f"{peak / 2**20:.0f}", f"{peak / held:.2f}"])
    return columns(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(256, 256, 128))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--masked", action="store_true", help="score an ellipsoid, two fifths of the volume")
    options = parser.parse_args(arguments)
    given = images(options.shape, options.masked)
    print(machine(), "×".join(map(str, options.shape)), "masked" if options.masked else "whole")
    with tempfile.TemporaryDirectory() as folder:
        paths = [None if one is None else f"{folder}/{n}.npy" for n, one in enumerate(given)]
        for path, one in zip(paths, given, strict=True):
            if path and one is not None:
                np.save(path, one)
        for job, ways in JOBS.items():
            print(f"\n{job}: milliseconds of CPU; ratio: medgan's over those of each way")
            print(table(timed(ways, given, options.rounds)))
            print(memory(job, paths, given[0].nbytes + given[1].nbytes))


if __name__ == "__main__":
    main()
