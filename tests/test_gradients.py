"""Diffusion: what headers of each vendor say, against dcm2niix on real series and documents on made ones."""

from __future__ import annotations

import gzip
import io
import struct
import subprocess
import warnings
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from scipy.spatial.transform import Rotation

from medgan.errors import NiftiError
from medgan.formats import gradients, nifti
from medgan.formats.dicom.csa import csa, csa_of_bytes
from medgan.formats.dicom.diffusion import Diffusion, diffusion, gradients_of
from medgan.formats.gradients import Gradients
from medgan.volume import Grid

LPS_TO_RAS = np.array([-1, -1, 1])
fresh_folder = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
angles = st.tuples(*[st.floats(-3.1, 3.1)] * 3)


def quiet_read(path: Path) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcmread(path, force=True, stop_before_pixels=True)


# --- the two text files -----------------------------------------------------------------------------------------------


@fresh_folder
@given(turn=angles, other=angles, flips=st.tuples(*[st.sampled_from([-1, 1])] * 3), order=st.permutations([0, 1, 2]))
def test_directions_come_back_from_any_grid(tmp_path: Path, *, turn: Any, other: Any, flips: Any, order: Any) -> None:
    axes = Rotation.from_euler("xyz", turn).as_matrix()[:, order] * flips
    grid = Grid.regular((4, 5, 6), spacing_mm=(1, 2, 3), direction=axes)
    table = Gradients(
        np.array([0, 700, 1000, 3000]), np.vstack([np.zeros(3), Rotation.from_euler("xyz", other).as_matrix()])
    )
    gradients.write(table, grid, tmp_path / "x.nii.gz")
    seen = gradients.read(tmp_path / "x.nii.gz", grid)
    assert seen is not None
    assert np.abs(seen.directions_ras - table.directions_ras).max() < 2e-6
    assert np.array_equal(seen.b_values, table.b_values)


@pytest.mark.parametrize(
    ("direction", "written"),
    [
        (np.diag([-1.0, 1, 1]), [-0.6, 0, 0.8]),  # as radiologists store: along the voxel axes
        (np.diag([1.0, 1, 1]), [-0.6, 0, 0.8]),  # mirrored: the first number changes sign, and the axis has too
        (np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), [0, -0.6, 0.8]),
    ],
)
def test_fsls_convention(tmp_path: Path, direction: np.ndarray, written: list[float]) -> None:
    """The vector (0.6, 0, 0.8) to the patient's right and up, worked out by hand."""
    table = Gradients(np.array([1000.0]), np.array([[0.6, 0, 0.8]]))
    gradients.write(table, Grid.regular((2, 2, 2), direction=direction), tmp_path / "x.nii")
    assert np.loadtxt(tmp_path / "x.bvec").tolist() == pytest.approx(written)


def test_the_files_are_as_fsl_has_them(tmp_path: Path) -> None:
    table = Gradients(np.array([0, 1000, 2500.5]), np.array([[0, 0, 0], [-1, 0, 0], [0, 0, 1]]))
    gradients.write(table, Grid.regular((2, 2, 2), direction=np.diag([-1, 1, 1])), tmp_path / "x.nii.gz")
    assert (tmp_path / "x.bval").read_text() == "0 1000 2500.5\n"
    assert (tmp_path / "x.bvec").read_text().splitlines() == [
        "0.000000 1.000000 0.000000",
        "0.000000 0.000000 0.000000",
        "0.000000 0.000000 1.000000",
    ]


def test_a_sheared_grid_keeps_the_angles_between_directions(tmp_path: Path) -> None:
    affine = np.diag([1.0, 1, 3, 1])
    affine[1, 2] = 1.2
    table = Gradients(np.array([1000, 1000.0]), np.array([[0, 1, 0], [0, 0, 1.0]]))
    gradients.write(table, Grid((2, 2, 2), affine), tmp_path / "x.nii")
    vectors = np.loadtxt(tmp_path / "x.bvec")
    assert vectors[:, 0] @ vectors[:, 1] == pytest.approx(0, abs=1e-6)


def test_columns_instead_of_rows_are_read(tmp_path: Path) -> None:
    grid = Grid.regular((2, 2, 2), direction=np.diag([-1, 1, 1]))
    (tmp_path / "x.bval").write_text("0\n500\n600\n700\n")
    (tmp_path / "x.bvec").write_text("0 0 0\n1 0 0\n0 1 0\n0 0 1\n")
    seen = gradients.read(tmp_path / "x.nii.gz", grid)
    assert seen is not None
    assert seen.directions_ras[1].tolist() == [-1, 0, 0]
    assert seen.b_values.tolist() == [0, 500, 600, 700]


