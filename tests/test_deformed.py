"""Bent registrations: where images go, what is refused, and that elastix and transformix agree with what is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from scipy import ndimage
from typer.testing import CliRunner

from medgan import Grid, Volume, read, write
from medgan.cases import Case, write_cases
from medgan.cli import app
from medgan.errors import GeometryError, InputError
from medgan.phantom import head
from medgan.prepare.plan import Registering
from medgan.registration import Deformation, Registration, deform
from medgan.registration.deformed import _refuse_wrong, _volumes

Vectors = npt.NDArray[np.float32]
GRID = Grid.regular((48, 60, 40), spacing_mm=(4, 4, 4), origin_mm=(-94, -118, -75))
TURNED = Grid.regular((48, 60, 40), spacing_mm=(4, 4, 4), origin_mm=(94, 118, -75), direction=np.diag([-1, -1, 1]))
QUICK = {"MaximumNumberOfIterations": 60}


def affine_field(grid: Grid, matrix: npt.NDArray[np.float64]) -> Vectors:
    """Vectors that do what a matrix does."""
    at = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    return np.asarray(at @ matrix[:3, :3].T + matrix[:3, 3] - at, dtype=np.float32)


def wave(at: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A bend of up to 6 mm, alike over 80 mm, at world positions."""
    phases = 2 * np.pi * at / 160
    return np.stack([6 * np.sin(phases[..., 1]), 5 * np.sin(phases[..., 2] + 1), 6 * np.sin(phases[..., 0] + 2)], -1)


def bent(volume: Volume) -> Volume:
    """The image whose place x shows what was at x + wave(x)."""
    at = volume.grid.to_world(np.moveaxis(np.indices(volume.grid.shape), 0, -1))
    index = np.moveaxis(volume.grid.to_index(at + wave(at)), -1, 0)
    return volume.with_array(ndimage.map_coordinates(volume.array.astype(np.float32), index, order=1, mode="nearest"))


def left_over(found: Deformation, body: Volume) -> npt.NDArray[np.float64]:
    """Distances in mm between each place of the body and the one that is laid upon it."""
    at = body.grid.to_world(np.argwhere(body.array > 0)).astype(np.float64)
    there = at + found.at(at)
    return np.asarray(np.linalg.norm(there + wave(there) - at, axis=-1))


def test_vectors_of_a_matrix_do_what_the_matrix_does() -> None:
    one = head(3, grid=GRID)
    matrix = np.eye(4)
    matrix[:3] = [[1.05, 0.1, 0, 3], [-0.08, 0.97, 0, -5], [0, 0.02, 1, 7]]
    onto = Grid.regular((50, 40, 30), spacing_mm=(3, 4, 5), origin_mm=(70, 75, -65), direction=TURNED.direction)
    first = np.eye(4)
    first[:3, 3] = [4, -2, 9]
    bend = Deformation(Registration(first), affine_field(GRID, matrix), GRID)
    expected = Registration(first @ matrix).moved(one.ct, onto, outside=-1000).array
    found = bend.moved(one.ct, onto, outside=-1000).array
    np.testing.assert_allclose(found, expected, atol=1.0)  # of 3000 HU
    assert (expected > -500).mean() > 0.3


@pytest.mark.parametrize("order", [0, 1])
def test_no_bend_is_the_registration_alone(order: int) -> None:
    one = head(3, grid=GRID)
    shift = np.eye(4)
    shift[:3, 3] = [7, -3, 2]
    start = Registration(shift)
    still = Deformation(start, np.zeros((2, 2, 2, 3), np.float32), Grid.regular((2, 2, 2), spacing_mm=(90, 90, 90)))
    expected = start.moved(one.ct, TURNED, order=order, outside=-7)
    found = still.moved(one.ct, TURNED, order=order, outside=-7)
    assert found.array.dtype == expected.array.dtype
    np.testing.assert_allclose(found.array, expected.array, atol=0.01)


def test_volumes_are_determinants_on_any_grid() -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = [[1.2, 0.1, 0], [0.3, 0.9, 0.2], [0, -0.1, 0.7]]
    for grid in (GRID, TURNED):
        volumes = _volumes(affine_field(grid, matrix), grid)
        np.testing.assert_allclose(volumes, np.linalg.det(matrix[:3, :3]), rtol=1e-4)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"jacobian": (-0.2, 1.5)}, "tissue is folded"),
        ({"nmi_after": 1.05}, r"fell from 1\.100 to 1\.050"),
    ],
)
def test_what_no_tissue_does_is_refused(changed: dict[str, Any], told: str) -> None:
    good = Deformation(Registration(np.eye(4)), np.zeros((2, 2, 2, 3), np.float32), GRID, (0.8, 1.2), 1.2)
    _refuse_wrong(good, 1.1)
    with pytest.raises(GeometryError, match=told):
        _refuse_wrong(replace(good, **changed), 1.1)


def test_parameters_of_elastix_are_for_bending_alone() -> None:
    assert Registering(kind="deformable", elastix={"Metric1Weight": 50}).elastix == {"Metric1Weight": 50}
    with pytest.raises(ValueError, match="kind deformable, and this is rigid"):
        Registering(elastix={"Metric1Weight": 50})


# --- with elastix -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def elastix() -> None:
    pytest.importorskip("itk", reason="pip install 'medgan[elastix]'")


