"""The cache: found by content, the same to the bit, mended when damaged, safe with company, and out of sight."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import medgan
from conftest import tiny_pair
from test_layers import PACKAGE, imports, room

from medgan import Grid, Volume, write
from medgan import cache as cache_of
from medgan.cache import FINGERPRINT, PREPARING, Entry, Store, digest, open_store
from medgan.cases import Case, read_cases
from medgan.data import Augment, Pair, Patches, Scan
from medgan.errors import ConfigError, InputError
from medgan.formats.dicom import Subject
from medgan.formats.sidecar import sidecar_path
from medgan.kept import read_pairs, read_scans
from medgan.lessons import read_ahead
from medgan.prep import Intensity, Prep
from medgan.processes import Place
from medgan.scans import read_pair
from medgan.train import train

PREP = Prep(a=Intensity(modality="MR", times_median=(0, 2)), b=Intensity(modality="CT", unit="HU", range=(-1000, 1000)))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test alone."""
    monkeypatch.setenv("MEDGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def case(tiny_cohort: Path) -> Case:
    return read_cases(tiny_cohort / "cases.csv")[0]


def kept(place: Path) -> list[Path]:
    return sorted(place.glob("*.safetensors"))


def one(case: Case, prep: Prep = PREP) -> Pair:
    return read_pairs([case], prep, "reading")[0]


def assert_same(first: Scan, second: Scan) -> None:
    """Every number, type and place; headers aside."""
    for field in fields(first):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if isinstance(a, Volume):
            assert (a.unit, a.modality, a.synthetic) == (b.unit, b.modality, b.synthetic)
            np.testing.assert_array_equal(a.grid.affine, b.grid.affine)
            a, b = a.array, b.array
        if isinstance(a, (np.ndarray, torch.Tensor)):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
        else:
            assert a == b


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are opened as scans from now on."""
    from importlib import import_module

    module, seen = import_module("medgan.scans"), []
    real: Callable[..., Volume] = module.read

    def read(path: Path, **options: object) -> Volume:
        seen.append(path.name)
        return real(path, **options)

    monkeypatch.setattr(module, "read", read)
    return seen


# --- the same numbers -------------------------------------------------------------------------------------------------


def test_what_comes_from_the_cache_is_what_was_prepared(
    case: Case, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh, first = read_pair(case, PREP), one(case)
    assert len(kept(place)) == 1
    seen = count_reads(monkeypatch)
    again = one(case)
    assert seen == []
    for pair in (first, again):
        assert_same(fresh, pair)
    monkeypatch.setenv("MEDGAN_CACHE", "off")
    assert_same(fresh, one(case))
    assert seen == ["p0_mr.nii.gz", "p0_ct.nii.gz"]


def test_scans_alone_are_kept_too(case: Case, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = {role: read_scans([case], role, PREP, "reading")[0] for role in "ab"}
    assert len(kept(place)) == 2
    seen = count_reads(monkeypatch)
    for role, scan in first.items():
        assert_same(scan, read_scans([case], role, PREP, "reading")[0])
    assert seen == []


@pytest.mark.parametrize("overrides", [[], ["patch=[8, 16, 8]"], ["patch=[16, 1, 8]", "neighbours=1"]])
def test_a_training_is_the_same_to_the_bit_with_and_without(
    tiny_cohort: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    """No cache, an empty one, and a full one: weights and validation scores."""
    overrides = [*overrides, "train.steps=4", "train.validate_every=4", "model.generator.name=resnet_6blocks"]
    runs = []
    for name in ("off", "cold", "warm"):
        monkeypatch.setenv("MEDGAN_CACHE", "off" if name == "off" else str(place))
        runs.append(train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / name, device="cpu"))
        assert len(kept(place)) == (0 if name == "off" else 4)
    assert len({run.weights_path.read_bytes() for run in runs}) == 1
    assert runs[0].best == runs[1].best == runs[2].best
    assert runs[0].best["mae"] is not None


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, ">i2", ">f4"])
def test_all_kinds_of_voxels_are_kept(tmp_path: Path, kind: type, place: Path) -> None:
    grid = Grid.regular((6, 5, 4), spacing_mm=(1, 2, 3))
    values = np.arange(120).reshape(6, 5, 4).astype(kind)
    from importlib import import_module

    module = import_module("medgan.kept")
    scan = Scan("p", torch.zeros(1, 6, 5, 4), values > 10, Volume(values, grid, "HU", "CT"), missing=(0,))
    case, entry = Case("p", "p", "train", {}), module._packed(scan)
    again = open_store().recall("0" * 64, lambda: entry)
    back = Scan(**module._unpacked(case, again))
    np.testing.assert_array_equal(back.source.array, values)
    assert back.source.array.dtype == values.dtype.newbyteorder("=")
    assert back.missing == (0,)


def test_it_is_mapped_and_a_patch_touches_its_box_alone(case: Case, place: Path) -> None:
    if not Path("/proc/self/maps").exists():
        pytest.skip("the system does not tell what is mapped")
    one(case)
    pair = one(case)
    assert kept(place)[0].name in Path("/proc/self/maps").read_text()
    assert pair.x[0, :, :, 3].is_contiguous()  # an axial slice is one piece of the file
    patches = Patches([pair], (8, 8, 1), Augment(), seed=0)
    before = kept(place)[0].read_bytes()
    for k in range(10):
        patches[k]["a"].fill_(7)
    assert kept(place)[0].read_bytes() == before
    assert pair.x.max() <= 1


# --- by content -------------------------------------------------------------------------------------------------------


def test_the_key_is_content_not_place_or_time(case: Case, place: Path, tmp_path: Path) -> None:
    one(case)
    moved = {}
    for role, path in case.images.items():
        moved[role] = tmp_path / "elsewhere" / f"other_{role}.nii.gz"
        moved[role].parent.mkdir(exist_ok=True)
        shutil.copyfile(path, moved[role])
        shutil.copyfile(sidecar_path(path), sidecar_path(moved[role]))
        os.utime(moved[role], (1, 1))
    again = one(Case("another name", "somebody", "val", moved))
    assert len(kept(place)) == 1
    assert again.name == "another name"


def test_other_content_is_another_key(tmp_path: Path, place: Path) -> None:
    mr, ct = tiny_pair(0)
    images = {"a": write(mr, tmp_path / "a.nii.gz"), "b": write(ct, tmp_path / "b.nii.gz")}
    case = Case("p", "p", "train", images)
    one(case)
    before = images["a"].stat()
    mr.array[3, 3, 3] += 1
    write(mr, images["a"])
    os.utime(images["a"], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert float(one(case).source.array[3, 3, 3]) == mr.array[3, 3, 3]
    assert len(kept(place)) == 2
    sidecar = tmp_path / "a.json"  # says unit and modality
    sidecar.write_text(sidecar.read_text().replace('"MR"', '"CT"'))
    with pytest.raises(InputError, match="its modality is CT"):
        one(case)


@pytest.mark.parametrize(
    ("change", "entries"),
    [
        ({"spacing_mm": (3, 3, 5)}, 2),
        ({"axes": "PLS"}, 2),
        ({"a": Intensity(modality="MR", times_median=(0, 3))}, 2),
        ({"b": Intensity(modality="CT", unit="HU", range=(-500, 1000))}, 2),
        ({}, 1),
    ],
)
def test_other_settings_are_another_key(case: Case, place: Path, change: dict[str, object], entries: int) -> None:
    one(case)
    assert_same(read_pair(case, PREP.model_copy(update=change)), one(case, PREP.model_copy(update=change)))
    assert len(kept(place)) == entries


def test_a_mask_and_a_contrast_belong_to_the_key_and_dropout_does_not(case: Case, place: Path, tmp_path: Path) -> None:
    mr = tiny_pair(0)[0]
    mask = write(mr.with_array((mr.array > 100).astype(np.uint8), unit="label"), tmp_path / "mask.nii.gz")
    t2 = write(mr.with_array(mr.array[::-1].copy()), tmp_path / "t2.nii.gz")
    one(case)
    masked = replace(case, images={**case.images, "mask": mask})
    assert one(masked).mask.sum() == (mr.array > 100).sum()
    two = PREP.model_copy(update={"contrasts": {"t2": PREP.a}, "contrast_dropout": 0.2})
    with_t2 = replace(case, images={**case.images, "t2": t2})
    assert one(with_t2, two).x.shape[0] == 2
    assert one(case, two).missing == (1,)
    assert len(kept(place)) == 4
    one(with_t2, two.model_copy(update={"contrast_dropout": 0.5}))
    one(with_t2)  # a column that the contract does not name
    assert len(kept(place)) == 4


def test_a_dicom_series_is_its_files_whatever_they_are_called(tmp_path: Path) -> None:
    mr, _ = tiny_pair(0)
    folder = write(mr, tmp_path / "series", subject=Subject("P1", "Doe^Jane"))
    before = digest(folder)
    for number, file in enumerate(sorted(folder.iterdir(), reverse=True)):
        file.rename(folder / f"renamed{number:03}.bin")
    assert digest(folder) == before
    with next(folder.iterdir()).open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\x01")
    assert digest(folder) != before


def test_no_name_of_a_person_is_in_it(tmp_path: Path, place: Path) -> None:
    mr, ct = tiny_pair(0)
    images = {
        role: write(volume, tmp_path / role, subject=Subject("SECRET7", "Doe^Jane"))
        for role, volume in {"a": mr, "b": ct}.items()
    }
    case = Case("secret_case", "SECRET7", "train", images)
    assert b"SECRET7" in next(images["a"].iterdir()).read_bytes()
    assert_same(read_pair(case, PREP), one(case))
    content = kept(place)[0].read_bytes().lower()
    assert not any(word in content for word in (b"secret", b"doe", str(tmp_path).encode()))


def test_other_code_is_another_key(case: Case, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import import_module

    one(case)
    monkeypatch.setattr(import_module("medgan.kept"), "code_digest", lambda: "of tomorrow")
    one(case)
    assert len(kept(place)) == 2


def test_all_code_that_makes_voxels_is_in_the_key() -> None:
    """Whatever `kept` reaches by imports, in folders as well: else what was mended leaves old volumes in the cache."""
    no_voxels = {
        "atomic",
        "cache",
        "cases",
        "declared",
        "errors",
        "imageset",
        "names",
        "processes",
        "progress",
        "settings",
    }
    reached, new = set(), {PACKAGE / "kept.py"}
    while new:
        reached |= new
        new = {file for path in new for name in imports(path) for file in _files_of(name)} - reached
    named = {path for pattern in PREPARING for path in PACKAGE.glob(pattern)}
    assert {path for path in reached if room(path) not in no_voxels} <= named
    assert PACKAGE / "formats" / "nifti" / "reading.py" in reached


def _files_of(name: str) -> list[Path]:
    """Of a module of medgan, or of a name in one."""
    place = PACKAGE.joinpath(*name.split(".")[1:]) if name.startswith("medgan.") else None
    places = [] if place is None else [place, place.parent]
    tried = [file for one in places for file in (one.with_suffix(".py"), one / "__init__.py")]
    return [file for file in tried if file.exists() and file != PACKAGE / "__init__.py"]


# --- damage and company -----------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def another(path: Path) -> None:
    Store(path.parent, 1).recall("f" * 64, lambda: Entry({"x": torch.zeros(3)}, {}))
    (path.parent / f"{'f' * 64}.safetensors").replace(path)


@pytest.mark.parametrize("damage", [cut, flip, zeros, nothing, another])
def test_what_is_damaged_is_made_anew(case: Case, place: Path, damage: Callable[[Path], None]) -> None:
    fresh, (path,) = one(case), kept(place) or [Path()]
    fresh = read_pair(case, PREP)
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole)
    damage(path)
    assert_same(fresh, one(case))
    assert path.read_bytes() == whole


def prepared(table: Path) -> str:
    """A hash of what a process of its own sees."""
    torch.set_num_threads(1)
    pairs = read_pairs(read_cases(table), PREP, "reading")
    return hashlib.sha256(b"".join(p.x.numpy().tobytes() + p.b.numpy().tobytes() for p in pairs)).hexdigest()


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
def test_many_at_once_write_whole_entries(tiny_cohort: Path, place: Path) -> None:
    with get_context("fork").Pool(4) as pool:
        seen = pool.map(prepared, [tiny_cohort / "cases.csv"] * 8, chunksize=1)
    assert len(set(seen)) == 1
    assert seen[0] == prepared(tiny_cohort / "cases.csv")
    assert len(kept(place)) == 5
    assert not list(place.glob(".*.part.*"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_place_that_cannot_be_written_is_done_without(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MEDGAN_CACHE", str(tmp_path / "file" / "cache"))
    again = Case("p9", "p9", "train", case.images)
    for pair in read_pairs([case, again], PREP, "reading", workers):
        assert torch.equal(pair.x, read_pair(case, PREP).x)
    assert capsys.readouterr().err.count("stay in memory") == 1


# --- several processes ------------------------------------------------------------------------------------------------


def test_several_processes_prepare_the_same_bytes(
    tiny_cohort: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = read_cases(tiny_cohort / "cases.csv")
    together = read_pairs(cases, PREP, "reading", 3)
    assert "5 more" in capsys.readouterr().err
    made = {path.name: path.read_bytes() for path in kept(place)}
    monkeypatch.setenv("MEDGAN_CACHE", str(tmp_path / "other"))
    alone = read_pairs(cases, PREP, "reading")
    for one_way, other_way in zip(together, alone, strict=True):
        assert_same(one_way, other_way)
    assert made == {path.name: path.read_bytes() for path in kept(tmp_path / "other")}


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
def test_several_processes_are_others_than_this_one(
    tiny_cohort: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cases, seen = read_cases(tiny_cohort / "cases.csv"), count_reads(monkeypatch)
    read_pairs(cases, PREP, "reading", 2)
    assert len(kept(place)) == 5
    assert seen == []
    capsys.readouterr()
    read_pairs(cases, PREP, "reading", 2)
    assert capsys.readouterr().err == ""


def test_several_processes_refuse_what_one_refuses(tiny_cohort: Path, place: Path, tmp_path: Path) -> None:
    """The first bad case in the order of the table; the good ones are kept."""
    (tmp_path / "a.nii.gz").write_bytes(b"no scan")
    cases = read_cases(tiny_cohort / "cases.csv")
    bad = [replace(case, images={"a": tmp_path / name, "b": case.images["b"]}) for case, name in zip(
        cases[1:3], ("a.nii.gz", "none.nii.gz"), strict=True
    )]  # fmt: skip
    with pytest.raises(InputError, match=r"a\.nii\.gz: "):
        read_pairs([cases[0], *bad, *cases[3:]], PREP, "reading", 2)
    assert len(kept(place)) == 3


def test_processes_of_one_job_begin_at_different_cases(
    tiny_cohort: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what the others have made is not made again."""
    monkeypatch.setattr("medgan.kept.place", lambda: Place(rank=1, count=2))
    cases, seen = read_cases(tiny_cohort / "cases.csv"), count_reads(monkeypatch)
    read_pairs(cases[3:], PREP, "reading")
    assert seen == ["p4_mr.nii.gz", "p4_ct.nii.gz", "p3_mr.nii.gz", "p3_ct.nii.gz"]
    pairs = read_pairs(cases, PREP, "reading")
    assert [name for name in seen[4:] if "mr" in name] == ["p2_mr.nii.gz", "p0_mr.nii.gz", "p1_mr.nii.gz"]
    assert [pair.name for pair in pairs] == ["p0", "p1", "p2", "p3", "p4"]


def test_reading_ahead_leaves_nothing_to_prepare(tiny_cohort: Path, place: Path, tmp_path: Path) -> None:
    """Of a training in pairs, and one without: neither a case nor a fingerprint is added."""
    without = ["model.name=cyclegan", "augment.gamma=0", "augment.noise=0"]
    for overrides in ([], without):
        read_ahead(tiny_cohort / "tiny.yaml", overrides)
    ahead = {path.name: path.stat().st_ino for path in place.iterdir()}
    assert sum(name.endswith(FINGERPRINT) for name in ahead) == 10
    for number, overrides in enumerate(([], without)):
        steps = ["train.steps=1", "train.validate_every=1", *overrides]
        train(tiny_cohort / "tiny.yaml", steps, out=tmp_path / str(number), device="cpu")
    assert {path.name: path.stat().st_ino for path in place.iterdir()} == ahead


# --- the folder -------------------------------------------------------------------------------------------------------


def test_it_is_for_its_owner_alone_and_says_where_it_is(
    case: Case, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one(case)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE(kept(place)[0].stat().st_mode) == 0o600
    said = capsys.readouterr().err
    assert str(place) in said.replace("\n", "")
    assert "medgan cache --clear" in said
    one(case)
    assert capsys.readouterr().err == ""


def test_the_command_tells_and_clears_and_touches_nothing_else(tiny_cohort: Path, place: Path) -> None:
    read_pairs(read_cases(tiny_cohort / "cases.csv"), PREP, "reading")
    (place / "mine.safetensors").write_text("not the cache's")
    (place / ".0123abcd.part.x.safetensors").write_text("half")
    told = medgan("cache")
    assert told.code == 0
    assert told.out.startswith(f"{place}: 5 prepared cases, 0.00 GiB of at most 20")
    assert "5 were deleted" in medgan("cache", "--clear").out
    assert [path.name for path in place.iterdir()] == ["mine.safetensors"]
    found = cache_of()
    assert (found.folder, found.entries, found.size_bytes) == (place, 0, 0)


def test_what_was_not_used_for_longest_makes_room(place: Path) -> None:
    store = Store(place, 3000)
    keys = [str(number) * 64 for number in range(5)]
    for age, key in enumerate(keys):
        store.recall(key, lambda: Entry({"x": torch.zeros(150)}, {}))
        then = time.time() - 10_000 + 100 * age
        os.utime(place / f"{key}.safetensors", (then, then))
    store.recall(keys[0], pytest.fail)  # used again now
    store.trim()
    left = {path.stem[0] for path in kept(place)}
    assert sum(store.entries().values()) <= 3000
    assert left == {"0", "4", "3"}


def test_what_is_in_use_stays_though_it_is_too_much(case: Case, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDGAN_CACHE_GIB", "0")
    one(case)
    assert len(kept(place)) == 1


def test_it_can_be_switched_off(case: Case, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MEDGAN_CACHE", "off")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one(case)
    assert cache_of().folder is None
    assert medgan("cache", "--clear").out.startswith("no cache")
    assert not list(tmp_path.iterdir())
    monkeypatch.delenv("MEDGAN_CACHE")
    if sys.platform == "linux":
        assert open_store().folder == tmp_path / "medgan"


@pytest.mark.parametrize("size", ["much", "-1", "nan", "inf"])
def test_a_size_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    monkeypatch.setenv("MEDGAN_CACHE_GIB", size)
    with pytest.raises(ConfigError, match="MEDGAN_CACHE_GIB"):
        open_store()


def test_errors_are_those_of_reading(tmp_path: Path, place: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"no scan")
    case = Case("p", "p", "train", {"a": tmp_path / "a.nii.gz", "b": tmp_path / "a.nii.gz"})
    with pytest.raises(InputError, match=r"a\.nii\.gz"):
        one(case)
    assert kept(place) == []
    with pytest.raises(InputError, match="cannot be read"):
        digest(tmp_path / "none.nii.gz")


def test_a_table_of_thousands_is_hashed_once_an_image(
    tiny_cohort: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is hashed but what is used: one pass over each image."""
    from importlib import import_module

    module, seen = import_module("medgan.cache"), []
    real = module._hash
    monkeypatch.setattr(module, "_hash", lambda path: seen.append(path.name) or real(path))
    read_pairs(read_cases(tiny_cohort / "cases.csv"), PREP, "reading")
    images = [Path(row[role]).name for row in csv.DictReader((tiny_cohort / "cases.csv").open()) for role in "ab"]
    assert sorted(name for name in seen if name.endswith(".gz")) == sorted(images)
