"""From an archive to a folder: what it has, series by series, and whether all of it came."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from medgan.errors import InputError, MedganError, OutputError
from medgan.formats.pacs import Archive, Found, Inbox, Instance, Peer, Query, Receiver, ae_title, archive_at
from medgan.progress import track

__all__ = ["Pulled", "described", "exit_code", "find", "found_lines", "pull", "pulled_lines"]

_LISTED = 8  # so many missing instances stand in a message, the rest is counted


@dataclass(frozen=True)
class Pulled:
    """What came of one series.

    Args:
        series: as the archive describes it.
        path: its folder, STUDY/SERIES below the one that was named.
        num_arrived: instances that lie there now.
        num_missing: instances that the archive counts, but did not send.
        missing: their SOPInstanceUIDs, as far as it tells them.
        error: what the archive said in the end, "" if all was well.
    """

    series: Found
    path: Path
    num_arrived: int
    num_missing: int = 0
    missing: tuple[str, ...] = ()
    error: str = ""

    @property
    def is_whole(self) -> bool:
        """True if all of it came."""
        return self.num_arrived > 0 and not self.num_missing and not self.error

    def to_json(self, *, identity: bool = False) -> dict[str, Any]:
        """Plain values."""
        told = {key: value for key, value in asdict(self).items() if key != "series"}
        return {**described(self.series, identity=identity), **told, "path": str(self.path)}


def find(
    peer: str,
    *,
    patient: str = "",
    study: str = "",
    series: str = "",
    accession: str = "",
    modality: str = "",
    date: str = "",
) -> list[Found]:
    """Ask an archive which series it has; all that is given must fit.

    Args:
        peer: `dicom://[CALLING@]AET@host:port` or `https://host/dicom-web`.
        patient: PatientID.
        study: StudyInstanceUID.
        series: SeriesInstanceUID.
        accession: AccessionNumber.
        modality: DICOM's code, such as `MR`.
        date: of the study: `20260131` or `20260101-20260131`.

    Raises:
        InputError: if the archive cannot be reached, refuses us, or the question is none.
    """
    query = Query(patient, study, series, accession, modality, date)
    return archive_at(Peer.parse(peer)).find(query)


def pull(
    peer: str,
    out: Path | str,
    *,
    patient: str = "",
    study: str = "",
    series: str = "",
    accession: str = "",
    modality: str = "",
    date: str = "",
    move_to: str | None = None,
    port: int = 11112,
    host: str | None = None,
) -> list[Pulled]:
    """Fetch series from an archive, each file as it is stored there.

    Files appear whole or not at all, as STUDY/SERIES/INSTANCE.dcm. What is there already is not fetched again, so the
    same call goes on where one was stopped.

    Args:
        peer: `dicom://[CALLING@]AET@host:port` or `https://host/dicom-web`.
        out: the folder.
        patient: PatientID.
        study: StudyInstanceUID.
        series: SeriesInstanceUID.
        accession: AccessionNumber.
        modality: DICOM's code, such as `MR`.
        date: of the study: `20260131` or `20260101-20260131`.
        move_to: our AE title, under which the archive knows where to send; then C-MOVE is used, else C-GET.
        port: where the archive sends to by C-MOVE.
        host: the address of ours that listens for that; the one that faces the archive if not given.

    Returns:
        One for each series that fits; none if nothing does.

    Raises:
        InputError: if the archive cannot be reached, refuses us, or the question is none.
        OutputError: if a file cannot be written.
    """
    address, query = Peer.parse(peer), Query(patient, study, series, accession, modality, date)
    archive = archive_at(address, _receiver(address, move_to, port, host) if move_to is not None else None)
    found = archive.find(query)
    return [_pulled(archive, one, Path(out)) for one in track(found, "Fetching series")]


def exit_code(done: Sequence[Pulled]) -> int:
    """0 if all came, 4 if some is missing, 1 if nothing came, 5 if there was nothing to fetch."""
    if not done:
        return 5
    if all(one.is_whole for one in done):
        return 0
    return 4 if any(one.num_arrived for one in done) else 1


def described(found: Found, *, identity: bool = False) -> dict[str, Any]:
    """A series as plain values; who it is of, and when, on request alone."""
    hidden = () if identity else ("patient_id", "study_date")
    return {key: value for key, value in asdict(found).items() if key not in hidden}


def found_lines(found: Sequence[Found], *, identity: bool = False) -> str:
    """What an archive has, study by study, for people."""
    lines: list[str] = []
    for study, series in groupby(found, key=lambda one: (one.study_uid, one.patient_id, one.study_date)):
        uid, patient, date = study
        lines.append(f"study {uid}" + (f", patient {patient}, {date}" if identity else ""))
        lines += [f"  {_line(one)}\n    series {one.series_uid}" for one in series]
    return "\n".join(lines) or "nothing found"


def pulled_lines(done: Sequence[Pulled]) -> str:
    """A line a series, and below it what is missing."""
    return "\n".join(line for one in done for line in _told(one)) or "nothing found"


def _line(one: Found) -> str:
    number = "" if one.number is None else f"{one.number} "
    count = "?" if one.num_instances is None else one.num_instances
    return f"{number}{one.modality} {one.description!r} ({count} instances)"


def _told(one: Pulled) -> list[str]:
    lines = [f"{one.path}: {one.num_arrived} instances"]
    if one.error:
        lines.append(f"  not all was sent: {one.error}")
    if one.num_missing:
        named = ", ".join(one.missing[:_LISTED])
        rest = f" and {one.num_missing - _LISTED} more" if one.missing and one.num_missing > _LISTED else ""
        lines.append(f"  {one.num_missing} missing{': ' if named else ''}{named}{rest}; the same call fetches them")
    return lines


def _receiver(address: Peer, move_to: str, port: int, host: str | None) -> Receiver:
    """Listening, unless told otherwise, at the address of ours that faces the archive."""
    return Receiver(ae_title(move_to), port, host or _facing(address))


def _facing(address: Peer) -> str:
    try:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:  # nothing is sent
            probe.connect((address.host, address.port or 104))
            return str(probe.getsockname()[0])
    except OSError as error:
        raise InputError(f"{address}: cannot be reached ({error.strerror or error}); check host and port") from None


def _pulled(archive: Archive, found: Found, out: Path) -> Pulled:
    inbox = Inbox(out, (found.study_uid, found.series_uid))
    expected = archive.instances(found)
    arrived = {uid for uid in expected if inbox.place(Instance(found.study_uid, found.series_uid, uid)).exists()}
    refused: list[MedganError] = []

    def keep(data: bytes) -> None:
        try:
            arrived.add(inbox.keep(data).instance_uid)
        except MedganError as error:
            refused.append(error)
            raise

    whole = bool(expected) and arrived == expected.keys()
    error = "" if whole else archive.fetch(found, set(expected.values()), keep)
    for one in refused:
        if isinstance(one, OutputError):
            raise one
    missing = tuple(sorted(expected.keys() - arrived))
    uncounted = 0 if expected else max(0, (found.num_instances or 0) - len(arrived))
    path = inbox.folder(found.study_uid, found.series_uid)
    told = "; ".join(part for part in (error, *{str(one) for one in refused}) if part)
    return Pulled(found, path, len(arrived), len(missing) + uncounted, missing, told)
