"""Where an archive is, as people write it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from medgan.errors import InputError

__all__ = ["Peer", "ae_title"]

_OWN_TITLE = "MEDGAN"
_FORMS = "dicom://AET@host:port, dicom://CALLING@AET@host:port or https://host/dicom-web"
_DICOM = re.compile(r"dicom://(?:([^@/]*)@)?([^@/]*)@(\[[0-9A-Fa-f:.]+\]|[^@/:\[\]\s]+):([0-9]{1,5})/?")


def ae_title(text: str) -> str:
    """The name of a DICOM application, checked: 1 to 16 printable ASCII letters, no backslash.

    Raises:
        InputError: if it is not that.
    """
    title = text.strip(" ")
    if not re.fullmatch(r"[ -\[\]-~]{1,16}", title):
        raise InputError(f"AE title {text!r}: has to be 1 to 16 ASCII letters without a backslash")
    return title


@dataclass(frozen=True)
class Peer:
    """The address of an archive. Printed, it holds no secret.

    Args:
        host: name or address; of DICOMweb too.
        port: 0 where the URL names none.
        called: AE title of the archive; "" for DICOMweb.
        calling: AE title that we call ourselves.
        url: of DICOMweb, "" for DIMSE.
    """

    host: str
    port: int = 0
    called: str = ""
    calling: str = _OWN_TITLE
    url: str = ""

    @classmethod
    def parse(cls, text: str) -> Peer:
        """Read `dicom://[CALLING@]AET@host:port` (DIMSE) or `https://host[:port]/path` (DICOMweb).

        Raises:
            InputError: if it is neither, or holds a password.

        Example:
            >>> peer = Peer.parse("dicom://ME@PACS@10.0.0.5:104")
            >>> peer.calling, peer.called, peer.host, peer.port
            ('ME', 'PACS', '10.0.0.5', 104)
        """
        text = str(text)
        if text.startswith(("http://", "https://")):
            return _web(text)
        match = _DICOM.fullmatch(text)
        if not match:
            raise InputError(f"{_shown(text)}: is no archive's address; accepted are {_FORMS}")
        calling, called, host, port = match.groups()
        if not 1 <= int(port) <= 65535:
            raise InputError(f"{_shown(text)}: port {port} is none; accepted are 1 to 65535")
        title = _OWN_TITLE if calling is None else ae_title(calling)
        return cls(host.strip("[]"), int(port), ae_title(called), title)

    @property
    def is_web(self) -> bool:
        """True for DICOMweb."""
        return bool(self.url)

    @property
    def is_here(self) -> bool:
        """True if it is on this machine, so that nothing said to it leaves it."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.url or f"dicom://{self.called}@{host}:{self.port}"


def _web(text: str) -> Peer:
    try:
        parts = urlsplit(text)
        port = parts.port or 0
    except ValueError as error:
        raise InputError(f"{_shown(text)}: is no URL ({error}); accepted are {_FORMS}") from None
    if parts.username is not None or parts.password is not None:
        raise InputError(
            f"{_shown(text)}: a password on a command line is seen by others; put it into "
            "MEDGAN_DICOMWEB_USER and MEDGAN_DICOMWEB_PASSWORD, MEDGAN_DICOMWEB_TOKEN or ~/.netrc"
        )
    if not parts.hostname or parts.query or parts.fragment:
        raise InputError(f"{_shown(text)}: is no root of a DICOMweb service; accepted are {_FORMS}")
    return Peer(parts.hostname, port, url=text.rstrip("/"))


def _shown(text: str) -> str:
    """The address without what stands before its last @, which may be a password."""
    scheme, mark, rest = text.partition("://")
    if scheme == "dicom" or "@" not in rest:
        return text
    return f"{scheme}{mark}…@{rest.rpartition('@')[2]}"
