"""The way of a voxel: a marker in a DICOM series goes to the network and comes back in a new series, where it was.

Where it is, is told by arithmetic on the attributes of the files, not by medgan.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import torch
from command_line import untrained_run
from dicom_folders import make_slices, save
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from medgan import Grid, Volume, read, write
from medgan.formats.dicom import Subject
from medgan.prep import Intensity, from_network, network_grid, to_network
from medgan.run import Run
from medgan.translate import translate_volume

Array = npt.NDArray[Any]

MR = Intensity(modality="MR", times_median=(0, 2))
CT = Intensity(modality="CT", unit="HU", range=(-1000, 1000))
# In air of 0 a body of 100 with a marker of 150: to the network -1, 0 and 0.5, as CT -1000, 0 and 500 HU.
AIR, BODY, MARKER = 0, 100, 150
MARKER_NETWORK, MARKER_HU = 0.5, 500
PLACE = (2, 6, 4)  # slice, row, column: in no middle, so that every flip shows
SHAPE = (7, 9, 10)
AXES = [sign * np.eye(3)[axis] for axis in range(3) for sign in (1.0, -1.0)]
PLANES = [(row, column) for row, column in itertools.product(AXES, AXES) if not row @ column]
ORDERS = ["".join(letters) for p in itertools.permutations(("RL", "AP", "SI")) for letters in itertools.product(*p)]
NEAR_MM = 0.05
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


class Identity(torch.nn.Module):
    """A translator that changes nothing."""

    def translate(self, x: Tensor, to: str = "b") -> Tensor:
        return x


@pytest.fixture(scope="module")
def run(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return untrained_run(tmp_path_factory.mktemp("runs") / "run", tiny_cohort / "tiny.yaml")


def pixels(place: tuple[int, int, int] = PLACE) -> Array:
    """(slices, rows, columns) of a body with air around and a marker of one voxel."""
    array = np.full(SHAPE, AIR, np.int16)
    array[1:-1, 1:-1, 1:-1] = BODY
    array[place] = MARKER
    return array


@dataclass(frozen=True)
class Seen:
    """What the files of a series say: all voxels' RAS mm and values, and the headers by their place."""

    mm: Array  # (N, 3)
    values: Array  # (N,)
    headers: dict[tuple[float, ...], pydicom.Dataset]

    @property
    def brightest_mm(self) -> Array:
        return np.asarray(self.mm[self.values.argmax()])

    def centre_mm(self, above: float) -> Array:
        """Where the middle of all that is brighter than `above` lies."""
        weight = np.clip(self.values - above, 0, None)
        return np.asarray(weight @ self.mm / weight.sum())


def look(folder: Path) -> Seen:
    """PS3.3 C.7.6.2.1.1: a pixel's place is IPP + X·Δi·column + Y·Δj·row, in LPS mm."""
    mm, values, headers = [], [], {}
    for header in sorted(map(pydicom.dcmread, folder.iterdir()), key=lambda one: tuple(one.ImagePositionPatient)):
        start, turn = np.array(header.ImagePositionPatient, float), np.array(header.ImageOrientationPatient, float)
        between_rows, between_columns = map(float, header.PixelSpacing)
        row, column = np.indices((header.Rows, header.Columns)).reshape(2, -1)
        lps = start + np.outer(column * between_columns, turn[:3]) + np.outer(row * between_rows, turn[3:])
        stored = header.pixel_array.ravel().astype(float)
        mm.append(lps * LPS_TO_RAS)
        values.append(stored * float(header.get("RescaleSlope", 1)) + float(header.get("RescaleIntercept", 0)))
        headers[tuple(start)] = header
    return Seen(np.concatenate(mm), np.concatenate(values), headers)


def back(x: Tensor, like: Volume, run: Run, folder: Path, spacing_mm: tuple[float, float, float] | None = None) -> Seen:
    """The network's image as the series that translate would write."""
    return look(write(from_network(x, like, CT, spacing_mm).marked(run.synthesis()), folder))


