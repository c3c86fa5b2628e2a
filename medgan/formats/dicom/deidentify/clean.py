"""A dataset without what the Basic Profile takes from it: removed, emptied, replaced, or moved in time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.datadict import keyword_for_tag
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from medgan.errors import DicomError
from medgan.formats.dicom.deidentify.leaks import DUMMY_TEXT, Removed
from medgan.formats.dicom.deidentify.leaves import vr_of
from medgan.formats.dicom.deidentify.needs import weakest
from medgan.formats.dicom.deidentify.profile import action_of
from medgan.formats.dicom.deidentify.pseudonyms import Pseudonyms, shifted

__all__ = ["Cleaning"]

_IDENTITY = {Tag("PatientName"), Tag("PatientID")}
_TIMES = {"DA", "DT", "TM"}
_NOT_SHIFTED_GROUPS = {0x0010, 0x0016}  # birth dates, and where and when a camera was
_DUMMIES: dict[str, Any] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"), DUMMY_TEXT),
    **dict.fromkeys(("FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"), 0),
    **dict.fromkeys(("OB", "OW", "UN"), b"\0\0"),
    "AS": "000Y",
    "DA": "19000101",
    "DS": "0",
    "DT": "19000101000000",
    "IS": "0",
    "TM": "000000",
}


@dataclass(frozen=True)
class Cleaning:
    """How one file is cleaned.

    Args:
        pseudonyms: the source of new UIDs.
        subject: the new PatientID and PatientName.
        sop_class: SOPClassUID, which decides what must be left.
        days: by how many days dates go back; None to remove them.
        removed: all that was taken away.
    """

    pseudonyms: Pseudonyms
    subject: str
    sop_class: str
    days: int | None = None
    removed: Removed = field(default_factory=Removed)

    def clean(self, dataset: Dataset, parent: str = "") -> None:
        """Apply the profile to a dataset and to the items in it, in place.

        Args:
            dataset: a file's, or an item of a sequence.
            parent: keyword of that sequence.

        Raises:
            DicomError: if a sequence cannot be parsed, so that nobody knows what is in it.
        """
        for tag in list(dataset.keys()):
            action, vr = action_of(tag), vr_of(dataset, tag)
            if not action or action == "X/Z/U*":
                self._enter(dataset, tag, vr)
            elif action == "U":
                self._replace_uids(dataset, tag)
            elif not self._is_shifted(dataset, tag, vr):
                self._take(dataset, tag, vr, weakest(action, tag, parent, self.sop_class))

    def _enter(self, dataset: Dataset, tag: BaseTag, vr: str) -> None:
        if vr != "SQ":
            return
        items = dataset[tag].value
        if not isinstance(items, Sequence):
            raise DicomError("holds a sequence that cannot be parsed")
        for item in items:
            self.clean(item, keyword_for_tag(tag))

    def _replace_uids(self, dataset: Dataset, tag: BaseTag) -> None:
        old = _parts(dataset[tag])
        new = [self.pseudonyms.uid(uid) for uid in old]
        if new != old:
            self.removed.take_from(dataset, tag)
            dataset[tag].value = new if len(new) > 1 else new[0]

    def _is_shifted(self, dataset: Dataset, tag: BaseTag, vr: str) -> bool:
        """True if the attribute was a time and has been moved; days go back, the time of day stays."""
        if self.days is None or vr not in _TIMES or tag.is_private or tag.group in _NOT_SHIFTED_GROUPS:
            return False
        if vr == "TM":
            return True
        days = self.days
        new = [shifted(part, days) for part in _parts(dataset[tag])]
        if not new or not all(new):
            return False
        self.removed.take_from(dataset, tag)
        dataset[tag].value = new if len(new) > 1 else "".join(new)
        return True

    def _take(self, dataset: Dataset, tag: BaseTag, vr: str, action: str) -> None:
        self.removed.take_from(dataset, tag)
        if tag in _IDENTITY:
            dataset[tag] = DataElement(tag, vr, self.subject)
        elif action == "X":
            del dataset[tag]
        elif action == "Z":
            dataset[tag] = DataElement(tag, vr, [] if vr == "SQ" else None)
        else:
            dataset[tag] = DataElement(tag, vr, _dummy(tag, vr))


def _parts(element: DataElement) -> list[str]:
    value = element.value
    if value is None or value == "":
        return []
    return [str(part) for part in value] if isinstance(value, (MultiValue, list)) else [str(value)]


def _dummy(tag: BaseTag, vr: str) -> Any:
    if vr != "SQ":
        return _DUMMIES.get(vr)
    item = Dataset()
    if keyword_for_tag(tag).endswith("CodeSequence"):
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = DUMMY_TEXT, "99MEDGAN", "Removed"
    return [item]
