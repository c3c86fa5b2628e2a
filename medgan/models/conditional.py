"""What models that learn from pairs have in common: one direction, and a discriminator that sees a next to b."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medgan.errors import InputError
from medgan.losses import Adversarial
from medgan.models.base import Batch, Fakes, Losses, Player, Translator, Verdicts
from medgan.nets import Net

__all__ = ["Conditional"]


class Conditional(Translator):
    """Learns b from a in pairs; what the generator is to minimise is left to each model.

    Args:
        name: of the model, for errors.
        generator: makes b.
        discriminator: judges a and b as one image; None for a game without one.
        gan: the adversarial loss.
    """

    def __init__(self, name: str, generator: Net, discriminator: Net | None, gan: Adversarial) -> None:
        super().__init__()
        self.name, self.gan = name, gan
        self.order: tuple[Player, ...] = ("discriminator", "generator") if discriminator else ("generator",)
        self.generators = nn.ModuleDict({"b": generator})
        self.discriminators = nn.ModuleDict({"b": discriminator} if discriminator else {})

    def generate(self, batch: Batch) -> Fakes:
        """{"b": the translation of a}."""
        a, _ = batch.pair()
        return {"b": self.translate(a)}

    def discriminator_losses(self, batch: Batch, fakes: Fakes) -> Losses:
        """`D_fake` and `D_real`, half of the adversarial loss each; {} without a discriminator."""
        if not self.discriminators:
            return {}
        a, b = batch.pair()
        return {
            "D_fake": 0.5 * self.gan.fake(self.verdict(a, fakes["b"])),
            "D_real": 0.5 * self.gan.real(self.verdict(a, b)),
        }

    def judge(self, batch: Batch, fakes: Fakes) -> Verdicts:
        """Of a next to b, and of a next to the fake; {} without a discriminator."""
        if not self.discriminators:
            return {}
        a, b = batch.pair()
        return {"b": (self.verdict(a, b) - self.gan.middle, self.verdict(a, fakes["b"]) - self.gan.middle)}

    def translate(self, x: Tensor, to: str = "b") -> Tensor:
        """(N, in_channels, *spatial) to (N, out_channels, *spatial) in [-1, 1].

        Raises:
            InputError: if `to` is not "b".
        """
        if to != "b":
            raise InputError(f"{self.name} translates from a to b only; seen to={to!r}; swap a and b and train again")
        fake: Tensor = self.generators["b"](x)
        return fake

    def verdict(self, a: Tensor, b: Tensor) -> Tensor:
        """The discriminator's logits on a next to b."""
        logits: Tensor = self.discriminators["b"](torch.cat([a, b], 1))
        return logits
