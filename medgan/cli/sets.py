"""Synthetic sets: made, chosen from, audited, tried and given away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from medgan.cli.base import AsJson, Device, app, printed

__all__ = ["audit", "augment", "export", "project", "sample", "select", "utility"]


@app.command()
def sample(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="The run of a sampler.")],
    out: Annotated[Path, typer.Option(help="A folder, new or of the same call.")],
    num: Annotated[int | None, typer.Option("--num", "-n", help="How many images.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed, other images.")] = 0,
    condition: Annotated[
        list[str] | None, typer.Option(help="What all images show, as class=lesion; repeatable.")
    ] = None,
    balance: Annotated[str | None, typer.Option(help="Fill each class up to the largest: max, or to a number.")] = None,
    truncation: Annotated[float | None, typer.Option(help="Less diversity, more regular images.")] = None,
    least_patients: Annotated[int, typer.Option(help="Of training, that a class must have.")] = 10,
    format_: Annotated[str, typer.Option("--format", help="nifti, dicom, png or npz.")] = "nifti",
    again: Annotated[Path | None, typer.Option(help="Make the set of this manifest.json once more.")] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Make synthetic images by a trained sampler: marked, seeded, with their table of cases."""
    from medgan.augment.sample import sample as run
    from medgan.augment.sample import sample_again
    from medgan.cases import by_role
    from medgan.tables import sampled_json, sampled_line

    if again:
        done = sample_again(again, run_folder, out, device=device)
    else:
        wish: dict[str, Any] = {"num": num, "seed": seed, "balance": balance}
        wish["conditions"] = by_role(condition or (), example="class=lesion")
        wish |= {"truncation": truncation, "least_patients": least_patients, "format": format_}
        done = run(run_folder, out, **wish, device=device)
    printed(sampled_json(done), sampled_line(done, out), as_json)


@app.command()
def augment(
    table: Annotated[Path, typer.Argument(metavar="CASES", help="The table of labelled cases.")],
    run_folder: Annotated[Path, typer.Option("--run", help="The run of a translator.")],
    out: Annotated[Path, typer.Option(help="A folder, new or of the same call.")],
    to: Annotated[str, typer.Option(help="The domain: b, or a by a model that learns both ways.")] = "b",
    role: Annotated[str | None, typer.Option(help="Column of the translations; that of the domain if none.")] = None,
    split: Annotated[str, typer.Option(help="train, val or test; a folder holds one.")] = "train",
    device: Device = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Windows that go through the network together.")] = 8,
    trust: Annotated[bool, typer.Option("--trust", help="Believe the images to be what the run expects.")] = False,
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="Also cases without a label.")] = False,
    as_json: AsJson = False,
) -> None:
    """Translate labelled images into another modality, with their labels: to train a segmenter of it on."""
    from medgan.augment.translated import augment as run
    from medgan.tables import augmented_line, cases_json

    choices: dict[str, Any] = {"to": to, "role": role, "split": split, "device": device, "batch": batch}
    cases = run(run_folder, table, out, **choices, trust=trust, unlabelled=unlabelled)
    printed(cases_json(cases), augmented_line(cases, role or to, out), as_json)


@app.command()
def audit(
    real: Annotated[Path, typer.Argument(help="The table of cases of the training.")],
    synthetic: Annotated[Path, typer.Argument(metavar="SET", help="A folder that `medgan sample` made.")],
    holdout: Annotated[Path | None, typer.Option(help="Cases of other patients; val and test of REAL if none.")] = None,
    run_folder: Annotated[Path | None, typer.Option("--run", help="What made SET: also try its discriminator.")] = None,
    features: Annotated[str, typer.Option(help="random-conv, hand-made, or a TorchScript file.")] = "random-conv",
    within: Annotated[str | None, typer.Option(help="The condition within which diversity is judged.")] = None,
    drop_near_copies: Annotated[bool, typer.Option("--drop-near-copies", help="Write a table without them.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for audit.json and audit_pairs.png; SET if none.")] = None,
    seed: int = 0,
    as_json: AsJson = False,
) -> None:
    """Look for copies of patients in a synthetic set, and for what it lacks: PASS, REVIEW or FAIL (exit code 1)."""
    from medgan.augment.gate import audit_set
    from medgan.tables import audited_lines

    ways: dict[str, Any] = {"holdout": holdout, "run": run_folder, "features": features, "within": within}
    done = audit_set(real, synthetic, **ways, drop_near_copies=drop_near_copies, out=out, seed=seed)
    printed(json.loads(done.audit.to_json()), audited_lines(done), as_json)
    raise typer.Exit(int(done.audit.verdict == "FAIL"))


@app.command()
def select(
    real: Annotated[Path, typer.Argument(help="The table of cases of the training.")],
    synthetic: Annotated[Path, typer.Argument(metavar="SET", help="A folder that `medgan sample` made.")],
    rules: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="margin=0.25 nearest=0.5 per_class=500")],
    run_folder: Annotated[Path | None, typer.Option("--run", help="What made SET, for lowest_scores.")] = None,
    condition: Annotated[str | None, typer.Option(help="Whose values are the classes.")] = None,
    seed: int = 0,
    as_json: AsJson = False,
) -> None:
    """Drop images of a set by rules, say of each why, and declare what that costs in variety."""
    from medgan.augment.choose import choose
    from medgan.augment.select import Selection
    from medgan.config import overridden
    from medgan.tables import chosen_lines

    settings = Selection.parse(overridden({}, rules))
    done = choose(real, synthetic, settings, run=run_folder, condition=condition, seed=seed)
    printed(done.selected.bias.to_json(), chosen_lines(done), as_json)


@app.command()
def utility(
    real: Annotated[Path, typer.Argument(help="The table of cases of the training; its split test is tried on.")],
    synthetic: Annotated[Path, typer.Argument(metavar="SET", help="A folder that `medgan sample` made.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="task.net=resnet_small fractions=[0.1,1]")
    ] = None,
    test: Annotated[Path | None, typer.Option(help="Cases of other patients to try on.")] = None,
    selection: Annotated[Path | None, typer.Option(help="A table of part of SET.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for utility.json; SET if none.")] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Does the set help a task? Trains with and without it, beside duplicates: helps, no evidence or harms."""
    from medgan.augment.trial import try_set
    from medgan.augment.utility import UtilitySettings
    from medgan.config import overridden
    from medgan.tables import tried_lines

    settings = UtilitySettings.parse(overridden({"task": {"name": "classification"}}, overrides or ()))
    done = try_set(real, synthetic, settings, test=test, selection=selection, out=out, device=device)
    printed(done.utility.to_json(), tried_lines(done), as_json)


@app.command()
def project(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="The run of a stylegan2.")],
    table: Annotated[Path, typer.Argument(metavar="CASES", help="The table of real images.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    split: Annotated[str | None, typer.Option(help="train, val or test; all if none.")] = None,
    num: Annotated[int, typer.Option("--num", "-n", min=1, help="Of each split at most, spread over it.")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Of the search for each image.")] = 300,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Draw real images again by a sampler as well as it can: what it has not learnt, and whom it knows by heart."""
    from medgan.augment.projections import project as run
    from medgan.tables import projected_json, projected_lines

    done = run(run_folder, table, out, split=split, num=num, steps=steps, device=device)
    printed(projected_json(done), projected_lines(done), as_json)


@app.command()
def export(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN")],
    share: Annotated[Path, typer.Option(help="A new folder: what may be given away.")],
) -> None:
    """Copy a run for others without what tells of patients: no discriminator, no state, no pictures, no paths."""
    from medgan.augment.export import export as run

    typer.echo(run(run_folder, share))
