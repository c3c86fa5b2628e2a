"""What a discriminator is shown instead of the images, where they are few: random changes of real ones and fakes alike.

Each change strikes each sample with probability p, which follows how well the discriminator knows the real images. As
long as p stays below about 0.8 no change can pass for a trait of the images, so the generator does not learn it (Karras
et al. 2020, arXiv:2006.06676, §2.2). Which changes leave an image of one kind of scanner an image of that kind is told
by `operations_for`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medgan.errors import ConfigError
from medgan.nets.equalised import neighbours_summed
from medgan.nets.warp import warped

__all__ = ["Adaptive", "Operation", "operations_for"]

Operation = Literal[
    "flip",
    "quarter_turn",
    "shift",
    "scale",
    "stretch",
    "rotate",
    "brightness",
    "contrast",
    "gamma",
    "blur",
    "noise",
    "cutout",
]
"""In the order in which they are done.

flip: along the first axis, half of the time. quarter_turn: by 0, 90, 180 or 270 degrees in the plane of the first two
axes. shift: by whole voxels, up to 1/8 of each side. scale: all axes alike, by 2^N(0, 0.2). stretch: each axis by
2^N(0, 0.1). rotate: by up to 10 degrees in the plane of the first two axes. brightness: adds N(0, 0.1). contrast:
multiplies the height above the background by 2^N(0, 0.25). gamma: bends the middle of the range by up to a third,
both ends fixed. blur: up to a binomial of five voxels. noise: of a standard deviation |N(0, 0.05)|. cutout: a box of
half of each side becomes background.
"""

BACKGROUND = -1.0  # what a network sees of air
MOST_P = 0.8  # beyond it generators begin to learn the changes
TARGET = 0.6
IMAGES_TO_CERTAINTY = 500_000  # that it takes p from 0 to 1
_MOVES: tuple[Operation, ...] = ("shift", "scale", "stretch", "rotate")
_EXPOSED: tuple[Operation, ...] = (*_MOVES, "brightness", "contrast", "cutout")
_UNSCALED: tuple[Operation, ...] = (*_MOVES, "brightness", "contrast", "gamma", "cutout")
_OF_MODALITY = {"MR": _UNSCALED, "US": _UNSCALED} | dict.fromkeys(("CR", "DX", "MG", "RF", "XA"), _EXPOSED)


def operations_for(modality: str) -> tuple[Operation, ...]:
    """The changes that suit images of a modality; none of them mirrors, turns upside down or inverts.

    All kinds take small moves, zooms and turns, and boxes that are cut out: a patient may lie so. Those in which a
    value is a quantity (CT in HU, PT in SUV) take no more: a discriminator that saw them brightened would let wrong
    values pass. MR and ultrasound have no such scale, so brightness, contrast and gamma change, as from scanner to
    scanner. Radiographs (CR, DX, MG, RF, XA) depend on exposure, and take brightness and contrast. Any other modality,
    and "", is taken for a quantity.

    Args:
        modality: DICOM's code.

    Example:
        >>> operations_for("CT")
        ('shift', 'scale', 'stretch', 'rotate', 'cutout')
    """
    return _OF_MODALITY.get(modality, (*_MOVES, "cutout"))


class Adaptive(nn.Module):
    """Changes each sample by each of the operations with probability p; gradients pass through.

    Random numbers are torch's global ones. What comes in from beyond the edge, and what is cut out, is background, −1.

    Args:
        operations: which; they are done in the order of `Operation`.
        spatial_dims: 2 or 3.
        p: at the start.
        num_images: leading channels that hold intensities; those behind them, such as masks, are moved and cut out
            alike, and keep their values. All if not given.

    Attributes:
        p: a buffer, so that it is saved and resumed.

    Raises:
        ConfigError: for an unknown operation.

    Source:
        Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", arXiv:2006.06676, §2 and
        appendix B; strengths are milder here, as are the operations.
    """

    p: Tensor

    def __init__(
        self, operations: Sequence[Operation], spatial_dims: int, *, p: float = 0.0, num_images: int | None = None
    ) -> None:
        super().__init__()
        if unknown := [name for name in operations if name not in get_args(Operation)]:
            raise ConfigError(f"unknown operation {unknown[0]!r}; accepted: {', '.join(get_args(Operation))}")
        self.operations: tuple[Operation, ...] = tuple(name for name in get_args(Operation) if name in operations)
        self.spatial_dims, self.num_images = spatial_dims, num_images
        self.register_buffer("p", torch.tensor(float(p)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) in [-1, 1] to the same shape; x itself where p is 0."""
        if not self.p:
            return x
        with torch.autocast(x.device.type, enabled=False):  # places take more digits than bfloat16 has
            x = self._moved(x)
        images, masks = (x, x[:, :0]) if self.num_images is None else x.tensor_split([self.num_images], 1)
        for name, change in _INTENSITY.items():
            if name in self.operations:
                images = change(images, _beside(self._struck(x), x))
        x = torch.cat([images, masks], 1) if masks.shape[1] else images
        return _cut_out(x, _beside(self._struck(x), x)) if "cutout" in self.operations else x

    def follow(self, sign: float, num_images: int, *, target: float = TARGET) -> None:
        """Move p towards where the discriminator knows the real images as well as it should: at most to 0.8.

        Args:
            sign: mean of sign(D(real)) since it was last moved: near 0 for a discriminator that knows nothing by heart,
                1 for one that knows all.
            num_images: real images that the discriminator saw since then; 500,000 take p from 0 to 1.
            target: what `sign` should be.
        """
        step = num_images / IMAGES_TO_CERTAINTY * ((sign > target) - (sign < target))
        self.p.add_(step).clamp_(0, MOST_P)

    @property
    def is_exhausted(self) -> bool:
        """Whether p has come as far as it may: there are too few images, and the changes no longer help."""
        return bool(self.p >= torch.tensor(MOST_P).to(self.p))

    def _struck(self, x: Tensor) -> Tensor:
        """Which samples a change strikes, (N,), 1 or 0."""
        return (torch.rand(len(x), device=x.device) < self.p).to(x.dtype)

    def _moved(self, x: Tensor) -> Tensor:
        """All moves as one, so that the image is interpolated once; samples that none strikes stay to the bit."""
        eye = torch.eye(self.spatial_dims + 1, device=x.device, dtype=x.dtype).expand(len(x), -1, -1)
        places = eye
        for name, move in _GEOMETRY.items():
            if name in self.operations:
                places = places @ torch.lerp(eye, move(x), self._struck(x)[:, None, None])
        if places is eye:
            return x
        moved = warped(x - BACKGROUND, places) + BACKGROUND
        return torch.where(_beside((places != eye).any(2).any(1), x), moved, x)


