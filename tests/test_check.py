"""check: planted faults are found and named, clean pairs are not, bad files stop nobody, and train honours the list."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import numpy as np
import pytest
from command_line import medgan as command

from medgan import Grid, Volume, check, export, read, train, write
from medgan.artefacts import artefacts
from medgan.cases import Case, read_cases, read_exclusions, write_cases
from medgan.check import _compared_with_others, examined
from medgan.errors import CasesError, OutputError, RunError
from medgan.findings import Checked, CheckedCase
from medgan.outliers import outliers
from medgan.phantom import Head, head
from medgan.plausible import doubts
from medgan.report.check import check_report


@pytest.fixture(scope="module")
def faults() -> Iterator[ModuleType]:
    """The tool that plants faults; it stands in tools/."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "tools")
        yield importlib.import_module("check_faults")


@pytest.fixture(scope="module")
def phantom() -> Head:
    """Of which no side is cut off."""
    return head(4001, grid=Grid.regular((64, 80, 36), spacing_mm=(3, 3, 5), origin_mm=(-95, -120, -85)))


def kinds(case: CheckedCase) -> list[str]:
    return [fault.kind for fault in case.faults]


def kinds_of(volume: Volume) -> list[str]:
    return [fault.kind for fault in doubts(volume)]


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_a_clean_pair_is_good_and_faults_are_named(faults: ModuleType, phantom: Head) -> None:
    other = head(4502, grid=phantom.ct.grid).ct
    planted = faults.pairs(phantom.mr, phantom.ct, other, np.random.default_rng(3))
    looked = ("clean", "shifted by 10 mm", "flipped left/right", "wrong patient")
    for fault, a, b, shift in planted:
        if fault not in looked:
            continue
        found = examined("p1", {"a": a, "b": b})
        assert found.is_excluded is (fault != "clean"), (fault, kinds(found))
        assert set(kinds(found)) >= set(faults.NAMES[fault]), (fault, kinds(found))
        assert found.pose is not None
        if fault in faults.SHIFTED_MM:
            assert found.pose.shift_mm == pytest.approx(shift, abs=1)
        if fault == "clean":
            assert found.verdict == "good"
            assert found.overlap == 1
            assert found.uncovered == pytest.approx(0, abs=0.005)


def test_a_cut_field_of_view_is_found_by_where_the_bodies_are(faults: ModuleType, phantom: Head) -> None:
    cut = faults.cut(phantom.ct, np.random.default_rng(3))
    assert "cut" in kinds(examined("p1", {"a": phantom.mr, "b": cut}))


@pytest.mark.parametrize("role", ["a", "b"])
@pytest.mark.parametrize(("axis", "end"), [(0, 0), (0, -1), (1, 0), (2, -1)])
def test_a_plane_from_which_on_an_image_is_blank_is_found(phantom: Head, role: str, axis: int, end: int) -> None:
    """In either image, though what is gone lies nowhere far from what is left; unless a mask leaves it out."""
    pair = {"a": phantom.mr, "b": phantom.ct}
    body, array = phantom.body.array, pair[role].array.copy()
    shown = np.flatnonzero(body.any(axis=tuple(k for k in range(3) if k != axis)))
    depth = round(0.2 * len(shown))
    gone = slice(shown[-1] - depth + 1, None) if end else slice(None, shown[0] + depth)
    np.moveaxis(array, axis, 0)[gone] = array.min()
    cut = pair | {role: pair[role].with_array(array)}
    found = examined("p1", cut)
    assert "cut" in kinds(found)
    assert found.uncovered == pytest.approx(np.moveaxis(body, axis, 0)[gone].sum() / body.sum(), rel=0.5)
    left = body.copy()
    np.moveaxis(left, axis, 0)[gone] = 0
    assert "cut" not in kinds(examined("p1", {**cut, "mask": phantom.body.with_array(left)}))


def test_what_a_header_says_was_not_scanned_is_not_cut(phantom: Head) -> None:
    """A shorter field of view is told by the grids; of the body within 15 mm of it nothing is lost."""
    shorter = phantom.ct.crop((0, 0, 0), (64, 80, 34))
    assert "cut" not in kinds(examined("p1", {"a": phantom.mr, "b": shorter}))


