"""What a NIfTI header has no place for: unit, modality, and that an image is synthetic.

It goes into a JSON file beside the image, with the keys that BIDS and dcm2niix use where they have one, and a second
time into the image itself, as a comment, so that it survives the loss of the JSON file. Nothing in it names a patient.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medgan import __version__
from medgan.errors import NiftiError, OutputError
from medgan.volume import Synthesis, Volume

__all__ = [
    "Marks",
    "fields_of_comment",
    "of_comment",
    "of_descrip",
    "of_json",
    "of_sidecar",
    "refuse_foreign",
    "sampling_from_json",
    "sampling_to_json",
    "sidecar_path",
]

_UNITS = {"bqml": "Bq/ml", "bq/ml": "Bq/ml", "hu": "HU"}
_GENERATOR = "medgan"
_DESCRIP = "synthetic, medgan"
_ENDINGS = (".nii", ".hdr", ".img", ".png", ".mha", ".mhd", ".nrrd", ".nhdr")


@dataclass(frozen=True)
class Marks:
    """Unit, modality, provenance and padding of an image, "" and None where they are not recorded."""

    unit: str = ""
    modality: str = ""
    synthetic: Synthesis | None = None
    padding: tuple[float, float] | None = None

    @classmethod
    def of(cls, volume: Volume) -> Marks:
        """The marks that a volume carries."""
        return cls(volume.unit, volume.modality, volume.synthetic, volume.padding)

    def over(self, other: Marks) -> Marks:
        """These marks, with those of another source where these are silent."""
        unit, modality = self.unit or other.unit, self.modality or other.modality
        return Marks(unit, modality, self.synthetic or other.synthetic, self.padding or other.padding)

    def to_json(self, description: str = "", about: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Plain values to be written as JSON.

        Args:
            description: one line, the series' description.
            about: further entries, such as how a scanner acquired the image and where its slices were; an entry that
                has the name of a mark gives way to the mark.
        """
        marks = {"Modality": self.modality, "Units": self.unit, "SeriesDescription": description}
        fields = {**(about or {}), **{key: value for key, value in marks.items() if value}}
        if self.padding:
            fields["PixelPaddingRange"] = list(self.padding)
        if self.synthetic:
            fields |= {"Quantity": self.synthetic.quantity} if self.synthetic.quantity else {}
            fields |= {"SyntheticData": True, "Synthesis": _synthesis_to_json(self.synthetic)}
        return fields | {"GeneratedBy": [{"Name": _GENERATOR, "Version": __version__}]}

    def comment(self, **more: Any) -> str:
        """The same in one line, for the comment inside the image, with what else a format has to say."""
        return f"{_GENERATOR} {json.dumps(self.to_json() | more, ensure_ascii=False)}"

    def descrip(self) -> str:
        """At most 79 ASCII characters for the header field that viewers show."""
        made = self.synthetic
        what = f", {made.quantity}" if made and made.quantity else ""
        maker = f"{_DESCRIP} {made.version or __version__}, {made.model}" if made else f"{_GENERATOR} {__version__}"
        text = maker + what
        return text.encode("ascii", "replace")[:79].decode()


def sidecar_path(image: Path) -> Path:
    """Where the JSON file of an image lies.

    Example:
        >>> sidecar_path(Path("sub-01/t1.nii.gz")).as_posix()
        'sub-01/t1.json'
    """
    name = image.name.removesuffix(".gz")
    stem = name.rpartition(".")[0] if name.lower().endswith(_ENDINGS) else name
    return image.with_name(f"{stem}.json")


def of_sidecar(image: Path) -> Marks:
    """What the JSON file beside an image says; one written by dcm2niix is understood too.

    Raises:
        NiftiError: if the file is there but holds no JSON object.
    """
    path = sidecar_path(image)
    if not path.is_file():
        return Marks()
    fields = _object(path)
    if fields is None:
        raise NiftiError(f"{path}: is no JSON object, so the unit of {image.name} is unsure; mend or remove it")
    return _marks(fields)


def of_comment(text: str) -> Marks:
    """What a comment inside an image says; nothing, if it is not medgan's or was cut."""
    fields = fields_of_comment(text)
    return _marks(fields) if fields else Marks()


def of_json(text: str) -> Marks:
    """What a JSON text of these keys says; nothing, if it is none."""
    fields = _parsed(text)
    return _marks(fields) if fields else Marks()


