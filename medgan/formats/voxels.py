"""Voxel values on their way from and to files, a part of an image at a time, so that no copy of the whole is held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

__all__ = ["count_not_finite", "filled", "in_file_order", "scaled", "slabs", "smallest_exact"]

Array = npt.NDArray[Any]
_PART_BYTES = 1 << 24
_READ_BYTES = 1 << 20
_STORED = (np.int16, np.int32, np.float32, np.float64)


def slabs(array: Array) -> Iterator[Array]:
    """Views of about 16 MB that make up an array, cut where its memory is in one piece."""
    return (array[cut] for cut in _cuts(array))


def _cuts(array: Array) -> Iterator[tuple[slice, ...]]:
    axis = int(np.argmax(np.abs(array.strides)))
    length = array.shape[axis]
    step = max(1, _PART_BYTES * length // max(1, array.nbytes))
    for start in range(0, length, step):
        yield (*[slice(None)] * axis, slice(start, start + step))


def in_file_order(array: Array, dtype: Any) -> Iterator[memoryview]:
    """The bytes of an (X, Y, Z) array of little-endian `dtype`, x running fastest, some slices at a time."""
    per_slice = array.shape[0] * array.shape[1] * np.dtype(dtype).itemsize
    step = max(1, _PART_BYTES // per_slice)
    for start in range(0, array.shape[2], step):
        part = array[:, :, start : start + step].T
        if not part.flags.c_contiguous:
            # Near bytes first, then turned: a part that fits the cache is turned several times faster.
            part = np.ascontiguousarray(part.T).T
        yield np.ascontiguousarray(part, dtype=np.dtype(dtype).newbyteorder("<")).data.cast("B")


def filled(stream: BinaryIO, shape: tuple[int, ...], dtype: Any) -> Array:
    """An array in this machine's byte order, whose values, first axis running fastest, come next in a stream.

    Raises:
        EOFError: if the stream ends before the array is full.
    """
    array = np.empty(shape, dtype, order="F")
    room = array.T.reshape(-1).view(np.uint8).data
    for start in range(0, len(room), _READ_BYTES):
        _fill(stream, room[start : start + _READ_BYTES])
    return array if array.dtype.isnative else array.byteswap(inplace=True).view(array.dtype.newbyteorder("="))


def _fill(stream: BinaryIO, room: memoryview) -> None:
    while room:
        count = stream.readinto(room)  # type: ignore[attr-defined]
        if not count:
            raise EOFError(f"the voxels end {len(room)} bytes early")
        room = room[count:]


def count_not_finite(array: Array) -> int:
    """How many values are NaN or infinite."""
    if array.dtype.kind in "iub":
        return 0
    return sum(int(slab.size - np.isfinite(slab).sum()) for slab in slabs(array))


def smallest_exact(arrays: Iterable[Array]) -> np.dtype[Any]:
    """The first of int16, int32, float32 and float64 that holds every value; masks of one byte stay so.

    Example:
        >>> smallest_exact([np.array([[[1.0, 40000.0]]])])
        dtype('int32')
    """
    arrays = list(arrays)
    if all(array.dtype in (np.bool_, np.uint8) for array in arrays):
        return np.dtype(np.uint8)
    for dtype in _STORED:
        if all(_holds(dtype, array) for array in arrays):
            return np.dtype(dtype)
    return np.dtype(np.float64)


def _holds(dtype: Any, array: Array) -> bool:
    if np.can_cast(array.dtype, dtype, "safe"):
        return True
    with np.errstate(invalid="ignore", over="ignore"):
        return all(np.array_equal(slab.astype(dtype), slab) for slab in slabs(array))


def scaled(raw: Array, slope: float, inter: float) -> Array:
    """`raw * slope + inter`: integers where that is exact, else float32, float64 where the raw values need it."""
    if raw.dtype.itemsize > 8:
        raw = raw.astype(np.float64)
    if (slope, inter) == (1.0, 0.0):
        return raw
    is_whole = raw.dtype.kind in "iu" and float(slope).is_integer() and float(inter).is_integer()
    dtype = _whole_type(raw, slope, inter) if is_whole else np.result_type(raw.dtype, np.float32)
    values = np.empty_like(raw, dtype=dtype)
    with np.errstate(over="ignore", invalid="ignore"):  # readers count what is not finite afterwards
        for cut in _cuts(raw):  # of both: values of other sizes would be cut elsewhere
            values[cut] = raw[cut].astype(np.float64) * slope + inter
    return values


def _whole_type(raw: Array, slope: float, inter: float) -> np.dtype[Any]:
    ends = [float(end) * slope + inter for end in (raw.min(), raw.max())]
    for dtype in (np.int16, np.int32, np.int64):
        if np.iinfo(dtype).min <= min(ends) and max(ends) <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    return np.dtype(np.float64)
