"""Nothing that was removed may be left: what to look for, where it may stand by chance, and the look itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pydicom import DataElement, Dataset
from pydicom.charset import convert_encodings
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.tag import BaseTag, Tag

from medgan.formats.dicom.deidentify.leaves import Leaf, leaves, leaves_of
from medgan.formats.dicom.deidentify.profile import action_of
from medgan.formats.dicom.elements import DAMAGE, name_of, values

__all__ = ["DUMMY_TEXT", "Removed"]

DUMMY_TEXT = "REMOVED"
_FREE_TEXT = {"LO", "LT", "SH", "ST", "UC", "UR", "UT", "PN", "AE"}
_DATES = {"DA", "DT"}
# Codes and numbers, which mean the same in everybody's file; and identifiers and dates, all of which are new by now.
_NO_WORDS = {"AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI"}
_TECHNICAL = {
    tag_for_keyword(keyword)
    for keyword in (
        "Manufacturer",
        "ManufacturerModelName",
        "SoftwareVersions",
        "SequenceName",
        "PulseSequenceName",
        "CodeMeaning",
        "CodeValue",
        "CodingSchemeDesignator",
    )
}
_MARKS = {
    tag_for_keyword(keyword)
    for keyword in (
        "AccessionNumber",
        "StudyID",
        "InstitutionName",
        "InstitutionAddress",
        "InstitutionalDepartmentName",
        "StationName",
        "DeviceSerialNumber",
        "RequestedProcedureID",
        "PerformedProcedureStepID",
        "ScheduledProcedureStepID",
    )
}
_OWN = (Tag("DeidentificationMethod"), Tag("DeidentificationMethodCodeSequence"))
_PERSONAL_GROUPS = {0x0010, 0x0038}
_SHORTEST, _SHORTEST_TEXT, _SHORTEST_IN_PIXELS = 4, 8, 8
_WORD = re.compile(r"[^\W_]+")
_LETTERS = re.compile(r"[^\W\d_]{3}|[^\W\d_\x00-\u02ff]{2}")  # of scripts without an alphabet from 2
_ENCODINGS = ("utf-8", "latin-1", "utf-16-le", "utf-16-be")
_ALPHANUMERIC = frozenset(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


@dataclass(frozen=True)
class Removed:
    """Values taken from one file, in lower case.

    Args:
        names: names and each word of them with 3 letters, and what else is told of a patient.
        marks: numbers and names of studies, institutions and devices, and UIDs.
        dates: as DICOM and as people write them.
        other: descriptions and other text from 8 characters.
    """

    names: set[str] = field(default_factory=set, repr=False)
    marks: set[str] = field(default_factory=set, repr=False)
    dates: set[str] = field(default_factory=set, repr=False)
    other: set[str] = field(default_factory=set, repr=False)

    @property
    def count(self) -> int:
        """How many values are looked for."""
        return len(self.names | self.marks | self.dates | self.other)

    @property
    def _descriptive(self) -> set[str]:
        return self.marks | self.dates | self.other

    def take_from(self, dataset: Dataset, tag: BaseTag) -> None:
        """Remember an attribute that is about to go; of a sequence, what its items hold of anybody."""
        for leaf in leaves_of(dataset, tag):
            if leaf.owner is dataset or leaf.tag.is_private or action_of(leaf.tag):
                for text in leaf.texts:
                    self._take(leaf, text.lower())

    def _take(self, leaf: Leaf, text: str) -> None:
        if name_of(text) != text:  # a UID of the standard itself
            return
        if leaf.vr == "PN":
            self.names.update(word for word in _WORD.findall(text) if _LETTERS.search(word))
        if leaf.vr in _DATES:
            self.dates.update(_dates(text))
        elif len(text) < _SHORTEST:
            return
        elif leaf.vr == "PN" or (leaf.tag.group in _PERSONAL_GROUPS and leaf.vr in _FREE_TEXT):
            self.names.add(text)
        elif leaf.vr == "UI" or leaf.tag in _MARKS:
            self.marks.add(text)
        elif len(text) >= _SHORTEST_TEXT and leaf.vr in {*_FREE_TEXT, "UN"}:
            self.other.add(text)

    def scrub(self, dataset: Dataset) -> Counter[str]:
        """Put a dummy where an attribute that the profile keeps repeats a removed value, and count by keyword."""
        changed: Counter[str] = Counter()
        for leaf in leaves(dataset):
            if leaf.vr in _FREE_TEXT and self._speaks(leaf):
                leaf.owner[leaf.tag] = DataElement(leaf.tag, leaf.vr, DUMMY_TEXT)
                changed[keyword_for_tag(leaf.tag)] += 1
        return changed

    def _speaks(self, leaf: Leaf) -> bool:
        text = "\n".join(leaf.texts).lower()
        return _holds(text, self.names) or (leaf.tag not in _TECHNICAL and _holds(text, self._descriptive))

    def found_in(self, content: bytes, pixels: bytes, dataset: Dataset) -> int:
        """How many removed values are still among the bytes of a file, in any encoding that it may use.

        Values that also stand in the file as a code or a number are no find: a name Head is not to be told from HEAD.

        Args:
            content: of the file, inflated if it was deflated.
            pixels: the bytes of its PixelData, in which only long values can be told from chance; in raw ones, names
                and identifiers of one byte a letter.
            dataset: what was written.
        """
        before, _, behind = content.partition(pixels) if pixels else (content, b"", b"")
        header = (before + b"\0" + behind).lower()
        codes, technical = _words_by_chance(dataset)
        told = {text for text in self.names if not _holds(codes, [text])}
        told |= {text for text in self._descriptive if not _holds(f"{codes}\n{technical}", [text])}
        encodings = tuple(dict.fromkeys((*_ENCODINGS, *_encodings(dataset))))
        found = {text for text in told if _is_in_header(_encoded(text, encodings), header)}
        if not dataset.file_meta.TransferSyntaxUID.is_compressed:  # else there may be comments among the pixels
            told -= self.dates | self.other
            encodings = tuple(encoding for encoding in encodings if not encoding.startswith("utf-16"))
        found |= {text for text in told - found if _is_in_pixels(_encoded(text, encodings), pixels)}
        return len(found)


def _dates(text: str) -> Iterator[str]:
    """A whole date as DICOM and as people write it."""
    digits = text[:8]
    if len(digits) == 8 and digits.isdecimal():
        year, month, day = digits[:4], digits[4:6], digits[6:]
        yield digits
        yield from (mark.join((year, month, day)) for mark in "-./")
        yield from (mark.join((day, month, year)) for mark in "-./")
        yield f"{month}/{day}/{year}"


def _holds(text: str, words: Iterable[str]) -> bool:
    """True if a text holds one of the words, not merely as a part of a longer word or number."""
    return any(word in text and re.search(rf"(?<![0-9a-z]){re.escape(word)}(?![0-9a-z])", text) for word in words)


def _words_by_chance(dataset: Dataset) -> tuple[str, str]:
    """What stands in a file as codes and numbers or is medgan's own, and as technical terms."""
    own = [*leaves(dataset.file_meta), *(leaf for tag in _OWN if tag in dataset for leaf in leaves_of(dataset, tag))]
    codes = [DUMMY_TEXT, *(text for leaf in own for text in leaf.texts)]
    technical = [""]
    for leaf in leaves(dataset):
        if leaf.vr in _NO_WORDS:
            codes += leaf.texts
        elif leaf.tag in _TECHNICAL:
            technical += leaf.texts
    return "\n".join(codes).lower(), "\n".join(technical).lower()


