"""Sets of images in one NumPy file: all comes back, nothing is pickled, what is no whole set is refused in words."""

from __future__ import annotations

import io
import json
import pickle
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medgan.errors import InputError
from medgan.formats import read
from medgan.formats.npz import StoredSet, may_be_set, read_marks, read_set, write_set
from medgan.inspect import inspect
from medgan.tables import findings_table
from medgan.volume import Synthesis

MADE = Synthesis("dcgan", "ab" * 32, "0.1.0", "glioma, “drawn”", seed=7, truncation=0.7)
MARKS = [replace(MADE, number=number, conditions={"class": "ö"}) for number in range(3)]


def a_set(shape: tuple[int, ...] = (3, 2, 5, 4), dtype: Any = np.float32, **more: Any) -> StoredSet:
    images = np.random.default_rng(0).normal(0, 50, shape).astype(dtype)
    return StoredSet(images, ["SYN-1", "SYN-2", "SYN-3"], MARKS, **more)


FULL: dict[str, Any] = {
    "patients": ["p", "p", "q"],
    "conditions": {"class": ["ö", "ö", "x"], "age": ["7", "70", "7.5"]},
    "spacing_mm": (0.7, 1.3),
    "units": ["HU", "label"],
    "modalities": ["CT", "SEG"],
}


def told(stored: StoredSet) -> list[Any]:
    return [
        list(stored.names), list(stored.patients), list(stored.synthetic), list(stored.spacing_mm), list(stored.units),
        list(stored.modalities), {name: list(values) for name, values in stored.conditions.items()},
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint8, np.bool_])
@pytest.mark.parametrize("shape", [(3, 2, 5, 4), (3, 1, 5, 4, 6)])
def test_a_set_comes_back_whole(tmp_path, shape, dtype):
    stored = a_set(shape, dtype, **(FULL if len(shape) == 4 else {}))
    back = read_set(write_set(stored, tmp_path / "set.npz"))
    assert back.images.dtype == dtype
    assert np.array_equal(back.images, stored.images)
    assert told(back) == told(stored)


def test_what_is_not_given_is_said_plainly(tmp_path):
    back = read_set(write_set(a_set(), tmp_path / "set.npz"))
    assert (back.spacing_mm, back.units, back.modalities) == ((1, 1), ("a.u.", "a.u."), ("", ""))
    assert list(back.patients) == list(back.names)


@settings(max_examples=30, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), min_size=3, max_size=3, unique=True)
)
def test_names_of_any_letters_come_back(tmp_path_factory, texts):
    stored = StoredSet(np.zeros((3, 1, 2, 2)), texts, [None] * 3, conditions={"said": texts})
    back = read_set(write_set(stored, tmp_path_factory.mktemp("set") / "set.npz"))
    assert [list(back.names), list(back.conditions["said"])] == [texts, texts]


def test_anybody_opens_it_without_pickle(tmp_path):
    path = write_set(a_set(**FULL), tmp_path / "set.npz")
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["images"].shape == (3, 2, 5, 4)
        assert arrays["names"].tolist() == ["SYN-1", "SYN-2", "SYN-3"]
        assert arrays["condition:class"].tolist() == ["ö", "ö", "x"]
        assert arrays["spacing_mm"].tolist() == [0.7, 1.3]
        mark = json.loads(str(arrays["synthetic"][2]))
    assert mark["SyntheticData"] is True
    assert (mark["Synthesis"]["Seed"], mark["Synthesis"]["Number"], mark["Synthesis"]["Truncation"]) == (7, 2, 0.7)


def test_equal_sets_are_equal_files_at_another_time(tmp_path, monkeypatch):
    first = write_set(a_set(), tmp_path / "a.npz").read_bytes()
    later = time.time() + 10**7
    monkeypatch.setattr(time, "time", lambda: later)
    assert write_set(a_set(), tmp_path / "b.npz").read_bytes() == first


def test_marks_are_read_without_the_images(tmp_path):
    some = replace(a_set(), synthetic=[MARKS[0], None, MARKS[2]])
    assert read_marks(write_set(some, tmp_path / "set.npz")) == [MARKS[0], None, MARKS[2]]
    np.savez(tmp_path / "bare.npz", images=np.zeros((4, 1, 2, 2)))
    assert read_marks(tmp_path / "bare.npz") == [None] * 4


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"names": ["a", "b"]}, "a set of 3 images has 2 names; give one for each"),
        ({"names": ["a", "b", "a"]}, "names an image twice"),
        ({"synthetic": MARKS[:2]}, "a set of 3 images has 2 synthetic"),
        ({"patients": ["p"]}, "has 1 patients"),
        ({"conditions": {"class": ["x"]}}, "has 1 condition:class"),
        ({"units": ["HU"]}, "a set of 2 channels has 1 units"),
        ({"modalities": ["CT"]}, "a set of 2 channels has 1 modalities"),
        ({"spacing_mm": (1, 1, 1)}, "a set of 2 axes has 3 spacing_mm"),
        ({"spacing_mm": (1, 0)}, "a spacing is in mm and above 0"),
        ({"images": np.zeros((3, 5, 4))}, r"seen float64 of shape \(3, 5, 4\)"),
        ({"images": np.zeros((0, 1, 5, 4))}, "seen float64 of shape"),
        ({"images": np.full((3, 2, 5, 4), np.nan)}, "120 of 120 voxels are NaN"),
        ({"images": np.zeros((3, 2, 5, 4), np.complex64)}, "seen complex64"),
    ],
)
def test_what_does_not_fit_is_refused(changes, why):
    with pytest.raises(InputError, match=why):
        replace(a_set(), **changes)


