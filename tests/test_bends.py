"""The study of non-rigid registration: its bends and errors are what it says, and its methods are wired rightly."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from medgan.phantom import head
from medgan.volume import Grid

TOOLS = Path(__file__).parents[1] / "tools"
GRID = Grid.regular((48, 60, 40), spacing_mm=(4, 4, 4), origin_mm=(-94, -118, -75), direction=np.eye(3))
FLIPPED = Grid.regular((48, 60, 40), spacing_mm=(4, 4, 4), origin_mm=(94, 118, -75), direction=np.diag([-1, -1, 1]))


@pytest.fixture(scope="module")
def bends() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOLS)
        import bends

        yield bends
    sys.modules.pop("bends")


def bent_mr(bends: ModuleType, grid: Grid) -> Any:
    """An MR and the same MR, bent: the easiest pair."""
    one = head(1, grid=grid)
    body = one.body.array > 0
    return bends.bent((one.mr, one.mr, body), body, 6.0, 80.0, 1)


def undone(bends: ModuleType, pair: Any) -> npt.NDArray[np.float64]:
    """The field that leads back, by repetition: u = −bend(x + u)."""
    at = bends.places(pair.fixed.grid)
    field: npt.NDArray[np.float64] = np.zeros_like(pair.bend)
    for _ in range(40):
        field = -bends.sampled(pair.bend, pair.fixed.grid, at + field)
    return np.asarray(field)


def test_bends_are_as_long_as_told_and_no_affine_explains_any_of_them(bends: ModuleType) -> None:
    pair = bent_mr(bends, GRID)
    inside, at = pair.bend[pair.inside], bends.places(GRID)[pair.inside]
    assert np.linalg.norm(inside, axis=1).mean() == pytest.approx(6.0)
    affine = np.linalg.lstsq(np.column_stack([at, np.ones(len(at))]), inside)[0]
    np.testing.assert_allclose(affine, 0, atol=1e-9)


def test_noise_is_alike_over_the_width_told(bends: ModuleType) -> None:
    grid = Grid.regular((64, 64, 64), spacing_mm=(4, 4, 4))
    field = bends.bend_of(grid, np.ones(grid.shape, dtype=bool), 1.0, 48.0, 0)
    apart = {mm: np.corrcoef(field[mm // 4 :].ravel(), field[: -(mm // 4)].ravel())[0, 1] for mm in (24, 48)}
    assert apart[24] == pytest.approx(0.5, abs=0.12)
    assert apart[48] < 0.2


def test_the_field_that_leads_back_has_no_error_and_brings_the_image_back(bends: ModuleType) -> None:
    pair = bent_mr(bends, FLIPPED)
    still, field = np.zeros_like(pair.bend), undone(bends, pair)
    assert bends.errors_mm(pair, still).mean() == pytest.approx(6.0, rel=0.1)
    assert bends.errors_mm(pair, field).mean() < 0.01
    assert bends.likeness(pair, field) > bends.likeness(pair, still) + 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "SimpleITK B-spline",
        "SimpleITK demons of edges",
        "elastix, bending energy × 50",
        "elastix, bending energy × 500",
    ],
)
def test_each_method_takes_a_bend_out_of_the_same_image(bends: ModuleType, name: str) -> None:
    """So a failure between modalities is not one of axes, signs or places."""
    if name.startswith("elastix"):
        pytest.importorskip("itk", reason="pip install 'medgan[elastix]'")
    pair = bent_mr(bends, FLIPPED)
    row = bends.measured(bends.Row("MR", 80.0, "", 6.0, 0, 0, 0, 0), name, pair, pair.body)
    assert row.after < 4.8
    assert row.nmi_after > bends.likeness(pair, np.zeros_like(pair.bend)) + 0.03


def test_the_table_has_means_and_the_worst(bends: ModuleType) -> None:
    one = bends.Row("MR ← CT", 60.0, "SimpleITK B-spline", 3.0, 2.0, 1.1, 1.2, 8.0)
    rows = [one, replace(one, after=4.0, nmi_after=1.4), replace(one, width_mm=0.0, before=0.0, is_refused=True)]
    assert bends.table(rows).splitlines()[2:] == [
        "| 2 MR ← CT | 3 mm over 60 mm | SimpleITK B-spline | 3.0 → 3.0 | 4.0 | 0 | 1.100 → 1.300 | 8 |",
        "| 1 MR ← CT | none | SimpleITK B-spline | 0.0 → 2.0 | 2.0 | 1 | 1.100 → 1.200 | 8 |",
    ]
