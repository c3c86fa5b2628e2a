"""Small DICOM series, and the ways in which files come damaged, lying or hostile; each seed is one such case."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO
from itertools import product
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from dicom_folders import AXIAL, make_slices, save_one
from dicom_objects import Part, enhanced_mr, mosaic
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

Array = npt.NDArray[Any]
Files = dict[str, bytes]
Random = np.random.Generator

NAME, ID, DOCTOR, BIRTH = "Zzmarker^Pat", "ZZMARKER-ID", "Zzmarker^Doc", "19031122"
MARKERS = ("zzmarker", BIRTH)  # in lower case: what must not be seen in messages or volumes

ESCAPED = f"{gettempdir()}/medgan-escaped"  # a place where nothing must appear

# PS3.6: group, element, VR of the elements that are mutated.
GEOMETRY = {
    "ImagePositionPatient": (0x0020, 0x0032, "DS"),
    "ImageOrientationPatient": (0x0020, 0x0037, "DS"),
    "PixelSpacing": (0x0028, 0x0030, "DS"),
    "SliceThickness": (0x0018, 0x0050, "DS"),
    "RescaleSlope": (0x0028, 0x1053, "DS"),
    "RescaleIntercept": (0x0028, 0x1052, "DS"),
}
MATRIX = {
    "Rows": (0x0028, 0x0010, "US"),
    "Columns": (0x0028, 0x0011, "US"),
    "BitsAllocated": (0x0028, 0x0100, "US"),
    "BitsStored": (0x0028, 0x0101, "US"),
    "HighBit": (0x0028, 0x0102, "US"),
    "PixelRepresentation": (0x0028, 0x0103, "US"),
    "SamplesPerPixel": (0x0028, 0x0002, "US"),
}
FRAMES = (0x0028, 0x0008, "IS")
# Texts that say nothing about place or values: whatever they hold, the volume is the same.
HARMLESS = {
    "SeriesDescription": (0x0008, 0x103E, "LO"),
    "StudyDescription": (0x0008, 0x1030, "LO"),
    "ProtocolName": (0x0018, 0x1030, "LO"),
    "BodyPartExamined": (0x0018, 0x0015, "CS"),
    "StationName": (0x0008, 0x1010, "SH"),
    "StudyID": (0x0020, 0x0010, "SH"),
    "SeriesNumber": (0x0020, 0x0011, "IS"),
    "AccessionNumber": (0x0008, 0x0050, "SH"),
    "StudyDate": (0x0008, 0x0020, "DA"),
    "SliceLocation": (0x0020, 0x1041, "DS"),
    "WindowCenter": (0x0028, 0x1050, "DS"),
}
IDENTITY = {
    "PatientID": (0x0010, 0x0020, "LO"),
    "StudyInstanceUID": (0x0020, 0x000D, "UI"),
    "SeriesInstanceUID": (0x0020, 0x000E, "UI"),
    "SOPInstanceUID": (0x0008, 0x0018, "UI"),
    "FrameOfReferenceUID": (0x0020, 0x0052, "UI"),
    "SOPClassUID": (0x0008, 0x0016, "UI"),
    "Modality": (0x0008, 0x0060, "CS"),
    "ImageType": (0x0008, 0x0008, "CS"),
    "SpecificCharacterSet": (0x0008, 0x0005, "CS"),
    "PhotometricInterpretation": (0x0028, 0x0004, "CS"),
    "InstanceNumber": (0x0020, 0x0013, "IS"),  # where nothing else tells times apart
    "EchoTime": (0x0018, 0x0081, "DS"),
    "AcquisitionTime": (0x0008, 0x0032, "TM"),
}
NUMBERS = [
    "nan",
    "NaN\\NaN\\NaN",
    "inf",
    "-inf\\0\\0",
    "1e300",
    "1e38\\1e38\\1e38",
    "-1",
    "0",
    "0\\0",
    "0\\0\\0",
    "1\\2",
]
NUMBERS += [
    "0\\0\\0\\0\\0\\0",
    "1\\0\\0\\1\\0\\0",
    "1\\0\\0\\0\\0\\0",
    "1\\0\\0\\0.5\\0.5\\0",
    "2\\0\\0\\0\\2\\0",
    "abc",
]
NUMBERS += ["", "\\\\", "1\\2\\3\\4", "1,5\\1,5", "1e-30\\1e-30", "99999\\99999", "1" * 300, "\0\0", "1\\1\\1\\1\\1\\x"]
COUNTS = [0, 1, 2, 3, 7, 8, 12, 15, 16, 17, 31, 32, 64, 255, 4096, 32768, 65535]
FRAME_COUNTS = ["0", "-1", "1", "2", "3", "999", "2147483647", "99999999999999999999", "1e9", "abc", "", "3\\4", "nan"]
TEXTS = [
    "../../escaped",
    ESCAPED,
    "a\nb\r\nc",
    "x\0y",
    "\0",
    "..",
    ".",
    "/",
    "~",
    "-o",
    "%s%n{0}",
    "*?<>|:\"'",
]
TEXTS += [
    "A" * 10_000,
    "../" * 200 + "escaped",
    "\x1b[31mred",
    "\xff\xfe\xe4",
    "con",
    " ",
    "",
    "$(touch escaped)",
    "a\\b\\c",
]


@dataclass(frozen=True)
class Mutation:
    """One case.

    Args:
        what: for people, and for running it again.
        files: by name.
        harmless: True if what was changed says nothing about place or values.
    """

    what: str
    files: Files
    harmless: bool = False


# --- small series -----------------------------------------------------------------------------------------------------


def small_series() -> dict[str, Files]:
    """Each kind of object that there is, in a few small files, with the markers in the names of persons."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 3000, (5, 12, 14)).astype(np.uint16)
    mr = make_slices(pixels, SliceLocation="0", ProtocolName="p", StationName="s", StudyDescription="d")
    ct = make_slices(pixels, modality="CT", directions=((1, 0, 0), (0, 0.8, 0.6)), WindowCenter="40")
    made = {"MR": mr, "CT": ct, "RLE": [compressed(one) for one in make_slices(pixels)]}
    made["enhanced"] = [small_enhanced(rng)]
    common = {key: generate_uid() for key in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")}
    tiles = rng.integers(0, 3000, (2, 5, 10, 10)).astype(np.uint16)
    made["mosaic"] = [mosaic(tiles[n], directions=AXIAL, origin=(-9, -8, 7), number=n + 1) for n in (0, 1)]
    for one, key in product(made["mosaic"], common):
        setattr(one, key, common[key])
    return {name: {f"{n}.dcm": content_of(one) for n, one in enumerate(slices)} for name, slices in made.items()}


def small_enhanced(rng: Random) -> Dataset:
    across, down = (0.0, 1.0, 0.0), (0.0, 0.0, -1.0)
    parts = [
        Part(
            rng.integers(0, 3000, (9, 8)).astype(np.uint16), np.array([5 - 2.5 * k, 3, 9]), (across, down), k + 1, t + 1
        )
        for t in range(2)
        for k in range(4)
    ]
    return enhanced_mr(parts)


def compressed(one: Dataset) -> Dataset:
    one.file_meta = pydicom.dataset.FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    return one


def content_of(one: Dataset) -> bytes:
    one.PatientName, one.PatientID, one.ReferringPhysicianName, one.PatientBirthDate = NAME, ID, DOCTOR, BIRTH
    stream = BytesIO()
    syntax = str(one.file_meta.TransferSyntaxUID) if hasattr(one, "file_meta") else ""
    delimited(one)
    save_one(one, stream, syntax=syntax)  # type: ignore[arg-type]  # dcmwrite takes both
    return stream.getvalue()


def delimited(one: Dataset) -> None:
    """Sequences and items end where they say so, not after so many bytes."""
    for element in one:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
                delimited(item)


def real_series(folder: Path) -> Files:
    """The files of a folder, with the markers for whoever they are of."""
    return {path.name: content_of(pydicom.dcmread(path)) for path in sorted(folder.iterdir()) if path.is_file()}


# --- mutations --------------------------------------------------------------------------------------------------------


def mutated(files: Files, rng: Random) -> Mutation:
    """One case of a series."""
    ways = [flipped, damaged_anywhere, cut, other_number, other_count, other_frames, other_text, other_identity]
    ways += [lying_length, other_pixels, without_element, swapped, cut_group, other_syntax]
    return ways[int(rng.integers(len(ways)))](dict(files), rng)


def pick(files: Files, rng: Random) -> str:
    return sorted(files)[int(rng.integers(len(files)))]


def choice(values: Any, rng: Random) -> Any:
    return list(values)[int(rng.integers(len(values)))]


def flipped(files: Files, rng: Random) -> Mutation:
    """A few bytes of the header of one file."""
    name = pick(files, rng)
    content = bytearray(files[name])
    end = max(content.rfind(b"\xe0\x7f\x10\x00"), 200)
    places = rng.integers(128, end + 12, rng.integers(1, 9))
    for place in places:
        content[min(int(place), len(content) - 1)] = int(rng.integers(256))
    return Mutation(f"bytes {places.tolist()} of {name}", {**files, name: bytes(content)})


def damaged_anywhere(files: Files, rng: Random) -> Mutation:
    """A run of random or zero bytes."""
    name = pick(files, rng)
    content, length = bytearray(files[name]), int(rng.integers(1, 200))
    start = int(rng.integers(0, len(content)))
    content[start : start + length] = rng.bytes(length) if rng.random() < 0.5 else bytes(length)
    return Mutation(f"{length} bytes from {start} of {name}", {**files, name: bytes(content)})


def cut(files: Files, rng: Random) -> Mutation:
    name = pick(files, rng)
    length = int(rng.integers(0, len(files[name])))
    return Mutation(f"{name} cut to {length} bytes", {**files, name: files[name][:length]})


def set_in(files: Files, rng: Random, key: str, tag: tuple[int, int, str], value: bytes) -> Mutation:
    """A value in one file or in all."""
    names = [pick(files, rng)] if rng.random() < 0.5 else sorted(files)
    for name in names:
        files[name] = replaced(files[name], tag, value, every=bool(rng.random() < 0.3))
    return Mutation(f"{key} of {names} is {value[:60]!r}", files)


def other_number(files: Files, rng: Random) -> Mutation:
    key, value = choice(GEOMETRY, rng), choice(NUMBERS, rng)
    return set_in(files, rng, key, GEOMETRY[key], value.encode())


def other_count(files: Files, rng: Random) -> Mutation:
    key = choice(MATRIX, rng)
    return set_in(files, rng, key, MATRIX[key], struct.pack("<H", choice(COUNTS, rng)))


def other_frames(files: Files, rng: Random) -> Mutation:
    return set_in(files, rng, "NumberOfFrames", FRAMES, choice(FRAME_COUNTS, rng).encode())


def other_text(files: Files, rng: Random) -> Mutation:
    """In all files, so that nothing tells them apart that did not before."""
    key, value = choice(HARMLESS, rng), choice(TEXTS, rng).encode("latin1")
    for name in files:
        files[name] = replaced(files[name], HARMLESS[key], value)
    return Mutation(f"{key} is {value[:60]!r}", files, harmless=True)


def other_identity(files: Files, rng: Random) -> Mutation:
    key = choice(IDENTITY, rng)
    return set_in(files, rng, key, IDENTITY[key], choice(TEXTS, rng).encode("latin1"))


def lying_length(files: Files, rng: Random) -> Mutation:
    """The length that an element states, without its value."""
    name = pick(files, rng)
    content = bytearray(files[name])
    tag = choice([*GEOMETRY.values(), *MATRIX.values(), *HARMLESS.values(), *IDENTITY.values()], rng)
    place = content.find(struct.pack("<2H", *tag[:2]) + tag[2].encode())
    length = int(choice([0, 1, 2, 7, 100, 1000, 65534, 65535], rng))
    if place >= 0:
        content[place + 6 : place + 8] = struct.pack("<H", length)
    return Mutation(f"length {length} of {tag} in {name}", {**files, name: bytes(content)})


def other_pixels(files: Files, rng: Random) -> Mutation:
    """Pixels of another length than the matrix needs."""
    name = pick(files, rng)
    share = choice([0, 0.5, 0.99, 1.5, 3], rng)
    dataset = pydicom.dcmread(BytesIO(files[name]))
    length = int(len(dataset.PixelData) * share) // 2 * 2
    return Mutation(f"{share} of the pixels of {name}", {**files, name: with_pixels(dataset, length)})


def with_pixels(dataset: Dataset, length: int) -> bytes:
    dataset.PixelData = (dataset.PixelData * 3)[:length]
    stream = BytesIO()
    try:
        pydicom.dcmwrite(stream, dataset)
    except ValueError:  # no items of encapsulated pixels are left: bytes without structure
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        pydicom.dcmwrite(stream, dataset)
    return stream.getvalue()


def without_element(files: Files, rng: Random) -> Mutation:
    """An element that is not there, in one file or in all."""
    names = [pick(files, rng)] if rng.random() < 0.5 else sorted(files)
    gone = ""
    for name in names:
        dataset = pydicom.dcmread(BytesIO(files[name]))
        tags = sorted(dataset.keys())
        gone = gone or str(choice(tags, rng))
        if (tag := next((tag for tag in tags if str(tag) == gone), None)) is not None:
            del dataset[tag]
        files[name] = rewritten(dataset)
    return Mutation(f"{names} without {gone}", files)


def rewritten(dataset: Dataset) -> bytes:
    stream = BytesIO()
    pydicom.dcmwrite(stream, dataset)
    return stream.getvalue()


def swapped(files: Files, rng: Random) -> Mutation:
    """The pixels of two files, and the text of a third for all."""
    names = [pick(files, rng), pick(files, rng)]
    datasets = [pydicom.dcmread(BytesIO(files[name])) for name in names]
    datasets[0].PixelData, datasets[1].PixelData = datasets[1].PixelData, datasets[0].PixelData
    for name, dataset in zip(names, datasets, strict=True):
        files[name] = rewritten(dataset)
    return Mutation(f"pixels of {names} swapped", files)


def cut_group(files: Files, rng: Random) -> Mutation:
    """Functional groups of an enhanced object: too few, too many, emptied; of others a sequence out of place."""
    name = pick(files, rng)
    dataset = pydicom.dcmread(BytesIO(files[name]))
    groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or [Dataset()])
    way = int(rng.integers(6))
    victim = int(rng.integers(len(groups)))
    if way == 0:
        groups = groups[:victim]
    elif way == 1:
        groups = [*groups, groups[victim]]
    elif way == 2:
        groups[victim] = Dataset()
    elif way == 3:
        dataset.SharedFunctionalGroupsSequence = []
    elif way == 4 and len(groups[victim]):
        del groups[victim][choice(sorted(groups[victim].keys()), rng)]
    elif "FrameContentSequence" in groups[victim]:
        groups[victim].FrameContentSequence[0].DimensionIndexValues = [0, 2**31, 7]
        groups[victim].FrameContentSequence[0].TemporalPositionIndex = 2**31
    dataset.PerFrameFunctionalGroupsSequence = groups
    return Mutation(f"functional groups of {name}, way {way} at {victim}", {**files, name: rewritten(dataset)})


