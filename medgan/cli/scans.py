"""From scans to a judged translation: what is there, training, translating, measuring."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medgan.cli.base import AsJson, Device, app, printed

__all__ = [
    "cache",
    "convert",
    "deidentify",
    "demo",
    "import_weights",
    "index",
    "inspect",
    "phantoms",
    "report",
    "train",
    "translate",
]

Shares = tuple[float, float, float]
Range = tuple[float, float]
Contrasts = Annotated[list[str] | None, typer.Option(help="A further source, as t2=t2.nii.gz; repeatable.")]
Series = Annotated[str | None, typer.Option(help="SeriesInstanceUID, number or description, if there are several.")]


@app.command()
def inspect(
    path: Path,
    identity: Annotated[bool, typer.Option("--identity", help="Show patient identifiers.")] = False,
    lint: Annotated[
        bool, typer.Option("--lint", help="Judge DICOM headers instead; exit 1: errors, 3: warnings.")
    ] = False,
    source: Annotated[Path | None, typer.Option(help="Judge against the series that PATH was made from.")] = None,
    as_json: AsJson = False,
) -> None:
    """List every DICOM series and NIfTI file under PATH: grid, range, unit, and what is odd."""
    if lint or source is not None:
        from medgan.lint import lint as judge

        verdict = judge(path, source=source)
        printed(verdict.to_json(), verdict.describe(), as_json)
        raise typer.Exit(verdict.exit_code)
    from medgan.inspect import inspect as run
    from medgan.tables import findings_table

    findings = run(path, identity=identity)
    printed([finding.to_json() for finding in findings], findings_table(findings), as_json)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A folder with DICOM, or one file of any format.")],
    out: Annotated[Path, typer.Argument(help="A .nii.gz, .mha or .nrrd file, or a new folder.")],
    like: Annotated[Path | None, typer.Option(help="To DICOM: the series on whose slices it lies.")] = None,
    series: Series = None,
    to: Annotated[str | None, typer.Option(help="What a folder gets: nifti, mha, nrrd or dicom.")] = None,
    fill: Annotated[bool, typer.Option("--fill", help="Interpolate missing, damaged and cut off slices.")] = False,
    resample: Annotated[
        bool | None,
        typer.Option(
            "--resample/--no-resample",
            help="Also where slices seem to be missing; or never: a tilt stays in the affine.",
        ),
    ] = None,
    scaling: Annotated[str, typer.Option(help="Of DICOM values: stated, philips (floating point) or suv.")] = "stated",
    as_json: AsJson = False,
) -> None:
    """Convert every DICOM series of a folder to NIfTI, or one scan of any format to another."""
    from medgan.convert import convert as run
    from medgan.convert import status
    from medgan.formats.dicom import Repair
    from medgan.tables import converted_lines

    done = run(source, out, like=like, series=series, to=to, repair=Repair(fill, resample), scaling=scaling)
    printed([one.to_json() for one in done], converted_lines(done), as_json)
    raise typer.Exit(status(done))


@app.command()
def deidentify(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A folder or a file with DICOM.")],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    key: Annotated[Path | None, typer.Option(help="Secret of the new identifiers; made if missing. Keep it.")] = None,
    patients: Annotated[Path | None, typer.Option(help="CSV patient_id,new_id: identifiers of your own.")] = None,
    shift_dates: Annotated[bool, typer.Option("--shift-dates", help="Move dates instead of removing them.")] = False,
    allow_burned_in: Annotated[
        bool, typer.Option("--allow-burned-in", help="Also release images that may have text in their pixels.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove from DICOM headers whose they are, and check the result; pixels and faces stay as they are."""
    from medgan.deidentify import deidentify as run

    done = run(source, out, key=key, patients=patients, shift_dates=shift_dates, allow_burned_in=allow_burned_in)
    printed(done.to_json(), done.describe(), as_json)
    raise typer.Exit(done.exit_code)


