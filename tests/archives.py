"""Stand-ins for a PACS, in this process and on this machine: DIMSE by pynetdicom, DICOMweb by http.server."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydicom import Dataset, dcmread
from pynetdicom import AE, AllStoragePresentationContexts, build_context, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind as FIND,
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelGet as GET,
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelMove as MOVE,
)
from pynetdicom.sop_class import Verification

SYNTAXES = [
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
]
UNIQUE = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
Answer = Callable[[bytes], int]
HANG_UP = -1


@dataclass
class Store:
    """What an archive holds: files by SOPInstanceUID, the first one of each; and how often each was sent to it."""

    files: dict[str, bytes] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, data: bytes) -> str:
        uid = str(dcmread(BytesIO(data), stop_before_pixels=True).SOPInstanceUID)
        with self.lock:
            self.sent.append(uid)
            self.files.setdefault(uid, data)
        return uid

    def datasets(self) -> list[Dataset]:
        return [dcmread(BytesIO(data)) for data in self.files.values()]

    def match(self, keys: Mapping[str, str], level: str) -> list[Dataset]:
        """One dataset an entity of the level, those that fit the keys with a value."""
        fitting: dict[str, list[Dataset]] = {}
        for one in self.datasets():
            if all(not value or str(one.get(key, "")) == value for key, value in keys.items()):
                fitting.setdefault(str(one[UNIQUE[level]].value), []).append(one)
        return [self._answer(keys, group) for group in fitting.values()]

    def _answer(self, keys: Mapping[str, str], group: list[Dataset]) -> Dataset:
        answer = Dataset()
        for key in [*keys, *UNIQUE.values(), "Modality", "PatientID", "StudyDate"]:
            if key in group[0]:
                answer[key] = group[0][key]
        if "NumberOfSeriesRelatedInstances" in keys:
            answer.NumberOfSeriesRelatedInstances = len(group)
        return answer


@dataclass
class DimseArchive:
    """A running archive."""

    store: Store
    port: int
    aet: str = "ARCHIVE"

    @property
    def url(self) -> str:
        return f"dicom://{self.aet}@127.0.0.1:{self.port}"


@contextmanager
def dimse_archive(
    *,
    syntaxes: list[str] | None = None,
    answer: Answer | None = None,
    allow: tuple[str, ...] = (),
    without: tuple[Any, ...] = (),
    withhold: int = 0,
    moves: Mapping[str, tuple[str, int]] | None = None,
    port: int = 0,
    store: Store | None = None,
) -> Iterator[DimseArchive]:
    """C-ECHO, C-STORE, C-FIND, C-GET and C-MOVE on a free port.

    Args:
        syntaxes: that it takes.
        answer: the status of a C-STORE by the file, 0 if none; HANG_UP cuts the line.
        allow: AE titles that it accepts.
        without: services that it lacks.
        withhold: so many instances of each series it fails to send.
        moves: where AE titles that it may send to live.
        port: a free one if 0.
        store: what it holds.
    """
    store = store or Store()
    ours = AE("ARCHIVE")
    ours.require_called_aet, ours.require_calling_aet = True, list(allow)
    ours.dimse_timeout = ours.network_timeout = ours.acse_timeout = 20
    for service in {Verification, FIND, GET, MOVE} - set(without):
        ours.add_supported_context(service)
    for context in AllStoragePresentationContexts:
        both: dict[str, Any] = {"scu_role": True, "scp_role": True}
        ours.add_supported_context(context.abstract_syntax or "", syntaxes or SYNTAXES, **both)
    handlers = [
        (evt.EVT_CONN_OPEN, _promptly),
        (evt.EVT_C_STORE, _take, [store, answer]),
        (evt.EVT_C_FIND, _find, [store]),
        (evt.EVT_C_GET, _get, [store, withhold]),
        (evt.EVT_C_MOVE, _move, [store, withhold, moves or {}]),
    ]
    server = ours.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    assert server is not None
    try:
        yield DimseArchive(store, server.server_address[1])
    finally:
        ours.shutdown()


def _promptly(event: Any) -> None:
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _take(event: Any, store: Store, answer: Answer | None) -> int:
    data = event.encoded_dataset()
    status = answer(data) if answer else 0
    if status == HANG_UP:
        event.assoc.abort()
        return 0
    if status == 0 or status & 0xF000 == 0xB000:
        store.add(data)
    return status


def _keys(identifier: Dataset) -> dict[str, str]:
    hidden = {"QueryRetrieveLevel", "NumberOfSeriesRelatedInstances", "SpecificCharacterSet"}
    return {one.keyword: str(one.value or "") for one in identifier if one.keyword not in hidden}


def _find(event: Any, store: Store) -> Iterator[tuple[int, Dataset | None]]:
    keys = _keys(event.identifier)
    store.asked.append(keys)
    count = {"NumberOfSeriesRelatedInstances": ""} if "NumberOfSeriesRelatedInstances" in event.identifier else {}
    for one in store.match({**keys, **count} if "ModalitiesInStudy" not in keys else _study_keys(keys), _level(event)):
        yield 0xFF00, one
    yield 0x0000, None


def _study_keys(keys: Mapping[str, str]) -> dict[str, str]:
    return {("Modality" if key == "ModalitiesInStudy" else key): value for key, value in keys.items()}


def _level(event: Any) -> str:
    return str(event.identifier.QueryRetrieveLevel)


def _fitting(event: Any, store: Store) -> list[Dataset]:
    keys = _keys(event.identifier)
    return [one for one in store.datasets() if all(str(one[key].value) == value for key, value in keys.items())]


def _get(event: Any, store: Store, withhold: int) -> Iterator[Any]:
    fitting = _fitting(event, store)
    yield len(fitting)
    yield from ((0xFF00, one) for one in fitting[withhold:])
    if withhold:
        failed = Dataset()
        failed.FailedSOPInstanceUIDList = [one.SOPInstanceUID for one in fitting[:withhold]]
        yield 0xB000, failed


def _move(event: Any, store: Store, withhold: int, moves: Mapping[str, tuple[str, int]]) -> Iterator[Any]:
    where = moves.get(event.move_destination)
    kinds = {(one.SOPClassUID, one.file_meta.TransferSyntaxUID) for one in _fitting(event, store)}
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in kinds]
    yield (*where, {"ae_title": event.move_destination, "contexts": contexts}) if where else (None, None)
    yield from _get(event, store, withhold)


# --- DICOMweb ---------------------------------------------------------------------------------------------------------


@dataclass
class WebArchive:
    """A running DICOMweb service."""

    store: Store
    url: str
    headers: list[Message]


@contextmanager
def web_archive(
    *,
    refuse: Mapping[str, int] | None = None,
    plain_only: bool = False,
    ignore_offset: bool = False,
    withhold: int = 0,
    status: int = 0,
) -> Iterator[WebArchive]:
    """QIDO-RS, WADO-RS and STOW-RS on a free port.

    Args:
        refuse: failure reason by SOPInstanceUID.
        plain_only: it takes no compressed files.
        ignore_offset: it answers every page with all that it has.
        withhold: so many instances of each series it does not send.
        status: what it answers to everything, if not 0.
    """
    store, seen = Store(), list[Message]()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            """Quietly."""

        def do_GET(self) -> None:
            seen.append(self.headers)
            url = urlsplit(self.path)
            asked = {key: values[0] for key, values in parse_qs(url.query).items()}
            parts = url.path.removeprefix("/dicom-web/").split("/")
            if status:
                self._send(status, "text/plain", b"no")
            elif "multipart" in self.headers["Accept"]:
                self._retrieve(parts)
            else:
                self._search(parts, asked)

        def _search(self, parts: list[str], asked: dict[str, str]) -> None:
            offset = int(asked.pop("offset", 0))
            keys = {key: value for key, value in asked.items() if key != "includefield"}
            keys |= dict(zip(UNIQUE.values(), parts[1::2], strict=False))
            keys |= {"SOPClassUID": "", "SeriesDescription": "", "NumberOfSeriesRelatedInstances": ""}
            level = {"studies": "STUDY", "series": "SERIES", "instances": "IMAGE"}[parts[-1]]
            matches = store.match(_study_keys(keys), level)
            page = matches if ignore_offset else matches[offset:]
            body = json.dumps([json.loads(one.to_json()) for one in page]).encode()
            self._send(200, "application/dicom+json", body)

        def _retrieve(self, parts: list[str]) -> None:
            keys = dict(zip(UNIQUE.values(), parts[1::2], strict=False))
            own = [uid for one in store.match(keys, "IMAGE") for uid in [str(one.SOPInstanceUID)]][withhold:]
            body = b"".join(
                b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + store.files[uid] + b"\r\n" for uid in own
            )
            self._send(200, 'multipart/related; type="application/dicom"; boundary=edge', body + b"--edge--")

        def do_POST(self) -> None:
            seen.append(self.headers)
            body = self._body()
            if status:
                self._send(status, "text/plain", b"no")
                return
            answer, failed, taken = Dataset(), [], []
            for part in body.split(b"0f3cf5c0-70e0-41ef-baef-c6f9f65ec3e1")[1:-1]:
                data = part.partition(b"\r\n\r\n")[2][: -len(b"\r\n--")]
                one = dcmread(BytesIO(data))
                item = Dataset()
                item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
                unreadable = 0xC122 if plain_only and one.file_meta.TransferSyntaxUID.is_compressed else 0
                if reason := (refuse or {}).get(str(one.SOPInstanceUID), unreadable):
                    item.FailureReason = reason
                    failed.append(item)
                else:
                    store.add(data)
                    taken.append(item)
            answer.ReferencedSOPSequence, answer.FailedSOPSequence = taken, failed
            code = 409 if failed and not taken else 202 if failed else 200
            self._send(code, "application/dicom+json", answer.to_json().encode())

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers["Content-Length"]))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _send(self, code: int, kind: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield WebArchive(store, f"http://127.0.0.1:{server.server_address[1]}/dicom-web", seen)
    finally:
        server.shutdown()
        server.server_close()
