"""Pull and push: there and back bit by bit; what is missing or refused is told; nothing lands outside or leaks."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from command_line import medgan
from dicom_folders import make_slices, ramp, save, save_one
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, MediaStorageDirectoryStorage

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed; pip install 'medgan[pacs]'")
pytest.importorskip("dicomweb_client", reason="dicomweb-client is not installed; pip install 'medgan[pacs]'")

from archives import HANG_UP, SYNTAXES, Store, dimse_archive, web_archive
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet as GET

from medgan.errors import DicomError, InputError, OutputError
from medgan.formats.pacs import Inbox, Instance, Outcome, Peer, Query, parcels
from medgan.formats.pacs.outbox import judged
from medgan.pull import exit_code, find, pull
from medgan.push import exit_code as push_code
from medgan.push import push

SECRETS = ("SECRET", "Secret", "ACC1", "19700101", "20200102", "Some^Doctor")


def dataset(file: Path | bytes) -> Dataset:
    return dcmread(BytesIO(file) if isinstance(file, bytes) else file)


def by_uid(folder: Path) -> dict[str, Dataset]:
    return {str(one.SOPInstanceUID): one for one in map(dcmread, sorted(folder.rglob("*.dcm")))}


def series_of(folder: Path) -> str:
    return str(next(iter(by_uid(folder).values())).SeriesInstanceUID)


def outcomes(sent: Any) -> list[Outcome]:
    return [one.outcome for one in sent]


def real(name: str, folder: Path) -> Path:
    """One of pydicom's own files, in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(str(get_testdata_file(name, download=False)), folder))


@pytest.fixture
def mr(tmp_path: Path) -> Path:
    return save(make_slices(ramp()), tmp_path / "mr")


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))
    for name in ("TOKEN", "USER", "PASSWORD"):
        monkeypatch.delenv(f"MEDGAN_DICOMWEB_{name}", raising=False)


# --- addresses and questions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dicom://PACS@10.0.0.5:104", Peer("10.0.0.5", 104, "PACS", "MEDGAN")),
        ("dicom://ME@PACS@pacs.example:11112", Peer("pacs.example", 11112, "PACS", "ME")),
        ("dicom://MY NODE@THE PACS@[::1]:104", Peer("::1", 104, "THE PACS", "MY NODE")),
        ("https://pacs.example/dicom-web/", Peer("pacs.example", url="https://pacs.example/dicom-web")),
        ("http://localhost:8042/dicom-web", Peer("localhost", 8042, url="http://localhost:8042/dicom-web")),
    ],
)
def test_an_address_is_read(text: str, expected: Peer) -> None:
    peer = Peer.parse(text)
    assert peer == expected
    assert Peer.parse(str(peer)).host == peer.host


@pytest.mark.parametrize(
    "text",
    [
        "", "PACS", "pacs.example:104", "dicom://pacs.example:104", "dicom://@host:104", "dicom://PACS@host",
        "dicom://PACS@host:0", "dicom://PACS@host:70000", "dicom://SEVENTEEN LETTERS@host:104", "dicom://A\\B@host:1",
        "dicom://PÄCS@host:104", "dicom://PACS@host:104/path", "ftp://host/", "https://", "https://host/?x=1",
        "https://host:port/", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        Peer.parse(text)


@given(st.text(max_size=40))
@settings(max_examples=100, deadline=None)
def test_any_text_is_an_address_or_refused(text: str) -> None:
    for prefix in ("", "dicom://", "https://", "dicom://A@"):
        with contextlib.suppress(InputError):
            assert Peer.parse(prefix + text).host


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(InputError, match="MEDGAN_DICOMWEB_PASSWORD") as seen:
        Peer.parse("https://me:hunter2@host/dicom-web")
    assert "hunter2" not in str(seen.value)


@pytest.mark.parametrize(
    "keys",
    [
        {}, {"modality": "MR"}, {"study": "../x", "modality": "MR"}, {"series": "1..2"}, {"study": "1" * 65},
        {"date": "yesterday"}, {"patient": "A\\B"}, {"patient": "A\n"}, {"series": "1.2", "modality": "mr"},
    ],
)  # fmt: skip
def test_what_is_no_question_is_refused(keys: dict[str, str]) -> None:
    with pytest.raises(InputError):
        Query(**keys)


# --- push over DIMSE --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "MR_small.dcm", "MR_small_implicit.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
    ],
)  # fmt: skip
def test_each_file_is_sent_in_its_own_transfer_syntax(name: str, tmp_path: Path) -> None:
    file = real(name, tmp_path)
    with dimse_archive() as archive:
        sent = push([file], archive.url)
    assert outcomes(sent) == [Outcome.STORED]
    (there,) = archive.store.datasets()
    here = dataset(file)
    assert there.file_meta.TransferSyntaxUID == here.file_meta.TransferSyntaxUID
    assert there.PixelData == here.PixelData
    assert there == here


