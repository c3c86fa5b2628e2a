"""medgan prepare: voxels stay where they are, nothing is lost or half written, and no test patient is learnt from."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml
from cohorts import PLAN, ct, grid_of, inside, mr, places, scan_grids, write_patient, write_plan, write_table
from command_line import medgan
from conftest import TINY_CONFIG
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medgan import Grid, Synthesis, Volume, read, write
from medgan.cases import Case, read_cases, write_cases
from medgan.errors import CasesError, ConfigError, GeometryError, InputError, OutputError
from medgan.formats.marks import missing_marks
from medgan.phantom import Head, head
from medgan.prepare import prepare
from medgan.prepare.place import STAYS, around, placed, spaced
from medgan.prepare.plan import Plan, dump, load
from medgan.prepare.verify import verified
from medgan.prepare.way import finished, halfway
from medgan.registration import Registration
from medgan.report.prepare import prepare_report
from medgan.train import train

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("prepare_*.yaml"))
SCHEMA = json.loads((ROOT / "docs" / "reference" / "provenance.schema.json").read_text())
MADE = Synthesis("pix2pix", "ab" * 32, "0.1.0")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a table of five patients, three in train."""
    folder = tmp_path_factory.mktemp("scans")
    write_table(folder)
    write_plan(folder / "plan.yaml")
    return folder


@pytest.fixture(scope="module")
def cohort(scans: Path) -> Path:
    """It, prepared."""
    done = prepare(scans / "cases.csv", scans / "plan.yaml", out=scans / "out")
    assert done.exit_code == 0, list(done.lines())
    prepare_report(done, scans / "out")
    return scans / "out"


@pytest.fixture
def own(scans: Path, tmp_path: Path) -> Path:
    """A copy of the scans, to be spoilt."""
    for name in (*(f"p{k}" for k in range(5)), "cases.csv", "plan.yaml"):
        source = scans / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, tmp_path / name)
    return tmp_path


def told(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "provenance.json").read_text()))


