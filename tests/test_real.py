"""On real brains: a minutes-long training beats what needs no network, on patients that it has not seen."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from medgan.evaluate import summarise

TOOL = Path(__file__).parents[1] / "tools" / "t1_to_flair.py"


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("t1_to_flair", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_t1_to_flair_beats_both_intensity_maps(shared: Path, tmp_path: Path) -> None:
    found = _tool().run(shared / "nichart_t1_flair_3d2mm", tmp_path, [])
    means = {
        method: {name: summarise(rows)[name]["mean"] for name in ("mae", "ssim")}
        for method, rows in found.results.items()
    }
    ours = means.pop("pix2pix")
    assert len(found.outcomes) == 4
    assert len(means) == 2
    for method, theirs in means.items():
        assert ours["mae"] < theirs["mae"], method
        assert ours["ssim"] > theirs["ssim"], method


def test_one_person_is_in_one_split(shared: Path, tmp_path: Path) -> None:
    """Subj15 and Subj16 are the same person, which only the list of patients tells."""
    tool = _tool()
    roles = {"a": "t1.nii.gz", "b": "flair.nii.gz", "mask": "brainmask.nii.gz"}
    data = shared / "nichart_t1_flair_3d2mm"
    for seed in range(4):
        cases = tool.index(data, **roles, out=tmp_path / f"{seed}.csv", seed=seed, patients=tool.PATIENTS)
        splits = {case.name: case.split for case in cases}
        assert splits["Subj15"] == splits["Subj16"]
        assert len({case.patient for case in cases}) == 12