def test_mixed_encodings_and_kinds_go_over_one_line(tmp_path: Path, mr: Path) -> None:
    for name in ("MR_small_RLE.dcm", "CT_small.dcm", "rtdose_1frame.dcm", "rtplan.dcm"):
        real(name, tmp_path / "more" / name)  # the MR files of pydicom share one SOPInstanceUID
    with dimse_archive() as archive:
        sent = push([mr, tmp_path / "more"], archive.url)
    assert outcomes(sent) == [Outcome.STORED] * 10
    assert len(archive.store.files) == 10


def test_what_is_not_taken_is_decompressed_only_if_that_is_said(tmp_path: Path) -> None:
    file = real("MR_small_jp2klossless.dcm", tmp_path)
    with dimse_archive(syntaxes=SYNTAXES[:2]) as archive:
        (refused,) = push([file], archive.url)
        assert refused.outcome is Outcome.REFUSED
        assert "JPEG 2000" in refused.reason
        assert "--decompress" in refused.reason
        assert not archive.store.sent
        (sent,) = push([file], archive.url, decompress=True)
    assert sent.outcome is Outcome.STORED
    (there,) = archive.store.datasets()
    assert not there.file_meta.TransferSyntaxUID.is_compressed
    assert np.array_equal(there.pixel_array, dataset(file).pixel_array)
    assert there.SOPInstanceUID == dataset(file).SOPInstanceUID


def test_big_endian_is_never_turned_by_itself(tmp_path: Path) -> None:
    """Its pixels would have to be swapped; nobody has asked for that."""
    file = real("MR_small_bigendian.dcm", tmp_path)
    with dimse_archive() as archive:
        (sent,) = push([file], archive.url, decompress=True)
    assert sent.outcome is Outcome.REFUSED
    assert "Big Endian" in sent.reason
    with dimse_archive(syntaxes=[*SYNTAXES, ExplicitVRBigEndian]) as archive:
        assert outcomes(push([file], archive.url)) == [Outcome.STORED]
    assert archive.store.datasets()[0] == dataset(file)


def test_a_file_without_preamble_is_sent_too(tmp_path: Path, mr: Path) -> None:
    (tmp_path / "bare").mkdir()
    one = dataset(next(mr.iterdir()))
    bare = Dataset(one)
    pydicom.dcmwrite(tmp_path / "bare" / "one", bare, implicit_vr=True, little_endian=True)
    with dimse_archive() as archive:
        assert outcomes(push([tmp_path / "bare"], archive.url)) == [Outcome.STORED]
    (there,) = archive.store.datasets()
    assert there.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    assert np.array_equal(there.pixel_array, one.pixel_array)


STATUSES = [0x0000, 0xB000, 0x0111, 0xA700, 0xA900, 0xC123]


