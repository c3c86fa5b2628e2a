"""Other people's archives: DICOM's own network (DIMSE) and DICOMweb, behind one face.

The only place that knows pynetdicom and dicomweb-client, which come with `pip install 'medgan[pacs]'`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from medgan.errors import InputError
from medgan.formats.pacs.archive import Archive, Closed, Keep, Receiver, Taken
from medgan.formats.pacs.inbox import Inbox, Instance
from medgan.formats.pacs.intake import Intake
from medgan.formats.pacs.outbox import Outcome, Parcel, Sent, parcels
from medgan.formats.pacs.peer import Peer, ae_title
from medgan.formats.pacs.query import Found, Query
from medgan.formats.pacs.settled import settle_uids

__all__ = [
    "Archive",
    "Closed",
    "Found",
    "Inbox",
    "Instance",
    "Intake",
    "Keep",
    "Outcome",
    "Parcel",
    "Peer",
    "Query",
    "Receiver",
    "Sent",
    "Taken",
    "ae_title",
    "archive_at",
    "listening",
    "parcels",
    "settle_uids",
]


def archive_at(peer: Peer, receiver: Receiver | None = None) -> Archive:
    """What answers at an address; nothing is sent yet.

    Args:
        peer: the address.
        receiver: where a DIMSE archive is to send what is fetched, by C-MOVE; by C-GET if None.

    Raises:
        InputError: if the package that speaks its language is not installed, or its credentials cannot be used, or a
            receiver is given for DICOMweb.
    """
    if peer.is_web and receiver:
        raise InputError(f"{peer}: DICOMweb answers over the line that asked; a receiver is for dicom:// alone")
    try:
        if peer.is_web:
            from medgan.formats.pacs.web import WebArchive

            return WebArchive(peer)
        from medgan.formats.pacs.network import DimseArchive
    except ModuleNotFoundError as error:
        raise _uninstalled(str(peer), error) from None
    return DimseArchive(peer, receiver)


@contextmanager
def listening(receiver: Receiver, take: Taken, closed: Closed) -> Iterator[int]:
    """Take what others send, in threads of its own, while the block runs; C-ECHO is answered too.

    Args:
        receiver: what we are called, and where we listen.
        take: keeps an instance, given as a whole file and with a number of its sender.
        closed: hears that a sender hung up: True if released as agreed, False if cut off.

    Yields:
        The port.

    Raises:
        InputError: if pynetdicom is not installed, or the port cannot be had.
    """
    try:
        from medgan.formats.pacs import listener
    except ModuleNotFoundError as error:
        raise _uninstalled(receiver.aet, error) from None
    with listener.listening(receiver, take, closed) as port:
        yield port


def _uninstalled(name: str, error: ModuleNotFoundError) -> InputError:
    return InputError(f"{name}: needs the package {error.name}; install it with pip install 'medgan[pacs]'")
