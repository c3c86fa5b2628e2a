"""What people hand to `medgan evaluate` by mistake, as a table: what becomes of the case, and the line that says so.

One case of three is made bad. The command has to score the others, count the bad one, tell why in one line, print JSON
that can be parsed and write results of their schema.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import shutil
import struct
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from command_line import Done, medgan

from medgan import Grid, Volume, evaluate, write
from medgan.formats.dicom import Subject
from medgan.volume import Synthesis

SCHEMA = json.loads((Path(__file__).parents[1] / "docs" / "reference" / "evaluation.schema.json").read_text())
GRID = Grid.regular((16, 14, 12), spacing_mm=(1.5, 1, 2), origin_mm=(3, -4, 50))
CASES = ("p1", "p2", "p3")
ROLES = ("pred", "ref", "mask")
Array = npt.NDArray[Any]
Make = Callable[[Path], object]


def real(n: int = 2) -> Volume:
    values = np.random.default_rng(n).normal(100, 300, GRID.shape)
    return Volume(np.round(values).astype(np.int16), GRID, "HU", "CT")


def made(n: int = 2) -> Volume:
    """Off by 2 HU."""
    return real(n).with_array(real(n).array + np.int16(2))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for number, case in enumerate(CASES, start=1):
        volumes = {"pred": made(number), "ref": real(number), "mask": inside(real(number).array > 0)}
        for role, volume in volumes.items():
            write(volume, tmp_path / role / f"{case}.nii.gz")
    return tmp_path


def inside(marked: Array) -> Volume:
    return Volume(marked.astype(np.uint8), GRID, "label")


def evaluated(study: Path, *options: object) -> Done:
    places = (study / "pred", study / "ref", "--mask", study / "mask", "--out", study / "out", "--json")
    return medgan("evaluate", *places, *options)


# --- how a case is made bad -------------------------------------------------------------------------------------------


def file(role: str, suffix: str = ".nii.gz") -> Callable[[Path], Path]:
    return lambda study: study / role / f"p2{suffix}"


def bare(role: str, array: Array, affine: Array | None = None, header: nib.Nifti1Header | None = None) -> Make:
    """A NIfTI file as another tool writes it, which tells neither unit nor modality."""

    def make(study: Path) -> None:
        without(role)(study)
        nib.save(nib.Nifti1Image(array, GRID.affine if affine is None else affine, header), file(role)(study))

    return make


def without(role: str) -> Make:
    def make(study: Path) -> None:
        file(role)(study).unlink()
        file(role, ".json")(study).unlink(missing_ok=True)

    return make


def instead(role: str, volume: Volume, name: str = "p2.nii.gz") -> Make:
    def make(study: Path) -> None:
        without(role)(study)
        write(volume, study / role / name, subject=Subject() if "." not in name else None)

    return make


def content(role: str, change: Callable[[bytes], bytes]) -> Make:
    def make(study: Path) -> None:
        file(role)(study).write_bytes(change(file(role)(study).read_bytes()))

    return make


def linked(role: str, target: str) -> Make:
    def make(study: Path) -> None:
        without(role)(study)
        file(role)(study).symlink_to(study / role / target)

    return make


def renamed(*names: str) -> Make:
    """The files of the second case, by role; bytes that are no text as Python writes them."""

    def make(study: Path) -> None:
        for role, name in zip(ROLES, names if len(names) > 1 else names * 3, strict=True):
            file(role)(study).rename(study / role / f"{name}.nii.gz")

    return make


def several(*makes: Make) -> Make:
    return lambda study: [make(study) for make in makes]


def at(value: float, *, masked: bool) -> Array:
    """The prediction with this value in one voxel inside or outside the mask."""
    values = made().array.astype(np.float32)
    values[tuple(np.argwhere((real().array > 0) == masked)[0])] = value
    return values


def moved(row: int, column: int, by: float) -> Array:
    affine = np.array(GRID.affine)
    affine[row, column] += by
    return affine


def scaled(data: bytes) -> bytes:
    """The same values, stored as (value + 1024) / 0.5 with the scaling in the header."""
    raw = bytearray(gzip.decompress(data))
    struct.pack_into("<2h", raw, 70, 512, 16)  # uint16
    struct.pack_into("<2f", raw, 112, 0.5, -1024.0)
    start = int(struct.unpack_from("<f", raw, 108)[0])
    raw[start:] = ((made().array.astype(float) + 1024) / 0.5).astype("<u2").tobytes(order="F")
    return gzip.compress(bytes(raw))


CONSTANT = np.full(GRID.shape, 7, np.int16)
SLICE = real().array[:, :, :1]
NOISY = np.asarray(GRID.affine) + np.random.default_rng(0).uniform(-1e-5, 1e-5, (4, 4)) * np.eye(4)[:, :1].repeat(4, 1)
COLOUR = np.zeros(GRID.shape, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
VALUES = made().array
ALIKE = 2.0  # the MAE of a prediction that is whole


# --- the table --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bad:
    """A mistake.

    Args:
        name: of the row.
        make: it from a study that is good.
        note: what the note of the case says, in part; all of it where it is empty.
        status: of the case.
        mae: of the case where it is scored.
        none: metrics that have no number.
        case: its name.
    """

    name: str
    make: Make
    note: str = ""
    status: str = "refused"
    mae: float | None = None
    none: tuple[str, ...] = ()
    case: str = "p2"


def scored(
    name: str, make: Make, note: str = "", mae: float = ALIKE, *, none: tuple[str, ...] = (), case: str = "p2"
) -> Bad:
    return Bad(name, make, note, "scored", mae, none, case)


UNSTATED = "the prediction states no unit, taken as HU"
GONE = "is damaged or cut short"
ELSEWHERE = "the prediction is not on the reference's grid"
TABLE = [
    # values
    scored(
        "both constant",
        several(bare("pred", CONSTANT), bare("ref", CONSTANT)),
        "psnr is infinite: no error is left in the range",
        0,
        none=("psnr", "slice_roughness"),
    ),
    scored("a constant prediction", bare("pred", CONSTANT), UNSTATED, float("nan"), none=("slice_roughness",)),
    *(
        Bad(
            f"{value} {where} the mask of the {role}",
            bare(role, at(value, masked=where == "in")),
            "1 of 2688 voxels are",
        )
        for value in (np.nan, np.inf, -np.inf)
        for where in ("in", "outside")
        for role in ("pred", "ref")
    ),
    Bad("nothing but NaN", bare("pred", np.full(GRID.shape, np.nan, np.float32)), "2688 of 2688 voxels are"),
    scored("values beyond all squares", bare("pred", at(1e30, masked=False)), UNSTATED),
    scored("float32 against int16", bare("pred", VALUES.astype(np.float32)), UNSTATED),
    scored("float64 against int16", bare("pred", VALUES.astype(np.float64)), UNSTATED),
    scored("a scaling in the header", content("pred", scaled)),
    scored("big-endian", bare("pred", VALUES, header=nib.Nifti1Header(endianness=">")), UNSTATED),
    Bad("colours", bare("pred", COLOUR), "has colour values"),
    Bad("complex values", bare("pred", VALUES.astype(np.complex64)), "has complex values"),
    # masks
    Bad("an empty mask", instead("mask", inside(np.zeros(GRID.shape))), "case 'p2': the mask is empty"),
    Bad("a mask of NaN", bare("mask", np.full(GRID.shape, np.nan, np.float32)), "voxels are NaN or infinite"),
    Bad(
        "a mask on another grid", bare("mask", np.ones((5, 5, 5), np.uint8)), "the mask is not on the reference's grid"
    ),
    scored(
        "a mask of one voxel",
        instead("mask", inside(np.arange(2688).reshape(GRID.shape) == 9)),
        "ssim is undefined",
        none=("ssim", "slice_roughness", "slice_jump"),
    ),
    scored("the image itself as mask", instead("mask", real()), f"values from {real().array.min()} to"),
    scored(
        "probabilities as mask", bare("mask", real().array.clip(0, 500) / 500), "values from 0.002 to 1, and all but"
    ),
    # dimensions
    scored(
        "one slice",
        several(bare("pred", SLICE + np.int16(2)), bare("ref", SLICE), bare("mask", np.ones(SLICE.shape, np.uint8))),
        "ssim is undefined",
        none=("ssim", "slice_jump"),
    ),
    scored(
        "a file with two dimensions",
        several(
            bare("pred", SLICE[..., 0] + np.int16(2)),
            bare("ref", SLICE[..., 0]),
            bare("mask", np.ones(SLICE.shape[:2], np.uint8)),
        ),
        "ssim is undefined",
        none=("ssim", "slice_jump"),
    ),
    Bad("three volumes in a file", bare("pred", np.stack([VALUES] * 3, axis=-1)), "holds 3 volumes"),
    scored("four dimensions, the last of one", bare("pred", VALUES[..., None]), UNSTATED),
    # grids
    Bad("another shape", bare("pred", VALUES[:-1]), f"{ELSEWHERE}: 15×14×12 at"),
    Bad("another spacing", bare("pred", VALUES, GRID.affine @ np.diag([1, 1, 1.1, 1])), "2.2 mm apart"),
    Bad("another origin", bare("pred", VALUES, moved(0, 3, 1.0)), "1 mm apart"),
    Bad("another direction", bare("pred", VALUES, moved(0, 1, 0.3)), ELSEWHERE),
    Bad("mirrored, not flipped", bare("pred", VALUES, GRID.affine @ np.diag([-1, 1, 1, 1])), ELSEWHERE),
    scored("rounding in the matrix", bare("pred", VALUES, NOISY), UNSTATED),
    scored("a tenth of a micrometre off", bare("pred", VALUES, moved(2, 3, 1e-4)), UNSTATED),
    scored("axes the other way", instead("pred", made().reorient("LPI"))),
    scored("axes in another order", instead("pred", made().reorient("SAR"))),
    # files
    Bad("cut short", content("pred", lambda data: data[: len(data) // 2]), GONE),
    Bad("without its last bytes", content("ref", lambda data: data[:-9]), GONE),
    Bad("a mask cut short", content("mask", lambda data: data[: len(data) // 2]), GONE),
    Bad("no bytes at all", content("pred", lambda data: b""), "it is empty"),
    Bad("text named as an image", content("pred", lambda data: b"not found\n"), "does not start as NIfTI does"),
    Bad(
        "a web page, packed",
        content("pred", lambda data: gzip.compress(b"<html>" * 99)),
        "does not start as NIfTI does",
    ),
    Bad("a link to what is gone", linked("pred", "none"), "does not exist"),
    Bad("a link to itself", linked("pred", "p2.nii.gz"), "does not exist"),
    Bad("an empty folder", several(without("pred"), lambda study: (study / "pred/p2").mkdir()), "holds no DICOM image"),
    scored("MetaImage against NIfTI", instead("pred", made(), "p2.mha")),
    scored("NRRD against NIfTI", instead("pred", made(), "p2.nrrd")),
    scored("a DICOM series against NIfTI", instead("pred", made(), "p2")),
    # names and missing files
    Bad("only a prediction", without("ref"), "no reference: not scored", "no reference"),
    Bad("only a reference", without("pred"), "no prediction: not scored", "no prediction"),
    scored(
        "letters composed and decomposed",
        renamed(*(unicodedata.normalize(form, "Zoë") for form in ("NFD", "NFC", "NFD"))),
        case="Zoë",
    ),
    scored("signs of all sorts", renamed("p 2 🧠 'x' \"y\" <b>&{}, ;%"), case="p 2 🧠 'x' \"y\" <b>&{}, ;%"),
    scored("a line break", renamed("p\n2"), case="p\n2"),
    scored("bytes that are no text", renamed("p\udcff"), case="p\udcff"),
    # mixed up
    Bad(
        "another modality",
        instead("pred", real().with_array(VALUES, unit="a.u.", modality="MR")),
        "is MR, the reference CT",
    ),
    Bad("another unit", instead("pred", real().with_array(VALUES, unit="Bq/ml")), "is in Bq/ml, the reference in HU"),
    Bad("swapped", instead("ref", made().marked(Synthesis("pix2pix"))), "swap them if they are in the wrong order"),
]


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.name)
def test_the_case_is_counted_and_told_and_the_others_are_scored(bad: Bad, study: Path) -> None:
    bad.make(study)
    done = evaluated(study)
    rows = {row["case"]: row for row in json.loads(done.out)}
    record = json.loads((study / "out" / "metrics.json").read_text())
    assert (done.code, done.err, done.warned) == (0, "", ())
    assert list(rows) == sorted({"p1", bad.case, "p3"})
    assert [rows[case]["mae"] for case in ("p1", "p3")] == [ALIKE, ALIKE]
    row = rows[bad.case]
    assert row["status"] == bad.status
    assert bad.note in row["note"] if bad.note else row["note"] == ""
    assert "\n" not in row["note"]
    assert row["mae"] == (pytest.approx(bad.mae) if bad.mae == bad.mae else row["mae"])
    assert {name for name in ("psnr", "ssim", "slice_jump", "slice_roughness") if row[name] is None} >= set(bad.none)
    jsonschema.validate(record, SCHEMA)
    assert record["rows"] == list(rows.values())
    assert record["counts"].get(bad.status, 0) == 1 + 2 * (bad.status == "scored")
    assert record["summary"]["mae"]["n"] == 2 + (bad.status == "scored")
    assert record["summary"]["ssim"]["num_undefined"] == ("ssim" in bad.none)
    assert (study / "out" / "report.html").stat().st_size > 10_000


def test_every_row_has_a_name_of_its_own() -> None:
    assert len({bad.name for bad in TABLE}) == len(TABLE)


def test_people_are_told_and_pipelines_fail(study: Path) -> None:
    content("ref", lambda data: data[:50])(study)
    shutil.copy(study / "ref" / "p1.nii.gz", study / "ref" / "p0.nii.gz")
    done = medgan("evaluate", study / "pred", study / "ref", "--fail-under", "mae=80")
    assert done.code == 1
    assert "2 of 4 cases were NOT scored" in done.out
    assert "p0: no prediction: not scored" in done.out
    assert "FAILED 2 of 4 cases were not scored: p0, p2" in done.out
    assert medgan("evaluate", study / "pred", study / "ref").code == 0


# --- what stops before the first case ---------------------------------------------------------------------------------

REFUSED: list[tuple[str, Make, str]] = [
    ("one case has no mask", without("mask"), r"no mask for p2; every case to score needs one, or give no masks"),
    (
        "a case is there twice",
        lambda study: write(made(), study / "pred" / "p2.nii"),
        r"pred: case 'p2' is there twice, p2\.nii and p2\.nii\.gz; keep one",
    ),
    (
        "a mask is there twice",
        lambda study: write(made(), study / "mask" / "p2.mha"),
        r"mask: case 'p2' is there twice",
    ),
    (
        "names that differ only in how letters are composed",
        lambda study: [write(made(), study / "pred" / f"{unicodedata.normalize(f, 'é')}.nii") for f in ("NFC", "NFD")],
        r"case 'é' is there twice",
    ),
    ("no folder", lambda study: shutil.rmtree(study / "ref"), r"ref: is not there; give a volume, a DICOM folder"),
    ("a folder of nothing", lambda study: [one.unlink() for one in (study / "pred").iterdir()], r"pred: is empty"),
    (
        "no case alike",
        lambda study: [one.rename(one.with_name(f"sct_{one.name}")) for one in (study / "pred").iterdir()],
        r"no case is in both: .*sct_p1, sct_p2, sct_p3.*name rules such as FOLDER/\{case\}_ct\.nii\.gz",
    ),
    (
        "all swapped",
        lambda study: [write(made().marked(Synthesis("cut")), study / "ref" / f"{case}.nii.gz") for case in CASES],
        r"case 'p1': the reference says that it is synthetic.*\(and 2 more cases are refused\)",
    ),
]


@pytest.mark.parametrize(("name", "make", "told"), REFUSED, ids=[name for name, _, _ in REFUSED])
def test_one_line_on_standard_error_and_nothing_else(name: str, make: Make, told: str, study: Path) -> None:
    make(study)
    done = evaluated(study)
    assert (done.code, done.out, done.warned) == (1, "", ())
    assert re.fullmatch(f"Error: .*{told}.*\n", done.err), done.err
    assert not (study / "out" / "metrics.json").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(study: Path) -> None:
    (study / "pred").chmod(0)
    done = evaluated(study)
    (study / "pred").chmod(0o700)
    assert (done.code, done.out) == (1, "")
    assert "pred: Permission denied; check the path and its permissions" in done.err


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_file_that_the_system_refuses_is_a_refused_case(
    code: int, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read everything, and disks do not break on demand."""
    module, locked = sys.modules[evaluate.__module__], study / "pred" / "p2.nii.gz"
    real_read, real_open = module.read, Path.open

    def refused(path: Path) -> None:
        if path == locked:
            raise OSError(code, os.strerror(code), str(path))

    with monkeypatch.context() as broken:
        broken.setattr(module, "read", lambda path: refused(path) or real_read(path))
        broken.setattr(Path, "open", lambda path, *how, **more: refused(path) or real_open(path, *how, **more))
        rows = json.loads(evaluated(study).out)
    assert [row["status"] for row in rows] == ["scored", "refused", "scored"]
    assert rows[1]["note"] == f"{locked}: {os.strerror(code)}; check the path and its permissions"
    record = json.loads((study / "out" / "metrics.json").read_text())
    jsonschema.validate(record, SCHEMA)
    assert "pred" not in record["sha256"]["p2"]
    assert [row["status"] for row in json.loads(evaluated(study).out)] == ["scored"] * 3


# --- and is mended ----------------------------------------------------------------------------------------------------


def test_a_refused_case_is_tried_again_although_its_file_is_the_same(study: Path) -> None:
    """As after `git annex get`, or when a share is there again: neither size nor time of the link has changed."""
    away = (study / "pred" / "p2.nii.gz").rename(study / "away.nii.gz")
    (study / "pred" / "p2.nii.gz").symlink_to(study / "later.nii.gz")
    assert json.loads(evaluated(study).out)[1]["status"] == "refused"
    away.rename(study / "later.nii.gz")
    assert [row["status"] for row in json.loads(evaluated(study).out)] == ["scored"] * 3


def test_results_of_names_that_are_no_text_can_be_compared(study: Path) -> None:
    renamed("p\udcff")(study)
    assert evaluated(study).code == 0
    for kind in ("metrics.csv", "cases.csv"):
        assert b"p\\udcff" in (study / "out" / kind).read_bytes()
    shutil.copytree(study / "out", study / "other")
    assert medgan("compare", study / "out", study / "other", "--out", study / "comparison", "--json").code == 0