def test_the_fate_of_each_file_is_told(mr: Path) -> None:
    number = {
        one: index for index, one in enumerate(sorted(by_uid(mr), key=lambda uid: by_uid(mr)[uid].InstanceNumber))
    }
    with dimse_archive(answer=lambda data: STATUSES[number[str(dataset(data).SOPInstanceUID)]]) as archive:
        sent = push([mr], archive.url)
    assert [one.code for one in sent] == STATUSES
    assert outcomes(sent) == [Outcome.STORED, Outcome.WARNING, Outcome.DUPLICATE, *[Outcome.REFUSED] * 3]
    assert [one.passing for one in sent] == [False, False, False, True, False, False]
    assert push_code(sent) == 4
    assert "out of resources" in sent[3].reason


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([0], 0), ([0, 0], 0), ([0, 0xB000], 3), ([0x0111], 3), ([0, 0xC000], 4), ([0xA700, 0xC000], 1), ([], 5)],
)
def test_the_exit_code_of_a_push(codes: list[int], expected: int) -> None:
    assert push_code([judged(Path("x"), code) for code in codes]) == expected


def test_what_is_no_dicom_is_not_sent(tmp_path: Path, mr: Path) -> None:
    (mr / "notes.txt").write_text("no scan")
    (mr / "scan.json").write_text("{}")
    (mr / ".hidden").write_text("x")
    (mr / "cut.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x02\0\x10\0")
    directory = dataset(next(mr.glob("000.dcm")))
    directory.SOPClassUID = MediaStorageDirectoryStorage
    save_one(directory, mr / "DICOMDIR")
    with dimse_archive() as archive:
        sent = push([mr], archive.url)
    assert sorted(one.path.name for one in sent if one.outcome is Outcome.SKIPPED) == [
        "cut.dcm",
        "notes.txt",
        "scan.json",
    ]
    assert len(archive.store.files) == 6
    assert push_code(sent) == 3
    with pytest.raises(InputError, match=r"notes\.txt: is no DICOM"):
        push([mr / "notes.txt"], archive.url)


