"""Outputs where a folder cannot be replaced: mount points."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medgan.atomic import refuse_full_folder, replacing
from medgan.errors import OutputError

MOUNTS = {"another file system": "mount -t tmpfs none out", "the same file system": "mount --bind source out"}
WRITE = """
from pathlib import Path
from medgan.atomic import replacing
from medgan.errors import OutputError

def write(place):
    with replacing(place) as temporary:
        temporary.mkdir()
        (temporary / "it").write_text("whole")

write(Path("out/inside"))
print((Path("out/inside/it").read_text()))
(Path("out/inside/it")).unlink(), Path("out/inside").rmdir()
try:
    write(Path("out"))
except OutputError as error:
    print(error)
print(sorted(path.name for path in [*Path(".").iterdir(), *Path("out").iterdir()]))
"""


@pytest.mark.parametrize("mount", MOUNTS.values(), ids=MOUNTS)
def test_a_mount_point_is_named_and_a_folder_inside_it_works(mount: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "source").mkdir()
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    try:
        subprocess.run([*alone, mount], cwd=tmp_path, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting needs Linux's user namespaces")
    script = f'{mount} && "$0" -c "$1"'
    done = subprocess.run(
        [*alone, script, sys.executable, WRITE], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    inside, told, left = done.stdout.splitlines()
    assert inside == "whole"
    assert told.startswith("out: is a mount point, ")
    assert told.endswith("name a folder inside it")
    assert left == "['out', 'source']"


def test_a_mount_point_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_full_folder(tmp_path)
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path)
    with pytest.raises(OutputError, match="is a mount point"):
        refuse_full_folder(tmp_path)
    refuse_full_folder(tmp_path / "inside")


def test_other_places_in_use_are_told_as_the_system_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may be one too, and there is nothing inside it."""

    def busy(self: Path, _target: Path) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(self))

    monkeypatch.setattr(Path, "replace", busy)
    place = tmp_path / "file.txt"
    with (
        pytest.raises(OutputError, match=r"file\.txt: cannot be written \(.*busy\); choose another"),
        replacing(place) as t,
    ):
        t.write_text("whole")
    assert not list(tmp_path.iterdir())
