"""Sets of volumes as 4-D NIfTI, against nibabel; and what reading and writing cost in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from scipy.spatial.transform import Rotation

from medgan.errors import GeometryError, InputError, NiftiError, OutputError
from medgan.formats import nifti, packed
from medgan.formats.gradients import Gradients
from medgan.formats.voxels import in_file_order, smallest_exact
from medgan.volume import Grid, Synthesis, Volume

GRID = Grid.regular(
    (5, 6, 7),
    spacing_mm=(0.9, 1.1, 3),
    origin_mm=(-80.5, 12.25, 40),
    direction=Rotation.from_euler("xyz", (10, 20, 30), degrees=True).as_matrix(),
)
fresh_folder = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def volumes(count: int = 3, dtype: Any = np.int16, **fields: Any) -> list[Volume]:
    rng = np.random.default_rng(0)
    return [Volume(rng.integers(0, 200, GRID.shape).astype(dtype), GRID, **fields) for _ in range(count)]


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_nibabel_reads_the_set_and_it_comes_back(tmp_path: Path, name: str, count: int, dtype: Any) -> None:
    one = volumes(count, dtype, unit="a.u.", modality="MR")
    path = nifti.write_set(one, tmp_path / name)
    image = nib.load(path)
    assert image.shape == GRID.shape + ((count,) if count > 1 else ())
    data = np.asanyarray(image.dataobj).reshape((*GRID.shape, count))
    assert all(np.array_equal(data[..., index], volume.array) for index, volume in enumerate(one))
    assert np.abs(image.affine - GRID.affine).max() < 1e-5
    seen = nifti.read_set(path)
    assert len(seen) == count
    for mine, theirs in zip(seen, one, strict=True):
        assert np.array_equal(mine.array, theirs.array)
        assert (mine.unit, mine.modality) == ("a.u.", "MR")
        assert mine.grid.same_as(GRID, tolerance_mm=1e-4)
    assert nifti.read_set_grid(path).same_as(GRID, tolerance_mm=1e-4)
    assert nifti.oddities(path) == ()


def test_one_type_holds_all_volumes(tmp_path: Path) -> None:
    first, second, third = volumes()
    wide = second.with_array(second.array.astype(np.int32) + 70000)
    path = nifti.write_set([first, wide, third], tmp_path / "x.nii")
    assert nib.load(path).get_data_dtype() == np.int32
    assert np.array_equal(nifti.read_set(path)[1].array, wide.array)


def test_one_volume_reads_no_set(tmp_path: Path) -> None:
    path = nifti.write_set(volumes(2), tmp_path / "x.nii.gz")
    with pytest.raises(NiftiError, match=r"holds 2 volumes .*read_set gives each as a volume"):
        nifti.read(path)
    with pytest.raises(NiftiError, match="holds 2 volumes"):
        nifti.read_grid(path)


def test_a_fifth_axis_is_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((2, 3, 4, 1, 3), np.float32), GRID.affine), tmp_path / "x.nii")
    with pytest.raises(NiftiError, match="fifth axis"):
        nifti.read_set(tmp_path / "x.nii")


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair])
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_sets_of_others_read_as_nibabel_reads_them(tmp_path: Path, kind: Any, byte_order: str) -> None:
    array = np.arange(5 * 6 * 7 * 3).reshape(5, 6, 7, 3).astype(f"{byte_order}i2")
    path = tmp_path / ("x.img" if "Pair" in kind.__name__ else "x.nii.gz")
    image = kind(array, GRID.affine, kind.header_class(endianness=byte_order))
    image.header.set_slope_inter(0.5, 3)
    nib.save(image, path)
    reference = np.asanyarray(nib.load(path).dataobj)
    seen = nifti.read_set(path)
    assert np.array_equal(np.stack([one.array for one in seen], axis=-1), reference)


# --- what does not fit together ---------------------------------------------------------------------------------------


def test_volumes_that_differ_are_refused(tmp_path: Path) -> None:
    first, second = volumes(2, unit="HU", modality="CT")
    moved = Grid(GRID.shape, np.array(GRID.affine) + np.eye(4, k=3) * 0.5)
    with pytest.raises(GeometryError, match="volume 1 of a set is on another grid"):
        nifti.write_set([first, Volume(second.array, moved, "HU", "CT")], tmp_path / "x.nii")
    for other in (
        second.with_array(second.array, unit="a.u."),
        second.with_array(second.array, modality="MR"),
        second.marked(Synthesis("pix2pix")),
    ):
        with pytest.raises(InputError, match="volume 1 of a set differs from volume 0 in what it is"):
            nifti.write_set([first, other], tmp_path / "x.nii")
    with pytest.raises(InputError, match="no volumes"):
        nifti.write_set([], tmp_path / "x.nii")
    with pytest.raises(InputError, match="2 volumes have 3 times"):
        nifti.write_set([first, second], tmp_path / "x.nii", times_s=[0, 1, 2])
    assert not list(tmp_path.iterdir())


def test_values_that_are_not_finite_are_counted_over_all(tmp_path: Path) -> None:
    one = volumes(2, np.float32)
    one[1].array[0, 0, :2] = np.nan
    with pytest.raises(NiftiError, match="the volumes to be written: 2 of 420 voxels"):
        nifti.write_set(one, tmp_path / "x.nii")
    assert not list(tmp_path.iterdir())


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times_s", "step", "start"),
    [([0, 2.5, 5], 2.5, 0), ([1.5, 2, 2.5], 0.5, 1.5), ([0, 2.0001, 4], 2, 0)],
)
def test_even_times_become_the_step(tmp_path: Path, times_s: list[float], step: float, start: float) -> None:
    header = nib.load(nifti.write_set(volumes(), tmp_path / "x.nii", times_s=times_s)).header
    assert header.get_zooms()[3] == pytest.approx(step)
    assert float(header["toffset"]) == start
    assert header.get_xyzt_units() == ("mm", "sec")
    assert "VolumeTiming" not in json.loads((tmp_path / "x.json").read_text())


@pytest.mark.parametrize("times_s", [[0, 1, 5], [0, 0, 0], [0, -1, -2]])
def test_uneven_times_stand_in_the_sidecar(tmp_path: Path, times_s: list[float]) -> None:
    header = nib.load(nifti.write_set(volumes(), tmp_path / "x.nii", times_s=times_s)).header
    assert header.get_zooms()[3] == 0
    assert header.get_xyzt_units()[1] == "unknown"
    assert json.loads((tmp_path / "x.json").read_text())["VolumeTiming"] == times_s


def test_further_entries_stand_in_the_sidecar_and_give_way_to_marks(tmp_path: Path) -> None:
    about = {"EchoTime": 0.1, "SlicePositions": [[1.0, 2.0, 3.0]], "Modality": "XX"}
    nifti.write_set(volumes(modality="MR"), tmp_path / "x.nii", about=about)
    fields = json.loads((tmp_path / "x.json").read_text())
    assert (fields["EchoTime"], fields["SlicePositions"], fields["Modality"]) == (0.1, [[1.0, 2.0, 3.0]], "MR")


# --- gradients --------------------------------------------------------------------------------------------------------

TABLE = Gradients(np.array([0, 1000, 2000.5]), np.array([[0, 0, 0], [1, 0, 0], [0.6, 0, -0.8]]))


@pytest.mark.parametrize("orientation", ["RAS", "LAS", "LPS", "PIR", "SAL"])
def test_gradients_go_with_the_set_however_it_is_stored(tmp_path: Path, orientation: str) -> None:
    stored = [volume.reorient(orientation) for volume in volumes()]
    path = nifti.write_set(stored, tmp_path / "x.nii.gz", gradients=TABLE)
    seen = nifti.read_gradients(path)
    assert seen is not None
    assert np.abs(seen.directions_ras - TABLE.directions_ras).max() < 2e-6
    assert np.array_equal(seen.b_values, TABLE.b_values)


def test_gradients_of_another_set_are_noticed(tmp_path: Path) -> None:
    path = nifti.write_set(volumes(), tmp_path / "x.nii", gradients=TABLE)
    with pytest.raises(OutputError, match=r"x\.bval: holds gradients"):
        nifti.write_set(volumes(2), path)
    nib.save(nib.Nifti1Image(np.zeros((2, 3, 4, 5), np.int16), GRID.affine), path)
    with pytest.raises(NiftiError, match="holds 5 volumes, and 3 gradients lie beside it"):
        nifti.read_gradients(path)
    with pytest.raises(InputError, match="2 volumes have 3 gradients"):
        nifti.write_set(volumes(2), tmp_path / "y.nii", gradients=TABLE)


# --- bytes and memory -------------------------------------------------------------------------------------------------


def test_the_same_set_gives_the_same_file(tmp_path: Path) -> None:
    one, other = (nifti.write_set(volumes(), tmp_path / name / "x.nii.gz").read_bytes() for name in ("a", "b"))
    assert one == other
    assert one[4:8] == b"\0\0\0\0"  # no time
    assert one[3] == 0  # no name


@fresh_folder
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    dtype=st.sampled_from(["<i2", ">i2", "u1", "f4", "f8"]),
    order=st.permutations([0, 1, 2]),
    flips=st.tuples(*[st.sampled_from([-1, 1])] * 3),
)
def test_bytes_in_file_order_are_fortrans(tmp_path: Path, *, shape: Any, dtype: str, order: Any, flips: Any) -> None:
    array = np.random.default_rng(0).integers(0, 99, shape).astype(dtype).transpose(order)
    array = array[tuple(slice(None, None, flip) for flip in flips)]
    little = array.astype(np.dtype(dtype).newbyteorder("<"))
    assert b"".join(bytes(part) for part in in_file_order(array, dtype)) == little.tobytes("F")


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float32])
def test_the_smallest_exact_type_is_the_first_that_holds_all(dtype: Any) -> None:
    rng = np.random.default_rng(1)
    for low, high in ((0, 2), (0, 200), (0, 30000), (0, 60000), (0, 1 << 20)):
        with np.errstate(invalid="ignore"):
            array = rng.integers(low, high, (3, 4, 5)).astype(dtype)
        first = np.uint8 if array.dtype in (np.bool_, np.uint8) else None
        wanted = first or next(
            t for t in (np.int16, np.int32, np.float32, np.float64) if (array.astype(t) == array).all()
        )
        assert smallest_exact([array]) == wanted


def test_gzip_of_others_is_read_and_ours_by_others(tmp_path: Path) -> None:
    import gzip

    content = bytes(range(256)) * 10000
    (tmp_path / "a").write_bytes(gzip.compress(content[:99]) + gzip.compress(content[99:]))  # of several members
    with packed.opened(tmp_path / "a") as stream:
        assert stream.read() == content
    with (tmp_path / "b").open("wb") as plain, packed.packing(plain) as stream:
        stream.write(content)
    assert gzip.decompress((tmp_path / "b").read_bytes()) == content


_PEAK = """
import resource, sys
from pathlib import Path
import numpy as np
from medgan.formats import nifti
from medgan.volume import Grid, Volume
def peak_mb(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
path, size = Path(sys.argv[1]), 128
warm = [Volume(np.zeros((9, 9, 9), np.int16), Grid.regular((9, 9, 9)))] * 2
nifti.read_set(nifti.write_set(warm, path.with_name("warm.nii.gz")))
before = peak_mb()
if sys.argv[2] == "write":
    array = np.zeros((size, size, size), np.int16)
    array[...] = (np.arange(size**3).reshape(array.shape) * 7919 >> 3).astype(np.int16)
    before = peak_mb()
    nifti.write_set([Volume(array, Grid.regular(array.shape))] * 24, path)
else:
    assert len(nifti.read_set(path)) == 24
print(peak_mb() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in kB only on Linux")
def test_writing_holds_a_part_and_reading_the_image_once(tmp_path: Path) -> None:
    image_mb = 24 * 128**3 * 2 / 2**20
    grown = {
        what: float(
            subprocess.run(
                [sys.executable, "-c", _PEAK, str(tmp_path / "x.nii.gz"), what],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for what in ("write", "read")
    }
    if what := [name for name, extra in grown.items() if extra < 0]:
        pytest.fail(f"no growth measured for {what}")
    assert grown["write"] < 0.8 * image_mb
    assert grown["read"] < 1.5 * image_mb
