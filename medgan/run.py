"""The run folder: all that a training leaves behind, and the only thing that commands hand to one another.

```
config.yaml           the resolved config
weights.safetensors   the generators with the best validation so far (their running average), and nothing else
state.pt              the last checkpoint, for going on: both players, optimizers, step; keep it to yourself
metrics.jsonl         a line for every log and validation
excluded.csv          cases of the table that were left out, and why; only if some were; keep it to yourself
card.json             what the model is, what it was trained on (counts and hashes, no patients), its contract
images/               the fixed validation slices, one picture a validation
tb/                   the same for TensorBoard
```
"""

from __future__ import annotations

import hashlib
import json
import pickle
import platform
import shutil
import struct
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar, cast, overload

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor

import medgan
from medgan.atomic import refuse_full_folder, replacing
from medgan.config import AnyConfig, Config, SamplingConfig, Training, dump, load
from medgan.errors import ConfigError, OutputError, RunError
from medgan.models.base import Game, Sampler, Translator
from medgan.splits import table_split_hash
from medgan.volume import Synthesis

__all__ = [
    "FORMAT",
    "AnyRun",
    "Run",
    "RunFolder",
    "SamplingRun",
    "open_any_run",
    "open_run",
    "open_sampling_run",
    "plan_run",
    "start_run",
    "table_hash",
]

C = TypeVar("C", Config, SamplingConfig)

FORMAT = 1
STATE_KEYS = {"step", "best", "game", "shadow", "optimizers"}
# What torch.load and the pickle reader in it raise on damaged files.
NO_STATE = (
    *(OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError),
    *(pickle.UnpicklingError, struct.error),
)
# The table of cases and the list of those left out are held by their content, so that a project can move.
MAY_DIFFER = {"cases", "exclude", "workers", "validate_every", "checkpoint_every", "log_every"}


