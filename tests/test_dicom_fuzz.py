"""Damaged, lying and hostile DICOM: a clean error or the right volume; no hang, no traceback, no file elsewhere."""

from __future__ import annotations

import gzip
import json
import os
import resource
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from command_line import Done, medgan, tree
from dicom_mutations import ESCAPED, MARKERS, Files, Mutation, mutated, real_series, small_series
from dicom_oracle import judge, loaded
from dicom_tools import written
from dicom_truth import Frame, Unjudgeable, frames_of

SECONDS = 20  # that one small series may take
MEMORY = 6 * 2**30  # bytes of address space that it may add: a lie of 65535 × 65535 pixels needs more
FAST, MANY = 40, 600  # cases of each series


class Hung(BaseException):
    """Not an Exception: nothing on the way may catch it."""


@contextmanager
def limited() -> Iterator[None]:
    """A time and a memory that are enough."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Hung(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# --- one case ---------------------------------------------------------------------------------------------------------


def tried(mutation: Mutation, wanted: list[Frame], folder: Path) -> list[str]:
    """What is wrong with what the command line makes of one case."""
    source, out = folder / "deep" / "er" / "in", folder / "deep" / "er" / "out"
    source.mkdir(parents=True)
    for name, content in mutation.files.items():
        (source / name).write_bytes(content)
    before = tree(folder)
    with limited():
        done = medgan("convert", source, out, "--json")
    wrong = list(manners(done, out))
    if {name: seen for name, seen in tree(folder).items() if not name.startswith("deep/er/out")} != before or Path(
        ESCAPED
    ).exists():
        wrong.append("files elsewhere")
    return wrong + list(content_problems(mutation, wanted, done, source, out))


def manners(done: Done, out: Path) -> Iterator[str]:
    """How it says what it says."""
    said = (done.out + done.err).lower()
    if done.code not in {0, 1, 3, 4, 5}:
        yield f"exit code {done.code}"
    if "traceback" in said:
        yield "a traceback"
    if done.warned:
        yield f"a warning of a library: {done.warned[0][:200]}"
    if done.code in {1, 5} and written(out):
        yield "files, though it says that there are none"
    if done.code in {0, 3} and not written(out):
        yield "success without a file"
    for entry in json.loads(done.out) if done.out.startswith("[") else []:
        if "\n" in entry["error"] or len(entry["error"]) > 5000:
            yield f"an error that is no line: {entry['error'][:200]!r}"
    if leak := next((marker for marker in MARKERS if marker in said), ""):
        yield f"patient data in a message: {leak}"
    for path in out.rglob("*") if out.is_dir() else []:
        if path.is_file() and any(marker.encode() in unpacked(path) for marker in MARKERS):
            yield f"patient data in {path.name}"


def unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).lower()


def content_problems(mutation: Mutation, wanted: list[Frame], done: Done, source: Path, out: Path) -> Iterator[str]:
    """Where it says that all went well, what it wrote is what the files say."""
    if mutation.harmless and done.code not in {0, 3}:
        yield f"refused for nothing: {(done.err or done.out)[-300:]}"
    if done.code not in {0, 3}:
        return
    frames, all_read = (wanted, True) if mutation.harmless else frames_in(source)
    verdict = judge(frames, [loaded(path) for path in written(out)])
    resampled = "resampled" in done.out and done.code == 3
    if not verdict.right and not resampled:
        yield f"exit {done.code}, but only {verdict.found} of {verdict.frames} frames are in their place"
    if all_read and verdict.invented and not resampled:
        yield f"{verdict.invented} slices that no file holds"


def frames_in(source: Path) -> tuple[list[Frame], bool]:
    """The frames that can be read independently of medgan, and whether that is true of all files."""
    frames, all_read = [], True
    for path in sorted(source.iterdir()):
        try:
            frames += frames_of(path)
        except Unjudgeable:
            all_read = False
    return unlike(frames), all_read


def unlike(frames: list[Frame]) -> list[Frame]:
    """Without those that repeat another."""
    return list(
        {(frame.values.tobytes(), frame.origin.tobytes(), frame.down.tobytes()): frame for frame in frames}.values()
    )


def all_tried(name: str, files: Files, count: int, folder: Path, seed: int = 0) -> None:
    """Each case is `default_rng([seed, n])`, whatever was tried before it."""
    (folder / "clean").mkdir()
    for file, content in files.items():
        (folder / "clean" / file).write_bytes(content)
    wanted, _ = frames_in(folder / "clean")
    wrong, before = [], Path.cwd()
    for n in range(count):
        mutation = mutated(files, np.random.default_rng([seed, n]))
        place = folder / f"{n}" / "cwd"
        place.mkdir(parents=True)
        os.chdir(place)
        try:
            found = tried(mutation, wanted, folder / f"{n}")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever escapes is a finding: decoders in Rust raise no Exception
            found = [f"{type(error).__name__}: {str(error)[:200]} ({', '.join(way_of(error))})"]
        finally:
            os.chdir(before)
        wrong += [f"{name}, seed [{seed}, {n}], {mutation.what}: {what}" for what in found]
    assert not wrong, f"{len(wrong)} of {count} cases\n" + "\n".join(wrong[:40])


def way_of(error: BaseException) -> list[str]:
    """Where in medgan an exception came through."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{Path(one.filename).name}:{one.lineno}" for one in frames if "/medgan/" in one.filename][-3:]


# --- many cases -------------------------------------------------------------------------------------------------------

SMALL = small_series()
REAL = {
    "GE fMRI": "ge/fmri/001",
    "Philips enhanced": "philips_enhanced/fmri/001",
    "Hitachi": "hitachi/anatomical/001",
    "Hyperfine": "hyperfine/anatomical/001",
}


@pytest.mark.parametrize("name", SMALL)
def test_the_clean_series_are_read(name: str, tmp_path: Path) -> None:
    """Else nothing is learnt from the damaged ones."""
    (tmp_path / "in").mkdir()
    for file, content in SMALL[name].items():
        (tmp_path / "in" / file).write_bytes(content)
    done = medgan("convert", tmp_path / "in", tmp_path / "out", "--json")
    assert done.code == 0, done.err + done.out
    frames, all_read = frames_in(tmp_path / "in")
    verdict = judge(frames, [loaded(path) for path in written(tmp_path / "out")])
    assert all_read
    assert (verdict.found, verdict.equal, verdict.invented) == (len(frames), len(frames), 0)


@pytest.mark.parametrize("name", SMALL)
def test_some_mutations(name: str, tmp_path: Path) -> None:
    all_tried(name, SMALL[name], FAST, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_many_mutations(name: str, tmp_path: Path) -> None:
    all_tried(name, SMALL[name], MANY, tmp_path, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_mutations_of_real_files(name: str, shared: Path, tmp_path: Path) -> None:
    folder = shared / "dicom" / "dicom2nifti" / "tests" / "data" / REAL[name]
    all_tried(name, real_series(folder), MANY // 3, tmp_path, seed=2)


def test_a_case_is_the_same_whenever_it_is_made() -> None:
    cases = [mutated(SMALL["MR"], np.random.default_rng([0, n])) for n in range(30)]
    again = [mutated(SMALL["MR"], np.random.default_rng([0, n])) for n in range(30)]
    assert [one.files for one in cases] == [one.files for one in again]
    assert len({one.what for one in cases}) > 20
    assert any(one.harmless for one in cases)


def test_the_limits_hold() -> None:
    with pytest.raises(MemoryError), limited():
        np.zeros(4 * MEMORY, np.uint8).sum()
    with pytest.raises(Hung), limited():
        waiting()


def waiting() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    while True:
        pass