def _encodings(dataset: Dataset) -> list[str]:
    try:
        return list(convert_encodings([str(value) for value in values(dataset, "SpecificCharacterSet")]))
    except DAMAGE:
        return []


def _encoded(text: str, encodings: Iterable[str]) -> set[bytes]:
    """As bytes, in lower and upper case and capitalised."""
    found = set()
    for form in (text, text.upper(), text.title()):
        for encoding in encodings:
            try:
                found.add(form.encode(encoding))
            except (UnicodeError, LookupError):
                continue
    return found


def _is_in_header(forms: Iterable[bytes], header: bytes) -> bool:
    return any(_stands_in(form.lower(), header) for form in forms if len(form) >= _SHORTEST)


def _is_in_pixels(forms: Iterable[bytes], pixels: bytes) -> bool:
    return any(_stands_in(form, pixels) for form in forms if len(form) >= _SHORTEST_IN_PIXELS)


def _stands_in(form: bytes, content: bytes) -> bool:
    """True if it is there, not merely as a part of a longer word or number."""
    place = content.find(form)
    while place >= 0:
        around = content[max(place - 1, 0) : place] + content[place + len(form) : place + len(form) + 1]
        if _ALPHANUMERIC.isdisjoint(around):
            return True
        place = content.find(form, place + 1)
    return False
