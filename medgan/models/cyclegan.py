"""CycleGAN: translation both ways between two sets of images that are not paired."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from medgan import nets
from medgan.errors import ConfigError, InputError
from medgan.losses import gan, l1
from medgan.models.base import Batch, Fakes, Losses, Player, Translator, Verdicts
from medgan.models.players import DiscriminatorSettings, GeneratorSettings, in_one_pass
from medgan.models.pool import Pool
from medgan.settings import Settings

__all__ = ["CycleGAN", "CycleGANSettings"]


class CycleGANGeneratorSettings(GeneratorSettings):
    """A residual generator with instance norm unless told otherwise."""

    name: nets.GeneratorName = "resnet_9blocks"
    norm: nets.NormName = "instance"


class CycleGANDiscriminatorSettings(DiscriminatorSettings):
    """A PatchGAN with instance norm unless told otherwise."""

    norm: nets.NormName = "instance"


class CycleGANSettings(Settings):
    """The settings of CycleGAN; the defaults are the published ones. Both directions have the same nets.

    Attributes:
        name: picks this model.
        generator: `resnet_9blocks` with instance norm, width 64.
        discriminator: the 70×70 PatchGAN with instance norm, width 64.
        gan: the adversarial loss.
        lambda_a: weight of the L1 distance of a → b → a to a, against 1 for the adversarial loss.
        lambda_b: weight of the L1 distance of b → a → b to b.
        lambda_identity: what an image should not change that is of the target's domain already: the weight of that
            L1 distance as a share of the other two; 0 leaves it out.
        pool: older fakes that each discriminator remembers.
    """

    paired: ClassVar[bool] = False

    name: Literal["cyclegan"] = "cyclegan"
    generator: CycleGANGeneratorSettings = CycleGANGeneratorSettings()
    discriminator: CycleGANDiscriminatorSettings = CycleGANDiscriminatorSettings()
    gan: Literal["vanilla", "lsgan", "hinge"] = "lsgan"
    lambda_a: float = Field(default=10.0, ge=0)
    lambda_b: float = Field(default=10.0, ge=0)
    lambda_identity: float = Field(default=0.5, ge=0)
    pool: int = Field(default=50, ge=0)

    def build(self, *, in_channels: int, out_channels: int, spatial_dims: int) -> CycleGAN:
        """The game with fresh weights."""
        return CycleGAN(self, in_channels=in_channels, out_channels=out_channels, spatial_dims=spatial_dims)


class CycleGAN(Translator):
    """Learns a → b and b → a from images of both that need not show the same patients.

    Each generator wants its fakes taken for real, and the other one to undo what it did.

    Args:
        settings: nets and weights.
        in_channels: channels of a.
        out_channels: channels of b.
        spatial_dims: 2 or 3.

    Raises:
        ConfigError: if a and b differ in channels although the identity is to be kept.

    Source:
        Zhu et al. 2017, arXiv:1703.10593: eq. 3 (objective), §4 (least squares, the pool; the discriminator's
        objective is halved), §5.2 (identity).
    """

    order: tuple[Player, ...] = ("generator", "discriminator")

    def __init__(self, settings: CycleGANSettings, *, in_channels: int, out_channels: int, spatial_dims: int) -> None:
        super().__init__()
        if settings.lambda_identity and in_channels != out_channels:
            raise ConfigError(
                f"model.lambda_identity: a has {in_channels} channels and b {out_channels}, so neither can pass for "
                "the other; set it to 0"
            )
        self.settings = settings
        self.gan = gan(settings.gan)
        channels = {"a": in_channels, "b": out_channels}
        make, judge = settings.generator, settings.discriminator
        self.generators = nn.ModuleDict(
            {to: make.build(channels[_other(to)], channels[to], spatial_dims) for to in ("b", "a")}
        )
        self.discriminators = nn.ModuleDict({of: judge.build(channels[of], spatial_dims) for of in ("b", "a")})
        self.pools = nn.ModuleDict({of: Pool(settings.pool) for of in ("b", "a")})

    def generate(self, batch: Batch) -> Fakes:
        """The translations `b` and `a`, their ways back `cycle_a` and `cycle_b`, and what each generator makes of an
        image that is of its domain already, `same_b` and `same_a`.
        """
        a, b = batch.both()
        fakes: Fakes = {}
        for to, source, own in (("b", a, b), ("a", b, a)):
            if self.settings.lambda_identity:
                fakes[to], fakes[f"same_{to}"] = _both(self.generators[to], source, own, self.settings.generator)
            else:
                fakes[to] = self.translate(source, to)
        return fakes | {"cycle_a": self.translate(fakes["b"], "a"), "cycle_b": self.translate(fakes["a"], "b")}

    def generator_losses(self, batch: Batch, fakes: Fakes) -> Losses:
        """For each domain `G_GAN`, `G_cycle` and, unless its weight is 0, `G_identity`, weighted."""
        a, b = batch.both()
        weights = {"a": self.settings.lambda_a, "b": self.settings.lambda_b}
        losses: Losses = {}
        for domain, real in (("b", b), ("a", a)):
            losses[f"G_GAN_{domain}"] = self.gan.fool(self.discriminators[domain](fakes[domain]))
            losses[f"G_cycle_{domain}"] = weights[domain] * l1(fakes[f"cycle_{domain}"], real)
            if self.settings.lambda_identity:
                weight = weights[domain] * self.settings.lambda_identity
                losses[f"G_identity_{domain}"] = weight * l1(fakes[f"same_{domain}"], real)
        return losses

    def discriminator_losses(self, batch: Batch, fakes: Fakes) -> Losses:
        """For each domain `D_fake`, on fakes from the pool, and `D_real`, half of the adversarial loss each."""
        a, b = batch.both()
        losses: Losses = {}
        for domain, real in (("b", b), ("a", a)):
            fake = self.pools[domain](fakes[domain])
            on_fake, on_real = _both(self.discriminators[domain], fake, real, self.settings.discriminator)
            losses[f"D_fake_{domain}"] = 0.5 * self.gan.fake(on_fake)
            losses[f"D_real_{domain}"] = 0.5 * self.gan.real(on_real)
        return losses

    def judge(self, batch: Batch, fakes: Fakes) -> Verdicts:
        """Of both domains, on the fakes themselves and none of the pool."""
        a, b = batch.both()
        return {
            domain: (judge(real) - self.gan.middle, judge(fakes[domain]) - self.gan.middle)
            for domain, real, judge in (("b", b, self.discriminators["b"]), ("a", a, self.discriminators["a"]))
        }

    def translate(self, x: Tensor, to: str = "b") -> Tensor:
        """(N, channels of one domain, *spatial) to (N, channels of the domain `to`, *spatial), both in [-1, 1].

        Raises:
            InputError: if `to` is neither "a" nor "b".
        """
        if to not in self.generators:
            raise InputError(f"cyclegan translates to a or b; seen to={to!r}")
        fake: Tensor = self.generators[to](x)
        return fake


def _other(domain: str) -> str:
    return "a" if domain == "b" else "b"


def _both(
    net: nn.Module, one: Tensor, other: Tensor, player: GeneratorSettings | DiscriminatorSettings
) -> Iterator[Tensor]:
    return (made for (made,) in in_one_pass(lambda x: [net(x)], [one, other], player.norm))
