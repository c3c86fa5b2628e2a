"""What synthetic images are meant to be good for: a small net learns a task on some images and is tried on others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from monai.networks.nets import DenseNet, ResNet, UNet
from pydantic import Field
from torch import Tensor, nn

from medgan.augment.classic import Classic
from medgan.augment.statistics import macro_auc, recalls
from medgan.device import pick_device
from medgan.errors import InputError
from medgan.imageset import ImageSet
from medgan.settings import Settings

__all__ = ["Classification", "Segmentation", "Task", "fit", "fit_and_score", "outcomes"]

Floats = npt.NDArray[np.float64]
Outcomes = npt.NDArray[np.float32]
NAMED_LR, OWN_LR = 1e-2, 1e-3
WEIGHT_DECAY = 1e-4
SEE_AT_ONCE = 256


class Classification(Settings):
    """To tell the classes of a condition apart; judged by AUC.

    Args:
        condition: of the images, whose values are the classes.
        classes: in the order of the net's outputs; those of the training set by the alphabet if empty.
        net: `densenet_small`, `resnet_small`, or the path of a TorchScript file of a net from (N, C, *spatial) to
            (N, classes) logits; its weights are where each training starts from.
        lr: of AdamW, falling to 0 along a cosine; if None 0.01 for a net by name, which has batch norm, and 0.001 for
            one from a file.
        batch: images a step.
    """

    name: Literal["classification"] = "classification"
    condition: str = "class"
    classes: tuple[str, ...] = ()
    net: str = "densenet_small"
    lr: float | None = Field(default=None, gt=0)
    batch: int = Field(default=32, ge=2)

    @property
    def metric(self) -> str:
        """The name of what `score` tells."""
        return "auc"

    @property
    def rate(self) -> float:
        """The learning rate at the start."""
        return self.lr or (NAMED_LR if self.net in _CLASSIFIERS else OWN_LR)

    def settled(self, train: ImageSet) -> Classification:
        """The same with the classes of a training set.

        Raises:
            InputError: if its images are not labelled, or all alike.
        """
        classes = self.classes or tuple(sorted(set(self.labels(train))))
        if len(classes) < 2:
            raise InputError(f"the training images are all of the class {classes[0]!r}; a classifier needs two or more")
        return self.model_copy(update={"classes": classes})

    def labels(self, images: ImageSet) -> Sequence[str]:
        """(N,) the class of each image.

        Raises:
            InputError: if the images are not labelled, or with a class that is none of the task's.
        """
        if self.condition not in images.conditions:
            known = ", ".join(images.conditions) or "none"
            raise InputError(f"task.condition: {self.condition!r} is no condition of the images (there are: {known})")
        labels = images.conditions[self.condition]
        if self.classes and (odd := sorted(set(labels) - set(self.classes))):
            raise InputError(f"class {odd[0]!r} is none of the training images' ({', '.join(self.classes)})")
        return labels

    def kinds(self, images: ImageSet) -> Sequence[str]:
        """(N,) what subsets are to hold in the same shares: the classes."""
        return self.labels(images)

    def parts(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        """What the net sees, (N, C, *spatial), and what it is to tell, (N, K).

        A row has the weight of its class in that class's column and 0 elsewhere; in sum all classes weigh the same.
        """
        places = torch.tensor([self.classes.index(label) for label in self.labels(images)])
        chosen = F.one_hot(places, len(self.classes)).float()
        return images.x, chosen * len(chosen) / (len(self.classes) * chosen.sum(dim=0).clamp(min=1))

    def build(self, x: Tensor) -> nn.Module:
        """A fresh net for images like x."""
        return _built(self.net, _CLASSIFIERS, x, (len(self.classes),))

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross entropy, weighted by class."""
        return -(target * logits.log_softmax(dim=1)).sum() / target.sum()

    def outcome(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, K + 1) what is kept of each image: the logits, and the number of its class."""
        return torch.cat([logits, target.argmax(dim=1, keepdim=True)], dim=1)

    def score(self, outcome: Outcomes, weights: Floats | None = None) -> Floats:
        """(B,) AUC under each row of weights, (B, N)."""
        return macro_auc(outcome[:, :-1], outcome[:, -1], weights)

    def summary(self, outcome: Outcomes) -> dict[str, float]:
        """AUC, balanced accuracy, and the recall of each class."""
        found = recalls(outcome[:, :-1], outcome[:, -1])[0]
        each = {f"recall {name}": float(value) for name, value in zip(self.classes, found, strict=True)}
        return {"auc": float(self.score(outcome)[0]), "balanced_accuracy": float(found.mean()), **each}


class Segmentation(Settings):
    """To find the mask, the last channel of the images, from the channels before it; judged by the mean Dice.

    Args:
        net: `unet_small`, or the path of a TorchScript file of a net from (N, C, *spatial) to (N, 1, *spatial) logits;
            its weights are where each training starts from.
        lr: of AdamW, falling to 0 along a cosine; if None 0.01 for a net by name, which has batch norm, and 0.001 for
            one from a file.
        batch: images a step.
    """

    name: Literal["segmentation"] = "segmentation"
    net: str = "unet_small"
    lr: float | None = Field(default=None, gt=0)
    batch: int = Field(default=16, ge=2)

    @property
    def metric(self) -> str:
        """The name of what `score` tells."""
        return "dice"

    @property
    def rate(self) -> float:
        """The learning rate at the start."""
        return self.lr or (NAMED_LR if self.net in _SEGMENTERS else OWN_LR)

    def settled(self, train: ImageSet) -> Segmentation:
        """The same.

        Raises:
            InputError: if the training images have no channel besides the mask, or no mask has a pixel.
        """
        if train.x.shape[1] < 2:
            raise InputError("segmentation needs images whose last channel is the mask; these have one channel alone")
        if not (train.x[:, -1] > 0).any():
            raise InputError(
                "no mask of the training images has a pixel; the last channel is to be 1 inside, −1 outside"
            )
        return self

    def kinds(self, images: ImageSet) -> Sequence[str]:
        """(N,) what subsets are to hold in the same shares: images with a mask, and without one."""
        return ["mask" if mask.any() else "no mask" for mask in images.x[:, -1] > 0]

    def parts(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        """What the net sees, (N, C − 1, *spatial), and what it is to tell, (N, 1, *spatial) of 0 and 1."""
        return images.x[:, :-1], (images.x[:, -1:] > 0).float()

    def build(self, x: Tensor) -> nn.Module:
        """A fresh net for images like x."""
        return _built(self.net, _SEGMENTERS, x, (1, *x.shape[2:]))

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Binary cross entropy, and 1 − Dice of the probabilities over the batch."""
        chance = torch.sigmoid(logits)
        overlap = (2 * (chance * target).sum() + 1) / (chance.sum() + target.sum() + 1)
        return F.binary_cross_entropy_with_logits(logits, target) + 1 - overlap

    def outcome(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, 2) the Dice of each image, 1 where neither mask has a pixel; and 1 where there is something to find."""
        found, true = (logits > 0).flatten(1), (target > 0).flatten(1)
        sizes = found.sum(dim=1) + true.sum(dim=1)
        return torch.stack([torch.where(sizes > 0, 2 * (found & true).sum(dim=1) / sizes, 1.0), true.any(dim=1)], dim=1)

    def score(self, outcome: Outcomes, weights: Floats | None = None) -> Floats:
        """(B,) mean Dice under each row of weights, (B, N)."""
        counts = np.ones((1, len(outcome))) if weights is None else weights
        return np.asarray(counts @ outcome[:, 0].astype(float) / counts.sum(axis=1))

    def summary(self, outcome: Outcomes) -> dict[str, float]:
        """The mean Dice, and of it what empty masks hide: of images with something to find, and of those without."""
        dice, filled = outcome[:, 0], outcome[:, 1] > 0
        parts = {"dice_of_filled": dice[filled], "left_empty": dice[~filled]}
        return {"dice": float(dice.mean()), **{name: float(part.mean()) for name, part in parts.items() if len(part)}}


Task = Annotated[Classification | Segmentation, Field(discriminator="name")]


def fit_and_score(
    task: Task,
    train: ImageSet,
    test: ImageSet,
    *,
    steps: int,
    seed: int,
    classic: Classic | None = None,
    device: str = "cpu",
) -> Outcomes:
    """Train a net on one set and try it on another; the arguments are those of `fit`.

    Returns:
        (N, K) the task's outcome of each image of `test`.
    """
    return outcomes(task, fit(task, train, steps=steps, seed=seed, classic=classic, device=device), test)


def fit(
    task: Task,
    train: ImageSet,
    *,
    steps: int,
    seed: int,
    classic: Classic | None = None,
    device: str = "cpu",
) -> nn.Module:
    """Train a net, for so many steps of so many images whatever the size of the set.

    Args:
        task: what to learn, settled on a training set.
        train: what from; the images may be repeated.
        steps: of the optimiser.
        seed: of the net, of the order of images and of their changes; the same numbers on a CPU to the bit.
        classic: changes the images at random, if given.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        InputError: if the net cannot be had or does not take such images.
    """
    place = pick_device(device)
    x, target = (part.to(place) for part in task.parts(train))
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(seed)
        net = task.build(x[:2]).to(place).train()
        optimiser = torch.optim.AdamW(net.parameters(), lr=task.rate, weight_decay=WEIGHT_DECAY, fused=True)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for chosen in _batches(len(x), task.batch, steps, draw):
            seen, wanted = _changed(x[chosen], target[chosen], classic, draw)
            optimiser.zero_grad()
            task.loss(net(seen), wanted).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            falling.step()
    return net.eval()


@torch.inference_mode()
def outcomes(task: Task, net: nn.Module, test: ImageSet) -> Outcomes:
    """(N, K) the task's outcome of each image, by a trained net."""
    x, target = task.parts(test)
    place = next(net.parameters()).device
    logits = [net(x[start : start + SEE_AT_ONCE].to(place)).cpu() for start in range(0, len(x), SEE_AT_ONCE)]
    told: Outcomes = task.outcome(torch.cat(logits), target).float().numpy()
    return told


