"""Patches: the same whenever and wherever they are drawn."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medgan import Grid, Volume, write
from medgan.cases import Case, read_cases
from medgan.data import (
    Augment,
    Pair,
    Patches,
    Scan,
    UnpairedPatches,
    batches,
    flat_axis,
    read_pair,
    read_pairs,
    read_scan,
    read_scans,
)
from medgan.errors import ConfigError, GeometryError
from medgan.prep import Intensity, Prep

PREP = Prep(a=Intensity(modality="MR", times_median=(0, 2)), b=Intensity(modality="CT", unit="HU", range=(-1000, 1000)))
PLAIN = Augment(flip_axes=(), rotate_deg=0, scale=0, gamma=0, noise=0)


@pytest.fixture(scope="module")
def pairs(tiny_cohort: Path) -> list[Pair]:
    return read_pairs(read_cases(tiny_cohort / "cases.csv", split="train"), PREP, "reading")


@pytest.mark.parametrize("patch", [(16, 16, 1), (16, 1, 4), (8, 8, 4)])
def test_an_item_depends_on_seed_and_number_alone(pairs: list[Pair], patch: tuple[int, int, int]) -> None:
    first, second = (Patches(pairs, patch, Augment(), seed=3) for _ in range(2))
    wanted = first[17]
    for other in (2, 40, 5):
        second[other]
    again = second[17]
    assert all(torch.equal(wanted[key], again[key]) for key in ("a", "b"))
    assert not torch.equal(Patches(pairs, patch, Augment(), seed=4)[17]["a"], wanted["a"])
    assert type(wanted["a"]) is torch.Tensor
    assert wanted["a"].shape == (1, *(side for side in patch if side > 1))
    assert wanted["a"].min() >= -1
    assert wanted["a"].max() <= 1


def test_workers_and_the_starting_step_change_nothing(pairs: list[Pair]) -> None:
    patches = Patches(pairs, (16, 16, 1), Augment(), seed=1)
    whole = [batch.a for batch in batches(patches, batch=2, start=0, stop=6)]
    late = [batch.a for batch in batches(patches, batch=2, start=4, stop=6)]
    parallel = [batch.a for batch in batches(patches, batch=2, start=0, stop=6, workers=2)]
    torch.testing.assert_close(late, whole[4:], rtol=0, atol=0)
    torch.testing.assert_close(parallel, whole, rtol=0, atol=0)


def test_processes_share_every_turn_of_a_step(pairs: list[Pair]) -> None:
    """What both see in a turn is what one alone would see in it."""
    patches = Patches(pairs, (16, 16, 1), Augment(), seed=1)
    how: dict[str, int] = {"batch": 4, "start": 1, "stop": 3, "turns": 3}
    alone = [batch.split(3) for batch in batches(patches, **how)]
    shared = zip(*(batches(patches, **how, part=(rank, 2)) for rank in range(2)), strict=True)
    together = [zip(*(batch.split(3) for batch in ranks), strict=True) for ranks in shared]
    for turns, parts in zip(alone, together, strict=True):
        for turn, ranks in zip(turns, parts, strict=True):
            torch.testing.assert_close(torch.cat([rank.images() for rank in ranks]), turn.images(), rtol=0, atol=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_time_that_batches_are_waited_for_is_told(
    pairs: list[Pair], monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """What an item costs is waited for; what the caller does in between is not."""
    real = Patches.__getitem__

    def slow(self: Patches, index: int) -> dict[str, torch.Tensor]:
        time.sleep(0.02)
        return real(self, index)

    monkeypatch.setattr(Patches, "__getitem__", slow)
    stream = batches(Patches(pairs, (16, 16, 1), PLAIN, seed=1), batch=2, start=0, stop=5, workers=workers)
    assert stream.waited_s == 0
    seen, began = 0, time.perf_counter()
    for _ in stream:
        seen += 1
        time.sleep(0.08)
    assert seen == 5
    assert time.perf_counter() - began - stream.waited_s > 5 * 0.08
    if workers == 0:
        assert stream.waited_s > 5 * 2 * 0.02


def test_geometry_moves_source_and_target_alike(pairs: list[Pair]) -> None:
    """With the same image in both roles, whatever is done to one is done to the other."""
    twins = [replace(pair, b=pair.x) for pair in pairs]
    patches = Patches(twins, (16, 16, 1), Augment(rotate_deg=25, scale=0.2, gamma=0, noise=0), seed=0)
    items = [patches[k] for k in range(8)]
    assert all(torch.equal(item["a"], item["b"]) for item in items)


def test_intensity_changes_leave_the_target_alone(pairs: list[Pair]) -> None:
    plain = Patches(pairs, (16, 16, 1), PLAIN, seed=0)
    noisy = Patches(pairs, (16, 16, 1), Augment(flip_axes=(), rotate_deg=0, scale=0, gamma=0.3, noise=0.1), seed=0)
    assert all(torch.equal(plain[k]["b"], noisy[k]["b"]) for k in range(6))
    assert any(not torch.equal(plain[k]["a"], noisy[k]["a"]) for k in range(6))


def test_plain_patches_are_pieces_of_the_volume(pairs: list[Pair]) -> None:
    patches = Patches(pairs, (4, 4, 2), PLAIN, seed=0)
    for item in (patches[k] for k in range(10)):
        windows = [pair.b[0].unfold(0, 4, 1).unfold(1, 4, 1).unfold(2, 2, 1) for pair in pairs]
        hits = [bool((w == item["b"][0]).all(dim=(3, 4, 5)).any()) for w in windows]
        leaves_the_volume = bool((item["b"] == -1).any())
        assert any(hits) or leaves_the_volume


def test_patches_are_centred_in_the_body(pairs: list[Pair]) -> None:
    patches = Patches(pairs, (1, 4, 4), PLAIN, seed=0)
    centres = torch.stack([patches[k]["b"][0, 2, 2] for k in range(40)])
    assert (centres > -1).all()


def test_every_case_comes_once_before_any_comes_again(pairs: list[Pair]) -> None:
    flags = [replace(pair, x=torch.full_like(pair.x, k / 10)) for k, pair in enumerate(pairs)]
    patches = Patches(flags, (2, 2, 1), PLAIN, seed=5)
    seen = [round(float(patches[k]["a"].max()) * 10) for k in range(12)]
    assert all(sorted(seen[k : k + 3]) == [0, 1, 2] for k in range(0, 12, 3))


def test_two_flat_axes_are_refused() -> None:
    assert flat_axis((8, 8, 8)) is None
    with pytest.raises(ConfigError, match="patch"):
        flat_axis((8, 1, 1))


def test_a_pair_on_two_grids_is_refused(tmp_path: Path) -> None:
    grid = Grid.regular((6, 6, 6), spacing_mm=(2, 2, 2))
    moved = Grid.regular((6, 6, 6), spacing_mm=(2, 2, 2), origin_mm=(0, 0, 1))
    mr = np.arange(216, dtype=np.int16).reshape(6, 6, 6)
    write(Volume(mr, grid, "a.u.", "MR"), tmp_path / "a.nii.gz")
    write(Volume(mr - 1000, moved, "HU", "CT"), tmp_path / "b.nii.gz")
    case = Case("p1", "p1", "train", {"a": tmp_path / "a.nii.gz", "b": tmp_path / "b.nii.gz"})
    with pytest.raises(GeometryError, match="p1, b"):
        read_pair(case, PREP)


def test_a_pair_in_two_axis_orders_is_one_grid(tmp_path: Path) -> None:
    grid = Grid.regular((6, 5, 4), spacing_mm=(2, 2, 3))
    values = np.arange(120, dtype=np.int16).reshape(6, 5, 4)
    write(Volume(values, grid, "a.u.", "MR"), tmp_path / "a.nii.gz")
    write(Volume(values, grid, "HU", "CT").reorient("PSL"), tmp_path / "b.nii.gz")
    case = Case("p1", "p1", "train", {"a": tmp_path / "a.nii.gz", "b": tmp_path / "b.nii.gz"})
    pair = read_pair(case, PREP)
    np.testing.assert_array_equal(pair.target.array, values)
    np.testing.assert_allclose(pair.b[0].numpy(), values / 1000, atol=1e-6)


# --- without pairs ----------------------------------------------------------------------------------------------------


def numbered(count: int, first: float) -> list[Scan]:
    """Scans that are told apart by their one value."""
    body, source = np.ones((4, 4, 4), dtype=bool), Volume(np.zeros((4, 4, 4)), Grid.regular((4, 4, 4)))
    return [Scan(f"s{k}", torch.full((1, 4, 4, 4), first + k / 100), body, source) for k in range(count)]


def test_unpaired_scans_come_together_by_chance() -> None:
    """Each set once through before again, in orders that have nothing to do with one another."""
    patches = UnpairedPatches(numbered(5, 0.0), numbered(5, 0.5), (2, 2, 1), PLAIN, seed=1)
    met = [tuple(round(float(patches[k][role].max()) * 100) % 50 for role in "ab") for k in range(500)]
    for side in (0, 1):
        assert all(sorted(pair[side] for pair in met[k : k + 5]) == [0, 1, 2, 3, 4] for k in range(0, 500, 5))
    counts = [met.count((a, b)) for a in range(5) for b in range(5)]
    assert min(counts) > 4  # of 20 expected
    assert sum(a == b for a, b in met) < 150  # of 100 expected


def test_unpaired_patches_are_cut_at_places_of_their_own(pairs: list[Pair]) -> None:
    scans = [Scan(p.name, p.x, p.body, p.source) for p in pairs[:1]]
    patches = UnpairedPatches(scans, scans, (6, 6, 1), PLAIN, seed=0)
    items = [patches[k] for k in range(8)]
    assert sum(torch.equal(item["a"], item["b"]) for item in items) < 2
    again = UnpairedPatches(scans, scans, (6, 6, 1), PLAIN, seed=0)
    assert all(torch.equal(again[k][role], items[k][role]) for k in (5, 2) for role in "ab")


def test_the_sets_may_differ_in_size_and_grids(tiny_cohort: Path) -> None:
    cases = read_cases(tiny_cohort / "cases.csv", split="train")
    only_a = [Case("x", "x", "train", {"a": cases[0].images["a"]})]
    a, b = (read_scans([*only_a, *cases], role, PREP, "reading") for role in "ab")
    assert [scan.name for scan in a] == ["x", *(case.name for case in cases)]
    assert [scan.name for scan in b] == [case.name for case in cases]
    item = UnpairedPatches(a, b, (16, 16, 1), Augment(), seed=0)[3]
    assert item["a"].shape == item["b"].shape == (1, 16, 16)


def test_a_scan_of_b_has_the_range_of_b(tiny_cohort: Path) -> None:
    (case, *_) = read_cases(tiny_cohort / "cases.csv", split="train")
    pair, scan = read_pair(case, PREP), read_scan(case, "b", PREP)
    torch.testing.assert_close(scan.x, pair.b, rtol=0, atol=0)
    assert scan.source.unit == "HU"
