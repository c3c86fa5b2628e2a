"""CUT and FastCUT: translation one way between two sets of images that are not paired, by contrasting patches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from medgan import nets
from medgan.errors import ConfigError, InputError
from medgan.losses import gan, patch_nce
from medgan.models.base import Batch, Fakes, Losses, Player, Translator, Verdicts
from medgan.models.players import DiscriminatorSettings, GeneratorSettings, in_one_pass
from medgan.nets.resnet import ResNet
from medgan.settings import Settings

__all__ = ["CUT", "CUTSettings", "PatchHeads"]

IMAGE = -1  # the last layer of a generator
LEFT_RIGHT = 2  # the first spatial axis of (N, C, X, Y, Z)


class CUTGeneratorSettings(GeneratorSettings):
    """An antialiased residual generator with instance norm unless told otherwise; its first half is the encoder."""

    name: Literal["resnet_9blocks", "resnet_6blocks"] = "resnet_9blocks"
    norm: nets.NormName = "instance"
    antialias: bool = True


class CUTDiscriminatorSettings(DiscriminatorSettings):
    """An antialiased PatchGAN with instance norm unless told otherwise."""

    norm: nets.NormName = "instance"
    antialias: bool = True


class CUTSettings(Settings):
    """The settings of CUT; the defaults are the published ones.

    FastCUT is `lambda_nce: 10`, `identity: false`, `flip: true`.

    Attributes:
        name: picks this model.
        generator: `resnet_9blocks` with instance norm, width 64, antialiased.
        discriminator: a PatchGAN with instance norm, width 64, antialiased.
        gan: the adversarial loss.
        lambda_nce: weight of the contrastive loss, against 1 for the adversarial loss.
        identity: contrast also b with what the generator makes of b; each then counts half.
        flip: half of the time translate mirrored patches of a, and contrast with the mirrored features of a.
        num_patches: places an image and layer that are contrasted with one another.
        temperature: of the contrast; less counts the most similar places alone.
    """

    paired: ClassVar[bool] = False

    name: Literal["cut"] = "cut"
    generator: CUTGeneratorSettings = CUTGeneratorSettings()
    discriminator: CUTDiscriminatorSettings = CUTDiscriminatorSettings()
    gan: Literal["vanilla", "lsgan", "hinge"] = "lsgan"
    lambda_nce: float = Field(default=1.0, gt=0)
    identity: bool = True
    flip: bool = False
    num_patches: int = Field(default=256, ge=2)
    temperature: float = Field(default=0.07, gt=0)

    def build(self, *, in_channels: int, out_channels: int, spatial_dims: int) -> CUT:
        """The game with fresh weights."""
        return CUT(self, in_channels=in_channels, out_channels=out_channels, spatial_dims=spatial_dims)


class CUT(Translator):
    """Learns a → b from images of both that need not show the same patients.

    What the encoder, the generator's own first half, sees at a place of the fake has to be more like what it sees at
    that place of a than at other places of a.

    Args:
        settings: nets and weights.
        in_channels: channels of a.
        out_channels: channels of b.
        spatial_dims: 2 or 3.

    Raises:
        ConfigError: if a and b differ in channels: one encoder reads both.

    Source:
        Park, Efros, Zhang, Zhu 2020, "Contrastive Learning for Unpaired Image-to-Image Translation",
        arXiv:2007.15651: eq. 1 (adversarial), 3 (PatchNCE) and 5 (objective). What the paper leaves open is as in its
        reference implementation.
    """

    order: tuple[Player, ...] = ("discriminator", "generator")

    def __init__(self, settings: CUTSettings, *, in_channels: int, out_channels: int, spatial_dims: int) -> None:
        super().__init__()
        if in_channels != out_channels:
            raise ConfigError(
                f"model.name: cut reads a and its fakes by one encoder, but a has {in_channels} channels and b "
                f"{out_channels}; give both as many, or take cyclegan with model.lambda_identity=0"
            )
        self.settings = settings
        self.gan = gan(settings.gan)
        generator = cast(ResNet, settings.generator.build(in_channels, out_channels, spatial_dims))
        self.taps = tuple(generator.taps)
        self.generators = nn.ModuleDict({"b": generator})
        self.discriminators = nn.ModuleDict({"b": settings.discriminator.build(out_channels, spatial_dims)})
        self.helpers = nn.ModuleDict({"b": PatchHeads(generator.taps.values())})
        nets.init_weights(self, how="xavier")

    def generate(self, batch: Batch) -> Fakes:
        """`b`, the translation of a, and with the identity `same_b`, what the generator makes of b.

        Beside them, without gradient, the features of what each was made of: `b_key_0` and so on, one a tap.
        """
        a, b = batch.both()
        sources = [a, b] if self.settings.identity else [a]
        mirrored = self.settings.flip and bool(torch.rand(()) < 0.5)
        seen = self._see([_mirror(x) for x in sources] if mirrored else sources, (*self.taps, IMAGE))
        keys = self._mirrored_keys(sources) if mirrored else [features[:-1] for features in seen]
        fakes: Fakes = {}
        for name, features, own in zip(self._names(), seen, keys, strict=True):
            fakes[name] = features[-1]
            fakes |= {f"{name}_key_{tap}": key.detach() for tap, key in zip(self.taps, own, strict=True)}
        return fakes

    def generator_losses(self, batch: Batch, fakes: Fakes) -> Losses:  # noqa: ARG002 (the fakes hold the keys)
        """`G_GAN`, `G_NCE` and, with the identity, `G_NCE_identity`, weighted."""
        losses = {"G_GAN": self.gan.fool(self.discriminators["b"](fakes["b"]))}
        names = self._names()
        weight = self.settings.lambda_nce / len(names)
        for name, queries in zip(names, self._see([fakes[name] for name in names], self.taps), strict=True):
            keys = [fakes[f"{name}_key_{tap}"] for tap in self.taps]
            losses["G_NCE" if name == "b" else "G_NCE_identity"] = weight * self._contrast(queries, keys)
        return losses

    def discriminator_losses(self, batch: Batch, fakes: Fakes) -> Losses:
        """`D_fake` and `D_real`, half of the adversarial loss each."""
        on_real, on_fake = self._judge(batch, fakes)
        return {"D_fake": 0.5 * self.gan.fake(on_fake), "D_real": 0.5 * self.gan.real(on_real)}

    def judge(self, batch: Batch, fakes: Fakes) -> Verdicts:
        """Of b and of the translation of a."""
        on_real, on_fake = self._judge(batch, fakes)
        return {"b": (on_real - self.gan.middle, on_fake - self.gan.middle)}

    def translate(self, x: Tensor, to: str = "b") -> Tensor:
        """(N, channels, *spatial) of a to the same shape of b, both in [-1, 1].

        Raises:
            InputError: if `to` is not "b": CUT learns one direction.
        """
        if to != "b":
            raise InputError(f"cut translates from a to b only; seen to={to!r}; swap a and b and train again")
        fake: Tensor = self.generators["b"](x)
        return fake

    def _names(self) -> tuple[str, ...]:
        return ("b", "same_b") if self.settings.identity else ("b",)

    def _judge(self, batch: Batch, fakes: Fakes) -> tuple[Tensor, Tensor]:
        _, b = batch.both()
        discriminator, norm = self.discriminators["b"], self.settings.discriminator.norm
        (on_real,), (on_fake,) = in_one_pass(lambda x: [discriminator(x)], [b, fakes["b"]], norm)
        return on_real, on_fake

    def _see(self, images: Sequence[Tensor], taps: Sequence[int]) -> list[list[Tensor]]:
        """The outputs of layers of the generator, for each image."""
        generator = self.generators["b"]
        return in_one_pass(lambda x: cast(list[Tensor], generator(x, taps)), images, self.settings.generator.norm)

    @torch.no_grad()
    def _mirrored_keys(self, images: Sequence[Tensor]) -> list[list[Tensor]]:
        """As published, what is made of the mirrored image is held to the features of the image itself."""
        return [[_mirror(key) for key in keys] for keys in self._see(images, self.taps)]

    def _contrast(self, queries: Sequence[Tensor], keys: Sequence[Tensor]) -> Tensor:
        """PatchNCE at random places, the same in a fake and its source, averaged over the taps."""
        places = [torch.randperm(key[0, 0].numel(), device=key.device)[: self.settings.num_patches] for key in keys]
        heads = self.helpers["b"]
        pairs = zip(heads(queries, places), heads(keys, places), strict=True)
        return torch.stack([patch_nce(*pair, self.settings.temperature) for pair in pairs]).mean()


class PatchHeads(nn.Module):
    """The net F of CUT: features at some places to vectors of length 1, by a perceptron of two layers a tap.

    Args:
        channels: of the features at each tap.
        width: of both layers.

    Source:
        Park et al. 2020, arXiv:2007.15651, §3, after Chen et al. 2020, arXiv:2002.05709 (SimCLR).
    """

    def __init__(self, channels: Iterable[int], width: int = 256) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(ins, width), nn.ReLU(inplace=True), nn.Linear(width, width)) for ins in channels
        )

    def forward(self, features: Sequence[Tensor], places: Sequence[Tensor]) -> list[Tensor]:
        """(N, C, *spatial) a tap, and P flat indices into their voxels, to (N, P, width) a tap."""
        taps = zip(self.heads, features, places, strict=True)
        return [_unit(head(x.flatten(2)[:, :, at].transpose(1, 2))) for head, x, at in taps]


def _unit(x: Tensor) -> Tensor:
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    unit: Tensor = x / (torch.linalg.vector_norm(x, dim=-1, keepdim=True) + 1e-7)
    return unit


def _mirror(x: Tensor) -> Tensor:
    return x.flip(LEFT_RIGHT)
