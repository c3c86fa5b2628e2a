"""The contract of a game: what a GAN is to the loop that trains it and to the code that uses it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from medgan.device import laid_out
from medgan.errors import InputError
from medgan.nets import Net

__all__ = ["Batch", "Fakes", "Game", "Kind", "Losses", "Player", "Sampler", "Translator", "Verdicts"]

Player: TypeAlias = Literal["generator", "discriminator"]
Fakes: TypeAlias = dict[str, Tensor]
Losses: TypeAlias = dict[str, Tensor]
Verdicts: TypeAlias = dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Batch:
    """Patches of both domains; (N, C, X, Y) for images, (N, C, X, Y, Z) for volumes, in [-1, 1].

    Attributes:
        a: patches of the domain to translate from; None if the batch has none.
        b: patches of the domain to translate to; in paired training voxel for voxel those of `a`.
        mask: (N, 1, *spatial), where a and b can be compared; losses that compare them count nothing else.
        condition: (N, K), what is known of each image of `b`, as `medgan.conditions` encodes it.
        mean_mask: (1, 1, *spatial), for a part of a batch: the mean of the masks of the whole batch, so that losses of
            the parts add up to those of the whole.
    """

    a: Tensor | None = None
    b: Tensor | None = None
    mask: Tensor | None = None
    condition: Tensor | None = None
    mean_mask: Tensor | None = None

    def to(
        self, device: torch.device | str | None = None, *, memory_format: torch.memory_format = torch.contiguous_format
    ) -> Batch:
        """The same batch on a device and in a memory format such as `torch.channels_last`."""

        def move(x: Tensor | None) -> Tensor | None:
            return None if x is None else laid_out(x.to(device, non_blocking=True), memory_format)

        condition = None if self.condition is None else self.condition.to(device, non_blocking=True)
        return Batch(move(self.a), move(self.b), move(self.mask), condition, move(self.mean_mask))

    def split(self, number: int) -> list[Batch]:
        """The same samples in that many batches of equal size, in their order."""
        tensors = (self.a, self.b, self.mask, self.condition)
        parts = [(None,) * number if x is None else x.chunk(number) for x in tensors]
        return [Batch(*part) for part in zip(*parts, (self.mean_mask,) * number, strict=True)]

    def parts(self, at_once: int | None) -> list[Batch]:
        """The fewest equal batches of at most that many samples; the batch itself for None."""
        count = next(len(x) for x in (self.b, self.a) if x is not None)
        most = count if at_once is None else at_once
        return self.split(
            next(number for number in range(1, count + 1) if count % number == 0 and count <= most * number)
        )

    def images(self) -> Tensor:
        """Those of `b`, for methods that learn to make more of them.

        Raises:
            InputError: if there are none.
        """
        if self.b is None:
            raise InputError("this model learns from images, but the batch holds none")
        return self.b

    def pair(self) -> tuple[Tensor, Tensor]:
        """Both domains, for methods that learn from pairs.

        Raises:
            InputError: if one is missing or they differ in more than their channels.
        """
        a, b = self.both()
        if len(a) != len(b) or a.shape[2:] != b.shape[2:]:
            raise InputError(f"a pair has one size; seen a {tuple(a.shape)} and b {tuple(b.shape)}")
        return a, b

    def both(self) -> tuple[Tensor, Tensor]:
        """Both domains, of whatever sizes, for methods that need no pairs.

        Raises:
            InputError: if one is missing.
        """
        if self.a is None or self.b is None:
            raise InputError("this model learns from a and b, but the batch holds one domain; give cases of both")
        return self.a, self.b


@dataclass(frozen=True)
class Kind:
    """What kind of images a sampler makes.

    Args:
        channels: of an image, masks included.
        size: (X, Y) or (X, Y, Z), voxels.
        groups: entries of each condition, in their order.
        modality: DICOM's code; what changes leave an image one of its kind hangs on it.
        masks: how many of the last channels are masks, -1 or 1.
    """

    channels: int
    size: tuple[int, ...]
    groups: tuple[int, ...] = ()
    modality: str = ""
    masks: int = 0


class Game(nn.Module, ABC):
    """A GAN as pure losses: it knows no optimizer, device, file, logger or step.

    A training step makes the fakes once, then lets each player of `order` move: sum its losses, go backwards, step.

    Attributes:
        generators: the nets that the generator owns, by the domain they make.
        discriminators: the nets that the discriminator owns, by the domain they judge; empty in a game without one.
        helpers: nets that learn along with the generator and that no translation needs; empty in most games.
        order: the players in the order of their moves.
        warm_ups: moves of the discriminator alone, each on images of its own, before those of `order`.
        takes_slopes: whether losses hold gradients of the nets; those then work in the precision of the whole step.
        centred: whether it is known beforehand which logit lies between real and fake.
    """

    generators: nn.ModuleDict
    discriminators: nn.ModuleDict
    order: tuple[Player, ...]
    warm_ups: int = 0
    takes_slopes: bool = False
    centred: bool = True

    def __init__(self) -> None:
        super().__init__()
        self.helpers = nn.ModuleDict()

    @abstractmethod
    def generate(self, batch: Batch) -> Fakes:
        """The fakes of one step, by name, with gradients."""

    @abstractmethod
    def generator_losses(self, batch: Batch, fakes: Fakes) -> Losses:
        """Named losses, weighted: the generator minimises their sum."""

    @abstractmethod
    def discriminator_losses(self, batch: Batch, fakes: Fakes) -> Losses:
        """Named losses, weighted: the discriminator minimises their sum; {} where there is none.

        The fakes come detached.
        """

    @abstractmethod
    def judge(self, batch: Batch, fakes: Fakes) -> Verdicts:
        """What the discriminator of each domain says of real images and of fakes: above 0 they are taken for real.

        These are logits less the logit between real and fake, or plain ones where that is not known (`centred`); {} in
        a game without a discriminator.
        """

    def files(self) -> dict[str, str]:
        """The SHA-256 of each file that the game learns by besides the cases, by the setting that names it."""
        return {}

    def nets(self, player: Player) -> nn.ModuleList:
        """All that a player owns and trains, as the dicts of nets that it is kept in."""
        return nn.ModuleList([self.generators, self.helpers] if player == "generator" else [self.discriminators])

    def losses(self, player: Player, batch: Batch, fakes: Fakes) -> Losses:
        """The named losses of a player, from the fakes as `generate` gave them."""
        if player == "generator":
            return self.generator_losses(batch, fakes)
        return self.discriminator_losses(batch, {name: fake.detach() for name, fake in fakes.items()})

    def require_size(self, size: Sequence[int]) -> None:
        """Refuse patches of a size (X, Y) or (X, Y, Z), voxels, that one of the nets cannot take.

        Raises:
            InputError: naming the size and what would fit.
        """
        for net in self._all_nets():
            net.require_size(size)

    @property
    def divisor(self) -> int:
        """Every spatial size of a patch is a multiple of it, voxels."""
        return max(net.divisor for net in self._all_nets())

    def _all_nets(self) -> list[Net]:
        return [cast(Net, net) for nets in (self.generators, self.discriminators) for net in nets.values()]


class Translator(Game):
    """A game whose generator turns images of one domain into another."""

    @abstractmethod
    def translate(self, x: Tensor, to: str = "b") -> Tensor:
        """(N, C, *spatial) of one domain to (N, C, *spatial) of the domain `to`, both in [-1, 1].

        Raises:
            InputError: if the game cannot make that domain.
        """


class Sampler(Game):
    """A game whose generator makes images of nothing but random numbers and what is asked for.

    Attributes:
        latent_size: random numbers of which an image is made.
    """

    latent_size: int
    takes_slopes = True

    @abstractmethod
    def sample(self, z: Tensor, condition: Tensor | None = None, truncation: float | None = None) -> Tensor:
        """(N, latent_size) normal random numbers to images (N, C, *spatial) in [-1, 1].

        Args:
            z: of each image its own.
            condition: (N, K), what is asked for; None for a game that learnt without.
            truncation: above 0; the lower, the more alike the images and, as a rule, the more regular; None for none.
                What the number means is told by the model.
        """
