"""What becomes of pairs that cannot be registered: planted failures on real T1 and FLAIR, and who refuses them.

    python tools/registration_doubts.py DATA [--patients 13]

DATA is a folder a patient with t1, flair and, if there is one, brainmask, in which errors are measured instead of in
the whole head; FLAIR is laid upon T1. Of each pair FLAIR is moved through its header by some mm and degrees, or by
60 mm and 40°, or stretched by some %; or it is mirrored, or another patient's; or a registration is made up that is
wrong by 6° to 42°. What is registered is refused by `register`, by what `medgan prepare` sees afterwards, or kept. It
prints the tables of docs/concepts/harmonisation.md.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from medgan import Volume, read
from medgan.errors import GeometryError
from medgan.prep import foreground
from medgan.prepare.verify import verified
from medgan.registration import Registration, register
from medgan.tables import columns

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Planted:
    """A pair with a fault.

    Args:
        kind: of the fault.
        fixed, moving: the images.
        truth: from places in the fixed one to those in the moving one; None where there is none.
        made_up: a result in place of a registration.
        registered: rigid or affine.
    """

    kind: str
    fixed: Volume
    moving: Volume
    truth: Matrix | None = None
    made_up: Registration | None = None
    registered: str = "rigid"


def pose(turn_deg: npt.NDArray[np.float64], shift_mm: npt.NDArray[np.float64], centre: Matrix) -> Matrix:
    """(4, 4): a turn about a point, then a shift."""
    found = np.eye(4)
    found[:3, :3] = Rotation.from_rotvec(np.radians(turn_deg)).as_matrix()
    found[:3, 3] = centre + shift_mm - found[:3, :3] @ centre
    return found


def stretch(rng: np.random.Generator, centre: Matrix) -> Matrix:
    """(4, 4): up to 8 % along each axis and 4 % of shear, about a point, a turn and a shift."""
    change = np.eye(4)
    change[:3, :3] += np.diag(rng.uniform(-0.08, 0.08, 3)) + np.triu(rng.uniform(-0.04, 0.04, (3, 3)), 1)
    change[:3, 3] = centre - change[:3, :3] @ centre
    return pose(rng.normal(0, 4, 3), rng.normal(0, 8, 3), centre) @ change


def planted(number: int, t1: Volume, flair: Volume, other: Volume, brain: Matrix) -> Iterator[Planted]:
    rng, centre = np.random.default_rng(number), brain.mean(axis=0)
    axis, way = (one / np.linalg.norm(one) for one in rng.normal(size=(2, 3)))
    motions: dict[str, Matrix] = {
        "moved by some mm and degrees": pose(rng.normal(0, 4, 3), rng.normal(0, 8, 3), centre),
        "moved by 60 mm and 40°": pose(40 * axis, 60 * way, centre),
    }
    for kind, motion in motions.items():
        yield Planted(kind, t1, Registration(motion).inverse().carried(flair), motion)
    bent = stretch(np.random.default_rng([number, 1]), centre)
    yield Planted("stretched, laid by an affine", t1, Registration(bent).inverse().carried(flair), bent, None, "affine")
    yield Planted("mirrored", t1, flair.with_array(np.ascontiguousarray(flair.array[::-1])))
    yield Planted("another patient's", t1, other)
    wrong = Registration(pose((6 + 3 * number) * axis, rng.normal(0, 4, 3), centre))
    yield Planted("a result wrong by 6° to 42°", t1, flair, made_up=wrong)


def outcome(one: Planted, brain: Matrix) -> tuple[str, float]:
    """Who refuses it, and the mean error of what is kept, mm."""
    try:
        found = one.made_up or register(one.fixed, one.moving, kind=one.registered)
    except GeometryError:
        return "refused by register", float("nan")
    seen = verified(one.fixed, found.carried(one.moving), "T1 and FLAIR")
    if seen.doubts or seen.unseen:
        return "refused afterwards" if seen.doubts else "kept with a note", float("nan")
    if one.truth is None:
        return "kept", float("nan")
    apart = (found.matrix - one.truth)[:3]
    return "kept", float(np.linalg.norm(brain @ apart[:, :3].T + apart[:, 3], axis=1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--patients", type=int, default=13)
    args = parser.parse_args()
    folders = sorted(path.parent for path in args.data.glob("*/flair.nii.gz"))
    if len(folders) < 2:
        parser.error(f"{args.data} has {len(folders)} folders with a flair.nii.gz; two patients or more are wanted")
    found: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for number, folder in enumerate(folders[: args.patients]):
        t1, flair = (read(folder / f"{role}.nii.gz") for role in ("t1", "flair"))
        other = read(folders[(number + 5) % len(folders)] / "flair.nii.gz")
        given = folder / "brainmask.nii.gz"
        inside = read(given).array > 0 if given.exists() else foreground(t1.array)
        brain = t1.grid.to_world(np.argwhere(inside)[::97])
        for one in planted(number, t1, flair, other, brain):
            found[one.kind].append(outcome(one, brain))
    hows = ("refused by register", "refused afterwards", "kept with a note", "kept")
    rows = [["planted", *hows, "worst error of those kept, mm"]]
    for kind, ends in found.items():
        errors = [error for _, error in ends if np.isfinite(error)]
        counts = [str(sum(how == one for one, _ in ends)) for how in hows]
        rows.append([kind, *counts, f"{max(errors):.1f}" if errors else ""])
    print(columns(rows))


if __name__ == "__main__":
    main()
