"""One clean series made messy in nineteen ways, each with what a converter may do about it: be right, or say no.

    python tests/messy_folders.py [SERIES] [--tool medgan] [--tool dcm2niix]

prints what tools make of them; SERIES is the folder of a clean series of slices, one made up if not given.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from dicom_folders import SAGITTAL, make_slices, save, save_one, texts
from dicom_oracle import Verdict, judge, loaded, say
from dicom_tools import TOOLS, Run, Tool
from dicom_truth import Frame, frames_of
from pydicom import Dataset
from pydicom.fileset import FileSet
from pydicom.uid import generate_uid
from scipy import ndimage

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Expected:
    """What a folder holds.

    Args:
        files: all whose frames a right conversion shows, each once.
        offending: names of the files that a refusal has to name; empty where there is nothing to refuse.
    """

    files: tuple[Path, ...]
    offending: tuple[str, ...] = ()


Variant = Callable[[list[Dataset], Path], Expected]


# --- clean series -----------------------------------------------------------------------------------------------------


def made_up(num_slices: int = 12, rows: int = 24, columns: int = 30) -> list[Dataset]:
    """A clean sagittal MR of 12 bits, textured so that no two pixels' surroundings are alike."""
    rng = np.random.default_rng(7)
    texture = ndimage.gaussian_filter(rng.standard_normal((num_slices, rows, columns)), 1.2)
    texture = 1500 + 900 * texture / np.abs(texture).max() + rng.integers(0, 200, texture.shape)
    slices = make_slices(texture.astype(np.uint16), directions=SAGITTAL, spacing=(1.1, 1.1), gap=3.3)
    for one in slices:
        one.BitsStored, one.HighBit = 12, 11
    return slices


def clean_series(folder: Path) -> list[Dataset]:
    """The slices of a folder, in the order of their places, named by nobody."""
    slices = [pydicom.dcmread(path) for path in sorted(folder.iterdir()) if path.is_file()]
    normal = np.cross(*np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3))
    return sorted(slices, key=lambda one: float(np.array(one.ImagePositionPatient, float) @ normal))


# --- what goes wrong --------------------------------------------------------------------------------------------------


def written(slices: Sequence[Dataset], folder: Path, offending: Sequence[str] = ()) -> Expected:
    save(slices, folder, syntax=syntax_of(slices[0]))
    return Expected(tuple(sorted(folder.iterdir())), tuple(offending))


def syntax_of(one: Dataset) -> str:
    return str(one.file_meta.TransferSyntaxUID) if hasattr(one, "file_meta") else ""


def each(change: Callable[[Dataset, int], None]) -> Variant:
    """A change of every slice that leaves nothing to refuse."""

    def make(slices: list[Dataset], folder: Path) -> Expected:
        for index, one in enumerate(slices):
            change(one, index)
        return written(slices, folder)

    return make


def lying_thickness(one: Dataset, index: int) -> None:
    one.SliceThickness, one.SpacingBetweenSlices = "9", "7.5"


def no_thickness(one: Dataset, index: int) -> None:
    for key in ("SliceThickness", "SpacingBetweenSlices"):
        if key in one:
            delattr(one, key)


def jitter(one: Dataset, index: int) -> None:
    wobble = np.random.default_rng(index).uniform(-0.01, 0.01, 3)
    one.ImagePositionPatient = texts(np.array(one.ImagePositionPatient, float) + wobble)


def anisotropic(one: Dataset, index: int) -> None:
    one.PixelSpacing = ["1.0156", "1.5"]


def slope(one: Dataset, index: int) -> None:
    one.RescaleSlope, one.RescaleIntercept, one.RescaleType = f"{0.5 + 0.125 * index}", f"{index - 3}", "US"


def garbage_bits(one: Dataset, index: int) -> None:
    pixels = np.frombuffer(one.PixelData, "<u2")
    garbage = np.random.default_rng(index).integers(0, 16, pixels.shape, np.uint16)
    one.PixelData = ((pixels & 0x0FFF) | (garbage << 12)).astype("<u2").tobytes()


def shuffled_numbers(one: Dataset, index: int) -> None:
    one.InstanceNumber = 1 + (index * 17) % 101


def no_number(one: Dataset, index: int) -> None:
    del one.InstanceNumber


def monochrome1(one: Dataset, index: int) -> None:
    one.PhotometricInterpretation = "MONOCHROME1"


def missing_slice(slices: list[Dataset], folder: Path) -> Expected:
    gone = len(slices) // 2
    save(slices, folder, syntax=syntax_of(slices[0]))
    names = sorted(path.name for path in folder.iterdir())
    (folder / names[gone]).unlink()
    return Expected(tuple(sorted(folder.iterdir())), (names[gone - 1], names[gone + 1]))