@app.command()
def index(
    folder: Path,
    layout: Annotated[str, typer.Option(help="patterns, bids, decathlon, synthrad or dicom.")] = "patterns",
    a: Annotated[
        str | None,
        typer.Option(help="Source images: a path below each patient's folder; T1w in BIDS, MR:T1* in dicom."),
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
    split_file: Annotated[Path | None, typer.Option(help="CSV patient,split, or another table.")] = None,
    folds: Annotated[int | None, typer.Option(help="As many tables; each patient is test in one.")] = None,
    stratify: Annotated[str | None, typer.Option(help="A condition, as site, that is shared out evenly.")] = None,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    patients: Annotated[Path | None, typer.Option(help="CSV case,patient: which cases are one person.")] = None,
    conditions: Annotated[
        Path | None, typer.Option(help="CSV with case or patient and what is known: class, age …; for a sampler.")
    ] = None,
    unpaired: Annotated[bool, typer.Option("--unpaired", help="Cases may have only a or only b.")] = False,
    unregistered: Annotated[
        bool, typer.Option("--unregistered", help="Images may lie on any grid: for medgan check and prepare.")
    ] = False,
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Leave out cases that cannot be used, and say why.")
    ] = False,
) -> None:
    """Make the table of cases, split by patient; leaks and mismatched grids are refused."""
    from medgan.cases import by_role, read_cases
    from medgan.index import index as run
    from medgan.splits import split_hash, table_paths
    from medgan.tables import split_line

    sharing: dict[str, Any] = {"fractions": fractions, "seed": seed, "patients": patients, "split": split}
    sharing |= {"split_file": split_file, "folds": folds, "stratify": stratify, "leave_out": leave_out}
    images: dict[str, Any] = {"a": a, "b": b, "contrasts": by_role(contrast or ()), "mask": mask}
    images |= {"images": by_role(image or (), example="t1=t1.nii.gz"), "conditions": conditions}
    run(folder, layout=layout, **images, out=out, unpaired=unpaired, unregistered=unregistered, **sharing)
    for path in table_paths(out, folds):
        cases = read_cases(path, required=())
        typer.echo(f"{path}: {split_line(cases)}, split {split_hash(cases)[:12]}")


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

    path = str(run(config, overrides or (), out=out, device=device).path)
    printed(path, path, as_json=False)


@app.command(name="import-weights")
def import_weights(
    weights: Annotated[Path, typer.Argument(metavar="WEIGHTS", help="The generator of b, such as latest_net_G.pth.")],
    config: Annotated[Path, typer.Option(help="A YAML file: prep, patch, neighbours and overlap are used.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="prep.b.range=[-1000,2000]")
    ] = None,
    back: Annotated[Path | None, typer.Option(help="The generator of a, such as latest_net_G_B.pth.")] = None,
    arch: Annotated[str | None, typer.Option(help="What WEIGHTS must be, such as unet_256.")] = None,
    grey: Annotated[
        str | None, typer.Option(help="Of nets of RGB pictures that were grey: keep red, green or blue.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The run folder, new or empty.")] = Path("run"),
) -> None:
    """Make a run of generators trained with pytorch-CycleGAN-and-pix2pix."""
    from medgan.import_weights import import_weights as run
    from medgan.tables import imported_line

    made = run(weights, overrides or (), config=config, back=back, arch=arch, grey=grey, out=out)
    typer.echo(imported_line(made))


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
    precision: Annotated[str | None, typer.Option(help="32 or bf16; the run's if not given.")] = None,
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
    choices |= {"triplanar": triplanar, "cycle": cycle, "precision": precision}
    done = run(run_folder, source, out, to=to, overlap=overlap, trust=trust, **choices)
    printed(translated_json(done), translated_lines(done), as_json)


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


@app.command()
def phantoms(
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    layout: Annotated[str, typer.Option(help="dicom, bids or synthrad.")] = "dicom",
    num: Annotated[int, typer.Option(help="Of patients.")] = 12,
    seed: Annotated[int, typer.Option(help="Other seeds, other patients.")] = 0,
) -> None:
    """Made-up patients as scanners leave them: not registered, faults among them, and a list of what was planted."""
    from medgan.phantoms import phantoms as run

    folder = run(out, layout=layout, num=num, seed=seed)
    typer.echo(f"{folder}: {num} patients; {folder / 'planted.csv'} says what is wrong with them")
