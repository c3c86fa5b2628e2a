"""What commands found, as text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medgan.augment.choose import Chosen
    from medgan.augment.gate import Audited
    from medgan.augment.projections import Projected
    from medgan.augment.sample import Sampled
    from medgan.augment.trial import Tried
    from medgan.cache import Cached
    from medgan.cases import Case
    from medgan.convert import Converted
    from medgan.inspect import Finding
    from medgan.run import Run
    from medgan.translate import Translated

__all__ = [
    "audited_lines",
    "augmented_line",
    "cached_line",
    "cases_json",
    "chosen_lines",
    "columns",
    "converted_lines",
    "findings_table",
    "imported_line",
    "metrics_table",
    "projected_json",
    "projected_lines",
    "sampled_json",
    "sampled_line",
    "split_line",
    "translated_json",
    "translated_lines",
    "tried_lines",
]

Rows = Sequence[Mapping[str, Any]]
_MOST = 50  # cases, or notes, that a terminal shows
_SHOWN = ("mae", "psnr", "ssim", "ms_ssim", "slice_roughness", "slice_jump")


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
    shape += f", {finding.num_volumes} volumes," if finding.num_volumes > 1 else ""
    grid = f"{shape} at {spacing} mm {finding.orientation}{tilt}".rstrip() if finding.shape else "-"
    span = f"{finding.minimum:g} … {finding.maximum:g}" if finding.minimum is not None else "-"
    kind = f"{finding.kind}, synthetic" if finding.synthetic else finding.kind
    return finding.path, kind, finding.modality or "-", grid, span, finding.unit or "-", finding.patient


def _oddities(finding: Finding) -> list[str]:
    named = [f"    {finding.description}"] if finding.description else []
    return [
        *named,
        *([f"    cannot be read: {finding.error}"] if finding.error else []),
        *(f"    {problem}" for problem in finding.problems),
        *(f"    ({note})" for note in finding.notes),
    ]


def converted_lines(done: Sequence[Converted]) -> str:
    """What was written, and below it what to look at."""
    if not done:
        return "nothing to convert: no DICOM image was found"
    return "\n".join(line for one in done for line in _converted(one))


def _converted(one: Converted) -> list[str]:
    head = f"refused: {one.description}: {one.error}" if one.error else str(one.path)
    return [head, *(f"  {problem}" for problem in one.problems), *(f"  ({note})" for note in one.notes)]


def metrics_table(rows: Rows) -> str:
    """A line a case with the first metrics, a line a metric with what its numbers come to, and each note once."""
    metrics = [name for name in _SHOWN if any(name in row for row in rows)]
    body = [[row["case"], *(_number(row.get(name)) for name in metrics), _unscored(row)] for row in rows[:_MOST]]
    low, high = rows[0]["range"]
    cases = "\n".join([columns([["case", *metrics, ""], *body]), *_left_out(len(rows), "cases")])
    cases += f"\n{rows[0]['preset']}, range {low:g} … {high:g}"
    return "\n\n".join(part for part in (cases, _summary(rows), _calibration(rows), _noted(rows)) if part)


def _unscored(row: Mapping[str, Any]) -> str:
    return "" if row["status"] == "scored" else str(row["status"])


def _summary(rows: Rows) -> str:
    """Mean with its interval, deviation, median and quartiles of every metric."""
    from medgan.metrics.measures import measure
    from medgan.results import summarise

    unit = ", ".join(sorted({str(row["unit"]) for row in rows if row.get("unit")})) or "-"
    lines = [
        [
            measure(name).label,
            measure(name).in_unit(unit),
            _number(numbers["mean"]),
            _interval(numbers),
            *(_number(numbers[key]) for key in ("sd", "median", "q1", "q3")),
            _counted(numbers),
        ]
        for name, numbers in summarise([dict(row) for row in rows]).items()
        if not name.startswith("coverage_")
    ]
    return columns([["metric", "unit", "mean", "95 % CI, BCa", "sd", "median", "q1", "q3", "cases"], *lines])


def _interval(numbers: Mapping[str, Any]) -> str:
    low, high = (_number(numbers[f"bca95_{end}"]) for end in ("low", "high"))
    return f"{low} to {high}" if numbers["bca95_low"] is not None else "-"


def _counted(numbers: Mapping[str, Any]) -> str:
    """How many cases there are in a mean, and how many have no number, for good or for bad."""
    others = ("undefined", "infinite")
    return f"{numbers['n']}" + "".join(f" (+ {n} {what})" for what in others if (n := numbers[f"num_{what}"]))


def _noted(rows: Rows) -> str:
    """Every note once, with the cases that it holds for."""
    cases: dict[str, list[str]] = {}
    for row in rows:
        told = row.get("note") or ""  # a scored case may have several notes, any other has one reason
        for note in filter(None, told.split("; ") if row.get("status") == "scored" else [told]):
            cases.setdefault(note.removeprefix(f"case {row['case']!r}: "), []).append(str(row["case"]))
    lines = [f"{_some(named, len(rows))}: {note}" for note, named in cases.items()]
    return "\n".join([*lines[:_MOST], *_left_out(len(lines), "notes")])


def _left_out(count: int, what: str) -> list[str]:
    return [f"… and {count - _MOST} more {what}; all are in --json, and in what --out writes"] if count > _MOST else []


def _some(cases: Sequence[str], count: int) -> str:
    if len(cases) == count > 1:
        return "all cases"
    return ", ".join(cases[:5]) + (f" and {len(cases) - 5} more" if len(cases) > 5 else "")


def _calibration(rows: Rows) -> str:
    """How right the standard deviations are, where there are some."""
    told = [row for row in rows if row.get("error_by_sigma")]
    if not told:
        return ""
    covered = [name for name in told[0] if name.startswith("coverage_")]
    names = [*covered, "miscalibration", "ence", "spearman", "sigma_scale"]
    heads = [f"±{name.removeprefix('coverage_')} %" for name in covered] + names[len(covered) :]
    body = [[row["case"], *(_number(row[name]) for name in names)] for row in told]
    mean = ["mean", *(_number(_mean([row[name] for row in told])) for name in names)]
    return "σ: share of voxels inside, and how far off\n" + columns([["case", *heads], *body, mean])


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
    return [
        {**asdict(one), "path": str(one.path), "maps": {kind: str(path) for kind, path in one.maps.items()}}
        for one in done
    ]


def translated_lines(done: Sequence[Translated]) -> str:
    """A line for each volume: where it is, its unit and range, and what was clipped."""
    return "\n".join(_translated(one) for one in done) or "nothing was left to translate"


def _translated(one: Translated) -> str:
    seen = f" from {', '.join(one.contrasts)}" if one.contrasts + one.missing != ("a",) else ""
    seen += f" without {', '.join(one.missing)}" if one.missing else ""
    return (
        f"{one.path}{seen}: {one.low:g} … {one.high:g} {one.unit}; {one.clipped_share:.2%} of the source's foreground "
        f"was beyond the window of the run, {one.saturated_share:.2%} of the output is at its upper end{_maps(one)}"
    )


def _maps(one: Translated) -> str:
    """The maps beside an image, and its mean standard deviation."""
    spread = (
        "" if one.mean_std is None else f"; standard deviation {_number(one.mean_std)} {one.unit} in the foreground"
    )
    return f"{spread}; beside it {', '.join(path.name for path in one.maps.values())}" if one.maps else ""


def cached_line(found: Cached) -> str:
    """Where prepared volumes are kept, and how much there is."""
    if found.folder is None:
        return "no cache: MEDGAN_CACHE=off, or there is no home folder; name one by MEDGAN_CACHE=FOLDER"
    kept = f"{found.folder}: {found.entries} prepared cases, {found.size_bytes / 2**30:.2f} GiB"
    removed = f"; {found.removed} were deleted" if found.removed else ""
    return f"{kept} of at most {found.limit_bytes / 2**30:g}{removed}"


def imported_line(run: Run) -> str:
    """What became of imported weights, and how they run."""
    model, prep = run.config.model, run.config.prep
    ways = f"{prep.a.modality} to {prep.b.modality}" + ("" if model.paired else ", and back by --to a")
    net = f"{model.generator.name} with {model.generator.norm} norm, width {model.generator.width}"
    return f"{run.path}: {ways}, by {net}; evaluation mode, as in the reference implementation with --eval"


def sampled_json(done: Sequence[Sampled]) -> list[dict[str, Any]]:
    """Synthetic images as plain values."""
    return [
        {"case": one.name, "images": {role: str(path) for role, path in one.paths.items()}, **one.conditions}
        for one in done
    ]


def sampled_line(done: Sequence[Sampled], out: Path) -> str:
    """How many images were made, and what of."""
    shown = Counter(", ".join(f"{name} {value}" for name, value in one.conditions.items()) for one in done)
    parts = ", ".join(f"{count} of {what}" for what, count in shown.most_common(8) if what)
    more = f" and {len(shown) - 8} more kinds" if len(shown) > 8 else ""
    return f"{out}: {len(done)} synthetic images{f' ({parts}{more})' if parts else ''}; table: {out / 'cases.csv'}"


def cases_json(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Cases as plain values."""
    return [{**asdict(case), "images": {role: str(path) for role, path in case.images.items()}} for case in cases]