def other_syntax(files: Files, rng: Random) -> Mutation:
    """A transfer syntax that the pixels are not in, or that nobody knows."""
    syntaxes = ["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5"]
    syntaxes += ["1.2.840.10008.1.2.2", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.3", "", "../../escaped"]
    value = choice(syntaxes, rng)
    names = [pick(files, rng)] if rng.random() < 0.5 else sorted(files)
    for name in names:
        files[name] = replaced(files[name], (0x0002, 0x0010, "UI"), value.encode())
    return Mutation(f"TransferSyntaxUID of {names} is {value!r}", files)


def replaced(content: bytes, tag: tuple[int, int, str], value: bytes, *, every: bool = False) -> bytes:
    """Explicit VR little endian bytes with another value of an element: its first occurrence, or every one.

    Enclosing sequences are of undefined length in the files made here, see `delimited`; elsewhere theirs become lies.
    """
    value += b" " * (len(value) % 2)
    head = struct.pack("<2H", *tag[:2]) + tag[2].encode()
    start = content.find(head)
    while start >= 0:
        (length,) = struct.unpack("<H", content[start + 6 : start + 8])
        rest = content[start + 8 + length :]
        content = content[:start] + head + struct.pack("<H", len(value)) + value + rest
        start = content.find(head, start + 8 + len(value)) if every else -1
    return content
