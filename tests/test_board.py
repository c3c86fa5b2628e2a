"""The event file: TensorBoard reads back what was logged, and an error is raised where it happens."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_bad_input import files_end_at

from medgan.board import Board
from medgan.errors import OutputError


def test_tensorboard_reads_what_was_logged_at_once(tmp_path: Path) -> None:
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    board = Board(tmp_path / "tb", step=0)
    board.curve("loss/l1", 0.25, 1)
    board.picture("val/p", pixels, 2)
    read = EventAccumulator(str(tmp_path / "tb")).Reload()
    assert [(event.step, event.value) for event in read.Scalars("loss/l1")] == [(1, 0.25)]
    (picture,) = read.Images("val/p")
    assert picture.step == 2
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(picture.encoded_image_string))), pixels)


def test_steps_that_are_done_again_count_once(tmp_path: Path) -> None:
    first = Board(tmp_path, step=0)
    for step in (1, 2, 3):
        first.curve("loss", step, step)
    again = Board(tmp_path, step=1)
    again.curve("loss", 20, 2)
    read = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in read.Scalars("loss")] == [(1, 1), (2, 20)]


def test_a_full_disk_is_told_at_once(tmp_path: Path) -> None:
    board = Board(tmp_path, step=0)
    with files_end_at(600), pytest.raises(OutputError, match=r"tfevents.*: cannot be written \(File too large\)"):
        board.picture("val/p", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), 1)


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "tb").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        Board(tmp_path / "tb", step=0)
