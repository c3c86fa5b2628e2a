"""The pass over headers: the fast way tells what the thorough one tells, alone, one after the other, in parallel."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dicom_folders import make_slices, ramp, save
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medgan.errors import InputError
from medgan.formats.dicom import header_pass
from medgan.formats.dicom.alike import Seen, header_of_plain
from medgan.formats.dicom.headers import Header

# What may differ within a series, or between two; and what the fast way must not mistake for what it saw before.
VARIED: dict[str, list[object]] = {
    "EchoTime": ["12.5", "25", ""],
    "AcquisitionTime": ["101112.5", "101113", None],
    "TriggerTime": ["0", "17.5", None],
    "AcquisitionNumber": ["1", "2"],
    "TemporalPositionIdentifier": ["1", "2", None],
    "SeriesDescription": ["made", "größer", ""],
    "SpecificCharacterSet": ["ISO_IR 100", "ISO_IR 192"],
    "ImageComments": ["b=1000(0.1,0.2,0.3)", None],
    "DiffusionBValue": [0.0, 1000.0, None],
    "RescaleSlope": ["1", "2.5", "0", "nan", None],
    "RescaleIntercept": ["-1024", "0", None],
    "PixelPaddingValue": [0, 2000, None],
    "BitsStored": [12, 16, 0],
    "HighBit": [11, 15],
    "PixelRepresentation": [0, 1],
    "SyntheticData": ["YES", None],
    "NumberOfFrames": ["1", "2", None],
    "ImageType": [["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"], ["DERIVED", "PRIMARY", "MOSAIC"]],
    "Manufacturer": ["GE MEDICAL SYSTEMS", "SIEMENS", "Philips"],
    "ImagePositionPatient": [["1", "2", "3"], ["1", "2", "4"], ["1", "2"], None],
    "PixelSpacing": [["1", "1"], ["0.5", "0.5"], None],
    "SOPClassUID": ["1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.2"],
}


def with_private(one: Dataset, values: Sequence[str]) -> Dataset:
    block = one.private_block(0x0019, "SOME SCANNER", create=True)
    for n, value in enumerate(values):
        block.add_new(n + 1, "LO", value)
    items = [Dataset(), Dataset()]
    items[0].ReferencedSOPInstanceUID = items[1].ReferencedSOPInstanceUID = "1.2.3"
    one.ReferencedImageSequence = items
    return one


def varied(seed: int, folder: Path, count: int = 12) -> list[Path]:
    """Files that share most of what they say, but not all of the same."""
    rng = random.Random(seed)
    keys = rng.sample(sorted(VARIED), 4)
    slices = make_slices(ramp(count))
    for one in slices:
        for key in keys:
            value = rng.choice(VARIED[key])
            if value is None:
                one.pop(key, None)
            else:
                setattr(one, key, value)
        with_private(one, [rng.choice(["same", "same", "other", "longer than before"]) for _ in range(40)])
    save(slices[::2], folder, pattern="a{:03d}.dcm", syntax=ExplicitVRLittleEndian)
    save(slices[1::2], folder, pattern="b{:03d}.dcm", syntax=ImplicitVRLittleEndian)
    return sorted(folder.iterdir(), key=lambda path: path.name[1:])  # the two encodings in turn


def alone(files: Sequence[Path]) -> list[Header]:
    """Each file by a pass of its own, which remembers nothing."""
    return [header for file in files for header in header_pass.read_headers([file])]


def thorough(files: Sequence[Path], monkeypatch: pytest.MonkeyPatch) -> list[Header]:
    with monkeypatch.context() as patched:
        patched.setattr(header_pass, "header_of_plain", lambda *_: None)
        return header_pass.read_headers(files)


def is_fast(file: Path, seen: Seen) -> bool:
    with file.open("rb") as stream:
        return header_of_plain(file, stream, seen) is not None


def without_pixels(headers: Sequence[Header]) -> list[Header]:
    """What both ways tell: the thorough one looks at pixels and scale later."""
    return [replace(header, plain=None, scale=None) for header in headers]


@pytest.mark.parametrize("seed", range(25))
def test_what_a_file_says_does_not_hang_on_those_before(seed: int, tmp_path: Path) -> None:
    files = varied(seed, tmp_path)
    assert header_pass.read_headers(files) == alone(files)
    assert header_pass.read_headers(files[::-1]) == alone(files[::-1])


@pytest.mark.parametrize("seed", range(25))
def test_the_fast_way_tells_what_the_thorough_way_tells(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = varied(seed, tmp_path)
    assert without_pixels(header_pass.read_headers(files)) == without_pixels(thorough(files, monkeypatch))


def test_on_real_scans_too(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted(path for path in (shared / "dicom").rglob("*") if path.is_file())[::2]
    fast = header_pass.read_headers(files)
    assert sum(header.plain is not None for header in fast) > 100
    assert without_pixels(fast) == without_pixels(thorough(files, monkeypatch))
    assert fast == alone(files)


def test_plain_files_take_the_fast_way(tmp_path: Path) -> None:
    for file in varied(0, tmp_path / "some")[:1] + sorted(save(make_slices(ramp()), tmp_path / "all").iterdir()):
        assert is_fast(file, Seen())


def test_elements_out_of_order_are_left_to_the_thorough_way(tmp_path: Path) -> None:
    """Twice the same attribute, or one behind the place of its tag: which of them counts is not for the fast way."""
    files = sorted(save(make_slices(ramp(2)), tmp_path / "s").iterdir())
    content = files[1].read_bytes()
    modality = content.index(b"\x08\x00\x60\x00CS")
    patient = content.index(b"\x10\x00\x20\x00LO")
    files[1].write_bytes(content[:patient] + content[modality : modality + 10] + content[patient:])
    seen = Seen()
    assert [is_fast(file, seen) for file in files] == [True, False]


@pytest.mark.parametrize("missing", [1, 40, 159])
def test_pixels_that_are_cut_off_are_seen(missing: int, tmp_path: Path) -> None:
    files = sorted(save(make_slices(ramp(3)), tmp_path / "s").iterdir())
    files[1].write_bytes(files[1].read_bytes()[:-missing])
    assert [header.truncated for header in header_pass.read_headers(files)] == [False, True, False]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_seen_whatever_came_before(tmp_path: Path, data: st.DataObject) -> None:
    """A file of the same series with other bytes here and there is read as if it were the only one."""
    slices = [with_private(one, ["same"] * 30) for one in make_slices(ramp(2))]
    for n, one in enumerate(slices):
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = "1.2", "1.2.3", "1.2.4"
        one.SOPInstanceUID = f"1.2.3.{n}"
    whole, damaged = sorted(save(slices, tmp_path / "s").iterdir())
    content = bytearray(damaged.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(132, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(content)) | st.just(len(content)))
    damaged.write_bytes(content[:cut])
    together = header_pass.read_headers([whole, damaged])
    assert together == alone([whole, damaged])


# --- several processes ------------------------------------------------------------------------------------------------


def who(files: Sequence[Path]) -> list[tuple[int, Path]]:
    return [(os.getpid(), file) for file in files]


def killed(files: Sequence[Path]) -> list[Header]:
    os.kill(os.getpid(), signal.SIGKILL)
    return []


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dozen files are many, and there are two cores."""
    monkeypatch.setattr(header_pass, "_MANY", 10)
    monkeypatch.setattr(header_pass, "_AT_ONCE", 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)


needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="only Linux copies processes safely")


@needs_fork
@pytest.mark.usefixtures("many")
def test_several_processes_tell_the_same_in_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = varied(3, tmp_path, count=20)
    assert header_pass.read_headers(files) == alone(files)
    monkeypatch.setattr(header_pass, "_of_files", who)
    told: list[Any] = list(header_pass.read_headers(files))
    assert [file for _, file in told] == files
    assert os.getpid() not in {process for process, _ in told}


@pytest.mark.usefixtures("many")
def test_beside_other_threads_one_process_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_pass, "_of_files", who)
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        told: list[Any] = list(header_pass.read_headers([tmp_path / str(n) for n in range(20)]))
    finally:
        done.set()
        thread.join()
    assert {process for process, _ in told} == {os.getpid()}


@needs_fork
@pytest.mark.usefixtures("many")
def test_a_killed_process_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_pass, "_of_files", killed)
    with pytest.raises(InputError, match="headers of 20 files was killed, as systems do when memory runs out"):
        header_pass.read_headers([tmp_path / str(n) for n in range(20)])


ORPHANS = """
import os, sys, time
from pathlib import Path
from medgan.formats.dicom import header_pass

def wait(files):
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(60)
    return []

header_pass._MANY, header_pass._of_files = 10, wait
os.sched_getaffinity = lambda _: {0}.union({1})
header_pass.read_headers([Path(str(n)) for n in range(1000)])
"""


@needs_fork
def test_helpers_end_with_their_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        helpers = [int(parent.stdout.readline()) for _ in range(4)]
        parent.kill()
        deadline = time.monotonic() + 20
        while any(map(is_running, helpers)) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert not any(map(is_running, helpers))


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
