"""A step of training stays where its images are: it never waits for a number, nor brings one over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

SCRIPT = Path(__file__).with_name("other_device.py")
QUICK = ["pix2pix 2-D", "supervised 2-D", "cyclegan 2-D", "cut 2-D", "pix2pix with registration 2-D"]
READS = ["stylegan2 2-D", "stylegan2 3-D"]  # how often it moved, and what its discriminator knows, to follow it

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch knows no devices that are made in Python",
)


def told(*names: str) -> dict[str, str]:
    """What went wrong in two steps of each game, all if none is named."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *names],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_steps_of_translators_stay_on_their_device() -> None:
    assert told(*QUICK, READS[0]) == dict.fromkeys(QUICK, "") | {
        READS[0]: "DataDependentOutputException: aten._local_scalar_dense.default"
    }


@pytest.mark.slow
def test_steps_of_all_games_stay_on_their_device() -> None:
    seen = told()
    assert {name for name, wrong in seen.items() if wrong} == set(READS)
    assert len(seen) == 34
