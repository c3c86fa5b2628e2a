"""Translation: unit and range of the run, honest shares, refusals, tables that go on, marks, no trace of windows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from command_line import untrained_run
from conftest import tiny_pair
from dicom_folders import leaning, save
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from medgan import Grid, Volume, read, translate, write
from medgan.cases import read_cases
from medgan.data import Size
from medgan.errors import CasesError, InputError, OutputError, RunError
from medgan.formats.dicom import Subject
from medgan.run import Run
from medgan.sliding import predict
from medgan.translate import output_path, translate_volume


class Through(torch.nn.Module):
    """A translator that puts every voxel through one function."""

    def __init__(self, function: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.function = function
        self.generators = {"b": function}

    def translate(self, x: Tensor, to: str = "b") -> Tensor:
        return self.function(x)


@pytest.fixture(scope="module")
def run(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """MR to CT of -1000 … 1000 HU; its window on MR ends at twice the median of the foreground."""
    return untrained_run(tmp_path_factory.mktemp("runs") / "run", tiny_cohort / "tiny.yaml")


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run's net changes nothing."""
    monkeypatch.setattr(Run, "translator", lambda self: Through())


def test_another_precision_than_that_of_the_training(run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    """As a run of the same weights that was trained in it does; near what the run's own gives, and not equal."""
    shutil.copytree(run.path, tmp_path / "rounded")
    config = (run.path / "config.yaml").read_text()
    (tmp_path / "rounded" / "config.yaml").write_text(config.replace("precision: '32'", "precision: bf16"))
    made = {}
    for name, folder, precision in (
        ("own", run.path, None),
        ("other", run.path, "bf16"),
        ("trained", tmp_path / "rounded", None),
        ("back", tmp_path / "rounded", "32"),
    ):
        out = tmp_path / f"{name}.nii.gz"
        translate(folder, tiny_cohort / "p4_mr.nii.gz", out, precision=precision, device="cpu")
        made[name] = read(out).array
    np.testing.assert_array_equal(made["other"], made["trained"])
    np.testing.assert_array_equal(made["back"], made["own"])
    assert 0 < np.abs(made["other"] - made["own"]).mean() < 20  # HU, of 2000, by a net that has learnt nothing
    with pytest.raises(InputError, match="precision: 'fp8' is none of 32, bf16"):
        translate(run.path, tiny_cohort / "p4_mr.nii.gz", tmp_path / "o.nii.gz", precision="fp8", device="cpu")


def test_a_table_is_translated_in_one_precision(run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    table = tiny_cohort / "cases.csv"
    translate(run.path, table, tmp_path / "out", split="test", device="cpu")
    translate(run.path, table, tmp_path / "out", split="test", precision="32", device="cpu")
    with pytest.raises(OutputError, match=r"precision"):
        translate(run.path, table, tmp_path / "out", split="test", precision="bf16", device="cpu")


def body(*bright: float) -> Volume:
    """1000 voxels of 100 in air, the first ones of them as bright as told."""
    array = np.zeros((16, 14, 12), np.float32)
    inside = np.full(1000, 100.0, np.float32)
    inside[: len(bright)] = bright
    array[2:12, 2:12, 1:11] = inside.reshape(10, 10, 10)
    return Volume(array, Grid.regular(array.shape, spacing_mm=(1, 1, 2)), "a.u.", "MR")


# --- one volume -------------------------------------------------------------------------------------------------------


def test_unit_range_and_place_are_those_of_the_run_and_the_source(run: Run) -> None:
    source, _ = tiny_pair(3)
    made = translate_volume(run, source)
    assert (made.unit, made.modality) == ("HU", "CT")
    assert made.array.dtype == np.float32
    assert made.array.min() >= -1000
    assert made.array.max() <= 1000
    assert np.array_equal(made.grid.affine, source.grid.affine)
    assert made.synthetic == run.synthesis()


@pytest.mark.parametrize("gain", [0.01, 1, 700])
def test_the_values_are_those_of_the_formula(run: Run, gain: float) -> None:
    """An MR's own scale does not matter: v becomes (v / median - 1) * 1000 HU, clipped at twice the median."""
    values = np.linspace(60, 240, 200)
    source = body(*values)
    scaled = source.with_array(source.array * np.float32(gain))
    made = translate_volume(run, scaled, game=Through())  # type: ignore[arg-type]
    expected = np.clip((source.array / 100 - 1) * 1000, -1000, 1000)
    assert np.abs(made.array - expected).max() < 0.01


def test_a_run_in_normalised_values_says_so(tiny_cohort: Path, tmp_path: Path) -> None:
    run = untrained_run(
        tmp_path / "run", tiny_cohort / "tiny.yaml", "prep.b={modality: MR, times_median: [0, 3]}", "patch=[8, 8, 8]"
    )
    made = translate_volume(run, body(), game=Through())  # type: ignore[arg-type]
    assert (made.unit, made.modality) == ("normalised", "MR")
    assert made.array[5, 5, 5] == pytest.approx(1500)
    assert made.array[0, 0, 0] == 0


def test_what_the_source_has_beyond_the_window_is_told(run: Run, tmp_path: Path, through: None) -> None:
    """30 of 1000 voxels of the body lie above twice its median; air does not count."""
    source = write(body(*np.linspace(210, 260, 30)), tmp_path / "x.nii.gz")
    (told,) = translate(run, source, tmp_path / "o.nii.gz")
    assert told.clipped_share == pytest.approx(0.03)
    assert (told.case, told.path, told.unit) == ("x", tmp_path / "o.nii.gz", "HU")
    assert (told.low, told.high) == (-1000, 1000)


def test_what_lies_at_the_end_of_the_range_is_told(run: Run, tmp_path: Path, through: None) -> None:
    source = write(body(*[200] * 50, *[199] * 50), tmp_path / "x.nii.gz")
    (told,) = translate(run, source, tmp_path / "o.nii.gz")
    assert told.saturated_share == pytest.approx(50 / body().array.size)


def test_the_same_again_is_the_same_to_the_byte(run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        translate(run.path, tiny_cohort / "p1_mr.nii.gz", tmp_path / f"{name}.nii.gz", device="cpu")
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()
    assert len(np.unique(read(tmp_path / "one.nii.gz").array)) > 10


def test_the_net_sees_what_it_was_trained_on(run: Run) -> None:
    """Never beyond [-1, 1], whatever the scan holds; air is -1."""
    seen: list[Tensor] = []
    net = Through(lambda x: (seen.append(x.clone()), x)[1])
    translate_volume(run, body(500, 20_000), game=net)  # type: ignore[arg-type]
    assert min(float(x.min()) for x in seen) == -1
    assert max(float(x.max()) for x in seen) == 1


def test_windows_of_one_batch_do_not_feel_one_another(run: Run) -> None:
    source, _ = tiny_pair(0)
    one, many = (translate_volume(run, source, batch=batch).array for batch in (1, 32))
    assert np.abs(one - many).max() < 0.05  # HU of 2000: float32 sums in another order
    assert one.std() > 10


@pytest.mark.parametrize("wrong", ["modality", "unit"])
def test_another_modality_or_unit_needs_trust(run: Run, tmp_path: Path, wrong: str) -> None:
    source, _ = tiny_pair(0)
    change = {"modality": ("a.u.", "PT", "PT, accepted is MR"), "unit": ("Bq/ml", "MR", "Bq/ml, accepted is a.u.")}
    unit, modality, says = change[wrong]
    path = write(source.with_array(source.array, unit=unit, modality=modality), tmp_path / "x.nii.gz")
    with pytest.raises(InputError, match=f"x.nii.gz: its {wrong} is {says}; if you know better, say so with --trust"):
        translate(run, path, tmp_path / "o.nii.gz")
    assert not (tmp_path / "o.nii.gz").exists()
    translate(run, path, tmp_path / "o.nii.gz", trust=True)
    assert read(tmp_path / "o.nii.gz").modality == "CT"


def test_plain_nifti_is_taken_for_what_the_run_expects(run: Run, tmp_path: Path) -> None:
    source, _ = tiny_pair(0)
    nib.save(nib.Nifti1Image(source.array, source.grid.affine), tmp_path / "x.nii.gz")
    translate(run, tmp_path / "x.nii.gz", tmp_path / "o.nii.gz")
    assert read(tmp_path / "o.nii.gz").unit == "HU"


def test_nifti_says_that_it_is_synthetic(run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    translate(run, tiny_cohort / "p0_mr.nii.gz", tmp_path / "o.nii.gz")
    beside = json.loads((tmp_path / "o.json").read_text())
    assert beside["SyntheticData"] is True
    assert beside["Synthesis"]["WeightsSHA256"] == run.weights_sha256
    (tmp_path / "o.json").unlink()
    assert read(tmp_path / "o.nii.gz").synthetic == run.synthesis()
    assert b"synthetic" in nib.load(tmp_path / "o.nii.gz").header["descrip"].item()


def test_dicom_says_that_it_is_synthetic(run: Run, tmp_path: Path) -> None:
    write(tiny_pair(0)[0], tmp_path / "in", subject=Subject())
    translate(run, tmp_path / "in", tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        header = pydicom.dcmread(path)
        assert (header.SyntheticData, header.Modality, header.ImageType[0]) == ("YES", "CT", "DERIVED")
        assert run.weights_sha256 in header.ContributingEquipmentSequence[-1].ContributionDescription
    assert read(tmp_path / "out").synthetic == run.synthesis()


@pytest.mark.parametrize("heights", [None, [0, 4, 8.5, 15, 19, 26, 30, 33]], ids=["tilt", "tilt and uneven gaps"])
def test_a_leaning_series_comes_back_on_its_own_slices(run: Run, tmp_path: Path, heights: list[float] | None) -> None:
    source = save(leaning(18.5, heights, modality="MR"), tmp_path / "mr")
    done = translate(run, source, tmp_path / "ct", trust=True)
    assert [one.path for one in done] == [tmp_path / "ct"]
    files = [pydicom.dcmread(path) for path in sorted(source.iterdir())]
    made = [pydicom.dcmread(path) for path in sorted((tmp_path / "ct").iterdir())]
    assert [one.ImagePositionPatient for one in made] == [one.ImagePositionPatient for one in files]
    assert [one.PixelSpacing for one in made] == [one.PixelSpacing for one in files]
    assert {(one.Rows, one.Columns, one.Modality) for one in made} == {(40, 32, "CT")}
    straight, sheared = read(tmp_path / "ct"), read(source)
    assert straight.grid.same_as(sheared.grid)


def test_one_series_of_several(run: Run, tmp_path: Path) -> None:
    for number, name in enumerate(("first", "second")):
        write(tiny_pair(number)[0], tmp_path / "in" / name, subject=Subject(), description=name)
    translate(run, tmp_path / "in", tmp_path / "out", series="second")
    assert read(tmp_path / "out").grid.same_as(read(tmp_path / "in/second").grid)


def test_dropout_and_batch_norm_are_at_rest(run: Run) -> None:
    game = run.translator()
    assert not any(module.training for module in game.modules())
    assert any(isinstance(module, torch.nn.Dropout) for module in game.modules())


# --- a table ----------------------------------------------------------------------------------------------------------


def test_a_table_goes_on_where_it_was(run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = translate(run, tiny_cohort / "cases.csv", out)
    assert [one.case for one in done] == ["p0", "p1", "p2", "p3", "p4"]
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()}
    assert translate(run, tiny_cohort / "cases.csv", out) == []
    (out / "p2.nii.gz").unlink()
    assert [one.case for one in translate(run, tiny_cohort / "cases.csv", out)] == ["p2"]
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()}
    assert {name: content for name, (content, _) in after.items()} == {n: c for n, (c, _) in before.items()}
    assert {name for name in after if after[name] != before[name]} == {"p2.nii.gz", "p2.json"}


def test_a_case_that_cannot_be_read_does_not_keep_the_others_waiting(
    run: Run, tiny_cohort: Path, tmp_path: Path
) -> None:
    cases = tmp_path / "cases"
    shutil.copytree(tiny_cohort, cases)
    whole = (cases / "p1_mr.nii.gz").read_bytes()
    (cases / "p1_mr.nii.gz").write_bytes(whole[:200])
    with pytest.raises(
        InputError, match=r"cases\.csv: 1 of 5 cases could not be translated, the others are done: .*p1_mr"
    ):
        translate(run, cases / "cases.csv", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").glob("*.nii.gz")} == {f"p{n}.nii.gz" for n in (0, 2, 3, 4)}
    (cases / "p1_mr.nii.gz").write_bytes(whole)
    assert [one.case for one in translate(run, cases / "cases.csv", tmp_path / "out")] == ["p1"]


def test_failures_are_told_in_one_line(run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    cases = tmp_path / "cases"
    shutil.copytree(tiny_cohort, cases)
    for number in range(5):
        (cases / f"p{number}_mr.nii.gz").write_bytes(b"")
    says = r"5 of 5 cases .*, that is all of them: \(1\) .*p0_mr.* \(2\) .*p1_mr.* \(3\) .*p2_mr.* and 2 more\."
    with pytest.raises(InputError, match=says):
        translate(run, cases / "cases.csv", tmp_path / "out")


def test_other_weights_do_not_mix(run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    other = untrained_run(tmp_path / "other", tiny_cohort / "tiny.yaml", "model.generator.width=3")
    translate(run, tiny_cohort / "cases.csv", tmp_path / "out", split="test")
    with pytest.raises(OutputError, match="out: holds translations by other weights; name another folder"):
        translate(other, tiny_cohort / "cases.csv", tmp_path / "out")
    assert not (tmp_path / "out/p0.nii.gz").exists()


def test_a_split_of_a_table(run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    done = translate(run, tiny_cohort / "cases.csv", tmp_path / "out", split="val")
    assert [one.path for one in done] == [tmp_path / "out/p3.nii.gz"]
    (tmp_path / "train.csv").write_text(f"case,patient,split,a\np0,p0,train,{tiny_cohort}/p0_mr.nii.gz\n")
    with pytest.raises(CasesError, match="no case with an image a in the split test"):
        translate(run, tmp_path / "train.csv", tmp_path / "none", split="test")
    assert not (tmp_path / "none").exists()


def test_series_come_back_as_series(run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    """A table that mixes formats; its translations lie where `output_path` says."""
    write(tiny_pair(0)[0], tmp_path / "scan", subject=Subject())
    table = tmp_path / "cases.csv"
    table.write_text(f"case,patient,split,a\nd,p0,test,scan\nn,p1,test,{tiny_cohort}/p1_mr.nii.gz\n")
    translate(run, table, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["d", "n.json", "n.nii.gz", "translation.json"]
    assert len(list((tmp_path / "out/d").glob("*.dcm"))) == 8
    for case in read_cases(table):
        made = read(output_path(case, tmp_path / "out"))
        assert made.grid.same_as(read(case.images["a"]).grid)


def test_a_series_holds_what_the_run_makes_of_it(run: Run, tmp_path: Path) -> None:
    """To half a Hounsfield unit, as integers are written."""
    source = read(write(tiny_pair(0)[0], tmp_path / "in", subject=Subject()))
    translate(run, tmp_path / "in", tmp_path / "out")
    made = read(tmp_path / "out")
    assert made.grid.same_as(source.grid, tolerance_mm=1e-9)
    assert (made.unit, made.modality, made.array.dtype) == ("HU", "CT", np.int16)
    assert np.abs(made.array - translate_volume(run, source).array).max() <= 0.5


def test_trust_does_not_make_the_impossible_possible(run: Run, tmp_path: Path) -> None:
    source, _ = tiny_pair(0)
    write(source.with_array(source.array - 3000, unit="HU", modality="CT"), tmp_path / "x.nii.gz")
    with pytest.raises(InputError, match=r"x\.nii\.gz: the median of the image's foreground is -"):
        translate(run, tmp_path / "x.nii.gz", tmp_path / "o.nii.gz", trust=True)
    assert not (tmp_path / "o.nii.gz").exists()


def test_a_run_before_its_first_validation_has_nothing_to_translate_by(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no weights yet"):
        translate_volume(replace(run, path=tmp_path), tiny_pair(0)[0])


def test_a_case_that_cannot_be_read_leaves_those_before_it(run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_cohort / "p0_mr.nii.gz", tmp_path / "p0.nii.gz")
    (tmp_path / "p1.nii.gz").write_bytes((tmp_path / "p0.nii.gz").read_bytes()[:500])
    (tmp_path / "cases.csv").write_text("case,patient,split,a\np0,p0,test,p0.nii.gz\np1,p1,test,p1.nii.gz\n")
    with pytest.raises(InputError, match=r"p1\.nii\.gz: is damaged"):
        translate(run, tmp_path / "cases.csv", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["p0.json", "p0.nii.gz", "translation.json"]


# --- windows ----------------------------------------------------------------------------------------------------------

FLOAT = 2e-6  # of values up to 1: sums of up to a few hundred weights in float32
sizes = st.tuples(*[st.integers(1, 37)] * 3)
patches = st.sampled_from([(16, 16, 1), (16, 1, 8), (1, 8, 16), (8, 8, 8), (16, 8, 4)])


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(size=sizes, patch=patches, overlap=st.sampled_from([0.0, 0.25, 0.5, 0.9]), batch=st.integers(1, 9))
def test_a_net_that_changes_nothing_gives_the_input_back(size: Size, patch: Size, overlap: float, batch: int) -> None:
    """Odd sizes, and sizes below the window's."""
    x = torch.rand(1, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = predict(torch.clone, x, patch=patch, overlap=overlap, batch=batch)
    assert y.shape == x.shape
    assert (y - x).abs().max() <= FLOAT


@pytest.mark.parametrize("patch", [(16, 16, 1), (8, 8, 8)])
def test_a_local_net_does_not_feel_batch_and_overlap(patch: Size) -> None:
    x = torch.rand(1, 21, 19, 9, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = torch.tanh(3 * x) * 0.9
    for batch, overlap in ((1, 0.0), (3, 0.5), (64, 0.75)):
        y = predict(lambda w: torch.tanh(3 * w) * 0.9, x, patch=patch, overlap=overlap, batch=batch)
        assert (y - expected).abs().max() <= FLOAT


def test_windows_have_the_size_of_the_patch_and_no_more_than_the_batch() -> None:
    seen = []

    def net(window: Tensor) -> Tensor:
        seen.append(tuple(window.shape))
        return window.clone()

    predict(net, torch.zeros(1, 21, 19, 5), patch=(16, 16, 1), overlap=0.5, batch=4)
    assert {shape[1:] for shape in seen} == {(1, 16, 16)}
    assert max(shape[0] for shape in seen) == 4


@pytest.mark.parametrize("patch", [(16, 16, 1), (16, 16, 16)])
def test_blending_leaves_no_seams(patch: Size) -> None:
    """A net that answers by the mean of its window makes steps; blended they are no steeper than the input is."""
    slope = torch.linspace(-1, 1, 64).view(1, 64, 1, 1).expand(1, 64, 32, 32).contiguous()

    def net(window: Tensor) -> Tensor:
        axes = tuple(range(2, window.ndim))
        return window.mean(axes, keepdim=True).expand_as(window).clone()

    def steepest(overlap: float) -> float:
        y = predict(net, slope, patch=patch, overlap=overlap)
        return float(y.diff(dim=1).abs().max())

    tiles, blended = steepest(0.0), steepest(0.5)
    assert tiles == pytest.approx(16 * 2 / 63, rel=1e-5)
    assert blended < 0.25 * tiles


def test_a_net_of_more_channels_keeps_them() -> None:
    x = torch.rand(1, 20, 20, 3)
    y = predict(lambda w: torch.cat([w, -w], 1), x, patch=(16, 16, 1))
    assert y.shape == (2, 20, 20, 3)
    assert torch.allclose(y[0], -y[1])