def fields_of_comment(text: str) -> dict[str, Any]:
    """The plain values of a comment inside an image; none, if it is not medgan's or was cut."""
    name, _, content = text.rstrip("\0 ").partition(" ")
    return (_parsed(content) or {}) if name == _GENERATOR else {}


def of_descrip(text: str) -> Marks:
    """What the description field of a header says.

    Example:
        >>> of_descrip("synthetic, medgan 0.1.0, pix2pix").synthetic.model
        'pix2pix'
    """
    if not text.startswith(_DESCRIP):
        return Marks()
    version, model, quantity, *_ = (*text.removeprefix(_DESCRIP).strip().split(", ", 2), "", "")
    return Marks(synthetic=Synthesis(model=model or "unknown", version=version, quantity=quantity))


def refuse_foreign(path: Path) -> None:
    """Protect a JSON file that another program wrote.

    Raises:
        OutputError: if `path` exists and does not say that medgan generated it.
    """
    if not path.exists():
        return
    makers = (_object(path) or {}).get("GeneratedBy")
    ours = isinstance(makers, list) and any(isinstance(m, dict) and m.get("Name") == _GENERATOR for m in makers)
    if not ours:
        raise OutputError(f"{path}: would be overwritten, and medgan did not write it; choose another output name")


def _object(path: Path) -> dict[str, Any] | None:
    try:
        return _parsed(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError):
        return None


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        fields = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _marks(fields: dict[str, Any]) -> Marks:
    modality, unit = _text(fields, "Modality").upper(), _text(fields, "Units")
    # dcm2niix writes a CT in Hounsfield units without naming them.
    unit = _UNITS.get(unit.lower(), unit) or ("HU" if modality == "CT" else "")
    made = fields.get("Synthesis")
    said = fields.get("SyntheticData") in (True, "YES") or isinstance(made, dict)
    made = made if isinstance(made, dict) else {}
    return Marks(unit, modality, _synthesis(made, _text(fields, "Quantity")) if said else None, _padding(fields))


def _padding(fields: dict[str, Any]) -> tuple[float, float] | None:
    ends: Any = fields.get("PixelPaddingRange")
    is_range = isinstance(ends, list) and len(ends) == 2 and all(type(end) in {int, float} for end in ends)
    return (float(ends[0]), float(ends[1])) if is_range and ends[0] <= ends[1] else None  # NaN is no end


def _synthesis(fields: dict[str, Any], quantity: str) -> Synthesis:
    return Synthesis(
        model=_text(fields, "Model") or "unknown",
        weights_sha256=_text(fields, "WeightsSHA256"),
        version=_text(fields, "Version"),
        description=_text(fields, "Description"),
        quantity=quantity,
        **sampling_from_json(fields),
    )


def _synthesis_to_json(made: Synthesis) -> dict[str, Any]:
    return {
        "Model": made.model,
        "WeightsSHA256": made.weights_sha256,
        "Version": made.version,
        "Description": made.description,
        **sampling_to_json(made),
    }


def sampling_to_json(made: Synthesis) -> dict[str, Any]:
    """What a sampled image was drawn with, as plain values; nothing for an image that was not drawn.

    Example:
        >>> sampling_to_json(Synthesis("dcgan", seed=7, conditions={"class": "glioma"}))
        {'Seed': 7, 'Conditions': {'class': 'glioma'}}
    """
    fields = {"Seed": made.seed, "Number": made.number, "Truncation": made.truncation}
    told: dict[str, Any] = {key: value for key, value in fields.items() if value is not None}
    return told | ({"Conditions": dict(made.conditions)} if made.conditions else {})


def sampling_from_json(fields: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a `Synthesis` that `sampling_to_json` wrote; what is of another type counts as absent."""
    conditions = fields.get("Conditions")
    conditions = conditions if isinstance(conditions, dict) else {}
    truncation = fields.get("Truncation")
    is_number = isinstance(truncation, int | float) and not isinstance(truncation, bool) and math.isfinite(truncation)
    return {
        "seed": _whole(fields, "Seed"),
        "number": _whole(fields, "Number"),
        "conditions": {name: value for name, value in conditions.items() if isinstance(value, str)},
        "truncation": truncation if is_number else None,
    }


def _whole(fields: dict[str, Any], key: str) -> int | None:
    value = fields.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(fields: dict[str, Any], key: str) -> str:
    value = fields.get(key)
    return value.strip() if isinstance(value, str) else ""
