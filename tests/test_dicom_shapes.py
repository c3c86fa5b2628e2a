"""All shapes that a series can have, at any orientation and in any order of files, judged by where its frames lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from dicom_folders import make_slices, save, texts
from dicom_objects import Part, enhanced_mr, mosaic
from dicom_oracle import Output, Verdict, case_of, indices_of, inside_by_a_hair, judge, loaded
from dicom_tools import Run, medgan
from dicom_truth import Frame
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import generate_uid
from scipy import ndimage
from scipy.spatial.transform import Rotation

Array = npt.NDArray[Any]
Random = np.random.Generator
SOME = settings(max_examples=8, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
SEEDS = st.integers(0, 10**6)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shapes")


def turned(rng: Random, straight: bool) -> Array:
    """(3, 3): LPS directions along a row, along a column, and along the normal."""
    if not straight:
        return np.asarray(Rotation.random(random_state=int(rng.integers(10**6))).as_matrix())
    turn = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)[:, None]
    turn[2] = np.cross(turn[0], turn[1])
    return np.asarray(turn)


def noise(rng: Random, *shape: int) -> Array:
    return rng.integers(0, 4000, shape).astype(np.uint16)


def common() -> dict[str, str]:
    return {key: generate_uid() for key in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")}


def converted(objects: Sequence[Dataset], home: Path, *flags: str) -> tuple[Run, list[Frame], list[Output], Verdict]:
    folder = home / generate_uid()
    save(objects, folder / "in", pattern="{:04d}")
    run = medgan(*flags)(folder / "in", folder / "out")
    case = case_of("", sorted((folder / "in").iterdir()))
    assert case.judged, case.reason
    outputs = [loaded(path) for path in run.files]
    return run, list(case.frames), outputs, judge(case.frames, outputs)


def all_in_place(run: Run, verdict: Verdict, volumes: int = 1) -> None:
    assert run.code in {0, 3}, run.said
    assert (verdict.found, verdict.equal, verdict.invented) == (verdict.frames, verdict.frames, 0), run.said
    assert len(run.files) == volumes, run.said


# --- stacks that no straight grid fits --------------------------------------------------------------------------------


def linear_slices(turn: Array, origins: Array, shape: tuple[int, int], spacing: float, slope: Array) -> list[Dataset]:
    """Slices of a picture whose values rise linearly through space: right interpolation shows it as it is."""
    row, column = np.indices(shape)
    slices = make_slices(np.zeros((len(origins), *shape), np.uint16), directions=turn[:2], spacing=(spacing, spacing))
    for one, origin in zip(slices, origins, strict=True):
        places = origin + column[..., None] * spacing * turn[0] + row[..., None] * spacing * turn[1]
        one.ImagePositionPatient = texts(origin)
        one.PixelData = np.rint(20000 + (places - origins.mean(0)) @ slope).astype("<u2").tobytes()
    return slices


def errors(frames: Sequence[Frame], output: Output) -> Array:
    """|difference| at the true place of each pixel; NaN outside of the volume."""
    found = []
    for frame in frames:
        rows, columns = (index.ravel() for index in np.indices(frame.values.shape))
        indices = inside_by_a_hair(indices_of(frame.places(rows, columns), output.affine), output).T
        seen = ndimage.map_coordinates(output.array[..., 0].astype(float), indices, order=1, cval=np.nan)
        found.append(np.abs(seen - frame.values.ravel()))
    return np.concatenate(found)


@SOME
@given(seed=SEEDS, straight=st.booleans(), tilt=st.floats(2, 28), sideways=st.booleans(), sign=st.sampled_from([-1, 1]))
def test_a_tilted_stack(home, seed, straight, tilt, sideways, sign):  # noqa: PLR0917
    rng = np.random.default_rng(seed)
    turn, gap = turned(rng, straight), rng.uniform(1.5, 4)
    step = gap * (turn[2] + sign * np.tan(np.radians(tilt)) * turn[0 if sideways else 1])
    origins = rng.uniform(-100, 100, 3) + np.arange(14)[:, None] * step
    slices = linear_slices(turn, origins, (20, 22), 2.0, 60 * turn[1] - 35 * turn[0] + 20 * turn[2])
    slices = [slices[n] for n in rng.permutation(len(slices))]

    run, _, _, verdict = converted(slices, home, "--no-resample")
    all_in_place(run, verdict)

    run, frames, outputs, verdict = converted(slices, home)
    assert run.code in {0, 3}, run.said
    assert "resampled" in run.said
    (output,) = outputs
    axes = output.affine[:3, :3] / np.linalg.norm(output.affine[:3, :3], axis=0)
    assert np.abs(axes.T @ axes - np.eye(3)).max() < 1e-4, "right angles"
    seen = errors(frames, output)
    assert np.isfinite(seen).mean() > 0.95, "nothing is cut off"
    assert np.nanmedian(seen) < 1, "whole numbers are rounded twice"
    assert np.nanpercentile(seen, 80) < 2, "but for the border, where air is mixed in"


@SOME
@given(seed=SEEDS, straight=st.booleans())
def test_uneven_gaps(home, seed, straight):
    rng = np.random.default_rng(seed)
    turn = turned(rng, straight)
    heights = np.cumsum([0, *np.repeat([2.0, 2.0 + rng.uniform(0.3, 0.8), 4.0 + rng.uniform(0.3, 0.7)], 4)])
    origins = rng.uniform(-100, 100, 3) + heights[:, None] * turn[2]
    slices = linear_slices(turn, origins, (12, 14), 2.0, 60 * turn[1] - 35 * turn[0] + 90 * turn[2])
    run, frames, outputs, _ = converted([slices[n] for n in rng.permutation(len(slices))], home)
    assert run.code == 3, run.said
    assert "resampled" in run.said
    (output,) = outputs
    seen = errors(frames, output)
    assert np.isfinite(seen).mean() > 0.99
    assert np.nanmax(seen) < 2, "a linear picture stays what it is"


# --- several images at one place --------------------------------------------------------------------------------------


@SOME
@given(seed=SEEDS, straight=st.booleans(), times=st.integers(1, 4), places=st.integers(2, 5), scaled=st.booleans())
def test_frames_of_an_enhanced_object_in_any_order(home, seed, straight, times, places, scaled):  # noqa: PLR0917
    rng = np.random.default_rng(seed)
    turn, origin, gap = turned(rng, straight), rng.uniform(-200, 200, 3), rng.uniform(0.5, 6)
    parts = [
        Part(
            noise(rng, 6, 7),
            origin + k * gap * turn[2],
            (turn[0], turn[1]),
            stack=k + 1,
            time=t + 1,
            slope=1 + 0.25 * k * scaled,
        )
        for t in range(times)
        for k in range(places)
    ]
    parts = [parts[n] for n in rng.permutation(len(parts))]
    run, _, outputs, verdict = converted([enhanced_mr(parts, spacing=(1.25, 0.75), gap=gap)], home)
    all_in_place(run, verdict)
    assert outputs[0].array.shape[3] == times
    for part, (slot, *_) in zip(parts, verdict.places, strict=True):
        assert slot.time == part.time - 1


@SOME
@given(
    seed=SEEDS,
    straight=st.booleans(),
    times=st.integers(2, 4),
    key=st.sampled_from(["TemporalPositionIdentifier", "AcquisitionTime", "AcquisitionNumber", "InstanceNumber"]),
)
def test_times_of_a_classic_series_in_any_order(home, seed, straight, times, key):
    """Told apart by one attribute alone, whichever it is."""
    rng = np.random.default_rng(seed)
    turn, uids, slices = turned(rng, straight), common(), []
    origin, gap = rng.uniform(-200, 200, 3), rng.uniform(0.5, 6)
    for time in range(times):
        for k, one in enumerate(make_slices(noise(rng, 4, 6, 7), directions=turn[:2], origin=origin, gap=gap, **uids)):
            one.InstanceNumber = 1 + (4 * time + k if key == "InstanceNumber" else k)
            if key != "InstanceNumber":
                setattr(one, key, f"1011{time:02d}" if key == "AcquisitionTime" else time + 1)
            slices.append((time, one))
    slices = [slices[n] for n in rng.permutation(len(slices))]
    run, _, outputs, verdict = converted([one for _, one in slices], home)
    all_in_place(run, verdict)
    assert outputs[0].array.shape[3] == times
    assert [places[0].time for places in verdict.places] == [time for time, _ in slices]


APART: dict[str, list[dict[str, Any]]] = {
    "echoes": [{"EchoTime": "4.6", "EchoNumbers": "1"}, {"EchoTime": "9.2", "EchoNumbers": "2"}],
    "magnitude and phase": [
        {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]},
    ],
    "real and imaginary": [
        {"ImageType": ["ORIGINAL", "PRIMARY", "R_FFE", "R", "FFE"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "I_FFE", "I", "FFE"]},
    ],
}


@SOME
@given(seed=SEEDS, straight=st.booleans(), what=st.sampled_from(sorted(APART)))
def test_what_is_not_one_image_becomes_several_files(home, seed, straight, what):
    rng = np.random.default_rng(seed)
    turn, uids, slices = turned(rng, straight), common(), []
    for n, attributes in enumerate(APART[what]):
        made = make_slices(noise(rng, 4, 6, 7), directions=turn[:2], **uids)
        for k, one in enumerate(made):
            one.InstanceNumber = 1 + 4 * n + k
            one.update(attributes)
        slices += [(n, one) for one in made]
    slices = [slices[n] for n in rng.permutation(len(slices))]
    run, _, _, verdict = converted([one for _, one in slices], home)
    all_in_place(run, verdict, volumes=2)
    volumes = {(which, places[0].volume) for (which, _), places in zip(slices, verdict.places, strict=True)}
    assert len(volumes) == 2


@SOME
@given(seed=SEEDS, straight=st.booleans(), what=st.sampled_from(["echoes", "kinds"]))
def test_frames_of_several_images_become_several_files(home, seed, straight, what):
    rng = np.random.default_rng(seed)
    turn, kinds = turned(rng, straight), ("MAGNITUDE", "PHASE") if what == "kinds" else ("MAGNITUDE",) * 2
    parts = [
        Part(
            noise(rng, 6, 7),
            3.0 * k * turn[2],
            (turn[0], turn[1]),
            stack=k + 1,
            echo_ms=5.0 * (1 + n * (what == "echoes")),
            kind=kinds[n],
        )
        for n in range(2)
        for k in range(4)
    ]
    order = rng.permutation(len(parts))
    run, _, _, verdict = converted([enhanced_mr([parts[n] for n in order])], home)
    all_in_place(run, verdict, volumes=2)
    assert len({(int(n) // 4, places[0].volume) for n, places in zip(order, verdict.places, strict=True)}) == 2


@SOME
@given(seed=SEEDS, straight=st.booleans(), directions=st.integers(2, 5))
def test_diffusion_in_an_enhanced_object(home, seed, straight, directions):
    """b-values and vectors stand beside the volumes that they belong to."""
    rng = np.random.default_rng(seed)
    turn, vectors = turned(rng, straight), Rotation.random(directions, random_state=seed).as_matrix()[:, 0]
    weights: list[tuple[float, Any]] = [(0.0, None), *((1000.0, list(map(float, vector))) for vector in vectors)]
    parts = [
        Part(
            noise(rng, 6, 7), 3.0 * k * turn[2], (turn[0], turn[1]), stack=k + 1, time=t + 1, b_value=b, gradient=vector
        )
        for t, (b, vector) in enumerate(weights)
        for k in range(3)
    ]
    run, frames, outputs, verdict = converted([enhanced_mr([parts[n] for n in rng.permutation(len(parts))])], home)
    all_in_place(run, verdict)
    base = str(run.files[0]).removesuffix(".nii.gz")
    values, table = np.loadtxt(base + ".bval"), np.loadtxt(base + ".bvec")
    axes = outputs[0].affine[:3, :3] / np.linalg.norm(outputs[0].affine[:3, :3], axis=0)
    sign = [-1 if np.linalg.det(axes) > 0 else 1, 1, 1]
    for frame, places in zip(frames, verdict.places, strict=True):
        time = places[0].time
        assert values[time] == pytest.approx(frame.b_value)
        if frame.gradient is not None:
            assert abs(axes @ (table[:, time] * sign) @ frame.gradient) > 1 - 1e-4


# --- mosaics ----------------------------------------------------------------------------------------------------------


@SOME
@given(
    seed=SEEDS,
    straight=st.booleans(),
    count=st.integers(2, 17),
    times=st.integers(1, 3),
    along=st.sampled_from([-1, 1]),
)
def test_tiles_of_a_mosaic(home, seed, straight, count, times, along):  # noqa: PLR0917
    rng = np.random.default_rng(seed)
    turn, origin, uids = turned(rng, straight), rng.uniform(-100, 100, 3), common()
    plane = {"directions": (turn[0], turn[1]), "spacing": (2.5, 1.75), "gap": 3.3, "along": along}
    made = [mosaic(noise(rng, count, 8, 9), origin=origin, number=t + 1, **plane, **uids) for t in range(times)]
    order = rng.permutation(times)
    run, frames, outputs, verdict = converted([made[t] for t in order], home)
    all_in_place(run, verdict)
    assert outputs[0].array.shape[3] == times
    assert [places[0].time for places in verdict.places] == [int(t) for t in np.repeat(order, count)]
    assert len(frames) == count * times
