"""DICOM in, judged: the judge sees what is wrong, and medgan puts every stored frame where its own header says."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
from dicom_folders import make_slices, save, texts
from dicom_oracle import Case, Output, Verdict, bundled, case_of, cases_in, converted, judge, loaded, say
from dicom_tools import Run, dcm2niix, has, medgan
from dicom_truth import Frame
from messy_folders import made_up
from scipy import ndimage

Array = npt.NDArray[Any]

# What can be judged, in series and frames: fewer means that the judge has gone blind.
IN_SHARED = (50, 568)
IN_BUNDLED = (37, 324) if has("data_store") else (27, 312)
NOISE_ERROR = 60  # of the anonymised series whose pixels are noise from 0 to 254: misplaced they differ by 85


# --- the judge --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = save(made_up(), tmp_path_factory.mktemp("clean"))
    return case_of("clean", sorted(folder.iterdir()))


@pytest.fixture(scope="module")
def tilted(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A smooth CT of 30 slices that shift by 0.9 mm along y with every 2 mm that they rise."""
    k, row, column = np.indices((30, 40, 36))
    y, z = 1.5 * row + 0.9 * k, 2.0 * k
    body = (((1.5 * column - 27) / 20) ** 2 + ((y - 40) / 22) ** 2 + ((z - 29) / 26) ** 2 < 1) * 1.0
    body = ndimage.gaussian_filter(body, 1) * (1024 + 60 * np.sin(column / 3) * np.cos(y / 5))
    slices = make_slices(
        body.astype(np.uint16), modality="CT", spacing=(1.5, 1.5), step=(0, 0.9, 2.0), Manufacturer="Philips"
    )
    folder = save(slices, tmp_path_factory.mktemp("tilted"))
    return case_of("tilted", sorted(folder.iterdir()))


def ideal(frames: Sequence[Frame], step: Array | None = None) -> Output:
    """The volume of even frames by the formula alone: its axes are across, down, and the step between frames."""
    affine = np.eye(4)
    step = frames[1].origin - frames[0].origin if step is None else step
    affine[:3, :3] = np.stack([frames[0].across, frames[0].down, step], axis=1)
    affine[:3, 3] = frames[0].origin
    return Output(Path("ideal"), np.stack([frame.values.T for frame in frames], axis=-1)[..., None], affine)


def test_the_ideal_volume_is_right(clean: Case) -> None:
    verdict = judge(clean.frames, [ideal(clean.frames)])
    assert (verdict.found, verdict.equal, verdict.invented, verdict.error) == (12, 12, 0, 0)
    assert clean.shape == "even"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_axes_may_run_in_any_order_and_sense(clean: Case, order: tuple[int, int, int]) -> None:
    straight = ideal(clean.frames)
    for flips in itertools.product((False, True), repeat=3):
        array, affine = straight.array, straight.affine.copy()
        for axis in map(int, np.flatnonzero(flips)):
            array = np.flip(array, axis)
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:3, axis] *= -1
        affine[:, :3] = affine[:, order]
        verdict = judge(clean.frames, [Output(straight.path, array.transpose(*order, 3), affine)])
        assert (verdict.found, verdict.equal, verdict.invented) == (12, 12, 0)


@pytest.mark.parametrize("axis", range(3))
def test_a_flip_is_seen(clean: Case, axis: int) -> None:
    straight = ideal(clean.frames)
    verdict = judge(clean.frames, [Output(straight.path, np.flip(straight.array, axis), straight.affine)])
    assert (verdict.found, verdict.right, verdict.invented) == (0, False, 12)
    assert verdict.error > 100


def test_a_flip_of_pixels_alone_is_seen_in_a_symmetric_picture(tmp_path: Path) -> None:
    """All that tells left from right is one pixel in a corner, which is always looked at."""
    pixels = np.full((3, 100, 120), 500, np.uint16)
    pixels[:, 20:80, 30:90], pixels[:, 0, 0] = 2000, 2500
    case = case_of("one corner", sorted(save(make_slices(pixels), tmp_path).iterdir()))
    straight = ideal(case.frames)
    assert judge(case.frames, [straight]).right
    assert judge(case.frames, [Output(straight.path, np.flip(straight.array, 0), straight.affine)]).equal == 0


@pytest.mark.parametrize(("shift", "found"), [(0.04, 12), (0.06, 0)])
def test_a_twentieth_of_a_millimetre_is_the_limit(clean: Case, shift: float, found: int) -> None:
    straight = ideal(clean.frames)
    affine = straight.affine.copy()
    affine[1, 3] += shift
    assert judge(clean.frames, [Output(straight.path, straight.array, affine)]).found == found


def test_swapped_slices_are_seen(clean: Case) -> None:
    straight = ideal(clean.frames)
    order = [0, 1, 2, 4, 3, *range(5, 12)]
    verdict = judge(clean.frames, [Output(straight.path, straight.array[:, :, order], straight.affine)])
    assert (verdict.found, verdict.invented, verdict.lost) == (10, 2, ("003.dcm[0]", "004.dcm[0]"))


