"""Two sets of features compared: distances, neighbourhoods, each beside what real images score among themselves."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import InputError
from medgan.metrics.distribution import Interval, frechet_distance, kernel_distance, kid, neighbourhoods
from medgan.metrics.floors import Floored, against_real, against_test
from medgan.metrics.reduction import Reduction

__all__ = [
    "COMPONENTS",
    "FEWEST",
    "IMAGES_PER_COMPONENT",
    "NEIGHBOURS",
    "REAL",
    "SYNTHETIC",
    "TEST",
    "FeatureSet",
    "SetScores",
    "compare_sets",
]

Array = npt.NDArray[Any]
Score = Callable[[Array, Array], dict[str, float]]

COMPONENTS = 32  # axes at most, where features are too many for the images
IMAGES_PER_COMPONENT = 4
NEIGHBOURS = 5
FEWEST = 12  # on a side, for what needs more than pairs: 3 axes, and 5 neighbours among 11
SYNTHETIC, REAL, TEST = "synthetic", "real", "real test"
_MORE_PEOPLE = 1.25  # times as many patients
MOST_ROWS = 4000  # of a set: a matrix of distances between two has 128 MB


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features of images, and whose they are.

    Args:
        rows: (N, d), finite.
        patients: of each row; rows of one patient are never in both halves, nor resampled apart.

    Raises:
        InputError: if these do not fit, or a feature is not finite.
    """

    rows: Array
    patients: Sequence[str]

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or not self.rows.shape[1] or len(self.rows) != len(self.patients):
            raise InputError(f"features are (N, d), a patient each; seen {self.rows.shape}, {len(self.patients)} names")
        if not np.isfinite(self.rows).all():
            raise InputError("features are finite numbers; some are not")

    def __len__(self) -> int:
        return len(self.rows)

    def through(self, reduction: Reduction | None) -> FeatureSet:
        """The same in other features."""
        return self if reduction is None else FeatureSet(reduction(self.rows), self.patients)

    def drawn(self, most: int, rng: np.random.Generator) -> FeatureSet:
        """At most so many rows, drawn at random."""
        if len(self) <= most:
            return self
        kept = np.sort(rng.permutation(len(self))[:most])
        return FeatureSet(self.rows[kept], [self.patients[place] for place in kept])


@dataclass(frozen=True)
class SetScores:
    """What the comparison of two sets found.

    Args:
        scores: by name: `frechet_distance`, `kid`, `precision`, `recall`, `density`, `coverage`, those that so few
            images allow; each measured on a part of the real images, beside the same number of other real images.
        kid: of all images, with its 95 % interval from resampling patients.
        num_synthetic: rows.
        num_real: rows.
        num_real_patients: whose they are.
        num_compared: rows of the smallest set that any score was made of.
        num_features: d.
        num_axes: in which the Fréchet distance was measured, at most; 0 where it was not.
        reduced: whether these are principal axes of the real images, as there were too few images for all features.
        standardised: whether features were taken less their mean and over their standard deviation in the real images.
        notes: what to know when reading it.
    """

    scores: Mapping[str, Floored]
    kid: Interval
    num_synthetic: int
    num_real: int
    num_real_patients: int
    num_compared: int
    num_features: int
    num_axes: int
    reduced: bool
    standardised: bool
    notes: tuple[str, ...]


