"""One person on both sides of a split: proven by voxels and UIDs, suspected by looks, at index, train and evaluate."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_pair
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medgan import Grid, Volume, cache, read, train, write
from medgan.cases import Case, read_cases, write_cases
from medgan.errors import CasesError, InputError
from medgan.evaluate import evaluate
from medgan.formats.dicom import Subject
from medgan.index import index
from medgan.leaks import Leak, Seen, leaks, likeness, look_at, look_of, refuse_leaks, trained_on
from medgan.leaks.fingerprint import Fingerprint, fingerprint
from medgan.leaks.looks import LEAST_LIKENESS, LEAST_SPECTRUM, Look, spectrum_of


def texture(seed: int, shape: tuple[int, int, int] = (40, 44, 36), spacing_mm: float = 4.0) -> Volume:
    """A ball with smooth texture that no other seed has."""
    rng = np.random.default_rng(seed)
    x, y, z = (np.linspace(-1, 1, side) for side in shape)
    ball = x[:, None, None] ** 2 + y[:, None] ** 2 + z**2 < 0.8
    pattern = ndimage.gaussian_filter(rng.standard_normal(shape), 1.5)
    return Volume((ball * (500 + 9000 * pattern)).astype(np.float32), Grid.regular(shape, spacing_mm=[spacing_mm] * 3))


def alarm(one: Volume, other: Volume, size_mm: float = 4.0) -> tuple[float, float]:
    """Likeness and likeness of the spectra."""
    looks = [look_of(volume, size_mm) for volume in (one, other)]
    first, second = (look for look in looks if look is not None)
    return likeness(first, second), float(spectrum_of(first) @ spectrum_of(second))


def is_alarm(values: tuple[float, float]) -> bool:
    return values[0] >= LEAST_LIKENESS and values[1] >= LEAST_SPECTRUM


def resampled(volume: Volume) -> Volume:
    array = ndimage.zoom(volume.array, 1.4, order=1)
    affine = volume.grid.affine.copy()
    affine[:3, :3] *= np.array(volume.grid.shape) / np.array(array.shape)
    return Volume(array, Grid(array.shape, affine))


CHANGES: dict[str, Callable[[Volume], Volume]] = {
    "bits": lambda v: v.with_array((np.clip(v.array / v.array.max(), 0, 1) * 255).astype(np.uint8)),
    "gamma": lambda v: v.with_array(np.clip(v.array, 0, None) ** 0.7),
    "negative": lambda v: v.with_array(-v.array),
    "crop": lambda v: v.crop((2, 3, 2), (38, 42, 34)),
    "axes": lambda v: v.reorient("PIL"),
    "resampled": resampled,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_looks_alike(change: str) -> None:
    assert is_alarm(alarm(texture(1), CHANGES[change](texture(1))))


@settings(max_examples=15, deadline=None)
@given(seeds=st.tuples(st.integers(0, 999), st.integers(0, 999)).filter(lambda two: two[0] != two[1]))
def test_others_do_not_look_alike(seeds: tuple[int, int]) -> None:
    assert not is_alarm(alarm(texture(seeds[0]), texture(seeds[1])))


@settings(max_examples=15, deadline=None)
@given(shift=st.tuples(*[st.integers(-6, 6)] * 3))
def test_where_an_image_lies_does_not_matter(shift: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    edges = np.zeros((30, 30, 30), np.int8)
    edges[8:22, 8:22, 8:22] = rng.integers(-90, 90, (14, 14, 14))
    moved: Look = np.roll(edges, shift, (0, 1, 2))
    assert likeness(edges, moved) == pytest.approx(1)
    assert float(spectrum_of(edges) @ spectrum_of(moved)) == pytest.approx(1, abs=1e-3)


def test_labels_and_empty_and_tiny_images_have_no_look() -> None:
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[5:35, 5:35, 5:20], labels[5:35, 5:35, 20:35] = 1, 2
    grid = Grid.regular((40, 40, 40), spacing_mm=(4, 4, 4))
    assert look_of(Volume(labels, grid), 4.0) is None
    assert look_of(Volume(np.zeros((40, 40, 40)), grid), 4.0) is None
    assert look_of(texture(0, (10, 12, 40)), 4.0) is None
    holed = texture(0)
    holed.array[20, 20, 20] = np.nan
    assert look_of(holed, 4.0) is None


def test_slices_are_compared_with_slices() -> None:
    one = texture(3).crop((0, 0, 18), (40, 44, 19))
    assert is_alarm(alarm(one, one.with_array(2 * one.array + 7)))
    assert not is_alarm(alarm(one, texture(4).crop((0, 0, 18), (40, 44, 19))))


def test_one_image_alike_among_others_is_not_enough() -> None:
    looks = [look_of(texture(seed), 4.0) for seed in range(5)]
    cases = [Case(name, name, "", {}) for name in ("p1", "p2")]
    alike = [[looks[0], looks[1]], [looks[0], looks[1]]]
    in_one = [[looks[0], looks[1], looks[2]], [looks[0], looks[3], looks[4]]]

    def found(images: list[list[Look | None]]) -> list[Leak]:
        return leaks(
            [
                Seen(case, role, None, Fingerprint(f"{case.name}{role}", look))
                for case, own in zip(cases, images, strict=True)
                for role, look in zip("abc", own, strict=False)
            ],
            lambda case: case.patient,
        )

    assert [leak.describe() for leak in found(alike)] == ["p1 and p2, a: look alike (1.00 of 1)"]
    assert not found(in_one)


# --- files ------------------------------------------------------------------------------------------------------------


def table(folder: Path, images: dict[str, Volume], splits: str) -> Path:
    """A table of one image each, of patients in the splits that the letters name."""
    by_letter = {"r": "train", "v": "val", "e": "test"}
    cases = [
        Case(name, name, by_letter[letter], {"a": write(volume, folder / f"{name}.nii.gz")})
        for (name, volume), letter in zip(images.items(), splits, strict=True)
    ]
    return write_cases(cases, folder / "cases.csv")


def test_a_table_with_one_image_in_two_splits_is_refused(tmp_path: Path) -> None:
    copy = texture(0).reorient("LPS")
    path = table(tmp_path, {"p0": texture(0), "p1": texture(1), "p2": copy}, "rve")
    with pytest.raises(CasesError, match=r"p0 in train and p2 in test, a: the same image, voxel for voxel; .*patients"):
        refuse_leaks(path)
    refuse_leaks(table(tmp_path / "within", {"p0": texture(0), "p1": texture(1), "p2": copy}, "rvr"))


def test_a_likeness_is_told_and_not_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path, {"p0": texture(0), "p1": texture(1), "p2": CHANGES["gamma"](texture(0))}, "rve")
    refuse_leaks(path)
    told = capsys.readouterr().err
    assert "Warning" in told
    assert "p0 in train and p2 in test, a: look alike (0.9" in told
    assert "p1" not in told


def test_what_cannot_be_read_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path, {"p0": texture(0), "p1": texture(1)}, "re")
    (tmp_path / "p1.nii.gz").write_bytes(b"none")
    refuse_leaks(path)
    assert "not looked at for leaks" in capsys.readouterr().err


def dicom_cases(folder: Path, *identifiers: str) -> list[Case]:
    cases = []
    for number, identifier in enumerate(identifiers):
        place = write(
            replace(texture(number), modality="MR"), folder / f"p{number}", subject=Subject(patient_id=identifier)
        )
        cases.append(Case(f"p{number}", f"p{number}", ("train", "test")[number % 2], {"a": place}))
    return cases


def test_series_are_known_again_by_their_uids(tmp_path: Path) -> None:
    cases = dicom_cases(tmp_path, "one", "two")
    shutil.copytree(cases[0].images["a"], tmp_path / "copy")
    first = sorted((tmp_path / "copy").iterdir())[0]
    first.unlink()  # other voxels, the same slices
    cases.append(Case("copy", "copy", "test", {"a": tmp_path / "copy"}))
    found = leaks(look_at(cases), lambda case: case.split)
    assert [leak.describe() for leak in found] == ["p0 and copy, a: the same series or slices, by their UIDs"]
    assert found[0].is_proven


def test_one_patient_id_in_two_splits_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refuse_leaks(write_cases(dicom_cases(tmp_path, "SECRET", "SECRET"), tmp_path / "cases.csv"))
    told = capsys.readouterr().err
    assert "one PatientID in their DICOM headers" in told
    assert "SECRET" not in told


def test_fingerprints_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(texture(0), tmp_path / "image.nii.gz")
    first = fingerprint(path, 4.0)
    with monkeypatch.context() as patched:
        patched.setattr("medgan.leaks.fingerprint.read", lambda path: pytest.fail("was read again"))
        again = fingerprint(path, 4.0)
    assert again.voxels == first.voxels
    assert again.look is not None
    np.testing.assert_array_equal(again.look, first.look)
    seen = path.stat()
    write(texture(1), path)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert fingerprint(path, 4.0).voxels != first.voxels


def test_clearing_the_cache_takes_fingerprints_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDGAN_CACHE", str(tmp_path / "cache"))
    fingerprint(write(texture(0), tmp_path / "image.nii.gz"), 4.0)
    held = cache()
    assert held.entries == 0
    assert 1_000 < held.size_bytes < 100_000
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "cache").iterdir()] == [0o600]
    assert cache(clear=True).size_bytes == 0


def test_a_damaged_fingerprint_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDGAN_CACHE", str(tmp_path / "cache"))
    path = write(texture(0), tmp_path / "image.nii.gz")
    first = fingerprint(path, 4.0)
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(file.read_bytes()[:-30])
    assert fingerprint(path, 4.0).voxels == first.voxels


def test_without_a_cache_it_works_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDGAN_CACHE", "off")
    path = write(texture(0), tmp_path / "image.nii.gz")
    assert fingerprint(path, 4.0).voxels == fingerprint(path, 4.0).voxels


# --- index, train, evaluate -------------------------------------------------------------------------------------------


def test_index_tells_of_patients_that_look_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, volume in {"p0": texture(0), "p1": texture(1), "p2": CHANGES["bits"](texture(0))}.items():
        write(volume, tmp_path / "in" / name / "t1.nii.gz")
    index(tmp_path / "in", images={"image": "t1.nii.gz"}, out=tmp_path / "cases.csv")
    told = capsys.readouterr().err
    assert "p0 and p2, image: look alike" in told
    assert "p1" not in told
    (tmp_path / "patients.csv").write_text("case,patient\np0,person\np2,person\n")
    index(
        tmp_path / "in",
        images={"image": "t1.nii.gz"},
        out=tmp_path / "again.csv",
        patients=tmp_path / "patients.csv",
    )
    assert "look alike" not in capsys.readouterr().err


def copied_cohort(tiny_cohort: Path, folder: Path) -> Path:
    """The tiny cohort with its test patient's images replaced by those of a training patient."""
    shutil.copytree(tiny_cohort, folder)
    for kind in ("mr", "ct"):
        shutil.copy(folder / f"p0_{kind}.nii.gz", folder / f"p4_{kind}.nii.gz")
    return folder