def plane_name(plane: tuple[Array, Array]) -> str:
    names = ["LR", "PA", "SI"]  # the end to which + and - of LPS run
    return "".join(names[int(np.abs(v).argmax())][int(v.sum() < 0)] for v in plane)


@pytest.mark.parametrize("plane", PLANES, ids=plane_name)
def test_every_plane_of_a_series(plane: tuple[Array, Array], run: Run, tmp_path: Path) -> None:
    slices = make_slices(pixels(), directions=plane, origin=(11.5, -20.25, 33.0), gap=4.0)
    source = look(save(reversed(slices), tmp_path / "in"))
    volume = read(tmp_path / "in")
    x = to_network(volume, MR)
    assert tuple(np.argwhere(x[0].numpy() == x.max().item())[0]) == ras_index(source)
    assert x.max().item() == pytest.approx(MARKER_NETWORK, abs=1e-6)
    target = back(x, volume, run, tmp_path / "out")
    assert np.array_equal(target.brightest_mm, source.brightest_mm)
    assert target.values.max() == MARKER_HU
    assert target.headers.keys() == source.headers.keys()


def ras_index(seen: Seen) -> tuple[int, ...]:
    """Counted from left to right, back to front and foot to head: where the brightest voxel stands."""
    ranks = []
    for axis in range(3):
        coordinates = np.unique(np.round(seen.mm[:, axis], 3))
        ranks.append(int(np.searchsorted(coordinates, round(seen.brightest_mm[axis], 3))))
    return tuple(ranks)


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_of_axes_in_memory(order: str, run: Run, tmp_path: Path) -> None:
    """However the array is turned, left-handed ones among them: the same tensor, the same files."""
    straight = read(save(make_slices(pixels(), gap=4.0), tmp_path / "in"))
    volume = straight.reorient(order)
    assert volume.grid.orientation == order
    x = to_network(volume, MR)
    assert torch.equal(x, to_network(straight, MR))
    target, source = back(x, volume, run, tmp_path / "out"), look(tmp_path / "in")
    assert np.array_equal(target.brightest_mm, source.brightest_mm)
    assert target.headers.keys() == source.headers.keys()


def test_left_is_left(run: Run, tmp_path: Path) -> None:
    """DICOM's x runs to the patient's left: a marker at +30 mm there is in the left half, at a low index of RAS."""
    array = pixels(place=(3, 4, 8))
    save(make_slices(array, origin=(-50.0, 0.0, 0.0), spacing=(10.0, 10.0)), tmp_path / "in")
    source = look(tmp_path / "in")
    assert source.brightest_mm[0] == -30
    x = to_network(read(tmp_path / "in"), MR)[0].numpy()
    index = np.argwhere(x == x.max())[0]
    assert index[0] < (x.shape[0] - 1) / 2
    assert back(torch.from_numpy(x)[None], read(tmp_path / "in"), run, tmp_path / "out").brightest_mm[0] == -30


turns = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)
places = st.tuples(*(st.integers(1, n - 2) for n in SHAPE))
steps = st.floats(0.4, 6).map(lambda mm: round(mm, 3))
QUICK = settings(max_examples=20, deadline=None, derandomize=True, database=None)


def rotation(quaternion: tuple[float, ...]) -> Array:
    w, x, y, z = np.array(quaternion) / np.linalg.norm(quaternion)
    matrix = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    return matrix.round(9)