@dataclass(frozen=True)
class RunFolder(Generic[C]):
    """A run folder and its config: what runs of translators and of samplers have in common."""

    path: Path
    config: C

    @property
    def weights_path(self) -> Path:
        """The best generators so far."""
        return self.path / "weights.safetensors"

    @property
    def state_path(self) -> Path:
        """The last checkpoint."""
        return self.path / "state.pt"

    @property
    def images(self) -> Path:
        """The folder of validation pictures."""
        return self.path / "images"

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of the weights: what a synthetic image names as its maker."""
        return hashlib.sha256(self._whole_weights().read_bytes()).hexdigest()

    @cached_property
    def best(self) -> dict[str, float | None]:
        """At which step the kept weights were, and their validation metrics."""
        try:
            with safetensors.safe_open(self._whole_weights(), framework="pt") as file:
                return cast(dict[str, float | None], json.loads((file.metadata() or {}).get("best", "{}")))
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            raise RunError(f"{self.weights_path}: is damaged ({error}); train again or copy it anew") from None

    def save_weights(self, tensors: Mapping[str, Tensor], best: Mapping[str, float | None]) -> None:
        """Replace the kept weights; `best` says when and how good, inside the same file."""
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        content = save(plain, metadata={"best": json.dumps(dict(best))})
        with replacing(self.weights_path) as temporary:
            temporary.write_bytes(content)

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint."""
        try:
            with replacing(self.state_path) as temporary:
                torch.save({"format": FORMAT, **state}, temporary)
        except RuntimeError as error:  # torch's own writer
            raise OutputError(
                f"{self.state_path}: cannot be written, most likely for lack of space; the one before is intact, "
                "so make room and run the same command again"
            ) from error

    def load_state(self) -> dict[str, Any] | None:
        """The last checkpoint, on the CPU, or None before the first."""
        if not self.state_path.exists():
            return None
        try:
            state = torch.load(self.state_path, map_location="cpu", weights_only=True)
        except NO_STATE as error:
            told = str(error).partition("\n")[0].partition(". ")[0]
            raise RunError(f"{self.state_path}: is damaged ({told}); delete it to start the run anew") from None
        if not isinstance(state, dict) or state.get("format") != FORMAT or not state.keys() >= STATE_KEYS:
            raise RunError(f"{self.state_path}: is no checkpoint of format {FORMAT}; delete it to start the run anew")
        return state

    def log(self, line: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        try:
            with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            told = f"cannot be written ({error.strerror}); make room and run the same command again"
            raise OutputError(f"{self.path / 'metrics.jsonl'}: {told}") from None

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line that a kill cut short is left out."""
        path = self.path / "metrics.jsonl"
        try:
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            values = [json.loads(line) for line in lines if line.endswith("}")]
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(f"{path}: is damaged ({error}); mend it or delete it") from None
        if not all(isinstance(value, dict) and isinstance(value.get("step"), int) for value in values):
            raise RunError(f"{path}: is damaged (a line says no step); mend it or delete it")
        return values

    def forget_after(self, step: int) -> None:
        """Drop log lines of steps that will be done again."""
        kept = [line for line in self.metrics() if line["step"] <= step]
        with replacing(self.path / "metrics.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    @property
    def card(self) -> dict[str, Any]:
        """What card.json says.

        Raises:
            RunError: if it cannot be read.
        """
        return _facts(self.path / "card.json")

    def write_card(self, facts: Mapping[str, Any]) -> None:
        """Write card.json: what a reader of the weights must know."""
        prep = self.config.prep.model_dump(mode="json")
        card = {"format": FORMAT, "medgan": medgan.__version__, "model": self.config.model.name, "contract": prep}
        about = {"torch": torch.__version__, "python": platform.python_version(), "seed": self.config.train.seed}
        if "imported" not in facts:
            about |= {**_table_hashes(self.config), "split_sha256": table_split_hash(self.config.cases)}
        use = "Research only. Images made with these weights are synthetic and not for diagnostic use."
        with replacing(self.path / "card.json") as temporary:
            temporary.write_text(json.dumps({**card, **about, **facts, "intended_use": use}, indent=2) + "\n")

    def load_weights(self, game: Game) -> None:
        """Give a game the generators with the best weights, and bring it into evaluation mode.

        Raises:
            RunError: if there are no weights yet or they do not fit the config.
        """
        try:
            game.generators.load_state_dict(load_file(self._whole_weights()))
        except (OSError, RuntimeError, safetensors.SafetensorError) as error:
            told = str(error).splitlines()[:2][-1].strip()  # torch's first line of two names no tensor
            raise RunError(
                f"{self.weights_path}: does not fit config.yaml or is damaged ({told}); copy both anew or train again"
            ) from None
        game.eval()

    def _whole_weights(self) -> Path:
        if not self.weights_path.is_file():
            raise RunError(f"{self.path}: holds no weights yet; train until its first validation")
        return self.weights_path


class Run(RunFolder[Config]):
    """The run of a translator."""

    def synthesis(self, to: str = "b", *, seen: Collection[str] = ()) -> Synthesis:
        """The mark that every image of the domain `to` made by this run carries.

        Args:
            to: the domain.
            seen: roles of the contrasts that it is made from, if the run knows several.
        """
        prep = self.config.prep.towards(to)
        a, b = prep.a.modality, prep.b.modality
        seen_then_missing = f" from {', '.join(seen)}" if seen and prep.contrasts else ""
        if seen and (without := [role for role in prep.sources if role not in seen]):
            seen_then_missing += f" without {', '.join(without)}"
        return Synthesis(
            model=self.config.model.name,
            weights_sha256=self.weights_sha256,
            version=medgan.__version__,
            description=f"{a} to {b} by {self.config.model.name}{seen_then_missing}, not for diagnostic use",
        )

    def translator(self) -> Translator:
        """The generators with the best weights, in evaluation mode, on the CPU.

        Raises:
            RunError: if there are no weights yet or they do not fit the config.
        """
        game = self.config.build()
        self.load_weights(game)
        return game


class SamplingRun(RunFolder[SamplingConfig]):
    """The run of a sampler."""

    def synthesis(
        self, *, seed: int, number: int, conditions: Mapping[str, str], truncation: float | None = None
    ) -> Synthesis:
        """The mark that an image made by this run carries.

        Args:
            seed: of the set.
            number: of the image in it.
            conditions: what it was asked for.
            truncation: how far the noise was held back.
        """
        model, modality = self.config.model.name, next(iter(self.config.prep.images.values())).modality
        return Synthesis(
            model=model,
            weights_sha256=self.weights_sha256,
            version=medgan.__version__,
            description=f"{modality} made of random numbers by {model}; shows no subject, not for diagnostic use",
            seed=seed,
            number=number,
            conditions=conditions,
            truncation=truncation,
        )

    def sampler(self) -> Sampler:
        """The generator with the best weights, in evaluation mode, on the CPU.

        Raises:
            RunError: if there are no weights yet or they do not fit the config.
        """
        game = self.config.build()
        self.load_weights(game)
        return game


AnyRun = Run | SamplingRun


def open_run(path: Path) -> Run:
    """The existing run of a translator.

    Raises:
        RunError: if the folder is no run, one of a sampler, or of a version that this medgan does not read.
    """
    run = open_any_run(path)
    if not isinstance(run, Run):
        raise RunError(f"{path}: its model {run.config.model.name} samples images; name the run of a translator")
    return run


def open_sampling_run(path: Path) -> SamplingRun:
    """The existing run of a sampler.

    Raises:
        RunError: if the folder is no run, one of a translator, or of a version that this medgan does not read.
    """
    run = open_any_run(path)
    if not isinstance(run, SamplingRun):
        raise RunError(f"{path}: its model {run.config.model.name} translates images; name the run of a sampler")
    return run


def open_any_run(path: Path) -> AnyRun:
    """An existing run of whatever kind.

    Raises:
        RunError: if the folder is no run, or one of a version that this medgan does not read.
    """
    path = Path(path)
    if not _is_run(path):
        raise RunError(
            f"{path}: is no run folder (config.yaml and card.json are expected in it); name one made by train"
        )
    version = _facts(path / "card.json").get("format")
    if version != FORMAT:
        raise RunError(
            f"{path}: a run of format {version}; medgan {medgan.__version__} reads format {FORMAT}; "
            "use the medgan that made it, or train again"
        )
    try:
        return _run(path, load(path / "config.yaml"))
    except ConfigError as error:
        raise RunError(f"{path / 'config.yaml'}: is not what train wrote ({error}); copy it anew") from None


@overload
def _run(path: Path, config: Config) -> Run: ...
@overload
def _run(path: Path, config: SamplingConfig) -> SamplingRun: ...
def _run(path: Path, config: AnyConfig) -> AnyRun:
    return Run(path, config) if isinstance(config, Config) else SamplingRun(path, config)


def _is_run(path: Path) -> bool:
    return (path / "config.yaml").is_file() and (path / "card.json").is_file()


def table_hash(config: Training) -> str:
    """SHA-256 of the table of cases, as its file is."""
    return _table_hashes(config)["cases_sha256"]


def _table_hashes(config: Training) -> dict[str, str]:
    tables = {"cases_sha256": config.cases, "exclude_sha256": config.exclude}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in tables.items() if path is not None}


def _facts(card: Path) -> dict[str, Any]:
    try:
        values = json.loads(card.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{card}: cannot be read ({error}); copy it anew") from None
    return values if isinstance(values, dict) else {}


@overload
def plan_run(path: Path, config: Config) -> Run: ...
@overload
def plan_run(path: Path, config: SamplingConfig) -> SamplingRun: ...
def plan_run(path: Path, config: AnyConfig) -> AnyRun:
    """What a training in that folder would be: a new run, or one that goes on. Nothing is written yet.

    A folder without a checkpoint was started in vain and takes the new config.

    Raises:
        RunError: if the folder holds a run of another config, or imported weights.
        OutputError: if it holds something else.
    """
    run = _run(Path(path), config)
    if not _is_run(run.path):
        refuse_full_folder(run.path)
    elif "imported" in _facts(run.path / "card.json"):
        raise RunError(f"{run.path}: holds imported weights, which no training goes on from; name a new folder")
    elif run.state_path.exists():
        _refuse_other_config(open_any_run(run.path), config)
    return run


def start_run(path: Path, config: AnyConfig) -> AnyRun:
    """The run that `plan_run` tells of, with its folder and its config in it.

    Raises:
        RunError: if the folder holds a run of another config.
        OutputError: if it holds something else or cannot be written.
    """
    run = plan_run(path, config)
    if _is_run(run.path):
        with replacing(run.path / "config.yaml") as temporary:
            temporary.write_text(dump(config), encoding="utf-8")
        _keep_exclusions(run.path, config)
        return run
    with replacing(run.path) as temporary:
        temporary.mkdir()
        (temporary / "config.yaml").write_text(dump(config), encoding="utf-8")
        _keep_exclusions(temporary, config)
        _run(temporary, config).write_card({"started": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
    return run


def _keep_exclusions(folder: Path, config: Training) -> None:
    """Beside the config stands what it cannot tell once the list has gone: who was left out, and why."""
    if config.exclude is not None:
        shutil.copyfile(config.exclude, folder / "excluded.csv")


def _refuse_other_config(run: AnyRun, config: AnyConfig) -> None:
    old, new = _flat(run.config.model_dump(mode="json")), _flat(config.model_dump(mode="json"))
    changed = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
    # A plateau is seen in validations, so when they are is a part of what was trained.
    may_differ = MAY_DIFFER - ({"validate_every"} if config.train.decay == "plateau" else set())
    changed = [key for key in changed if key.rpartition(".")[2] not in may_differ]
    if changed:
        shown = ", ".join(f"{key} ({old.get(key)} there, {new.get(key)} now)" for key in changed[:4])
        raise RunError(f"{run.path}: was started with another config: {shown}; name a new folder or the same config")
    card, now = _facts(run.path / "card.json"), _table_hashes(config)
    for name, table in (("cases_sha256", config.cases), ("exclude_sha256", config.exclude)):
        if card.get(name) != now.get(name):
            told = table or "the list of cases to leave out"
            raise RunError(f"{told}: has changed since {run.path} was started from it; name a new folder")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
