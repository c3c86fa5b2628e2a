"""Steps of training on a device that has shapes and no numbers, as a GPU has none at hand until one waits for it.

It runs in a process of its own, as torch keeps a device that was once registered. A step that reads a number back,
mixes what lies here and there, or brings numbers over from here raises an error. Errors are printed in JSON by game: of
those that the arguments name, or of all.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, cast

import test_models
import test_samplers
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from medgan.models import Batch, Game, ModelSettings, SamplerSettings, build
from medgan.play import play

THERE = "elsewhere"
NETS: dict[str, Any] = {
    "generator": {"name": "resnet_6blocks", "width": 2, "norm": "instance"},
    "discriminator": {"name": "n_layers", "num_layers": 1, "width": 4, "norm": "instance"},
}
DEEP: dict[str, Any] = {"name": "res_unet_16", "width": 4, "norm": "instance"}
VARIANTS: dict[str, dict[str, Any]] = {
    "pix2pix at two scales": NETS | {"discriminator": NETS["discriminator"] | {"scales": 2}, "lambda_feature": 10.0},
    "pix2pix with registration": NETS | {"registration": {"width": 4}},
    "pix2pix without checkerboards": {"generator": {"name": "unet_32", "width": 4, "upsample": "resize"}},
    "supervised by all distances": NETS | {"generator": DEEP, "lambda_ssim": 1.0, "lambda_gradient": 1.0},
    "supervised in little memory": {"generator": DEEP | {"recompute": True}},
    "supervised by a transformer": {"generator": {"name": "swin_unetr", "width": 12, "norm": "instance"}},
    "cut against checkerboards": {"generator": NETS["generator"] | {"antialias": True}},
}


def variant(name: str, spatial_dims: int) -> Game:
    settings = {"name": name.split(maxsplit=1)[0], **VARIANTS[name]}
    member = {one().name: one for one in test_models.members(ModelSettings)}[settings["name"]]  # type: ignore[attr-defined]
    return build(member.parse(settings), in_channels=1, out_channels=1, spatial_dims=spatial_dims)  # type: ignore[arg-type]


def masked(spatial_dims: int) -> Batch:
    image = torch.empty(2, 1, *[64] * spatial_dims)
    return Batch(image, image, image)


def games() -> dict[str, tuple[Callable[[], Game], Callable[[], Batch]]]:
    """By name how to make a game and a batch for it."""
    found: dict[str, tuple[Callable[[], Game], Callable[[], Batch]]] = {}
    for dims in (2, 3):
        for member in test_models.members(ModelSettings):
            make = partial(test_models.small_game, member, dims)
            found[f"{member().name} {dims}-D"] = make, partial(test_models.small_batch, dims)  # type: ignore[attr-defined]
        for name in VARIANTS:
            found[f"{name} {dims}-D"] = partial(variant, name, dims), partial(masked, dims)
        for member in test_models.members(SamplerSettings):
            draw = partial(test_samplers.small_game, member, dims)
            found[f"{member().name} {dims}-D"] = draw, partial(test_samplers.small_batch, member, dims)  # type: ignore[attr-defined]
    return found


class Border(TorchDispatchMode):
    """Lets no tensor over: neither from here, nor back."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
        if len({x.device.type for x in tensors}) > 1:
            raise RuntimeError(f"{func} takes tensors from one device to another")
        return out


class Plain:
    """What `play` asks of Fabric, for a device that Fabric does not know."""

    def autocast(self) -> nullcontext[None]:
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def clip_gradients(self, nets: nn.Module, optimizer: Any, *, max_norm: float, error_if_nonfinite: bool) -> None:
        nn.utils.clip_grad_norm_(nets.parameters(), max_norm, error_if_nonfinite=error_if_nonfinite)


def there(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=THERE)


def moved(game: Game) -> Game:
    """What a game calls its parameters and buffers; whatever else it holds stays here."""
    for module in game.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(there(parameter))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = there(buffer)
    return game


def two_steps(make: Callable[[], Game], draw: Callable[[], Batch]) -> None:
    game, batch = make(), draw()
    with FakeTensorMode():
        game = moved(game)
        far = Batch(*(None if x is None else there(x) for x in (batch.a, batch.b, batch.mask, batch.condition)))
        adams = {player: torch.optim.Adam(game.nets(player).parameters(), fused=True) for player in game.order}
        with Border():
            for _ in range(2):
                play(game, [far], cast(Any, adams), cast(Fabric, Plain()), clip=1.0)


def told(make: Callable[[], Game], draw: Callable[[], Batch]) -> str:
    """What went wrong, or ""."""
    try:
        two_steps(make, draw)
    except (RuntimeError, NotImplementedError, AssertionError, TypeError) as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    return ""


class Backend(backend_registration._DummyBackendModule):
    """What autocast asks of a device."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def main() -> None:
    backend_registration._setup_privateuseone_for_python_backend(THERE, backend_module=Backend())
    wanted = sys.argv[1:]
    json.dump({name: told(*ways) for name, ways in games().items() if name in wanted or not wanted}, sys.stdout)


if __name__ == "__main__":
    main()