def _batches(count: int, batch: int, steps: int, draw: torch.Generator) -> Iterator[Tensor]:
    """Places of the images of each step: every image once, in a random order, and again in another one."""
    waiting = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        while len(waiting) < batch:
            waiting = torch.cat([waiting, torch.randperm(count, generator=draw)])
        yield waiting[:batch]
        waiting = waiting[batch:]


def _changed(x: Tensor, target: Tensor, classic: Classic | None, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images with their masks, if their targets are some, changed alike."""
    if classic is None:
        return x, target
    if target.dim() < x.dim():  # classes
        return classic.changed(x, draw), target
    both = classic.changed(torch.cat([x, target], dim=1), draw)
    return both[:, :-1], (both[:, -1:] > 0.5).float()


class _Padded(nn.Module):
    """A net that halves its images, on images of any size: padded at their ends, and cut again."""

    def __init__(self, net: nn.Module, multiple: int) -> None:
        super().__init__()
        self.net, self.multiple = net, multiple

    def forward(self, x: Tensor) -> Tensor:
        lacking = [-side % self.multiple for side in x.shape[2:]]
        ends = [number for more in reversed(lacking) for number in (0, more)]
        logits: Tensor = self.net(F.pad(x, ends, mode="replicate") if any(lacking) else x)
        for axis, side in enumerate(x.shape[2:], start=2):
            logits = logits.narrow(axis, 0, side)
        return logits


Builder = Callable[[int, int, int], nn.Module]


def _densenet(dims: int, channels: int, out: int) -> nn.Module:
    blocks = {"init_features": 16, "growth_rate": 8, "block_config": (2, 2, 2), "bn_size": 2}
    net: nn.Module = DenseNet(dims, channels, out, **blocks)
    return net


def _resnet(dims: int, channels: int, out: int) -> nn.Module:
    widths = {"conv1_t_size": 3, "conv1_t_stride": 2, "no_max_pool": True}
    net: nn.Module = ResNet(
        "basic", [1, 1, 1, 1], [8, 16, 32, 64], spatial_dims=dims, n_input_channels=channels, num_classes=out, **widths
    )
    return net


def _unet(dims: int, channels: int, out: int) -> nn.Module:
    net = UNet(dims, channels, out, channels=(8, 16, 32), strides=(2, 2), num_res_units=1, norm="BATCH")
    return _Padded(net, 4)


_CLASSIFIERS: dict[str, Builder] = {"densenet_small": _densenet, "resnet_small": _resnet}
_SEGMENTERS: dict[str, Builder] = {"unet_small": _unet}


def _built(name: str, known: dict[str, Builder], x: Tensor, wanted: tuple[int, ...]) -> nn.Module:
    """A net by name or from a file, proved to make (N, *wanted) of images like x."""
    net = known[name](x.dim() - 2, x.shape[1], wanted[0]) if name in known else _loaded(name, known)
    try:
        with torch.inference_mode():
            made = net.to(x.device).eval()(x)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"task.net: {name} does not take images of {tuple(x.shape[1:])} ({reason})") from None
    if not isinstance(made, Tensor) or made.shape[1:] != wanted:
        seen = tuple(made.shape[1:]) if isinstance(made, Tensor) else type(made).__name__
        raise InputError(f"task.net: {name} makes {seen} of an image, and {wanted} is needed")
    return net


def _loaded(name: str, known: dict[str, Builder]) -> nn.Module:
    if not Path(name).is_file():
        raise InputError(f"task.net: {name!r} is none of {', '.join(known)}, nor a TorchScript file")
    try:
        net: nn.Module = torch.jit.load(name, map_location="cpu")  # type: ignore[no-untyped-call]
    except RuntimeError:
        raise InputError(f"task.net: {name} is no TorchScript file; save the net by torch.jit.save") from None
    if not any(weight.requires_grad for weight in net.parameters()):
        raise InputError(f"task.net: {name} has no weights that can be trained")
    return net