@pytest.fixture(scope="module")
def mended(elastix: None) -> Callable[[Grid], tuple[Volume, Deformation]]:
    """A phantom and what was found for it, bent; each grid once."""
    known: dict[int, tuple[Volume, Deformation]] = {}

    def of(grid: Grid) -> tuple[Volume, Deformation]:
        if id(grid) not in known:
            one = head(1, grid=grid)
            known[id(grid)] = one.body, deform(one.mr, bent(one.mr), Registration(np.eye(4)), elastix=QUICK)
        return known[id(grid)]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("grid", [GRID, TURNED], ids=["RAS", "LPS"])
def test_a_bend_is_taken_out(mended: Callable[[Grid], tuple[Volume, Deformation]], grid: Grid) -> None:
    body, found = mended(grid)
    still = replace(found, vectors_mm=np.zeros_like(found.vectors_mm))
    assert left_over(still, body).mean() > 5
    assert left_over(found, body).mean() < 2.5
    assert 0.3 < found.jacobian[0] < 1 < found.jacobian[1] < 3


@pytest.mark.slow
def test_transformix_says_the_same(mended: Callable[[Grid], tuple[Volume, Deformation]], tmp_path: Path) -> None:
    """The maps that are kept do what the vectors do: places of the body, by transformix itself."""
    import itk

    body, found = mended(TURNED)
    told = json.loads(json.dumps(found.to_json()))["elastix"]
    maps = itk.ParameterObject.New()
    for one in told:
        maps.AddParameterMap(one)
    at = body.grid.to_world(np.argwhere(body.array > 0)[::500])
    points = tmp_path / "points.txt"
    lps = at * [-1, -1, 1]
    points.write_text("\n".join(["point", str(len(at)), *(" ".join(f"{x:.9f}" for x in row) for row in lps)]))
    image = itk.image_from_array(np.zeros((4, 4, 4), np.float32))
    itk.transformix_filter(image, maps, fixed_point_set_file_name=str(points), output_directory=str(tmp_path))
    lines = (tmp_path / "outputpoints.txt").read_text().splitlines()
    moved = np.array([line.split("OutputPoint = [")[1].split("]")[0].split() for line in lines], float)
    moved *= [-1, -1, 1]
    index = found.grid.to_index(at)
    inside = ((index >= 0) & (index <= np.array(found.grid.shape) - 1)).all(axis=1)
    assert inside.mean() > 0.9
    np.testing.assert_allclose((at + found.at(at))[inside], moved[inside], atol=0.05)


@pytest.mark.slow
def test_the_same_images_give_the_same_bytes(mended: Callable[[Grid], tuple[Volume, Deformation]]) -> None:
    one = head(1, grid=GRID)
    again = deform(one.mr, bent(one.mr), Registration(np.eye(4)), elastix=QUICK)
    assert again.vectors_mm.tobytes() == mended(GRID)[1].vectors_mm.tobytes()


@pytest.mark.slow
def test_what_elastix_would_pass_over_is_refused(elastix: None) -> None:
    one = head(1, grid=GRID)
    with pytest.raises(InputError, match=r"MaxIterations: no parameter of these: .*MaximumNumberOfIterations"):
        deform(one.mr, one.ct, Registration(np.eye(4)), elastix={"MaxIterations": 5})
    with pytest.raises(GeometryError, match="elastix failed"):
        deform(one.mr, one.ct, Registration(np.eye(4)), elastix={"Optimizer": "Downhill"})


@pytest.mark.slow
def test_prepare_bends_and_says_how(elastix: None, tmp_path: Path) -> None:
    one = head(1, grid=GRID)
    write(one.mr, tmp_path / "mr.nii.gz")
    write(bent(one.ct), tmp_path / "ct.nii.gz")
    images = {"a": tmp_path / "mr.nii.gz", "b": tmp_path / "ct.nii.gz"}
    table = write_cases([Case("p1", "p1", "train", images)], tmp_path / "cases.csv")
    settings = {
        "images": {"a": {"modality": "MR"}, "b": {"modality": "CT", "unit": "HU"}},
        "registration": {"kind": "deformable", "elastix": QUICK},
        "mask": {"source": "body"},
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(settings))
    made = CliRunner().invoke(app, ["prepare", str(table), str(tmp_path / "plan.yaml"), "--out", str(tmp_path / "out")])
    assert made.exit_code == 0, made.output
    steps = json.loads((tmp_path / "out/p1/provenance.json").read_text())["steps"]
    told = next(step for step in steps if step["step"] == "register")
    assert told["kind"] == "deformable"
    assert told["bend_most_mm"] > 1
    assert told["elastix"][0]["Transform"] == ["BSplineTransform"]
    assert read(tmp_path / "out/p1/b.nii.gz").grid.same_as(read(tmp_path / "out/p1/a.nii.gz").grid)


@pytest.mark.slow
def test_a_transform_bends_and_says_that_it_has_no_inverse(elastix: None) -> None:
    from monai.data.meta_tensor import MetaTensor

    from medgan.transforms import Registerd

    one = head(1, grid=GRID)
    item = {
        role: MetaTensor(np.ascontiguousarray(volume.array[None], np.float32), affine=volume.grid.affine)
        for role, volume in {"mr": one.mr, "ct": bent(one.ct)}.items()
    }
    step = Registerd("ct", "mr", kind="deformable", outside=-1000)
    made = step(item)
    assert made["ct"].shape == item["mr"].shape
    assert np.abs(made["ct"].numpy()[0] - one.ct.array).mean() < np.abs(item["ct"].numpy()[0] - one.ct.array).mean()
    with pytest.raises(InputError, match="ct: was bent, which has no inverse"):
        step.inverse(made)
