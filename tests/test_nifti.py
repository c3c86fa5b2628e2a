"""NIfTI against nibabel and SimpleITK, on made files, real ones and damaged ones."""

from __future__ import annotations

import gzip
import json
import random
import struct
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from scipy.spatial.transform import Rotation

from medgan.errors import MedganError, NiftiError, OutputError
from medgan.formats import nifti
from medgan.volume import Grid, Synthesis, Volume

OBLIQUE = Grid.regular(
    (5, 6, 7),
    spacing_mm=(0.9, 1.1, 3),
    origin_mm=(-80.5, 12.25, 40),
    direction=Rotation.from_euler("xyz", (10, 20, 30), degrees=True).as_matrix(),
)
MADE = Synthesis("pix2pix", weights_sha256="ab" * 32, version="0.1.0", description="T1 → FLAIR, “demo”")
fresh_folder = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def ramp(shape: tuple[int, ...] = (5, 6, 7), dtype: Any = np.int16) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def volume(array: np.ndarray | None = None, **fields: Any) -> Volume:
    return Volume(ramp() if array is None else array, OBLIQUE, **fields)


def saved(path: Path, image: Any) -> Path:
    nib.save(image, path)
    return path


def with_forms(path: Path, sform: np.ndarray | None, qform: np.ndarray | None) -> Path:
    image = nib.Nifti1Image(ramp(), None)
    image.set_sform(sform, 0 if sform is None else 1)
    image.set_qform(qform, 0 if qform is None else 1)
    return saved(path, image)


# --- where the voxels are ---------------------------------------------------------------------------------------------


def test_the_sform_wins_over_the_qform(tmp_path: Path) -> None:
    one, other = np.diag([2.0, 2, 2, 1]), np.diag([3.0, 3, 3, 1])
    assert np.array_equal(nifti.read(with_forms(tmp_path / "s.nii", one, other)).grid.affine, one)
    assert np.allclose(nifti.read(with_forms(tmp_path / "q.nii", None, other)).grid.affine, other)


def test_a_file_without_orientation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NiftiError, match="knows no orientation"):
        nifti.read(with_forms(tmp_path / "none.nii", None, None))


def test_a_disagreement_is_odd_but_read(tmp_path: Path) -> None:
    shifted = np.diag([2.0, 2, 2, 1])
    shifted[0, 3] = 4
    path = with_forms(tmp_path / "x.nii", shifted, np.diag([2.0, 2, 2, 1]))
    assert nifti.oddities(path) == ("qform and sform differ by up to 4.0 mm, the sform is used",)
    assert nifti.oddities(with_forms(tmp_path / "y.nii", shifted, shifted)) == ()


def test_a_pixdim_that_the_affine_contradicts_is_odd(tmp_path: Path) -> None:
    image = nib.Nifti1Image(ramp(), np.diag([1.0, 1, 3, 1]))
    image.header["pixdim"][1:4] = 1
    assert "pixdim says 1×1×1 mm, the affine 1×1×3 mm" in nifti.oddities(saved(tmp_path / "x.nii", image))[0]


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("meter", 1000), ("micron", 0.001), ("unknown", 1)])
def test_the_spatial_unit_is_converted(tmp_path: Path, unit: str, factor: float) -> None:
    image = nib.Nifti1Image(ramp(), np.diag([2.0, 3, 4, 1]))
    image.header.set_xyzt_units(unit)
    path = saved(tmp_path / "x.nii", image)
    assert nifti.read(path).grid.spacing_mm == pytest.approx(np.array([2, 3, 4]) * factor)
    assert nifti.oddities(path) == ()


def test_a_singular_affine_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.nii", nib.Nifti1Image(ramp(), np.diag([2.0, 2, 2, 1])))
    content = bytearray(path.read_bytes())
    content[312:328] = content[296:312]  # srow_z becomes srow_y
    path.write_bytes(bytes(content))
    with pytest.raises(NiftiError, match=r"x\.nii: the affine is singular"):
        nifti.read(path)