def test_training_refuses_a_leak(tiny_cohort: Path, tmp_path: Path) -> None:
    folder = copied_cohort(tiny_cohort, tmp_path / "cohort")
    with pytest.raises(CasesError, match="p0 in train and p4 in test, a: the same image"):
        train(folder / "tiny.yaml", out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_evaluation_leaves_out_what_was_trained_on(tiny_cohort: Path, tmp_path: Path) -> None:
    folder = copied_cohort(tiny_cohort, tmp_path / "cohort")
    cases = read_cases(folder / "cases.csv")
    write_cases([*cases, Case("p5", "p5", "test", dict(_saved(5, folder)))], folder / "cases.csv")
    for name in ("p4", "p5"):
        write(read(folder / f"{name}_ct.nii.gz"), folder / "pred" / f"{name}.nii.gz")
    rows = evaluate(folder / "pred", folder / "cases.csv", split="test", out=tmp_path / "scores")
    assert {row["case"]: row["status"] for row in rows} == {"p4": "refused", "p5": "scored"}
    assert "p4 was trained on: p0 in train and p4 in test" in rows[0]["note"]
    assert json.loads((tmp_path / "scores" / "metrics.json").read_text())
    with pytest.raises(InputError, match="was trained on"):
        evaluate(folder / "pred" / "p4.nii.gz", folder / "cases.csv", split="test")
    write(read(folder / "p0_ct.nii.gz"), folder / "trained" / "p0.nii.gz")
    assert evaluate(folder / "trained", folder / "cases.csv", split="train")[0]["status"] == "scored"


def _saved(number: int, folder: Path) -> dict[str, Path]:
    mr, ct = tiny_pair(number)
    return {
        "a": write(mr, folder / f"p{number}_mr.nii.gz"),
        "b": write(ct, folder / f"p{number}_ct.nii.gz"),
    }


def test_people_of_another_table_are_no_leak_by_their_names(tmp_path: Path) -> None:
    known = [Case("p1", "p1", "train", {"a": write(texture(0), tmp_path / "0.nii.gz")})]
    tested = [Case("p1", "p1", "train", {"a": write(texture(1), tmp_path / "1.nii.gz")})]
    assert trained_on(known, tested) == {}
    assert trained_on(known, known) == {"p1": "p1 in train and p1 in test, a: the same image, voxel for voxel"}


def test_real_brains_do_not_alarm_and_two_scans_of_one_person_do(shared: Path) -> None:
    home = shared / "nichart_t1_flair_3d2mm"
    cases = [
        Case(place.name, place.name, "", {"a": place / "t1.nii.gz", "b": place / "flair.nii.gz"})
        for place in sorted(home.iterdir())
    ]
    found = leaks(look_at(cases), lambda case: case.patient)
    assert [{leak.one.case.name, leak.other.case.name} for leak in found] == [{"Subj15", "Subj16"}]
    assert not found[0].is_proven


def test_a_table_that_is_gone_or_changed_is_told(
    tiny_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(tiny_cohort, tmp_path / "cohort"))
    run = train(folder / "tiny.yaml", out=tmp_path / "run", device="cpu")
    prediction, reference = folder / "p4_ct.nii.gz", folder / "p4_ct.nii.gz"

    def told() -> str:
        capsys.readouterr()
        evaluate(prediction, reference, run=run.path)
        return capsys.readouterr().err

    first = told()
    assert "changed since" not in first
    assert "cannot be told" not in first
    with pytest.raises(InputError, match="p0_ct was trained on: p0 in train and p0_ct in test, b: the same image"):
        evaluate(folder / "p0_ct.nii.gz", folder / "p0_ct.nii.gz", run=run.path)
    with (folder / "cases.csv").open("a") as stream:
        stream.write("p9,p9,val,p3_mr.nii.gz,p3_ct.nii.gz\n")
    assert "cases.csv has changed since" in told()
    (folder / "cases.csv").unlink()
    assert "cannot be told: the table that" in told()


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_look_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """What other processes have seen comes as copies."""
    images = {role: write(texture(seed), tmp_path / f"{role}.nii.gz") for seed, role in enumerate("ab")}
    cases = [Case(name, name, split, images) for name, split in (("p0", "train"), ("p1", "test"))]
    monkeypatch.setattr("medgan.leaks.compare.all_of", lambda part: [pickle.loads(pickle.dumps(one)) for one in part])
    seen = look_at(cases, workers=workers)
    assert [one.case for one in seen] == [cases[0], cases[0], cases[1], cases[1]]
    assert seen[0].case is seen[1].case
    assert len(leaks(seen, lambda case: case.split)) == 1
