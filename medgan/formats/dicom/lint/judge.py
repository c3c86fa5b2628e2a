"""The linter: files in, complaints out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medgan.formats.dicom.elements import quietly
from medgan.formats.dicom.lint import derived, forms, geometry, pixels, series, source, standard
from medgan.formats.dicom.lint.complaint import SEVERITIES, Checks, Complaint, Severity, rule_name
from medgan.formats.dicom.lint.derived import source_uids
from medgan.formats.dicom.lint.image import Image, open_image

__all__ = ["RULES", "lint_files"]

_IMAGE_CHECKS = (standard.CHECKS, forms.CHECKS, pixels.CHECKS, derived.CHECKS)
_SERIES_CHECKS = (series.CHECKS, geometry.CHECKS)
_KEPT = {*series.KEPT, *geometry.KEPT, *source.KEPT}
_Key = tuple[Severity, str, str, str]


def _severities() -> dict[str, Severity]:
    every = (*_IMAGE_CHECKS, *_SERIES_CHECKS, series.SET_CHECKS, source.CHECKS)
    return {rule_name(check): severity for checks in every for severity in checks for check in checks[severity]}


RULES: Mapping[str, Severity] = _severities()


def lint_files(files: Iterable[Path], *, source_files: Iterable[Path] = ()) -> tuple[int, list[Complaint]]:
    """Judge DICOM files one by one, series by series and all together.

    Args:
        files: what is judged; files that are no DICOM are passed over.
        source_files: of the series that the judged ones were made from. Where none are given, the images that a
            SourceImageSequence names are looked for among `files`.

    Returns:
        The number of DICOM files judged, and what is wrong with them: errors first.
    """
    found: dict[_Key, list[Path]] = defaultdict(list)
    given = [image.slim(_KEPT) for image in map(open_image, source_files) if image is not None]
    images = [_judged(image, found) for image in map(open_image, files) if image is not None]
    with quietly():
        _judge_sets([image for image in images if not image.broken], given, found)
    return len(images), _sorted(found)


def _judged(image: Image, found: dict[_Key, list[Path]]) -> Image:
    """Judge one file; only what rules across files need is kept of it."""
    with quietly():
        for severity, check in _each(_IMAGE_CHECKS):
            for message in dict.fromkeys(check(image)):
                found[severity, rule_name(check), message, image.series].append(image.path)
        return image.slim(_KEPT)


def _judge_sets(images: Sequence[Image], given: Sequence[Image], found: dict[_Key, list[Path]]) -> None:
    by_series: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        by_series[image.series].append(image)
    by_uid = {image.uid: image for image in images}
    for uid, group in by_series.items():
        _collect(_SERIES_CHECKS, (group,), uid, found)
        sources = _sources(group, by_uid, by_series) if not given else [] if _is_one(group, given) else given
        if sources:
            _collect((source.CHECKS,), (group, sources), uid, found)
    _collect((series.SET_CHECKS,), (images,), "", found)


def _sources(group: Sequence[Image], by_uid: Mapping[str, Image], by_series: Mapping[str, list[Image]]) -> list[Image]:
    """Whole series that hold an image that one of the group names as its source."""
    named = {by_uid[uid].series for image in group for uid in source_uids(image.dataset) if uid in by_uid}
    return [image for uid in sorted(named - {group[0].series}) for image in by_series[uid]]


def _is_one(group: Sequence[Image], given: Sequence[Image]) -> bool:
    """True if the group is the source itself, which may lie in the judged folder."""
    return {image.path.resolve() for image in group} <= {image.path.resolve() for image in given}


def _collect(every: Sequence[Checks], arguments: tuple[Any, ...], uid: str, found: dict[_Key, list[Path]]) -> None:
    for severity, check in _each(every):
        for message, paths in check(*arguments):
            found[severity, rule_name(check), message, uid].extend(paths)


def _each(every: Sequence[Checks]) -> Iterator[tuple[Severity, Callable[..., Any]]]:
    return ((severity, check) for checks in every for severity in checks for check in checks[severity])


def _sorted(found: Mapping[_Key, list[Path]]) -> list[Complaint]:
    made = [
        Complaint(rule, severity, message, uid, tuple(dict.fromkeys(paths)))
        for (severity, rule, message, uid), paths in found.items()
    ]
    return sorted(made, key=lambda one: (one.series, SEVERITIES.index(one.severity), one.rule, one.message))