@QUICK
@given(
    turn=turns,
    place=places,
    spacing=st.tuples(steps, steps, steps),
    origin=st.tuples(*[st.integers(-300_000, 300_000)] * 3),
)
def test_oblique_series(
    run: Run, turn: tuple[float, ...], place: tuple[int, int, int], spacing: Any, origin: tuple[int, ...]
) -> None:
    directions, mm = rotation(turn).T, np.array(origin) / 1000
    with TemporaryDirectory() as name:
        slices = make_slices(
            pixels(place), directions=(directions[0], directions[1]), origin=mm, spacing=spacing[:2], gap=spacing[2]
        )
        source = look(save(slices, Path(name) / "in"))
        volume = read(Path(name) / "in")
        x = to_network(volume, MR)
        index = np.argwhere(x[0].numpy() == x.max().item())[0]
        affine = network_grid(volume.grid, None).affine
        target = back(x, volume, run, Path(name) / "out")
    assert np.allclose(affine[:3, :3] @ index + affine[:3, 3], source.brightest_mm, atol=2e-3)
    assert x.max().item() == pytest.approx(MARKER_NETWORK, abs=1e-6)
    assert np.array_equal(target.brightest_mm, source.brightest_mm)
    assert target.values.max() == MARKER_HU
    assert target.headers.keys() == source.headers.keys()


def blob() -> Array:
    """(slices, rows, columns): a soft marker, twice as bright as the body at its middle, in no middle of the body."""
    array = np.full((24, 26, 25), AIR, np.int16)
    array[2:-2, 2:-2, 2:-2] = 1000
    squared = sum((i - p) ** 2 for i, p in zip(np.indices(array.shape), (10.3, 14.6, 11.8), strict=True))
    return array + np.rint(1000 * np.exp(-squared / 12)).astype(np.int16) * (array > 0)


@QUICK
@given(turn=turns, spacing_mm=st.tuples(*[st.floats(0.7, 2.0)] * 3))
def test_a_spacing_of_the_network_moves_nothing(
    run: Run, turn: tuple[float, ...], spacing_mm: tuple[float, float, float]
) -> None:
    """Resampled there and back; half a voxel of error would be up to 1 mm."""
    directions = rotation(turn).T
    with TemporaryDirectory() as name:
        folder = Path(name)
        slices = make_slices(blob(), directions=(directions[0], directions[1]), spacing=(1.0, 1.2), gap=1.5)
        source, volume = look(save(slices, folder / "in")), read(folder / "in")
        x = to_network(volume, MR, spacing_mm)
        affine = network_grid(volume.grid, spacing_mm).affine
        target = back(x, volume, run, folder / "out", spacing_mm)
    weight = np.clip(x[0].numpy() - 0.1, 0, None)
    index = np.array([(weight * i).sum() for i in np.indices(weight.shape)]) / weight.sum()
    assert np.linalg.norm(affine[:3, :3] @ index + affine[:3, 3] - source.centre_mm(1100)) < NEAR_MM
    assert np.linalg.norm(target.centre_mm(100) - source.centre_mm(1100)) < NEAR_MM
    assert target.values.max() <= 1000
    assert target.headers.keys() == source.headers.keys()


def test_a_scan_without_a_source_series(run: Run, tmp_path: Path) -> None:
    """A volume written for a made-up subject: the files say of every voxel where the volume says it is."""
    turn = rotation((0.9, 0.1, -0.2, 0.15))
    grid = Grid.regular((10, 9, 7), spacing_mm=(1.5, 1.25, 4), origin_mm=(12.5, -7.25, 300), direction=turn)
    volume = Volume(np.ascontiguousarray(pixels().T), grid, "a.u.", "MR")
    source = look(write(volume, tmp_path / "in", subject=Subject()))
    column, row, one = PLACE[2], PLACE[1], PLACE[0]
    expected = np.array([12.5, -7.25, 300]) + turn @ (np.array([column, row, one]) * (1.5, 1.25, 4))
    assert np.allclose(source.brightest_mm, expected, atol=1e-4)
    again = read(tmp_path / "in")
    target = back(to_network(again, MR), again, run, tmp_path / "out")
    assert np.array_equal(target.brightest_mm, source.brightest_mm)
    assert target.values.max() == MARKER_HU


