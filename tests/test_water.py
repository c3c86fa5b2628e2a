"""Water-equivalent paths against chords of boxes and balls, a ray traced plane by plane, and beams walked in a loop."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medgan.errors import GeometryError, InputError
from medgan.metrics.rays import Rays
from medgan.metrics.water import PHOTONS, PROTONS, Curve, beam_direction, curve_of, read_curve, wepl, wepl_scores

PLAIN = Curve((-1000, 1000), (0, 2), "plain")  # 1 + HU / 1000
ANGLES = (0.0, 17.0, 45.0, 60.0, 90.0, 133.0, 180.0, 270.0, 301.5)


def box_phantom(shape, start, stop, hu):
    volume = np.full(shape, -1000.0)
    volume[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = hu
    return volume


def chord(point, direction, low, high):
    """How much of the ray that comes to a point lies in a box."""
    ends = [0.0, np.inf]
    for x, d, a, b in zip(point, direction, low, high, strict=True):
        if abs(d) < 1e-12:
            if not a <= x <= b:
                return 0.0
        else:
            near, far = sorted(((x - a) / d, (x - b) / d))
            ends = [max(ends[0], near), min(ends[1], far)]
    return max(ends[1] - ends[0], 0.0)


def traced(values, spacing, point, direction):
    """The integral to a point, in mm from the outer corner of voxel 0, plane by plane as Siddon has it."""
    spacing, point = np.asarray(spacing, float), np.asarray(point, float)
    direction = np.asarray(direction, float) / np.linalg.norm(direction)
    ways = [0.0]
    for axis, count in enumerate(values.shape):
        if abs(direction[axis]) > 1e-12:
            ways += [(point[axis] - plane * spacing[axis]) / direction[axis] for plane in range(count + 1)]
    ways = sorted(way for way in ways if way >= 0)
    total = 0.0
    for near, far in itertools.pairwise(ways):
        index = np.floor((point - direction * (near + far) / 2) / spacing).astype(int)
        if (index >= 0).all() and (index < values.shape).all():
            total += (far - near) * values[tuple(index)]
    return total


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("angle", ANGLES)
def test_a_box_is_its_chord_at_any_angle(angle):
    shape, spacing = (20, 24, 2), np.array([1.5, 1.0, 3.0])
    start, stop = np.array([5, 6, 0]), np.array([12, 20, 2])
    found = wepl(box_phantom(shape, start, stop, 250.0), spacing_mm=spacing, direction=angle, curve=PLAIN)
    for voxel in itertools.product(range(0, 20, 3), range(24), (0, 1)):
        point = (np.array(voxel) + 0.5) * spacing
        expected = 1.25 * chord(point, beam_direction(angle), start * spacing, stop * spacing)
        assert found[voxel] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("angle", ANGLES)
def test_a_ball_is_its_chord_but_for_its_steps(angle):
    n, radius = 81, 30.0
    centres = np.arange(n) - (n - 1) / 2
    ball = np.where(np.add.outer(centres**2, centres**2) < radius**2, 500.0, -1000.0)[..., None]
    found = wepl(ball, spacing_mm=(1, 1, 1), direction=angle, curve=PLAIN)[..., 0]
    x, y, _ = beam_direction(angle)
    for distance in (35, 0, 12):
        i, j = (round(distance * d + (n - 1) / 2) for d in (x, y))
        point = np.array([centres[i], centres[j]])
        along, across = point @ (x, y), point @ (-y, x)
        half = np.sqrt(radius**2 - across**2)
        assert found[i, j] == pytest.approx(1.5 * np.clip(along + half, 0, 2 * half), abs=1.5)


directions = st.tuples(*[st.sampled_from([-2.0, -1.0, -0.3, 0.0, 0.1, 1.0, 1.7])] * 3).filter(any)


@settings(deadline=None, max_examples=60)
@given(directions, st.tuples(*[st.integers(1, 5)] * 3), st.integers(0, 1000))
def test_any_path_is_what_a_trace_plane_by_plane_gives(direction, shape, seed):
    values, spacing = np.random.default_rng(seed).random(shape), (1.0, 2.0, 1.25)
    found = wepl(1000 * values - 1000, spacing_mm=spacing, direction=direction, curve=PLAIN)
    for voxel in np.ndindex(shape):
        # A ray that runs in a border between voxels belongs to both sides: a hair beside it, it does not.
        point = (np.array(voxel) + 0.5 + np.array([1, 3, 7]) * 1e-11) * spacing
        assert found[voxel] == pytest.approx(traced(values, spacing, point, direction), abs=1e-7)


@pytest.mark.parametrize("angle", [0, 90, 180, 270])
def test_along_the_axes_it_is_a_running_sum(angle):
    hu = np.random.default_rng(0).uniform(-1000, 2000, (6, 7, 3))
    axis, sign = {0: (1, -1), 90: (0, 1), 180: (1, 1), 270: (0, -1)}[angle]
    spacing = (1.2, 0.8, 3.0)
    values = np.flip(PROTONS(hu), axis) if sign < 0 else PROTONS(hu)
    sums = (np.cumsum(values, axis) - values / 2) * spacing[axis]
    expected = np.flip(sums, axis) if sign < 0 else sums
    assert wepl(hu, spacing_mm=spacing, direction=angle) == pytest.approx(expected, abs=1e-12)


def test_memory_order_and_type_do_not_matter():
    hu = np.random.default_rng(0).integers(-1000, 2000, (8, 7, 3)).astype(np.int16)
    expected = wepl(hu.astype(np.float64), spacing_mm=(1, 1, 2), direction=30)
    for same in (hu, np.asfortranarray(hu), hu.astype(np.float32), np.repeat(hu, 2, axis=0)[::2]):
        assert wepl(same, spacing_mm=(1, 1, 2), direction=30) == pytest.approx(expected, abs=1e-9)


def test_what_is_not_finite_spoils_what_is_behind_it_alone():
    hu = np.zeros((3, 5, 1))
    hu[1, 2] = np.nan
    hu[2, 1] = np.inf
    found = wepl(hu, spacing_mm=(1, 1, 1), direction=(0, 1, 0))[..., 0]
    assert np.isnan(found).tolist() == [[False] * 5, [False, False, True, True, True], [False, True, True, True, True]]


# --- scores -----------------------------------------------------------------------------------------------------------


def body(shape=(30, 26, 3), hu=0.0):
    """Water in air, and a target in it."""
    phantom = box_phantom(shape, (4, 5, 0), (26, 21, shape[2]), hu)
    target = np.zeros(shape)
    target[12:18, 10:15] = 1
    return phantom, target


def test_denser_water_stops_a_beam_earlier():
    """WEPL grows by the share by which the density does, and a range shrinks to 1 / 1.05 of itself."""
    (ref, target), (pred, _) = body(hu=0.0), body(hu=50.0)
    scores = wepl_scores(pred, ref, target, spacing_mm=(2, 2, 2), angles_deg=(90,), curve=PLAIN)
    depths = 2 * (np.arange(12, 18) + 0.5 - 4)
    edge = depths[-1]
    assert scores["wepl_mae"] == scores["wepl_bias"] == pytest.approx(0.05 * depths.mean())
    assert scores["range_error"] == scores["range_error_p95"] == pytest.approx(edge * (1 - 1 / 1.05))
    assert scores["range_error_percent"] == pytest.approx(100 * (1 - 1 / 1.05))


def test_lighter_water_lets_a_beam_go_on():
    (ref, target), (pred, _) = body(hu=0.0), body(hu=-50.0)
    scores = wepl_scores(pred, ref, target, spacing_mm=(2, 2, 2), angles_deg=(270,), curve=PLAIN)
    edge = 2 * (26 - 12 - 0.5)
    assert scores["wepl_bias"] == pytest.approx(-scores["wepl_mae"])
    assert scores["range_error"] == pytest.approx(edge * (1 / 0.95 - 1))


def column(*hu):
    return np.array(hu, dtype=float)[:, None, None]


def test_behind_body_and_edge_is_water():
    """What a thinner body lacks comes behind the edge; without it the beam would go on through all the air."""
    ref, pred = column(*[0] * 8, -1000, -1000), column(*[0] * 6, *[-1000] * 4)
    mask = ref * 0
    mask[4] = 1
    found = [wepl_scores(pred, ref, mask, spacing_mm=(1, 1, 1), angles_deg=(90,), curve=PLAIN)]
    assert found[-1]["range_error"] == 0
    mask[7] = 1
    found.append(wepl_scores(pred, ref, mask, spacing_mm=(1, 1, 1), angles_deg=(90,), curve=PLAIN))
    assert found[-1]["range_error"] == pytest.approx(7.5 - 6 + 0.5)  # what is missing, and half a voxel of air
    longer = column(*[0] * 6, -1000, 0, -1000, -1000)
    mask[:] = 0
    mask[5] = 1
    ref[2] = 600
    scores = wepl_scores(longer, ref, mask, spacing_mm=(1, 1, 1), angles_deg=(90,), curve=PLAIN)
    assert scores["range_error"] == pytest.approx(1.6)  # of 6.1 mm of water 6 are before the gap


@pytest.mark.parametrize("angle", ANGLES)
def test_equal_images_have_no_error(angle):
    ref, target = body()
    ref = ref + np.random.default_rng(0).normal(0, 30, ref.shape)
    for mask in (None, target):
        scores = wepl_scores(ref, ref, mask, spacing_mm=(1, 2, 3), angles_deg=(angle,))
        assert scores["wepl_mae"] == scores["wepl_bias"] == 0
        assert scores["range_error"] == pytest.approx(0, abs=1e-9)


def walked(pred, ref, mask, spacing, angle):
    """The scores by their definition: ray after ray, place after place, each path traced plane by plane."""
    rays = Rays.of(ref.shape, np.asarray(spacing), beam_direction(angle))
    way = np.asarray(beam_direction(angle)) * rays.step_mm  # from column to column, mm
    axis, other = rays.axis, 1 - rays.axis
    first = ref.shape[axis] - 1 if rays.is_backward else 0
    differences, shifts, ranges = [], [], []
    for row, z in itertools.product(range(-3 * max(ref.shape), 4 * max(ref.shape)), range(ref.shape[2])):
        place = np.zeros(3)
        place[axis], place[other], place[2] = (first + 0.5) * spacing[axis], (row + 0.5) * spacing[other], z + 0.5
        place[2] *= spacing[2]
        points = [place + way * half / 2 for half in range(-1, 2 * ref.shape[axis])]
        indices = [np.floor(np.round(point / spacing, 9)).astype(int) for point in points[1::2]]
        met = [k for k, index in enumerate(indices) if (index >= 0).all() and (index < ref.shape).all()]
        tissue = [k for k in met if ref[tuple(indices[k])] > 0.5]
        marked = [k for k in met if tissue and tissue[0] <= k <= tissue[-1] and mask[tuple(indices[k])]]
        if not marked:
            continue
        in_pred, in_ref = ([traced(v, spacing, p + 1e-9, way) for p in points] for v in (pred, ref))
        differences += [in_pred[2 * k + 1] - in_ref[2 * k + 1] for k in marked]
        edge = 2 * marked[-1] + 1
        dense = [k for k in range(len(indices)) if in_pred[2 * k + 2] - in_pred[2 * k] > 0.5 * rays.step_mm]
        end = max(2 * dense[-1] + 2 if dense else 0, edge + 1)
        waters = in_pred[: end + 1] + [in_pred[end] + n * rays.step_mm / 2 for n in range(1, 400)]
        depth = np.interp(in_ref[edge], waters, np.arange(len(waters)))
        shifts.append(abs(depth - edge) * rays.step_mm / 2)
        ranges.append(in_ref[edge])
    return {
        "wepl_mae": np.mean(np.abs(differences)),
        "wepl_bias": np.mean(differences),
        "range_error": np.mean(shifts),
        "range_error_p95": np.percentile(shifts, 95),
        "range_error_percent": 100 * np.sum(shifts) / np.sum(ranges),
    }


@pytest.mark.parametrize("angle", [0.0, 20.0, 63.0, 118.0, 200.0, 290.0])
def test_the_scores_are_their_definition_ray_by_ray(angle):
    rng, shape, spacing = np.random.default_rng(2), (9, 8, 2), (1.5, 2.0, 3.0)
    ref = rng.uniform(0.05, 1.8, shape)
    pred = ref * rng.uniform(0.9, 1.1, shape)
    mask = rng.random(shape) < 0.2
    found = wepl_scores(
        1000 * pred - 1000, 1000 * ref - 1000, mask, spacing_mm=spacing, angles_deg=(angle,), curve=PLAIN
    )
    assert found == pytest.approx(walked(pred, ref, mask, spacing, angle), abs=1e-5)


def test_angles_and_slabs_are_pooled(monkeypatch):
    rng = np.random.default_rng(0)
    ref, target = body()
    pred = ref + rng.normal(20, 30, ref.shape)
    together = wepl_scores(pred, ref, target, spacing_mm=(1, 1, 2), angles_deg=(0, 180))
    each = [wepl_scores(pred, ref, target, spacing_mm=(1, 1, 2), angles_deg=(angle,)) for angle in (0, 180)]
    for name in ("wepl_mae", "wepl_bias", "range_error"):
        assert together[name] == pytest.approx(np.mean([one[name] for one in each]))
    monkeypatch.setattr("medgan.metrics.water._SLAB_VALUES", 1)
    assert wepl_scores(pred, ref, target, spacing_mm=(1, 1, 2), angles_deg=(0, 180)) == pytest.approx(together)


def test_without_a_mask_all_tissue_counts():
    ref, _ = body()
    expected = wepl_scores(ref + 20, ref, ref > -500, spacing_mm=(1, 1, 1))
    assert wepl_scores(ref + 20, ref, spacing_mm=(1, 1, 1), curve=PROTONS) == expected


def test_where_there_is_nothing_to_reach_it_is_nan():
    air = np.full((4, 4, 1), -1000.0)
    assert np.isnan(list(wepl_scores(air, air, spacing_mm=(1, 1, 1)).values())).all()
    assert np.isnan(list(wepl_scores(air, air, air < 0, spacing_mm=(1, 1, 1), curve=PHOTONS).values())).all()


@pytest.mark.parametrize("angle", ANGLES)
def test_a_mask_with_a_rim_of_air_scores_as_the_body(angle):
    """Else rays through the rim alone, some µm of water long, would make errors of hundreds of percent."""
    rng = np.random.default_rng(0)
    ref, _ = body((40, 36, 2))
    ref[10:14, 8:12] = -990  # air inside counts
    pred = ref + rng.normal(0, 20, ref.shape)
    tight, wide = np.zeros(ref.shape), np.zeros(ref.shape)
    tight[4:26, 5:21], wide[1:30, 2:25] = 1, 1
    found = [wepl_scores(pred, ref, mask, spacing_mm=(1, 1.5, 2), angles_deg=(angle,)) for mask in (tight, wide)]
    assert found[0] == found[1]
    assert found[0]["range_error_percent"] < 10


@pytest.mark.parametrize("which", ["pred", "ref"])
def test_what_is_not_finite_makes_scores_nan(which):
    images = dict(zip(("pred", "ref"), (body()[0], body()[0]), strict=True))
    images[which][15, 12, 1] = np.nan
    scores = wepl_scores(images["pred"], images["ref"], body()[1], spacing_mm=(1, 1, 1))
    assert np.isnan(list(scores.values())).all()


def test_what_does_not_fit_is_refused():
    ref, target = body()
    for pred, mask in ((ref[:-1], None), (ref, target[:-1])):
        with pytest.raises(GeometryError, match="one shape"):
            wepl_scores(pred, ref, mask, spacing_mm=(1, 1, 1))
    with pytest.raises(GeometryError, match="3-D"):
        wepl(ref[0], spacing_mm=(1, 1, 1), direction=0)
    with pytest.raises(GeometryError, match="spacing_mm"):
        wepl(ref, spacing_mm=(1, 1, 0), direction=0)
    with pytest.raises(InputError, match="mask is empty"):
        wepl_scores(ref, ref, target * 0, spacing_mm=(1, 1, 1))
    with pytest.raises(InputError, match="angles_deg is empty"):
        wepl_scores(ref, ref, spacing_mm=(1, 1, 1), angles_deg=())
    for direction in ((0, 0, 0), (1, 0), (np.nan, 0, 1), np.inf):
        with pytest.raises(InputError, match=r"direction|angle"):
            wepl(ref, spacing_mm=(1, 1, 1), direction=direction)


# --- curves -----------------------------------------------------------------------------------------------------------


def test_the_curves_are_the_published_lines():
    hu = np.linspace(-1000, 3000, 801)
    schneider = np.select(
        [hu <= 0, hu <= 41.46], [1 + hu * (1 - 0.00106) / 1000, 1 + 0.001174 * hu], 1.0279 + 0.0005011 * hu
    )
    assert PROTONS(hu) == pytest.approx(schneider, abs=2e-5)
    thomas = np.where(hu < 100, 1 + hu / 1000, 1.049 + hu / 1950)
    assert PHOTONS(hu) == pytest.approx(thomas, abs=3e-4)
    beyond = PROTONS(np.array([-2000, 9000, np.nan, np.inf]))
    assert beyond == pytest.approx([0.00106, 2.5312, np.nan, np.nan], nan_ok=True)


@pytest.mark.parametrize(
    "text",
    [
        "HU,RSP\n-1000,0.001\n0,1\n2000,2\n",
        "# a scanner\n\n-1000 0.001\n0\t1\n2000;2\n",
        "\ufeff-1000;0.001\n0; 1\n2000;2",
    ],
)
def test_a_curve_is_read_from_a_file(tmp_path, text):
    path = tmp_path / "scanner.csv"
    path.write_text(text, encoding="utf-8")
    curve = read_curve(path)
    assert (curve.hu, curve.values) == ((-1000, 0, 2000), (0.001, 1, 2))
    assert curve(np.array([1000.0])) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "two or more pairs"),
        ("HU,RSP\n0,1\n", "two or more pairs"),
        ("0,1\n-5,2\n", "0 before -5"),
        ("0,1\n0,2\n", "0 before 0"),
        ("0,1\n5,-2\n", "0 or more"),
        ("0,1\n5,nan\n", "finite"),
        ("0,1\n5\n", "line 2: is '5'"),
        ("0,1\n5,1,2\n", "line 2"),
        ("0,1\nbone,2\n", "line 2: is 'bone 2'"),
        ("0,1\n40,1.05\n60,1.02\n", r"values do not fall where HU rise; seen 1\.05 before 1\.02"),
        ("-1000,1\n0,1000\n1000,1600\n", "relative to water, about 1 at 0 HU; seen 1000 there"),
    ],
)
def test_a_file_that_is_no_curve_is_refused(tmp_path, text, said):
    path = tmp_path / "scanner.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as error:
        read_curve(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "scan.csv").write_bytes(b"\x1f\x8b\xff\x00")
    for name in ("scan.csv", "none.csv"):
        with pytest.raises(InputError, match=name):
            read_curve(tmp_path / name)


def test_a_curve_has_a_name_or_is_in_a_file(tmp_path):
    assert (curve_of("protons"), curve_of("photons")) == (PROTONS, PHOTONS)
    (tmp_path / "photons").write_text("-1000,0\n0,1\n")
    assert curve_of(tmp_path / "photons").values == (0, 1)
    with pytest.raises(InputError, match=r"curve 'proton' is unknown \(accepted: protons, photons, or a file of lines"):
        curve_of("proton")
