"""Several translations of one source: what may vary between them, and their mean and spread.

A run translates a volume in one *pass*. Passes differ by what dropout leaves out, by how the volume is mirrored, and by
the axis across which it is cut into slices; runs differ by their weights. Nothing here knows how a pass is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from medgan.config import Config
from medgan.data import flat_axis
from medgan.errors import InputError, RunError
from medgan.run import Run
from medgan.volume import slabs

__all__ = ["VARIATIONS", "Moments", "Pass", "Sampling", "View", "dropping"]

Array = npt.NDArray[Any]
VARIATIONS = ("dropout", "flips")


@dataclass(frozen=True)
class View:
    """How a volume is held before a network, and turned back afterwards.

    Args:
        moved: (from, to), an axis that takes the place of another one; the rest keep their order.
        mirrored: axes along which the volume is then mirrored, as the network counts them.

    Example:
        >>> x = torch.arange(24).reshape(1, 2, 3, 4)
        >>> view = View(moved=(0, 2), mirrored=(1,))
        >>> view.turned(x).shape, bool((view.back(view.turned(x)) == x).all())
        (torch.Size([1, 3, 4, 2]), True)
    """

    moved: tuple[int, int] = (0, 0)
    mirrored: tuple[int, ...] = ()

    def turned(self, x: Tensor) -> Tensor:
        """(C, X, Y, Z) as the network is to see it."""
        return self._flipped(x.movedim(self.moved[0] + 1, self.moved[1] + 1))

    def back(self, y: Tensor) -> Tensor:
        """(C, X, Y, Z) as it was before."""
        return self._flipped(y).movedim(self.moved[1] + 1, self.moved[0] + 1)

    def _flipped(self, x: Tensor) -> Tensor:
        return x.flip([axis + 1 for axis in self.mirrored]) if self.mirrored else x


@dataclass(frozen=True)
class Pass:
    """One translation of a volume by one run.

    Args:
        view: how the network sees the volume.
        seed: of the dropout; None leaves dropout at rest.
    """

    view: View = View()
    seed: int | None = None


@dataclass(frozen=True)
class Sampling:
    """How often each run translates a source, and what differs between its passes.

    Args:
        samples: passes of each run, in each plane.
        vary: `dropout`, `flips`, or "" where there is one pass.
        seed: of the dropout.
        triplanar: cut the volume along each of the three axes, not only along the one that the run was trained on.
    """

    samples: int = 1
    vary: str = ""
    seed: int = 0
    triplanar: bool = False

    @classmethod
    def of(
        cls, samples: int | None = None, vary: str | None = None, seed: int | None = None, *, triplanar: bool = False
    ) -> Sampling:
        """The sampling that a user asked for; what would have no effect is refused.

        Raises:
            InputError: naming the option.
        """
        if samples is None:
            for name, value in {"vary": vary, "seed": seed}.items():
                if value is not None:
                    raise InputError(f"{name}: {value!r} goes with samples, of which none were asked for")
            return cls(triplanar=triplanar)
        vary = vary or VARIATIONS[0]
        _refuse_odd(samples, vary, seed)
        return cls(samples, vary, seed or 0, triplanar)

    def require(self, run: Run, game: nn.Module) -> None:
        """Refuse a run that cannot be sampled so.

        Raises:
            RunError: naming the run and what it lacks.
        """
        if self.vary == "dropout" and not _droppers(game):
            raise RunError(f"{run.path}: its generator has no dropout to sample from; vary flips or join several runs")
        if self.vary == "flips":
            self._require_mirrorings(run)
        if self.triplanar:
            _require_any_plane(run)

    def passes(self, config: Config, member: int = 0) -> list[Pass]:
        """All passes of one run, the number `member` among those that are joined."""
        planes = _planes(config) if self.triplanar else [(0, 0)]
        if self.vary == "flips":
            mirrorings = _mirrorings(config)[: self.samples]
            return [Pass(View(moved, mirrored)) for moved in planes for mirrored in mirrorings]
        return [
            Pass(View(moved), self._seed(member, plane, sample))
            for plane, moved in enumerate(planes)
            for sample in range(self.samples)
        ]

    def facts(self) -> dict[str, Any]:
        """What differs from one plain translation, by the names of the options."""
        seed = {"seed": self.seed} if self.vary == "dropout" else {}
        sampled = {"samples": self.samples, "vary": self.vary, **seed} if self.vary else {}
        return sampled | ({"triplanar": True} if self.triplanar else {})

    def _seed(self, member: int, plane: int, sample: int) -> int | None:
        """A seed of its own for every pass; the same for all sources, so that none depends on those before it."""
        if self.vary != "dropout":
            return None
        return int(np.random.SeedSequence((self.seed, member, plane, sample)).generate_state(1, np.uint64)[0])

    def _require_mirrorings(self, run: Run) -> None:
        most = len(_mirrorings(run.config))
        if most == 1:
            raise RunError(f"{run.path}: was trained without mirroring (augment.flip_axes), so it cannot vary flips")
        if self.samples > most:
            axes = len(_mirrored_axes(run.config))
            raise RunError(
                f"{run.path}: was trained with mirroring along {axes} of its network's axes (augment.flip_axes), which "
                f"gives {most} different samples; {self.samples} were asked for"
            )


@dataclass
class Moments:
    """Mean and sample standard deviation of images that come one by one; two images are held, however many come.

    Source:
        Welford 1962, "Note on a Method for Calculating Corrected Sums of Squares and Products", Technometrics 4(3).

    Example:
        >>> moments = Moments()
        >>> for value in (2.0, 4.0, 9.0):
        ...     moments.add(np.array([value]))
        >>> moments.mean, moments.std.round(4)  # √((9 + 1 + 16) / 2)
        (array([5.], dtype=float32), array([3.6056], dtype=float32))
    """

    count: int = 0
    mean: Array = field(default_factory=lambda: np.zeros(0, np.float32))
    _squares: Array = field(default_factory=lambda: np.zeros(0, np.float32))

    def add(self, image: Array) -> None:
        """Take one more image of the same shape."""
        self.count += 1
        if self.count == 1:
            self.mean = image.astype(np.float32)
            return
        if self.count == 2:
            self._squares = np.zeros_like(self.mean)
        slowest = int(np.argmax(np.abs(self.mean.strides)))
        seen, mean, squares = (np.moveaxis(one, slowest, 0) for one in (image, self.mean, self._squares))
        for part in slabs(mean.shape):
            difference = seen[part] - mean[part]
            mean[part] += difference / np.float32(self.count)
            squares[part] += difference * (seen[part] - mean[part])

    @property
    def std(self) -> Array:
        """Sample standard deviation (n − 1); from two images on."""
        std = self._squares / np.float32(self.count - 1)
        return np.sqrt(std, out=std)


@contextmanager
def dropping(game: nn.Module, seed: int | None) -> Iterator[None]:
    """Dropout as in training, from a seed; all else, norms above all, stays as it is. Nothing happens without a seed.

    Args:
        game: in evaluation mode, and so again afterwards.
        seed: of torch's random numbers, whose state is put back afterwards.
    """
    if seed is None:
        yield
        return
    layers = _droppers(game)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        for layer in layers:
            layer.train()
        try:
            yield
        finally:
            for layer in layers:
                layer.eval()


def _droppers(game: nn.Module) -> list[nn.Module]:
    return [module for module in game.modules() if isinstance(module, _DropoutNd) and module.p > 0]


def _refuse_odd(samples: int, vary: str, seed: int | None) -> None:
    if samples < 2:
        raise InputError(f"samples: {samples} have no spread; ask for 2 or more, or for none")
    if vary not in VARIATIONS:
        raise InputError(f"vary: {vary!r} is unknown (accepted: {', '.join(VARIATIONS)})")
    if seed is not None and vary == "flips":
        raise InputError("seed: mirrorings are not drawn at random; leave it out with vary=flips")
    if seed is not None and seed < 0:
        raise InputError(f"seed: {seed} is negative; give 0 or more")


def _mirrored_axes(config: Config) -> list[int]:
    """Those along which training patches were mirrored; across slices there is nothing to mirror."""
    flat = flat_axis(config.patch)
    return sorted({axis for axis in config.augment.flip_axes if axis in range(3) and axis != flat})


def _mirrorings(config: Config) -> list[tuple[int, ...]]:
    axes = _mirrored_axes(config)
    return list(chain.from_iterable(combinations(axes, count) for count in range(len(axes) + 1)))


def _planes(config: Config) -> list[tuple[int, int]]:
    """Each axis moved to where the network has slices; its own first."""
    flat = flat_axis(config.patch)
    own = 0 if flat is None else flat
    return [(own, own), *((axis, own) for axis in range(3) if axis != own)]


def _require_any_plane(run: Run) -> None:
    spacing, patch = run.config.prep.spacing_mm, run.config.patch
    if flat_axis(patch) is None:
        raise RunError(f"{run.path}: its patches are blocks ({list(patch)}), which have no plane; leave out triplanar")
    if spacing is None or len(set(spacing)) > 1:
        seen = "none, so each image keeps its own" if spacing is None else f"{list(spacing)}"
        raise RunError(
            f"{run.path}: triplanar needs one spacing along all axes, so that slices look alike in every plane; its "
            f"prep.spacing_mm is {seen}"
        )