def test_another_order_of_axes_is_no_fault_and_another_grid_is(phantom: Head) -> None:
    small = {"a": phantom.mr.crop((20, 20, 10), (40, 50, 25)), "b": phantom.ct.crop((20, 20, 10), (40, 50, 25))}
    assert "grids" not in kinds(examined("p1", {**small, "b": small["b"].reorient("SPL")}))
    found = examined("p1", {**small, "b": phantom.ct.crop((20, 20, 10), (40, 35, 25))})
    assert "grids" in kinds(found)
    assert found.overlap == pytest.approx(0.5, abs=0.04)
    assert "field of view" in kinds(found)


def test_masks_are_looked_at(phantom: Head) -> None:
    mask = phantom.body.with_array(np.zeros_like(phantom.body.array)).crop((0, 0, 0), (30, 30, 30))
    found = examined("p1", {"a": phantom.mr, "mask": mask})
    assert kinds(found) == ["mask", "mask"]
    assert found.pair == ()
    assert kinds(examined("p1", {"a": phantom.mr, "mask": phantom.body.reorient("PIL")})) == []


def test_maps_of_labels_are_no_images(phantom: Head) -> None:
    """Whoever wrote them; slices of a label are alike without being copies."""
    inside = phantom.body.array
    marked = phantom.body.with_array(3 * inside, unit="label")
    unmarked = replace(phantom.body.with_array(2 * inside), unit="a.u.")
    found = examined("p1", {"a": phantom.mr, "organs": marked, "bones": unmarked})
    assert (found.pair, kinds(found), found.digests.keys()) == ((), [], {"a"})
    elsewhere = marked.crop((0, 0, 0), (30, 30, 30))
    assert kinds(examined("p1", {"a": phantom.mr, "organs": elsewhere})) == ["mask"]


def test_a_graded_mask_is_told(phantom: Head) -> None:
    mask = phantom.body.with_array((phantom.body.array * phantom.mr.array).astype(np.float32))
    found = examined("p1", {"a": phantom.mr, "mask": mask})
    assert (kinds(found), found.is_excluded) == (["mask"], False)


def test_what_breaks_a_measure_is_a_finding_of_its_case(
    table: Path, monkeypatch: pytest.MonkeyPatch, phantom: Head
) -> None:
    module, real = importlib.import_module("medgan.check"), examined

    def broken(name: str, *rest: Any, **more: Any) -> CheckedCase:
        if name == worst:
            raise ValueError("too many bins")
        return real(name, *rest, **more)

    worst = read_cases(table, required=(), present=False)[0].name
    monkeypatch.setattr(module, "examined", broken)
    found = {case.name: case for case in check(table).cases}
    assert "it cannot be looked at (too many bins)" in [fault.reason for fault in found[worst].faults]
    assert len(found) > 1


@pytest.mark.slow
def test_real_registered_pairs_are_good(shared: Path) -> None:
    for name in ("Subj02", "Subj11"):
        folder = shared / "nichart_t1_flair_3d2mm" / name
        found = examined(name, {role: read(folder / f"{role}.nii.gz") for role in ("t1", "flair")})
        assert not found.is_excluded, found.faults


# --- values and artefacts ---------------------------------------------------------------------------------------------


def test_values_that_cannot_be_what_they_are_said_to_be(faults: ModuleType, phantom: Head) -> None:
    mr, ct = phantom.mr, phantom.ct
    hu = ct.array.astype(np.int32)
    assert kinds_of(mr) == kinds_of(ct) == []
    assert kinds_of(ct.with_array(hu + 1000)) == ["offset"]
    assert kinds_of(ct.with_array(hu - 1024)) == ["offset"]
    assert kinds_of(mr.with_array(mr.array.max() - mr.array)) == ["inverted"]
    assert kinds_of(faults.ran_over(mr)) == kinds_of(faults.ran_over(ct)) == ["wrapped"]
    assert kinds_of(ct.with_array((hu + 32700).astype(np.int16))) == ["wrapped"]
    assert kinds_of(ct.with_array(np.clip(hu, -1000, 60))) == ["clipped"]
    scaled = (hu - hu.min()) / np.ptp(hu)
    assert [(one.kind, one.excludes) for one in doubts(ct.with_array(scaled))] == [("scaled", True)]
    assert [(one.kind, one.excludes) for one in doubts(mr.with_array(scaled))] == [("scaled", False)]
    assert kinds_of(ct.with_array(np.maximum(hu, -150))) == ["no air"]
    assert kinds_of(ct.with_array(np.where(hu > 900, np.nan, hu))) == ["not finite"]
    assert kinds_of(ct.with_array(np.zeros_like(hu))) == ["constant"]


