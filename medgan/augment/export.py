"""A run → what may be given away: the generator and its contract, and nothing that tells of patients."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from medgan.atomic import replacing
from medgan.config import AnyConfig, dump
from medgan.run import open_any_run

__all__ = ["export"]

NOT_SHARED = Path("cases-are-not-shared.csv")
LEFT_OUT = ("cases_sha256", "exclude_sha256", "split_sha256", "started")


def export(run: Path | str, out: Path | str) -> Path:
    """Copy a run for others: its config without paths, the averaged generators, the card: what uses of it need.

    Left out are the discriminators, which tell who was in the training far better than the generators do, the state of
    the optimisers, the journal, validation pictures, which show patients, and the names and hashes of the table of
    cases and of the list of those left out.

    Args:
        run: the folder of a run.
        out: a new folder.

    Raises:
        RunError: if it is no run, or has no weights yet.
        OutputError: if `out` cannot be written or has something in it.

    Source:
        Discriminators: membership inference reached an AUC of 0.99 on a discriminator and 0.51 on its generator
        (TrGAN, 3-D PET).
    """
    source, out = open_any_run(Path(run)), Path(out)
    _ = source.weights_sha256  # refuses a run without weights
    card = {key: value for key, value in source.card.items() if key not in LEFT_OUT}
    with replacing(out) as temporary:
        temporary.mkdir()
        (temporary / "config.yaml").write_text(dump(_shared(source.config)), encoding="utf-8")
        (temporary / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        shutil.copyfile(source.weights_path, temporary / source.weights_path.name)
    return out


def _shared(config: AnyConfig) -> AnyConfig:
    """Without the folders of this machine; which file a perceptual loss was by, its hash in the card tells."""
    config = config.model_copy(update={"cases": NOT_SHARED, "exclude": None})
    perceptual = getattr(config.model, "perceptual", None)
    if perceptual is None:
        return config
    model = config.model.model_copy(update={"perceptual": perceptual.without_folders()})
    return config.model_copy(update={"model": model})
