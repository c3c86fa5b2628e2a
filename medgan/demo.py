"""The whole way on phantoms, in minutes: DICOM in, train, translate, DICOM out, evaluate, report."""

from __future__ import annotations

import platform
from importlib.resources import files
from pathlib import Path

import torch

import medgan
from medgan.evaluate import summarise
from medgan.index import index
from medgan.phantom import write_cohort
from medgan.progress import say
from medgan.report import Panel, Report, write_report
from medgan.run import Run, open_run
from medgan.study import Study, study
from medgan.train import train

__all__ = ["demo"]

NUM_PATIENTS = 9
SEED = 0
SHOWN_CASES = 2
ERROR_LIMIT_HU = 300.0


def demo(out: Path | str = "demo", *, device: str = "auto") -> Path:
    """Write a paired MR/CT head cohort as DICOM, learn MR → CT, translate held-out patients, and report.

    A demo that was stopped goes on where it was.

    Args:
        out: folder for everything that it makes.
        device: `auto`, `cpu` or `cuda`.

    Returns:
        The report, one HTML file.

    Raises:
        OutputError: if `out` cannot be written.
    """
    out = Path(out)
    say(f"1/4 Phantom patients as DICOM: {out / 'cohort'}")
    _cohort(out)
    say(f"2/4 Training pix2pix: {out / 'run'}")
    (out / "demo.yaml").write_text(files("medgan").joinpath("demo.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    run = open_run(train(out / "demo.yaml", out=out / "run", device=device).path)
    say(f"3/4 Translating and scoring held-out patients: {out / 'translated'}")
    found = study(run, out / "translated", device=device)
    say("4/4 Report")
    return write_report(out / "report.html", _report(run, found))


def _cohort(out: Path) -> None:
    if not (out / "cohort").exists():
        write_cohort(out / "cohort", num_patients=NUM_PATIENTS, seed=SEED)
    if not (out / "cases.csv").exists():
        index(out / "cohort", a="mr", b="ct", mask="body.nii.gz", out=out / "cases.csv", fractions=(0.6, 0.15, 0.25))


def _report(run: Run, found: Study) -> Report:
    return Report(
        title="MR → CT on head phantoms",
        lead=_lead(run, found),
        results=found.results,
        panels=[
            Panel(one.case, one.source, one.synthetic, one.reference, one.mask, ERROR_LIMIT_HU)
            for one in found.outcomes[:SHOWN_CASES]
        ],
        training=run.metrics(),
        error_unit=run.config.prep.b.output_unit,
        provenance=_provenance(run),
        commands=_commands(run.path.parent),
    )


def _lead(run: Run, found: Study) -> list[str]:
    means = {name: summarise(rows)["mae"]["mean"] for name, rows in found.results.items()}
    listed = "; ".join(f"{name} {mean:.1f} HU" for name, mean in means.items())
    num_cases, num_steps = len(found.outcomes), run.config.train.steps
    return [
        "Every image here is made up: the patients are phantoms, written as MR and CT series in DICOM, each patient on "
        "an oblique, off-centre grid.",
        f"A pix2pix of {num_steps} steps learned CT from MR on the training patients. It then translated {num_cases} "
        "patients that it had not seen, DICOM to DICOM. Errors are counted inside the body.",
        f"Mean absolute errors: {listed}. The two maps see one voxel at a time; they cannot tell air from bone, which "
        "are equally dark in MR.",
    ]


def _provenance(run: Run) -> dict[str, str]:
    return {
        "medgan": medgan.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "seed": str(run.config.train.seed),
        "weights (SHA-256)": run.weights_sha256,
        "kept weights": f"step {run.best['step']}",
        "cohort": f"{NUM_PATIENTS} phantoms, seed {SEED}",
    }


def _commands(out: Path) -> list[str]:
    return [
        f"medgan index {out}/cohort --a mr --b ct --mask body.nii.gz --fractions 0.6 0.15 0.25 --out {out}/cases.csv",
        f"medgan train {out}/demo.yaml --out {out}/run",
        f"medgan translate {out}/run {out}/cases.csv {out}/translated --split test",
    ]