def test_a_folder_without_dicom_needs_no_archive(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("no scan")
    assert push_code(push([tmp_path / "a"], "dicom://PACS@127.0.0.1:1")) == 5
    with pytest.raises(InputError, match="no such file"):
        parcels([tmp_path / "b"])


def test_twins_are_sent_once_and_liars_are_refused(mr: Path) -> None:
    first = sorted(mr.iterdir())[0]
    shutil.copy(first, mr / "z_copy.dcm")
    liar = dataset(first)
    liar.PatientName = "Another^Person"
    save_one(liar, mr / "z_liar.dcm")
    with dimse_archive() as archive:
        sent = {one.path.name: one for one in push([mr], archive.url)}
    assert sent["z_copy.dcm"].outcome is Outcome.DUPLICATE
    assert sent["z_liar.dcm"].outcome is Outcome.REFUSED
    assert "Another" not in sent["z_liar.dcm"].reason
    assert len(archive.store.sent) == 6
    assert all(one.PatientName == "Secret^Person" for one in archive.store.datasets())


def test_an_archive_that_hangs_up_leaves_the_rest_unsent(mr: Path) -> None:
    answers = iter([0, 0, HANG_UP])
    with dimse_archive(answer=lambda data: next(answers)) as archive:
        sent = push([mr], archive.url)
    assert outcomes(sent) == [Outcome.STORED] * 2 + [Outcome.UNSENT] * 4
    assert all(one.passing for one in sent[2:])
    assert push_code(sent) == 4


# --- pull over DIMSE --------------------------------------------------------------------------------------------------


def holding(*folders: Path) -> Store:
    store = Store()
    for folder in folders:
        for file in sorted(folder.rglob("*.dcm")):
            store.add(file.read_bytes())
    return store


def test_what_is_fetched_is_what_is_there(tmp_path: Path, mr: Path) -> None:
    with dimse_archive(store=holding(mr)) as archive:
        (done,) = pull(archive.url, tmp_path / "out", series=series_of(mr))
    assert (done.is_whole, done.num_arrived, exit_code([done])) == (True, 6, 0)
    assert by_uid(tmp_path / "out") == by_uid(mr)
    one = next(iter(by_uid(mr).values()))
    expected = tmp_path / "out" / one.StudyInstanceUID / one.SeriesInstanceUID
    assert done.path == expected
    assert sorted(file.stem for file in expected.iterdir()) == sorted(by_uid(mr))


@pytest.mark.parametrize("name", ["MR_small_implicit.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm"])
@pytest.mark.parametrize("move_to", [None, "HERE"])
def test_what_is_fetched_keeps_its_transfer_syntax(name: str, move_to: str | None, tmp_path: Path, port: int) -> None:
    file = real(name, tmp_path / "there")
    with dimse_archive(store=holding(tmp_path / "there"), moves={"HERE": ("127.0.0.1", port)}) as archive:
        uid = str(dataset(file).SeriesInstanceUID)
        done = pull(archive.url, tmp_path / "out", series=uid, move_to=move_to, port=port)
    assert exit_code(done) == 0
    (back,) = by_uid(tmp_path / "out").values()
    assert back.file_meta.TransferSyntaxUID == dataset(file).file_meta.TransferSyntaxUID
    assert back == dataset(file)


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("move_to", [None, "HERE"])
def test_what_is_missing_is_listed_and_fetched_by_the_same_call(
    move_to: str | None, tmp_path: Path, mr: Path, port: int
) -> None:
    store, asked = holding(mr), {"series": series_of(mr), "move_to": move_to, "port": port}
    moves = {"HERE": ("127.0.0.1", port)}
    with dimse_archive(store=store, withhold=2, moves=moves) as archive:
        (done,) = pull(archive.url, tmp_path / "out", **asked)  # type: ignore[arg-type]
    assert (done.num_arrived, done.num_missing, exit_code([done])) == (4, 2, 4)
    assert set(done.missing) == by_uid(mr).keys() - by_uid(tmp_path / "out").keys()
    with dimse_archive(store=store, moves=moves) as archive:
        (done,) = pull(archive.url, tmp_path / "out", **asked)  # type: ignore[arg-type]
        assert exit_code([done]) == 0
        (done,) = pull(archive.url, tmp_path / "out", **asked)  # type: ignore[arg-type]
    assert done.is_whole
    assert by_uid(tmp_path / "out") == by_uid(mr)


def test_it_asks_by_whatever_is_known(tmp_path: Path, mr: Path) -> None:
    ct = save(make_slices(ramp(4), modality="CT", PatientID="OTHER", AccessionNumber="ACC2"), tmp_path / "ct")
    with dimse_archive(store=holding(mr, ct)) as archive:
        for keys in ({"patient": "OTHER"}, {"accession": "ACC2"}, {"series": series_of(ct)}):
            (found,) = find(archive.url, **keys)
            assert (found.modality, found.num_instances, found.series_uid) == ("CT", 4, series_of(ct))
        assert {one.modality for one in find(archive.url, date="20200102")} == {"MR", "CT"}
        assert [one.modality for one in find(archive.url, date="20200102", modality="MR")] == ["MR"]
        assert find(archive.url, patient="NOBODY") == []
        assert exit_code(pull(archive.url, tmp_path / "out", patient="NOBODY")) == 5


def test_an_archive_that_ignores_the_question_does_not_flood(tmp_path: Path, mr: Path) -> None:
    """It answers with all it has; what was not asked for is left out."""
    other = save(make_slices(ramp(4), modality="CT"), tmp_path / "ct")
    store = holding(mr, other)
    store.match = lambda keys, level: Store.match(store, dict.fromkeys(keys, ""), level)  # type: ignore[method-assign]
    with dimse_archive(store=store) as archive:
        (found,) = find(archive.url, series=series_of(mr))
        assert found.series_uid == series_of(mr)
        assert {one.modality for one in find(archive.url, patient="X", modality="MR")} == {"MR"}


def test_an_instance_of_another_series_is_not_kept(tmp_path: Path, mr: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import archives

    other = save(make_slices(ramp(3)), tmp_path / "other")
    monkeypatch.setattr(archives, "_fitting", lambda event, store: store.datasets())
    with dimse_archive(store=holding(mr, other)) as archive:
        (done,) = pull(archive.url, tmp_path / "out", series=series_of(mr))
    assert by_uid(tmp_path / "out").keys() == by_uid(mr).keys()
    assert "not asked for" in done.error
    assert not done.is_whole


def test_an_archive_without_get_is_told_apart(tmp_path: Path, mr: Path) -> None:
    with (
        dimse_archive(store=holding(mr), without=(GET,)) as archive,
        pytest.raises(InputError, match=r"takes nothing|--move-to"),
    ):
        pull(archive.url, tmp_path / "out", series=series_of(mr))


def test_a_destination_that_the_archive_does_not_know(tmp_path: Path, mr: Path, port: int) -> None:
    with dimse_archive(store=holding(mr)) as archive:
        (done,) = pull(archive.url, tmp_path / "out", series=series_of(mr), move_to="NOWHERE", port=port)
    assert (done.num_arrived, done.num_missing, exit_code([done])) == (0, 6, 1)
    assert "0xA801" in done.error


@pytest.mark.parametrize("url", ["dicom://PACS@127.0.0.1:1", "http://127.0.0.1:1/dicom-web"])
def test_an_archive_that_is_not_there(url: str, tmp_path: Path, mr: Path) -> None:
    with pytest.raises(InputError, match="cannot be reached"):
        pull(url, tmp_path / "out", series="1.2")
    done = medgan("push", mr, url)
    assert done.code == 1
    assert "cannot be reached" in done.out + done.error


def test_an_archive_that_does_not_know_us(mr: Path) -> None:
    with dimse_archive(allow=("FRIEND",)) as archive:
        with pytest.raises(InputError, match="does not know us as 'MEDGAN'"):
            push([mr], archive.url)
        with pytest.raises(InputError, match="is not called 'WRONG'"):
            push([mr], archive.url.replace("ARCHIVE", "FRIEND@WRONG"))
        assert push_code(push([mr], archive.url.replace("ARCHIVE", "FRIEND@ARCHIVE"))) == 0


# --- where things land ------------------------------------------------------------------------------------------------


def instance(**uids: str) -> bytes:
    """A file with whatever UIDs, as a peer might send it."""
    (one,) = make_slices(ramp(1))
    file = BytesIO()
    one.file_meta = pydicom.dataset.FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    one.remove_private_tags()
    for key, value in uids.items():
        one[key]._value = value
    with pydicom.config.disable_value_validation():
        pydicom.dcmwrite(file, one, implicit_vr=True, little_endian=True, force_encoding=True)
    return file.getvalue()


@pytest.mark.parametrize(
    "evil", ["../../x", "/etc/x", "..", ".", "a/b", "..\\x", "x\0y", "", "1.2/../../3", "%2e%2e/x"]
)
@pytest.mark.parametrize("key", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_nothing_lands_outside(evil: str, key: str, tmp_path: Path) -> None:
    root = tmp_path / "deep" / "down" / "out"
    data = instance(**{key: evil})
    if not evil:
        with pytest.raises(DicomError, match="without the UIDs"):
            Inbox(root).keep(data)
        return
    Inbox(root).keep(data)
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert file.resolve().is_relative_to(root.resolve())
    assert file.read_bytes() == data
    assert len(file.relative_to(root).parts) == 3


@given(st.lists(st.text(max_size=80), min_size=3, max_size=3))
@settings(max_examples=150, deadline=None)
def test_any_uid_names_a_file_inside(uids: list[str]) -> None:
    root = Path("/somewhere/out")
    path = Inbox(root).place(Instance(*uids))
    assert Path(os.path.normpath(path)) == path
    assert path.is_relative_to(root)
    assert len(path.relative_to(root).parts) == 3
    assert all(len(part) <= 70 for part in path.parts)


@given(st.binary(max_size=400))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_taken_or_refused(data: bytes) -> None:
    with pytest.raises(DicomError):
        Inbox(Path("/nowhere")).opened(data)
    with contextlib.suppress(DicomError):
        Inbox(Path("/nowhere")).opened(instance()[:600] + data)


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, mr: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def fill_up(number: int) -> None:
        written.append(number)
        if len(written) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fill_up)
    with dimse_archive(store=holding(mr)) as archive, pytest.raises(OutputError, match="No space left"):
        pull(archive.url, tmp_path / "out", series=series_of(mr))
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == 2
    assert by_uid(tmp_path / "out").keys() < by_uid(mr).keys()


# --- DICOMweb ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ignore_offset", [False, True])
def test_there_and_back_over_the_web(ignore_offset: bool, tmp_path: Path, mr: Path) -> None:
    for name in ("MR_small_RLE.dcm", "MR_small_implicit.dcm"):
        real(name, tmp_path / name)
    with web_archive(ignore_offset=ignore_offset) as archive:
        for folder in (mr, tmp_path / "MR_small_RLE.dcm"):
            assert push_code(push([folder], archive.url)) == 0
            done = pull(archive.url, tmp_path / "out" / folder.name, series=series_of(folder))
            assert exit_code(done) == 0
            back = by_uid(tmp_path / "out" / folder.name)
            assert back == by_uid(folder)
            for uid, one in by_uid(folder).items():
                assert back[uid].file_meta.TransferSyntaxUID == one.file_meta.TransferSyntaxUID
        (found,) = find(archive.url, patient="SECRET-ID", modality="MR")
        assert found.num_instances == 6


def test_what_the_web_refuses_is_told(mr: Path) -> None:
    uids = sorted(by_uid(mr), key=lambda uid: by_uid(mr)[uid].InstanceNumber)
    with web_archive(refuse={uids[0]: 0xA700, uids[1]: 0x0111, uids[2]: 0xC000}) as archive:
        sent = push([mr], archive.url)
    assert outcomes(sent) == [Outcome.REFUSED, Outcome.DUPLICATE, Outcome.REFUSED, *[Outcome.STORED] * 3]
    assert [one.passing for one in sent] == [True, False, False, False, False, False]
    with web_archive(refuse=dict.fromkeys(uids, 0xC000)) as archive:  # 409
        assert push_code(push([mr], archive.url)) == 1


def test_the_web_is_sent_plain_pixels_only_if_that_is_said(tmp_path: Path) -> None:
    file = real("MR_small_RLE.dcm", tmp_path / "there")
    with web_archive(plain_only=True) as archive:
        assert outcomes(push([file], archive.url)) == [Outcome.REFUSED]
        assert outcomes(push([file], archive.url, decompress=True)) == [Outcome.STORED]
    (there,) = archive.store.datasets()
    assert not there.file_meta.TransferSyntaxUID.is_compressed
    assert np.array_equal(there.pixel_array, dataset(file).pixel_array)


def test_what_the_web_does_not_send_is_missing(tmp_path: Path, mr: Path) -> None:
    with web_archive(withhold=2) as archive:
        push([mr], archive.url)
        (done,) = pull(archive.url, tmp_path / "out", series=series_of(mr))
    assert (done.num_arrived, done.num_missing, exit_code([done])) == (4, 2, 4)


def test_large_series_go_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mr: Path) -> None:
    from medgan.formats.pacs import web

    monkeypatch.setattr(web, "BATCH_FILES", 4)
    with web_archive() as archive:
        assert push_code(push([mr], archive.url)) == 0
        assert len(archive.headers) == 2


@pytest.mark.parametrize(("status", "told"), [(401, "refuses us"), (403, "refuses us"), (404, "HTTP 404")])
def test_a_web_that_refuses_us(status: int, told: str, mr: Path) -> None:
    with web_archive(status=status) as archive:
        with pytest.raises(InputError, match=told) as seen:
            find(archive.url, patient="SECRET-ID")
        with pytest.raises(InputError, match=told):
            push([mr], archive.url)
    assert "SECRET" not in str(seen.value)


def test_a_web_that_is_ill(mr: Path) -> None:
    with web_archive(status=503) as archive:
        sent = push([mr], archive.url)
    assert outcomes(sent) == [Outcome.UNSENT] * 6
    assert all(one.passing for one in sent)


BASIC = "Basic bWU6aHVudGVyMg=="  # me:hunter2


def _by_variables(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> str:
    monkeypatch.setenv("MEDGAN_DICOMWEB_USER", "me")
    monkeypatch.setenv("MEDGAN_DICOMWEB_PASSWORD", "hunter2")
    return BASIC


def _by_token(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> str:
    monkeypatch.setenv("MEDGAN_DICOMWEB_TOKEN", "hunter2")
    return "Bearer hunter2"


def _by_netrc(monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    netrc = folder / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hunter2\nmachine pacs.example login me password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    return BASIC


@pytest.mark.parametrize("how", [_by_variables, _by_token, _by_netrc])
def test_credentials_are_sent_and_never_in_the_clear(
    how: Callable[[pytest.MonkeyPatch, Path], str], tmp_path: Path, mr: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = how(monkeypatch, tmp_path)
    with web_archive() as archive:
        push([mr], archive.url)
        find(archive.url, patient="SECRET-ID")
    assert {headers["Authorization"] for headers in archive.headers} == {expected}
    with pytest.raises(InputError, match="plain http") as seen:
        find("http://pacs.example/dicom-web", patient="X")
    assert "hunter2" not in str(seen.value)


# --- the command line -------------------------------------------------------------------------------------------------


def test_the_commands_from_end_to_end(tmp_path: Path, mr: Path) -> None:
    (mr / "notes.txt").write_text("no scan")
    with dimse_archive() as archive:
        done = medgan("push", mr, archive.url, "--json")
        assert done.code == 3
        assert [one["outcome"] for one in json.loads(done.out)].count("stored") == 6
        listed = medgan("pull", archive.url, "--list", "--patient", "SECRET-ID")
        assert (listed.code, "6 instances" in listed.out) == (0, True)
        fetched = medgan("pull", archive.url, tmp_path / "out", "--patient", "SECRET-ID", "--json")
        assert fetched.code == 0
        assert json.loads(fetched.out)[0]["num_arrived"] == 6
        nothing = medgan("pull", archive.url, tmp_path / "out", "--patient", "NOBODY")
        assert (nothing.code, nothing.out) == (5, "nothing found\n")
        for one in (done, listed, fetched, nothing):
            assert not any(secret in one.out + one.err for secret in SECRETS)
        known = medgan("pull", archive.url, "--list", "--patient", "SECRET-ID", "--identity")
        assert "SECRET-ID" in known.out
    gone = medgan("push", mr, archive.url)
    assert gone.code == 1
    assert gone.error.startswith(f"Error: {archive.url}: cannot be reached")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, mr: Path) -> None:
    for name in ("network", "web"):
        monkeypatch.delitem(sys.modules, f"medgan.formats.pacs.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "pynetdicom", None)
    monkeypatch.setitem(sys.modules, "dicomweb_client.web", None)
    for url in ("dicom://PACS@127.0.0.1:1", "http://127.0.0.1:1/dicom-web"):
        done = medgan("push", mr, url)
        assert done.code == 1
        assert "pip install 'medgan[pacs]'" in done.error