@pytest.mark.parametrize(
    ("b_values", "vectors", "reason"),
    [
        ("0 1000", None, r"x\.bvec: is missing"),
        (None, "0 1\n0 0\n0 0", r"x\.bval: is missing"),
        ("0 1000", "0 1\n0 0\n0", "is no table of numbers"),
        ("0 many", "0 1\n0 0\n0 0", r"x\.bval: is no table"),
        ("0 1000 2000", "0 1\n0 0\n0 0", "N b values and N vectors"),
        ("0 1000", "0 0.5\n0 0\n0 0", "has the length 0.5"),
        ("0 1000", "nan 1\n0 0\n0 0", "finite"),
        ("0 -5", "0 1\n0 0\n0 0", "not below 0"),
        ("", "", "three rows"),
        ("0 1000", "0 1 2 3", "three rows"),
    ],
)
def test_tables_that_are_none_are_refused(
    tmp_path: Path, b_values: str | None, vectors: str | None, reason: str
) -> None:
    for ending, content in (("bval", b_values), ("bvec", vectors)):
        if content is not None:
            (tmp_path / f"x.{ending}").write_text(content)
    with pytest.raises(NiftiError, match=reason):
        gradients.read(tmp_path / "x.nii", Grid.regular((2, 2, 2)))


def test_no_files_are_no_gradients(tmp_path: Path) -> None:
    assert gradients.read(tmp_path / "x.nii", Grid.regular((2, 2, 2))) is None


# --- real series ------------------------------------------------------------------------------------------------------


def by_dcm2niix(folder: Path, out: Path) -> tuple[Path, list[str]]:
    """The image that dcm2niix makes of a folder, and the lines of its gradient files."""
    package = pytest.importorskip("dcm2niix")
    subprocess.run([package.bin, "-o", out, "-f", "x", "-b", "y", "-z", "n", folder], check=True, capture_output=True)
    return out / "x.nii", (out / "x.bval").read_text().split()


def headers_by_volume(folder: Path) -> list[list[Dataset]]:
    """Headers of each volume of a classic series: those of equal b value and direction, in the order of the files."""
    found: dict[str, list[Dataset]] = {}
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.name)
    for header in map(quiet_read, files):
        found.setdefault(str(diffusion(header)), []).append(header)
    return list(found.values())


@pytest.mark.parametrize(
    "name",
    ["siemens/dti_classic/001", "siemens/dti_classic/001_implicit", "philips/dti/001", "philips/dti/001_implicit"],
)
def test_real_series_agree_with_dcm2niix(shared: Path, tmp_path: Path, name: str) -> None:
    folder = shared / "dicom/dicom2nifti/tests/data" / name
    image, b_values = by_dcm2niix(folder, tmp_path)
    grid = nifti.read_set_grid(image)
    reference = gradients.read(image, grid)
    assert reference is not None
    told = [diffusion(headers[0]) for headers in headers_by_volume(folder)]
    order = sorted(range(len(told)), key=lambda index: _nearest(told[index], reference))
    mine = gradients_of([told[index] for index in order])
    assert mine is not None
    assert [f"{value:g}" for value in mine.b_values] == b_values
    assert np.abs(mine.directions_ras - reference.directions_ras).max() < 1e-4  # dcm2niix writes six digits
    gradients.write(mine, grid, tmp_path / "mine.nii")
    assert np.abs(np.loadtxt(tmp_path / "mine.bvec") - np.loadtxt(tmp_path / "x.bvec")).max() < 1e-4


def _nearest(reading: Diffusion | None, reference: Gradients) -> int:
    """The volume of dcm2niix to which a reading belongs."""
    assert reading is not None
    ras = np.multiply(reading.direction_lps or (0, 0, 0), LPS_TO_RAS)
    away = np.linalg.norm(reference.directions_ras - ras, axis=1) + np.abs(reference.b_values - reading.b_value)
    return int(away.argmin())


