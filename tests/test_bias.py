"""bias: a planted field is found, and tissue is as even after as before it was planted."""

from __future__ import annotations

import numpy as np
import pytest

from medgan.bias import corrected
from medgan.errors import GeometryError, InputError
from medgan.phantom import Tissue, head, patient_grid


def test_a_planted_field_is_found_and_taken_out() -> None:
    phantom = head(4, grid=patient_grid(3, 1, size=64))
    x, y, z = np.moveaxis(phantom.mr.grid.to_world(np.moveaxis(np.indices(phantom.mr.array.shape), 0, -1)), -1, 0) / 100
    log_field = 0.35 * x - 0.25 * y + 0.3 * z**2 - 0.2 * x * y
    image = phantom.mr.with_array(phantom.mr.array * np.exp(log_field))
    even = corrected(image)
    white, grey = (phantom.labels.array == tissue for tissue in (Tissue.WHITE, Tissue.GREY))
    for tissue in (white, grey):
        spread = [float(one.array[tissue].std() / one.array[tissue].mean()) for one in (phantom.mr, image, even)]
        assert spread[2] < spread[0] + 0.2 * (spread[1] - spread[0])
    brain = white | grey
    found = np.log(image.array[brain] / even.array[brain])
    assert np.corrcoef(found, log_field[brain])[0, 1] > 0.95
    assert even.grid is image.grid
    assert (even.unit, even.modality, even.array.dtype) == ("a.u.", "MR", np.float32)
    assert even.array[phantom.body.array > 0].mean() == pytest.approx(
        image.array[phantom.body.array > 0].mean(), rel=0.1
    )
    assert (even.array[image.array == 0] == 0).all()


def test_what_n4_cannot_do_is_refused() -> None:
    phantom = head(4, grid=patient_grid(3, 1, size=24))
    with pytest.raises(InputError, match="not below 0"):
        corrected(phantom.ct)
    with pytest.raises(GeometryError, match="the mask is on"):
        corrected(phantom.mr, phantom.body.crop((0, 0, 0), (9, 9, 9)))
    with pytest.raises(InputError, match="N4 needs at least"):
        corrected(phantom.mr, phantom.body.with_array(np.zeros_like(phantom.body.array)))
