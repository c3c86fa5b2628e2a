"""What commands found, as text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medgan.cases import Case
    from medgan.inspect import Finding
    from medgan.run import Run
    from medgan.translate import Translated

__all__ = [
    "columns",
    "findings_table",
    "imported_line",
    "metrics_table",
    "split_line",
    "translated_json",
    "translated_lines",
]

Rows = Sequence[Mapping[str, Any]]


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first being the header, in aligned columns.

    Example:
        >>> print(columns([["case", "mae"], ["p1", "12.5"]]))
        case  mae
        p1    12.5
    """
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def findings_table(findings: Sequence[Finding]) -> str:
    """A line for each scan, what is odd about it below."""
    if not findings:
        return "no DICOM series and no NIfTI file here"
    head = ["path", "kind", "modality", "grid", "range", "unit", "patient"]
    keep = len(head) if any(finding.patient for finding in findings) else len(head) - 1
    lines = columns([head[:keep], *([*_finding(finding)][:keep] for finding in findings)]).splitlines()
    told = [line for pair in zip(lines[1:], findings, strict=True) for line in (pair[0], *_oddities(pair[1]))]
    return "\n".join([lines[0], *told])


def _finding(finding: Finding) -> tuple[str, ...]:
    shape = "×".join(map(str, finding.shape or ()))
    spacing = "×".join(f"{mm:.4g}" for mm in finding.spacing_mm or ())
    tilt = f" {finding.obliquity_deg:.1f}°" if finding.obliquity_deg else ""
    grid = f"{shape} at {spacing} mm {finding.orientation}{tilt}" if finding.shape else "-"
    span = f"{finding.minimum:g} … {finding.maximum:g}" if finding.minimum is not None else "-"
    kind = f"{finding.kind}, synthetic" if finding.synthetic else finding.kind
    return finding.path, kind, finding.modality or "-", grid, span, finding.unit or "-", finding.patient


def _oddities(finding: Finding) -> list[str]:
    named = [f"    {finding.description}"] if finding.description else []
    return [
        *named,
        *([f"    cannot be read: {finding.error}"] if finding.error else []),
        *(f"    {p}" for p in finding.problems),
    ]


def metrics_table(rows: Rows) -> str:
    """A line for each case and one for the mean, and the preset and range that hold for them."""
    metrics = [name for name in ("mae", "psnr", "ssim", "ms_ssim") if any(name in row for row in rows)]
    body = [[row["case"], *(_number(row.get(name)) for name in metrics), row.get("note") or ""] for row in rows]
    mean = ["mean", *(_number(_mean([row.get(name) for row in rows])) for name in metrics), ""]
    units = {str(row["unit"]) for row in rows if row.get("unit")}
    low, high = rows[0]["range"]
    foot = f"{rows[0]['preset']}, range {low:g} … {high:g}, MAE in {', '.join(sorted(units)) or '-'}, PSNR in dB"
    return columns([["case", *metrics, ""], *body, mean]) + "\n" + foot


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def split_line(cases: Sequence[Case]) -> str:
    """How many cases and patients are in which split."""
    splits = Counter(case.split for case in cases)
    counts = ", ".join(f"{split} {splits[split]}" for split in ("train", "val", "test") if splits[split])
    return f"{len(cases)} cases of {len({case.patient for case in cases})} patients ({counts})"


def translated_json(done: Sequence[Translated]) -> list[dict[str, Any]]:
    """What became of each volume, as plain values."""
    return [{**asdict(one), "path": str(one.path)} for one in done]


def translated_lines(done: Sequence[Translated]) -> str:
    """A line for each volume: where it is, its unit and range, and what was clipped."""
    return "\n".join(_translated(one) for one in done) or "nothing was left to translate"


def _translated(one: Translated) -> str:
    return (
        f"{one.path}: {one.low:g} … {one.high:g} {one.unit}; {one.clipped_share:.2%} of the source's foreground was "
        f"beyond the window of the run, {one.saturated_share:.2%} of the output is at its upper end"
    )


def imported_line(run: Run) -> str:
    """What became of imported weights, and how they run."""
    model, prep = run.config.model, run.config.prep
    ways = f"{prep.a.modality} to {prep.b.modality}" + ("" if model.paired else ", and back by --to a")
    net = f"{model.generator.name} with {model.generator.norm} norm, width {model.generator.width}"
    return f"{run.path}: {ways}, by {net}; evaluation mode, as in the reference implementation with --eval"
