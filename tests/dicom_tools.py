"""Converters of DICOM run as their users run them, each in a way that tells what it wrote, printed and returned."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """What one conversion left behind.

    Args:
        code: exit status; for a library 1 where it raised, else 0.
        files: the NIfTI files that it wrote.
        said: all that it printed or raised.
        report: medgan's `--json`.
    """

    code: int
    files: list[Path]
    said: str
    report: list[dict[str, object]] = field(default_factory=list)


Tool = Callable[[Path, Path], Run]


def written(out: Path) -> list[Path]:
    return sorted(path for path in out.rglob("*.nii*") if path.is_file())


def medgan(*flags: str) -> Tool:
    """The command line in this process, warm."""

    def convert(source: Path, out: Path) -> Run:
        from command_line import medgan as run

        done = run("convert", source, out, "--json", *flags)
        report = json.loads(done.out) if done.out.lstrip().startswith("[") else []
        return Run(done.code, written(out), done.out + done.err, report)

    return convert


def medgan_command(source: Path, out: Path) -> Run:
    return command([sys.executable, "-m", "medgan", "convert", str(source), str(out), "--json"], out)


def dcm2niix(source: Path, out: Path) -> Run:
    import dcm2niix as package

    out.mkdir(parents=True, exist_ok=True)
    return command([package.bin, "-z", "y", "-b", "n", "-f", "%s_%p", "-o", str(out), str(source)], out)


def command(words: Sequence[str], out: Path) -> Run:
    done = subprocess.run(words, capture_output=True, check=False, text=True, errors="replace")
    return Run(done.returncode, written(out), done.stdout + done.stderr)


def dicom2nifti(source: Path, out: Path) -> Run:
    import dicom2nifti as package

    out.mkdir(parents=True, exist_ok=True)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            package.dicom_series_to_nifti(str(source), str(out / "volume.nii.gz"), reorient_nifti=False)
        except Exception as error:  # a library says no by raising, whatever the class
            return Run(1, written(out), f"{said.getvalue()}{type(error).__name__}: {error}")
    return Run(0, written(out), said.getvalue())


def simpleitk(source: Path, out: Path) -> Run:
    import SimpleITK as sitk

    out.mkdir(parents=True, exist_ok=True)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageSeriesReader()
    try:
        for n, uid in enumerate(reader.GetGDCMSeriesIDs(str(source))):
            reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(source), uid))
            sitk.WriteImage(reader.Execute(), str(out / f"{n}.nii.gz"))
    except RuntimeError as error:
        return Run(1, written(out), str(error))
    return Run(0, written(out), "")


TOOLS: dict[str, Tool] = {
    "medgan": medgan(),
    "medgan --no-resample": medgan("--no-resample"),
    "medgan command": medgan_command,
    "dcm2niix": dcm2niix,
    "dicom2nifti": dicom2nifti,
    "SimpleITK": simpleitk,
}


def has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