@pytest.mark.parametrize("name", ["philips_enhanced/dti/001", "philips_enhanced/dti/001_implicit"])
def test_frames_of_an_enhanced_file_agree_with_dcm2niix(shared: Path, tmp_path: Path, name: str) -> None:
    folder = shared / "dicom/dicom2nifti/tests/data" / name
    image, b_values = by_dcm2niix(folder, tmp_path)
    reference = gradients.read(image, nifti.read_set_grid(image))
    assert reference is not None
    header = quiet_read(next(path for path in folder.rglob("*") if path.is_file()))
    told = [diffusion(header, frame) for frame in range(int(header.NumberOfFrames))]
    for number, b_value in enumerate(b_values):
        ras = reference.directions_ras[number]
        same = [
            reading
            for reading in told
            if reading is not None
            and f"{reading.b_value:g}" == b_value
            and np.abs(np.multiply(reading.direction_lps or (0, 0, 0), LPS_TO_RAS) - ras).max() < 1e-3
        ]
        assert len(same) == len(told) / len(b_values)


def test_isotropic_series_have_no_directions(shared: Path) -> None:
    told = [
        diffusion(headers[0]) for headers in headers_by_volume(shared / "dicom/dicom2nifti/tests/data/philips/dti/002")
    ]
    assert sorted((reading.b_value, reading.direction_lps) for reading in told if reading) == [
        (0, None),
        (40, None),
        (273, None),
        (800, None),
    ]


def test_ge_without_position_and_phase_has_b_values_and_a_reason(shared: Path) -> None:
    """dcm2niix writes a vector here, and says that it could not determine it."""
    told = [diffusion(v[0]) for v in headers_by_volume(shared / "dicom/dicom2nifti/tests/data/ge/dti/001")]
    assert [reading and (reading.b_value, reading.direction_lps) for reading in told] == [None, (1000, None)]
    assert told[1] is not None
    assert "head first and supine" in told[1].problem


