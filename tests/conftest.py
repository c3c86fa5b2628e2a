"""What all tests share: where the real scans are, and few threads."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real scans are not at {SHARED}")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real scans; skips the test where it is missing."""
    if not SHARED.is_dir():
        pytest.skip(f"the real scans are not at {SHARED}")
    return SHARED