def compare_sets(
    synthetic: FeatureSet,
    real: FeatureSet,
    test: FeatureSet | None = None,
    *,
    standardised: bool = True,
    splits: int = 10,
    seed: int = 0,
) -> SetScores:
    """Distances and neighbourhoods of two sets, beside those of real images alone.

    Without `test` the real patients fall into random halves A and B, `splits` times, and the synthetic images are
    compared with A beside B with A; with it, synthetic and test images are compared with all real ones. Both sides of
    a comparison have as many images. Kernel distances (images of one patient not being compared with each other within
    a set) and neighbourhoods are of all features. So is the Fréchet distance where there are at least 4 images for each
    feature in the smallest set; else it is of at most 32 principal axes, one for 4 images, so that no covariance is
    singular for want of images. Of fewer than 12 images on a side there is neither it nor neighbourhoods. The axes are
    fitted on the real images that are compared with, anew in each split: axes that knew B would show more of it than of
    what they have not seen.

    Args:
        synthetic: features (N, d).
        real: features (M, d).
        test: of real images of other patients; halves of `real` if not given.
        standardised: whether features are taken less their mean and over their standard deviation in all real images,
            as those of different units have to be; else they are taken as they are, as in published FID and KID.
        splits: how many.
        seed: of splits and of resampling.

    Raises:
        InputError: if the sets differ in d, real and test share a patient, or there are too few: 4 real patients, 2
            where there is a test set, and 2 patients of each other set are the least.
    """
    rng = np.random.default_rng(seed)
    sets = {SYNTHETIC: synthetic, REAL: real, **({TEST: test} if test else {})}
    _refuse_unfit(sets)
    standard = Reduction.fit(real.rows, None) if standardised else None
    used = {name: rows.drawn(MOST_ROWS, rng).through(standard) for name, rows in sets.items()}
    count, num_features = _fewest(used), real.rows.shape[1]
    reduced = count < IMAGES_PER_COMPONENT * num_features
    axes = min(COMPONENTS, count // IMAGES_PER_COMPONENT) if reduced else num_features
    score = _score(axes if count >= FEWEST else 0)
    still = _still(synthetic.rows, real.rows) if standardised else []
    return SetScores(
        scores=_floored(used, score, splits, seed),
        kid=_kid(used[SYNTHETIC], used[REAL], seed),
        num_synthetic=len(synthetic),
        num_real=len(real),
        num_real_patients=len(set(real.patients)),
        num_compared=count,
        num_features=num_features,
        num_axes=axes if count >= FEWEST else 0,
        reduced=reduced,
        standardised=standardised,
        notes=(*_too_many(sets), *_too_few(count), *_fewer_people(sets, count), *still),
    )


def _kid(synthetic: FeatureSet, real: FeatureSet, seed: int) -> Interval:
    return kid(
        *(real.rows, synthetic.rows, real.patients),
        fake_patients=synthetic.patients,
        within_patients=False,
        seed=seed,
    )


def _floored(sets: Mapping[str, FeatureSet], score: Score, splits: int, seed: int) -> dict[str, Floored]:
    told = {name: _with_owners(rows) for name, rows in sets.items()}
    how: Any = {"fake_patients": sets[SYNTHETIC].patients, "splits": splits, "seed": seed}
    if TEST in sets:
        return against_test(score, told[REAL], told[SYNTHETIC], told[TEST], test_patients=sets[TEST].patients, **how)
    return against_real(score, told[REAL], told[SYNTHETIC], sets[REAL].patients, **how)


def _with_owners(rows: FeatureSet) -> Array:
    """A last column with the number of whose each row is: what is drawn of the rows keeps it."""
    return np.column_stack([rows.rows, np.unique(rows.patients, return_inverse=True)[1]])


def _fewest(sets: Mapping[str, FeatureSet]) -> int:
    """Images of the smallest set that is compared."""
    real = len(sets[REAL]) if TEST in sets else _smallest_half(sets[REAL].patients)
    return min(real, *(len(rows) for name, rows in sets.items() if name != REAL))


def _score(axes: int) -> Score:
    def score(real: Array, other: Array) -> dict[str, float]:
        a, b = real[:, :-1], other[:, :-1]
        found = {"kid": kernel_distance(a, b, real[:, -1], other[:, -1])}
        if not axes:
            return found
        turn = _principal_axes(a, axes)
        near = asdict(neighbourhoods(a, b, NEIGHBOURS))
        return {"frechet_distance": frechet_distance(turn(a), turn(b)), **found, **near}

    return score


def _principal_axes(rows: Array, count: int) -> Reduction:
    """Those of largest variance, at most so many; features keep their scale."""
    mean = rows.mean(axis=0)
    _, lengths, axes = np.linalg.svd(rows - mean, full_matrices=False)
    rank = max(1, int((lengths > 1e-9 * lengths[0]).sum()))
    return Reduction(mean, axes[: min(rank, count)].T)


def _smallest_half(patients: Sequence[str]) -> int:
    counts = sorted(Counter(patients).values())
    return sum(counts[: len(counts) // 2])


def _refuse_unfit(sets: Mapping[str, FeatureSet]) -> None:
    sizes = {name: rows.rows.shape[1] for name, rows in sets.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{count} {name}" for name, count in sizes.items())
        raise InputError(f"images have different numbers of features ({told}); compare images of one size")
    patients = {name: set(rows.patients) for name, rows in sets.items()}
    least = {SYNTHETIC: 2, REAL: 2 if TEST in sets else 4, TEST: 2}
    few = [f"{len(owners)} {name}" for name, owners in patients.items() if len(owners) < least[name]]
    if few:
        wanted = ", ".join(f"{least[name]} {name}" for name in sets)
        raise InputError(f"too few patients to compare sets (seen: {', '.join(few)}; the least are {wanted})")
    shared = patients[REAL] & patients.get(TEST, set())
    if shared:
        raise InputError(f"{len(shared)} patients are in both real sets, which are to be of different patients")


def _too_many(sets: Mapping[str, FeatureSet]) -> list[str]:
    return [
        f"{MOST_ROWS} of {len(rows)} {name} rows were drawn at random to be compared"
        for name, rows in sets.items()
        if len(rows) > MOST_ROWS
    ]


def _too_few(count: int) -> list[str]:
    if count >= FEWEST:
        return []
    return [f"no Fréchet distance and no neighbourhoods: {count} images in the smallest set, {FEWEST} are the least"]


def _fewer_people(sets: Mapping[str, FeatureSet], count: int) -> list[str]:
    """Where synthetic images are of more people than the real ones beside them can be, they vary more."""
    num_patients = {name: len(set(rows.patients)) for name, rows in sets.items()}
    beside = num_patients[TEST] if TEST in sets else num_patients[REAL] // 2
    ours = math.ceil(count * num_patients[SYNTHETIC] / len(sets[SYNTHETIC]))
    if count < FEWEST or ours <= _MORE_PEOPLE * beside:
        return []
    return [
        f"{count} synthetic images are of {ours} patients, as many real ones of {beside}, which vary less if those of "
        "a patient are alike: floors are too easily reached, that of the kernel distance aside"
    ]


def _still(synthetic: Array, real: Array) -> list[str]:
    """Features that standardising leaves out, though they tell the sets apart."""
    scale = 1e-9 * (1 + np.abs(real.mean(axis=0)))
    constant = real.std(axis=0) <= scale
    differ = constant & (np.abs(synthetic - real.mean(axis=0)) > 10 * scale).any(axis=0)
    if not differ.any():
        return []
    return [f"{differ.sum()} features are equal in all real images and not in the synthetic ones: no score counts them"]
