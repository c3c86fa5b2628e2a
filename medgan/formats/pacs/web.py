"""DICOMweb: QIDO-RS, WADO-RS and STOW-RS."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from typing import Any

import requests
from dicomweb_client.web import DICOMwebClient
from pydicom import Dataset, dcmwrite
from requests.auth import AuthBase, HTTPBasicAuth
from requests.utils import get_netrc_auth

from medgan.errors import InputError
from medgan.formats.dicom.elements import DAMAGE, number, quietly, text
from medgan.formats.pacs.archive import Keep
from medgan.formats.pacs.outbox import Outcome, Parcel, Sent, judged, opened
from medgan.formats.pacs.peer import Peer
from medgan.formats.pacs.query import Found, Query, instances_of, search

__all__ = ["WebArchive"]

CONNECT_S, ANSWER_S = 10, 120
BATCH_BYTES, BATCH_FILES = 32 << 20, 64
_UNKNOWN_SYNTAX = 0xC122
_UNIQUE = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
_AS_STORED = (("application/dicom", "*"),)

# Its warnings would go to standard error by themselves, with the addresses asked, which hold what was asked for.
logging.getLogger("dicomweb_client").addHandler(logging.NullHandler())


class WebArchive:
    """A PACS over DICOMweb.

    Credentials come from MEDGAN_DICOMWEB_TOKEN (a bearer token), from MEDGAN_DICOMWEB_USER and
    MEDGAN_DICOMWEB_PASSWORD, or from ~/.netrc, and go to another machine by https alone.

    Args:
        peer: its address.

    Raises:
        InputError: if there are credentials, and the address is neither https nor of this machine.
    """

    def __init__(self, peer: Peer) -> None:
        session = requests.Session()
        session.auth = _credentials(peer)
        accepting = {"Accept": "application/dicom+json"}
        try:
            self._client = DICOMwebClient(peer.url, session, headers=accepting, timeout=(CONNECT_S, ANSWER_S))
        except ValueError as error:
            raise InputError(f"{peer}: is no address of a DICOMweb service ({error})") from None
        self._client.set_http_retry_params(retry=False)
        self._peer = peer

    def find(self, query: Query) -> list[Found]:
        """The series that fit, by QIDO-RS.

        Raises:
            InputError: if the archive cannot be reached, refuses us or answers otherwise than DICOMweb does.
        """
        return search(query, self._ask)

    def instances(self, found: Found) -> dict[str, str]:
        """SOP class by SOPInstanceUID of a series, by QIDO-RS.

        Raises:
            InputError: as `find`.
        """
        return instances_of(found, self._ask)

    def fetch(self, found: Found, classes: Collection[str], keep: Keep) -> str:  # noqa: ARG002  # all classes come
        """Have a series sent, by WADO-RS, each instance in its own transfer syntax; "" or what went wrong."""
        try:
            with quietly():
                for dataset in self._client.iter_series(found.study_uid, found.series_uid, media_types=_AS_STORED):
                    file = BytesIO()
                    dcmwrite(file, dataset)
                    with suppress(InputError):  # `keep` knows of it, and the others are still wanted
                        keep(file.getvalue())
        except requests.RequestException as error:
            return _told(error)
        except DAMAGE as error:
            return f"what came is no DICOM ({type(error).__name__})"
        return ""

    def store(self, parcels: Sequence[Parcel], *, decompress: bool) -> Iterator[Sent]:
        """Send files by STOW-RS; what the archive cannot decode is sent again with plain pixels, if that is said.

        Raises:
            InputError: if the archive cannot be reached or refuses us.
        """
        for batch in _batches(parcels):
            done = self._stow(batch, decompress=False)
            again = [one for one, sent in zip(batch, done, strict=True) if sent.code == _UNKNOWN_SYNTAX and decompress]
            once_more = {sent.path: sent for sent in self._stow(again, decompress=True)} if again else {}
            yield from (once_more.get(sent.path, sent) for sent in done)

    def _ask(self, level: str, keys: Mapping[str, str]) -> Iterator[Dataset]:
        """Page after page; an archive that sends the same page again has no more."""
        seen: set[str] = set()
        while True:
            with quietly():
                page = [one for one in self._page(level, keys, len(seen)) if text(one, _UNIQUE[level]) not in seen]
            if not page:
                return
            seen.update(text(one, _UNIQUE[level]) for one in page)
            yield from page

    def _page(self, level: str, keys: Mapping[str, str], offset: int) -> list[Dataset]:
        above = [_UNIQUE[one] for one in list(_UNIQUE)[: list(_UNIQUE).index(level)]]
        named = [keys.get(key) or None for key in above]
        filters = {key: value for key, value in keys.items() if value and key not in above}
        fields = [key for key, value in keys.items() if not value and key not in above]
        ask: Any = {
            "STUDY": self._client.search_for_studies,
            "SERIES": self._client.search_for_series,
            "IMAGE": self._client.search_for_instances,
        }[level]
        try:
            answers = ask(*named, offset=offset or None, fields=fields, search_filters=filters)
            return [Dataset.from_json(one) for one in answers]
        except requests.RequestException as error:
            raise InputError(f"{self._peer}: {_told(error)}") from None
        except DAMAGE as error:
            raise InputError(f"{self._peer}: answers otherwise than DICOMweb does ({type(error).__name__})") from None

    def _stow(self, batch: Sequence[Parcel], *, decompress: bool) -> list[Sent]:
        readable: dict[str, Dataset] = {}
        done: dict[str, Sent] = {}
        for parcel in batch:
            try:
                with quietly():
                    readable[parcel.instance_uid] = opened(parcel, decompress=decompress)
            except (*DAMAGE, OSError, RuntimeError) as error:
                why = f"cannot be read or decoded ({type(error).__name__})"
                done[parcel.instance_uid] = Sent(parcel.path, Outcome.REFUSED, why)
        if readable:
            sendable = [parcel for parcel in batch if parcel.instance_uid in readable]
            done |= self._posted(sendable, list(readable.values()))
        return [done[parcel.instance_uid] for parcel in batch]

    def _posted(self, batch: Sequence[Parcel], datasets: list[Dataset]) -> dict[str, Sent]:
        try:
            with quietly():
                answer = self._client.store_instances(datasets)
        except requests.HTTPError as error:
            answer = _answer_of(error)
            if not answer:
                return self._failed(batch, error)
        except requests.RequestException as error:
            return self._failed(batch, error)
        except (*DAMAGE, OSError, RuntimeError) as error:
            why = f"sent, but its answer cannot be read ({type(error).__name__})"
            return {one.instance_uid: Sent(one.path, Outcome.UNSENT, why, passing=True) for one in batch}
        with quietly():
            return {one.instance_uid: _judged(one, answer) for one in batch}

    def _failed(self, batch: Sequence[Parcel], error: requests.RequestException) -> dict[str, Sent]:
        status = _status(error)
        if status in {401, 403, 404, 405}:
            raise InputError(f"{self._peer}: {_told(error)}") from None
        passing = status is None or status >= 500 or status == 429
        outcome = Outcome.UNSENT if passing else Outcome.REFUSED
        return {one.instance_uid: Sent(one.path, outcome, _told(error), passing=passing) for one in batch}


class _Bearer(AuthBase):
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _credentials(peer: Peer) -> AuthBase | None:
    token, user = os.environ.get("MEDGAN_DICOMWEB_TOKEN"), os.environ.get("MEDGAN_DICOMWEB_USER")
    known = get_netrc_auth(peer.url)
    if user and not token:
        known = user, os.environ.get("MEDGAN_DICOMWEB_PASSWORD", "")
    if (known or token) and not peer.url.startswith("https://") and not peer.is_here:
        raise InputError(f"{peer}: credentials are not sent over plain http, where others can read them; use https")
    if token:
        return _Bearer(token)
    return HTTPBasicAuth(*known) if known else None


def _status(error: requests.RequestException) -> int | None:
    return None if error.response is None else error.response.status_code


def _told(error: requests.RequestException) -> str:
    """Without the address that was asked, which holds what was asked for."""
    status = _status(error)
    if status in {401, 403}:
        return f"refuses us (HTTP {status}); check MEDGAN_DICOMWEB_USER and _PASSWORD, _TOKEN, or ~/.netrc"
    if status is not None:
        return f"answered HTTP {status}; check that the address is the root of its DICOMweb service"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted here; name your own authority's in REQUESTS_CA_BUNDLE"
    return f"cannot be reached, or the line was cut ({type(error).__name__}); check host and port"


def _answer_of(error: requests.HTTPError) -> Dataset:
    """What an archive says of each instance when it refuses some; empty where it says nothing."""
    try:
        return Dataset.from_json(error.response.json() if error.response is not None else "{}")
    except (*DAMAGE, requests.RequestException):
        return Dataset()


def _judged(parcel: Parcel, answer: Dataset) -> Sent:
    """Source: PS3.18, annex I."""
    for key, reason in (("FailedSOPSequence", "FailureReason"), ("ReferencedSOPSequence", "WarningReason")):
        for item in answer.get(key) or ():
            if text(item, "ReferencedSOPInstanceUID") == parcel.instance_uid:
                failed = 0x0110 if key == "FailedSOPSequence" else 0
                return judged(parcel.path, int(number(item, reason) or failed))
    if not answer:
        return Sent(parcel.path, Outcome.STORED)
    return Sent(parcel.path, Outcome.UNSENT, "the archive's answer does not name it", passing=True)


def _batches(parcels: Sequence[Parcel]) -> Iterator[list[Parcel]]:
    """Parts small enough to be held in memory."""
    batch: list[Parcel] = []
    size = 0
    for parcel in parcels:
        held = parcel.path.stat().st_size
        if batch and (size + held > BATCH_BYTES or len(batch) == BATCH_FILES):
            yield batch
            batch, size = [], 0
        batch, size = [*batch, parcel], size + held
    if batch:
        yield batch
