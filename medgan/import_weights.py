"""Generators trained with the reference implementation of pix2pix and CycleGAN become a run folder.

What a file holds is read off the shapes of its tensors; what the numbers of its images meant stands in no file, so a
config has to say it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from medgan.atomic import refuse_full_folder, replacing
from medgan.config import Config, load_translation
from medgan.data import flat_axis
from medgan.errors import ConfigError, InputError
from medgan.progress import say
from medgan.published import Generator, read_generator, refuse_unknown, too_many
from medgan.run import Run, open_run

__all__ = ["import_weights"]

ORIGIN = "imported from the reference implementation, pytorch-CycleGAN-and-pix2pix; nothing is known of their training"
HEADER = "# Imported weights. What stands here was given or seen in them; how they were trained is not known.\n"
GIVEN = ("prep", "patch", "neighbours", "overlap")
KEPT = {"augment": ("gamma", "noise"), "model": ("name", "generator"), "train": ("precision",)}


def import_weights(
    weights: Path | str,
    overrides: Sequence[str] = (),
    *,
    config: Path | str,
    back: Path | str | None = None,
    arch: str | None = None,
    grey: str | None = None,
    out: Path | str = "run",
) -> Run:
    """Make a run folder of generator weights trained with pytorch-CycleGAN-and-pix2pix.

    Net, norm, channels and width are read off the tensors. The net works as that implementation's does with `--eval`:
    batch norm by its running statistics, no dropout.

    Args:
        weights: the generator that makes b from a: `latest_net_G.pth`, or `latest_net_G_A.pth` of a CycleGAN.
        overrides: `dotted.key=value` changes of the config, such as `prep.b.range=[-1000,2000]`.
        config: a YAML file, whose `prep`, `patch`, `neighbours`, `overlap` and `train.precision` are used: what the
            net saw in training. Its other settings are those of a training that did not take place.
        back: the generator that makes a from b: `latest_net_G_B.pth`. The run then goes both ways.
        arch: what the weights must be, such as `unet_256`; whatever they are if not given.
        grey: of nets with three channels in, out or both that were trained on grey pictures (red = green = blue), the
            channel to keep of those that they make: `red`, `green` or `blue`. The run's net takes one channel and makes
            that one, but for rounding as the file's does.
        out: the run folder, new or empty.

    Raises:
        InputError: if a file cannot be read, holds something else, or a net that medgan has not.
        ConfigError: if the config does not fit the net.
        OutputError: if `out` cannot be written.

    Source:
        The published layouts: Isola et al. 2017, arXiv:1611.07004, appendix 6.1; Zhu et al. 2017, arXiv:1703.10593,
        §7.2.
    """
    out = Path(out)
    refuse_unknown(arch, grey)
    refuse_full_folder(out)
    files = {"b": weights} if back is None else {"b": weights, "a": back}
    generators = {to: read_generator(Path(path), arch, grey) for to, path in files.items()}
    _refuse_two_kinds(generators)
    contract = _contract(Path(config), overrides, generators)
    _refuse_misfit(contract, generators["b"])
    run = _write(out, contract, generators)
    _tell_grey(generators)
    return run


# --- what is refused --------------------------------------------------------------------------------------------------


def _refuse_two_kinds(generators: Mapping[str, Generator]) -> None:
    kinds = {generator.shape: generator.path for generator in generators.values()}
    if len(kinds) > 1:
        seen = ", ".join(f"{path} looks like {shape}" for shape, path in kinds.items())
        raise InputError(f"{seen}; both directions of a run have one kind of net: import them one by one")


def _refuse_misfit(config: Config, generator: Generator) -> None:
    flat, (ins, outs) = flat_axis(config.patch), (generator.shape.ins, generator.shape.outs)
    if flat is None:
        raise ConfigError(
            f"patch: {list(config.patch)} is a block, and the net of {generator.path} takes slices; make one of its "
            "sizes 1, such as [256, 256, 1]"
        )
    try:
        generator.shape.net().require_size([size for axis, size in enumerate(config.patch) if axis != flat])
    except InputError as error:
        raise ConfigError(f"patch: {error}") from None
    if outs > config.out_channels:
        raise too_many(generator.shape, generator.path)
    if outs < config.out_channels:
        raise ConfigError(
            f"neighbours: {config.neighbours} takes nets that turn slices and their neighbours into such when there is "
            f"a way back, {config.in_channels} → {config.out_channels} channels, but {generator.path} looks like "
            f"{generator.shape}; import both directions one by one"
        )
    if ins != config.in_channels:
        raise ConfigError(
            f"neighbours: {config.neighbours} makes {config.in_channels} channels of {len(config.prep.sources)} "
            f"source(s), but {generator.path} looks like {generator.shape}{' by --grey' if generator.grey else ''}; "
            f"{_advice(ins)}"
        )


def _advice(ins: int) -> str:
    slices = f"set neighbours={ins // 2} if it saw {ins // 2} slices on either side" if ins % 2 else "no number fits"
    return slices + (", or add --grey green if it saw one grey picture as red, green and blue" if ins == 3 else "")


# --- the run ----------------------------------------------------------------------------------------------------------


def _contract(path: Path, overrides: Sequence[str], generators: Mapping[str, Generator]) -> Config:
    """The config's side of the run; the model is what the weights are."""
    for key in (override.partition("=")[0] for override in overrides):
        if key.partition(".")[0] not in GIVEN and key != "train.precision":
            raise ConfigError(f"{key}: has no effect on weights that are trained; accepted: {', '.join(GIVEN)}")
    shape = generators["b"].shape
    net = {"name": shape.name, "norm": shape.norm, "width": shape.width, "dropout": False}
    model = {"name": "cyclegan" if "a" in generators else "pix2pix", "generator": net}
    imposed = [f"cases={os.devnull}", f"model={json.dumps(model)}", "augment={gamma: 0, noise: 0}"]
    return load_translation(path, [*overrides, *imposed])


def _write(out: Path, config: Config, generators: Mapping[str, Generator]) -> Run:
    tensors = {f"{to}.{name}": value for to, one in generators.items() for name, value in one.tensors.items()}
    known = yaml.safe_dump(_known(config), sort_keys=False, allow_unicode=True)
    with replacing(out) as temporary:
        temporary.mkdir()
        (temporary / "config.yaml").write_text(HEADER + known, encoding="utf-8")
        run = Run(temporary, config)
        run.save_weights(tensors, best={})
        run.write_card(_facts(generators))
    return open_run(out)


def _known(config: Config) -> dict[str, Any]:
    """What of a config holds for weights that are trained."""
    values = config.model_dump(mode="json")
    parts = {group: {key: values[group][key] for key in keys} for group, keys in KEPT.items()}
    return {key: parts.get(key, value) for key, value in values.items() if key in ("cases", *GIVEN, *KEPT)}


def _tell_grey(generators: Mapping[str, Generator]) -> None:
    for one in generators.values():
        if one.grey:
            say(f"{one.path}: {one.held.ins} → {one.held.outs} channels became 1 → 1: {one.grey}")


def _facts(generators: Mapping[str, Generator]) -> dict[str, Any]:
    """For the card: where the weights are from, and that nobody knows how they came about."""
    files = {to: _file(one) for to, one in generators.items()}
    imported = {"origin": ORIGIN, "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "generators": files}
    return {"seed": None, "cases_sha256": None, "split_sha256": None, "imported": imported}


def _file(one: Generator) -> dict[str, str]:
    told = {"file": one.path.name, "sha256": one.sha256, "net": str(one.held)}
    return told | ({"grey": one.grey} if one.grey else {})
