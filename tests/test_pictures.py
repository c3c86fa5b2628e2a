"""Pictures: sides, square pixels, colours, and the text inside PNG files."""

from __future__ import annotations

import base64
import io
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medgan import Grid, Synthesis, Volume
from medgan.errors import InputError, OutputError
from medgan.formats.png import data_uri, encode_png, synthetic_text, write_png
from medgan.pictures import colour_bar, diverging, grey, montage, plane, slice_picture

CODES = ["".join(letters) for order in permutations(("RL", "AP", "SI")) for letters in product(*order)]


def marked(orientation="RAS", spacing=(1.0, 1.0, 1.0)):
    """A volume of zeros with one bright voxel near the patient's right, anterior, superior corner."""
    array = np.zeros((8, 10, 12), np.float32)
    array[6, 8, 9] = 100
    return Volume(array, Grid.regular(array.shape, spacing_mm=spacing)).reorient(orientation)


@pytest.mark.parametrize("orientation", CODES)
def test_the_marker_is_where_a_radiologist_looks_for_it(orientation):
    volume = marked(orientation)
    # Axial: 10 rows from anterior down, 8 columns from the right. Coronal, sagittal: 12 rows from superior down.
    for axis, index, shape, seen in (
        ("axial", 9, (10, 8), (1, 1)),
        ("coronal", 8, (12, 8), (2, 1)),
        ("sagittal", 6, (12, 10), (2, 1)),
    ):
        picture = plane(volume, axis, index)
        assert picture.shape == shape
        assert np.argwhere(picture == 100).tolist() == [list(seen)]
        assert not plane(volume, axis, index - 1).any()


@settings(deadline=None, max_examples=40)
@given(
    spacing=st.tuples(*[st.floats(0.4, 4)] * 3),
    axis=st.sampled_from(["axial", "coronal", "sagittal"]),
    longest=st.sampled_from([None, 40, 200]),
)
def test_pixels_are_square(spacing, axis, longest):
    volume = marked("RAS", spacing)
    extent = dict(zip("xyz", np.array(volume.grid.shape) * spacing, strict=True))
    width_mm, height_mm = {"axial": "xy", "coronal": "xz", "sagittal": "yz"}[axis]
    height, width = plane(volume, axis, longest_px=longest).shape
    pixel_mm = max(extent[height_mm], extent[width_mm]) / max(height, width)
    assert abs(height * pixel_mm - extent[height_mm]) <= pixel_mm
    assert abs(width * pixel_mm - extent[width_mm]) <= pixel_mm
    assert longest is None or max(height, width) == longest


def test_thick_slices_are_stretched_linearly():
    array = np.repeat(np.arange(4, dtype=np.float32)[None, None], 6, axis=0)
    volume = Volume(array, Grid.regular(array.shape, spacing_mm=(1, 1, 4)))
    picture = plane(volume, "coronal", 0)
    assert picture.shape == (16, 6)
    # Row centres lie at 1/8, 3/8, … of a slice; the outermost half slices keep the outer value.
    expected = np.interp((np.arange(16) + 0.5) / 4 - 0.5, range(4), [3, 2, 1, 0])
    assert picture[:, 2] == pytest.approx(expected, abs=1e-5)


def test_the_default_plane_is_the_middle_and_others_must_exist():
    volume = marked()
    assert (plane(volume, "axial") == plane(volume, "axial", 6)).all()
    with pytest.raises(InputError, match="accepted: 0 to 11"):
        plane(volume, "axial", 12)
    with pytest.raises(InputError, match="accepted: axial, coronal, sagittal"):
        plane(volume, "oblique")


def test_grey_windows_and_refuses_an_empty_window():
    picture = slice_picture(marked(), "axial", 9, window=(0, 200))
    assert picture.dtype == np.uint8
    assert sorted(set(picture.ravel().tolist())) == [0, 128]
    assert grey(np.array([[np.nan, 50.0]]), (0, 100)).tolist() == [[0, 128]]
    with pytest.raises(InputError, match="the lower first"):
        grey(np.zeros((2, 2)), (3, 3))


def test_errors_are_blue_below_white_at_and_red_above_zero():
    low, slightly_low, none, slightly_high, high = diverging(np.array([[-50, -1, 0, 1, 50]]), 10)[0].astype(int)
    assert low[2] > low[0]
    assert high[0] > high[2]
    assert none.tolist() == [250, 250, 250]
    assert slightly_low[2] > slightly_low[0]
    assert slightly_high[0] > slightly_high[2]
    assert (diverging(np.array([[-50.0]]), 10) == diverging(np.array([[-10.0]]), 10)).all()
    with pytest.raises(InputError, match="positive"):
        diverging(np.zeros((2, 2)), 0)


def test_the_colour_bar_shows_what_the_picture_uses():
    bar = colour_bar(101, 4)
    assert bar.shape == (101, 4, 3)
    assert (bar[0, 0] == diverging(np.array([[7.0]]), 7)[0, 0]).all()
    assert (bar[25, 2] == diverging(np.array([[3.5]]), 7)[0, 0]).all()
    assert (bar[-1, 3] == diverging(np.array([[-7.0]]), 7)[0, 0]).all()


def test_montage_places_grey_and_colour_in_cells():
    small, wide = np.zeros((2, 2), np.uint8), np.full((4, 6, 3), (1, 2, 3), np.uint8)
    sheet = montage([[small, wide], [wide]], gap_px=1)
    assert sheet.shape == (9, 13, 3)
    assert (sheet[1:3, 2:4] == 0).all()
    assert (sheet[0:4, 7:13] == (1, 2, 3)).all()
    assert (sheet[5:9, 0:6] == (1, 2, 3)).all()
    assert (sheet[4] == 255).all()
    with pytest.raises(InputError, match="at least one"):
        montage([[]])


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_png_files_give_back_pixels_and_text(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    made = Synthesis("pix2pix", weights_sha256="ab" * 32, version="0.1.0")
    path = tmp_path / "new" / "picture.png"
    write_png(pixels, path, text={**synthetic_text(made), "Title": "Größe λ"})
    with Image.open(path) as image:
        assert (np.asarray(image) == pixels).all()
        assert image.text["Synthetic"].startswith("yes")
        assert image.text["Weights"] == "sha256:" + "ab" * 32
        assert image.text["Title"] == "Größe λ"
    assert [p.name for p in path.parent.iterdir()] == ["picture.png"]


def test_png_text_is_in_text_chunks_and_absent_from_acquired_images():
    assert b"tEXtSynthetic\0yes" in encode_png(np.zeros((2, 2), np.uint8), text=synthetic_text(Synthesis("m")))
    assert synthetic_text(None) == {}
    assert b"tEXt" not in encode_png(np.zeros((2, 2), np.uint8))


def test_data_uri_holds_the_file():
    png = encode_png(np.full((3, 4), 9, np.uint8))
    head, _, body = data_uri(png).partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(body))) as image:
        assert image.size == (4, 3)


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint8), np.zeros(4, np.uint8), np.zeros((0, 2), np.uint8)],
    ids=["float", "four channels", "one axis", "empty"],
)
def test_what_is_no_picture_is_refused(pixels):
    with pytest.raises(InputError, match="uint8 of shape"):
        encode_png(pixels)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "picture.png").mkdir()
    (tmp_path / "picture.png" / "other").write_text("")
    with pytest.raises(OutputError, match="is a folder with something in it"):
        write_png(np.zeros((2, 2), np.uint8), tmp_path / "picture.png")
