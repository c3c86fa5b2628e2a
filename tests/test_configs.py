"""Every YAML that medgan ships loads, trains two steps, resumes and translates."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import medgan
from medgan import Grid, Volume, read, translate, write
from medgan.cases import Case, write_cases
from medgan.config import Config, dump, load
from medgan.prep import Intensity
from medgan.train import train

CONFIGS = [*sorted((Path(__file__).parents[1] / "configs").glob("*.yaml")), Path(medgan.__file__).parent / "demo.yaml"]
SMALL = ["model.generator.width=2", "train.batch=2", "train.workers=0", "overlap=0"]


def image(intensity: Intensity, seed: int) -> Volume:
    """A ball in air, in the unit and modality that a config asks for."""
    grid = Grid.regular((24, 22, 10), spacing_mm=(2, 2, 4))
    x, y, z = np.indices(grid.shape)
    ball = ((x - 12) / 9) ** 2 + ((y - 11) / 8) ** 2 + ((z - 5) / 5) ** 2 < 1
    noise = np.random.default_rng(seed).uniform(0, 30, grid.shape)
    low = -1000 if intensity.unit == "HU" else 0
    return Volume(np.where(ball, 200 + noise, low).astype(np.float32), grid, intensity.unit, intensity.modality)


def cohort(config: Config, folder: Path) -> Path:
    cases = []
    for number, split in enumerate(("train", "train", "val")):
        wanted = {**config.prep.sources, "b": config.prep.b}
        images = {role: folder / f"{role}{number}.nii.gz" for role in wanted}
        for seed, (role, intensity) in enumerate(wanted.items()):
            write(image(intensity, number + 9 * seed), images[role])
        cases.append(Case(f"p{number}", f"p{number}", split, images))
    return write_cases(cases, folder / "cases.csv")


def kill(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_trains_resumes_and_translates(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [*SMALL, f"cases={cohort(load(path), tmp_path)}", "train.steps=2", "train.validate_every=2"]
    overrides += ["model.discriminator.width=2"] if load(path).model.discriminator else ["patch=[64, 32, 32]"]
    overrides.append("train.checkpoint_every=1")
    monkeypatch.setattr(import_module("medgan.train"), "_validate", kill)
    with pytest.raises(KeyboardInterrupt):
        train(path, overrides, out=tmp_path / "run", device="cpu")
    monkeypatch.undo()
    assert torch.load(tmp_path / "run/state.pt", weights_only=True)["step"] == 1
    first = train(path, overrides, out=tmp_path / "run", device="cpu")
    again = train(path, overrides, out=tmp_path / "run", device="cpu")
    assert again.weights_sha256 == first.weights_sha256
    assert first.best["step"] == 2
    contrasts = {role: tmp_path / f"{role}2.nii.gz" for role in first.config.prep.contrasts}
    translate(tmp_path / "run", tmp_path / "a2.nii.gz", tmp_path / "out.nii.gz", contrasts=contrasts)
    out = read(tmp_path / "out.nii.gz")
    assert out.unit == first.config.prep.b.output_unit
    assert out.modality == first.config.prep.b.modality
    assert out.grid.same_as(read(tmp_path / "a2.nii.gz").grid)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_complete_and_commented(path: Path) -> None:
    text = path.read_text()
    written, resolved = yaml.safe_load(text), yaml.safe_load(dump(load(path)))
    assert written.keys() == resolved.keys()
    assert written["model"].keys() == resolved["model"].keys()
    assert written["augment"].keys() == resolved["augment"].keys()
    assert text.count("#") >= 6
