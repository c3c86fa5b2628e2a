"""MetaImage and NRRD against SimpleITK and pynrrd, on made files and damaged ones."""

from __future__ import annotations

import bz2
import gzip
import json
import random
import zlib
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from scipy.spatial.transform import Rotation

from medgan import read, write
from medgan.errors import GeometryError, InputError, MedganError, OutputError
from medgan.formats import itk, read_header
from medgan.formats.marks import is_marked, missing_marks
from medgan.volume import Grid, Synthesis, Volume

MADE = Synthesis("pix2pix", weights_sha256="ab" * 32, version="0.1.0", description="T1 → FLAIR, “demo” = \\ 1")
ENDINGS = ("mha", "mhd", "nrrd")
fresh_folder = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
grids = st.builds(
    lambda shape, spacing, origin, angles, order, flips: Grid.regular(
        shape,
        spacing_mm=spacing,
        origin_mm=origin,
        direction=Rotation.from_euler("xyz", angles).as_matrix()[:, order] * flips,
    ),
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    spacing=st.tuples(*[st.floats(0.1, 9)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    order=st.permutations([0, 1, 2]),
    flips=st.tuples(*[st.sampled_from([-1, 1])] * 3),
)
dtypes = st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "i8", "u8", "f4", "f8"])


def values(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 120, shape) if np.dtype(dtype).kind in "iu" else rng.normal(size=shape)).astype(dtype)