def augmented_line(cases: Sequence[Case], role: str, out: Path) -> str:
    """How many images were translated, and what was carried over with them."""
    labels = dict.fromkeys(other for case in cases for other in case.images if other != role)
    known = dict.fromkeys(f"condition:{name}" for case in cases for name in case.conditions)
    carried = ", ".join([*labels, *known]) or "nothing"
    return f"{out}: {split_line(cases)}, translations in the column {role}, with {carried}; table: {out / 'cases.csv'}"


def audited_lines(done: Audited) -> str:
    """The verdict and all that was looked at, the gravest first."""
    order = {"FAIL": 0, "REVIEW": 1, "PASS": 2}
    reasons = sorted(done.audit.reasons, key=lambda reason: order[reason.level])
    lines = [f"{one.level:6}  {one.measured}; {one.threshold}: {one.meaning}" for one in reasons]
    copies = len(done.audit.near_copies)
    kept = [f"without {copies} near copies: {done.kept}"] if done.kept else [f"{copies} near copies"] if copies else []
    return "\n".join([*lines, f"{done.audit.verdict}: {done.report}", *kept])


def tried_lines(done: Tried) -> str:
    """The deciding score of each arm, mean and standard deviation over the seeds, and the verdict."""
    found = done.utility
    metric = found.settings.task.metric
    table = [("fraction", "arm", metric, "sd")]
    for one in found.arms:
        fraction = "" if one.cell.fraction is None else f"{one.cell.fraction:g}"
        table.append((fraction, str(one.cell), f"{one.mean[metric]:.4f}", f"{one.sd[metric]:.4f}"))
    return f"{columns(table)}\n{found.verdict}: {found.reason}\n{done.report}"


