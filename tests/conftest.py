"""What all tests share: one thread, where the real scans are, and a cohort small enough to train on in seconds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from medgan import Grid, Volume, write
from medgan.cases import Case, write_cases

SHARED = Path(__file__).parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real scans are not at {SHARED}")

TINY_CONFIG = """
cases: cases.csv
prep:
  a: {modality: MR, times_median: [0, 2]}
  b: {modality: CT, unit: HU, range: [-1000, 1000]}
patch: [16, 16, 1]
augment: {rotate_deg: 10, scale: 0.1, gamma: 0.2, noise: 0.02}
model:
  name: pix2pix
  generator: {name: resnet_6blocks, width: 2, norm: batch, dropout: true}
  discriminator: {name: n_layers, num_layers: 1, width: 4}
train: {steps: 10, batch: 2, lr: 0.001, ema: 0.9, validate_every: 5, checkpoint_every: 5, log_every: 1}
"""


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Nets are tiny here: a second thread would only wait, and sums would hang on how many there are."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is written into the cache of who runs the tests, and nothing read from it; processes inherit this."""
    os.environ["MEDGAN_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real scans; skips the test where it is missing."""
    if not SHARED.is_dir():
        pytest.skip(f"the real scans are not at {SHARED}")
    return SHARED


def tiny_pair(seed: int) -> tuple[Volume, Volume]:
    """MR-like and CT-like images of a ball in air, (24, 20, 8) on an oblique, off-centre grid."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(np.eye(3) + 0.1 * rng.standard_normal((3, 3)))[0]
    turn *= np.sign(np.diag(turn))
    grid = Grid.regular((24, 20, 8), spacing_mm=(2, 2, 5), origin_mm=(-30, 12, 400), direction=turn)
    x, y, z = np.indices(grid.shape)
    ball = ((x - 12) / 9) ** 2 + ((y - 10) / 7) ** 2 + ((z - 3.5) / 5) ** 2 < 1
    texture = 40 * np.sin(x / 2 + seed) * np.cos(y / 3)
    mr = np.where(ball, 300 + texture, 0) * rng.uniform(0.7, 1.4) + rng.uniform(0, 8, grid.shape)
    ct = np.where(ball, 40 + 2 * texture, -1000)
    return (
        Volume(mr.astype(np.int16), grid, "a.u.", "MR"),
        Volume(np.rint(ct).astype(np.int16), grid, "HU", "CT"),
    )


@pytest.fixture(scope="session")
def tiny_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a table `cases.csv` of five patients and a config `tiny.yaml` beside it."""
    folder = tmp_path_factory.mktemp("cohort")
    cases = []
    for number, split in enumerate(("train", "train", "train", "val", "test")):
        mr, ct = tiny_pair(number)
        images = {"a": folder / f"p{number}_mr.nii.gz", "b": folder / f"p{number}_ct.nii.gz"}
        write(mr, images["a"])
        write(ct, images["b"])
        cases.append(Case(f"p{number}", f"p{number}", split, images))
    write_cases(cases, folder / "cases.csv")
    (folder / "tiny.yaml").write_text(TINY_CONFIG)
    return folder
