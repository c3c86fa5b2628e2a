"""A marker's way: DICOM → network → DICOM. Position, side, value and header, by the written files' own words."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medgan import Grid, Synthesis, Volume, read, write
from medgan.formats.dicom import Subject
from medgan.prep import Intensity, from_network, to_network
from medgan.sliding import predict

HU = Intensity(modality="CT", unit="HU", range=(-1000, 1000))
MARK = Synthesis("identity", "0" * 64, "0", "a network that changes nothing")
ORIENTATIONS = ["".join(letters) for axes in permutations(("RL", "AP", "SI")) for letters in product(*axes)]
SHAPE, MARKER = (9, 8, 7), (2, 5, 4)


def marked(grid: Grid) -> Volume:
    """Air with one voxel of 700 HU."""
    array = np.full(grid.shape, -1000, dtype=np.int16)
    array[MARKER] = 700
    return Volume(array, grid, "HU", "CT")


def translated(volume: Volume, spacing_mm: tuple[float, float, float] | None = None) -> Volume:
    """The way through a network that changes nothing."""
    x = to_network(volume, HU, spacing_mm)
    y = predict(lambda window: window, x, patch=(4, 4, 1), overlap=0.5, batch=3)
    return from_network(y, volume, HU, spacing_mm).marked(MARK)


def brightest(folder: Path) -> tuple[np.ndarray, int]:
    """RAS position (mm) and HU of the brightest pixel of a series, by PS3.3 C.7.6.2.1.1 from its files alone."""
    best: tuple[np.ndarray, int] = (np.zeros(3), -(10**6))
    for path in folder.iterdir():
        file = pydicom.dcmread(path)
        hu = file.pixel_array * int(file.RescaleSlope) + int(file.RescaleIntercept)
        row, column = np.unravel_index(hu.argmax(), hu.shape)
        along_row, along_column = np.array(file.ImageOrientationPatient, dtype=float).reshape(2, 3)
        row_gap, column_gap = (float(gap) for gap in file.PixelSpacing)
        lps = np.array(file.ImagePositionPatient, dtype=float)
        lps = lps + along_row * column_gap * column + along_column * row_gap * row
        if hu.max() > best[1]:
            best = (lps * (-1, -1, 1), int(hu.max()))
    return best


def there_and_back(grid: Grid, folder: Path) -> None:
    truth = marked(grid)
    write(truth, folder / "source", subject=Subject())
    source = read(folder / "source")
    write(translated(source), folder / "out")
    position, value = brightest(folder / "out")
    np.testing.assert_allclose(position, grid.to_world(MARKER), atol=1e-3)
    assert value == 700
    np.testing.assert_array_equal(read(folder / "out").array, source.array)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_marker_stays_in_every_axis_order(orientation: str, tmp_path: Path) -> None:
    grid = Grid.regular(SHAPE, spacing_mm=(1.5, 2, 3), origin_mm=(-40, 17, 230))
    turned = Volume(np.zeros(SHAPE), grid).reorient(orientation).grid
    there_and_back(Grid(SHAPE, turned.affine), tmp_path)


angles = st.floats(-180, 180)


@settings(max_examples=15, deadline=None)
@given(angles, angles, angles)
def test_the_marker_stays_on_oblique_grids(a: float, b: float, c: float) -> None:
    turn = Rotation.from_euler("xyz", (a, b, c), degrees=True).as_matrix()
    with TemporaryDirectory() as folder:
        there_and_back(
            Grid.regular(SHAPE, spacing_mm=(1.5, 2, 3), origin_mm=(90, -55, 12), direction=turn), Path(folder)
        )


def test_resampling_moves_no_blob() -> None:
    """The centre of mass of a smooth blob stays where it was, whatever spacing the network sees."""
    turn = Rotation.from_euler("xyz", (7, -4, 11), degrees=True).as_matrix()
    grid = Grid.regular((40, 36, 20), spacing_mm=(1.1, 1.3, 3), origin_mm=(-20, 31, 5), direction=turn)
    positions = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    centre = grid.to_world((22, 15, 9))
    blob = np.exp(-(np.linalg.norm(positions - centre, axis=-1) ** 2) / (2 * 7**2))
    volume = Volume((blob * 1800 - 1000).astype(np.float32), grid, "HU", "CT")
    for spacing in ((1.0, 1.0, 3.0), (2.0, 2.0, 4.0), (1.7, 0.9, 2.2)):
        weight = translated(volume, spacing).array + 1000
        found = (positions * weight[..., None]).sum((0, 1, 2)) / weight.sum()
        truth = (positions * (volume.array + 1000)[..., None]).sum((0, 1, 2)) / (volume.array + 1000).sum()
        assert np.linalg.norm(found - truth) < 0.05


def test_what_the_derived_series_keeps_and_what_it_renews(tmp_path: Path) -> None:
    grid = Grid.regular(SHAPE, spacing_mm=(1.5, 2, 3), origin_mm=(-40, 17, 230))
    write(marked(grid), tmp_path / "source", subject=Subject(patient_id="P-17"))
    write(translated(read(tmp_path / "source")), tmp_path / "out")
    old, new = (
        sorted((pydicom.dcmread(path) for path in (tmp_path / name).iterdir()), key=lambda d: d.InstanceNumber)
        for name in ("source", "out")
    )
    assert len(old) == len(new)
    for a, b in zip(old, new, strict=True):
        kept = ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID", "ImagePositionPatient")
        kept += ("ImageOrientationPatient", "PixelSpacing", "SliceThickness", "Rows", "Columns")
        assert all(a[key].value == b[key].value for key in kept)
        renewed = ("SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber")
        assert all(a[key].value != b[key].value for key in renewed)
        assert b.SyntheticData == "YES"
        assert list(b.ImageType[:2]) == ["DERIVED", "SECONDARY"]
        assert b.SourceImageSequence[0].ReferencedSOPInstanceUID == a.SOPInstanceUID
    assert len({d.SeriesInstanceUID for d in new}) == 1
    assert len({d.SOPInstanceUID for d in new}) == len(new)


def test_the_network_sees_the_patients_left_on_the_high_side_of_no_axis() -> None:
    """RAS: index 0 grows to the patient's right, so a marker on the left has the lowest index."""
    grid = Grid.regular((5, 5, 5), origin_mm=(-2, -2, -2))
    array = np.full((5, 5, 5), -1000.0)
    left = tuple(int(i) for i in np.rint(grid.to_index((-2, 0, 0))))
    array[left] = 1000
    for orientation in ("RAS", "LPS", "SAL"):
        x = to_network(Volume(array, grid, "HU", "CT").reorient(orientation), HU)
        assert torch.nonzero(x[0] > 0).tolist() == [[0, 2, 2]]