@pytest.mark.parametrize("name", ["siemens_dwi_0.dcm.gz", "siemens_dwi_1000.dcm.gz", "csa_slice_norm.dcm", "0.dcm"])
def test_csa_headers_read_as_nibabel_reads_them(name: str) -> None:
    header = of_nibabel(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nibabel calls its own reader experimental
        from nibabel.nicom import csareader
    for which in ("image", "series"):
        reference = csareader.get_csa_header(header, which)
        mine = csa(header, which)
        assert (reference is None) == (not mine)
        tags = reference["tags"] if reference else {}
        assert mine.keys() == tags.keys()
        for key, tag in tags.items():
            assert [_number(text) for text in mine[key]] == [_number(str(item)) for item in tag["items"]], key
    assert csa(header)


def of_nibabel(name: str) -> Dataset:
    """The header of a file that nibabel brings along."""
    path = Path(nib.__file__).parent / "nicom" / "tests" / "data" / name
    if not path.is_file():
        pytest.skip(f"this nibabel has no {name}")
    content = path.read_bytes()
    return dcmread(io.BytesIO(gzip.decompress(content) if name.endswith(".gz") else content), force=True)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text.strip()


def test_a_real_siemens_mosaic_is_weighted_along_x() -> None:
    header = of_nibabel("siemens_dwi_1000.dcm.gz")
    reading = diffusion(header)
    assert reading is not None
    assert reading.b_value == 1000
    wanted = (0.99997449, 0.00505012, -0.00505012)
    assert reading.direction_lps == pytest.approx(wanted, abs=1e-6)
    # Without the private attributes the CSA header tells the same, and without its vector its b matrix, but for a sign.
    del header[0x0019, 0x100C]
    assert diffusion(header) == reading
    block = header[0x0029, 0x1010]
    block.value = block.value.replace(b"DiffusionGradientDirection", b"DiffusionGradientElsewhere")
    third = diffusion(header)
    assert third is not None
    assert third.direction_lps is not None
    assert abs(np.dot(third.direction_lps, wanted)) > 0.999


# --- made headers -----------------------------------------------------------------------------------------------------


def made(**fields: Any) -> Dataset:
    header = Dataset()
    header.set_original_encoding(is_implicit_vr=False, is_little_endian=True)
    header.ImageOrientationPatient, header.PatientPosition = [1, 0, 0, 0, 1, 0], "HFS"
    for key, value in fields.items():
        setattr(header, key, value)
    return header


def private(header: Dataset, group: int, creator: str, offset: int, *, vr: str, value: Any, at: int = 0x10) -> None:
    header.add_new((group, at), "LO", creator)
    header.add_new((group, (at << 8) + offset), vr, value)


@pytest.mark.parametrize("at", [0x10, 0x11, 0x42])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_private_blocks_are_found_by_creator(tmp_path: Path, at: int, as_bytes: bool) -> None:
    header = made(Manufacturer="SIEMENS")
    vector = (0.6, 0.0, 0.8)
    raw = struct.pack("<3d", *vector)
    private(
        header,
        0x0019,
        "SIEMENS MR HEADER",
        0x0C,
        vr="UN" if as_bytes else "IS",
        value=b"800 " if as_bytes else "800",
        at=at,
    )
    private(
        header,
        0x0019,
        "SIEMENS MR HEADER",
        0x0E,
        vr="UN" if as_bytes else "FD",
        value=raw if as_bytes else list(vector),
        at=at,
    )
    header.add_new((0x0019, 0x0050), "LO", "SOMEBODY ELSE")
    header.add_new((0x0019, 0x500C), "IS", "5")
    assert diffusion(header) == Diffusion(800, vector)


def test_the_usual_number_counts_only_where_a_group_names_nobody() -> None:
    header = made(Manufacturer="SIEMENS")
    header.add_new((0x0019, 0x100C), "IS", "800")
    assert diffusion(header) == Diffusion(800, None)
    header.add_new((0x0019, 0x0010), "LO", "SOMEBODY ELSE")
    assert diffusion(header) is None
    other = made(Manufacturer="Philips")
    other.add_new((0x0019, 0x100C), "IS", "800")
    assert diffusion(other) is None


def ge(vector: tuple[float, float, float], b_value: str = "1000\\8\\0\\0", **fields: Any) -> Dataset:
    header = made(Manufacturer="GE MEDICAL SYSTEMS", **fields)
    header.add_new((0x0019, 0x0010), "LO", "GEMS_ACQU_01")
    for offset, part in zip((0xBB, 0xBC, 0xBD), vector, strict=True):
        header.add_new((0x0019, 0x1000 + offset), "DS", str(part))
    private(header, 0x0043, "GEMS_PARM_01", 0x39, vr="IS", value=b_value)
    return header


@pytest.mark.parametrize(
    ("phase", "vector", "wanted"),
    [
        ("COL", (1, 0, 0), (1, 0, 0)),  # frequency runs along a row
        ("COL", (0, 1, 0), (0, 1, 0)),
        ("COL", (0, 0, 1), (0, 0, -1)),
        ("ROW", (1, 0, 0), (0, -1, 0)),
        ("ROW", (0, 1, 0), (1, 0, 0)),
        ("ROW", (0, 0, 1), (0, 0, -1)),
    ],
)
def test_ges_axes_are_frequency_phase_and_slice(phase: str, vector: Any, wanted: Any) -> None:
    reading = diffusion(ge(vector, InPlanePhaseEncodingDirection=phase))
    assert reading is not None
    assert reading.direction_lps == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("stated", "vector", "b_value"),
    [
        ("1000\\8\\0\\0", (1, 0, 0), 1000),
        ("1000001000\\8\\0\\0", (1, 0, 0), 1000),
        ("2000\\8\\0\\0", (0.70710678, 0, 0), 1000),  # a shorter gradient is a weaker one
        ("3000\\8\\0\\0", (0.6, 0, 0.8), 3000),
    ],
)
def test_ges_b_values(stated: str, vector: Any, b_value: float) -> None:
    reading = diffusion(ge(vector, stated, InPlanePhaseEncodingDirection="COL"))
    assert reading is not None
    assert (reading.b_value, reading.problem) == (b_value, "")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "axial"),
        ({"PatientPosition": "FFS"}, "head first"),
        ({"InPlanePhaseEncodingDirection": ""}, "0018,1312"),
    ],
)
def test_ges_directions_are_not_guessed(fields: dict[str, Any], reason: str) -> None:
    reading = diffusion(ge((1, 0, 0), **{"InPlanePhaseEncodingDirection": "COL", **fields}))
    assert reading is not None
    assert (reading.b_value, reading.direction_lps) == (1000, None)
    assert reason in reading.problem


def test_a_ge_image_without_weighting_says_nothing() -> None:
    assert diffusion(ge((0, 0, 0), "0\\8\\0\\0")) is None


