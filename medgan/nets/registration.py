"""Registration: a net that finds how one image has to be bent to lie on another, and the bending."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medgan.nets.layers import Layers, Net

__all__ = ["RegistrationNet", "warp"]

HALVINGS = 6
SLOPE = 0.2
_LINEAR = {2: "bilinear", 3: "trilinear"}


class RegistrationNet(Net):
    """A U-Net from two images to the displacement of each voxel; it takes any size.

    Six convs 3 of stride 2, then on the way up linear interpolation and a conv 3 on what was seen at that size; two
    convs 3 at full size. No norms: how far a thing has moved is no matter of brightness. The last conv starts as zero,
    and so the displacements.

    Args:
        in_channels: channels of both images together.
        spatial_dims: 2 or 3.
        width: channels at full size; twice as many below.

    Source:
        Kong et al. 2021, arXiv:2110.06465, §3 (the net R); in the form of Balakrishnan et al. 2019, "VoxelMorph",
        arXiv:1809.05231, §IV-B, with more halvings, since a whole image may have moved.
    """

    keeps_own_weights = True

    def __init__(self, in_channels: int, spatial_dims: int, *, width: int = 32) -> None:
        super().__init__(spatial_dims)
        layers = Layers(spatial_dims, "instance")
        widths = [width] + [2 * width] * HALVINGS
        self.stem = _conv(layers, in_channels, width)
        self.downs = nn.ModuleList(_conv(layers, ins, outs, stride=2) for ins, outs in pairwise(widths))
        self.ups = nn.ModuleList(_conv(layers, below + here, here) for here, below in reversed(list(pairwise(widths))))
        self.refine = _conv(layers, width, width)
        self.head = layers.conv(width, spatial_dims, 3, padding=1, bias=True)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Two images (N, C, *spatial) to displacements (N, spatial_dims, *spatial), voxels, for `warp`."""
        x = self.stem(torch.cat([moving, fixed], 1))
        features = []
        for down in self.downs:
            features.append(x)
            x = down(x)
        for up, skip in zip(self.ups, reversed(features), strict=True):
            x = F.interpolate(x, skip.shape[2:], mode=_LINEAR[self.spatial_dims], align_corners=False)
            x = up(torch.cat([x, skip], 1))
        field: Tensor = self.head(self.refine(x))
        return field


def warp(x: Tensor, displacement: Tensor) -> Tensor:
    """An image as seen through displacements: voxel p of the result is the value of x at p + displacement(p).

    Values between voxels are interpolated linearly; beyond the edge, which is the middle of the last voxel, its value
    goes on. Computed in float32 or better, also under autocast.

    Args:
        x: (N, C, *spatial).
        displacement: (N, spatial_dims, *spatial), voxels, the axes in the order of x.

    Source:
        Jaderberg et al. 2015, "Spatial Transformer Networks", arXiv:1506.02025, §3.3.

    Example:
        >>> x, right = torch.arange(4.0).reshape(1, 1, 1, 4), torch.tensor([0.0, 1.5]).reshape(1, 2, 1, 1)
        >>> warp(x, right.expand(1, 2, 1, 4))
        tensor([[[[1.5000, 2.5000, 3.0000, 3.0000]]]])
    """
    with torch.autocast(x.device.type, enabled=False):
        precise = torch.promote_types(x.dtype, torch.float32)
        x, displacement = x.to(precise), displacement.to(precise)
        size = x.shape[2:]
        places = [torch.arange(n, dtype=precise, device=x.device) for n in size]
        points = torch.stack(torch.meshgrid(*places, indexing="ij")) + displacement
        # Without align_corners, -1 and 1 are the outer sides of the first and last voxel: right for one voxel, too.
        shares = [(2 * axis + 1) / n - 1 for axis, n in zip(points.unbind(1), size, strict=True)]
        grid = torch.stack(shares[::-1], -1)  # grid_sample counts the last axis first
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _conv(layers: Layers, ins: int, outs: int, *, stride: int = 1) -> nn.Sequential:
    conv = layers.conv(ins, outs, 3, stride=stride, padding=1, bias=True)
    for parameter in conv.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, a=SLOPE)
        else:
            nn.init.zeros_(parameter)
    return nn.Sequential(conv, nn.LeakyReLU(SLOPE, inplace=True))
