"""What models that learn from pairs have in common: one direction, and a discriminator that sees a next to b."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn

from medgan.errors import InputError
from medgan.losses import Adversarial, feature_distance
from medgan.models.base import Batch, Fakes, Losses, Player, Translator, Verdicts
from medgan.models.perceptual import PerceptualSettings
from medgan.models.players import DiscriminatorSettings
from medgan.nets import Net
from medgan.nets.patchgan import Judge, MultiScale, Seen

__all__ = ["Conditional", "PairedDiscriminatorSettings"]


class PairedDiscriminatorSettings(DiscriminatorSettings):
    """The net that judges images, at one size or several.

    Attributes:
        scales: 1 to 3 discriminators; the second judges the image at half its size, the third at a quarter.
    """

    scales: int = Field(default=1, ge=1, le=3)

    def build(self, in_channels: int, spatial_dims: int) -> Net:
        """The net itself, its weights drawn from torch's global random numbers."""
        build = super().build
        judges = [cast(Judge, build(in_channels, spatial_dims)) for _ in range(self.scales)]
        return MultiScale(judges) if self.scales > 1 else judges[0]


class Conditional(Translator):
    """Learns b from a in pairs; what the generator is to minimise is left to each model.

    Args:
        name: of the model, for errors.
        generator: makes b.
        discriminator: judges a and b as one image; None for a game without one.
        gan: the adversarial loss.
        out_channels: of b.
        lambda_feature: weight of the distance between what the discriminator sees in fake and target; 0 for none.
        perceptual: which net trained elsewhere compares them, and how much that counts; None for none.
        sees_source: whether the discriminator is shown a as well.
    """

    def __init__(
        self,
        name: str,
        generator: Net,
        discriminator: Net | None,
        gan: Adversarial,
        *,
        out_channels: int,
        lambda_feature: float = 0.0,
        perceptual: PerceptualSettings | None = None,
        sees_source: bool = True,
    ) -> None:
        super().__init__()
        self.name, self.gan = name, gan
        self.lambda_feature, self.sees_source = lambda_feature, sees_source
        self.perceptual = perceptual.build(out_channels) if perceptual else None
        self.lambda_perceptual = perceptual.weight if perceptual else 0.0
        self.order: tuple[Player, ...] = ("discriminator", "generator") if discriminator else ("generator",)
        self.generators = nn.ModuleDict({"b": generator})
        self.discriminators = nn.ModuleDict({"b": discriminator} if discriminator else {})

    def require_size(self, size: Sequence[int]) -> None:
        """Refuse patches of a size, voxels, that a net cannot take; and a perceptual loss whose net cannot be had.

        Raises:
            InputError: naming the size and what would fit.
            ConfigError: naming the net of the perceptual loss, if it cannot be read or does not see such patches.
        """
        super().require_size(size)
        if self.perceptual:
            self.perceptual.require_size(size)
            self.perceptual.load()

    def generate(self, batch: Batch) -> Fakes:
        """{"b": the translation of a}."""
        a, _ = batch.pair()
        return {"b": self.translate(a)}

    def discriminator_losses(self, batch: Batch, fakes: Fakes) -> Losses:
        """`D_fake` and `D_real`, half of the adversarial loss each, summed over scales; {} without a discriminator."""
        if not self.discriminators:
            return {}
        a, b = batch.pair()
        return {
            "D_fake": 0.5 * _summed(self.gan.fake, self.verdicts(a, fakes["b"])),
            "D_real": 0.5 * _summed(self.gan.real, self.verdicts(a, b)),
        }

    def adversarial_losses(self, batch: Batch, fakes: Fakes, weight: float = 1.0) -> Losses:
        """`G_GAN` times a weight, summed over scales, and `G_feature` unless its weight is 0.

        The discriminator looks at the fake once for both.
        """
        a, b = batch.pair()
        if not self.lambda_feature:
            return {"G_GAN": weight * _summed(self.gan.fool, self.verdicts(a, fakes["b"]))}
        seen = self.look(a, fakes["b"])
        with torch.no_grad():
            wanted = self.look(a, b)
        distance = feature_distance([features for *features, _ in seen], [features for *features, _ in wanted])
        return {
            "G_GAN": weight * _summed(self.gan.fool, [logits for *_, logits in seen]),
            "G_feature": self.lambda_feature * distance,
        }

    def files(self) -> dict[str, str]:
        """That of the net that was trained elsewhere, if one compares."""
        return {f"perceptual.{self.perceptual.setting}": self.perceptual.sha256} if self.perceptual else {}

    def perceptual_losses(self, fake: Tensor, b: Tensor) -> Losses:
        """`G_perceptual`, weighted; {} where no net trained elsewhere has a say."""
        return {"G_perceptual": self.lambda_perceptual * self.perceptual(fake, b)} if self.perceptual else {}

    def judge(self, batch: Batch, fakes: Fakes) -> Verdicts:
        """Of a next to b, and of a next to the fake, all scales in one row; {} without a discriminator."""
        if not self.discriminators:
            return {}
        a, b = batch.pair()
        real, fake = (torch.cat([x.flatten(1) for x in self.verdicts(a, image)], 1) for image in (b, fakes["b"]))
        return {"b": (real - self.gan.middle, fake - self.gan.middle)}

    def translate(self, x: Tensor, to: str = "b") -> Tensor:
        """(N, in_channels, *spatial) to (N, out_channels, *spatial) in [-1, 1].

        Raises:
            InputError: if `to` is not "b".
        """
        if to != "b":
            raise InputError(f"{self.name} translates from a to b only; seen to={to!r}; swap a and b and train again")
        fake: Tensor = self.generators["b"](x)
        return fake

    def verdicts(self, a: Tensor, b: Tensor) -> list[Tensor]:
        """The discriminator's logits on a next to b, a map a scale."""
        logits = self.discriminators["b"](self._shown(a, b))
        return logits if isinstance(logits, list) else [logits]

    def look(self, a: Tensor, b: Tensor) -> Seen:
        """What the discriminator sees in a next to b: for each scale its features, and at the end its logits."""
        return cast(Seen, self.discriminators["b"](self._shown(a, b), features=True))

    def _shown(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([a, b], 1) if self.sees_source else b


def _summed(loss: Callable[[Tensor], Tensor], verdicts: Sequence[Tensor]) -> Tensor:
    return torch.stack([loss(logits) for logits in verdicts]).sum()
