"""PNG pictures with text in them that says where they come from."""

from __future__ import annotations

import base64
import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from medgan.atomic import replacing
from medgan.errors import InputError
from medgan.formats.sidecar import Marks, of_comment
from medgan.volume import Synthesis

__all__ = [
    "COMMENT",
    "Picture",
    "data_uri",
    "encode_png",
    "encode_slice",
    "is_png",
    "made_by",
    "mark_text",
    "missing_marks",
    "open_png",
    "synthetic_text",
    "write_png",
]

Array = npt.NDArray[Any]
COMMENT = "Comment"
_MAGIC = b"\x89PNG\r\n\x1a\n"
_DAMAGE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_COLOURS = {2: "colour", 3: "a palette", 4: "grey with transparency", 6: "colour with transparency"}
_XMP_KEY = "XML:com.adobe.xmp"
_XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/{kind}"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)
_SOURCE_TYPE = re.compile(r"cv\.iptc\.org/newscodes/digitalsourcetype/(\w+)")
_MADE = ("trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia", "compositeSynthetic", "algorithmicMedia")
_SYNTHETIC_LINE = re.compile(r"yes: made by (.+), not for diagnostic use")


def encode_png(pixels: Array, *, text: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a PNG file.

    Args:
        pixels: (H, W) grey or (H, W, 3) red, green, blue; uint8, row 0 on top.
        text: what the file says about itself, by keyword (`tEXt` chunks; `iTXt` where Latin-1 does not reach).

    Raises:
        InputError: if the pixels are of another shape or type.

    Example:
        >>> encode_png(np.zeros((2, 2), np.uint8))[1:4]
        b'PNG'
    """
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)) or not pixels.size:
        raise InputError(f"a picture is uint8 of shape (H, W) or (H, W, 3); seen {pixels.dtype} of {pixels.shape}")
    return _encoded(pixels, text or {})


def encode_slice(pixels: Array, *, text: Mapping[str, str], spacing_mm: tuple[float, float]) -> bytes:
    """The bytes of a grey PNG file with the size of its pixels.

    Args:
        pixels: (H, W), uint8 or uint16, row 0 on top.
        text: as in `encode_png`.
        spacing_mm: of pixels along a row and along a column.
    """
    return _encoded(pixels, text, dpi=(25.4 / spacing_mm[0], 25.4 / spacing_mm[1]))


def write_png(pixels: Array, path: Path | str, *, text: Mapping[str, str] | None = None) -> None:
    """Write a PNG file, whole or not at all. The arguments are those of `encode_png`.

    Raises:
        InputError: if the pixels are of another shape or type.
        OutputError: if the place cannot be written.
    """
    encoded = encode_png(pixels, text=text)
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(encoded)


def synthetic_text(synthesis: Synthesis | None) -> dict[str, str]:
    """The text that marks the picture of a synthetic image; nothing for an acquired one.

    Example:
        >>> synthetic_text(Synthesis("pix2pix"))
        {'Synthetic': 'yes: made by pix2pix, not for diagnostic use'}
    """
    if synthesis is None:
        return {}
    text = {"Synthetic": f"yes: made by {synthesis.model}, not for diagnostic use"}
    if synthesis.version:
        text["Software"] = f"medgan {synthesis.version}"
    if synthesis.weights_sha256:
        text["Weights"] = f"sha256:{synthesis.weights_sha256}"
    return text


def mark_text(synthesis: Synthesis | None) -> dict[str, str]:
    """All that marks a file of a synthetic set, a contact sheet too: `synthetic_text`, a comment for medgan, and XMP.

    The XMP names the IPTC's source type: `trainedAlgorithmicMedia` for what has weights, else `algorithmicMedia`.
    """
    if synthesis is None:
        return {}
    kind = "trainedAlgorithmicMedia" if synthesis.weights_sha256 else "algorithmicMedia"
    comment = Marks(synthetic=synthesis).comment()
    return {**synthetic_text(synthesis), COMMENT: comment, _XMP_KEY: _XMP.format(kind=kind)}


def data_uri(png: bytes) -> str:
    """The PNG as the value of an `src` attribute, so that a page needs no other file."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _encoded(pixels: Array, text: Mapping[str, str], **options: Any) -> bytes:
    info = PngInfo()
    for keyword, value in text.items():
        # XMP has to be in an iTXt chunk; `add_text` makes one only where it must.
        (info.add_itxt if keyword == _XMP_KEY else info.add_text)(keyword, value)
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.save(buffer, format="PNG", pnginfo=info, compress_level=4, **options)
    return buffer.getvalue()


# --- what a file holds ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Picture:
    """What a PNG file holds.

    Args:
        pixels: (rows, columns), row 0 on top, or (rows, columns, samples); uint8 or uint16.
        text: what it says about itself, by keyword.
        spacing_mm: of pixels along a row and along a column, None where it is not recorded.
    """

    pixels: Array
    text: Mapping[str, str]
    spacing_mm: tuple[float, float] | None


def is_png(path: Path) -> bool:
    """True if a file starts as PNG does; its name does not count."""
    try:
        with Path(path).open("rb") as stream:
            return stream.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def open_png(path: Path, *, grey: bool = True) -> Picture:
    """Read a PNG file.

    Args:
        path: of the file.
        grey: refuse what is not one grey value of 8 or 16 bits a pixel.

    Raises:
        InputError: if it is damaged, or not grey where it has to be.
    """
    path = Path(path)
    with _damage_named(path), path.open("rb") as stream:
        start = stream.read(26)
        if not start.startswith(_MAGIC):
            raise InputError(f"{path}: does not start as PNG does; give a PNG file")
        if grey:
            _refuse_colour(path, *start[24:26])
        image = Image.open(stream, formats=["PNG"])
        pixels = np.asarray(image)
        text = {key: str(value) for key, value in getattr(image, "text", {}).items()}
        return Picture(pixels.astype(np.uint16 if start[24] == 16 else np.uint8), text, _spacing_mm(image))


def made_by(text: Mapping[str, str]) -> Synthesis | None:
    """What made a picture, told by its text: medgan's comment, else the line for people, else its XMP."""
    commented = of_comment(text.get(COMMENT, "")).synthetic
    if commented is not None:
        return commented
    line = _SYNTHETIC_LINE.match(text.get("Synthetic", ""))
    if line is None:
        return Synthesis("unknown") if _says_made(text) or _says_synthetic(text) else None
    software, weights = text.get("Software", ""), text.get("Weights", "")
    version = software.removeprefix("medgan ") if software.startswith("medgan ") else ""
    return Synthesis(line.group(1), weights.removeprefix("sha256:"), version)


def missing_marks(text: Mapping[str, str]) -> tuple[str, ...]:
    """Which of the marks of a synthetic picture its text lacks; none if it has them all."""
    lacks = {
        "the text Synthetic": not _says_synthetic(text),
        "medgan's comment that it is synthetic": of_comment(text.get(COMMENT, "")).synthetic is None,
        "the DigitalSourceType in its XMP": not _says_made(text),
    }
    return tuple(what for what, is_missing in lacks.items() if is_missing)


def _says_synthetic(text: Mapping[str, str]) -> bool:
    return text.get("Synthetic", "").startswith("yes")


def _says_made(text: Mapping[str, str]) -> bool:
    found = _SOURCE_TYPE.search(text.get(_XMP_KEY, ""))
    return found is not None and found.group(1) in _MADE


def _refuse_colour(path: Path, depth: int, colour: int) -> None:
    if colour in _COLOURS:
        raise InputError(
            f"{path}: holds {_COLOURS[colour]}, and medgan reads one value a pixel; save it as grey of 8 or 16 bits"
        )
    if depth < 8:
        raise InputError(f"{path}: has {depth} bits a pixel; save it as grey of 8 or 16 bits")


def _spacing_mm(image: Image.Image) -> tuple[float, float] | None:
    dpi = image.info.get("dpi")
    per_metre = [round(one / 0.0254) for one in dpi] if dpi else [0, 0]
    return (1000 / per_metre[0], 1000 / per_metre[1]) if min(per_metre) > 0 else None


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}); check path and permissions") from None
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: is damaged or cut short ({reason}); copy or convert it again") from error
