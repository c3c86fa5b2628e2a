"""The files of one SeriesInstanceUID become series as people mean them.

Pictures of another orientation, matrix or pixel spacing are always a series of their own: localizers, or several
stacks. Only where pictures share a place do they also part by what they show: magnitude, phase, real and imaginary
part, echo, kind of image. What then still shares a place was taken at other moments, see `medgan.formats.dicom.times`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from medgan.formats.dicom.headers import SPLITTING, Header
from medgan.formats.dicom.stack import axes_of, heights_of, places_of

__all__ = ["Part", "split"]

_DIRECTION_TOLERANCE = 1e-4  # per component of ImageOrientationPatient, and relative for PixelSpacing
_COMPONENTS = {
    "P": "phase", "PHASE": "phase", "PHASE MAP": "phase", "R": "real", "REAL": "real", "I": "imaginary",
    "IMAGINARY": "imaginary", "M": "", "MAGNITUDE": "", "MIXED": "mixed",
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """Pictures that are one quantity on one stack, once or at several moments.

    Args:
        headers: of them.
        labels: what sets them apart from the others of their series, such as `e2` or `phase`; none for a series that
            is one part, or for its largest stack.
    """

    headers: tuple[Header, ...]
    labels: tuple[str, ...] = ()


def split(headers: Sequence[Header]) -> list[Part]:
    """The parts of one series, the largest stack first. Every picture must have a place."""
    stacks = sorted(_by_geometry(headers), key=len, reverse=True)
    labels = _stack_labels(stacks)
    return [
        Part(part.headers, (*label, *part.labels))
        for stack, label in zip(stacks, labels, strict=True)
        for part in _by_content(Part(tuple(stack)), 0)
    ]


def component(header: Header) -> str:
    """Which part of a complex number a picture shows; "" for its magnitude and for what is no such part."""
    stated = header.told("ComplexImageComponent")
    if stated:
        return _COMPONENTS.get(stated, "")
    words = (word for part in header.image_type[2:] for word in (part, *part.split("_")))  # Philips: SW_P_FFE
    return next((_COMPONENTS[word] for word in words if word in _COMPONENTS), "")


def is_localizer(header: Header) -> bool:
    """True if a picture says that it was taken to find one's way."""
    return "LOCALIZER" in header.image_type


# --- by where they are ------------------------------------------------------------------------------------------------


def _by_geometry(headers: Sequence[Header]) -> list[list[Header]]:
    groups: dict[Hashable, list[list[Header]]] = {}
    for header in headers:
        near = groups.setdefault(_matrix(header), [])
        fitting = next((group for group in near if _is_parallel(group[0], header)), None)
        near.append([header]) if fitting is None else fitting.append(header)
    return [group for near in groups.values() for group in near]


def _matrix(header: Header) -> Hashable:
    return header.rows, header.columns, header.samples, header.told("StackID"), is_localizer(header)


def _is_parallel(a: Header, b: Header) -> bool:
    if a.orientation == b.orientation and a.pixel_spacing == b.pixel_spacing:
        return True
    turned = np.abs(np.subtract(a.orientation or (), b.orientation or ())).max() > _DIRECTION_TOLERANCE
    spacing_a, spacing_b = np.array(a.pixel_spacing), np.array(b.pixel_spacing)
    return not turned and bool((np.abs(spacing_a - spacing_b) <= _DIRECTION_TOLERANCE * spacing_a).all())


def _stack_labels(stacks: Sequence[Sequence[Header]]) -> Iterator[tuple[str, ...]]:
    """The largest stack is the series; of the others each says that it is a localizer, or which stack it is."""
    num_localizers = sum(is_localizer(stack[0]) for stack in stacks)
    main = next((stack for stack in stacks if not is_localizer(stack[0])), stacks[0])
    seen = {"localizer": 0, "stack": 1}
    for stack in stacks:
        if stack is main:
            yield ()
            continue
        kind = "localizer" if is_localizer(stack[0]) else "stack"
        seen[kind] += 1
        yield (kind if kind == "localizer" and num_localizers == 1 else f"{kind}{seen[kind]}",)


# --- by what they show ------------------------------------------------------------------------------------------------

Key = Callable[[Header], Hashable]


def _keys() -> tuple[tuple[str, Key], ...]:
    told = tuple((key, _told(key)) for key in SPLITTING if key != "StackID")
    return (("component", component), *told)


def _told(key: str) -> Key:
    return lambda header: header.told(key)


def _by_content(part: Part, first_key: int) -> list[Part]:
    """Split by one key after the other, as long as pictures share places."""
    if not _shares_places(part.headers):
        return [part]
    for number, (name, key) in list(enumerate(_keys()))[first_key:]:
        groups: dict[Hashable, list[Header]] = {}
        for header in part.headers:
            groups.setdefault(key(header), []).append(header)
        if len(groups) > 1:
            labels = _labels(name, list(groups.values()))
            parts = [
                Part(tuple(group), (*part.labels, *label)) for group, label in zip(groups.values(), labels, strict=True)
            ]
            return [piece for one in parts for piece in _by_content(one, number + 1)]
    return [part]


def _shares_places(headers: Sequence[Header]) -> bool:
    heights = heights_of(headers, axes_of(headers[0]))
    return len(set(places_of(heights))) < len(headers)


def _labels(key: str, groups: Sequence[Sequence[Header]]) -> list[tuple[str, ...]]:
    firsts = [group[0] for group in groups]
    if key == "component":
        return [(component(first),) if component(first) else () for first in firsts]
    if key in {"EchoNumbers", "EchoTime"}:
        return [(f"e{number}",) for number in _ranks([_as_number(first.told(key)) for first in firsts])]
    return [(_word(first, firsts, number),) for number, first in enumerate(firsts, start=1)]


def _ranks(values: Sequence[float]) -> list[int]:
    order = sorted(values)
    return [order.index(value) + 1 for value in values]


def _as_number(value: str) -> float:
    try:
        return float(value.partition("\\")[0] or 0)
    except ValueError:
        return 0.0


def _word(header: Header, firsts: Sequence[Header], number: int) -> str:
    """The first word of ImageType that no other group has, else a number."""
    others = [set(first.image_type) for first in firsts if first is not header]
    own = [word for word in header.image_type if not any(word in other for other in others)]
    return own[0].lower() if own else f"kind{number}"