def sitk_image(array: np.ndarray, grid: Grid) -> Any:
    """The image that SimpleITK knows under the same voxels and places."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    lps = np.diag([-1.0, -1, 1]) @ grid.direction
    image.SetDirection(lps.ravel().tolist())
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin((np.diag([-1.0, -1, 1]) @ grid.affine[:3, 3]).tolist())
    return image


def assert_same_place(image: Any, grid: Grid) -> None:
    assert image.GetSize() == grid.shape
    for index in [(0, 0, 0), tuple(n - 1 for n in grid.shape), (grid.shape[0] - 1, 0, 0), (0, grid.shape[1] - 1, 0)]:
        world = np.array(image.TransformIndexToPhysicalPoint([int(i) for i in index])) * (-1, -1, 1)
        assert np.abs(world - grid.to_world(index)).max() < 1e-3


# --- reading what others write ----------------------------------------------------------------------------------------


@fresh_folder
@given(grid=grids, dtype=dtypes, ending=st.sampled_from(ENDINGS), packed=st.booleans())
def test_what_simpleitk_writes_is_read(tmp_path: Path, grid: Grid, dtype: str, ending: str, packed: bool) -> None:
    array, path = values(grid.shape, dtype), tmp_path / f"x.{ending}"
    sitk.WriteImage(sitk_image(array, grid), path, useCompression=packed)
    seen = itk.read(path)
    assert seen.array.dtype == np.dtype(dtype)
    assert np.array_equal(seen.array, array)
    assert seen.array.flags.writeable
    assert seen.grid.same_as(grid, tolerance_mm=1e-3)
    assert (seen.unit, seen.modality, seen.synthetic) == ("a.u.", "", None)
    assert itk.is_itk(path)


@fresh_folder
@given(
    grid=grids,
    dtype=dtypes,
    order=st.sampled_from(["little", "big"]),
    encoding=st.sampled_from(["raw", "gzip", "bzip2"]),
    space=st.sampled_from(["left-posterior-superior", "right-anterior-superior", "LAS"]),
    detached=st.booleans(),
)
def test_what_pynrrd_writes_is_read(
    tmp_path: Path, *, grid: Grid, dtype: str, order: str, encoding: str, space: str, detached: bool
) -> None:
    nrrd = pytest.importorskip("nrrd")
    to_ras = {"l": (-1, -1, 1), "r": (1, 1, 1), "L": (-1, 1, 1)}[space[0]]
    array = values(grid.shape, np.dtype(dtype).newbyteorder(">" if order == "big" else "<"))
    header = {
        "space": space,
        "space directions": (grid.affine[:3, :3] * np.array(to_ras)[:, None]).T,
        "space origin": grid.affine[:3, 3] * to_ras,
        "encoding": encoding,
        "endian": order,
        "kinds": ["domain", "domain", "domain"],
        "space units": ["mm", "mm", "mm"],
    }
    path = tmp_path / ("x.nhdr" if detached else "x.nrrd")
    nrrd.write(str(path), array, header)
    seen = itk.read(path)
    assert np.array_equal(seen.array, array)
    assert seen.array.dtype == np.dtype(dtype)
    assert seen.grid.same_as(grid, tolerance_mm=1e-4)


def metaimage(path: Path, data: bytes | str = "LOCAL", **fields: object) -> Path:
    """A MetaImage of 2×3×4 int16 whose header has other or further fields; None leaves one out."""
    common: dict[str, object] = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "TransformMatrix": "0 1 0 0 0 1 1 0 0",
        "Offset": "1 2 3",
        "ElementSpacing": "1 2 3",
        "DimSize": "2 3 4",
        "ElementType": "MET_SHORT",
    }
    lines = {**common, **fields, "ElementDataFile": data if isinstance(data, str) else "LOCAL"}
    text = "".join(f"{key} = {value}\n" for key, value in lines.items() if value is not None)
    path.write_bytes(text.encode() + (data if isinstance(data, bytes) else b""))
    return path


RAMP = np.arange(24, dtype=np.int16).reshape((2, 3, 4), order="F")
BYTES = RAMP.tobytes("F")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"TransformMatrix": None},
        {"TransformMatrix": None, "Orientation": "0 1 0 0 0 1 1 0 0", "Offset": None, "Position": "5 6 7"},
        {"CenterOfRotation": "9 9 9", "AnatomicalOrientation": "RAS"},
        {"ElementSpacing": None, "ElementSize": "3 4 5"},
        {"ElementSpacing": None},
        {"BinaryData": None, "ObjectType": None},
        {"TransformMatrix": "0.6 0.8 0 -0.8 0.6 0 0 0 -1"},
        {"HeaderSize": 0, "Comment": "hello = world"},
    ],
)
def test_headers_mean_what_they_mean_to_itk(tmp_path: Path, fields: dict[str, object]) -> None:
    path = metaimage(tmp_path / "x.mha", BYTES, **fields)
    seen = itk.read(path)
    assert_same_place(sitk.ReadImage(path), seen.grid)
    assert np.array_equal(seen.array, RAMP)


@pytest.mark.parametrize(("key", "order"), [("BinaryDataByteOrderMSB", ">"), ("ElementByteOrderMSB", ">")])
def test_big_endian_metaimage(tmp_path: Path, key: str, order: str) -> None:
    fields = {"BinaryDataByteOrderMSB": None, key: "True"}
    seen = itk.read(metaimage(tmp_path / "x.mha", RAMP.astype(f"{order}i2").tobytes("F"), **fields))
    assert np.array_equal(seen.array, RAMP)
    assert seen.array.dtype.isnative


@pytest.mark.parametrize("pack", [zlib.compress, gzip.compress])
def test_compressed_metaimage_of_either_form(tmp_path: Path, pack: Any) -> None:
    assert np.array_equal(itk.read(metaimage(tmp_path / "x.mha", pack(BYTES), CompressedData="True")).array, RAMP)


@pytest.mark.parametrize("skipped", [0, 7, -1])
def test_voxels_in_a_file_beside_the_header(tmp_path: Path, skipped: int) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.raw").write_bytes(b"?" * (skipped if skipped > 0 else 5 if skipped else 0) + BYTES)
    path = metaimage(tmp_path / "x.mhd", "sub/x.raw", HeaderSize=skipped)
    assert np.array_equal(itk.read(path).array, RAMP)
    text = nrrd_text(**{"data file": "sub/x.raw", "byte skip": skipped})
    (tmp_path / "x.nhdr").write_text(text)
    assert np.array_equal(itk.read(tmp_path / "x.nhdr").array, RAMP)


def nrrd_text(**fields: object) -> str:
    common: dict[str, object] = {
        "type": "short",
        "dimension": 3,
        "space": "left-posterior-superior",
        "sizes": "2 3 4",
        "space directions": "(0,1,0) (0,0,2) (3,0,0)",
        "space origin": "(1,2,3)",
        "endian": "little",
        "encoding": "raw",
    }
    lines = {**common, **fields}
    return "NRRD0004\n" + "".join(f"{key}: {value}\n" for key, value in lines.items() if value is not None) + "\n"


def nrrd_file(path: Path, data: bytes = BYTES, **fields: object) -> Path:
    path.write_bytes(nrrd_text(**fields).encode() + data)
    return path


def test_nrrd_and_metaimage_agree(tmp_path: Path) -> None:
    one = itk.read(nrrd_file(tmp_path / "x.nrrd"))
    assert_same_place(sitk.ReadImage(tmp_path / "x.nrrd"), one.grid)
    assert one.grid.same_as(itk.read(metaimage(tmp_path / "x.mha", BYTES)).grid, tolerance_mm=1e-9)


def test_windows_lines_comments_and_keys(tmp_path: Path) -> None:
    text = nrrd_text().replace("sizes", "# a remark: with a colon\nkey:=value: x\nsizes").replace("\n", "\r\n")
    (tmp_path / "x.nrrd").write_bytes(text.encode() + BYTES)
    assert np.array_equal(itk.read(tmp_path / "x.nrrd").array, RAMP)


def test_an_axis_of_one_value_is_no_vector(tmp_path: Path) -> None:
    path = nrrd_file(
        tmp_path / "x.nrrd",
        dimension=4,
        sizes="1 2 3 4",
        kinds="vector domain domain domain",
        **{"space directions": "none (0,1,0) (0,0,2) (3,0,0)"},
    )
    assert np.array_equal(itk.read(path).array, RAMP)


@pytest.mark.parametrize("ending", ENDINGS)
def test_two_axes_are_an_axial_slice(tmp_path: Path, ending: str) -> None:
    image = sitk.GetImageFromArray(np.arange(6, dtype=np.int16).reshape(3, 2))
    image.SetSpacing((0.5, 0.7))
    image.SetOrigin((10, 20))
    path = tmp_path / f"x.{ending}"
    sitk.WriteImage(image, path)
    seen = itk.read(path)
    assert seen.array[:, :, 0].T.ravel().tolist() == list(range(6))
    assert seen.grid.orientation == "LPS"
    assert seen.grid.spacing_mm == pytest.approx((0.5, 0.7, 1))
    assert seen.grid.to_world([0, 0, 0]) == pytest.approx([-10, -20, 0])
    assert "is 2-D" in itk.oddities(path)[0]


def test_a_sheared_nrrd_keeps_its_shear(tmp_path: Path) -> None:
    seen = itk.read(nrrd_file(tmp_path / "x.nrrd", **{"space directions": "(1,0,0) (0,1,0) (0,1,3)"}))
    assert seen.grid.is_sheared
    assert seen.grid.to_world([0, 0, 1]) - seen.grid.to_world([0, 0, 0]) == pytest.approx([0, -1, 3])


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"NDims": 4, "DimSize": "2 3 2 2", "TransformMatrix": None, "Offset": None, "ElementSpacing": None},
            "2 volumes",
        ),
        ({"ElementNumberOfChannels": 3}, "3 numbers a voxel"),
        ({"ObjectType": "Tube"}, "type 'Tube'"),
        ({"BinaryData": "False"}, "as text"),
        ({"ElementType": "MET_SHORT_ARRAY"}, "of type 'MET_SHORT_ARRAY'"),
        ({"DimSize": "2 3"}, "wrong DimSize"),
        ({"DimSize": "2 3 0"}, "no voxels"),
        ({"DimSize": "2 3 five"}, "damaged"),
        ({"DimSize": "20000 20000 20000"}, "claims"),
        ({"TransformMatrix": "1 0 0 0 1 0"}, "wrong TransformMatrix"),
        ({"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, "singular"),
        ({"Offset": "nan 0 0"}, "wrong Offset"),
        ({"ElementSpacing": "-1 1 1"}, "not above 0"),
        ({"DistanceUnits": "um"}, "'um'"),
        ({"ElementToIntensityFunctionSlope": "2"}, "ElementToIntensityFunction"),
        ({"DimSize": "2 3 5"}, "claims|early"),
        ({"CompressedData": "True"}, "damaged"),
    ],
)
def test_what_is_no_single_metaimage_is_refused(tmp_path: Path, fields: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        itk.read(metaimage(tmp_path / "x.mha", BYTES, **fields))
    assert "x.mha" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"space": None}, "no left from right"),
        ({"space": "scanner-xyz"}, "no left from right"),
        ({"space": None, "space dimension": 3}, "no left from right"),
        ({"space directions": None, "spacings": "1 1 1"}, "no left from right"),
        ({"dimension": 4, "sizes": "2 3 2 2", "space directions": "none (1,0,0) (0,1,0) (0,0,1)"}, "single 3-D"),
        ({"dimension": 4, "sizes": "2 3 2 2", "space": None}, "single 3-D"),
        ({"sizes": "2 3"}, "wrong sizes"),
        ({"sizes": "2 3 0"}, "no voxels"),
        ({"sizes": "9999 9999 9999"}, "claims"),
        ({"type": "block"}, "type 'block'"),
        ({"encoding": "ascii"}, "encoding 'ascii'"),
        ({"encoding": "gzip"}, "damaged"),
        ({"encoding": "bzip2"}, "damaged"),
        ({"endian": None}, "endian"),
        ({"space directions": "(1,0,0) (0,1,0)"}, "2 space directions for 3 axes"),
        ({"space directions": "(1,0) (0,1,0) (0,0,1)"}, "vector of 2 numbers"),
        ({"space directions": "(1,0,0) (1,0,0) (0,0,1)"}, "singular"),
        ({"space origin": "(inf,0,0)"}, "vector"),
        ({"space units": '"um" "um" "um"'}, "write it anew in mm"),
        ({"line skip": 2}, "skips lines"),
    ],
)
def test_what_is_no_single_nrrd_is_refused(tmp_path: Path, fields: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        itk.read(nrrd_file(tmp_path / "x.nrrd", **fields))
    assert "x.nrrd" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../secret.raw", "sub/../../secret.raw", "link.raw", "a\0b", "x" * 5000]
)
def test_no_file_outside_the_folder_is_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.raw").write_bytes(BYTES)
    folder = tmp_path / "in" / "sub"
    folder.mkdir(parents=True)
    (folder.parent / "link.raw").symlink_to(tmp_path / "secret.raw")
    header = metaimage(folder.parent / "x.mhd", name)
    other = folder.parent / "x.nhdr"
    other.write_text(nrrd_text(**{"data file": name}))
    for path in (header, other):
        with pytest.raises(InputError, match=r"outside its own folder|damaged|cannot be opened"):
            itk.read(path)


@pytest.mark.parametrize("name", ["LIST", "x%03d.raw 1 4 1", "missing.raw"])
def test_several_files_or_none_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"files of their own|no file"):
        itk.read(metaimage(tmp_path / "x.mhd", name))
    (tmp_path / "x.nhdr").write_text(nrrd_text(**{"data file": name}))
    with pytest.raises(InputError, match=r"several files|no file"):
        itk.read(tmp_path / "x.nhdr")


@pytest.mark.parametrize("ending", ENDINGS)
def test_values_that_are_not_finite_are_refused_in_and_out(tmp_path: Path, ending: str) -> None:
    array = values((2, 3, 4), np.float32)
    array[1, 1, 1] = np.nan
    grid = Grid.regular((2, 3, 4))
    sitk.WriteImage(sitk_image(array, grid), tmp_path / f"x.{ending}")
    with pytest.raises(InputError, match="1 of 24 voxels"):
        itk.read(tmp_path / f"x.{ending}")
    with pytest.raises(InputError, match="1 of 24 voxels"):
        itk.write(Volume(array, grid), tmp_path / f"y.{ending}")
    assert not list(tmp_path.glob("y.*"))


@pytest.mark.parametrize("ending", ["mha", "nrrd"])
def test_a_flipped_bit_in_compressed_values_is_found(tmp_path: Path, ending: str) -> None:
    volume = Volume(values((9, 9, 9), np.int16), Grid.regular((9, 9, 9)))
    content = bytearray(itk.write(volume, tmp_path / f"x.{ending}").read_bytes())
    content[-3] ^= 1  # of the checksum
    (tmp_path / f"x.{ending}").write_bytes(bytes(content))
    with pytest.raises(InputError, match="damaged"):
        itk.read(tmp_path / f"x.{ending}")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kept", [0, 3, 30, 300, -1])
def test_a_cut_file_is_refused(tmp_path: Path, ending: str, kept: int) -> None:
    path = itk.write(Volume(values((9, 9, 9), np.int16), Grid.regular((9, 9, 9))), tmp_path / f"x.{ending}")
    cut = path.with_suffix(".zraw") if ending == "mhd" and kept == -1 else path
    if not (ending == "mhd" and kept == -1):
        assert len(cut.read_bytes()) > 300
    cut.write_bytes(cut.read_bytes()[:kept])
    with pytest.raises(InputError, match=rf"x\.{ending}"):
        read(path)


def test_a_header_whose_only_ndims_is_behind_its_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.mha"
    path.write_bytes(b"ObjectType = Image\nDimSize = 1 1 1\nElementDataFile = LOCAL\nNDims = 3\n")
    with pytest.raises(InputError, match="NDims = 0"):
        read(path)


@pytest.mark.filterwarnings("error")
def test_steps_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.mha"
    lines = ["NDims = 3", "DimSize = 1 1 1", "ElementSpacing = 1e200 1 1", "TransformMatrix = 1e200 0 0 0 1 0 0 0 1"]
    path.write_text("\n".join([*lines, "ElementType = MET_SHORT", "ElementDataFile = LOCAL\n\0\0"]))
    with pytest.raises(InputError, match=r"x\.mha"):
        read(path)


def test_a_message_quotes_little_of_a_damaged_file(tmp_path: Path) -> None:
    path = itk.write(Volume(values((2, 3, 4), np.int16), Grid.regular((2, 3, 4))), tmp_path / "x.nrrd")
    path.write_bytes(path.read_bytes().replace(b"sizes: 2", b"sizes: " + b"x" * 5000))
    with pytest.raises(InputError) as caught:
        read(path)
    assert len(str(caught.value)) < 300 + 150 + len(str(path))


def outcome(path: Path) -> str:
    try:
        itk.read(path)
        itk.oddities(path)
    except MedganError as error:
        return str(error)
    return "read"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("ending", ["mha", "nrrd"])
@pytest.mark.parametrize("seed", range(2))
def test_no_damage_escapes_as_another_error(
    tmp_path: Path, ending: str, seed: int, capfd: pytest.CaptureFixture[str]
) -> None:
    volume = Volume(values((5, 6, 7), np.int16), Grid.regular((5, 6, 7)), "HU", "CT", MADE)
    whole = itk.write(volume, tmp_path / f"x.{ending}").read_bytes()
    random_of, outcomes = random.Random(seed), []
    path = tmp_path / f"damaged.{ending}"
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(random_of.randint(1, 3)):
            content[random_of.randrange(len(content))] = random_of.choice(b"0-9/.=:\n e\x00\xff")
        path.write_bytes(bytes(content[: random_of.choice([None, None, len(whole) // 2])]))
        outcomes.append(outcome(path))
    assert 20 < outcomes.count("read") < 380
    assert not any("\n" in line for line in outcomes)
    assert capfd.readouterr().err == ""


# --- writing ----------------------------------------------------------------------------------------------------------


@fresh_folder
@given(
    grid=grids,
    dtype=st.sampled_from(["?", "u1", "i2", "u2", "i4", "f4", "f8"]),
    ending=st.sampled_from(ENDINGS),
    fortran=st.booleans(),
)
def test_simpleitk_reads_what_is_written(tmp_path: Path, grid: Grid, dtype: str, ending: str, fortran: bool) -> None:
    array = values(grid.shape, "u1").astype(dtype) if dtype != "f8" else values(grid.shape, "f8")
    array = np.asfortranarray(array) if fortran else array
    path = itk.write(Volume(array, grid, "HU", "CT"), tmp_path / f"x.{ending}")
    image = sitk.ReadImage(path)
    assert_same_place(image, grid)
    assert np.array_equal(sitk.GetArrayFromImage(image).T, array)
    seen = itk.read(path)
    assert np.array_equal(seen.array, array)
    assert seen.grid.same_as(grid, tolerance_mm=1e-9)


@pytest.mark.parametrize("ending", ENDINGS)
def test_pynrrd_and_simpleitk_find_the_marks(tmp_path: Path, ending: str) -> None:
    volume = Volume(RAMP, Grid.regular(RAMP.shape), "a.u.", "MR", MADE)
    path = itk.write(volume, tmp_path / f"x.{ending}")
    told = json.loads(sitk.ReadImage(path).GetMetaData("medgan"))
    assert told["SyntheticData"] is True
    if ending == "nrrd":
        nrrd = pytest.importorskip("nrrd")
        assert json.loads(nrrd.read_header(str(path))["medgan"])["Synthesis"]["Model"] == "pix2pix"


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("made", [None, MADE])
@pytest.mark.parametrize("sidecar_lost", [False, True])
def test_unit_modality_and_mark_come_back(
    tmp_path: Path, ending: str, made: Synthesis | None, sidecar_lost: bool
) -> None:
    path = write(Volume(RAMP, Grid.regular(RAMP.shape), "HU", "CT", made), tmp_path / f"x.{ending}")
    if sidecar_lost:
        (tmp_path / "x.json").unlink()
    seen = read(path)
    assert (seen.unit, seen.modality, seen.synthetic) == ("HU", "CT", made)
    assert itk.read_mark(path) == made
    assert read_header(path).grid.same_as(seen.grid, tolerance_mm=0)


@pytest.mark.parametrize("ending", ["mha", "nrrd"])
def test_the_mark_survives_simpleitk(tmp_path: Path, ending: str) -> None:
    path = itk.write(Volume(RAMP, Grid.regular(RAMP.shape), "HU", "CT", MADE), tmp_path / f"x.{ending}")
    sitk.WriteImage(sitk.ReadImage(path), tmp_path / f"y.{ending}")
    seen = itk.read(tmp_path / f"y.{ending}")
    assert seen.synthetic is not None
    assert (seen.synthetic.model, seen.synthetic.weights_sha256, seen.unit) == ("pix2pix", "ab" * 32, "HU")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_set_without_marks_is_noticed(tmp_path: Path, ending: str) -> None:
    volume = Volume(RAMP, Grid.regular(RAMP.shape))
    itk.write(volume.marked(MADE), tmp_path / f"a.{ending}")
    assert is_marked(tmp_path)
    itk.write(volume, tmp_path / f"b.{ending}")
    assert missing_marks(tmp_path) == (f"b.{ending}: lacks a comment that it is synthetic",)


def test_a_mark_too_long_for_metaio_gives_up_its_words_only(tmp_path: Path) -> None:
    wordy = Synthesis("pix2pix", weights_sha256="ab" * 32, description="so many words" * 400)
    path = itk.write(Volume(RAMP, Grid.regular(RAMP.shape), "HU", "CT", wordy), tmp_path / "x.mha")
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(path)).T, RAMP)
    assert itk.read_mark(path) == Synthesis("pix2pix", weights_sha256="ab" * 32)
    assert itk.read(path).synthetic == wordy  # of the JSON file


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_same_image_gives_the_same_file(tmp_path: Path, ending: str) -> None:
    volume = Volume(values((20, 21, 22), np.float32), Grid.regular((20, 21, 22)), "HU", "CT")
    one, other = (itk.write(volume, tmp_path / name / f"x.{ending}").read_bytes() for name in ("a", "b"))
    assert one == other


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_sheared_grid_is_refused_with_advice(tmp_path: Path, ending: str) -> None:
    affine = np.diag([1.0, 1, 3, 1])
    affine[1, 2] = 1
    with pytest.raises(GeometryError, match="write it as NIfTI, or resample it first"):
        write(Volume(RAMP, Grid(RAMP.shape, affine)), tmp_path / f"x.{ending}")
    assert not list(tmp_path.iterdir())


def test_the_files_of_others_are_not_overwritten(tmp_path: Path) -> None:
    volume = Volume(RAMP, Grid.regular(RAMP.shape))
    (tmp_path / "x.zraw").write_bytes(b"?")
    with pytest.raises(OutputError, match=r"x\.zraw: would be overwritten"):
        itk.write(volume, tmp_path / "x.mhd")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(OutputError, match=r"x\.json: would be overwritten"):
        itk.write(volume, tmp_path / "x.nrrd")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json", "x.zraw"]


def test_the_name_does_not_count_when_reading(tmp_path: Path) -> None:
    for ending in ("mha", "nrrd"):
        path = itk.write(Volume(RAMP, Grid.regular(RAMP.shape)), tmp_path / f"x.{ending}")
        assert np.array_equal(read(path.rename(tmp_path / f"scan_{ending}")).array, RAMP)


def test_bzip2(tmp_path: Path) -> None:
    assert np.array_equal(itk.read(nrrd_file(tmp_path / "x.nrrd", bz2.compress(BYTES), encoding="bz2")).array, RAMP)
