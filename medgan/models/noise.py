"""What all samplers share: images of random numbers, the adversarial losses, and what holds the critic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from medgan.losses import Adversarial
from medgan.models.base import Batch, Fakes, Kind, Losses, Sampler, Verdicts
from medgan.nets.adaptive import Adaptive, Operation, operations_for
from medgan.nets.dcgan import Critic
from medgan.penalties import gradient_penalty, r1
from medgan.processes import gathered
from medgan.settings import Settings

__all__ = ["AdaptiveSettings", "Conditional", "FromNoise", "Penalties", "truncated"]

Conditional = Literal["never", "may", "always"]


class Penalties(Settings):
    """What holds the discriminator's gradient; each is 0 for none.

    Attributes:
        gradient: weight of the squared distance of its length from 1, between real images and fakes (WGAN-GP).
        r1: γ of its squared length at real images, times ½.
        r2: the same at fakes.
        drift: weight of the squared logits of real images, so that a critic's do not wander off.
        every: moves of the discriminator between two in which r1 and r2 are taken, as many times as strong then.
    """

    gradient: float = Field(default=0.0, ge=0)
    r1: float = Field(default=0.0, ge=0)
    r2: float = Field(default=0.0, ge=0)
    drift: float = Field(default=0.0, ge=0)
    every: int = Field(default=1, ge=1)


class AdaptiveSettings(Settings):
    """Random changes of what the discriminator sees, real images and fakes alike, for small data sets (ADA).

    Attributes:
        operations: by name; null for those that suit the modality, see `medgan.nets.adaptive`.
        target: the mean sign of the discriminator's logits of real images that their strength follows.
    """

    operations: tuple[Operation, ...] | None = None
    target: float = Field(default=0.6, gt=0, lt=1)

    def build(self, kind: Kind) -> Adaptive:
        """The changes, at strength 0."""
        operations = operations_for(kind.modality) if self.operations is None else self.operations
        return Adaptive(operations, len(kind.size), num_images=kind.channels - kind.masks if kind.masks else None)


class FromNoise(Sampler):
    """A generator of images from normal random numbers, and one discriminator of whole images.

    Args:
        generator: (N, latent_size) and a condition to images.
        discriminator: images and a condition to logits.
        adversarial: the losses on the logits.
        latent_size: random numbers that an image is made of.
        penalties: what holds the discriminator.
        groups: entries of each condition, in their order.
        centred: whether the logit halfway between real images and fakes is `adversarial.middle`; a critic's is
            anywhere.
        adaptive: changes of what the discriminator sees, and the sign of its logits that they follow.
    """

    order = ("discriminator", "generator")
    moves: Tensor

    def __init__(
        self,
        generator: nn.Module,
        discriminator: Critic,
        adversarial: Adversarial,
        *,
        latent_size: int,
        penalties: Penalties | None = None,
        groups: Sequence[int] = (),
        centred: bool = True,
        adaptive: tuple[Adaptive, float] | None = None,
    ) -> None:
        super().__init__()
        self.generators = nn.ModuleDict({"b": generator})
        self.discriminators = nn.ModuleDict({"b": discriminator})
        self.adversarial, self.penalties, self.latent_size = adversarial, penalties or Penalties(), latent_size
        self.groups, self.centred = list(groups), centred
        self.adaptive: Adaptive | None = adaptive[0] if adaptive else None
        self.target = adaptive[1] if adaptive else 0.0
        self.register_buffer("moves", torch.zeros((), dtype=torch.long))

    @property
    def maker(self) -> nn.Module:
        """The generator."""
        return self.generators["b"]

    @property
    def critic(self) -> Critic:
        """The discriminator."""
        return cast(Critic, self.discriminators["b"])

    def noise(self, like: Tensor) -> Tensor:
        """As many rows of random numbers as there are images."""
        return torch.randn(len(like), self.latent_size, device=like.device)

    def generate(self, batch: Batch) -> Fakes:
        """`b`: as many images as the batch has, with the conditions of those."""
        return {"b": self.maker(self.noise(batch.images()), batch.condition)}

    def seen(self, x: Tensor) -> Tensor:
        """What the discriminator sees of images, (N, C, *spatial)."""
        if self.adaptive is None:
            return x
        changed: Tensor = self.adaptive(x)
        return changed

    def follow(self, of_real: Tensor) -> None:
        """Let the changes follow how well the discriminator knows the real images."""
        if self.adaptive is not None:
            signs = gathered(float(of_real.sign().mean()))  # so that all processes change alike
            self.adaptive.follow(sum(signs) / len(signs), len(of_real) * len(signs), target=self.target)

    def generator_losses(self, batch: Batch, fakes: Fakes) -> Losses:
        """`G_GAN`, and `G_guess` where the discriminator guesses conditions."""
        logits, guess = self.critic.told(self.seen(fakes["b"]), batch.condition)
        losses = {"G_GAN": self.adversarial.fool(logits)}
        return losses if guess is None else losses | {"G_guess": self.mistaken(guess, batch)}

    def discriminator_losses(self, batch: Batch, fakes: Fakes) -> Losses:
        """`D_real`, `D_fake`, `D_guess` where it guesses conditions, and the penalties that are asked for."""
        net, real, fake = self.critic, self.seen(batch.images()), self.seen(fakes["b"])
        of_real, guess = net.told(real, batch.condition)
        of_fake, _ = net.told(fake, batch.condition)
        self.follow(of_real.detach())
        losses = {"D_real": self.adversarial.real(of_real), "D_fake": self.adversarial.fake(of_fake)}
        if guess is not None:
            losses["D_guess"] = self.mistaken(guess, batch)
        if self.penalties.drift:
            losses["D_drift"] = self.penalties.drift * of_real.float().square().mean()
        return losses | self.held(batch, fakes)

    def held(self, batch: Batch, fakes: Fakes) -> Losses:
        """`D_gradient` at every move, and when due `D_R1` and `D_R2`: through the changes, if there are any."""

        def judge(x: Tensor) -> Tensor:
            logits: Tensor = self.critic(self.seen(x), batch.condition)
            return logits

        losses, weights, real, fake = {}, self.penalties, batch.images(), fakes["b"]
        if weights.gradient:
            losses["D_gradient"] = weights.gradient * gradient_penalty(judge, real, fake)
        if (times := self.times(weights.every)) and weights.r1:
            losses["D_R1"] = times * weights.r1 * r1(judge, real)
        if times and weights.r2:
            losses["D_R2"] = times * weights.r2 * r1(judge, fake)
        return losses

    def times(self, every: int) -> int:
        """How many moves' worth of a penalty is paid at this move of the discriminator, which is counted.

        Over `every` moves these add up to as many, as if it had been paid at each.

        Source:
            Karras et al. 2020, arXiv:1912.04958, §3.1 (lazy regularization).
        """
        if every == 1:
            return 1
        due = int(self.moves) % every == 0
        self.moves += 1
        return every if due else 0

    def mistaken(self, guess: Tensor, batch: Batch) -> Tensor:
        """Cross entropy of a guess, (N, K) logits, to the conditions of the batch; a mean over them."""
        known = cast(Tensor, batch.condition)
        parts = zip(torch.split(guess.float(), self.groups, 1), torch.split(known, self.groups, 1), strict=True)
        return torch.stack([F.cross_entropy(logits, wanted) for logits, wanted in parts]).mean()

    def judge(self, batch: Batch, fakes: Fakes) -> Verdicts:
        """What the discriminator says of the images and of the fakes, above 0 for real if `centred`."""
        net = self.critic
        real, fake = (net(x, batch.condition) for x in (batch.images(), fakes["b"]))
        middle = self.adversarial.middle if self.centred else 0
        return {"b": (real - middle, fake - middle)}

    def sample(self, z: Tensor, condition: Tensor | None = None, truncation: float | None = None) -> Tensor:
        """(N, latent_size) normal random numbers to images (N, C, *spatial) in [-1, 1].

        Args:
            z: of each image its own.
            condition: (N, K), what is asked for.
            truncation: the largest random number, as BigGAN's threshold; None for none.
        """
        x: Tensor = self.maker(z if truncation is None else truncated(z, truncation), condition)
        return x.clamp(-1, 1)


def truncated(z: Tensor, threshold: float) -> Tensor:
    """Normal random numbers to those of the normal distribution cut off at ±threshold, quantile by quantile.

    What BigGAN draws anew until it lies within the threshold is distributed alike; here each number has one image, so
    that two thresholds can be compared sample by sample.

    Source:
        Brock, Donahue, Simonyan 2019, arXiv:1809.11096, §3.1.

    Example:
        >>> truncated(torch.tensor([-9.0, 0.0, 9.0]), 0.5).tolist()
        [-0.5, 0.0, 0.5]
    """
    least = torch.special.ndtr(torch.tensor(-threshold, dtype=torch.float64, device=z.device))
    share = least + (1 - 2 * least) * torch.special.ndtr(z.double())
    cut: Tensor = torch.special.ndtri(share)
    return cut.clamp(-threshold, threshold).to(z.dtype)
