"""A real PACS: Orthanc in a network of its own, which nothing outside can reach; bit by bit there and back."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from conftest import tiny_pair
from pydicom.data import get_testdata_file

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed; pip install 'medgan[pacs]'")
pytest.importorskip("dicomweb_client", reason="dicomweb-client is not installed; pip install 'medgan[pacs]'")

from medgan import Synthesis, read, write
from medgan.formats.dicom import Subject
from medgan.formats.pacs import Outcome
from medgan.pull import exit_code, find, pull
from medgan.push import push

INSIDE = os.environ.get("MEDGAN_TEST_ORTHANC") == "inside"
PLUGINS = Path("/usr/share/orthanc/plugins")
DIMSE, WEB = "dicom://ORTHANC@127.0.0.1:4242", "http://127.0.0.1:8042/dicom-web"
inside = pytest.mark.skipif(not INSIDE, reason="runs in the network that test_in_a_network_of_its_own makes")


def _missing() -> str:
    for tool in ("Orthanc", "unshare", "ip"):
        if not shutil.which(tool):
            return f"{tool} is not installed (apt-get install orthanc orthanc-dicomweb util-linux iproute2)"
    if not (PLUGINS / "libOrthancDicomWeb.so").exists():
        return "Orthanc has no DICOMweb plugin (apt-get install orthanc-dicomweb)"
    made = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    return "" if made.returncode == 0 else f"no network of its own can be made: {made.stderr.strip()}"


@pytest.mark.skipif(INSIDE, reason="already inside")
def test_in_a_network_of_its_own() -> None:
    """Orthanc listens to all the world; the world here is one machine."""
    if why := _missing():
        pytest.skip(why)
    tests = f"{sys.executable} -m pytest -o addopts= -p no:cacheprovider -p no:xdist {__file__}"
    argv = ["unshare", "--net", "bash", "-c", f"ip link set lo up && exec {tests}"]
    inner = {**os.environ, "MEDGAN_TEST_ORTHANC": "inside", "PYTEST_ADDOPTS": ""}
    done = subprocess.run(argv, env=inner, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"\b9 passed, 1 skipped\b", done.stdout), done.stdout[-2000:]


# --- inside -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("orthanc")
    config = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "Plugins": [str(PLUGINS / "libOrthancDicomWeb.so")],
        "DicomAet": "ORTHANC",
        "DicomModalities": {"here": ["HERE", "127.0.0.1", 11119], "medgan": ["MEDGAN", "127.0.0.1", 11118]},
        "DicomAlwaysAllowGet": True,
        "AuthenticationEnabled": False,
        "RemoteAccessAllowed": True,
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log)
        try:
            _await(4242, process)
            _await(8042, process)
            yield
        finally:
            process.terminate()
            process.wait(20)


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert process.poll() is None, "Orthanc ended by itself"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens at {port}")


def derived(folder: Path, seed: int) -> Path:
    """An MR series of a made-up subject, and beside it the CT that was made of it."""
    mr, ct = tiny_pair(seed)
    source = write(mr, folder / "mr", subject=Subject())
    mark = Synthesis(model="pix2pix", weights_sha256="0" * 64, version="0", description="a test")
    return write(ct.marked(mark), folder / "ct", like=read(source))


def by_uid(folder: Path) -> dict[str, pydicom.Dataset]:
    return {str(one.SOPInstanceUID): one for one in map(pydicom.dcmread, sorted(folder.rglob("*.dcm")))}


def assert_equal(there: Path, back: Path) -> None:
    sent, came = by_uid(there), by_uid(back)
    assert sent.keys() == came.keys()
    for uid, one in sent.items():
        assert np.array_equal(one.pixel_array, came[uid].pixel_array)
        assert one == came[uid]
        assert one.file_meta.TransferSyntaxUID == came[uid].file_meta.TransferSyntaxUID


WAYS_IN = {"C-STORE": DIMSE, "STOW-RS": WEB}
WAYS_OUT = {"C-GET": (DIMSE, None), "C-MOVE": (DIMSE, "HERE"), "WADO-RS": (WEB, None)}


@inside
@pytest.mark.parametrize("way_in", WAYS_IN)
def test_there_and_back_is_the_same(way_in: str, orthanc: None, tmp_path: Path) -> None:
    series = derived(tmp_path, seed=len(way_in))
    uid = str(next(iter(by_uid(series).values())).SeriesInstanceUID)
    assert {one.outcome for one in push([series], WAYS_IN[way_in])} == {Outcome.STORED}
    for name, (peer, move_to) in WAYS_OUT.items():
        done = pull(peer, tmp_path / name, series=uid, move_to=move_to, port=11119)
        assert exit_code(done) == 0, (name, done)
        assert_equal(series, tmp_path / name)


@inside
@pytest.mark.parametrize("peer", [DIMSE, WEB])
def test_it_finds_what_it_holds(peer: str, orthanc: None, tmp_path: Path) -> None:
    series = derived(tmp_path, seed=3)
    one = next(iter(by_uid(series).values()))
    push([tmp_path], DIMSE)
    found = find(peer, study=str(one.StudyInstanceUID))
    assert {(each.modality, each.num_instances) for each in found} == {("MR", 8), ("CT", 8)}
    (ct,) = find(peer, study=str(one.StudyInstanceUID), modality="CT")
    assert ct.series_uid == one.SeriesInstanceUID
    assert find(peer, patient=str(one.PatientID), series=ct.series_uid) == [ct]
    assert find(peer, patient="nobody of that name") == []


@inside
@pytest.mark.parametrize("peer", [DIMSE, WEB])
def test_the_same_instance_twice_is_there_once(peer: str, orthanc: None, tmp_path: Path) -> None:
    """Orthanc answers that all is well and keeps the first, which is what a service that sends again relies on."""
    series = derived(tmp_path, seed=5)
    uid = str(next(iter(by_uid(series).values())).SeriesInstanceUID)
    for _ in range(2):
        assert {one.outcome for one in push([series], peer)} <= {Outcome.STORED, Outcome.WARNING, Outcome.DUPLICATE}
    (found,) = find(peer, series=uid)
    assert found.num_instances == 8
    pull(peer, tmp_path / "back", series=uid)
    assert_equal(series, tmp_path / "back")


@inside
@pytest.mark.parametrize("way_out", WAYS_OUT)
def test_compressed_files_come_back_as_they_are(way_out: str, orthanc: None, tmp_path: Path) -> None:
    names = ("MR_small_RLE.dcm", "examples_jpeg2k.dcm", "JPEG2000.dcm")
    files = [Path(str(get_testdata_file(name, download=False))) for name in names]
    for number, file in enumerate(files):
        one = pydicom.dcmread(file)
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(file, folder / "one.dcm")
        assert {each.outcome for each in push([folder], DIMSE)} == {Outcome.STORED}
        peer, move_to = WAYS_OUT[way_out]
        done = pull(peer, tmp_path / f"back{number}", series=str(one.SeriesInstanceUID), move_to=move_to, port=11119)
        assert exit_code(done) == 0, done
        (back,) = by_uid(tmp_path / f"back{number}").values()
        assert back.file_meta.TransferSyntaxUID == one.file_meta.TransferSyntaxUID
        assert back.PixelData == one.PixelData
