"""Rules on the pixels of one file, and on what its header says about them.

Source: PS3.3 C.7.6.3 (Image Pixel), C.11.1 (Modality LUT), C.11.2 (VOI LUT), C.7.5.1.1.2 (padding), C.7.6.1.1.5 (lossy
compression).
"""

from __future__ import annotations

from collections.abc import Iterator

from medgan.formats.dicom.elements import number, text
from medgan.formats.dicom.lint.complaint import Checks
from medgan.formats.dicom.lint.image import Image, finite

__all__ = ["CHECKS"]

_LOSSY = {
    "1.2.840.10008.1.2.4.50": "JPEG Baseline",
    "1.2.840.10008.1.2.4.51": "JPEG Extended",
    "1.2.840.10008.1.2.4.81": "JPEG-LS near-lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
}
_MOST_BITS = 64  # of a pixel: the most that BitsAllocated takes
_SAMPLES = {"MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1, "RGB": 3, "YBR_FULL": 3, "YBR_FULL_422": 3}


def pixel_length(image: Image) -> Iterator[str]:
    """PixelData shorter or longer than the matrix takes."""
    held, needed = image.pixels.num_bytes, image.pixels.needed_bytes
    if held is not None and held not in (needed, needed + needed % 2):
        yield f"PixelData has {held} bytes; its matrix takes {needed}"


def bits(image: Image) -> Iterator[str]:
    """BitsAllocated, BitsStored, HighBit and PixelRepresentation that contradict one another."""
    keys = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    allocated, stored, high, sign = (number(image.dataset, key) for key in keys)
    if allocated is not None and stored is not None and stored > allocated:
        yield f"BitsStored is {stored:g}, more than BitsAllocated {allocated:g}"
    if stored is not None and high is not None and high != stored - 1:
        yield f"HighBit is {high:g}; it is BitsStored − 1, so {stored - 1:g}"
    if sign not in (None, 0, 1):
        yield f"PixelRepresentation is {sign:g}; it is 0 or 1"


def samples(image: Image) -> Iterator[str]:
    """SamplesPerPixel and PhotometricInterpretation that contradict one another."""
    colours = text(image.dataset, "PhotometricInterpretation")
    seen, right = number(image.dataset, "SamplesPerPixel"), _SAMPLES.get(colours)
    if seen is not None and right is not None and seen != right:
        yield f"SamplesPerPixel is {seen:g}, but {colours} has {right}"


def rescale_slope(image: Image) -> Iterator[str]:
    """A RescaleSlope of 0 makes all values one."""
    if number(image.dataset, "RescaleSlope") == 0:
        yield "RescaleSlope is 0, which makes all values the same"


def window_width(image: Image) -> Iterator[str]:
    """A window that shows nothing: narrower than 1, or 0 and less where its function is not LINEAR."""
    widths = finite(image.dataset, "WindowWidth")
    if text(image.dataset, "VOILUTFunction") not in {"", "LINEAR"}:
        if min(widths, default=1) <= 0:
            yield "WindowWidth is not above 0"
    elif min(widths, default=1) < 1:
        yield "WindowWidth is below 1, the least for the function LINEAR"


def bits_beyond(image: Image) -> Iterator[str]:
    """Bits above BitsStored that are set, other than overlays in them."""
    if image.pixels.beyond_bits and not any(element.tag.group & 0xFF00 == 0x6000 for element in image.dataset):
        yield "bits above BitsStored are set in pixels; readers that do not clear them see wrong values"


def smallest_largest(image: Image) -> Iterator[str]:
    """SmallestImagePixelValue or LargestImagePixelValue that are not those of the pixels."""
    for key, actual in (("SmallestImagePixelValue", image.pixels.low), ("LargestImagePixelValue", image.pixels.high)):
        stated = number(image.dataset, key)
        if stated is not None and actual is not None and stated != actual:
            yield f"{key} is not that of the pixels; leave it out or compute it"


def series_extremes(image: Image) -> Iterator[str]:
    """Pixels beyond SmallestPixelValueInSeries or LargestPixelValueInSeries."""
    low, high = image.pixels.low, image.pixels.high
    least, most = (number(image.dataset, f"{end}PixelValueInSeries") for end in ("Smallest", "Largest"))
    if (least is not None and low is not None and low < least) or (
        most is not None and high is not None and high > most
    ):
        yield "pixels go beyond SmallestPixelValueInSeries or LargestPixelValueInSeries"


def padding_beyond_bits(image: Image) -> Iterator[str]:
    """A PixelPaddingValue that no pixel of so many bits can have."""
    padding, stored = number(image.dataset, "PixelPaddingValue"), number(image.dataset, "BitsStored")
    if padding is None or stored is None or not 1 <= stored <= _MOST_BITS:
        return
    signed = number(image.dataset, "PixelRepresentation") == 1
    low, high = (-(2 ** (stored - 1)), 2 ** (stored - 1) - 1) if signed else (0, 2**stored - 1)
    if not low <= padding <= high:
        yield f"PixelPaddingValue {padding:g} is beyond [{low:g}, {high:g}], all that {stored:g} bits can hold"


def lossy_not_said(image: Image) -> Iterator[str]:
    """Pixels in a lossy encoding without LossyImageCompression 01."""
    encoding = _LOSSY.get(str(image.meta.get("TransferSyntaxUID", "")))
    if encoding and text(image.dataset, "LossyImageCompression") != "01":
        yield f"pixels are encoded as {encoding}, which loses, and LossyImageCompression is not 01"


def undecodable(image: Image) -> Iterator[str]:
    """Pixels that cannot be decoded here, so that rules on values do not judge them."""
    if image.pixels.undecodable:
        yield f"its pixels cannot be decoded here ({image.pixels.undecodable}), so rules on values are left out"


CHECKS: Checks = {
    "error": (pixel_length, bits, samples, rescale_slope, window_width),
    "warning": (bits_beyond, smallest_largest, series_extremes, padding_beyond_bits, lossy_not_said),
    "note": (undecodable,),
}
