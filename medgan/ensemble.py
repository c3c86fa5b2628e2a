"""Runs at work on one source: each translates it in one or more passes, and what they make is joined on its grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medgan.device import settle
from medgan.errors import RunError
from medgan.models.base import Translator
from medgan.prep import Prep, from_network, in_source_unit, to_channels
from medgan.run import Run
from medgan.sliding import predict
from medgan.uncertainty import Moments, Pass, Sampling, dropping
from medgan.volume import Synthesis, Volume

__all__ = ["Ensemble", "Member"]

Sources = Mapping[str, Volume]
AT_REST, ONCE = Pass(), Sampling()


@dataclass(frozen=True)
class Member:
    """A run at work, alone or as one of several.

    Args:
        run: whose contract, patch and spacing are used.
        game: its translator, on `device`.
        to: the domain to translate to.
        device: where the network runs.
        batch: windows that go through the network together.
        overlap: share of a window that its neighbour covers again.
        precision: in which the network works: `32`, `bf16` or `fp16`.
    """

    run: Run
    game: Translator
    to: str
    device: torch.device
    batch: int
    overlap: float
    precision: str

    @classmethod
    def of(
        cls,
        run: Run,
        *,
        to: str,
        device: torch.device,
        batch: int,
        overlap: float | None,
        precision: str | None = None,
        game: Translator | None = None,
    ) -> Member:
        """The run with its translator loaded, unless it is given, and its own overlap and precision unless others are.

        Raises:
            RunError: if the run cannot be used, or does not make the domain `to`.
        """
        game = game or _translator(run, to)
        precision, overlap = precision or run.config.train.precision, run.config.overlap if overlap is None else overlap
        settle(game, device, precision, run.config.memory_format)
        return cls(run, game, to, device, batch, overlap, precision)

    @property
    def prep(self) -> Prep:
        """The contract in this direction."""
        return self.run.config.prep.towards(self.to)

    def seen(self, sources: Sources) -> Tensor:
        """(C, X, Y, Z) in [-1, 1]: the sources as the network sees them."""
        return to_channels(sources, self.prep)

    def answer(self, x: Tensor, one: Pass = AT_REST, *, to: str = "", label: str = "") -> Tensor:
        """(1, X, Y, Z) in [-1, 1]: what the network makes of (C, X, Y, Z) in one pass."""
        config = self.run.config
        with dropping(self.game, one.seed):
            y = predict(
                partial(self.game.translate, to=to or self.to),
                one.view.turned(x),
                patch=config.patch,
                neighbours=config.neighbours,
                kept=config.neighbours_made,
                overlap=self.overlap,
                batch=self.batch,
                device=self.device,
                precision=self.precision,
                memory_format=config.memory_format,
                label=label,
            )
        return one.view.back(y)

    def told(self, y: Tensor, like: Volume) -> Volume:
        """A translation in the unit of the run, on the grid of the source; the values of `y` are changed on the way."""
        return from_network(y, like, self.prep.b, self.prep.spacing_mm, self.prep.axes, overwrite=True)

    def residual(self, source: Volume, label: str = "") -> Volume:
        """The source after the way there and back, less what the network saw of it, in its own unit.

        What lies beyond the window or between the voxels of the network is in neither, so that it does not count.
        """
        x, back = self.seen({"a": source}), "a" if self.to == "b" else "b"
        end = self._told_back(self.answer(self.answer(x, label=label), to=back, label=label), source)
        np.subtract(end.array, self._told_back(x, source).array, out=end.array)
        return in_source_unit(end, source, self.prep.a)

    def _told_back(self, x: Tensor, like: Volume) -> Volume:
        """As `told`, of an image of the source's own domain."""
        return from_network(x, like, self.prep.a, self.prep.spacing_mm, self.prep.axes, overwrite=True)


