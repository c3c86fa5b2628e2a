"""Sets of images of one size in one NumPy file, which anybody opens by `numpy.load(path)` and nobody by pickle.

The file holds these arrays: `images` (N, C, X, Y) or (N, C, X, Y, Z); `names` and `patients`, one text an image;
`condition:<name>`, one text an image; `spacing_mm`, one number a spatial axis; `units` and `modalities`, one text a
channel; and `synthetic`, one JSON text an image that says what made it, empty for an image that a scanner acquired.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from medgan.atomic import replacing
from medgan.errors import InputError
from medgan.formats.sidecar import Marks, of_json
from medgan.volume import Synthesis

__all__ = ["StoredSet", "may_be_set", "read_marks", "read_set", "write_set"]

Array = npt.NDArray[Any]
_NEEDED = ("images", "names", "patients", "spacing_mm", "units", "modalities", "synthetic")
_CONDITION = "condition:"
_MAX_RATIO = 1040  # of deflate, the most that a byte can stand for
_OLDEST = (1980, 1, 1, 0, 0, 0)  # the date of every entry, so that equal sets become equal files
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    SyntaxError,
    OverflowError,
    MemoryError,
    RecursionError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)


@dataclass(frozen=True, eq=False)
class StoredSet:
    """Images of one size and what is known of them.

    Args:
        images: (N, C, X, Y) or (N, C, X, Y, Z) in the units of the channels.
        names: of each image, unique.
        synthetic: what made each image, None for one that a scanner acquired.
        patients: whose each image is; the names if not given.
        conditions: what is known of each image, by its name: a class, or a number written as text.
        spacing_mm: distance between voxels along X, Y (and Z), mm; 1 if not given.
        units: of each channel; `a.u.` if not given.
        modalities: DICOM's code of each channel; "" if not given.

    Raises:
        InputError: if these do not fit one another, a name comes twice, or a value is not finite.
    """

    images: Array
    names: Sequence[str]
    synthetic: Sequence[Synthesis | None]
    patients: Sequence[str] = ()
    conditions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    spacing_mm: Sequence[float] = ()
    units: Sequence[str] = ()
    modalities: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.images.ndim not in (4, 5) or not self.images.size or self.images.dtype.kind not in "iufb":
            raise InputError(
                f"a set of images is of numbers (N, C, X, Y) or (N, C, X, Y, Z); seen {self.images.dtype} of shape "
                f"{self.images.shape}"
            )
        num_axes, num_channels = self.images.ndim - 2, self.images.shape[1]
        for key, default in (
            ("patients", self.names),
            ("spacing_mm", [1.0] * num_axes),
            ("units", ["a.u."] * num_channels),
            ("modalities", [""] * num_channels),
        ):
            object.__setattr__(self, key, tuple(getattr(self, key)) or tuple(default))
        _refuse_lengths(self)
        _refuse_values(self)


def write_set(stored: StoredSet, path: Path) -> Path:
    """Write a set of images as one compressed `.npz` file; equal sets become equal files.

    Raises:
        OutputError: if the place cannot be written.
    """
    arrays = {
        "images": stored.images,
        "names": _texts(stored.names),
        "patients": _texts(stored.patients),
        **{f"{_CONDITION}{name}": _texts(values) for name, values in stored.conditions.items()},
        "spacing_mm": np.array(stored.spacing_mm, dtype=np.float64),
        "units": _texts(stored.units),
        "modalities": _texts(stored.modalities),
        "synthetic": _texts([_mark(made) for made in stored.synthetic]),
    }
    with replacing(Path(path)) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", _OLDEST)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
    return Path(path)


def read_set(path: Path) -> StoredSet:
    """Read a set of images that `write_set` has written, or anything with the same arrays.

    Raises:
        InputError: if the file is damaged, lacks an array, or its arrays do not fit one another.
    """
    path = Path(path)
    with _opened(path) as archive:
        names = _arrays_in(archive)
        if lacking := [name for name in _NEEDED if name not in names]:
            raise _no_set(path, names, lacking)
        arrays = {name: _array(archive, name) for name in names if name in _NEEDED or name.startswith(_CONDITION)}
        texts = {name: array.tolist() for name, array in arrays.items() if name != "images"}
        try:
            return _set(arrays["images"], texts)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None


def read_marks(path: Path) -> list[Synthesis | None]:
    """What made each image of a set, without reading the images; as far as it says.

    Raises:
        InputError: if the file is damaged or no set of images.
    """
    path = Path(path)
    with _opened(path) as archive:
        names = _arrays_in(archive)
        if "images" not in names:
            raise _no_set(path, names, ["images"])
        num_images = _header(archive, "images")[0][0]
        told = _array(archive, "synthetic").tolist() if "synthetic" in names else []
        return ([of_json(str(one)).synthetic for one in told] + [None] * num_images)[:num_images]


def may_be_set(path: Path) -> bool:
    """True if a file holds all arrays of a set, or is too damaged to tell."""
    try:
        with zipfile.ZipFile(path) as archive:
            return set(_NEEDED) <= set(_arrays_in(archive))
    except _DAMAGE:
        return True


def _refuse_lengths(stored: StoredSet) -> None:
    num_images, num_channels = stored.images.shape[:2]
    per_image = {"names": stored.names, "patients": stored.patients, "synthetic": stored.synthetic}
    per_image |= {f"{_CONDITION}{name}": values for name, values in stored.conditions.items()}
    wanted = [(key, len(values), num_images, "images") for key, values in per_image.items()]
    per_channel = {"units": stored.units, "modalities": stored.modalities}
    wanted += [(key, len(values), num_channels, "channels") for key, values in per_channel.items()]
    wanted.append(("spacing_mm", len(stored.spacing_mm), stored.images.ndim - 2, "axes"))
    for key, seen, count, what in wanted:
        if seen != count:
            raise InputError(f"a set of {count} {what} has {seen} {key}; give one for each")
    if len(set(stored.names)) < num_images:
        raise InputError("a set names an image twice; give each a name of its own")


def _refuse_values(stored: StoredSet) -> None:
    bad = 0 if stored.images.dtype.kind in "iub" else int((~np.isfinite(stored.images)).sum())
    if bad:
        raise InputError(
            f"{bad} of {stored.images.size} voxels are NaN or infinite; replace them by a background value"
        )
    if not all(math.isfinite(one) and one > 0 for one in stored.spacing_mm):
        raise InputError(f"a spacing is in mm and above 0; seen {tuple(stored.spacing_mm)}")


# --- what a file holds ------------------------------------------------------------------------------------------------


def _set(images: Array, texts: Mapping[str, Any]) -> StoredSet:
    return StoredSet(
        images=images,
        names=_list(texts, "names"),
        synthetic=[of_json(one).synthetic for one in _list(texts, "synthetic")],
        patients=_list(texts, "patients"),
        conditions={name.removeprefix(_CONDITION): _list(texts, name) for name in texts if name.startswith(_CONDITION)},
        spacing_mm=[float(one) for one in _list(texts, "spacing_mm", float | int)],
        units=_list(texts, "units"),
        modalities=_list(texts, "modalities"),
    )


def _list(texts: Mapping[str, Any], name: str, kind: Any = str) -> list[Any]:
    values = texts[name]
    if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
        what = "texts" if kind is str else "numbers"
        raise InputError(f"{name} is no list of {what}; write it as an array of one axis")
    return values


def _texts(values: Sequence[str]) -> Array:
    return np.array(list(values), dtype=np.str_)


def _mark(made: Synthesis | None) -> str:
    """What stands in the JSON file beside a NIfTI image."""
    return "" if made is None else json.dumps(Marks(synthetic=made).to_json(), ensure_ascii=False)


def _arrays_in(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def _array(archive: zipfile.ZipFile, name: str) -> Array:
    _header(archive, name)
    with archive.open(f"{name}.npy") as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
        # Only at its end does an entry tell whether its bytes are what was written.
        while stream.read(1 << 20):
            pass
    return np.asarray(array)


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array that the file is long enough for: a damaged one claims any size."""
    with archive.open(f"{name}.npy") as stream:
        shape, dtype = _shape_and_type(stream)
    entry = archive.getinfo(f"{name}.npy")
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > min(entry.file_size, entry.compress_size * _MAX_RATIO):
        raise ValueError(f"{name} claims {claimed} bytes")
    return shape, dtype


def _shape_and_type(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(stream)
    shape, _, dtype = readers[version](stream)
    if dtype.hasobject:
        raise ValueError("holds Python objects, which are not loaded")
    return shape, dtype


def _no_set(path: Path, names: Sequence[str], lacking: Sequence[str]) -> InputError:
    seen = ", ".join(names) or "none"
    return InputError(
        f"{path}: is no set of images: lacks the arrays {', '.join(lacking)} (seen: {seen}); write it by medgan, or "
        "with these arrays"
    )


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}); check path and permissions") from None
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: is damaged or no .npz file ({reason}); copy or write it again") from error
