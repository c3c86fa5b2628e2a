"""Judging: images against references, methods against each other, sets against sets, dose against dose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medgan.cli.base import AsJson, Device, app, printed
from medgan.errors import InputError

__all__ = ["compare", "evaluate", "gamma", "likeness"]

Range = tuple[float, float]
_PLACE = "a volume, a folder of them by case, or a rule such as 'out/{case}/ct.nii.gz'"


@app.command()
def evaluate(
    pred: Annotated[Path, typer.Argument(help=f"Predictions: {_PLACE}.")],
    ref: Annotated[Path, typer.Argument(help="References, likewise, or a cases table.")],
    mask: Annotated[Path | None, typer.Option(help="Where errors count, likewise.")] = None,
    preset: Annotated[str, typer.Option(help="What is computed, and in which range.")] = "synthrad2023",
    value_range: Annotated[Range | None, typer.Option("--range", help="Low and high, for images not in HU.")] = None,
    region: Annotated[
        list[str] | None, typer.Option(help="HU scored on their own: bone=200..3071, or 'default'; repeatable.")
    ] = None,
    pred_labels: Annotated[Path | None, typer.Option(help="Segmentations of the predictions, by case.")] = None,
    ref_labels: Annotated[Path | None, typer.Option(help="Segmentations of the references, by case.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Of a number in them: liver=5; repeatable.")] = None,
    split: Annotated[str | None, typer.Option(help="Of a table: train, val or test.")] = None,
    run_folder: Annotated[Path | None, typer.Option("--run", help="Compare in this run's unit and range.")] = None,
    std: Annotated[Path | None, typer.Option(help="σ of PRED: a map or a folder; CASE_std beside it if none.")] = None,
    source: Annotated[Path | None, typer.Option(help="What was translated, for the pictures of the report.")] = None,
    wepl: Annotated[
        str | None, typer.Option(help="Errors of path length and range in water: protons, photons or a curve's file.")
    ] = None,
    angle: Annotated[
        list[float] | None, typer.Option(help="Of the gantry, for --wepl, degrees; repeatable, else all around.")
    ] = None,
    unit: Annotated[str, typer.Option(help="Of images that state none, such as HU.")] = "a.u.",
    resample_to: Annotated[
        str | None, typer.Option(help="reference: predictions and masks on other grids to its, which is noted.")
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="mm that voxels of one place may lie apart.")] = 0.01,
    processes: Annotated[int, typer.Option(min=1, help="Cases scored at once.")] = 1,
    fail_under: Annotated[
        list[str] | None, typer.Option(help="Exit 1 if a mean is worse, as mae=80, or a case is missing; repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for tables and report.html; taken up again.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure predictions of any tool against references, case by case, with intervals over patients."""
    from medgan.judge import judge
    from medgan.tables import metrics_table

    choices: dict[str, Any] = {"preset": preset, "value_range": value_range, "run": run_folder, "split": split}
    choices |= {"source": source, "tolerance_mm": tolerance, "processes": processes}
    choices |= {"resample": _resampled(resample_to)}
    choices |= {"mask": mask, "std": std, "out": out, "wepl": wepl, "angles_deg": angle, "unit": unit}
    choices |= {"labels": (pred_labels, ref_labels), "names": label or (), "limits": fail_under or ()}
    done = judge(pred, ref, regions=region or (), **choices)
    printed(done.rows, metrics_table(done.rows) + done.told(), as_json)
    raise typer.Exit(bool(done.failures))


def _resampled(to: str | None) -> bool:
    if to not in (None, "reference"):
        raise InputError(f"--resample-to {to} is unknown (accepted: reference, whose grid predictions are brought to)")
    return to is not None


@app.command()
def compare(
    methods: Annotated[list[Path], typer.Argument(help="Predictions or results of methods, as PATH or NAME=PATH.")],
    ref: Annotated[Path | None, typer.Option(help="References, where predictions are to be scored.")] = None,
    mask: Annotated[Path | None, typer.Option(help="Where errors count, for the scoring.")] = None,
    preset: Annotated[str | None, typer.Option(help="For the scoring; as evaluate if not given.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="To compare, all if not given; repeatable.")] = None,
    missing: Annotated[str, typer.Option(help="complete: leave such cases out; worst: rank last.")] = "complete",
    seed: Annotated[int, typer.Option(help="Of the bootstrap and the permutations.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for comparison.json, .csv and .tex.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare methods on the same patients: paired tests, effect sizes, ranks and how stable they are."""
    from medgan.compare import compare as run

    choices: dict[str, Any] = {"missing": missing, "seed": seed, "out": out}
    done = run(methods, ref=ref, mask=mask, preset=preset, metrics=metric or None, **choices)
    printed(done.to_json(), done.describe(), as_json)


@app.command()
def likeness(
    synthetic: Annotated[Path, typer.Argument(help="Volumes or pictures: a folder, a rule or a cases table.")],
    real: Annotated[Path, typer.Argument(help="Real ones, likewise; they need not be of the same patients.")],
    features: Annotated[
        list[str] | None, typer.Option(help="radiomic, deepbet, efficientnet-lite0, or a network's file; repeatable.")
    ] = None,
    patients: Annotated[Path | None, typer.Option(help="CSV case,patient, where names do not tell.")] = None,
    real_test: Annotated[Path | None, typer.Option(help="Real images of others, to stand beside.")] = None,
    window: Annotated[Range | None, typer.Option(help="Low and high that features see, in the images' unit.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder for likeness.json and features; taken up again.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare a set of synthetic images with real ones, unpaired: distances and coverage beside their floors."""
    from medgan.likeness import likeness as run

    choices: dict[str, Any] = {"patients": patients, "real_test": real_test, "window": window, "seed": seed}
    done = run(synthetic, real, features=features or ("radiomic",), device=device, out=out, **choices)
    printed(done.to_json(), done.describe(), as_json)


@app.command()
def gamma(
    evaluated: Annotated[Path, typer.Argument(help="The dose that is judged: RT dose, NIfTI, MetaImage or NRRD.")],
    reference: Annotated[Path, typer.Argument(help="The dose that it is held against, on the same grid.")],
    mask: Annotated[Path | None, typer.Option(help="Where it counts.")] = None,
    dose: Annotated[float, typer.Option(help="% of the greatest reference dose, or of the local one.")] = 3.0,
    distance: Annotated[float, typer.Option(help="mm.")] = 3.0,
    cutoff: Annotated[float, typer.Option(help="% of the greatest reference dose below which none counts.")] = 10.0,
    local: Annotated[bool, typer.Option("--local", help="Dose differences in % of the local dose.")] = False,
    out: Annotated[Path | None, typer.Option(help="A .nii.gz for the map of gamma.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two doses by the gamma index."""
    from medgan.gamma import gamma as run

    criteria: dict[str, Any] = {"dose_percent": dose, "distance_mm": distance, "cutoff_percent": cutoff, "local": local}
    done = run(evaluated, reference, mask=mask, out=out, **criteria)
    printed(done.to_json(), done.describe(), as_json)