def test_what_lies_beside_the_body_and_metal_are_told_in_ml(phantom: Head) -> None:
    hu = phantom.ct.array.copy()
    hu[10:50, 0:2, 5:30] = -50
    hu[30:32, 40:42, 12] = 3071
    seen = artefacts(phantom.ct.with_array(hu))
    assert seen.outside_ml == pytest.approx(40 * 2 * 25 * 45 / 1000, rel=0.1)
    assert seen.metal_ml == pytest.approx(4 * 45 / 1000)
    faults = list(seen.faults("b"))
    assert [fault.kind for fault in faults] == ["couch", "metal"]
    assert not any(fault.excludes for fault in faults)
    assert list(artefacts(phantom.ct).faults("b")) == []


def test_a_body_cut_by_a_border_is_told_with_the_side(phantom: Head) -> None:
    x, y, z = phantom.ct.array.shape
    left = artefacts(phantom.ct.crop((24, 0, 0), (x, y, z)))
    assert left.cut > 0.3
    assert left.cut_side == "left"
    back = artefacts(phantom.ct.reorient("SPL").crop((0, 0, 0), (z, y - 24, x)))
    assert back.cut_side == "back"


def test_ghosts_grow_with_what_was_planted(phantom: Head) -> None:
    values = phantom.mr.array.astype(float)

    def score(share: float, axis: int) -> float:
        ghost = np.roll(values, values.shape[axis] // 2, axis=axis)
        found = artefacts(phantom.mr.with_array(values + share * ghost)).ghosting
        assert found is not None
        return found

    assert score(0, 1) < 0.005
    assert 0.02 < score(0.05, 1) < score(0.1, 1)
    assert score(0.05, 0) > 0.02
    assert artefacts(phantom.mr.with_array(np.where(phantom.body.array, values, 0))).ghosting is None
    assert artefacts(phantom.ct).ghosting is None


def test_blank_and_repeated_slices_exclude(phantom: Head) -> None:
    blank, repeated = phantom.ct.array.copy(), phantom.ct.array.copy()
    blank[:, 30] = -1000
    repeated[..., 12] = repeated[..., 11]
    for array, number in ((blank, "1 slices"), (repeated, "1 slices")):
        (fault,) = artefacts(phantom.ct.with_array(array)).faults("b")
        assert (fault.kind, fault.excludes) == ("slices", True)
        assert fault.reason.startswith(number)


# --- the cohort -------------------------------------------------------------------------------------------------------


def test_outliers_stand_apart_by_robust_deviations() -> None:
    rng = np.random.default_rng(0)
    usual = {f"p{n}": {"a_body_ml": float(np.exp(rng.normal(8, 0.1)))} for n in range(40)}
    assert list(outliers(usual)) == []
    (found,) = outliers(usual | {"child": {"a_body_ml": 900.0}})
    logs = np.log([own["a_body_ml"] for own in usual.values()] + [900.0])
    deviation = 1.4826 * np.median(np.abs(logs - np.median(logs)))
    assert found.case == "child"
    assert found.z == pytest.approx((np.log(900) - np.median(logs)) / deviation)
    assert list(outliers({name: usual[name] for name in list(usual)[:7]} | {"child": {"a_body_ml": 9.0}})) != []
    assert list(outliers({name: usual[name] for name in list(usual)[:6]} | {"child": {"a_body_ml": 9.0}})) == []


def test_copies_are_found_within_a_case_and_between_cases() -> None:
    cases = [
        CheckedCase("p1", "p1", digests={"a": "x", "b": "y"}),
        CheckedCase("p2", "p2", digests={"a": "z", "b": "z"}),
        CheckedCase("p3", "p3", digests={"a": "w", "b": "y"}),
    ]
    found = {case.name: [fault.reason for fault in case.faults] for case in _compared_with_others(cases)}
    assert found == {"p1": [], "p2": ["a and b are the same image"], "p3": ["b is the same image as in p1"]}


# --- the verb ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, phantom: Head) -> Path:
    """A good pair, and bad files of all kinds."""
    folder = tmp_path_factory.mktemp("scans")
    four = folder / "four.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.random.default_rng(0).random((8, 8, 8, 2)), np.eye(4)), four)
    junk = folder / "junk.nii.gz"
    junk.write_bytes(b"no image")
    a, b = (write(getattr(phantom, role), folder / f"{role}.nii.gz") for role in ("mr", "ct"))
    zero = write(phantom.ct.with_array(np.zeros_like(phantom.ct.array)), folder / "zero.nii.gz")
    small = phantom.mr.crop((20, 20, 10), (28, 28, 18))
    others = [write(small.with_array(small.array + n), folder / f"other{n}.nii.gz") for n in range(3)]
    cases = [
        Case("good", "good", "train", {"a": a, "b": b}),
        Case("junk", "junk", "train", {"a": others[0], "b": junk}),
        Case("four", "four", "train", {"a": others[1], "b": four}),
        Case("zero", "zero", "val", {"a": others[2], "b": zero}),
        Case("same", "same", "test", {"a": b}),
    ]
    return write_cases(cases, folder / "cases.csv")


def test_bad_files_are_listed_and_the_others_go_on(table: Path, tmp_path: Path) -> None:
    done = command("check", table, "--hu", "b", "--out", tmp_path / "out", "--processes", "2")
    assert done.code == 1
    assert done.out.splitlines()[-1] == "4 of 5 cases should be left out"
    with (tmp_path / "out" / "findings.csv").open() as stream:
        found = [(row["case"], row["kind"]) for row in csv.DictReader(stream) if row["excludes"] == "yes"]
    assert sorted(found) == [("four", "unreadable"), ("junk", "unreadable"), ("same", "copy"), ("zero", "constant")]
    excluded = read_exclusions(tmp_path / "out" / "exclude.csv")
    assert excluded.keys() == {"four", "junk", "same", "zero"}
    assert "holds 2 volumes" in excluded["four"]
    with (tmp_path / "out" / "check.csv").open() as stream:
        rows = {row["case"]: row for row in csv.DictReader(stream)}
    assert float(rows["good"]["shift_up_mm"]) == pytest.approx(0, abs=0.5)
    assert float(rows["good"]["b_metal_ml"]) == 0
    assert rows["junk"]["shift_up_mm"] == ""
    page = (tmp_path / "out" / "report.html").read_text()
    assert 'src="http' not in page
    assert len(page) < 5e6
    assert "does not start as NIfTI does" in page


def test_one_case_and_json(table: Path) -> None:
    one = write_cases([replace(read_cases(table, required=())[4], images={"a": table.parent / "mr.nii.gz"})],
                      table.parent / "one.csv")  # fmt: skip
    done = command("check", one, "--json")
    assert done.code == 0
    (found,) = json.loads(done.out)
    assert (found["excluded"], found["pose"], found["faults"]) == (False, None, [])


def test_what_cannot_be_checked_is_refused(table: Path, tmp_path: Path) -> None:
    with pytest.raises(CasesError, match="no role ct to be in HU"):
        check(table, hu=["ct"])
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file; name a folder"):
        check(table, out=tmp_path / "file")


def test_an_interrupt_leaves_nothing(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> CheckedCase:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("medgan.check"), "examined", stopped)
    with pytest.raises(KeyboardInterrupt):
        check(table, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_page_shows_the_worst_and_tells_what_cannot_be_shown(phantom: Head, tmp_path: Path) -> None:
    images = {"a": write(phantom.mr, tmp_path / "a.nii.gz"), "b": write(phantom.ct, tmp_path / "b.nii.gz")}
    small = {role: volume.crop((20, 20, 10), (28, 28, 18)) for role, volume in (("a", phantom.mr), ("b", phantom.ct))}
    found = examined("<p1>", small)
    assert found.faults
    paired = replace(found, images=images, pair=("a", "b"))
    gone = replace(found, name="gone", images={"a": tmp_path / "nowhere.nii"}, pair=(), traces={"a": None})  # type: ignore[dict-item]
    page = check_report(Checked((paired, gone)), tmp_path / "page.html").read_text()
    assert page.count("data:image/png") == 6
    assert "&lt;p1&gt;" in page
    assert "<p1>" not in page
    assert "No picture:" in page


# --- the list that train honours --------------------------------------------------------------------------------------


def excluding(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["case,reason", *lines]) + "\n")
    return path


def test_excluded_cases_are_as_if_they_were_not_in_the_table(tiny_cohort: Path, tmp_path: Path) -> None:
    table = tiny_cohort / "cases.csv"
    names = [case.name for case in read_cases(table, exclude=excluding(tmp_path / "x.csv", "p1,far apart", "p4,"))]
    assert names == ["p0", "p2", "p3"]
    assert len(read_cases(table, exclude=excluding(tmp_path / "x.csv"))) == 5
    with pytest.raises(CasesError, match=r"names cases that are not in .*: p9; make the list from this table"):
        read_cases(table, exclude=excluding(tmp_path / "x.csv", "p9,?"))
    with pytest.raises(CasesError, match="leaves none of the 5 cases"):
        read_cases(table, exclude=excluding(tmp_path / "x.csv", *(f"p{n},bad" for n in range(5))))
    with pytest.raises(CasesError, match="a line without a case"):
        read_cases(table, exclude=excluding(tmp_path / "x.csv", ",why"))
    (tmp_path / "x.csv").write_text("name\np1\n")
    with pytest.raises(CasesError, match="lacks the column case"):
        read_cases(table, exclude=tmp_path / "x.csv")
    with pytest.raises(CasesError, match="cannot be read as a list"):
        read_cases(table, exclude=tmp_path / "nowhere.csv")


def test_a_run_records_who_was_left_out_and_why(tiny_cohort: Path, tmp_path: Path) -> None:
    exclude = excluding(tmp_path / "exclude.csv", '"p1","a, b lie 9 mm apart"')
    settings = [f"exclude={exclude}", "train.steps=2", "train.validate_every=2"]
    run = train(tiny_cohort / "tiny.yaml", settings, out=tmp_path / "run", device="cpu")
    assert run.card["num_train_patients"] == 2
    assert run.card["num_excluded_cases"] == 1
    assert read_exclusions(run.path / "excluded.csv") == {"p1": "a, b lie 9 mm apart"}
    assert train(tiny_cohort / "tiny.yaml", settings, out=tmp_path / "run", device="cpu").path == run.path
    excluding(exclude, "p2,worse")
    with pytest.raises(RunError, match=r"exclude\.csv: has changed since"):
        train(tiny_cohort / "tiny.yaml", settings, out=tmp_path / "run", device="cpu")
    with pytest.raises(RunError, match="list of cases to leave out: has changed"):
        train(tiny_cohort / "tiny.yaml", ["exclude=null", *settings[1:]], out=tmp_path / "run", device="cpu")
    shared = export(run.path, tmp_path / "shared")
    assert "p1" not in "".join(path.read_text() for path in shared.glob("*.[yj]*"))
    assert not (shared / "excluded.csv").exists()
    assert "exclude_sha256" not in (shared / "card.json").read_text()


def test_without_its_training_cases_a_table_is_refused(tiny_cohort: Path, tmp_path: Path) -> None:
    exclude = excluding(tmp_path / "exclude.csv", "p0,bad", "p1,bad", "p2,bad")
    with pytest.raises(CasesError, match="has no case in the split train"):
        train(tiny_cohort / "tiny.yaml", [f"exclude={exclude}"], out=tmp_path / "run", device="cpu")
