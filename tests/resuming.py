"""Trainings that are killed on the way and go on."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from medgan import read, translate
from medgan.run import Run
from medgan.train import train


def state(run: Path) -> dict[str, object]:
    return torch.load(run / "state.pt", weights_only=True)  # type: ignore[no-any-return]


def assert_same(one: object, other: object) -> None:
    """Equal to the bit, however deep."""
    if isinstance(one, dict):
        assert isinstance(other, dict)
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, torch.Tensor):
        assert isinstance(other, torch.Tensor)
        assert torch.equal(one, other)
    elif isinstance(one, list):
        assert isinstance(other, list)
        for x, y in zip(one, other, strict=True):
            assert_same(x, y)
    else:
        assert one == other


def kill_in_step(number: int, config: Path, overrides: Sequence[str], *, out: Path) -> None:
    """Train until that step is done; nothing is saved of what came after the last checkpoint before it."""
    loop = import_module("medgan.train")
    real = loop._step

    def step(learner: Any, *rest: Any) -> Any:
        losses = real(learner, *rest)
        if learner.step == number:
            raise KeyboardInterrupt
        return losses

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_step", step)
        with pytest.raises(KeyboardInterrupt):
            train(config, overrides, out=out, device="cpu")


def killed_and_whole(config: Path, overrides: Sequence[str], folder: Path, *, kills: Sequence[int]) -> tuple[Run, Run]:
    """A training that was killed in those steps and went on each time, and the same in one go: equal to the bit."""
    for number in kills:
        kill_in_step(number, config, overrides, out=folder / "killed")
        saved = folder / "killed" / "state.pt"
        assert not saved.exists() or state(folder / "killed")["step"] < number  # type: ignore[operator]
    killed, whole = (train(config, overrides, out=folder / name, device="cpu") for name in ("killed", "whole"))
    assert killed.weights_sha256 == whole.weights_sha256
    assert_same(state(killed.path), state(whole.path))
    return killed, whole


def assert_translates(run: Run, cohort: Path, out: Path) -> None:
    """The run makes a CT of the test patient."""
    translate(run.path, cohort / "p4_mr.nii.gz", out, device="cpu")
    assert read(out).unit == "HU"
