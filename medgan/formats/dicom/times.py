"""The volumes of a 4-D series: which picture at each place belongs to which moment."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import DicomError
from medgan.formats.dicom.headers import ORDERING, Header, differing
from medgan.formats.dicom.stack import axes_of, heights_of, listed, middle, named, places_of, position_tolerance_mm

__all__ = ["volumes_of", "without_incomplete"]

Array = npt.NDArray[Any]

_OF_TIME = {
    "TemporalPositionIdentifier", "AcquisitionNumber", "InversionTime", "TriggerTime", "AcquisitionDateTime",
    "AcquisitionTime", "ContentTime",
}  # fmt: skip
_OF_VOLUMES = ("TemporalPositionIdentifier", "AcquisitionNumber")
_SETS = (*((key,) for key in ORDERING), ("AcquisitionNumber", "DiffusionBValue"), ("DiffusionBValue", "SequenceName"))


def volumes_of(headers: Sequence[Header]) -> tuple[list[list[Header]], str]:
    """The pictures of each volume, in the order of time, and the attribute that tells the volumes apart ("" for one).

    Raises:
        DicomError: if some places hold more pictures than others.
    """
    heights = heights_of(headers, axes_of(headers[0]))
    place = places_of(heights)
    counts = np.bincount(place)
    if counts.max() == 1:
        return _moving(headers, heights) or ([list(headers)], "")
    _refuse_uneven_counts(headers, heights, place, counts)
    for keys in _SETS:
        groups = _grouped(headers, keys)
        if len(groups) == counts[0] and _is_partition(groups, headers, place):
            return _in_order(groups, keys), " and ".join(keys)
    return _by_instance_number(headers, place, heights, int(counts[0])), "InstanceNumber"


def without_incomplete(headers: Sequence[Header]) -> tuple[list[Header], str]:
    """The pictures of volumes that have every place, as of a scan that was broken off; and what was left out.

    Nothing is left out where no attribute tells the volumes apart, or where all are complete.
    """
    place = places_of(heights_of(headers, axes_of(headers[0])))
    counts = np.bincount(place)
    for keys in _SETS if counts.min() < counts.max() else ():
        groups = _grouped(headers, keys).values()
        whole = [group for group in groups if len(group) == len(counts) and _is_partition({0: group}, headers, place)]
        if len(groups) == counts.max() and whole:
            kept = {id(one) for group in whole for one in group}
            rest = [one for one in headers if id(one) not in kept]
            told = f"{len(groups) - len(whole)} of {len(groups)} volumes incomplete ({named(rest)}), left out"
            return [one for one in headers if id(one) in kept], told
    return list(headers), ""


def _moving(headers: Sequence[Header], heights: Array) -> tuple[list[list[Header]], str] | None:
    """Volumes that share no place since the scanner followed a moving head: each is even, together they are not."""
    if _is_even(heights):
        return None
    for key in _OF_VOLUMES:
        groups = _grouped(headers, [key])
        sizes = {len(group) for group in groups.values()}
        if len(groups) > 1 and len(sizes) == 1 and min(sizes) > 2 and all(map(_is_ladder, groups.values())):
            return _in_order(groups, [key]), key
    return None


def _is_ladder(group: Sequence[Header]) -> bool:
    return _is_even(heights_of(group, axes_of(group[0])))


def _is_even(heights: Array) -> bool:
    gaps = np.diff(np.sort(heights))
    return len(gaps) < 2 or float(np.ptp(gaps)) <= position_tolerance_mm(middle(gaps))


def _grouped(headers: Sequence[Header], keys: Sequence[str]) -> dict[Hashable, list[Header]]:
    groups: dict[Hashable, list[Header]] = {}
    for header in headers:
        groups.setdefault(tuple(header.told(key) for key in keys), []).append(header)
    return groups


def _is_partition(groups: dict[Hashable, list[Header]], headers: Sequence[Header], place: Sequence[int]) -> bool:
    """True if each group has each place once."""
    of = {id(header): where for header, where in zip(headers, place, strict=True)}
    num_places = len(set(place))
    return all(len(group) == num_places == len({of[id(one)] for one in group}) for group in groups.values())


def _in_order(groups: dict[Hashable, list[Header]], keys: Sequence[str]) -> list[list[Header]]:
    """By time where that tells them apart, else by the numbers of their first instances."""
    first = {key: min((one.instance_number or 0, one.frame) for one in group) for key, group in groups.items()}
    if _OF_TIME.isdisjoint(keys) and len(set(first.values())) == len(groups):
        return [groups[key] for key in sorted(groups, key=lambda key: first[key])]
    return [groups[key] for key in sorted(groups, key=_natural)]


def _natural(key: Hashable) -> tuple[tuple[float, str], ...]:
    parts = key if isinstance(key, tuple) else (key,)
    return tuple((_number(str(part)), str(part)) for part in parts)


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return 0.0


def _by_instance_number(
    headers: Sequence[Header], place: Sequence[int], heights: Array, num_volumes: int
) -> list[list[Header]]:
    """The first picture at each place is the first volume's, and so on."""
    orders = [(one.instance_number or 0, one.frame) for one in headers]
    if len(set(orders)) < len(headers):
        together = [one for one, where in zip(headers, place, strict=True) if where == 0]
        raise DicomError(
            f"a 4-D series whose {num_volumes} images at each place cannot be told apart: {named(together)} at "
            f"{heights[headers.index(together[0])]:.2f} mm {_difference(together)}; keep one image a place"
        )
    ranked = sorted(range(len(headers)), key=lambda index: orders[index])
    volumes: list[list[Header]] = [[] for _ in range(num_volumes)]
    taken = [0] * len(headers)
    for index in ranked:
        volumes[taken[place[index]]].append(headers[index])
        taken[place[index]] += 1
    return volumes


def _refuse_uneven_counts(headers: Sequence[Header], heights: Array, place: Sequence[int], counts: Array) -> None:
    if counts.min() == counts.max():
        return
    usual = int(np.bincount(counts).argmax())
    odd = [int(where) for where in np.flatnonzero(counts != usual)]
    told = listed([_at(headers, heights, place, where) for where in odd])
    if usual == 1:
        shared = "1 place holds" if len(odd) == 1 else f"{len(odd)} places hold"
        raise DicomError(f"{shared} more than one image: {told}; remove the wrong ones")
    raise DicomError(
        f"a 4-D series with {usual} images at most of its {len(counts)} places, but not at {told}; "
        "a volume is incomplete, send the series again, or let --fill leave that volume out"
    )


def _at(headers: Sequence[Header], heights: Array, place: Sequence[int], where: int) -> str:
    together = [one for one, at in zip(headers, place, strict=True) if at == where]
    height = next(height for height, at in zip(heights, place, strict=True) if at == where)
    differences = f" ({_difference(together)})" if len(together) > 1 else ""
    return f"{named(together)} at {height:.2f} mm{differences}"


def _difference(together: list[Header]) -> str:
    keys = differing(together)
    return f"differ in {', '.join(keys)}" if keys else "differ in nothing that tells"