def test_invented_and_scaled_slices_are_told(clean: Case) -> None:
    straight = ideal(clean.frames)
    longer = np.concatenate([straight.array, straight.array[:, :, -1:]], axis=2)
    assert judge(clean.frames, [Output(straight.path, longer, straight.affine)]).invented == 1
    verdict = judge(clean.frames, [Output(straight.path, straight.array * 0.01 + 3, straight.affine)])
    assert (verdict.found, verdict.equal) == (12, 0)


def test_a_tilt_that_is_kept_is_right_and_one_that_is_lost_is_not(tilted: Case) -> None:
    assert tilted.shape == "tilted"
    kept = judge(tilted.frames, [ideal(tilted.frames)], tissue=True)
    assert (kept.found, kept.error) == (30, 0)
    lost = judge(tilted.frames, [ideal(tilted.frames, step=np.array([0.0, 0.0, 2.0]))], tissue=True)
    assert lost.found == 1
    assert lost.error > 100


def test_a_resampled_tilt_is_judged_by_what_it_shows_at_the_true_places(tilted: Case) -> None:
    """Rows moved to where they belong, between two rows: a small error where the picture is smooth, and no shift."""
    moved = np.stack(
        [
            ndimage.shift(np.pad(frame.values, ((0, 20), (0, 0)), constant_values=-1024), (0.9 * k / 1.5, 0), order=3)
            for k, frame in enumerate(tilted.frames)
        ]
    )
    straight = ideal(tilted.frames, step=np.array([0.0, 0.0, 2.0]))
    verdict = judge(tilted.frames, [Output(Path(), moved.transpose(2, 1, 0)[..., None], straight.affine)], tissue=True)
    assert verdict.found < 10
    assert verdict.error < 6
    assert verdict.covered > 0.99


@pytest.mark.parametrize(
    ("change", "shape"),
    [
        (lambda one, n: None, "even"),
        (lambda one, n: setattr(one, "ImagePositionPatient", texts([-20, -30, 10 + 2.5 * n + 0.2 * n * n])), "uneven"),
        (lambda one, n: setattr(one, "ImagePositionPatient", texts([-20, -30 + n, 10 + 2.5 * n])), "tilted"),
        (lambda one, n: setattr(one, "ImageOrientationPatient", texts([0, 1, 0, 0, 0, -1])) if n else None, "several"),
    ],
)
def test_what_the_places_of_frames_make(tmp_path: Path, change: Any, shape: str) -> None:
    slices = make_slices(np.ones((5, 6, 7), np.uint16))
    for n, one in enumerate(slices):
        change(one, n)
    assert case_of("", sorted(save(slices, tmp_path).iterdir())).shape == shape


@pytest.mark.skipif(not has("dcm2niix"), reason="dcm2niix is not installed")
def test_another_converter_is_judged_as_it_is_known_to_be(clean: Case, tilted: Case, tmp_path: Path) -> None:
    _, verdict = converted(clean, dcm2niix, tmp_path / "clean")
    assert (verdict.found, verdict.equal, verdict.invented) == (12, 12, 0)
    run, verdict = converted(tilted, dcm2niix, tmp_path / "tilted")
    assert run.code == 0
    assert verdict.found < 10
    assert verdict.error > 100


# --- medgan -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    case: Case
    run: Run
    verdict: Verdict
    problem: str


def judged(cases: Sequence[Case], folder: Path) -> Iterator[Judged]:
    for n, case in enumerate(cases):
        if case.judged:
            run, verdict = converted(case, medgan(), folder / f"{n}")
            problem = "; ".join(problems(case, run, verdict, folder / f"{n}"))
            yield Judged(case, run, verdict, problem and f"{case.name} ({case.shape}, exit {run.code}): {problem}")


def problems(case: Case, run: Run, verdict: Verdict, folder: Path) -> Iterator[str]:
    """What is not as it has to be in one conversion."""
    if "Traceback" in run.said:
        yield "a traceback"
    if not run.files and case.shape.startswith("uneven"):
        yield from refusal(case, run)
    elif case.shape.split()[0] in {"tilted", "uneven"}:
        yield from resampling(case, run, verdict, folder)
    else:
        yield from placing(case, run, verdict)
    for path in run.files:
        yield from both_forms(path)


def refusal(case: Case, run: Run) -> Iterator[str]:
    if run.code != 1:
        yield f"refused with exit code {run.code}"
    if sum(path.name in run.said for path in case.files) < 2:
        yield f"a refusal that does not name the files: {run.said[-300:]}"