def test_old_philips_and_united_imaging() -> None:
    philips = made(Manufacturer="Philips Medical Systems")
    private(philips, 0x2001, "Philips Imaging DD 001", 0x03, vr="FL", value=800.0)
    for offset, part in ((0xB0, 0.6), (0xB1, 0.0), (0xB2, -0.8)):
        private(philips, 0x2005, "Philips MR Imaging DD 001", offset, vr="FL", value=part)
    reading = diffusion(philips)
    assert reading is not None
    assert reading.direction_lps == pytest.approx((0.6, 0, -0.8))
    uih = made(Manufacturer="UIH", ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    private(uih, 0x0065, "Image Private Header", 0x09, vr="FD", value=700.0)
    private(uih, 0x0065, "Image Private Header", 0x37, vr="FD", value=[0.6, 0.8, 0.0])
    assert diffusion(uih) == Diffusion(700, (0.0, 0.6, -0.8))  # along rows, which run back, and columns, which run down


def test_toshiba_says_nothing_where_b_is_0_and_canon_speaks_in_a_comment() -> None:
    weighted = made(Manufacturer="TOSHIBA", DiffusionBValue=1000.0, DiffusionGradientOrientation=[0.0, 0.0, 2.0])
    table = gradients_of([diffusion(made(Manufacturer="TOSHIBA")), diffusion(weighted)])
    assert table is not None
    assert table.b_values.tolist() == [0, 1000]
    assert table.directions_ras.tolist() == [[0, 0, 0], [0, 0, 1]]
    canon = diffusion(made(Manufacturer="CANON_MEC", ImageComments="b=1500(0.445,0.000,0.895)"))
    assert canon is not None
    assert (canon.b_value, canon.direction_lps) == (1500, None)
    assert "undocumented" in canon.problem


def test_a_flattened_frame_of_an_enhanced_file() -> None:
    direction = Dataset()
    direction.DiffusionGradientOrientation = [0.0, 1.0, 0.0]
    frame = made(Manufacturer="SIEMENS", DiffusionBValue=650.0, DiffusionGradientDirectionSequence=[direction])
    assert diffusion(frame) == Diffusion(650, (0.0, 1.0, 0.0))


def test_no_weighting_is_no_table() -> None:
    assert gradients_of([None, None]) is None
    assert gradients_of([Diffusion(0, None)] * 3) is None
    assert diffusion(made(Manufacturer="SIEMENS")) is None


# --- damage -----------------------------------------------------------------------------------------------------------


def csa_bytes(entries: dict[str, list[str]], *, old: bool) -> bytes:
    """A CSA header as Siemens writes it; in the old form lengths are told with the first entry's number of items."""
    first = 6
    content = b"" if old else b"SV10\4\3\2\1"
    content += struct.pack("<2i", len(entries), 77)
    for name, texts in entries.items():
        items = [text.encode() + b"\0" for text in texts] + [b""] * (first - len(texts))
        content += struct.pack("<64si4s3i", name.encode(), len(texts), b"DS\0\0", 3, len(items), 77)
        for item in items:
            length = len(item)
            content += struct.pack("<4i", length + first if old else length, length, 77, length)
            content += item + b"\0" * (-length % 4)
    return content


@pytest.mark.parametrize("old", [False, True])
def test_both_forms_of_the_csa_header(old: bool) -> None:
    entries = {"EchoLinePosition": ["1"], "SliceNormalVector": ["0.0", "-0.5", "0.8660254"], "MosaicRefAcqTimes": []}
    assert csa_of_bytes(csa_bytes(entries, old=old)) == entries


@pytest.mark.parametrize("old", [False, True])
def test_a_damaged_csa_header_raises_nothing(old: bool) -> None:
    whole = csa_bytes({"B_value": ["1000"], "SliceNormalVector": ["0.0", "-0.5", "0.8"]}, old=old)
    rng, seen = np.random.default_rng(0), set()
    for _ in range(3000):
        content = bytearray(whole[: rng.integers(0, len(whole) + 1)])
        for _ in range(rng.integers(0, 4)):
            if content:
                content[rng.integers(len(content))] = rng.choice([0, 1, 77, 127, 255])
        seen.add(len(csa_of_bytes(bytes(content))))
    assert seen >= {0, 1, 2}
    assert csa_of_bytes(b"") == {}


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_damaged_headers_raise_nothing(shared: Path, tmp_path: Path, syntax: str) -> None:
    data = shared / "dicom/dicom2nifti/tests/data"
    folder = "siemens/dti_classic/001" if syntax == ExplicitVRLittleEndian else "siemens/dti_classic/001_implicit"
    content = sorted(path for path in (data / folder).rglob("*") if path.is_file())[-1].read_bytes()[:12000]
    rng, told = np.random.default_rng(0), 0
    for _ in range(150):
        damaged = bytearray(content)
        for place in rng.integers(140, len(content), 40):
            damaged[place] = rng.integers(256)
        (tmp_path / "x.dcm").write_bytes(bytes(damaged))
        try:
            header = quiet_read(tmp_path / "x.dcm")
        except Exception:  # pydicom's own business
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            told += diffusion(header) is not None
            csa(header)
    assert told > 10