def content(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def times(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}


def two(seed: int = 0) -> dict[str, Volume]:
    grid_a, grid_b = scan_grids(seed)
    return {"a": mr(grid_a, seed), "b": ct(grid_b, seed)}


# --- where voxels are -------------------------------------------------------------------------------------------------


def test_a_pair_lies_on_one_grid_in_its_units(cohort: Path) -> None:
    for case in read_cases(cohort / "cases.csv", required=("a", "b", "mask")):
        a, b, mask = (read(case.images[role]) for role in ("a", "b", "mask"))
        assert a.grid.same_as(b.grid)
        assert a.grid.same_as(mask.grid)
        assert a.grid.orientation == "RAS"
        assert a.grid.spacing_mm == pytest.approx((5, 5, 5))
        assert (a.unit, a.modality, b.unit, b.modality, mask.unit) == ("a.u.", "MR", "HU", "CT", "label")
        assert b.array.dtype == np.int16


def test_voxels_hold_what_was_scanned_at_their_place(cohort: Path) -> None:
    """Where the head is known at every point, the truth is not the program's."""
    for seed in range(5):
        a, b, mask = (read(cohort / f"p{seed}" / f"{role}.nii.gz") for role in ("a", "b", "mask"))
        deep = inside(places(a.grid), seed)
        brain = deep > 0.35
        at = places(a.grid)
        gain = 1 + 0.4 * seed
        waves = np.sin(at[..., 0] / 11 + seed) * np.cos(at[..., 1] / 13) + at[..., 2] / 90
        assert np.abs(a.array - gain * (300 + 60 * waves) - 4.5)[brain].mean() < 4 * gain
        assert np.abs(b.array - (40 + 20 * np.sin(at[..., 0] / 11 + seed)))[brain].max() < 3
        truth = deep > 0
        assert 2 * (truth & (mask.array > 0)).sum() / (truth.sum() + mask.array.sum()) > 0.95
        assert (b.array[mask.array == 0] == -1000).all()
        assert (a.array[mask.array == 0] == 0).all()


def test_the_crop_keeps_the_margin_and_no_more(cohort: Path) -> None:
    mask = read(cohort / "p1" / "mask.nii.gz")
    for axis in range(3):
        found = np.flatnonzero(mask.array.any(axis=tuple({0, 1, 2} - {axis})))
        assert found[0] <= 2
        assert mask.array.shape[axis] - 1 - found[-1] <= 2


shapes = st.tuples(*[st.integers(4, 9)] * 3)
spacings = st.tuples(*[st.floats(0.7, 4)] * 3)
turns = st.tuples(*[st.floats(-40, 40)] * 3)
orientations = st.sampled_from(["RAS", "LPS", "SAR", "AIL", "PRS", "IPR"])


@settings(max_examples=40, deadline=None)
@given(grid=st.builds(grid_of, shapes, spacings, turns, orientations), wanted=orientations, new=spacings)
def test_a_linear_image_is_the_same_on_any_grid(grid: Grid, wanted: str, new: Any) -> None:
    slope = np.array([3.0, -2.0, 5.0])
    image = Volume((places(grid) @ slope).astype(np.float32), grid)
    onto = spaced(image.reorient(wanted).grid, new)
    assert onto.spacing_mm == pytest.approx(new)
    middles = [one.to_world((np.array(one.shape) - 1) / 2) for one in (grid, onto)]
    assert np.allclose(*middles, atol=1e-6)
    finer = spaced(image.reorient(wanted).grid, tuple(0.5 * s for s in image.reorient(wanted).grid.spacing_mm))
    made = placed(image, STAYS, finer, outside=np.nan)
    index = grid.to_index(places(finer))
    known = ((index >= 0) & (index <= np.array(grid.shape) - 1)).all(axis=-1)
    assert np.allclose(made.array[known], (places(finer) @ slope)[known], atol=1e-2)


@settings(max_examples=40, deadline=None)
@given(shape=shapes, axes=orientations, wanted=orientations, turn=turns, seed=st.integers(0, 99))
def test_turning_axes_changes_no_value(shape: Any, axes: str, wanted: str, turn: Any, seed: int) -> None:
    array = np.random.default_rng(seed).integers(-999, 999, grid_of(shape, (1, 2, 3), turn, axes).shape)
    images = {"a": Volume(array.astype(np.int16), grid_of(shape, (1, 2, 3), turn, axes), "a.u.", "MR")}
    plan = Plan.parse({"images": {"a": {"modality": "MR"}}, "orientation": wanted})
    made = halfway(images, plan).volumes["a"]
    assert made.grid.orientation == wanted
    assert made.array.dtype == np.int16
    back = made.reorient(images["a"].grid.orientation)
    assert np.array_equal(back.array, images["a"].array)
    assert back.grid.same_as(images["a"].grid, tolerance_mm=1e-6)


def test_labels_go_with_their_image_and_are_not_mixed() -> None:
    read_ = two()
    organs = read_["b"].with_array((inside(places(read_["b"].grid), 0) > 0.4) * 7 + 0, unit="label")
    read_["organs"] = organs.with_array(organs.array.astype(np.uint8))
    plan = Plan.parse({**PLAN, "labels": {"organs": "b"}})
    made = finished(halfway(read_, plan), plan, {}).volumes["organs"]
    assert set(np.unique(made.array)) == {0, 7}
    truth = inside(places(made.grid), 0) > 0.4
    assert 2 * (truth & (made.array == 7)).sum() / (truth.sum() + (made.array == 7).sum()) > 0.93


def test_a_mask_ends_where_an_image_was_not_measured() -> None:
    read_ = two()
    height = read_["b"].reorient("RAS")
    read_["b"] = height.crop((0, 0, height.grid.shape[2] // 2), height.grid.shape)  # the lower half is missing
    made = halfway(read_, Plan.parse({**PLAN, "crop_mm": None, "mask": {"source": "body", "of": "a"}}))
    mask = made.volumes["mask"]
    index = read_["b"].grid.to_index(places(mask.grid)[mask.array > 0])
    assert (index >= -0.51).all()
    assert "was not measured" in made.notes[0]


def test_a_given_mask_on_another_grid_is_resampled_and_that_is_told() -> None:
    read_ = two()
    grid = grid_of((40, 40, 40), (3.5, 4, 4.5), (0, 0, 10), "SLP")
    truth = inside(places(grid), 0) > 0
    read_["mask"] = Volume((truth * 255).astype(np.uint8), grid, "label")
    made = halfway(read_, Plan.parse({**PLAN, "mask": {"source": "given"}}))
    inner = inside(places(made.volumes["mask"].grid), 0) > 0
    mask = made.volumes["mask"].array
    assert set(np.unique(mask)) == {0, 1}
    assert 2 * (inner & (mask > 0)).sum() / (inner.sum() + mask.sum()) > 0.95
    assert "its mask is on another grid than a" in made.notes[0]


@pytest.mark.slow
def test_registration_undoes_what_was_planted(tmp_path: Path) -> None:
    """A head shifted and turned between MR and CT; the truth is the planted motion."""
    from medgan.phantom import head

    grid = Grid.regular((50, 60, 42), spacing_mm=(4, 4, 4), origin_mm=(-98, -118, -84))
    phantom = head(2, grid=grid)
    motion = grid_of((2, 2, 2), (1, 1, 1), (3, -4, 6)).affine.copy()
    motion[:3, 3] = [9, -7, 5]
    moved = Volume(phantom.ct.array, Grid(grid.shape, motion @ grid.affine), "HU", "CT")
    organs = replace(moved, array=phantom.labels.array, unit="label", modality="")
    plan = Plan.parse({**PLAN, "spacing_mm": None, "registration": {}, "labels": {"organs": "b"}, "crop_mm": None})
    half = halfway({"a": phantom.mr, "b": moved, "organs": organs}, plan)
    step = next(step for step in half.steps if step["step"] == "register")
    skin = places(grid)[phantom.body.array > 0][::50]
    found, truth = (skin @ np.array(m)[:3, :3].T + np.array(m)[:3, 3] for m in (step["matrix_ras_mm"], motion))
    assert np.linalg.norm(found - truth, axis=1).mean() < 1.0
    now = half.volumes["organs"].array
    assert (now == phantom.labels.array)[phantom.body.array > 0].mean() > 0.9
    before = placed(organs, STAYS, grid, order=0).array
    assert (before == phantom.labels.array)[phantom.body.array > 0].mean() < 0.8


@pytest.fixture(scope="module")
def phantom() -> Head:
    return head(2, grid=Grid.regular((50, 60, 42), spacing_mm=(4, 4, 4), origin_mm=(-98, -118, -84)))


@pytest.mark.parametrize(
    ("planted", "seen"),
    [
        (np.eye(4), ""),
        pytest.param(grid_of((2, 2, 2), (1, 1, 1), (0, 0, 9)).direction, "turned by", marks=pytest.mark.slow),
        pytest.param(np.array([9.0, 0, 0]), "mm apart", marks=pytest.mark.slow),
        ("mirrored", "fit better if one is mirrored"),
    ],
    ids=["nothing", "turn", "shift", "mirror"],
)
def test_what_registration_got_wrong_is_seen(phantom: Head, planted: Any, seen: str) -> None:
    ct, wrong = phantom.ct, np.eye(4)
    if isinstance(planted, str):
        ct = ct.with_array(np.ascontiguousarray(ct.array[::-1]))
    elif planted.ndim == 1:
        wrong[:3, 3] = planted
    else:
        wrong[:3, :3] = planted[:3, :3]
    found = verified(phantom.mr, Registration(wrong).carried(ct), "a and b")
    assert bool(found.doubts) == bool(seen)
    assert seen in " ".join(found.doubts)


@pytest.mark.slow
def test_a_mirrored_image_is_refused_or_told(phantom: Head) -> None:
    images = {"a": phantom.mr, "b": phantom.ct.with_array(np.ascontiguousarray(phantom.ct.array[::-1]))}
    plan = {**PLAN, "spacing_mm": None, "registration": {}}
    with pytest.raises(GeometryError, match=r"mirrored left to right.*registration.must_fit=false"):
        halfway(images, Plan.parse(plan))
    made = halfway(images, Plan.parse({**plan, "registration": {"must_fit": False}}))
    assert "after registration, a and b fit better if one is mirrored" in made.notes[0]


# --- values -----------------------------------------------------------------------------------------------------------


def test_hounsfield_units_that_do_not_fit_16_bits_are_not_wrapped(tmp_path: Path) -> None:
    plan = Plan.parse({"images": {"b": {"modality": "CT", "unit": "HU"}}})
    grid = scan_grids(0)[1]
    image = ct(grid, 0)
    image = image.with_array(np.where(image.array > 800, 40000, image.array.astype(np.int32)))
    made = finished(halfway({"b": image}, plan), plan, {}).volumes["b"]
    assert made.array.max() == 40000
    assert read(write(made, tmp_path / "b.nii.gz")).array.max() == 40000


def test_padding_of_a_scanner_becomes_air() -> None:
    image = ct(scan_grids(0)[1], 0)
    array = image.array.copy()
    array[:2] = -2000
    plan = Plan.parse({"images": {"b": {"modality": "CT", "unit": "HU"}}, "spacing_mm": [3, 3, 3]})
    made = halfway({"b": replace(image, array=array, padding=(-2000, -2000))}, plan)
    assert made.volumes["b"].array.min() >= -1000


def test_clipping_tells_how_much(cohort: Path) -> None:
    assert all(read(cohort / f"p{k}" / "b.nii.gz").array.max() <= 2000 for k in range(5))
    clip = next(step for step in told(cohort / "p0")["steps"] if step["step"] == "clip")
    assert clip["clipped_share"] == 0
    plan = Plan.parse({"images": {"b": {"modality": "CT", "unit": "HU", "clip": [-500, 500]}}})
    half = halfway({"b": two()["b"]}, plan)
    made = finished(half, plan, {})
    share = np.mean(np.abs(two()["b"].array) > 500)
    assert made.steps[-1]["clipped_share"] == pytest.approx(share, abs=1e-5)


def test_synthetic_images_keep_saying_so(tmp_path: Path) -> None:
    images = {role: volume.marked(MADE) for role, volume in two().items()}
    paths = {role: write(volume, tmp_path / f"{role}.nii.gz") for role, volume in images.items()}
    write_cases([Case("p", "p", "train", paths)], tmp_path / "cases.csv")
    assert prepare(tmp_path / "cases.csv", write_plan(tmp_path / "plan.yaml"), out=tmp_path / "out").exit_code == 0
    assert all(read(tmp_path / "out" / "p" / f"{role}.nii.gz").synthetic == MADE for role in ("a", "b"))
    assert told(tmp_path / "out" / "p")["results"]["a"]["synthetic"]
    assert not missing_marks(tmp_path / "out" / "p")


def test_only_one_image_of_a_case_will_do(tmp_path: Path, scans: Path) -> None:
    """An unpaired table."""
    cases = read_cases(scans / "cases.csv")
    alone = [replace(case, images={"ab"[k % 2]: case.images["ab"[k % 2]]}) for k, case in enumerate(cases)]
    write_cases(alone, tmp_path / "cases.csv")
    done = prepare(
        tmp_path / "cases.csv", write_plan(tmp_path / "plan.yaml", mask={"source": "body"}), out=tmp_path / "o"
    )
    assert done.exit_code == 0
    made = read_cases(tmp_path / "o" / "cases.csv", required=())
    assert [sorted(case.images) for case in made] == [["a", "mask"], ["b", "mask"]] * 2 + [["a", "mask"]]


# --- what is left behind ----------------------------------------------------------------------------------------------


def test_the_table_keeps_splits_patients_and_conditions(scans: Path, cohort: Path) -> None:
    before, after = (read_cases(table / "cases.csv", required=()) for table in (scans, cohort))
    for one, other in zip(before, after, strict=True):
        assert (one.name, one.patient, one.split, one.conditions) == (
            other.name, other.patient, other.split, other.conditions,
        )  # fmt: skip
    assert "/" not in (cohort / "cases.csv").read_text().splitlines()[1].split(",")[3].partition("/")[2]


def trained(cohort: Path, home: Path, *overrides: str) -> int:
    (home / "tiny.yaml").write_text(TINY_CONFIG.replace("cases.csv", str(cohort / "cases.csv")))
    two = ["train.steps=2", "train.validate_every=2", *overrides]
    return int(train(home / "tiny.yaml", two, out=home / "run", device="cpu").best["step"])


def test_it_trains_at_once(cohort: Path, tmp_path: Path) -> None:
    assert trained(cohort, tmp_path) == 2


def entries(folder: Path) -> dict[str, int]:
    """Files, known as the same only if they were not written again."""
    return {path.name: path.stat().st_ino for path in folder.iterdir()}


def test_a_training_finds_what_was_read_for_it(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --for, its first start prepares nothing."""
    monkeypatch.setenv("MEDGAN_CACHE", str(own / "cache"))
    (own / "tiny.yaml").write_text(TINY_CONFIG)
    asked = ("--out", own / "out", "--processes", 2, "--for", own / "tiny.yaml")
    done = medgan("prepare", own / "cases.csv", own / "plan.yaml", *asked)
    assert done.code == 0, done.err
    assert "5 prepared" in done.out
    kept = entries(own / "cache")
    assert len(kept) == 4 + 10
    trained(own / "out", own)
    assert entries(own / "cache") == kept
    again = medgan("prepare", own / "cases.csv", own / "plan.yaml", *asked)
    assert (again.code, "5 unchanged" in again.out) == (0, True)
    assert entries(own / "cache") == kept


def test_a_training_that_cannot_be_is_refused_before_the_work(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own / "tiny.yaml").write_text(TINY_CONFIG + "lr: 1\n")
    asked = ("prepare", own / "cases.csv", own / "plan.yaml", "--out", own / "out", "--for", own / "tiny.yaml")
    done = medgan(*asked)
    assert done.code == 1
    assert "tiny.yaml: lr: unknown key" in done.error
    (own / "tiny.yaml").write_text(TINY_CONFIG)
    monkeypatch.setenv("MEDGAN_CACHE", "off")
    assert "MEDGAN_CACHE=off" in medgan(*asked).error
    assert not (own / "out").exists()


def test_a_harmonised_cohort_trains_in_its_own_unit(own: Path) -> None:
    prepare(own / "cases.csv", own / "plan.yaml", ["images.a.harmonise={name: nyul}"], out=own / "out")
    intensity = "prep.a={modality: MR, unit: 'normalised:nyul', range: [0, 100]}"
    with pytest.raises(InputError, match="its unit is normalised:nyul"):
        trained(own / "out", own)
    shutil.rmtree(own / "run", ignore_errors=True)
    assert trained(own / "out", own, intensity) == 2


def test_the_provenance_tells_all(scans: Path, cohort: Path) -> None:
    one = told(cohort / "p0")
    jsonschema.validate(one, SCHEMA)
    assert [step["step"] for step in one["steps"]] == [
        *("grid", "resample", "resample", "mask", "background", "background", "crop", "clip")
    ]
    source = scans / "p0" / "mr.nii.gz"
    assert one["sources"]["a"]["path"] == str(source)
    assert one["sources"]["a"]["sha256"].startswith(hashlib.sha256(source.read_bytes()).hexdigest())
    made = read(cohort / "p0" / "a.nii.gz")
    assert one["results"]["a"]["grid"] == made.grid.describe()
    assert np.allclose(one["results"]["a"]["affine_ras_mm"], made.grid.affine)
    assert one["libraries"]["numpy"] == np.__version__
    assert one["files"]["a.nii.gz"] == hashlib.sha256((cohort / "p0" / "a.nii.gz").read_bytes()).hexdigest()


def test_the_picture_shows_both(cohort: Path) -> None:
    picture = np.asarray(Image.open(cohort / "p0" / "before_after.png"))
    width = picture.shape[1] // 2
    before, after = picture[:600, :width], picture[:600, width:]
    assert before.std() > 20
    assert after.std() > 20
    assert not np.array_equal(before[:, :600], after[:, -600:])


def test_a_second_run_does_nothing(scans: Path, cohort: Path) -> None:
    before, when = content(cohort), times(cohort)
    done = medgan("prepare", scans / "cases.csv", scans / "plan.yaml", "--out", cohort)
    assert (done.code, done.out) == (0, f"5 unchanged: {cohort / 'cases.csv'}\n")
    assert (content(cohort), times(cohort)) == (before, when)


def test_several_processes_make_the_same_bytes(scans: Path, cohort: Path, tmp_path: Path) -> None:
    done = prepare(scans / "cases.csv", scans / "plan.yaml", out=tmp_path / "out", processes=3)
    prepare_report(done, tmp_path / "out")
    assert content(tmp_path / "out") == content(cohort)


def test_other_settings_files_and_cases_are_seen(own: Path) -> None:
    home, table, plan = own / "out", own / "cases.csv", own / "plan.yaml"
    command = ("prepare", table, plan, "--out", home)
    assert medgan(*command).out.startswith("5 prepared")
    write(read(own / "p1" / "mr.nii.gz").with_array(read(own / "p1" / "mr.nii.gz").array * 2), own / "p1" / "mr.nii.gz")
    (home / "p2" / "a.nii.gz").write_bytes(b"damaged")
    again = medgan(*command)
    assert again.out == f"2 prepared, 3 unchanged: {home / 'cases.csv'}\n"
    other = medgan(*command, "crop_mm=20")
    assert other.out == f"5 prepared: {home / 'cases.csv'}\n"
    assert "was prepared with other settings" in other.err
    assert "its files, the settings" in prepare(table, plan, ["crop_mm=15"], out=home).cases[0].reason
    write_cases(read_cases(table)[1:], table)
    fewer = medgan(*command, "crop_mm=15")
    assert "no longer in the table, and left as they are: p0" in fewer.out
    assert [case.name for case in read_cases(home / "cases.csv")] == ["p1", "p2", "p3", "p4"]


def test_what_was_stopped_goes_on(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort_of = import_module("medgan.prepare.cohort")
    real, seen = cohort_of.write_case, []

    def stopped(folder: Path, *rest: Any, **more: Any) -> None:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(folder.name)
        real(folder, *rest, **more)

    monkeypatch.setattr(cohort_of, "write_case", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare(own / "cases.csv", own / "plan.yaml", out=own / "out")
    monkeypatch.undo()
    done = prepare(own / "cases.csv", own / "plan.yaml", out=own / "out")
    assert [case.status for case in done.cases] == ["unchanged"] * 2 + ["prepared"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_that_is_killed_leaves_nothing_half(own: Path, processes: int) -> None:
    """SIGKILL again and again, at every stage; what is under its name is whole, and the end is as without."""
    argv = [sys.executable, "-m", "medgan", "prepare", str(own / "cases.csv"), str(own / "plan.yaml")]
    harmonised = "images.a.harmonise={name: nyul}"
    argv += [harmonised, "--out", str(own / "out"), "--processes", str(processes)]
    for wait in np.linspace(1.5, 6, 10):
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.3)
        for folder in (own / "out").glob("[!.]*/"):
            files = told(folder)["files"]
            assert {name: content(folder)[name] for name in files} == files
    done = prepare(own / "cases.csv", own / "plan.yaml", [harmonised], out=own / "out")
    assert done.exit_code == 0
    assert not [path for path in (own / "out").iterdir() if ".part." in path.name or path.name == ".halfway"]
    prepare(own / "cases.csv", own / "plan.yaml", [harmonised], out=own / "undisturbed")
    (own / "out" / "report.html").unlink(missing_ok=True)  # of a run that was done before its end came
    assert content(own / "out") == content(own / "undisturbed")


def test_two_at_once_are_refused(own: Path) -> None:
    import fcntl

    prepare(own / "cases.csv", own / "plan.yaml", out=own / "out")
    with (own / "out" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = medgan("prepare", own / "cases.csv", own / "plan.yaml", "--out", own / "out")
    assert done.code == 1
    assert "another medgan prepares this cohort" in done.error


# --- one scale for a cohort -------------------------------------------------------------------------------------------


def test_no_test_patient_is_learnt_from(own: Path) -> None:
    harmonised = ["images.a.harmonise={name: nyul}"]
    prepare(own / "cases.csv", own / "plan.yaml", harmonised, out=own / "one")
    for k in (3, 4):
        image = read(own / f"p{k}" / "mr.nii.gz")
        write(image.with_array(image.array * 3 + 50), own / f"p{k}" / "mr.nii.gz")
    prepare(own / "cases.csv", own / "plan.yaml", harmonised, out=own / "two")
    assert (own / "one" / "harmonisation.json").read_text() == (own / "two" / "harmonisation.json").read_text()
    image = read(own / "p0" / "mr.nii.gz")
    write(
        image.with_array(image.array + np.rint(image.array.astype(float) ** 1.2 / 9).astype(np.int16)),
        own / "p0" / "mr.nii.gz",
    )
    prepare(own / "cases.csv", own / "plan.yaml", harmonised, out=own / "three")
    assert (own / "one" / "harmonisation.json").read_text() != (own / "three" / "harmonisation.json").read_text()


def test_nothing_is_learnt_from_a_case_that_has_no_scale(own: Path) -> None:
    table = write_table(own, splits=("train", "train", "train", "train", "test"))
    empty = read(own / "p1" / "mr.nii.gz")
    write(empty.with_array(np.where(empty.array < 340 * 1.4, 0, empty.array)), own / "p1" / "mr.nii.gz")
    done = prepare(table, own / "plan.yaml", ["images.a.harmonise={name: nyul}"], out=own / "out")
    assert [case.status for case in done.cases] == ["prepared", "refused", "prepared", "prepared", "prepared"]
    assert "percentiles of the image coincide" in done.cases[1].reason
    write_cases([case for case in read_cases(table) if case.name != "p3"], table)
    with pytest.raises(InputError, match=r"seen 2; of 1 nothing could be learnt: percentiles"):
        prepare(table, own / "plan.yaml", ["images.a.harmonise={name: nyul}"], out=own / "fewer")


def test_harmonised_scanners_have_one_scale(own: Path) -> None:
    prepare(own / "cases.csv", own / "plan.yaml", ["images.a.harmonise={name: nyul}"], out=own / "out")
    medians, raw = [], []
    for k in range(5):
        mask = read(own / "out" / f"p{k}" / "mask.nii.gz").array > 0
        medians.append(float(np.median(read(own / "out" / f"p{k}" / "a.nii.gz").array[mask])))
        image = read(own / f"p{k}" / "mr.nii.gz")
        raw.append(float(np.median(image.array[inside(places(image.grid), k) > 0])))
        assert read(own / "out" / f"p{k}" / "a.nii.gz").unit == "normalised:nyul"
    spread = read(own / "out" / "p0" / "a.nii.gz").array.std()
    assert np.ptp(raw) / np.mean(raw) > 0.5
    assert np.ptp(medians) < 0.15 * spread


def test_new_patients_come_the_same_way(own: Path, tmp_path: Path) -> None:
    """The settings and the scale that a cohort has left behind, without its cases."""
    harmonised = ["images.a.harmonise={name: nyul}"]
    prepare(own / "cases.csv", own / "plan.yaml", harmonised, out=own / "first")
    new = write_cases(read_cases(own / "cases.csv", split="test"), own / "new.csv")
    done = prepare(new, own / "first" / "prepare.yaml", out=own / "second")
    assert done.exit_code == 0
    for name in ("a.nii.gz", "b.nii.gz", "mask.nii.gz"):
        assert (own / "second" / "p4" / name).read_bytes() == (own / "first" / "p4" / name).read_bytes()
    again = prepare(own / "cases.csv", own / "first" / "prepare.yaml", out=own / "first")
    assert {case.status for case in again.cases} == {"unchanged"}
    alone = medgan("prepare", new, own / "plan.yaml", *harmonised, "--out", own / "third")
    assert alone.code == 1
    assert "the cases of the split train have in common" in alone.error


def test_a_second_run_fits_nothing_again(own: Path) -> None:
    (own / "cases.csv").write_text((own / "cases.csv").read_text().replace(",val,", ",train,"))
    harmonised = ["images.a.harmonise={name: nyul}"]
    prepare(own / "cases.csv", own / "plan.yaml", harmonised, out=own / "out")
    (own / "p1" / "mr.nii.gz").unlink()
    broken = prepare(own / "cases.csv", own / "plan.yaml", harmonised, out=own / "out")
    assert {case.name: case.status for case in broken.cases}["p1"] == "refused"
    before = content(own / "out")
    again = prepare(own / "cases.csv", own / "plan.yaml", harmonised, out=own / "out")
    assert [case.status for case in again.cases].count("unchanged") == 4
    assert content(own / "out") == before


# --- what is wrong ----------------------------------------------------------------------------------------------------


def spoilt(image: Path, how: str) -> None:
    import nibabel as nib

    seen = read(image)
    if how == "missing":
        image.unlink()
    elif how == "zero":
        write(seen.with_array(np.zeros_like(seen.array)), image)
    elif how == "4-D":
        nib.save(nib.Nifti1Image(np.ones((4, 4, 4, 3), np.float32), np.eye(4)), image)
    elif how == "singular":
        nifti = nib.Nifti1Image(seen.array, np.eye(4))
        nifti.to_filename(image)
        raw = bytearray(gzip.decompress(image.read_bytes()))
        raw[312:328] = bytes(16)  # srow_z
        image.write_bytes(gzip.compress(bytes(raw)))
    elif how == "same":
        image.with_suffix("").with_suffix(".json").unlink()
        shutil.copyfile(image.with_name("mr.nii.gz"), image)
        shutil.copyfile(image.with_name("mr.json"), image.with_name("ct.json"))


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("missing", "is not there or cannot be read"),
        ("zero", "b is constant (0 everywhere)"),
        ("4-D", "holds 3 volumes"),
        ("singular", "affine"),
        ("same", "modality is MR, accepted is CT"),
        ("text", "is neither NIfTI"),
    ],
)
def test_one_bad_case_does_not_stop_the_others(own: Path, how: str, reason: str) -> None:
    image = own / "p2" / "ct.nii.gz"
    if how in ("text", "4-D", "singular"):
        image.with_name("ct.json").unlink()
    if how == "text":
        image.rename(own / "p2" / "ct.dat")
        (own / "cases.csv").write_text((own / "cases.csv").read_text().replace("p2/ct.nii.gz", "p2/ct.dat"))
        (own / "p2" / "ct.dat").write_text("no image at all")
    else:
        spoilt(image, how)
    done = medgan("prepare", own / "cases.csv", own / "plan.yaml", "--out", own / "out")
    assert done.code == 4
    assert "p2: refused: " in done.out
    assert reason in done.out
    assert "4 prepared, 1 refused" in done.out
    assert [case.name for case in read_cases(own / "out" / "cases.csv")] == ["p0", "p1", "p3", "p4"]
    assert not (own / "out" / "p2").exists()
    assert json.loads((own / "out" / "prepare.json").read_text())["refused"][0]["name"] == "p2"


def test_what_a_library_cannot_do_is_told_of_its_case(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    way, real = import_module("medgan.prepare.way"), import_module("medgan.prepare.way").around

    def fails(mask: Volume, margin_mm: float) -> Any:
        if mask.array.shape == shape:
            raise RuntimeError("ITK ERROR:\n  no memory")
        return real(mask, margin_mm)

    shape = halfway({role: read(own / "p1" / f"{name}.nii.gz") for role, name in (("a", "mr"), ("b", "ct"))},
                    Plan.parse({**PLAN, "crop_mm": None})).volumes["mask"].array.shape  # fmt: skip
    monkeypatch.setattr(way, "around", fails)
    done = prepare(own / "cases.csv", own / "plan.yaml", out=own / "out")
    assert done.exit_code in (1, 4)
    assert {case.reason for case in done.cases if case.status == "refused"} == {"ITK ERROR: no memory"}


def test_the_same_image_in_both_roles_is_refused(tmp_path: Path) -> None:
    image = write(mr(scan_grids(0)[0], 0), tmp_path / "a.nii.gz")
    write_cases([Case("p", "p", "train", {"a": image, "b": image})], tmp_path / "cases.csv")
    plan = {"images": {"a": {"modality": "MR"}, "b": {"modality": "MR"}}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    done = medgan("prepare", tmp_path / "cases.csv", tmp_path / "plan.yaml", "--out", tmp_path / "out")
    assert done.code == 1
    assert "a and b are the same image" in done.out
    assert not (tmp_path / "out" / "cases.csv").exists()


def test_values_that_are_no_hounsfield_units_are_refused() -> None:
    wrong = two()["b"]
    wrong = replace(wrong.with_array(wrong.array + 1024), unit="a.u.", modality="")
    with pytest.raises(InputError, match="hardly HU"):
        halfway({"b": wrong}, Plan.parse({"images": {"b": {"modality": "CT", "unit": "HU"}}}))


def test_an_empty_mask_is_refused() -> None:
    read_ = two()
    read_["mask"] = read_["a"].with_array(np.zeros(read_["a"].array.shape, np.uint8), unit="label")
    with pytest.raises(InputError, match="its mask is empty"):
        halfway(read_, Plan.parse({**PLAN, "mask": {"source": "given"}}))
    with pytest.raises(InputError, match="it has no mask"):
        halfway(two(), Plan.parse({**PLAN, "mask": {"source": "given"}}))


def test_images_of_two_places_are_refused() -> None:
    read_ = two()
    affine = read_["b"].grid.affine.copy()
    affine[0, 3] += 5000
    read_["b"] = replace(read_["b"], grid=Grid(read_["b"].grid.shape, affine))
    with pytest.raises(InputError, match="mm apart"):
        halfway(read_, Plan.parse(PLAN))


def test_a_missing_library_is_told_before_the_work(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    without = {"SimpleITK", "deepbet"}
    cohort_of = import_module("medgan.prepare.cohort")
    monkeypatch.setattr(cohort_of, "find_spec", lambda name: None if name in without else real(name))
    for setting, key in (
        ("registration={}", r"registration: needs SimpleITK; pip install 'medgan\[registration\]'"),
        ("images.a.bias_field=true", "images.a.bias_field: needs SimpleITK"),
        ("mask.source=brain", "mask.source: needs deepbet"),
    ):
        with pytest.raises(ConfigError, match=key):
            prepare(own / "cases.csv", own / "plan.yaml", [setting], out=own / "out")
    assert not (own / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("registraton={}", "registraton: unknown key (accepted here: images, labels"),
        ("images.b.clip=[3, 1]", "images.b: clip: the lower end 3 must be below"),
        ("images.b.harmonise={name: nyul}", "images.b: harmonise: HU mean the same"),
        ("images.a.harmonise={name: histogram}", "images.a.harmonise.name: 'histogram' is none of"),
        ("mask.of=c", "mask.of: 'c' is no image (images: a, b)"),
        ("mask=null", "images.a.background: needs a mask"),
        ("orientation=RAX", "orientation: three letters"),
        ("spacing_mm=[1, 1, 0]", "spacing_mm must be positive"),
        ("labels={organs: c}", "labels.organs: 'c' is no image"),
        ("registration={roles: [a]}", "a is the first image, which stays"),
        ("harmonisation=none.json", "none.json"),
    ],
)
def test_settings_that_cannot_be_are_named(own: Path, change: str, message: str) -> None:
    extra = ["images.a.harmonise={name: nyul}"] if "harmonisation" in change else []
    done = medgan("prepare", own / "cases.csv", own / "plan.yaml", *extra, change, "--out", own / "out")
    assert done.code == 1
    assert message in done.error


def test_tables_that_cannot_be_are_refused(own: Path) -> None:
    (own / "empty.csv").write_text("case,patient,split,a,b\n")
    with pytest.raises(CasesError, match="has no cases"):
        prepare(own / "empty.csv", own / "plan.yaml", out=own / "out")
    table = own / "cases.csv"
    table.write_text(table.read_text().replace(",b,", ",flair,", 1))
    with pytest.raises(CasesError, match="has the columns flair, of which the settings do not tell"):
        prepare(table, own / "plan.yaml", out=own / "out")


def test_a_folder_of_others_is_left_alone(own: Path) -> None:
    (own / "full").mkdir()
    (own / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="did not write"):
        prepare(own / "cases.csv", own / "plan.yaml", out=own / "full")
    assert [path.name for path in (own / "full").iterdir()] == ["thesis.txt"]


# --- the examples -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_an_example_is_complete_and_commented(path: Path) -> None:
    text = path.read_text()
    written, resolved = yaml.safe_load(text), yaml.safe_load(dump(load(path)))
    assert list(written) == list(resolved)
    assert all(written["images"][role].keys() == resolved["images"][role].keys() for role in ("a", "b"))
    assert text.count("#") >= 15


def test_settings_survive_their_file(tmp_path: Path) -> None:
    for path in CONFIGS:
        plan = load(path)
        (tmp_path / "again.yaml").write_text(dump(plan))
        assert load(tmp_path / "again.yaml") == plan


def test_a_case_with_a_patient_alone(tmp_path: Path) -> None:
    write_cases([Case("only", "only", "train", write_patient(tmp_path, 3))], tmp_path / "cases.csv")
    done = prepare(tmp_path / "cases.csv", write_plan(tmp_path / "plan.yaml"), out=tmp_path / "out")
    assert list(done.lines()) == [f"1 prepared: {tmp_path / 'out' / 'cases.csv'}"]


def test_the_box_around_a_mask_ends_at_the_grid() -> None:
    mask = np.zeros((6, 6, 6), np.uint8)
    mask[0, 5, 3] = 1
    assert around(Volume(mask, Grid.regular((6, 6, 6))), 2) == ([0, 3, 1], [3, 6, 6])