def resampling(case: Case, run: Run, verdict: Verdict, folder: Path) -> Iterator[str]:
    noise = max(frame.values.max() for frame in case.frames) < -500 or "dicom2nifti" in str(case.files[0])
    if not (verdict.right or verdict.error < (NOISE_ERROR if noise else 4)):
        yield f"resampled with a mean error of {verdict.error:.2f}, {verdict.covered:.1%} inside: {run.said[-300:]}"
    if run.code not in {0, 3}:
        yield "an exit code that does not say success"
    if case.shape == "tilted":
        _, sheared = converted(case, medgan("--no-resample"), folder / "sheared")
        if (sheared.equal, sheared.invented) != (sheared.frames, 0):
            yield f"--no-resample: {sheared.equal} of {sheared.frames} slices in their place"


def placing(case: Case, run: Run, verdict: Verdict) -> Iterator[str]:
    if run.code not in {0, 3}:
        yield f"not converted: {' '.join(run.said.split())[-300:]}"
    elif verdict.equal < verdict.frames:
        lost = f"lost {', '.join(verdict.lost[:3])}" if verdict.lost else "values are scaled"
        yield f"{verdict.found} of {verdict.frames} frames in their place, {verdict.equal} equal; {lost}"
    if run.files and verdict.invented and case.shape != "mosaic":
        yield f"{verdict.invented} slices that no file holds"


def both_forms(path: Path) -> Iterator[str]:
    """What nibabel takes from a NIfTI header and what ITK takes is one place; a sheared sform has no qform."""
    image = nibabel.load(path)
    if int(image.header["qform_code"]) == 0:
        return
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    spacing, size = np.array(reader.GetSpacing())[:3], np.array(reader.GetSize())[:3]
    n = len(reader.GetOrigin())
    direction = np.array(reader.GetDirection()).reshape(n, n)[:3, :3]
    far = np.array(reader.GetOrigin())[:3] + direction @ (spacing * (size - 1))
    apart = np.linalg.norm(far * [-1, -1, 1] - image.affine[:3] @ [*(size - 1), 1])
    if apart > 0.01:
        yield f"{path.name}: sform and qform lie {apart:.3g} mm apart"


def told(found: Sequence[Judged], expected: tuple[int, int]) -> None:
    frames = sum(len(one.case.frames) for one in found)
    right = sum(one.verdict.right for one in found)
    say(f"judged {len(found)} series, {frames} frames; {right} series right without resampling")
    wrong = [one.problem for one in found if one.problem]
    assert not wrong, "\n".join(["", *wrong])
    assert (len(found), frames) == expected


def test_every_frame_of_the_shared_scans_is_where_its_header_says(shared: Path, tmp_path: Path) -> None:
    told(list(judged(list(cases_in(shared / "dicom")), tmp_path)), IN_SHARED)


@pytest.fixture(scope="module")
def bundled_cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """What pydicom, pydicom-data and nibabel bring along."""
    return [case for root in bundled(tmp_path_factory.mktemp("bundled")) for case in cases_in(root)]


def test_every_frame_of_the_bundled_scans_is_where_its_header_says(bundled_cases: list[Case], tmp_path: Path) -> None:
    told(list(judged(bundled_cases, tmp_path)), IN_BUNDLED)


def test_what_cannot_be_judged_is_told_with_its_reason(bundled_cases: list[Case]) -> None:
    reasons = {case.reason for case in bundled_cases if not case.judged}
    assert {"colour (RGB)", "no place in the patient", "no image (RT Dose Storage)", "localizer"} <= reasons
    assert "" not in reasons


def test_gradients_and_times_are_those_of_the_frames(shared: Path, tmp_path: Path) -> None:
    """b-values and directions of Philips' files, which state them in the standard's own attributes."""
    compared = 0
    for case in cases_in(shared / "dicom"):
        if not case.judged or not any(frame.b_value for frame in case.frames):
            continue
        run, verdict = converted(case, medgan(), tmp_path / str(compared))
        assert run.code in {0, 3}, run.said
        for frame, slots in zip(case.frames, verdict.places, strict=True):
            assert any(gradient_agrees(frame, run.files[slot.volume], slot.time) for slot in slots), (
                f"{case.name}: {frame.name} b {frame.b_value} {frame.gradient}"
            )
        compared += 1
    assert compared >= 4


def gradient_agrees(frame: Frame, path: Path, time: int) -> bool:
    """FSL's convention: b-vectors along the image's axes, the first negated where the affine's determinant is > 0."""
    bval, bvec = (path.with_name(path.name.replace(".nii.gz", ending)) for ending in (".bval", ".bvec"))
    if not bval.is_file() or not bvec.is_file():
        return False
    value, vector = np.atleast_1d(np.loadtxt(bval))[time], np.loadtxt(bvec).reshape(3, -1)[:, time]
    if abs(value - (frame.b_value or 0)) > 0.5:
        return False
    if not value or frame.gradient is None or not frame.gradient.any():
        return True
    affine = loaded(path).affine[:3, :3]
    axes = affine / np.linalg.norm(affine, axis=0)
    vector = vector * [-1 if np.linalg.det(axes) > 0 else 1, 1, 1]
    return bool(abs(axes @ vector @ frame.gradient / np.linalg.norm(frame.gradient)) > np.cos(np.radians(0.5)))