@dataclass(frozen=True)
class Ensemble:
    """One or more runs with one contract, each with its own patch, spacing and axes.

    Args:
        members: the first one is the one that images name as their maker.
        sampling: the passes of each.
        cycle: whether to make the residual of the way back, by the first, with dropout at rest.

    Raises:
        RunError: if a run cannot do what is asked for, or two have not the same contract.
    """

    members: tuple[Member, ...]
    sampling: Sampling = ONCE
    cycle: bool = False

    def __post_init__(self) -> None:
        for number, member in enumerate(self.members):
            self.sampling.require(member.run, member.game)
            for other in self.members[:number]:
                _refuse_strangers(other.run, member.run)
        if self.cycle and len(self.first.game.generators) < 2:
            name = self.first.run.config.model.name
            raise RunError(f"{self.first.run.path}: its model, {name}, knows no way back; leave out cycle")

    @property
    def first(self) -> Member:
        """The one that images name as their maker."""
        return self.members[0]

    @property
    def num_passes(self) -> int:
        """Translations of a source in all."""
        return sum(len(self.sampling.passes(member.run.config)) for member in self.members)

    @property
    def kinds(self) -> list[str]:
        """Of the maps that are made beside each image: `std`, `cycle`."""
        return ["std"] * (self.num_passes > 1) + ["cycle"] * self.cycle

    def facts(self) -> dict[str, Any]:
        """What differs from one plain translation by the first run, as plain values."""
        others = [member.run.weights_sha256 for member in self.members[1:]]
        changed = self.first.precision != self.first.run.config.train.precision
        facts = self.sampling.facts() | ({"precision": self.first.precision} if changed else {})
        return facts | ({"with": others} if others else {}) | ({"cycle": True} if self.cycle else {})

    def translate(self, sources: Sources, label: str = "") -> tuple[Volume, dict[str, Volume]]:
        """The mean of all translations of a source, on its grid, and its maps by kind, marked as what they are.

        `std` is the voxel-wise sample standard deviation, where there are several translations, in their unit. Two
        images are held in memory, however many there are.

        Args:
            sources: by role, on one grid; the grid and header of the first are kept.
            label: shown beside the progress; nothing is shown without one.
        """
        maps = dict(zip(("mean", "std"), self._joined(sources, label), strict=False))
        mean = maps.pop("mean")
        if self.cycle:
            residual = self.first.residual(next(iter(sources.values())), label and f"{label}, there and back")
            maps["cycle"] = residual.marked(replace(self._own_mark(sources), quantity="cycle residual"))
        return mean, maps

    def _joined(self, sources: Sources, label: str) -> list[Volume]:
        """The mean of all translations and, where there are several, their standard deviation."""
        moments, images, mark = Moments(), list[Volume](), self._mark(sources)
        for made in self._translations(sources, label):
            moments.add(made.array)
            images = [made.with_array(moments.mean)]
            del made  # or it would be held while the next one is made
        np.clip(moments.mean, *self.first.prep.b.output_range, out=moments.mean)
        if moments.count > 1:
            images.append(images[0].with_array(moments.std))
        marks = mark, replace(mark, quantity="standard deviation")
        return [image.marked(one) for image, one in zip(images, marks, strict=False)]

    def _translations(self, sources: Sources, label: str) -> Iterator[Volume]:
        """One after another, each in the unit of the run and on the grid of the source."""
        count, like = 0, next(iter(sources.values()))
        for number, member in enumerate(self.members):
            x = member.seen(sources)
            for one in self.sampling.passes(member.run.config, number):
                count += 1
                which = f"{label}, {count} of {self.num_passes}" if label and self.num_passes > 1 else label
                yield member.told(member.answer(x, one, label=which), like)
            del x

    def _own_mark(self, sources: Sources) -> Synthesis:
        return self.first.run.synthesis(self.first.to, seen=sources)

    def _mark(self, sources: Sources) -> Synthesis:
        """That of the first run; where there are several translations, it also tells which."""
        mark = self._own_mark(sources)
        if self.num_passes == 1:
            return mark
        facts = {key: ", ".join(value) if isinstance(value, list) else value for key, value in self.facts().items()}
        told = "; ".join(f"{key}={value}" for key, value in facts.items() if key != "cycle")
        return replace(mark, description=f"mean of {self.num_passes} translations ({told}), {mark.description}")


def _translator(run: Run, to: str) -> Translator:
    game = run.translator()
    if to not in game.generators:
        made = " and ".join(game.generators)
        raise RunError(f"{run.path}: its model, {run.config.model.name}, translates to {made} alone; seen to={to!r}")
    return game


def _refuse_strangers(run: Run, other: Run) -> None:
    """Translations are joined only where both sides mean the same."""
    if run.weights_sha256 == other.weights_sha256:
        raise RunError(f"{other.path}: holds the same weights as {run.path}; name each run once")
    mine, its = (_contract(one) for one in (run, other))
    for key in mine | its:
        if mine.get(key) != its.get(key):
            told = f"its prep.{key} is {its.get(key)}, that of {run.path} is {mine.get(key)}"
            raise RunError(f"{other.path}: {told}; join runs of one contract")


def _contract(run: Run) -> dict[str, Any]:
    """What values mean on both sides, by dotted keys; where and how finely a run looks is its own affair."""
    prep = run.config.prep
    roles = {"a": prep.a, "b": prep.b} | {f"contrasts.{role}": one for role, one in prep.contrasts.items()}
    return {f"{role}.{key}": value for role, one in roles.items() for key, value in one.model_dump().items()}