def chosen_lines(done: Chosen) -> str:
    """How many images were kept, why others were not, and what that costs in variety."""
    bias, total = done.selected.bias, len(done.selected.decisions)
    rules = ", ".join(f"{count} by {rule}" for rule, count in done.dropped.items()) or "none"
    classes = ", ".join(f"{name or 'all'} {before} → {after}" for name, (before, after) in bias.classes.items())
    return (
        f"{done.table}: {len(done.selected.images)} of {total} images; dropped: {rules}; {classes}\n"
        f"coverage of {bias.real} images {bias.before.coverage:.1%} before, {bias.after.coverage:.1%} after, "
        f"{bias.by_chance.coverage:.1%} for as many at random"
    )


def projected_json(done: Projected) -> dict[str, Any]:
    """The error of each image, and what the errors tell, as plain values."""
    rows = zip(done.names, done.splits, done.errors, strict=True)
    images = [{"image": name, "split": split, "error": error} for name, split, error in rows]
    known = None if done.known is None else asdict(done.known)
    return {"images": images, "means": dict(done.means), "known": known, "picture": str(done.picture)}


def projected_lines(done: Projected) -> str:
    """The mean error by split, and whether it tells who was in the training."""
    counts = Counter(done.splits)
    lines = [f"{split}: {mean:.2%} of the range, {counts[split]} images" for split, mean in done.means.items()]
    if done.known is not None:
        auc = done.known.auc
        lines.append(
            f"training patients told from others by it: AUC {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f}); "
            f"halves of the training patients: {done.known.control:.3f}"
        )
    return "\n".join([*lines, f"the worst, which show patients: {done.picture}"])
