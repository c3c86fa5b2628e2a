"""What headers say of pictures, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydicom import Dataset

from medgan.formats.dicom.elements import number, numbers, text, values, whole
from medgan.formats.dicom.frames import Picture
from medgan.formats.dicom.plain import Plain
from medgan.formats.dicom.private import Block, private_numbers
from medgan.formats.dicom.scale import Scale

__all__ = ["ORDERING", "SPLITTING", "TELLING", "Header", "differing", "header_of"]

# In what images of one series and one place differ although they are no repetition: other quantities ...
SPLITTING = ("ComplexImageComponent", "EchoNumbers", "EchoTime", "ImageType", "StackID")
# ... or the same quantity at other moments.
ORDERING = (
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "DiffusionBValue",
    "InversionTime",
    "TriggerTime",
    "FlipAngle",
    "AcquisitionDateTime",
    "AcquisitionTime",
    "SequenceName",
    "ContentTime",
    "ImageComments",
)
TELLING = (*SPLITTING, *ORDERING)
_GE, _GE_KIND = Block("GE", 0x0043, "GEMS_PARM_01"), 0x2F
_GE_COMPONENTS = {0: "MAGNITUDE", 1: "PHASE", 2: "REAL", 3: "IMAGINARY"}


@dataclass(frozen=True)
class Header:
    """One picture, as its file's header describes it: plain values, lengths in mm, positions in DICOM's LPS axes.

    Where the file is DICOM but cannot be parsed, `damage` says why and the rest is empty. A `stray` is named like DICOM
    but does not begin as DICOM does.
    """

    path: Path
    damage: str = ""
    stray: bool = False
    frame: int = 0
    across: int = 0
    frames: int = 1
    patient_id: str = field(default="", repr=False)
    study_uid: str = ""
    series_uid: str = ""
    instance_uid: str = ""
    frame_uid: str = ""
    sop_class: str = ""
    transfer_syntax: str = ""
    modality: str = ""
    description: str = ""
    number: int | None = None
    instance_number: int | None = None
    image_type: tuple[str, ...] = ()
    rows: int = 0
    columns: int = 0
    samples: int = 1
    photometric: str = ""
    mosaic: bool = False
    synthetic: bool = False
    lossy: bool = False
    padding: bool = False
    truncated: bool = False
    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    pixel_spacing: tuple[float, ...] | None = None
    thickness: float | None = None
    stated_gap: float | None = None
    telling: tuple[str, ...] = ("",) * len(TELLING)
    plain: Plain | None = None
    scale: Scale | None = None

    @property
    def name(self) -> str:
        """The name of the file, without its folder; of its frame, where it has several."""
        return f"{self.path.name} frame {self.frame + 1}" if self.frame else self.path.name

    def told(self, key: str) -> str:
        """The value of one of `SPLITTING` and `ORDERING`; "" where it is absent."""
        return self.telling[TELLING.index(key)]


def differing(headers: list[Header]) -> list[str]:
    """Names of the attributes in which images at one place differ."""
    columns = zip(*(header.telling for header in headers), strict=True)
    return [key for key, column in zip(TELLING, columns, strict=True) if len(set(column)) > 1]


def header_of(path: Path, whole_file: Dataset, picture: Picture, truncated: bool, is_tiled: bool) -> Header:
    """What a dataset says of one of its pictures.

    Args:
        path: the file.
        whole_file: its dataset.
        picture: one of the pictures in it.
        truncated: whether the file is too short for its pixels.
        is_tiled: whether it is a mosaic.
    """
    own = picture.dataset
    return Header(
        path=path,
        frame=picture.frame,
        across=picture.across,
        frames=picture.standing_for,
        patient_id=text(own, "PatientID"),
        study_uid=text(own, "StudyInstanceUID"),
        series_uid=text(own, "SeriesInstanceUID"),
        instance_uid=text(own, "SOPInstanceUID"),
        frame_uid=text(own, "FrameOfReferenceUID"),
        sop_class=text(own, "SOPClassUID"),
        transfer_syntax=str(whole_file.file_meta.TransferSyntaxUID),
        modality=text(own, "Modality"),
        description=text(own, "SeriesDescription"),
        number=whole(number(own, "SeriesNumber")),
        instance_number=whole(number(own, "InstanceNumber")),
        image_type=tuple(str(part) for part in values(own, "ImageType")),
        rows=int(number(own, "Rows") or 0),
        columns=int(number(own, "Columns") or 0),
        samples=int(number(own, "SamplesPerPixel") or 1),
        photometric=text(own, "PhotometricInterpretation"),
        mosaic=is_tiled and not picture.across,
        synthetic=text(own, "SyntheticData") == "YES",
        lossy=text(own, "LossyImageCompression") == "01",
        padding="PixelPaddingValue" in own,
        truncated=truncated,
        position=numbers(own, "ImagePositionPatient", 3),
        orientation=numbers(own, "ImageOrientationPatient", 6),
        pixel_spacing=numbers(own, "PixelSpacing", 2),
        thickness=number(own, "SliceThickness"),
        stated_gap=number(own, "SpacingBetweenSlices"),
        telling=(text(own, TELLING[0]) or _component_by_ge(own), *(text(own, key) for key in TELLING[1:])),
    )


def _component_by_ge(dataset: Dataset) -> str:
    """GE's own word for what DICOM calls ComplexImageComponent; "" where there is none."""
    if not text(dataset, "Manufacturer").upper().startswith("GE"):
        return ""
    told = private_numbers(dataset, _GE, _GE_KIND, "SS")
    return _GE_COMPONENTS.get(int(told[0]), "") if told else ""
