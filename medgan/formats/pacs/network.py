"""DICOM's own network, from the side that asks: C-FIND, C-GET, C-MOVE and C-STORE."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from medgan.errors import InputError
from medgan.formats.dicom.elements import DAMAGE, name_of, quietly
from medgan.formats.pacs.archive import Keep, Receiver
from medgan.formats.pacs.listener import listening, promptly, stored
from medgan.formats.pacs.outbox import Outcome, Parcel, Sent, judged, opened
from medgan.formats.pacs.peer import Peer
from medgan.formats.pacs.query import Found, Query, instances_of, search
from medgan.formats.pacs.syntaxes import COMMON_CLASSES, FETCHED

__all__ = ["DimseArchive", "association"]

FIND = StudyRootQueryRetrieveInformationModelFind
GET = StudyRootQueryRetrieveInformationModelGet
MOVE = StudyRootQueryRetrieveInformationModelMove
CONNECT_S, ANSWER_S = 10, 120
MOST_CONTEXTS = 126  # of 128, one is the question's own
_PLAIN = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, "1.2.840.10008.1.2.1.99"}  # turned into one another freely
_REASONS = {1: "it gave no reason", 3: "it does not know us as {calling!r}", 7: "it is not called {called!r}"}

# Questions and answers hold names and birth dates: whoever turns logging on does not get them from here.
_config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False


@dataclass(frozen=True)
class DimseArchive:
    """A PACS over DIMSE.

    Args:
        peer: its address.
        receiver: where it is to send to by C-MOVE; by C-GET over the same association if None.
    """

    peer: Peer
    receiver: Receiver | None = None

    def find(self, query: Query) -> list[Found]:
        """The series that fit, by C-FIND.

        Raises:
            InputError: if the archive cannot be reached, refuses us or does not answer.
        """
        with association(self.peer, [build_context(FIND)]) as line:
            return search(query, lambda level, keys: _ask(self.peer, line, level, keys))

    def instances(self, found: Found) -> dict[str, str]:
        """SOP class by SOPInstanceUID of a series, by C-FIND.

        Raises:
            InputError: as `find`.
        """
        with association(self.peer, [build_context(FIND)]) as line:
            return instances_of(found, lambda level, keys: _ask(self.peer, line, level, keys))

    def fetch(self, found: Found, classes: Collection[str], keep: Keep) -> str:
        """Have a series sent, by C-GET or C-MOVE, each instance in its own transfer syntax; "" or what went wrong.

        Raises:
            InputError: if the archive cannot be reached, or has no such service.
        """
        with quietly():
            return self._move(found, self.receiver, keep) if self.receiver else self._get(found, classes, keep)

    def store(self, parcels: Sequence[Parcel], *, decompress: bool) -> Iterator[Sent]:
        """Send files by C-STORE, each in its own transfer syntax where the archive takes that.

        Raises:
            InputError: if the archive cannot be reached or refuses us.
        """
        for batch in _batches(parcels):
            contexts = [build_context(Verification), *_own_contexts(batch)]
            with association(self.peer, contexts) as line:
                yield from _all_stored(line, batch, decompress)

    def _get(self, found: Found, classes: Collection[str], keep: Keep) -> str:
        known = sorted({one for one in classes if one}) or COMMON_CLASSES
        roles = [build_role(one, scp_role=True) for one in known]
        handlers = [(evt.EVT_C_STORE, stored, [lambda data, _sender: keep(data)])]
        with association(self.peer, [build_context(GET), *_contexts_of(known)], roles, handlers) as line:
            _require(self.peer, line, GET, "C-GET; have it send by C-MOVE (--move-to)")
            return _finished(line.send_c_get(_series(found), GET))

    def _move(self, found: Found, receiver: Receiver, keep: Keep) -> str:
        with (
            listening(receiver, lambda data, _sender: keep(data)),
            association(self.peer, [build_context(MOVE)]) as line,
        ):
            _require(self.peer, line, MOVE, "C-MOVE")
            return _finished(line.send_c_move(_series(found), receiver.aet, MOVE))


@contextmanager
def association(
    peer: Peer,
    contexts: list[PresentationContext],
    roles: Sequence[Any] = (),
    handlers: Sequence[Any] = (),
) -> Iterator[Association]:
    """A line to an archive, hung up at the end.

    Raises:
        InputError: if it cannot be reached, refuses us, or takes nothing of what is proposed.
    """
    ours = AE(peer.calling)
    ours.connection_timeout, ours.acse_timeout = CONNECT_S, CONNECT_S * 3
    ours.dimse_timeout = ours.network_timeout = ANSWER_S
    answers: list[Any] = []
    notes = [(evt.EVT_ACSE_RECV, lambda event: answers.append(event.primitive)), (evt.EVT_CONN_OPEN, promptly)]
    try:
        line = ours.associate(
            peer.host, peer.port, contexts, ae_title=peer.called, ext_neg=list(roles), evt_handlers=[*notes, *handlers]
        )
    except OSError as error:  # of a name that nobody knows
        raise InputError(f"{peer}: cannot be reached ({error.strerror or error}); check host and port") from None
    try:
        if not line.is_established:
            raise InputError(f"{peer}: {_refusal(peer, line, answers)}")
        yield line
    finally:
        if line.is_established:
            line.release()


def _refusal(peer: Peer, line: Association, answers: list[Any]) -> str:
    if line.is_rejected:
        code = getattr(answers[-1], "diagnostic", None) if answers else None
        why = _REASONS.get(code or 0, f"reason {code}").format(calling=peer.calling, called=peer.called)
        return f"refused the association: {why}; AE titles are agreed upon with who runs the archive"
    if line.rejected_contexts:
        return "takes nothing of what was proposed to it; ask who runs the archive what it is set up for"
    return "cannot be reached, or hung up; check host, port, and that it is running"


def _require(peer: Peer, line: Association, service: str, name: str) -> None:
    if not any(context.abstract_syntax == service for context in line.accepted_contexts):
        raise InputError(f"{peer}: does not take {name}")


# --- asking -----------------------------------------------------------------------------------------------------------


def _ask(peer: Peer, line: Association, level: str, keys: Mapping[str, str]) -> Iterator[Dataset]:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    if not all(value.isascii() for value in keys.values()):
        identifier.SpecificCharacterSet = "ISO_IR 192"
    with quietly():
        for key, value in keys.items():
            setattr(identifier, key, value)
        if not line.is_established:
            raise InputError(f"{peer}: hung up while it was asked; try again")
        for status, answer in line.send_c_find(identifier, FIND):
            code = status.get("Status")
            if code in {0xFF00, 0xFF01} and answer is not None:
                yield answer
            elif code != 0:
                raise InputError(f"{peer}: did not answer the question ({_told(code)}); ask it for less, or otherwise")


def _series(found: Found) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "SERIES"
    identifier.StudyInstanceUID, identifier.SeriesInstanceUID = found.study_uid, found.series_uid
    return identifier


def _finished(answers: Iterator[tuple[Dataset, Dataset | None]]) -> str:
    """ "" where everything was sent, else what the archive said at the end."""
    last = Dataset()
    for status, _ in answers:
        last = status
    code = last.get("Status")
    failed = last.get("NumberOfFailedSuboperations") or 0
    return "" if code == 0 and not failed else f"{_told(code)}, {failed} failed" if code is not None else _told(code)


def _told(code: int | None) -> str:
    return "the line was cut, or it did not answer in time" if code is None else f"status 0x{code:04X}"


def _contexts_of(classes: Sequence[str]) -> list[PresentationContext]:
    """One for each class and encoding: an archive that may choose one of many for a class would have to recode."""
    if len(classes) * len(FETCHED) <= MOST_CONTEXTS:
        return [build_context(one, syntax) for one in classes for syntax in FETCHED]
    plain = [syntax for syntax in FETCHED if syntax in _PLAIN]
    return [build_context(one, plain) for one in classes[:MOST_CONTEXTS]]


# --- sending ----------------------------------------------------------------------------------------------------------


def _batches(parcels: Sequence[Parcel]) -> Iterator[list[Parcel]]:
    """Parts that an association has contexts for."""
    batch: list[Parcel] = []
    for parcel in parcels:
        if len(_own_contexts([*batch, parcel])) > MOST_CONTEXTS:
            yield batch
            batch = []
        batch.append(parcel)
    if batch:
        yield batch


def _own_contexts(parcels: Sequence[Parcel]) -> list[PresentationContext]:
    """For each class one context for each encoding of its files, and one for what anybody can read."""
    pairs = sorted({(one.sop_class, one.syntax) for one in parcels})
    own = [build_context(sop_class, syntax) for sop_class, syntax in pairs]
    plain: list[str | UID] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
    return own + [build_context(sop_class, plain) for sop_class, _ in groupby(pairs, key=lambda pair: pair[0])]


def _all_stored(line: Association, batch: Sequence[Parcel], decompress: bool) -> Iterator[Sent]:
    """One after another, until the line is cut."""
    cut = False
    for number, parcel in enumerate(batch):
        sent = _cut(parcel) if cut else _stored(line, parcel, decompress, number % 65535 + 1)
        cut = sent.outcome is Outcome.UNSENT
        yield sent


def _stored(line: Association, parcel: Parcel, decompress: bool, message: int) -> Sent:
    own = (context for context in line.accepted_contexts if context.abstract_syntax == parcel.sop_class)
    taken = {str(context.transfer_syntax[0]) for context in own}
    fits = parcel.syntax in taken or (parcel.syntax in _PLAIN and bool(taken & _PLAIN))
    if not fits and not (decompress and taken & _PLAIN and _is_compressed(parcel)):
        return Sent(parcel.path, Outcome.REFUSED, _untaken(parcel, taken))
    try:
        with quietly():
            dataset = opened(parcel, decompress=not fits)
    except (*DAMAGE, OSError, RuntimeError) as error:
        return Sent(parcel.path, Outcome.REFUSED, f"cannot be read or decoded ({type(error).__name__})")
    try:
        with quietly():
            status = line.send_c_store(dataset, message)
    except RuntimeError:
        status = Dataset()
    except DAMAGE as error:
        return Sent(parcel.path, Outcome.REFUSED, f"cannot be encoded ({type(error).__name__})")
    return judged(parcel.path, int(status.Status)) if "Status" in status else _cut(parcel)


def _cut(parcel: Parcel) -> Sent:
    return Sent(parcel.path, Outcome.UNSENT, "the line was cut, or no answer came in time", passing=True)


def _is_compressed(parcel: Parcel) -> bool:
    syntax = UID(parcel.syntax)
    return syntax.is_transfer_syntax and syntax.is_encapsulated


def _untaken(parcel: Parcel, taken: Collection[str]) -> str:
    if not taken:
        return f"the archive takes no {name_of(parcel.sop_class)}"
    return (
        f"the archive takes no {name_of(parcel.syntax)} of {name_of(parcel.sop_class)}; "
        "--decompress sends what is compressed as plain pixels"
    )