def of_qform(path: Path, direction: np.ndarray, qfac: float, **fields: Any) -> Path:
    """A file whose place is told by a quaternion alone, with other header fields at will."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = direction * (0.9, 1.1, 3), (-80.5, 12.25, 40)
    saved(path, nib.Nifti1Image(ramp(), affine))
    header = nib.load(path).header.copy()
    header.set_qform(affine, 1)
    header.set_sform(None, 0)
    header["pixdim"][0] = qfac
    for key, value in fields.items():
        header[key] = value
    path.write_bytes(header.binaryblock + path.read_bytes()[348:])
    return path


TURN = Rotation.from_euler("xyz", (10, -35, 160), degrees=True).as_matrix()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("qfac", [1.0, -1.0, 0.0])
def test_a_quaternion_means_what_it_means_to_simpleitk(tmp_path: Path, mirrored: bool, qfac: float) -> None:
    """A sign of 0 counts as 1, as the standard has it; -1 turns the third axis round."""
    path = of_qform(tmp_path / "x.nii", TURN * (1, 1, -1 if mirrored else 1), qfac)
    seen = nifti.read(path)
    assert (np.linalg.det(seen.grid.direction) < 0) == (qfac == -1)
    lps = sitk.ReadImage(path)
    for index in [(0, 0, 0), (4, 0, 0), (0, 5, 0), (0, 0, 6)]:
        world = np.array(lps.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
        assert np.abs(world - seen.grid.to_world(index)).max() < 1e-3


def test_the_sform_code_decides_and_not_its_rows(tmp_path: Path) -> None:
    path = of_qform(tmp_path / "x.nii", TURN, 1, srow_x=(9, 0, 0, 0), srow_y=(0, 9, 0, 0), srow_z=(0, 0, 9, 0))
    assert nifti.read(path).grid.spacing_mm == pytest.approx((0.9, 1.1, 3))
    empty = of_qform(tmp_path / "y.nii", TURN, 1, sform_code=1, srow_x=0, srow_y=0, srow_z=0)
    with pytest.raises(NiftiError, match="the affine is singular"):
        nifti.read(empty)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"quatern_b": 0.9, "quatern_c": 0.9, "quatern_d": 0.9}, "its qform is no rotation"),
        ({"quatern_b": np.nan}, r"damaged|no rotation|finite"),
        ({"pixdim": (1, 0, 1, 1, 0, 0, 0, 0)}, "has voxels of 0×1×1 mm, and no sform"),
        ({"qoffset_x": np.inf}, "finite"),
        ({"qform_code": 0}, "knows no orientation"),
        ({"qform_code": -1}, "knows no orientation"),
    ],
)
def test_a_qform_that_is_no_place_is_refused(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(NiftiError, match=reason):
        nifti.read(of_qform(tmp_path / "x.nii", TURN, 1, **fields))


def test_a_broken_qform_beside_an_sform_is_odd_but_read(tmp_path: Path) -> None:
    rows = {f"srow_{axis}": row for axis, row in zip("xyz", OBLIQUE.affine[:3], strict=True)}
    path = of_qform(tmp_path / "x.nii", TURN, 1, sform_code=1, quatern_b=0.9, quatern_c=0.9, quatern_d=0.9, **rows)
    assert nifti.read(path).grid.same_as(OBLIQUE, tolerance_mm=1e-3)
    assert "the qform is broken, the sform is used" in nifti.oddities(path)


# --- what is accepted and what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair, nib.nifti2.Nifti2Pair])
@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_every_variant_reads_as_nibabel_reads_it(tmp_path: Path, kind: Any, packed: str, byte_order: str) -> None:
    header = kind.header_class(endianness=byte_order)
    image = kind(ramp(dtype=np.dtype(np.int16).newbyteorder(byte_order)), OBLIQUE.affine, header, dtype=np.int16)
    name = "x.img" if "Pair" in kind.__name__ else "x.nii"
    path = saved(tmp_path / (name + packed), image)
    reference = nib.load(path)
    seen = nifti.read(path)
    assert np.array_equal(seen.array, np.asanyarray(reference.dataobj))
    assert seen.array.dtype == np.int16
    assert seen.array.flags.writeable
    assert np.array_equal(seen.grid.affine, reference.affine)
    assert nifti.is_nifti(path)
    assert nifti.read_grid(path).same_as(seen.grid, tolerance_mm=0)


def test_a_pair_is_read_by_either_name(tmp_path: Path) -> None:
    saved(tmp_path / "x.img", nib.Nifti1Pair(ramp(), OBLIQUE.affine))
    assert np.array_equal(nifti.read(tmp_path / "x.hdr").array, ramp())
    (tmp_path / "x.img").unlink()
    with pytest.raises(NiftiError, match=r"x\.img: cannot be opened"):
        nifti.read(tmp_path / "x.hdr")


def test_the_name_does_not_count(tmp_path: Path) -> None:
    packed = saved(tmp_path / "x.nii.gz", nib.Nifti1Image(ramp(), OBLIQUE.affine))
    for name in ("x.nii", "scan", "scan.dat"):
        other = tmp_path / name
        other.write_bytes(packed.read_bytes())
        assert np.array_equal(nifti.read(other).array, ramp())


@pytest.mark.parametrize("shape", [(5, 6, 7, 1), (5, 6, 7, 1, 1), (5, 6), (5,)])
def test_axes_of_one_voxel_come_and_go(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = saved(tmp_path / "x.nii", nib.Nifti1Image(ramp(shape), OBLIQUE.affine))
    assert nifti.read(path).array.shape == (*shape, 1, 1)[:3]


def test_several_volumes_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.nii", nib.Nifti1Image(ramp((5, 6, 7, 2)), OBLIQUE.affine))
    with pytest.raises(NiftiError, match=r"holds 2 volumes \(shape \(5, 6, 7, 2\)\)"):
        nifti.read(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_in_and_out(tmp_path: Path, bad: float) -> None:
    array = ramp(dtype=np.float32)
    array[1, 2, 3] = bad
    with pytest.raises(NiftiError, match="1 of 210 voxels are NaN or infinite"):
        nifti.read(saved(tmp_path / "x.nii", nib.Nifti1Image(array, OBLIQUE.affine)))
    with pytest.raises(NiftiError, match="1 of 210 voxels"):
        nifti.write(volume(array), tmp_path / "y.nii")
    assert not (tmp_path / "y.nii").exists()


@pytest.mark.parametrize(
    ("dtype", "word"),
    [(np.complex64, "complex"), (np.complex128, "complex"), ([("R", "u1"), ("G", "u1"), ("B", "u1")], "colour")],
)
def test_complex_and_colour_are_refused(tmp_path: Path, dtype: Any, word: str) -> None:
    path = saved(tmp_path / "x.nii", nib.Nifti1Image(np.zeros((2, 3, 4), dtype), OBLIQUE.affine))
    with pytest.raises(NiftiError, match=f"has {word} values"):
        nifti.read(path)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("kept", [0, 1, 3, 100, 347, 360, -1])
def test_a_cut_file_is_refused(tmp_path: Path, name: str, kept: int) -> None:
    path = saved(
        tmp_path / name, nib.Nifti1Image(np.random.default_rng(0).integers(0, 999, (5, 6, 7), np.int16), OBLIQUE.affine)
    )
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(NiftiError, match=name):
        nifti.read(path)


def test_a_flipped_bit_in_compressed_values_is_found(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.nii.gz", nib.Nifti1Image(ramp(), OBLIQUE.affine))
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # of the checksum
    path.write_bytes(bytes(content))
    with pytest.raises(NiftiError, match="damaged"):
        nifti.read(path)


@pytest.mark.parametrize("packed", [False, True])
def test_a_header_that_claims_terabytes_takes_no_memory(tmp_path: Path, packed: bool) -> None:
    path = saved(tmp_path / "x.nii", nib.Nifti1Image(ramp(), OBLIQUE.affine))
    content = bytearray(path.read_bytes())
    struct.pack_into("<4h", content, 40, 3, 32000, 32000, 32000)
    path.write_bytes(gzip.compress(bytes(content)) if packed else bytes(content))
    with pytest.raises(NiftiError, match="claims"):
        nifti.read(path)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize(("offset", "name"), [(108, "vox_offset"), (116, "scl_inter")])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, offset: int, name: str, value: float) -> None:
    path = saved(tmp_path / "x.nii", nib.Nifti1Image(ramp(), OBLIQUE.affine))
    content = bytearray(path.read_bytes())
    struct.pack_into("<f", content, 112, 1.0)  # a slope, without which nobody looks at the intercept
    struct.pack_into("<f", content, offset, value)
    path.write_bytes(bytes(content))
    with pytest.raises(NiftiError, match=r"x\.nii"):
        nifti.read(path)
    assert "\n" not in outcome(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
@pytest.mark.parametrize(("slope", "inter"), [(0.5, 3.0), (3.0, -70000.0)])
@pytest.mark.parametrize("shape", [(256, 257, 300), (16, 1, 1), (1, 16, 1), (1, 1, 16)])
def test_large_and_thin_images_are_scaled(
    tmp_path: Path, dtype: Any, slope: float, inter: float, shape: tuple[int, int, int]
) -> None:
    """Larger than the parts in which values are scaled, or of axes of one voxel, whose strides say nothing."""
    stored = (np.arange(np.prod(shape)) % 251).reshape(shape).astype(dtype)
    image = nib.Nifti1Image(np.asfortranarray(stored), OBLIQUE.affine)
    content = bytearray(image.to_bytes())
    struct.pack_into("<2f", content, 112, slope, inter)
    (tmp_path / "x.nii").write_bytes(bytes(content))
    assert np.array_equal(nifti.read(tmp_path / "x.nii").array, stored * slope + inter)


@pytest.mark.filterwarnings("error")
def test_values_beyond_what_floats_hold_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.nii", nib.Nifti1Image(ramp(), OBLIQUE.affine))
    content = bytearray(path.read_bytes())
    struct.pack_into("<2f", content, 112, 3e38, 0.5)
    path.write_bytes(bytes(content))
    with pytest.raises(NiftiError, match="NaN or infinite"):
        nifti.read(path)


def test_an_image_too_large_for_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "x.nii", nib.Nifti1Image(ramp(), OBLIQUE.affine))

    def full(*_: object) -> None:
        raise MemoryError("Unable to allocate 10 GiB")

    monkeypatch.setattr("medgan.formats.nifti.reading.filled", full)
    with pytest.raises(NiftiError, match="needs more memory than there is"):
        nifti.read(path)


def test_an_image_without_voxels_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.nii", nib.Nifti1Image(ramp(), OBLIQUE.affine))
    content = bytearray(path.read_bytes())
    struct.pack_into("<4h", content, 40, 3, 5, 0, 7)
    path.write_bytes(bytes(content))
    with pytest.raises(NiftiError, match="has no voxels"):
        nifti.read(path)


def test_analyze_is_refused_by_name(tmp_path: Path) -> None:
    nib.save(nib.AnalyzeImage(ramp(), np.eye(4)), tmp_path / "x.img")
    with pytest.raises(NiftiError, match=r"ANALYZE 7\.5"):
        nifti.read(tmp_path / "x.hdr")
    assert not nifti.is_nifti(tmp_path / "x.hdr")


def outcome(path: Path) -> str:
    try:
        nifti.read(path)
        nifti.oddities(path)
    except MedganError as error:
        return str(error)
    return "read"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seed", range(3))
def test_no_damage_escapes_as_another_error(tmp_path: Path, seed: int, capfd: pytest.CaptureFixture[str]) -> None:
    image = nib.Nifti1Image(ramp(), OBLIQUE.affine)
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"a comment"))
    whole = saved(tmp_path / "x.nii", image).read_bytes()
    random_of, outcomes = random.Random(seed), []
    for _ in range(250):
        content = bytearray(whole)
        for _ in range(random_of.randint(1, 3)):
            content[random_of.randrange(420)] = random_of.choice([0, 1, 127, 128, 255])
        path = tmp_path / "damaged.nii"
        path.write_bytes(bytes(content[: random_of.choice([None, None, 400])]))
        outcomes.append(outcome(path))
    assert 20 < outcomes.count("read") < 230
    assert not any("\n" in line for line in outcomes)
    assert capfd.readouterr().err == ""


# --- what the numbers are ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "slope", "inter", "dtype"),
    [
        (np.uint16, 1, -1024, np.int16),
        (np.int16, 2, 0, np.int16),
        (np.int32, 1000, 5, np.int32),
        (np.int16, 0.5, 0, np.float32),
        (np.int32, 0.5, 0, np.float64),
        (np.float32, 2, 1, np.float32),
        (np.float64, 2, 1, np.float64),
    ],
)
def test_scaling_is_nibabels(tmp_path: Path, stored: Any, slope: float, inter: float, dtype: Any) -> None:
    image = nib.Nifti1Image(ramp(dtype=stored), OBLIQUE.affine)
    path = saved(tmp_path / "x.nii", image)
    content = bytearray(path.read_bytes())
    struct.pack_into("<2f", content, 112, slope, inter)
    path.write_bytes(bytes(content))
    seen = nifti.read(path).array
    assert np.array_equal(seen, nib.load(path).get_fdata())
    assert seen.dtype == dtype


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint32, np.int64, np.float32, np.float64]
)
def test_types_stay_without_scaling(tmp_path: Path, dtype: Any) -> None:
    path = saved(tmp_path / "x.nii", nib.Nifti1Image(ramp(dtype=dtype), OBLIQUE.affine, dtype=dtype))
    assert nifti.read(path).array.dtype == dtype


@fresh_folder
@given(
    array=st.sampled_from([np.bool_, np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64]).flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            (2, 3, 4),
            elements={"allow_nan": False, "allow_infinity": False} if np.dtype(dtype).kind == "f" else None,
        )
    )
)
def test_every_value_comes_back(tmp_path: Path, array: np.ndarray) -> None:
    path = nifti.write(Volume(array, Grid.regular((2, 3, 4))), tmp_path / "x.nii")
    assert np.array_equal(nifti.read(path).array, array)
    assert np.array_equal(np.asanyarray(nib.load(path).dataobj), array)


@pytest.mark.parametrize(
    ("array", "stored"),
    [
        (ramp(dtype=np.float64), np.int16),
        (ramp(dtype=np.uint16), np.int16),
        (ramp() > 3, np.uint8),
        (ramp(dtype=np.uint8), np.uint8),
        (ramp(dtype=np.int64) + 40000, np.int32),
        (ramp() * np.float32(0.1), np.float32),
        (ramp() * 0.5, np.float32),
        (ramp() * 0.1, np.float64),
    ],
)
def test_values_are_stored_small_and_exact(tmp_path: Path, array: np.ndarray, stored: Any) -> None:
    image = nib.load(nifti.write(volume(array), tmp_path / "x.nii.gz"))
    assert image.get_data_dtype() == stored
    assert (image.dataobj.slope, image.dataobj.inter) == (1, 0)


# --- writing ----------------------------------------------------------------------------------------------------------


def test_nibabel_and_simpleitk_find_the_voxels_where_medgan_put_them(tmp_path: Path) -> None:
    path = nifti.write(volume(), tmp_path / "x.nii.gz")
    image = nib.load(path)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert np.abs(image.get_sform() - OBLIQUE.affine).max() < 1e-5
    assert np.abs(image.get_qform() - OBLIQUE.affine).max() < 1e-4
    lps = sitk.ReadImage(path)
    for index in [(0, 0, 0), (4, 5, 6), (2, 0, 3)]:
        world = np.array(lps.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
        assert np.abs(world - OBLIQUE.to_world(index)).max() < 1e-4
        assert lps[index] == ramp()[index]


def test_a_sheared_grid_has_no_qform(tmp_path: Path) -> None:
    affine = np.diag([0.5, 0.5, 3.0, 1.0])
    affine[1, 2] = 3 * np.tan(np.radians(18.5))
    grid = Grid((5, 6, 7), affine)
    path = nifti.write(Volume(ramp(), grid), tmp_path / "x.nii")
    image = nib.load(path)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 0)
    assert nifti.read(path).grid.same_as(grid, tolerance_mm=1e-5)
    assert nifti.oddities(path) == ()


def test_the_space_code_is_kept(tmp_path: Path) -> None:
    image = nib.Nifti1Image(ramp(), OBLIQUE.affine)
    image.set_sform(OBLIQUE.affine, 4)
    standard = nifti.read(saved(tmp_path / "mni.nii", image))
    for made in (nifti.write(standard, tmp_path / "a.nii"), nifti.write(volume(), tmp_path / "b.nii", like=standard)):
        assert (int(nib.load(made).header["sform_code"]), int(nib.load(made).header["qform_code"])) == (4, 4)


def test_a_file_read_and_written_is_the_same_image(tmp_path: Path) -> None:
    first = nifti.read(nifti.write(volume(unit="HU", modality="CT"), tmp_path / "x.nii.gz"))
    second = nifti.read(nifti.write(first, tmp_path / "y.nii.gz"))
    assert np.array_equal(first.grid.affine, second.grid.affine)
    assert np.array_equal(first.array, second.array)
    nifti.write(second, tmp_path / "z.nii.gz")
    assert (tmp_path / "z.nii.gz").read_bytes() == (tmp_path / "y.nii.gz").read_bytes()


def test_an_axis_too_long_for_nifti_1_goes_into_nifti_2(tmp_path: Path) -> None:
    long = Volume(ramp((40000, 1, 1), np.int32), Grid.regular((40000, 1, 1)))
    path = nifti.write(long, tmp_path / "x.nii")
    assert isinstance(nib.load(path), nib.Nifti2Image)
    assert np.array_equal(nifti.read(path).array, long.array)


# --- unit, modality and the mark --------------------------------------------------------------------------------------


def test_a_plain_file_has_no_unit_and_no_modality(tmp_path: Path) -> None:
    seen = nifti.read(saved(tmp_path / "x.nii", nib.Nifti1Image(ramp(), OBLIQUE.affine)))
    assert (seen.unit, seen.modality, seen.synthetic) == ("a.u.", "", None)


@pytest.mark.parametrize("made", [None, MADE])
@pytest.mark.parametrize("sidecar_lost", [False, True])
def test_unit_modality_and_mark_come_back(tmp_path: Path, made: Synthesis | None, sidecar_lost: bool) -> None:
    path = nifti.write(volume(unit="HU", modality="CT", synthetic=made), tmp_path / "x.nii.gz")
    if sidecar_lost:
        (tmp_path / "x.json").unlink()
        path = path.rename(tmp_path / "renamed.nii.gz")
    seen = nifti.read(path)
    assert (seen.unit, seen.modality, seen.synthetic) == ("HU", "CT", made)


def test_the_sidecar_counts_more_than_the_comment_but_cannot_take_the_mark_away(tmp_path: Path) -> None:
    path = nifti.write(volume(unit="a.u.", modality="MR", synthetic=MADE), tmp_path / "x.nii")
    (tmp_path / "x.json").write_text('{"Units": "HU", "Modality": "CT"}')
    seen = nifti.read(path)
    assert (seen.unit, seen.modality, seen.synthetic) == ("HU", "CT", MADE)


def test_the_description_field_alone_keeps_the_mark(tmp_path: Path) -> None:
    path = nifti.write(volume(synthetic=MADE), tmp_path / "x.nii")
    (tmp_path / "x.json").unlink()
    image = nib.load(path)
    assert image.header["descrip"].item() == b"synthetic, medgan 0.1.0, pix2pix"
    image.header.extensions.clear()
    seen = nifti.read(saved(tmp_path / "y.nii", image))
    assert seen.synthetic == Synthesis("pix2pix", version="0.1.0")


def test_a_long_name_of_a_method_fits_the_description_field(tmp_path: Path) -> None:
    path = nifti.write(volume(synthetic=Synthesis("é" * 200)), tmp_path / "x.nii")
    descrip = nib.load(path).header["descrip"].item()
    assert descrip.startswith(b"synthetic, medgan ")
    assert len(descrip) == 79


def test_the_sidecar_says_what_was_done(tmp_path: Path) -> None:
    nifti.write(volume(unit="HU", modality="CT", synthetic=MADE), tmp_path / "x.nii.gz", description="sCT")
    fields = json.loads((tmp_path / "x.json").read_text())
    assert (fields["Units"], fields["Modality"], fields["SeriesDescription"]) == ("HU", "CT", "sCT")
    assert fields["SyntheticData"] is True
    assert fields["Synthesis"]["WeightsSHA256"] == "ab" * 32
    assert fields["GeneratedBy"][0]["Name"] == "medgan"


@pytest.mark.parametrize(
    ("fields", "unit", "modality"),
    [
        ({"Modality": "CT", "Manufacturer": "X"}, "HU", "CT"),
        ({"Modality": "PT", "Units": "BQML"}, "Bq/ml", "PT"),
        ({"Modality": "MR", "EchoTime": 0.1}, "a.u.", "MR"),
        ({"Units": 3, "Modality": None}, "a.u.", ""),
    ],
)
def test_a_sidecar_of_dcm2niix_is_understood(tmp_path: Path, fields: dict[str, Any], unit: str, modality: str) -> None:
    path = saved(tmp_path / "x.nii.gz", nib.Nifti1Image(ramp(), OBLIQUE.affine))
    (tmp_path / "x.json").write_text(json.dumps(fields))
    seen = nifti.read(path)
    assert (seen.unit, seen.modality) == (unit, modality)


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe\x00"])
def test_a_broken_sidecar_is_refused(tmp_path: Path, content: bytes) -> None:
    path = saved(tmp_path / "x.nii.gz", nib.Nifti1Image(ramp(), OBLIQUE.affine))
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(NiftiError, match=r"x\.json: is no JSON object"):
        nifti.read(path)


def test_a_sidecar_of_another_program_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"EchoTime": 0.1}')
    with pytest.raises(OutputError, match="did not write it"):
        nifti.write(volume(), tmp_path / "x.nii.gz")
    assert json.loads((tmp_path / "x.json").read_text()) == {"EchoTime": 0.1}
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]
    for _ in range(2):
        nifti.write(volume(), tmp_path / "y.nii.gz")


# --- real scans -------------------------------------------------------------------------------------------------------


def test_real_files_read_as_nibabel_reads_them(shared: Path) -> None:
    paths = [
        *shared.glob("nichart_t1_flair_3d2mm/Subj0[15]/*.gz"),
        *shared.glob("templates_mni2mm/*.gz"),
        *shared.glob("nichart_unreg*/*/*.gz"),
    ]
    assert len(paths) > 15
    for path in paths:
        reference, seen = nib.load(path), nifti.read(path)
        assert np.array_equal(seen.array, np.asanyarray(reference.dataobj))
        assert np.array_equal(seen.grid.affine, reference.affine)
        assert tuple(seen.grid.orientation) == nib.aff2axcodes(reference.affine)
