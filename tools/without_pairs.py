"""Does the distance of sets tell what pairs would tell? CycleGAN on real brains, judged both ways at each validation.

    python tools/without_pairs.py DATA --out FOLDER [key=value ...]

DATA is the folder that tools/t1_to_flair.py takes. The training is that of tools/compare_models.py; its validation
cases have both images, so that the MAE stands beside what is known without pairs, `fd`. What it prints is a table of
docs/models/cyclegan.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, cast

import numpy.typing as npt
import torch
from compare_models import MODELS, cohort
from scipy.stats import spearmanr

from medgan import lessons, train
from medgan.lesson import TranslationLesson
from medgan.models.base import Game, Translator
from medgan.tables import columns
from medgan.validate import Scores

SHOWN = ("mae", "ssim", "fd")


class BothWays(TranslationLesson):
    """By pairs and by sets at once."""

    def exam(self, shadow: Game, device: torch.device) -> tuple[Scores, npt.NDArray[Any] | None]:
        """The scores of either way; of pairs those that weights are kept by."""
        scores, picture = super().exam(shadow, device)
        return {**scores, **self.resemblance(cast(Translator, shadow), device)}, picture


def judged(data: Path, out: Path, overrides: list[str]) -> dict[int, Scores]:
    """The scores of each validation by its step."""
    config, table = cohort(out, data)
    lessons.TranslationLesson = BothWays  # type: ignore[misc]
    settings = [f"cases={table}", *MODELS["cyclegan"], "train.steps=700", "train.validate_every=50", *overrides]
    done = train(config, settings, out=out / "run", device="auto")
    return {line["step"]: line["val"] for line in done.metrics() if "val" in line}


def told(found: dict[int, Scores]) -> str:
    """A line a validation, and how alike the orders are in which MAE and `fd` put them."""
    rows = [
        ["step", *SHOWN],
        *([str(step), *(f"{scores[name]:.4g}" for name in SHOWN)] for step, scores in found.items()),
    ]
    alike = spearmanr([one["mae"] for one in found.values()], [one["fd"] for one in found.values()])
    floor = next(iter(found.values()))["fd_of_training_images"]
    return f"{columns(rows)}\nfd of training images {floor:.4g}; Spearman of mae and fd {alike.statistic:.2f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args()
    given.out.mkdir(parents=True, exist_ok=True)
    print(told(judged(given.data, given.out, given.overrides)))
