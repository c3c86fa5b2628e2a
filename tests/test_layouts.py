"""index --layout: BIDS, the Decathlon and SynthRAD are found by their own rules, and what they lack is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medgan.cases import Case, read_cases
from medgan.errors import CasesError, InputError, MedganError
from medgan.formats import write
from medgan.index import index
from medgan.volume import Grid, Volume

GRID = Grid.regular((6, 5, 4), spacing_mm=(1, 2, 3))
random_of = np.random.default_rng(0)


def scans(folder: Path, *places: str) -> Path:
    """Scans that are like no others."""
    for place in places:
        write(Volume(random_of.integers(0, 999, GRID.shape).astype(np.int16), GRID), folder / place)
    return folder


def found(folder: Path, layout: str, **options: Any) -> list[Case]:
    cases = index(folder, layout=layout, out=folder / "cases.csv", **options)
    assert read_cases(folder / "cases.csv", required=()) == cases
    return cases


def refusal(folder: Path, layout: str, kind: type[MedganError] = CasesError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        index(folder, layout=layout, out=folder / "cases.csv", **options)
    assert "\n" not in str(caught.value)
    assert not (folder / "cases.csv").exists()
    return str(caught.value)


def test_another_layout_is_refused(tmp_path: Path) -> None:
    said = refusal(tmp_path, "xnat", InputError, a="a", b="b")
    assert "unknown layout 'xnat' (accepted: patterns, bids, decathlon, synthrad, dicom)" in said


# --- BIDS -------------------------------------------------------------------------------------------------------------

PAIR: dict[str, Any] = {"a": "T1w", "b": "FLAIR"}


def subject(folder: Path, name: str, *sessions: str) -> Path:
    for session in sessions or ("",):
        place = f"sub-{name}/{session + '/' * bool(session)}anat/sub-{name}_{session + '_' * bool(session)}"
        scans(folder, f"{place}T1w.nii.gz", f"{place}FLAIR.nii.gz")
    return folder


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    for name in ("01", "02", "03"):
        subject(tmp_path, name)
    (tmp_path / "participants.tsv").write_text("participant_id\nsub-01\n")
    return tmp_path


def test_bids_without_sessions(bids: Path) -> None:
    cases = found(bids, "bids", **PAIR)
    assert [(case.name, case.patient) for case in cases] == [(f"sub-0{n}", f"sub-0{n}") for n in (1, 2, 3)]
    assert cases[0].images == {
        "a": bids / "sub-01/anat/sub-01_T1w.nii.gz",
        "b": bids / "sub-01/anat/sub-01_FLAIR.nii.gz",
    }


@pytest.mark.parametrize("seed", range(4))
def test_two_sessions_are_two_cases_of_one_patient(bids: Path, seed: int) -> None:
    subject(bids, "04", "ses-pre", "ses-post")
    *others, post, pre = found(bids, "bids", seed=seed, **PAIR)
    assert (pre.name, pre.patient, post.name, post.patient) == ("sub-04_ses-pre", "sub-04", "sub-04_ses-post", "sub-04")
    assert pre.images["a"] == bids / "sub-04/ses-pre/anat/sub-04_ses-pre_T1w.nii.gz"
    assert pre.split == post.split
    assert len(others) == 3


def test_entities_choose(bids: Path) -> None:
    for name in ("01", "02", "03"):
        scans(bids, f"sub-{name}/anat/sub-{name}_acq-hr_run-1_T1w.nii.gz")
    assert found(bids, "bids", **PAIR)[0].images["a"].name == "sub-01_T1w.nii.gz"
    assert found(bids, "bids", a="acq-hr_T1w", b="FLAIR")[0].images["a"].name == "sub-01_acq-hr_run-1_T1w.nii.gz"


def test_plain_niftis_are_found(tmp_path: Path) -> None:
    scans(tmp_path, "sub-1/anat/sub-1_T1w.nii", "sub-1/anat/sub-1_FLAIR.nii")
    assert found(tmp_path, "bids", **PAIR)[0].images["a"].name == "sub-1_T1w.nii"


def test_derivatives_are_named_by_their_tree(bids: Path) -> None:
    for name in ("01", "02", "03"):
        scans(bids, f"derivatives/reg/sub-{name}/anat/sub-{name}_space-T1w_FLAIR.nii.gz")
        scans(bids, f"derivatives/brains/sub-{name}/anat/sub-{name}_desc-brain_mask.nii.gz")
    images = {"b": "derivatives/reg/space-T1w_FLAIR", "mask": "derivatives/brains/desc-brain_mask"}
    case = found(bids, "bids", a="T1w", **images)[0]
    assert case.images["b"] == bids / "derivatives/reg/sub-01/anat/sub-01_space-T1w_FLAIR.nii.gz"
    assert case.images["mask"] == bids / "derivatives/brains/sub-01/anat/sub-01_desc-brain_mask.nii.gz"


def test_bids_has_contrasts_and_images_of_samplers(bids: Path) -> None:
    scans(bids, "sub-02/anat/sub-02_T2w.nii.gz")
    cases = found(bids, "bids", contrasts={"t2": "T2w"}, **PAIR)
    assert [sorted(case.images) for case in cases] == [["a", "b"], ["a", "b", "t2"], ["a", "b"]]
    assert [list(case.images) for case in found(bids, "bids", images={"t1": "T1w"})] == [["t1"]] * 3


def test_several_runs_are_refused_with_the_way_out(bids: Path) -> None:
    (bids / "sub-02/anat/sub-02_T1w.nii.gz").unlink()
    scans(bids, "sub-02/anat/sub-02_run-1_T1w.nii.gz", "sub-02/anat/sub-02_run-2_T1w.nii.gz")
    said = refusal(bids, "bids", **PAIR)
    assert "sub-02 has 2 images named T1w, wanted as a: sub-02_run-1_T1w.nii.gz; sub-02_run-2_T1w.nii.gz" in said
    assert "choose by naming what tells them apart: run-2_T1w" in said


def test_an_image_in_two_formats_is_refused(bids: Path) -> None:
    scans(bids, "sub-02/anat/sub-02_T1w.nii")
    said = refusal(bids, "bids", **PAIR)
    assert "sub-02_T1w.nii; sub-02_T1w.nii.gz; remove one of them" in said


def test_an_unknown_suffix_is_refused_with_what_is_there(bids: Path) -> None:
    scans(bids, "sub-02/anat/sub-02_acq-hr_T1w.nii.gz")
    said = refusal(bids, "bids", a="T1w", b="PDw")
    assert "no image is named PDw, wanted as b; there are: FLAIR (3); T1w (3); acq-hr_T1w (1)" in said


def test_suffixes_are_not_found_within_others(bids: Path) -> None:
    assert "no image is named 1w" in refusal(bids, "bids", a="1w", b="FLAIR")
    assert "no image is named acq-h_T1w" in refusal(bids, "bids", a="acq-h_T1w", b="FLAIR")


@pytest.mark.parametrize("name", ["T1w.nii.gz", "{patient}", "acq_T1w_", ""])
def test_what_is_no_bids_name_is_refused(bids: Path, name: str) -> None:
    assert "is no BIDS name" in refusal(bids, "bids", a=name, b="FLAIR")


def test_other_folders_are_no_bids(tmp_path: Path) -> None:
    assert "has no folders sub-…" in refusal(tmp_path, "bids", **PAIR)
    scans(tmp_path, "P1/t1.nii.gz")
    assert f"{tmp_path} holds: P1/" in refusal(tmp_path, "bids", **PAIR)


def test_a_tree_that_is_not_there_is_refused(bids: Path) -> None:
    said = refusal(bids, "bids", a="T1w", b="derivatives/reg/FLAIR")
    assert f"{bids / 'derivatives/reg'}: has no folders sub-…" in said
    assert "participants.tsv; sub-01/; sub-02/; sub-03/" in said


def test_incomplete_sessions_are_listed(bids: Path) -> None:
    (bids / "sub-03/anat/sub-03_FLAIR.nii.gz").unlink()
    assert "incomplete cases: sub-03 has no b" in refusal(bids, "bids", **PAIR)
    assert [list(case.images) for case in found(bids, "bids", unpaired=True, **PAIR)][2] == ["a"]


# --- Decathlon --------------------------------------------------------------------------------------------------------

MRI = {"0": "FLAIR", "1": "T1w"}


def task(folder: Path, modality: object = MRI, **entries: object) -> Path:
    training = [{"image": f"./imagesTr/x{n}.nii.gz", "label": f"./labelsTr/x{n}.nii.gz"} for n in range(3)]
    table = {"modality": modality, "training": training, "test": ["./imagesTs/x9.nii.gz"]} | entries
    (folder / "dataset.json").write_text(json.dumps(table))
    for n in range(3):
        scans(folder, f"imagesTr/x{n}_0000.nii.gz", f"imagesTr/x{n}_0001.nii.gz", f"labelsTr/x{n}.nii.gz")
    return scans(folder, "imagesTs/x9_0000.nii.gz", "imagesTs/x9_0001.nii.gz")


def test_modalities_are_roles(tmp_path: Path) -> None:
    cases = found(task(tmp_path), "decathlon", a="t1w", b="FLAIR")
    assert [case.name for case in cases] == ["x0", "x1", "x2", "x9"]
    assert cases[0].images == {"a": tmp_path / "imagesTr/x0_0001.nii.gz", "b": tmp_path / "imagesTr/x0_0000.nii.gz"}
    assert cases[3].images["a"] == tmp_path / "imagesTs/x9_0001.nii.gz"


def test_with_labels_only_what_has_them(tmp_path: Path) -> None:
    cases = found(task(tmp_path), "decathlon", a="T1w", b="FLAIR", mask="label")
    assert [case.name for case in cases] == ["x0", "x1", "x2"]
    assert cases[0].images["mask"] == tmp_path / "labelsTr/x0.nii.gz"


def test_one_modality_in_one_file(tmp_path: Path) -> None:
    entries = [{"image": f"./imagesTr/x{n}_0000.nii.gz", "label": ""} for n in range(3)]
    cases = found(task(tmp_path, {"0": "CT"}, training=entries, test=[]), "decathlon", images={"ct": "CT"})
    assert cases[0].images == {"ct": tmp_path / "imagesTr/x0_0000.nii.gz"}


def test_lists_of_images(tmp_path: Path) -> None:
    entries = [{"image": [f"imagesTr/x{n}_0000.nii.gz", f"imagesTr/x{n}_0001.nii.gz"]} for n in range(3)]
    cases = found(task(tmp_path, training=entries, test=[]), "decathlon", a="T1w", b="FLAIR")
    assert (cases[1].name, cases[1].images["a"]) == ("x1", tmp_path / "imagesTr/x1_0001.nii.gz")
    entries[0]["image"] += ["imagesTr/x0_0002.nii.gz"]
    (tmp_path / "cases.csv").unlink()
    said = refusal(task(tmp_path, training=entries, test=[]), "decathlon", a="T1w", b="FLAIR")
    assert "x0 has 3 images, but there are 2 modalities" in said


def test_a_4d_image_is_refused_and_the_advice_helps(tmp_path: Path) -> None:
    """What the message tells to do is done, and then it works."""
    both = [nib.load(tmp_path / f"imagesTr/x0_000{n}.nii.gz") for n in range(2) if task(tmp_path)]
    nib.save(nib.concat_images(both), tmp_path / "imagesTr/x0.nii.gz")
    for n in range(2):
        (tmp_path / f"imagesTr/x0_000{n}.nii.gz").unlink()
    said = refusal(tmp_path, "decathlon", a="T1w", b="FLAIR")
    assert "imagesTr/x0.nii.gz: is one file for 2 modalities (FLAIR, T1w), a 4-D image" in said
    assert "nibabel.four_to_three or fslsplit, into files named x0_0000.nii.gz, x0_0001.nii.gz" in said
    for n, channel in enumerate(nib.four_to_three(nib.load(tmp_path / "imagesTr/x0.nii.gz"))):
        nib.save(channel, tmp_path / f"imagesTr/x0_000{n}.nii.gz")
    assert found(tmp_path, "decathlon", a="T1w", b="FLAIR")[0].images["a"].name == "x0_0001.nii.gz"


def test_an_unknown_modality_is_refused_with_what_is_there(tmp_path: Path) -> None:
    said = refusal(task(tmp_path), "decathlon", a="T2w", b="FLAIR")
    assert "has no modality 'T2w', wanted as a; there are: FLAIR, T1w, label" in said


def test_files_that_are_not_there_are_listed(tmp_path: Path) -> None:
    (task(tmp_path) / "imagesTr/x1_0000.nii.gz").unlink()
    said = refusal(tmp_path, "decathlon", a="T1w", b="FLAIR")
    assert "x1, b: " in said
    assert "imagesTr/x1.nii.gz: does not exist" in said


def test_a_folder_without_its_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Task01").mkdir()
    said = refusal(tmp_path, "decathlon", a="T1w", b="FLAIR")
    assert "has no dataset.json; give the folder of one task. It holds: Task01/" in said


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"training": None}, "has no list `training`"),
        ({"training": [{"label": "x.nii.gz"}]}, "entries without an `image`"),
        ({"training": [5]}, "entries without an `image`"),
        ({"training": [], "test": []}, "names no image"),
        ({"training": ["a/x.nii.gz"], "test": ["b/x.nii.gz"]}, "names images twice: x"),
        ({"modality": ["FLAIR", "T1w"]}, "has no `modality` such as"),
        ({"modality": {"1": "FLAIR", "2": "T1w"}}, "has no `modality` such as"),
    ],
)
def test_a_broken_table_is_refused(tmp_path: Path, entries: dict[str, object], said: str) -> None:
    assert said in refusal(task(tmp_path, **{"modality": MRI} | entries), "decathlon", a="T1w", b="FLAIR")


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff"])
def test_a_table_that_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.json").write_bytes(text.encode(errors="surrogateescape"))
    said = refusal(tmp_path, "decathlon", a="T1w", b="FLAIR")
    assert "cannot be read" in said or "is no table of the Decathlon" in said


# --- SynthRAD ---------------------------------------------------------------------------------------------------------


def patients(folder: Path, *names: str, source: str = "mr", extension: str = ".nii.gz") -> Path:
    for name in names:
        scans(folder, *(f"{name}/{image}{extension}" for image in (source, "ct", "mask")))
    return folder


def test_synthrad_needs_no_names(tmp_path: Path) -> None:
    patients(tmp_path, "Task1/pelvis/1PA001", "Task1/pelvis/1PC002", "Task1/brain/1BB003")
    (tmp_path / "Task1/brain/overview").mkdir()
    (tmp_path / "Task1/brain/overview/1BB003.png").touch()
    cases = found(tmp_path, "synthrad")
    assert [(case.name, case.patient) for case in cases] == [(name, name) for name in ("1BB003", "1PA001", "1PC002")]
    place = tmp_path / "Task1/pelvis/1PA001"
    assert cases[1].images == {
        "a": place / "mr.nii.gz",
        "b": place / "ct.nii.gz",
        "mask": place / "mask.nii.gz",
    }
    assert [case.conditions for case in cases] == [
        {"region": "brain", "centre": "B"},
        {"region": "pelvis", "centre": "A"},
        {"region": "pelvis", "centre": "C"},
    ]


@pytest.mark.parametrize(("name", "region"), [("2HNA001", "head-neck"), ("2ABB02", "abdomen"), ("2THE113", "thorax")])
def test_synthrad_2025(tmp_path: Path, name: str, region: str) -> None:
    (case,) = found(patients(tmp_path, name, source="cbct", extension=".mha"), "synthrad")
    assert case.images["a"] == tmp_path / name / "cbct.mha"
    assert case.conditions == {"region": region, "centre": name[3]}


def test_other_names_of_patients_tell_nothing(tmp_path: Path) -> None:
    assert [case.conditions for case in found(patients(tmp_path, "P1", "3PA001"), "synthrad")] == [{}, {}]


def test_what_is_known_is_added_to_what_the_name_tells(tmp_path: Path) -> None:
    (tmp_path / "known.csv").write_text("patient,field\n1PA001,1.5\n")
    (case,) = found(patients(tmp_path, "1PA001"), "synthrad", conditions=tmp_path / "known.csv")
    assert case.conditions == {"region": "pelvis", "centre": "A", "field": "1.5"}


def test_both_tasks_need_a_choice(tmp_path: Path) -> None:
    patients(tmp_path, "Task1/1PA001")
    patients(tmp_path, "Task2/2PA001", source="cbct")
    assert "has mr and cbct; say which to translate from (--a)" in refusal(tmp_path, "synthrad")
    assert "incomplete cases: 1PA001 has no a" in refusal(tmp_path, "synthrad", a="cbct")
    assert [case.name for case in found(tmp_path / "Task2", "synthrad")] == ["2PA001"]


def test_patients_without_a_target_are_refused(tmp_path: Path) -> None:
    patients(tmp_path, "1PA001", "1PA002")
    (tmp_path / "1PA002/ct.nii.gz").unlink()
    assert "incomplete cases: 1PA002 has no b" in refusal(tmp_path, "synthrad")


def test_images_of_samplers(tmp_path: Path) -> None:
    cases = found(patients(tmp_path, "1PA001", "1PA002"), "synthrad", images={"ct": "ct"})
    assert [list(case.images) for case in cases] == [["ct"], ["ct"]]


def test_unknown_images_are_refused_with_what_is_there(tmp_path: Path) -> None:
    patients(tmp_path, "1PA001")
    assert "has no images called pet (as b); there are: ct, mask, mr" in refusal(tmp_path, "synthrad", b="pet")
    assert "has no images called mr or cbct; there are: t1" in refusal(
        scans(tmp_path / "other", "P1/t1.nii.gz"), "synthrad"
    )


def test_other_folders_are_no_synthrad(tmp_path: Path) -> None:
    assert "has no folders with images" in refusal(tmp_path, "synthrad")


def test_one_patient_in_two_places_is_refused(tmp_path: Path) -> None:
    patients(tmp_path, "old/1PA001", "new/1PA001")
    assert "patients are there twice" in refusal(tmp_path, "synthrad")