def test_numbers_are_as_short_as_dicom_wants_them(tmp_path: Path) -> None:
    """A decimal string has 16 letters at most, also just below a power of ten."""
    grid = Grid.regular(
        (10, 9, 7), spacing_mm=(0.1 + 0.2, 1, 1), origin_mm=(9.999999999999998, -99.99999999999999, 1 / 3)
    )
    write(Volume(np.ascontiguousarray(pixels().T), grid, "a.u.", "MR"), tmp_path / "in", subject=Subject())
    for path in (tmp_path / "in").iterdir():
        header = pydicom.dcmread(path)
        raw = [
            header.get_item(key).value for key in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
        ]
        assert max(len(number.strip()) for value in raw for number in value.split(b"\\")) <= 16


KEPT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime")
KEPT += ("StudyID", "AccessionNumber", "ReferringPhysicianName", "FrameOfReferenceUID", "PositionReferenceIndicator")
KEPT += ("PatientPosition", "BodyPartExamined", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
KEPT += ("SliceThickness", "Rows", "Columns")
NEW = (
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "SOPClassUID",
    "Modality",
    "ImageType",
)
GONE = ("EchoTime", "RepetitionTime", "ScanningSequence", "SequenceVariant", "EchoTrainLength")


def test_what_the_header_keeps_and_what_is_new(run: Run, tmp_path: Path) -> None:
    source = look(save(make_slices(pixels(), directions=PLANES[7]), tmp_path / "in"))
    volume = read(tmp_path / "in")
    target = look(write(translate_volume(run, volume, game=Identity()), tmp_path / "out"))  # type: ignore[arg-type]
    seen = list(target.headers.values())
    for place, header in target.headers.items():
        before = source.headers[place]
        assert {key: header.get(key) for key in KEPT} == {key: before.get(key) for key in KEPT}
        assert not [key for key in NEW if header.get(key) == before.get(key)]
        assert not [key for key in GONE if key in header]
        assert header.SourceImageSequence[0].ReferencedSOPInstanceUID == before.SOPInstanceUID
        assert (header.Modality, header.ImageType[0], header.SyntheticData) == ("CT", "DERIVED", "YES")
        assert header.file_meta.MediaStorageSOPInstanceUID == header.SOPInstanceUID
        assert "not for diagnostic use" in header.SeriesDescription
        assert not [element for element in header if element.tag.is_private]
    assert len({header.SOPInstanceUID for header in seen}) == len(seen)
    assert len({header.SeriesInstanceUID for header in seen}) == 1
    assert sorted(int(header.InstanceNumber) for header in seen) == list(range(1, len(seen) + 1))
    made = seen[0].ContributingEquipmentSequence[-1]
    assert run.weights_sha256 in made.ContributionDescription


@pytest.mark.parametrize("spacing_mm", [None, (1.0, 1.0, 1.0)])
def test_the_whole_way_through_translate(
    spacing_mm: tuple[float, float, float] | None, tiny_cohort: Path, tmp_path: Path
) -> None:
    """By sliding windows too, slices smaller than a window: an identity in place of the net."""
    override = [] if spacing_mm is None else [f"prep.spacing_mm={list(spacing_mm)}"]
    run = untrained_run(tmp_path / "run", tiny_cohort / "tiny.yaml", *override)
    slices = make_slices(blob(), directions=PLANES[11], spacing=(1.0, 1.2), gap=1.5)
    source = look(save(slices, tmp_path / "in"))
    made = translate_volume(run, read(tmp_path / "in"), game=Identity())  # type: ignore[arg-type]
    target = look(write(made, tmp_path / "out"))
    assert np.linalg.norm(target.centre_mm(100) - source.centre_mm(1100)) < NEAR_MM
    assert target.headers.keys() == source.headers.keys()
    if spacing_mm is None:
        assert np.abs(target.values - (source.values - 1000)).max() <= 1
