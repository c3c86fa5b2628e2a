"""Every YAML that medgan ships loads, trains two steps, resumes and translates or samples."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import medgan
from medgan import Grid, Volume, read, sample, translate, write
from medgan.cases import Case, write_cases
from medgan.conditions import Condition
from medgan.config import Config, SamplingConfig, dump, load
from medgan.prep import Intensity
from medgan.run import Run, SamplingRun
from medgan.train import train

# Those of medgan prepare train nothing: test_prepare has them.
SHIPPED = [path for path in (Path(__file__).parents[1] / "configs").glob("*.yaml") if "prepare" not in path.stem]
CONFIGS = [*sorted(SHIPPED), Path(medgan.__file__).parent / "demo.yaml"]
TRANSLATORS = [path for path in CONFIGS if isinstance(load(path), Config)]
SAMPLERS = [path for path in CONFIGS if path not in TRANSLATORS]
SMALL = ["model.generator.width=2", "train.batch=2", "train.workers=0", "overlap=0"]
TWO_STEPS = ["train.steps=2", "train.validate_every=2", "train.checkpoint_every=1"]


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


def labelled_cohort(config: SamplingConfig, folder: Path) -> Path:
    """Four cases to learn from and two to validate by, with all that a sampler is told of each."""
    cases = []
    for number, split in enumerate(("train", "train", "train", "train", "val", "val")):
        images = {role: folder / f"{role}{number}.nii.gz" for role in config.prep.roles}
        for role, intensity in config.prep.images.items():
            write(image(intensity, number), images[role])
        if config.prep.mask:
            ball = image(next(iter(config.prep.images.values())), number)
            write(Volume((ball.array > 100).astype(np.uint8), ball.grid), images[config.prep.mask])
        known = {name: value_of(condition, number) for name, condition in config.conditions.items()}
        cases.append(Case(f"p{number}", f"p{number}", split, images, known))
    return write_cases(cases, folder / "cases.csv")


def value_of(condition: Condition, number: int) -> str:
    """A class or a number; all classes come in turn."""
    if condition.range:
        return f"{condition.range[0] + number}"
    return condition.classes[number % len(condition.classes)]


def kill(*_: object) -> None:
    raise KeyboardInterrupt


def trained_and_resumed(
    path: Path, overrides: list[str], out: Path, monkeypatch: pytest.MonkeyPatch
) -> Run | SamplingRun:
    """The run of two steps, between which the training was killed."""
    monkeypatch.setattr(import_module("medgan.train"), "_validate", kill)
    with pytest.raises(KeyboardInterrupt):
        train(path, overrides, out=out, device="cpu")
    monkeypatch.undo()
    assert torch.load(out / "state.pt", weights_only=True)["step"] == 1
    first = train(path, overrides, out=out, device="cpu")
    again = train(path, overrides, out=out, device="cpu")
    assert again.weights_sha256 == first.weights_sha256
    assert first.best["step"] == 2
    return first


@pytest.mark.parametrize("path", SAMPLERS, ids=lambda path: path.stem)
def test_a_config_trains_resumes_and_samples(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(path)
    assert isinstance(config, SamplingConfig)
    patch = [min(size, 16) for size in config.patch]
    widths = {"width", "width_d", "max_width"} & set(type(config.model).model_fields)
    overrides = [f"cases={labelled_cohort(config, tmp_path)}", *TWO_STEPS, "train.batch=4", "samples=16"]
    overrides += [f"patch={patch}", *(f"model.{width}=4" for width in widths)]
    run = trained_and_resumed(path, overrides, tmp_path / "run", monkeypatch)
    for one in sample(run.path, tmp_path / "made", num=2, least_patients=1, device="cpu"):
        assert set(one.conditions) == set(config.conditions)
        for role, intensity in config.prep.images.items():
            made = read(one.paths[role])
            low, high = intensity.output_range
            assert made.array.shape == tuple(patch)
            assert low <= made.array.min() <= made.array.max() <= high
            assert (made.unit, made.modality) == (intensity.output_unit, intensity.modality)
            assert made.grid.spacing_mm == pytest.approx(config.prep.spacing_mm)


@pytest.mark.parametrize("path", TRANSLATORS, ids=lambda path: path.stem)
def test_a_config_trains_resumes_and_translates(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(path)
    assert isinstance(config, Config)
    overrides = [*SMALL, f"cases={cohort(config, tmp_path)}", *TWO_STEPS]
    overrides += ["model.discriminator.width=2"] if config.model.discriminator else ["patch=[64, 32, 32]"]
    first = trained_and_resumed(path, overrides, tmp_path / "run", monkeypatch)
    assert isinstance(first, Run)
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