def test_arrays_of_other_sets_are_named(tmp_path):
    np.savez(tmp_path / "other.npz", train_images=np.zeros((3, 4)), labels=np.zeros(3))
    with pytest.raises(InputError, match=r"lacks the arrays images, names, .*\(seen: train_images, labels\)"):
        read_set(tmp_path / "other.npz")
    with pytest.raises(InputError, match="lacks the arrays images"):
        read_marks(tmp_path / "other.npz")
    assert not may_be_set(tmp_path / "other.npz")


class Trap:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was loaded",))


def test_pickles_are_never_loaded(tmp_path):
    arrays = {name: np.zeros(1) for name in ("patients", "spacing_mm", "units", "modalities", "synthetic")}
    np.savez(tmp_path / "a.npz", images=np.zeros((1, 1, 2, 2)), names=np.array([Trap()], object), **arrays)
    with pytest.raises(InputError, match="Python objects"):
        read_set(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(InputError, match=r"is damaged or no \.npz file"):
        read_set(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("name", "array", "why"),
    [
        ("names", np.zeros(3), "names is no list of texts"),
        ("names", np.array([["a", "b", "c"]]), "names is no list of texts"),
        ("spacing_mm", np.array(["1", "1"]), "spacing_mm is no list of numbers"),
        ("units", np.array("HU"), "units is no list of texts"),
    ],
)
def test_arrays_of_another_kind_are_refused(tmp_path, name, array, why):
    with np.load(write_set(a_set(), tmp_path / "set.npz")) as arrays:
        np.savez(tmp_path / "changed.npz", **{**arrays, name: array})
    with pytest.raises(InputError, match=f"changed.npz: {why}"):
        read_set(tmp_path / "changed.npz")


def test_an_array_that_claims_more_than_the_file_holds_takes_no_memory(tmp_path):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 1, 2, 2)})
    with np.load(write_set(a_set(), tmp_path / "set.npz")) as arrays:
        np.savez(tmp_path / "small.npz", **{name: arrays[name] for name in arrays if name != "images"})
    with zipfile.ZipFile(tmp_path / "small.npz", "a") as archive:
        archive.writestr("images.npy", stream.getvalue())
    with pytest.raises(InputError, match="images claims 17592186044416 bytes"):
        read_set(tmp_path / "small.npz")


def test_damage_is_refused_and_never_read_as_something_else(tmp_path):
    stored = a_set((3, 1, 5, 4))
    content, path = write_set(stored, tmp_path / "set.npz").read_bytes(), tmp_path / "damaged.npz"
    rng, messages = np.random.default_rng(0), []
    for number in range(300):
        damaged = bytearray(content[: int(rng.integers(1, len(content)))] if number % 3 == 0 else content)
        for place in rng.integers(0, len(damaged), 4):
            damaged[place] = int(rng.integers(256))
        path.write_bytes(damaged)
        try:
            assert np.array_equal(read_set(path).images, stored.images)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 200
    assert all(message.startswith(str(path)) and "\n" not in message for message in messages)


def test_missing_files_and_single_scans(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be opened"):
        read_set(tmp_path / "nowhere.npz")
    with pytest.raises(InputError, match="is a set of images; one by one they are read as NIfTI, DICOM or PNG"):
        read(write_set(a_set(), tmp_path / "set.npz"))


# --- inspect ----------------------------------------------------------------------------------------------------------


def test_inspect_tells_a_line_for_each_set(tmp_path):
    write_set(a_set(**FULL), tmp_path / "a.npz")
    write_set(replace(a_set((3, 1, 5, 4, 6)), synthetic=[None, None, MADE]), tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", labels=np.zeros(3))
    (tmp_path / "d.npz").write_text("no archive")
    flat, deep, broken = inspect(tmp_path)
    assert (flat.kind, flat.shape, flat.spacing_mm) == ("npz", (5, 4, 1), (0.7, 1.3, 1))
    assert (flat.synthetic, flat.description, flat.problems) == (True, "3 images of 2 channels", ())
    assert (flat.unit, flat.modality, flat.dtype) == ("HU, label", "CT, SEG", "float32")
    assert (deep.synthetic, deep.shape, deep.description) == (False, (5, 4, 6), "3 images of 1 channel")
    assert deep.problems == ("2 of 3 images have no mark of being synthetic",)
    assert broken.error.startswith("is damaged or no .npz file")
    assert "npz, synthetic" in findings_table([flat])
