"""The page of a preparation: every case is on it, the worst first, and it changes with the cohort alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cohorts import write_plan, write_table
from command_line import medgan
from PIL import Image

from medgan.prepare import Prepared, PreparedCase
from medgan.report.prepare import prepare_report


def provenance(folder: Path, *, left_mm: float | None, notes: Sequence[str] = (), lost: float = 0.0) -> None:
    """As records.py writes it, as far as the page looks at it."""
    seen = {"left_mm": left_mm, "uncertainty_mm": 0.2, "disagreement_mm": 0.5}
    register: dict[str, Any] = {
        "step": "register", "role": "b", "translation_mm": [3, 4, 0], "rotation_deg": [0, 0, 2],
        "nmi_before": None, "nmi_after": 1.1, "verified": None if left_mm is None else seen,
    }  # fmt: skip
    steps = [register, {"step": "mask", "volume_ml": 1234.4, "lost_share": lost}]
    told = {"schema": "medgan.provenance/1", "results": {"a": {"grid": "4×4×4"}}, "steps": steps, "notes": list(notes)}
    folder.mkdir(parents=True)
    (folder / "provenance.json").write_text(json.dumps(told))
    Image.new("L", (4, 4)).save(folder / "before_after.png")


def test_the_worst_come_first_and_those_refused_with_their_reasons(tmp_path: Path) -> None:
    provenance(tmp_path / "good", left_mm=0.2)
    provenance(tmp_path / "off", left_mm=1.75)
    provenance(tmp_path / "noted", left_mm=0.1, notes=["7% of the mask lies elsewhere"])
    provenance(tmp_path / "unseen #1", left_mm=None, lost=0.5)
    names = ["good", "off", "noted", "unseen #1"]
    cases = [*(PreparedCase(name, "prepared") for name in names), PreparedCase("<bad>", "refused", "b is & was 4-D")]
    page = prepare_report(Prepared(None, tuple(cases)), tmp_path).read_text()
    order = [page.index(f'<h3 id="case-{name}">') for name in ("noted", "off", "good", "unseen #1")]
    assert order == sorted(order)
    assert "4 prepared" in page
    assert "1 with a note" in page
    assert "1 refused" in page
    assert "&lt;bad&gt;" in page
    assert "b is &amp; was 4-D" in page
    assert "3 images lie 0.2 mm off (median)" in page
    assert "at most 1.8 mm (off)" in page
    assert "1.8 ± 0.2" in page
    assert "5.0</td><td>2.0" in page
    assert 'src="unseen%20%231/before_after.png"' in page


def test_the_command_writes_it_once(tmp_path: Path) -> None:
    table, plan = write_table(tmp_path, splits=("train", "test")), write_plan(tmp_path / "plan.yaml")
    (tmp_path / "p1" / "ct.nii.gz").write_bytes(b"no image")
    command = ("prepare", table, plan, "--out", tmp_path / "out")
    assert medgan(*command).code == 4
    page = tmp_path / "out" / "report.html"
    before = page.read_bytes(), page.stat().st_mtime_ns
    assert b"p1" in before[0]
    assert b'src="p0/before_after.png"' in before[0]
    assert b"1 refused" in before[0]
    assert medgan(*command).code == 4
    assert (page.read_bytes(), page.stat().st_mtime_ns) == before
    write_table(tmp_path, splits=("train", "test"))
    assert medgan(*command).code == 0
    assert b"refused" not in page.read_bytes()


def test_no_case_is_named_as_the_page(tmp_path: Path) -> None:
    table = write_table(tmp_path, splits=("train",))
    table.write_text(table.read_text().replace("\np0,", "\nreport.html,"))
    done = medgan("prepare", table, write_plan(tmp_path / "plan.yaml"), "--out", tmp_path / "out")
    assert "cannot be named report.html" in done.out


def test_a_cohort_whose_images_are_only_laid_on_one_grid_has_a_page(tmp_path: Path) -> None:
    images = {"a": {"modality": "MR"}, "b": {"modality": "CT", "unit": "HU"}}
    plan = write_plan(tmp_path / "plan.yaml", mask=None, crop_mm=None, images=images)
    done = medgan("prepare", write_table(tmp_path, splits=("train",)), plan, "--out", tmp_path / "out")
    assert done.code == 0, done.error
    assert "1 prepared" in (tmp_path / "out" / "report.html").read_text()