def truncated(slices: list[Dataset], folder: Path) -> Expected:
    expected = written(slices, folder)
    victim = expected.files[len(slices) // 3]
    content = victim.read_bytes()
    victim.write_bytes(content[: len(content) - len(slices[0].PixelData) // 2])
    return Expected(tuple(path for path in expected.files if path != victim), (victim.name,))


def same_file_twice(slices: list[Dataset], folder: Path) -> Expected:
    expected = written(slices, folder)
    again = folder / "again.dcm"
    again.write_bytes(expected.files[3].read_bytes())
    return expected


def same_place_twice(slices: list[Dataset], folder: Path) -> Expected:
    again = copy.deepcopy(slices[4])
    again.SOPInstanceUID = generate_uid()
    again.InstanceNumber = len(slices) + 1
    return written([*slices, again], folder, ["004.dcm", f"{len(slices):03d}.dcm"])


def localizers(slices: list[Dataset], folder: Path) -> Expected:
    """Three axial scouts in the series of the sagittal slices."""
    scouts = []
    for index, one in enumerate(copy.deepcopy(slices[:3])):
        one.SOPInstanceUID = generate_uid()
        one.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        one.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
        one.ImagePositionPatient = texts([-50, -60, 10 + 20 * index])
        one.InstanceNumber = len(slices) + 1 + index
        scouts.append(one)
    return written([*scouts, *slices], folder)


def without_preamble(slices: list[Dataset], folder: Path) -> Expected:
    folder.mkdir(parents=True)
    for index, one in enumerate(slices):
        bare = Dataset()
        bare.update({element.tag: element for element in one})
        with (folder / f"{index:03d}.dcm").open("wb") as file:
            pydicom.dcmwrite(file, bare, implicit_vr=True, little_endian=True, enforce_file_format=False)
    return Expected(tuple(sorted(folder.iterdir())))


def among_junk(slices: list[Dataset], folder: Path) -> Expected:
    expected = written(slices, folder)
    directory = FileSet()
    for one in slices[:2]:
        one.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        directory.add(save_one(one, folder.parent / f"aside_{one.InstanceNumber}"))
    directory.write(folder.parent / "set")
    (folder / "DICOMDIR").write_bytes((folder.parent / "set" / "DICOMDIR").read_bytes())
    (folder / "notes.txt").write_text("notes\n" * 60)
    (folder / "empty").touch()
    (folder / "zeros").write_bytes(bytes(1000))
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(300))
    save_one(report(slices[0]), folder / "report.dcm")
    return expected


def report(one: Dataset) -> Dataset:
    """A structured report of the same study and, as some systems do, of the same series."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.11", generate_uid()
    made.SeriesInstanceUID, made.StudyInstanceUID = one.SeriesInstanceUID, one.StudyInstanceUID
    made.Modality, made.PatientID, made.PatientName = "SR", one.PatientID, one.PatientName
    return made


def nested(slices: list[Dataset], folder: Path) -> Expected:
    half = len(slices) // 2
    save(slices[:half], folder / "a" / "b", pattern="IM{}", syntax=syntax_of(slices[0]))
    save(slices[half:], folder / "c", pattern="I.{}.txt", syntax=syntax_of(slices[0]))
    return Expected(tuple(sorted(path for path in folder.rglob("*") if path.is_file())))


def two_series(slices: list[Dataset], folder: Path) -> Expected:
    other, uid = copy.deepcopy(slices), generate_uid()
    for one in other:
        one.SeriesInstanceUID, one.SOPInstanceUID = uid, generate_uid()
        one.SeriesNumber, one.SeriesDescription = 77, "the other"
        one.PixelData = np.flip(np.frombuffer(one.PixelData, "<u2")).tobytes()
    return written([part for pair in zip(slices, other, strict=True) for part in pair], folder)


VARIANTS: dict[str, Variant] = {
    "clean": each(lambda one, index: None),
    "lying SliceThickness": each(lying_thickness),
    "no SliceThickness": each(no_thickness),
    "0.01 mm jitter": each(jitter),
    "pixels of 1.0156 × 1.5 mm": each(anisotropic),
    "slope of each slice": each(slope),
    "garbage high bits": each(garbage_bits),
    "missing slice": missing_slice,
    "truncated file": truncated,
    "same file twice": same_file_twice,
    "same place twice, new UID": same_place_twice,
    "localizers in the series": localizers,
    "shuffled InstanceNumber": each(shuffled_numbers),
    "no InstanceNumber": each(no_number),
    "no preamble, no meta": without_preamble,
    "junk, DICOMDIR and report": among_junk,
    "nested sub-folders": nested,
    "two series in one folder": two_series,
    "MONOCHROME1": each(monochrome1),
}


# --- verdicts ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What a tool made of a folder.

    Args:
        word: `right`; `refused` where it wrote nothing and said no; `wrong` where it wrote a volume whose slices are
            not those of the files, or lost some; `wrong, rc 0` where it also claimed success.
        unnamed: files that a refusal had to name and did not.
    """

    word: str
    unnamed: tuple[str, ...]
    run: Run
    verdict: Verdict


def outcome(expected: Expected, tool: Tool, folder: Path, out: Path) -> Outcome:
    run = tool(folder, out)
    verdict = judge(frames_in(expected), [loaded(path) for path in run.files])
    unnamed = tuple(name for name in expected.offending if name not in run.said)
    if not run.files and run.code:
        return Outcome("refused", unnamed, run, verdict)
    if verdict.right and not verdict.invented and not expected.offending:
        return Outcome("right", (), run, verdict)
    return Outcome("wrong" if run.code else "wrong, rc 0", unnamed, run, verdict)


def frames_in(expected: Expected) -> list[Frame]:
    return [frame for path in expected.files for frame in frames_of(path)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", type=Path, nargs="?")
    parser.add_argument("--tool", action="append", choices=TOOLS)
    options = parser.parse_args(arguments)
    slices = clean_series(options.series) if options.series else made_up()
    names = options.tool or ["medgan"]
    say(f"{len(slices)} slices of {slices[0].Rows} × {slices[0].Columns}")
    for variant, make in VARIANTS.items():
        cells = []
        for name in names:
            with tempfile.TemporaryDirectory() as place:
                expected = make(copy.deepcopy(slices), Path(place) / "in")
                seen = outcome(expected, TOOLS[name], Path(place) / "in", Path(place) / "out")
            figures = f"{seen.verdict.found}/{seen.verdict.frames}, {seen.verdict.invented} invented"
            cells.append(f"{seen.word} (rc {seen.run.code}, {len(seen.run.files)} files, {figures})")
        say(" ".join([f"{variant:28}", *(f"{cell:55}" for cell in cells)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
