"""PNG pictures with text in them that says where they come from."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from medgan.atomic import replacing
from medgan.errors import InputError
from medgan.volume import Synthesis

__all__ = ["data_uri", "encode_png", "synthetic_text", "write_png"]

Array = npt.NDArray[Any]


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
    info = PngInfo()
    for keyword, value in (text or {}).items():
        info.add_text(keyword, value)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", pnginfo=info, optimize=True)
    return buffer.getvalue()


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


def data_uri(png: bytes) -> str:
    """The PNG as the value of an `src` attribute, so that a page needs no other file."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
