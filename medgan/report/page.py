"""A page: a template and what it shows → one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from medgan import __version__
from medgan.atomic import replacing

__all__ = ["write_page"]


def write_page(path: Path | str, template: str, **content: Any) -> Path:
    """Write a page; the same content gives the same page, and one that is there is not touched.

    Args:
        path: of the file.
        template: its name in this folder.
        content: what the template shows; all text in it is escaped.

    Returns:
        The path.

    Raises:
        OutputError: if the place cannot be written.
    """
    page = _environment().get_template(template).render(version=__version__, **content)
    told = page.encode("utf-8", errors="backslashreplace")  # names of files need not be text
    if not Path(path).is_file() or Path(path).read_bytes() != told:
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(told)
    return Path(path)


def _environment() -> Environment:
    loader = PackageLoader("medgan.report", "")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