def _flip(x: Tensor) -> Tensor:
    """Half of them; as all moves, from places in the result to places in the image, from the middle, homogeneous."""
    signs = torch.ones(len(x), x.ndim - 1, device=x.device, dtype=x.dtype)
    signs[:, 0] -= 2 * torch.randint(2, (len(x),), device=x.device)
    return signs.diag_embed()


def _quarter_turn(x: Tensor) -> Tensor:
    turns = torch.randint(4, (len(x),), device=x.device)
    table = torch.tensor([0.0, 1.0, 0.0, -1.0], device=x.device, dtype=x.dtype)
    return _turned(x, table[(turns + 1) % 4], table[turns])


def _shift(x: Tensor) -> Tensor:
    size = torch.tensor(x.shape[2:], device=x.device, dtype=x.dtype)
    matrix = _eyes(x)
    matrix[:, :-1, -1] = ((torch.rand(len(x), len(size), device=x.device) * 2 - 1) * size / 8).round()
    return matrix


def _scale(x: Tensor) -> Tensor:
    return _zoomed(x, 0.2 * torch.randn(len(x), 1, device=x.device).expand(-1, x.ndim - 2))


def _stretch(x: Tensor) -> Tensor:
    return _zoomed(x, 0.1 * torch.randn(len(x), x.ndim - 2, device=x.device))


def _rotate(x: Tensor) -> Tensor:
    angle = (torch.rand(len(x), device=x.device) * 2 - 1) * math.radians(10)
    return _turned(x, angle.cos(), angle.sin())


def _zoomed(x: Tensor, doublings: Tensor) -> Tensor:
    matrix = _eyes(x)
    matrix[:, :-1, :-1] = torch.exp2(-doublings).diag_embed()
    return matrix


def _turned(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """In the plane of the first two axes, in a volume the axial one: slices are thick, and a tilt would mix them."""
    matrix = _eyes(x)
    matrix[:, 0, 0] = matrix[:, 1, 1] = cosine
    matrix[:, 0, 1], matrix[:, 1, 0] = -sine, sine
    return matrix


def _eyes(x: Tensor) -> Tensor:
    return torch.eye(x.ndim - 1, device=x.device, dtype=x.dtype).repeat(len(x), 1, 1)


def _brightness(x: Tensor, struck: Tensor) -> Tensor:
    return x + struck * 0.1 * torch.randn_like(struck)


def _contrast(x: Tensor, struck: Tensor) -> Tensor:
    return x + struck * (torch.exp2(0.25 * torch.randn_like(struck)) - 1) * (x - BACKGROUND)


def _gamma(x: Tensor, struck: Tensor) -> Tensor:
    """A parabola instead of a power, which has no slope at the background and no value beyond the range."""
    bend = (torch.rand_like(struck) * 2 - 1) / 3
    return x + struck * bend * (1 - x.square()).clamp(min=0)


def _blur(x: Tensor, struck: Tensor) -> Tensor:
    margins = [2] * 2 * (x.ndim - 2)
    blurred = neighbours_summed(F.pad((x - BACKGROUND) / 16 ** (x.ndim - 2), margins), 4)
    return x + struck * torch.rand_like(struck) * (blurred + BACKGROUND - x)


def _noise(x: Tensor, struck: Tensor) -> Tensor:
    return x + struck * 0.05 * torch.randn_like(struck).abs() * torch.randn_like(x)


def _cut_out(x: Tensor, struck: Tensor) -> Tensor:
    inside = struck > 0
    for axis, n in enumerate(x.shape[2:], start=2):
        middle = torch.rand_like(struck) * n
        places = torch.arange(n, device=x.device).view([n if place == axis else 1 for place in range(x.ndim)])
        inside = inside & ((places + 0.5 - middle).abs() < n / 4)
    return torch.where(inside, BACKGROUND, x)


def _beside(values: Tensor, x: Tensor) -> Tensor:
    """(N,) to (N, 1, …), beside x."""
    return values.view(-1, *[1] * (x.ndim - 1))


_GEOMETRY = {
    "flip": _flip,
    "quarter_turn": _quarter_turn,
    "shift": _shift,
    "scale": _scale,
    "stretch": _stretch,
    "rotate": _rotate,
}
_INTENSITY = {"brightness": _brightness, "contrast": _contrast, "gamma": _gamma, "blur": _blur, "noise": _noise}
