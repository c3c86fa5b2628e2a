"""Grey PNG files as slices: values, unit, place and mark come back; what is no grey slice is refused in words."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from medgan.errors import InputError, OutputError
from medgan.formats import grey, png, read, read_header, write
from medgan.inspect import inspect
from medgan.volume import Grid, Synthesis, Volume

MADE = Synthesis("dcgan", "ab" * 32, "0.1.0", "glioma, “drawn”", seed=7, number=3, conditions={"class": "ö"})
AXIAL = Grid.regular((6, 5, 1), spacing_mm=(0.7, 1.3, 4), origin_mm=(10, -20, 30))


def slice_of(values: np.ndarray, grid: Grid = AXIAL, unit: str = "HU", **more: Any) -> Volume:
    return Volume(values.reshape(grid.shape), grid, unit, "CT", **more)


def noise(dtype: type = np.float32, scale: float = 300.0) -> np.ndarray:
    return (np.random.default_rng(0).normal(0, scale, 30)).astype(dtype)


def saved(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def chunks(path: Path) -> list[tuple[str, bytes]]:
    """The parts of a PNG file, by the letters of the standard, with their sums proved."""
    content, place, found = path.read_bytes(), 8, []
    while place < len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        body = content[place + 8 : place + 8 + length]
        assert zlib.crc32(kind + body) == struct.unpack(">I", content[place + 8 + length : place + 12 + length])[0]
        found.append((kind.decode(), body))
        place += 12 + length
    return found


# --- there and back ---------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    orientation=st.sampled_from(["RAS", "LPS", "LPI", "SLA", "PIR", "ASR", "RSP"]),
    scale=st.sampled_from([1e-6, 1.0, 300.0, 1e6]),
    offset=st.sampled_from([0.0, -1.0, 1e3]),
)
def test_values_come_back_within_half_a_step(tmp_path_factory, seed, orientation, scale, offset):
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 9)), int(rng.integers(1, 9)), 1)
    grid = Grid.regular(shape, spacing_mm=rng.uniform(0.3, 4, 3), origin_mm=rng.uniform(-99, 99, 3))
    values = scale * (rng.normal(0, 1, shape) + offset)
    volume = Volume(values, grid, "a.u.", "MR").reorient(orientation)
    back = read(write(volume, tmp_path_factory.mktemp("png") / "x.png"))
    assert back.grid.same_as(volume.grid, tolerance_mm=1e-9)
    half = np.ptp(values) / 65535 / 2
    assert np.abs(back.array.astype(np.float64) - volume.array).max() <= half * 1.13 + 1e-12 * np.abs(values).max()


@pytest.mark.parametrize(
    ("values", "dtype", "bits"),
    [
        (np.arange(30, dtype=np.int16) * 130 - 1024, np.int16, 16),
        (np.arange(30, dtype=np.float32) - 5, np.int16, 16),
        (np.arange(30) * 2259 + 1, np.int64, 16),
        (np.arange(30, dtype=np.uint8) * 8, np.uint8, 8),
        (np.arange(30) % 2 == 0, np.uint8, 8),
        (np.full(30, -7, np.int16), np.int16, 16),
        (np.full(30, 0.1), np.float64, 16),
    ],
    ids=["HU", "whole floats", "65511 steps", "bytes", "mask", "constant", "constant fraction"],
)
def test_whole_numbers_and_constants_come_back_exactly(tmp_path, values, dtype, bits):
    path = write(slice_of(values), tmp_path / "x.png")
    back = read(path)
    assert np.array_equal(back.array.ravel(), values)
    assert back.array.dtype == dtype
    assert chunks(path)[0][1][8:10] == bytes([bits, 0])


def test_unit_modality_and_mark_come_back(tmp_path):
    back = read(write(slice_of(noise(), synthetic=MADE), tmp_path / "x.png"))
    assert (back.unit, back.modality, back.synthetic) == ("HU", "CT", MADE)
    plain = read(write(slice_of(noise()), tmp_path / "y.png"))
    assert (plain.unit, plain.modality, plain.synthetic) == ("HU", "CT", None)
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["x.png", "y.png"]


def test_the_scale_in_the_text_leads_from_pixels_to_values(tmp_path):
    """By hand: the chunk, its JSON, and pixels that another program decodes."""
    volume = slice_of(noise(), synthetic=MADE)
    path = write(volume, tmp_path / "x.png", limits=(-1000, 1000))
    with Image.open(path) as image:
        pixels, comment = np.asarray(image).astype(np.float64), image.text["Comment"]
    fields = json.loads(comment.removeprefix("medgan "))
    assert (fields["RescaleSlope"], fields["RescaleIntercept"]) == (2000 / 65535, -1000)
    shown = volume.reorient("LPS").array[:, :, 0].T
    assert np.abs(pixels * 2000 / 65535 - 1000 - shown).max() <= 1000 / 65535 + 1e-4
    assert json.loads(json.dumps(fields))["Synthesis"] == {
        "Model": "dcgan", "WeightsSHA256": "ab" * 32, "Version": "0.1.0", "Description": "glioma, “drawn”",
        "Seed": 7, "Number": 3, "Conditions": {"class": "ö"},
    }  # fmt: skip


def test_limits_show_a_value_by_one_grey_in_all_pictures(tmp_path):
    for name, values in {"x": noise(), "y": noise() / 2}.items():
        values[0] = 100
        path = write(slice_of(values), tmp_path / f"{name}.png", limits=(-1000, 1500))
        with Image.open(path) as image:
            assert np.asarray(image)[-1, -1] == round(1100 / 2500 * 65535)
    ends = np.array([-1000.0] * 15 + [1500.0] * 15)
    with Image.open(write(slice_of(ends), tmp_path / "z.png", limits=(-1000, 1500))) as image:
        assert (np.asarray(image).min(), np.asarray(image).max()) == (0, 65535)


def test_equal_slices_are_equal_files(tmp_path):
    files = [write(slice_of(noise(), synthetic=MADE), tmp_path / name) for name in ("x.png", "y.png")]
    assert files[0].read_bytes() == files[1].read_bytes()
    again = write(read(files[0]), tmp_path / "z.png")
    assert np.array_equal(read(again).array, read(files[0]).array)


# --- how it hangs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axis", "sides", "corner"),
    [
        (2, "left front", (0, -1)),  # axial: left on the right of the picture, front on top
        (1, "left head", (0, -1)),  # coronal: left on the right, head on top
        (0, "front head", (0, 0)),  # sagittal: front on the left, head on top
    ],
)
@pytest.mark.parametrize("orientation", ["RAS", "LPI", "SAR"])
def test_a_radiologist_finds_the_sides_where_they_belong(tmp_path, axis, sides, corner, orientation):
    shape = [5, 6, 7]
    shape[axis] = 1
    volume = Volume(np.zeros(shape, np.uint8), Grid.regular(shape))
    index = [0 if "left" in sides else -1, -1 if "front" in sides else 0, -1 if "head" in sides else 0]
    index[axis] = 0
    volume.array[tuple(index)] = 200
    with Image.open(write(volume.reorient(orientation), tmp_path / "x.png")) as image:
        pixels = np.asarray(image)
    assert pixels[corner] == 200
    assert pixels.sum() == 200


# --- files of other programs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_plain_file_is_an_axial_slice(tmp_path, dtype):
    pixels = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (5, 7)).astype(dtype)
    back = read(saved(tmp_path / "x.png", pixels))
    assert back.array.dtype == dtype
    assert np.array_equal(back.array[:, :, 0].T, pixels)
    assert (back.grid.orientation, back.grid.spacing_mm, back.unit) == ("LPS", (1, 1, 1), "a.u.")
    assert (back.modality, back.synthetic) == ("", None)
    assert back.grid.to_world([0, 0, 0]).tolist() == [0, 0, 0]


def test_pixel_size_is_taken_from_the_file(tmp_path):
    path = saved(tmp_path / "x.png", np.zeros((4, 6), np.uint8), dpi=(25.4 / 0.5, 25.4 / 0.8))
    assert struct.unpack(">IIB", dict(chunks(path))["pHYs"]) == (2000, 1250, 1)
    assert read(path).grid.spacing_mm == pytest.approx((0.5, 0.8, 1))
    assert read_header(path).grid.same_as(read(path).grid, tolerance_mm=0)


def test_ours_tells_its_pixel_size_to_others(tmp_path):
    path = write(slice_of(noise()), tmp_path / "x.png")
    assert struct.unpack(">IIB", dict(chunks(path))["pHYs"]) == (round(1000 / 0.7), round(1000 / 1.3), 1)


def test_a_json_file_beside_it_tells_unit_and_modality(tmp_path):
    path = saved(tmp_path / "x.png", np.full((4, 6), 9, np.uint16))
    (tmp_path / "x.json").write_text('{"Modality": "MR", "Units": "normalised"}')
    assert (read(path).unit, read(path).modality) == ("normalised", "MR")
    (tmp_path / "x.json").write_text("no JSON")
    with pytest.raises(InputError, match=r"x\.json: is no JSON object"):
        read(path)


def test_marks_of_other_programs_are_understood(tmp_path):
    info = PngInfo()
    uri = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
    info.add_itxt("XML:com.adobe.xmp", f"<x:xmpmeta><Iptc4xmpExt:DigitalSourceType>{uri}</x:xmpmeta>")
    assert read(saved(tmp_path / "x.png", np.zeros((4, 6), np.uint8), pnginfo=info)).synthetic == Synthesis("unknown")
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture")
    assert read(saved(tmp_path / "y.png", np.zeros((4, 6), np.uint8), pnginfo=info)).synthetic is None


def test_the_line_for_people_is_understood_alone(tmp_path):
    made = Synthesis("stylegan2", "cd" * 32, "0.2.0")
    png.write_png(np.zeros((4, 6), np.uint8), tmp_path / "x.png", text=png.synthetic_text(made))
    assert read(tmp_path / "x.png").synthetic == made


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("RGB", "holds colour, and medgan reads one value a pixel; save it as grey"),
        ("RGBA", "colour with transparency"),
        ("LA", "grey with transparency"),
        ("P", "holds a palette"),
        ("1", "has 1 bits a pixel; save it as grey"),
    ],
)
def test_what_is_not_grey_is_refused(tmp_path, mode, why):
    Image.new(mode, (6, 5)).save(tmp_path / "x.png")
    for reader in (read, read_header):
        with pytest.raises(InputError, match=why):
            reader(tmp_path / "x.png")


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "BMP", "TIFF", "WebP"])
def test_other_pictures_are_refused_by_name(tmp_path, kind):
    Image.new("L", (6, 5)).save(tmp_path / "picture", format=kind)
    with pytest.raises(InputError, match=f"is a {kind} picture; of pictures medgan reads grey PNG of 8 or 16 bits"):
        read(tmp_path / "picture")


def test_what_one_slice_cannot_hold_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"x\.png: a PNG holds one slice, and this volume has 2×3×4 voxels"):
        write(Volume(np.zeros((2, 3, 4)), Grid.regular((2, 3, 4))), tmp_path / "x.png")
    with pytest.raises(InputError, match="1 of 30 voxels are NaN or infinite"):
        write(slice_of(np.r_[np.nan, np.zeros(29)]), tmp_path / "x.png")
    with pytest.raises(InputError, match="values from -5 to 24 are beyond the limits of 0 and 20"):
        write(slice_of(np.arange(30.0) - 5), tmp_path / "x.png", limits=(0, 20))
    with pytest.raises(InputError, match="limits of 20 and 0; give two finite ones, the lower first"):
        write(slice_of(np.zeros(30)), tmp_path / "x.png", limits=(20, 0))
    (tmp_path / "x.png").mkdir()
    (tmp_path / "x.png" / "other").touch()
    with pytest.raises(OutputError, match="something in it"):
        write(slice_of(noise()), tmp_path / "x.png")


def test_pixels_that_another_program_changed_are_refused(tmp_path):
    """A program that shrinks a picture, or brings it to 8 bits, and copies the text: the scale is no longer true."""
    path = write(slice_of(noise()), tmp_path / "x.png")
    with Image.open(path) as image:
        text, pixels = dict(image.text), np.asarray(image)
    info = PngInfo()
    for key, value in text.items():
        info.add_text(key, value)
    for name, changed in {"small": pixels[::2, ::2], "bytes": (pixels >> 8).astype(np.uint8)}.items():
        with pytest.raises(InputError, match="not what its text describes, so another program has changed it"):
            read(saved(tmp_path / f"{name}.png", changed, pnginfo=info))


@pytest.mark.parametrize(
    "wrong",
    [
        {"Affine": "none"},
        {"Affine": [[0] * 4] * 4},
        {"Orientation": "XYZ"},
        {"Orientation": None},
        {"RescaleSlope": "fast"},
        {"RescaleSlope": 0},
        {"RescaleIntercept": float("inf")},
        {"RescaleIntercept": None},
    ],
    ids=str,
)
def test_a_text_that_tells_no_place_or_scale_is_refused(tmp_path, wrong):
    with Image.open(write(slice_of(noise()), tmp_path / "x.png")) as image:
        fields, pixels = json.loads(image.text["Comment"].removeprefix("medgan ")), np.asarray(image)
    info = PngInfo()
    info.add_text("Comment", f"medgan {json.dumps(fields | wrong)}")
    with pytest.raises(InputError, match="the place or scale in its text is none"):
        read(saved(tmp_path / "y.png", pixels, pnginfo=info))


def test_damage_is_refused_and_never_read_as_something_else(tmp_path):
    volume = slice_of(noise(), synthetic=MADE)
    content, path = write(volume, tmp_path / "x.png").read_bytes(), tmp_path / "y.png"
    whole, rng, messages = read(tmp_path / "x.png"), np.random.default_rng(0), []
    for number in range(300):
        damaged = bytearray(content[: int(rng.integers(9, len(content)))] if number % 3 == 0 else content)
        for place in rng.integers(8, len(damaged), 3):
            damaged[place] = int(rng.integers(256))
        path.write_bytes(damaged)
        try:
            assert np.array_equal(read(path).array, whole.array)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 200
    assert all(message.startswith(str(path)) and "\n" not in message for message in messages)


def test_a_cut_file_is_called_damaged(tmp_path):
    path = write(slice_of(noise()), tmp_path / "x.png")
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(InputError, match=r"x\.png: is damaged or cut short"):
        read(path)
    with pytest.raises(InputError, match="cannot be opened"):
        png.open_png(tmp_path / "nowhere.png")
    (tmp_path / "y.png").write_text("no picture")
    with pytest.raises(InputError, match="does not start as PNG does"):
        grey.read(tmp_path / "y.png")


# --- inspect ----------------------------------------------------------------------------------------------------------


def test_inspect_tells_a_line_for_each_picture(tmp_path):
    write(slice_of(noise(), synthetic=MADE), tmp_path / "a.png")
    saved(tmp_path / "b.png", np.arange(30, dtype=np.uint8).reshape(5, 6))
    saved(tmp_path / "c.png", np.arange(30, dtype=np.uint8).reshape(5, 6), dpi=(50, 50))
    Image.new("RGB", (6, 5)).save(tmp_path / "d.png")
    (tmp_path / "e.png").write_text("no picture")
    ours, plain, sized, colour, broken = inspect(tmp_path)
    assert (ours.kind, ours.synthetic, ours.unit, ours.modality, ours.problems) == ("png", True, "HU", "CT", ())
    assert (ours.orientation, ours.shape) == ("RAS", (6, 5, 1))
    assert (plain.synthetic, plain.unit) == (False, "")
    assert plain.problems == (
        "no pixel size recorded, 1 mm is assumed; no place in the patient recorded, it is taken as an axial slice",
    )
    assert sized.problems == ("no place in the patient recorded, it is taken as an axial slice",)
    assert colour.error.startswith("holds colour")
    assert broken.error.startswith("does not start as PNG does")
    assert json.loads(json.dumps(ours.to_json()))["synthetic"] is True


def test_a_picture_of_a_set_bears_all_marks():
    text = png.mark_text(MADE)
    assert png.missing_marks(text) == ()
    assert png.made_by(text) == MADE
    assert "digitalsourcetype/trainedAlgorithmicMedia" in text["XML:com.adobe.xmp"]
    assert "digitalsourcetype/algorithmicMedia" in png.mark_text(Synthesis("phantom"))["XML:com.adobe.xmp"]
    assert png.mark_text(None) == {}
    assert len(png.missing_marks({})) == 3
    sheet = png.encode_png(np.zeros((4, 4, 3), np.uint8), text=text)
    with Image.open(io.BytesIO(sheet)) as image:
        assert image.text["XML:com.adobe.xmp"] == text["XML:com.adobe.xmp"]
    assert b"iTXtXML:com.adobe.xmp\0\0\0\0\0" in sheet
