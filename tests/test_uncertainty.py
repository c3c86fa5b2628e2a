"""Several translations of one source: mean, spread, what may be joined, where the maps lie, and what is refused."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from command_line import medgan, untrained_run
from conftest import tiny_pair
from torch import Tensor, nn

from medgan import Grid, Volume, ensemble, ledger, read, translate, write
from medgan.errors import CasesError, InputError, OutputError, RunError
from medgan.formats.dicom import Subject
from medgan.formats.sidecar import sidecar_path
from medgan.prep import foreground
from medgan.run import Run
from medgan.translate import translate_volume
from medgan.uncertainty import Moments, Sampling, View, dropping

HU = 0.01  # of a range of 2000: sums of a few float32 in another order
STD = "standard deviation"
CYCLEGAN = (
    "model={name: cyclegan, generator: {name: resnet_6blocks, width: 2}, discriminator: {name: pixel}}",
    "augment={gamma: 0, noise: 0}",
)


@pytest.fixture(scope="module")
def runs(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Untrained runs by what differs from the tiny config, each made once."""
    made: dict[tuple[str, ...], Run] = {}
    home = tmp_path_factory.mktemp("runs")

    def get(*overrides: str) -> Run:
        if overrides not in made:
            made[overrides] = untrained_run(home / f"run{len(made)}", tiny_cohort / "tiny.yaml", *overrides)
        return made[overrides]

    return get


@pytest.fixture(scope="module")
def run(runs: Callable[..., Run]) -> Run:
    """MR to CT of -1000 … 1000 HU by slices of 16 × 16, with dropout and batch norm, trained with mirroring along x."""
    return runs()


