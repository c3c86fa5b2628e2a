"""The command line: each command parses, calls the function of its name, and prints."""

from __future__ import annotations

import json
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer

from medgan.errors import MedganError
from medgan.processes import is_first

__all__ = ["app", "main"]

app = typer.Typer(
    name="medgan",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Translate one imaging modality into another, and judge the result. Synthetic images always say so.",
)

Shares = tuple[float, float, float]
Range = tuple[float, float]
Contrasts = Annotated[list[str] | None, typer.Option(help="A further source, as t2=t2.nii.gz; repeatable.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Series = Annotated[str | None, typer.Option(help="SeriesInstanceUID, number or description, if there are several.")]


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Options of all commands; `main` reads --debug itself, since errors reach it after this returns."""


@app.command()
def inspect(
    path: Path,
    identity: Annotated[bool, typer.Option("--identity", help="Show patient identifiers.")] = False,
    as_json: AsJson = False,
) -> None:
    """List every DICOM series and NIfTI file under PATH: grid, range, unit, and what is odd."""
    from medgan.inspect import inspect as run
    from medgan.tables import findings_table

    findings = run(path, identity=identity)
    _print([finding.to_json() for finding in findings], findings_table(findings), as_json)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A DICOM series' folder or a NIfTI file.")],
    out: Annotated[Path, typer.Argument(help="A .nii or .nii.gz file, or a new folder for DICOM.")],
    like: Annotated[Path | None, typer.Option(help="NIfTI to DICOM: the series on whose slices it lies.")] = None,
    series: Series = None,
) -> None:
    """Convert a DICOM series to NIfTI or NIfTI to DICOM; OUT says which."""
    from medgan.convert import convert as run

    typer.echo(run(source, out, like=like, series=series))


@app.command()
def index(
    folder: Path,
    a: Annotated[
        str | None, typer.Option(help="Source images: a path below each patient's folder, or with {patient}.")
    ] = None,
    b: Annotated[str | None, typer.Option(help="Target images, likewise.")] = None,
    contrast: Contrasts = None,
    image: Annotated[
        list[str] | None, typer.Option(help="For a sampler, instead of a and b: as t1=t1.nii.gz; repeatable.")
    ] = None,
    mask: Annotated[str | None, typer.Option(help="Masks of where errors count, or made along; likewise.")] = None,
    out: Annotated[Path, typer.Option(help="The table.")] = Path("cases.csv"),
    fractions: Annotated[Shares, typer.Option(help="Shares of patients in train, val, test.")] = (0.7, 0.15, 0.15),
    split: Annotated[str | None, typer.Option(help="Put all cases into this one: train, val or test.")] = None,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    patients: Annotated[Path | None, typer.Option(help="CSV case,patient: which cases are one person.")] = None,
    conditions: Annotated[
        Path | None, typer.Option(help="CSV with case or patient and what is known: class, age …; for a sampler.")
    ] = None,
    unpaired: Annotated[bool, typer.Option("--unpaired", help="Cases may have only a or only b.")] = False,
) -> None:
    """Make the table of cases, split by patient; leaks and mismatched grids are refused."""
    from medgan.cases import by_role
    from medgan.index import index as run
    from medgan.tables import split_line

    sharing: dict[str, Any] = {"fractions": fractions, "seed": seed, "patients": patients, "split": split}
    images: dict[str, Any] = {"a": a, "b": b, "contrasts": by_role(contrast or ()), "mask": mask}
    images |= {"images": by_role(image or (), example="t1=t1.nii.gz"), "conditions": conditions}
    cases = run(folder, **images, out=out, unpaired=unpaired, **sharing)
    typer.echo(f"{out}: {split_line(cases)}")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A YAML file; see configs/.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="train.steps=500")] = None,
    out: Annotated[Path, typer.Option(help="The run folder; the same command goes on where it was stopped.")] = Path(
        "run"
    ),
    device: Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the config and what it will cost.")] = False,
) -> None:
    """Train a translator, or go on with a training that was stopped."""
    if dry_run:
        from medgan.cost import estimate

        typer.echo(estimate(config, overrides or (), device=device))
        return
    from medgan.train import train as run

    typer.echo(run(config, overrides or (), out=out, device=device).path)


@app.command(name="import-weights")
def import_weights(
    weights: Annotated[Path, typer.Argument(metavar="WEIGHTS", help="The generator of b, such as latest_net_G.pth.")],
    config: Annotated[Path, typer.Option(help="A YAML file: prep, patch, neighbours and overlap are used.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="prep.b.range=[-1000,2000]")
    ] = None,
    back: Annotated[Path | None, typer.Option(help="The generator of a, such as latest_net_G_B.pth.")] = None,
    arch: Annotated[str | None, typer.Option(help="What WEIGHTS must be, such as unet_256.")] = None,
    out: Annotated[Path, typer.Option(help="The run folder, new or empty.")] = Path("run"),
) -> None:
    """Make a run of generators trained with pytorch-CycleGAN-and-pix2pix."""
    from medgan.import_weights import import_weights as run
    from medgan.tables import imported_line

    typer.echo(imported_line(run(weights, overrides or (), config=config, back=back, arch=arch, out=out)))


@app.command()
def translate(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN")],
    source: Annotated[Path, typer.Argument(metavar="IN", help="A DICOM series, a NIfTI file, or a cases table.")],
    out: Annotated[Path, typer.Argument(help="A folder (DICOM, or for a table), or a .nii.gz file.")],
    contrast: Contrasts = None,
    to: Annotated[str, typer.Option(help="The domain: b, or a by a model that learns both ways.")] = "b",
    series: Series = None,
    split: Annotated[str | None, typer.Option(help="Of a table: train, val or test.")] = None,
    device: Device = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Windows that go through the network together.")] = 8,
    overlap: Annotated[float | None, typer.Option(min=0, max=0.95, help="Of windows; the run's if not given.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Believe IN to be what the run expects.")] = False,
    samples: Annotated[int | None, typer.Option(help="Translations by each run: mean, and standard deviation.")] = None,
    vary: Annotated[str | None, typer.Option(help="What differs in samples: dropout (the default) or flips.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the dropout; 0 if not given.")] = None,
    with_runs: Annotated[list[Path] | None, typer.Option("--with", help="A further run to join. Repeatable.")] = None,
    triplanar: Annotated[bool, typer.Option("--triplanar", help="Cut slices along all three axes.")] = False,
    cycle: Annotated[bool, typer.Option("--cycle", help="Also map what differs after the way there and back.")] = False,
    as_json: AsJson = False,
) -> None:
    """Translate one volume, or every case of a table, by a trained run."""
    from medgan.cases import by_role
    from medgan.tables import translated_json, translated_lines
    from medgan.translate import translate as run

    choices: dict[str, Any] = {"series": series, "split": split, "device": device, "batch": batch}
    choices["contrasts"] = by_role(contrast or ())
    choices |= {"samples": samples, "vary": vary, "seed": seed, "with_runs": with_runs or ()}
    choices |= {"triplanar": triplanar, "cycle": cycle}
    done = run(run_folder, source, out, to=to, overlap=overlap, trust=trust, **choices)
    _print(translated_json(done), translated_lines(done), as_json)


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
    _print(sampled_json(done), sampled_line(done, out), as_json)


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
    _print(cases_json(cases), augmented_line(cases, role or to, out), as_json)


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
    _print(json.loads(done.audit.to_json()), audited_lines(done), as_json)
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
    _print(done.selected.bias.to_json(), chosen_lines(done), as_json)


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
    _print(done.utility.to_json(), tried_lines(done), as_json)


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
    _print(projected_json(done), projected_lines(done), as_json)


@app.command()
def export(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN")],
    share: Annotated[Path, typer.Option(help="A new folder: what may be given away.")],
) -> None:
    """Copy a run for others without what tells of patients: no discriminator, no state, no pictures, no paths."""
    from medgan.augment.export import export as run

    typer.echo(run(run_folder, share))


@app.command()
def evaluate(
    pred: Annotated[Path, typer.Argument(help="A volume, or a folder of them.")],
    ref: Annotated[Path, typer.Argument(help="A volume, a folder of them by case, or a cases table.")],
    mask: Annotated[Path | None, typer.Option(help="Where errors count: a volume or a folder.")] = None,
    preset: Annotated[str, typer.Option(help="synthrad2023 or synthrad2025.")] = "synthrad2023",
    value_range: Annotated[Range | None, typer.Option("--range", help="Low and high, for images not in HU.")] = None,
    split: Annotated[str | None, typer.Option(help="Of a table: train, val or test.")] = None,
    run_folder: Annotated[Path | None, typer.Option("--run", help="Compare in this run's unit and range.")] = None,
    std: Annotated[Path | None, typer.Option(help="σ of PRED: a map or a folder; CASE_std beside it if none.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for metrics.csv and metrics.json.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure predictions against references: MAE, PSNR, SSIM or MS-SSIM, case by case."""
    from medgan.evaluate import evaluate as run
    from medgan.tables import metrics_table

    choices: dict[str, Any] = {"preset": preset, "value_range": value_range, "run": run_folder, "split": split}
    rows = run(pred, ref, mask=mask, std=std, out=out, **choices)
    _print(rows, metrics_table(rows), as_json)


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete all of them.")] = False,
) -> None:
    """Tell where prepared volumes are kept between trainings, and how much there is."""
    from medgan.cache import cache as run
    from medgan.tables import cached_line

    typer.echo(cached_line(run(clear=clear)))


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN")],
    out: Annotated[Path | None, typer.Option(help="The page; report.html in RUN if not given.")] = None,
) -> None:
    """Show how a training went, in one HTML file: errors, losses, what the doctor said."""
    from medgan.report import report as run

    typer.echo(f"Report: {run(run_folder, out)}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="A folder for everything that it makes.")] = Path("demo"),
    device: Device = "auto",
) -> None:
    """The whole way on phantoms: DICOM in, train, translate, DICOM out, evaluate, report."""
    from medgan.demo import demo as run

    typer.echo(f"Report: {run(out, device=device)}")


def main() -> None:
    """Run the command line; what medgan refuses, or the system refuses it, becomes one red line and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be text
    if sys.argv[1:] == ["--version"]:
        from medgan import __version__

        typer.echo(f"medgan {__version__}")
        return
    try:
        app()
    except (MedganError, OSError) as error:
        if "--debug" in sys.argv:
            raise
        typer.secho(f"Error: {' '.join(_told(error).split())}", fg=typer.colors.RED, err=True)
        sys.exit(1)


def _told(error: Exception) -> str:
    if isinstance(error, OSError):  # at a path that no function could even look at
        return f"{error.filename or 'the system'}: {error.strerror or error}; check the path and its permissions"
    return str(error)


def _print(values: Any, text: str, as_json: bool) -> None:
    """Once, however many processes share the job."""
    if not is_first():
        return
    typer.echo(json.dumps(values, indent=2, allow_nan=False) if as_json else text)
