"""A store SCP: others send, and what they send is kept."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from medgan.errors import InputError, MedganError, OutputError
from medgan.formats.pacs.archive import Closed, Receiver, Taken
from medgan.formats.pacs.syntaxes import FETCHED
from medgan.progress import say

__all__ = ["listening", "promptly", "stored"]

IDLE_S = 600  # of a line; some senders keep theirs

_config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False


@contextmanager
def listening(receiver: Receiver, take: Taken, closed: Closed = lambda _sender, _whole: None) -> Iterator[int]:
    """Listen in threads of its own while the block runs; C-ECHO is answered too.

    Yields:
        The port.

    Raises:
        InputError: if the port cannot be had.
    """
    handlers: list[Any] = [
        (evt.EVT_CONN_OPEN, promptly),
        (evt.EVT_C_STORE, stored, [take]),
        (evt.EVT_RELEASED, lambda event: closed(id(event.assoc), True)),
        (evt.EVT_ABORTED, lambda event: closed(id(event.assoc), False)),
        (evt.EVT_REJECTED, _rejected),
        (evt.EVT_CONN_CLOSE, lambda event: closed(id(event.assoc), False)),
    ]
    ours = _application(receiver)
    try:
        server = ours.start_server((receiver.host, receiver.port), block=False, evt_handlers=handlers)
    except OSError as error:
        where = f"{receiver.host}:{receiver.port}"
        raise InputError(f"{where}: cannot be listened at ({error.strerror or error}); choose another port") from None
    try:
        yield server.server_address[1] if server else receiver.port
    finally:
        ours.shutdown()


def _application(receiver: Receiver) -> AE:
    ours = AE(receiver.aet)
    ours.require_called_aet = True
    ours.require_calling_aet = list(receiver.allow)
    ours.network_timeout = ours.acse_timeout = ours.dimse_timeout = IDLE_S
    ours.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        ours.add_supported_context(context.abstract_syntax or "", FETCHED)
    return ours


def stored(event: evt.Event, take: Taken) -> int:
    """What a sender is told of an instance.

    Source: PS3.4, table B.2-1.
    """
    try:
        take(event.encoded_dataset(), id(event.assoc))
    except OutputError:
        return 0xA700
    except MedganError:
        return 0xA900
    return 0x0000


def promptly(event: evt.Event) -> None:
    """Send small packets at once; else each image costs the 40 ms after which the other side answers to half of it."""
    line = event.assoc.dul.socket
    if line is not None and line.socket is not None:
        line.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _rejected(event: evt.Event) -> None:
    asked = event.assoc.requestor.primitive
    called = asked.called_ae_title if asked else ""
    say(f"rejected {event.assoc.requestor.ae_title!r} at {event.assoc.requestor.address}, which called {called!r}")