class Game(nn.Module):
    """A translator of functions."""

    def __init__(self, **functions: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.generators = functions

    def translate(self, x: Tensor, to: str = "b") -> Tensor:
        return self.generators[to](x)


# --- mean and spread --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 17])
def test_moments_are_numpys(count: int) -> None:
    images = np.random.default_rng(count).normal(400, 300, (count, 5, 4, 3)).astype(np.float32)
    moments = Moments()
    for image in images:
        moments.add(image)
    assert moments.count == count
    assert np.abs(moments.mean - images.astype(float).mean(0)).max() < 1e-3
    assert np.abs(moments.std - images.astype(float).std(0, ddof=1)).max() < 1e-3


def test_moments_of_equal_images_have_no_spread() -> None:
    image, moments = np.float32(1000 * np.random.default_rng(0).random((4, 4, 4)) / 3), Moments()
    for _ in range(9):
        moments.add(image)
    assert np.array_equal(moments.mean, image)
    assert not moments.std.any()


@pytest.mark.parametrize("moved", [*itertools.product(range(3), repeat=2)])
@pytest.mark.parametrize("mirrored", [(), (0,), (1, 2)])
def test_a_view_is_turned_back(moved: tuple[int, int], mirrored: tuple[int, ...]) -> None:
    x = torch.rand(2, 3, 4, 5)
    view = View(moved, mirrored)
    expected = np.flip(np.moveaxis(x.numpy(), moved[0] + 1, moved[1] + 1), [axis + 1 for axis in mirrored])
    assert np.array_equal(view.turned(x).numpy(), expected)
    assert torch.equal(view.back(view.turned(x)), x)


# --- dropout ----------------------------------------------------------------------------------------------------------


def test_dropout_alone_is_awake_and_all_is_as_before(run: Run) -> None:
    game = run.translator()
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    with pytest.raises(KeyboardInterrupt), dropping(game, 3):  # noqa: PT012
        awake = {type(module) for module in game.modules() if module.training}
        norms = [module for module in game.modules() if isinstance(module, nn.BatchNorm2d)]
        assert awake == {nn.Dropout}
        assert norms
        raise KeyboardInterrupt
    assert not any(module.training for module in game.modules())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_dropout_samples_are_joined(run: Run, tmp_path: Path) -> None:
    """Mean and standard deviation of the translations that the net gives with its dropout layers in training mode."""
    source = write(tiny_pair(0)[0], tmp_path / "x.nii.gz")
    (told,) = translate(run, source, tmp_path / "y.nii.gz", samples=4, seed=7, device="cpu")
    each = []
    for one in Sampling(4, "dropout", 7).passes(run.config):
        game = run.translator()
        for module in game.modules():
            if isinstance(module, nn.Dropout):
                module.train()
        assert one.seed is not None
        torch.manual_seed(one.seed)
        each.append(translate_volume(run, read(source), game=game).array.astype(float))
    mean, std = read(tmp_path / "y.nii.gz"), read(tmp_path / "y_std.nii.gz")
    assert len({sample.tobytes() for sample in each}) == 4
    assert np.abs(mean.array - np.mean(each, axis=0)).max() < HU
    assert np.abs(std.array - np.std(each, axis=0, ddof=1)).max() < HU
    assert std.array.max() > 10
    assert mean.array.min() >= -1000
    assert mean.array.max() <= 1000
    inside = foreground(read(source).array)
    assert told.mean_std == pytest.approx(np.std(each, axis=0, ddof=1)[inside].mean(), rel=1e-5)
    assert told.maps == {"std": tmp_path / "y_std.nii.gz"}


def test_batch_norm_does_not_move(run: Run, tmp_path: Path) -> None:
    """No running statistic is touched while dropout is awake: the plain translation before and after is the same."""
    source, _ = tiny_pair(0)
    game = run.translator()
    before = translate_volume(run, source, game=game).array
    with dropping(game, 1):
        assert not np.array_equal(translate_volume(run, source, game=game).array, before)
    assert np.array_equal(translate_volume(run, source, game=game).array, before)


def test_the_same_seed_gives_the_same_bytes(run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    for name, seed in {"one": None, "two": 0, "three": 1}.items():
        torch.manual_seed(len(name))  # whatever happened before
        translate(run, tiny_cohort / "p0_mr.nii.gz", tmp_path / f"{name}.nii.gz", samples=2, seed=seed, device="cpu")
    for ending in (".nii.gz", "_std.nii.gz"):
        one, two, three = ((tmp_path / f"{name}{ending}").read_bytes() for name in ("one", "two", "three"))
        assert one == two
        assert one != three


def test_a_plain_translation_is_what_it_was(run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    (told,) = translate(run, tiny_cohort / "p0_mr.nii.gz", tmp_path / "y.nii.gz", device="cpu")
    made = read(tmp_path / "y.nii.gz")
    assert np.array_equal(made.array, translate_volume(run, read(tiny_cohort / "p0_mr.nii.gz")).array)
    assert made.synthetic == run.synthesis()
    assert (told.mean_std, told.maps) == (None, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["y.json", "y.nii.gz"]


# --- mirroring --------------------------------------------------------------------------------------------------------


def test_flips_are_mirrored_back(runs: Callable[..., Run], tmp_path: Path) -> None:
    """Along x and y, as in training; across slices nothing can be mirrored."""
    run = runs("augment.flip_axes=[0, 1, 2]")
    source = tiny_pair(0)[0]
    write(source, tmp_path / "x.nii.gz")
    translate(run, tmp_path / "x.nii.gz", tmp_path / "y.nii.gz", samples=4, vary="flips", device="cpu")
    each = []
    for axes in ((), (0,), (1,), (0, 1)):
        mirrored = source.with_array(np.flip(source.array, axes))
        each.append(np.flip(translate_volume(run, mirrored).array, axes).astype(float))
    assert np.abs(each[0] - each[1]).max() > 1
    assert np.abs(read(tmp_path / "y.nii.gz").array - np.mean(each, axis=0)).max() < HU
    assert np.abs(read(tmp_path / "y_std.nii.gz").array - np.std(each, axis=0, ddof=1)).max() < HU


def test_no_more_mirrorings_than_there_are(runs: Callable[..., Run], run: Run, tmp_path: Path) -> None:
    source = write(tiny_pair(0)[0], tmp_path / "x.nii.gz")
    with pytest.raises(RunError, match=r"mirroring along 1 of .* gives 2 different samples; 3 were asked for"):
        translate(run, source, tmp_path / "y.nii.gz", samples=3, vary="flips")
    for axes in ("[]", "[2]"):
        with pytest.raises(RunError, match=r"trained without mirroring \(augment.flip_axes\)"):
            translate(runs(f"augment.flip_axes={axes}"), source, tmp_path / "y.nii.gz", samples=2, vary="flips")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json", "x.nii.gz"]


# --- several runs -----------------------------------------------------------------------------------------------------


def test_runs_are_joined_on_the_grid_of_the_source(runs: Callable[..., Run], run: Run, tmp_path: Path) -> None:
    """Each with its own patch, spacing and axes: three runs of slices along three axes are a tri-planar fusion."""
    others = [
        runs("patch=[16, 1, 8]", "model.generator.width=3", "prep.spacing_mm=[3, 3, 4]"),
        runs("patch=[1, 16, 8]", "model.generator.width=4", "prep.axes=PLS", "overlap=0.25"),
    ]
    source = tiny_pair(2)[0]
    write(source, tmp_path / "x.nii.gz")
    translate(run, tmp_path / "x.nii.gz", tmp_path / "y.nii.gz", with_runs=[one.path for one in others], device="cpu")
    each = [translate_volume(one, source, overlap=one.config.overlap).array.astype(float) for one in (run, *others)]
    mean, std = read(tmp_path / "y.nii.gz"), read(tmp_path / "y_std.nii.gz")
    assert np.abs(mean.array - np.mean(each, axis=0)).max() < HU
    assert np.abs(std.array - np.std(each, axis=0, ddof=1)).max() < HU
    assert mean.grid.same_as(source.grid, tolerance_mm=1e-4)
    assert mean.synthetic is not None
    assert [one.weights_sha256 in mean.synthetic.description for one in others] == [True, True]
    assert mean.synthetic.weights_sha256 == run.weights_sha256


def test_samples_of_several_runs_are_all_different(
    runs: Callable[..., Run], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every pass of every run draws its dropout from a seed of its own."""
    seeds: list[int | None] = []
    monkeypatch.setattr(ensemble, "dropping", lambda game, seed: (seeds.append(seed), dropping(game, seed))[1])
    source = write(tiny_pair(0)[0], tmp_path / "x.nii.gz")
    translate(run, source, tmp_path / "y.nii.gz", samples=3, with_runs=[runs("model.generator.width=3")])
    assert len(set(seeds)) == len(seeds) == 6
    assert None not in seeds


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("prep.b.range=[-1000, 2000]", r"its prep.b.range is \(-1000.0, 2000.0\), that of .* is \(-1000.0, 1000.0\)"),
        ("prep.a.times_median=[0, 3]", r"its prep.a.times_median is"),
        ("prep.a={modality: PT, times_median: [0, 2]}", r"its prep.a.modality is PT, that of .* is MR"),
        ("prep.b={modality: CT, unit: a.u., range: [-1000, 1000]}", r"its prep.b.unit is a.u., that of .* is HU"),
        ("train.lr=0.002", "holds the same weights"),
    ],
)
def test_runs_of_another_contract_are_not_joined(
    change: str, says: str, runs: Callable[..., Run], run: Run, tmp_path: Path
) -> None:
    source = write(tiny_pair(0)[0], tmp_path / "x.nii.gz")
    width = [] if "lr" in change else ["model.generator.width=3"]
    with pytest.raises(RunError, match=says):
        translate(run, source, tmp_path / "y.nii.gz", with_runs=[runs(change, *width)])
    assert not (tmp_path / "y.nii.gz").exists()


# --- three planes by one run ------------------------------------------------------------------------------------------


def test_triplanar_cuts_along_all_axes(
    runs: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A net that rolls slices along their second axis: y in axial ones, z in the sagittal and coronal ones."""
    run = runs("prep.spacing_mm=[2, 2, 2]")
    monkeypatch.setattr(Run, "translator", lambda self: Game(b=lambda x: x.roll(1, -1)))
    array = np.full((16, 16, 16), 100, np.float32)
    array[4:12, 4:12, 4:12] = np.random.default_rng(0).uniform(50, 150, (8, 8, 8))
    array[0] = 0
    source = Volume(array, Grid.regular(array.shape, spacing_mm=(2, 2, 2)), "a.u.", "MR")
    write(source, tmp_path / "x.nii.gz")
    translate(run, tmp_path / "x.nii.gz", tmp_path / "y.nii.gz", triplanar=True, device="cpu")
    median = np.median(array[foreground(array)])
    seen = np.clip(array / median - 1, -1, 1) * 1000
    each = [np.roll(seen, 1, axis=1), np.roll(seen, 1, axis=2), np.roll(seen, 1, axis=2)]
    assert np.abs(read(tmp_path / "y.nii.gz").array - np.mean(each, axis=0)).max() < HU
    assert np.abs(read(tmp_path / "y_std.nii.gz").array - np.std(each, axis=0, ddof=1)).max() < HU


def test_triplanar_goes_with_samples(runs: Callable[..., Run]) -> None:
    run = runs("prep.spacing_mm=[2, 2, 2]", "patch=[16, 1, 16]")
    passes = Sampling(2, "dropout", 0, triplanar=True).passes(run.config)
    assert [one.view.moved for one in passes] == [(1, 1), (1, 1), (0, 1), (0, 1), (2, 1), (2, 1)]
    assert len({one.seed for one in passes}) == 6


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("prep.spacing_mm=null", "one spacing along all axes.* is none, so each image keeps its own"),
        ("prep.spacing_mm=[2, 2, 4]", r"one spacing along all axes.* is \[2.0, 2.0, 4.0\]"),
        ("patch=[8, 8, 8]", r"its patches are blocks \(\[8, 8, 8\]\), which have no plane"),
    ],
)
def test_triplanar_needs_slices_and_one_spacing(
    change: str, says: str, runs: Callable[..., Run], tmp_path: Path
) -> None:
    source = write(tiny_pair(0)[0], tmp_path / "x.nii.gz")
    with pytest.raises(RunError, match=says):
        translate(runs(change), source, tmp_path / "y.nii.gz", triplanar=True)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"vary": "dropout"}, "vary: 'dropout' goes with samples"),
        ({"seed": 0}, "seed: 0 goes with samples"),
        ({"samples": 1}, "samples: 1 have no spread; ask for 2 or more"),
        ({"samples": 2, "vary": "noise"}, r"vary: 'noise' is unknown \(accepted: dropout, flips\)"),
        ({"samples": 2, "vary": "flips", "seed": 1}, "seed: mirrorings are not drawn at random"),
        ({"samples": 2, "seed": -1}, "seed: -1 is negative"),
    ],
)
def test_options_without_effect_are_refused(options: dict[str, Any], says: str, run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        translate(run, tmp_path / "x.nii.gz", tmp_path / "y.nii.gz", **options)


def test_a_run_without_dropout_has_none_to_sample(runs: Callable[..., Run], tmp_path: Path) -> None:
    source = write(tiny_pair(0)[0], tmp_path / "x.nii.gz")
    with pytest.raises(RunError, match=r"no dropout to sample from; vary flips or join several runs"):
        translate(runs("model.generator.dropout=false"), source, tmp_path / "y.nii.gz", samples=2)


# --- maps and what they say -------------------------------------------------------------------------------------------


def test_a_map_says_what_it_is(run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    translate(run, tiny_cohort / "p0_mr.nii.gz", tmp_path / "y.nii.gz", samples=2, seed=5)
    beside = json.loads((tmp_path / "y_std.json").read_text())
    assert (beside["Quantity"], beside["Units"], beside["SyntheticData"]) == (STD, "HU", True)
    assert beside["SeriesDescription"] == "Standard deviation of CT"
    assert "standard deviation" not in (tmp_path / "y.json").read_text()
    mark = read(tmp_path / "y_std.nii.gz").synthetic
    assert mark is not None
    assert (mark.quantity, mark.weights_sha256) == (STD, run.weights_sha256)
    assert "mean of 2 translations (samples=2; vary=dropout; seed=5)" in mark.description
    sidecar_path(tmp_path / "y_std.nii.gz").unlink()
    assert read(tmp_path / "y_std.nii.gz").synthetic == mark  # from the comment inside
    image = read(tmp_path / "y.nii.gz").synthetic
    assert image is not None
    assert image.quantity == ""


def test_a_series_gets_a_series_of_its_own(run: Run, tmp_path: Path) -> None:
    """Its small values survive as integers; patient, study, place and unit are those of the image."""
    source = read(write(tiny_pair(0)[0], tmp_path / "in", subject=Subject(patient_id="P1")))
    translate(run, tmp_path / "in", tmp_path / "out", samples=3, device="cpu")
    write(source, tmp_path / "x.nii.gz")
    translate(run, tmp_path / "x.nii.gz", tmp_path / "y.nii.gz", samples=3, device="cpu")
    made, exact = read(tmp_path / "out_std"), read(tmp_path / "y_std.nii.gz").reorient("LPS")
    assert (made.unit, made.modality) == ("HU", "CT")
    assert made.grid.same_as(read(tmp_path / "out").grid, tolerance_mm=1e-9)
    step = exact.array.max() / 32767
    assert step < 0.05  # HU; an image is rounded to 1
    assert np.abs(made.array - exact.reorient(made.grid.orientation).array).max() <= 0.5 * step * 1.001
    assert np.abs(read(tmp_path / "out").array - read(tmp_path / "y.nii.gz").reorient("LPS").array).max() <= 0.5
    images = [pydicom.dcmread(path) for path in sorted((tmp_path / "out").iterdir())]
    maps = [pydicom.dcmread(path) for path in sorted((tmp_path / "out_std").iterdir())]
    for image, one in zip(images, maps, strict=True):
        assert one.ImagePositionPatient == image.ImagePositionPatient
        for key in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "SyntheticData", "RescaleType"):
            assert one[key].value == image[key].value
        assert one.SeriesInstanceUID != image.SeriesInstanceUID
        assert one.SeriesNumber == image.SeriesNumber + 1
        assert one.SeriesDescription == "Standard deviation of CT, synthetic, not for diagnostic use"
        assert "values are the standard deviation" in one.DerivationDescription
        assert "deviation" not in image.SeriesDescription + image.DerivationDescription
    marks = [read(tmp_path / name).synthetic for name in ("out", "out_std")]
    assert [mark.quantity for mark in marks if mark] == ["", STD]


def test_a_map_of_no_spread_can_be_written(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "translator", lambda self: Game(b=torch.zeros_like))
    write(tiny_pair(0)[0], tmp_path / "in", subject=Subject())
    translate(run, tmp_path / "in", tmp_path / "out", samples=2, vary="flips")
    assert not read(tmp_path / "out_std").array.any()


def test_a_map_is_no_source(run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    translate(run, tiny_cohort / "p0_mr.nii.gz", tmp_path / "y.nii.gz", samples=2)
    with pytest.raises(InputError, match=r"y_std.nii.gz: is the standard deviation of an image; name the image itself"):
        translate(run, tmp_path / "y_std.nii.gz", tmp_path / "z.nii.gz")


# --- nothing by halves ------------------------------------------------------------------------------------------------


def interrupted(monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """Ctrl-C while the file of that name is being written."""
    whole = ledger.write

    def halting(volume: Volume, path: Path, **options: str) -> Path:
        if path.name == at:
            raise KeyboardInterrupt
        return whole(volume, path, **options)

    monkeypatch.setattr(ledger, "write", halting)


@pytest.mark.parametrize("name", ["y.nii.gz", "y"])
def test_an_image_and_its_map_come_together(
    name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tiny_pair(0)[0], tmp_path / "x", subject=Subject())
    (tmp_path / "o").mkdir()
    with monkeypatch.context() as patch:
        interrupted(patch, at=name)
        with pytest.raises(KeyboardInterrupt):
            translate(run, source, tmp_path / "o" / name, samples=2)
    assert list((tmp_path / "o").iterdir()) == []
    translate(run, source, tmp_path / "o" / name, samples=2)


@pytest.mark.parametrize("taken", ["y.nii.gz", "y_std.nii.gz"])
def test_what_is_there_is_not_overwritten(taken: str, run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    (tmp_path / taken).write_text("mine")
    with pytest.raises(OutputError, match=f"{taken}: exists already"):
        translate(run, tiny_cohort / "p0_mr.nii.gz", tmp_path / "y.nii.gz", samples=2)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_table_goes_on_after_an_interruption(
    run: Run, tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, options = tiny_cohort / "cases.csv", {"samples": 2, "seed": 1, "device": "cpu"}
    translate(run, table, tmp_path / "whole", **options)
    with monkeypatch.context() as patch:
        interrupted(patch, at="p2.nii.gz")
        with pytest.raises(KeyboardInterrupt):
            translate(run, table, tmp_path / "out", **options)
    assert {path.name for path in (tmp_path / "out").glob("*.gz")} == {
        f"p{n}{kind}.nii.gz" for n in range(2) for kind in ("", "_std")
    }
    (tmp_path / "out/p2_std.nii.gz").write_text("of a process that was killed")
    done = translate(run, table, tmp_path / "out", **options)
    assert [one.case for one in done] == ["p2", "p3", "p4"]
    whole, out = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("whole", "out"))
    assert whole == out
    assert len(whole) == 5 * 4 + 1


def test_series_of_a_table_go_on_too(run: Run, tmp_path: Path) -> None:
    for number in range(2):
        write(tiny_pair(number)[0], tmp_path / f"s{number}", subject=Subject())
    (tmp_path / "cases.csv").write_text("case,patient,split,a\nd0,p0,test,s0\nd1,p1,test,s1\n")
    translate(run, tmp_path / "cases.csv", tmp_path / "out", samples=2)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["d0", "d0_std", "d1", "d1_std", "translation.json"]
    for path in (tmp_path / "out/d1").iterdir():
        path.unlink()
    (tmp_path / "out/d1").rmdir()
    assert [one.case for one in translate(run, tmp_path / "cases.csv", tmp_path / "out", samples=2)] == ["d1"]


def test_a_folder_holds_translations_of_one_kind(
    runs: Callable[..., Run], run: Run, tiny_cohort: Path, tmp_path: Path
) -> None:
    out, table, other = tmp_path / "out", tiny_cohort / "cases.csv", runs("model.generator.width=3")
    translate(run, table, out, split="test", samples=2, with_runs=[other])
    facts = {"weights_sha256": run.weights_sha256, "to": "b", "synthetic": True}
    sampled = {"samples": 2, "vary": "dropout", "seed": 0, "with": [other.weights_sha256]}
    assert json.loads((out / "translation.json").read_text()) == facts | sampled
    for options, says in (
        ({"samples": 3, "with_runs": [other]}, "samples 2 there, 3 now"),
        ({"samples": 2, "seed": 4, "with_runs": [other]}, "seed 0 there, 4 now"),
        ({"samples": 2}, "with 1 other runs there, not given now"),
        ({}, "samples 2 there, not given now"),
    ):
        with pytest.raises(OutputError, match=f"out: holds translations made otherwise: .*{says}"):
            translate(run, table, out, **options)  # type: ignore[arg-type]
    with pytest.raises(OutputError, match="by other weights"):
        translate(other, table, out)


def test_a_case_is_not_named_as_a_map(run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    lines = [f"{case},{case},test,{tiny_cohort}/p0_mr.nii.gz" for case in ("q", "q_std")]
    (tmp_path / "cases.csv").write_text("\n".join(["case,patient,split,a", *lines]) + "\n")
    with pytest.raises(
        CasesError, match=r"q_std\.nii\.gz: is the place of case 'q_std' and of a map of 'q'; rename one"
    ):
        translate(run, tmp_path / "cases.csv", tmp_path / "out", samples=2)
    assert not (tmp_path / "out").exists()
    assert len(translate(run, tmp_path / "cases.csv", tmp_path / "out")) == 2


# --- there and back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_the_residual_is_in_the_unit_of_the_source(
    kind: str, runs: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To b the net halves contrast, back it adds 0.1: at network value x the residual is 0.1 - x / 2, of one median."""
    run = runs(*CYCLEGAN)
    monkeypatch.setattr(Run, "translator", lambda self: Game(b=lambda x: x / 2, a=lambda x: x + 0.1))
    array = np.zeros((16, 14, 12), np.int16)
    array[2:12, 2:12, 1:11] = np.linspace(60, 140, 1000).reshape(10, 10, 10)
    source = Volume(array, Grid.regular(array.shape, spacing_mm=(1, 1, 2)), "a.u.", "MR")
    write(source, tmp_path / "x.nii.gz") if kind == "nifti" else write(source, tmp_path / "x", subject=Subject())
    name, ending = ("x.nii.gz", ".nii.gz") if kind == "nifti" else ("x", "")
    (told,) = translate(run, tmp_path / name, tmp_path / f"y{ending}", cycle=True)
    made = read(tmp_path / f"y_cycle{ending}")
    median = np.median(array[array > 0])
    x = array / median - 1
    step = 0 if kind == "nifti" else 0.6 * median / 32767
    expected = source.with_array((0.1 - x / 2) * median).reorient(made.grid.orientation).array
    assert np.abs(made.array - expected).max() < step + 1e-3
    assert (made.unit, made.modality) == ("a.u.", "MR")
    assert made.synthetic is not None
    assert made.synthetic.quantity == "cycle residual"
    assert told.maps == {"cycle": tmp_path / f"y_cycle{ending}"}
    assert told.mean_std is None


def test_the_residual_of_real_nets_both_ways(runs: Callable[..., Run], tiny_cohort: Path, tmp_path: Path) -> None:
    run = runs(*CYCLEGAN)
    for to, name, unit in (("b", "p0_mr", "a.u."), ("a", "p0_ct", "HU")):
        translate(run, tiny_cohort / f"{name}.nii.gz", tmp_path / f"{to}.nii.gz", to=to, cycle=True)
        residual = read(tmp_path / f"{to}_cycle.nii.gz")
        assert residual.unit == unit
        assert residual.array.std() > 1


def test_what_lies_beyond_the_window_is_no_residual(
    runs: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "translator", lambda self: Game(b=lambda x: x, a=lambda x: x))
    write(tiny_pair(0)[1].with_array(tiny_pair(0)[1].array * 9), tmp_path / "x.nii.gz")
    translate(runs(*CYCLEGAN), tmp_path / "x.nii.gz", tmp_path / "y.nii.gz", to="a", cycle=True)
    assert np.abs(read(tmp_path / "y_cycle.nii.gz").array).max() < HU


def test_one_way_models_have_no_cycle(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="its model, pix2pix, knows no way back; leave out cycle"):
        translate(run, tmp_path / "x.nii.gz", tmp_path / "y.nii.gz", cycle=True)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_tells_the_spread(runs: Callable[..., Run], run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    argv = ["translate", run.path, tiny_cohort / "p0_mr.nii.gz", tmp_path / "y.nii.gz", "--samples", "2", "--seed", "3"]
    done = medgan(*argv, "--with", runs("model.generator.width=3").path, "--json")
    (told,) = json.loads(done.out)
    inside = foreground(read(tiny_cohort / "p0_mr.nii.gz").array)
    assert told["mean_std"] == pytest.approx(float(read(tmp_path / "y_std.nii.gz").array[inside].mean()), rel=1e-5)
    assert told["maps"] == {"std": str(tmp_path / "y_std.nii.gz")}
    plain = medgan(*argv[:3], tmp_path / "z.nii.gz", "--samples", "2", "--vary", "flips")
    assert " HU in the foreground; beside it z_std.nii.gz" in plain.out
    refused = medgan(*argv[:3], tmp_path / "w.nii.gz", "--vary", "flips")
    assert (refused.code, refused.error[:28]) == (1, "Error: vary: 'flips' goes wi")
