"""What users get wrong, and what machines do to them: one red line that says what to do, and nothing half written."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bad_input import ALL, Bad
from command_line import Done, medgan, tree, untrained_run
from conftest import tiny_pair
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medgan import write
from medgan.cases import read_cases
from medgan.config import load
from medgan.errors import MedganError
from medgan.formats.dicom import Subject
from medgan.run import Run, open_run, start_run

PROGRAM = [sys.executable, "-m", "medgan"]
QUIET = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def good(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all is well: cases.csv, tiny.yaml, p0_mr.nii.gz …, DICOM series `mr` and `ct`, a run `run`."""
    folder = tmp_path_factory.mktemp("good")
    shutil.copytree(tiny_cohort, folder, dirs_exist_ok=True)
    mr, ct = tiny_pair(0)
    subject = Subject()
    write(mr, folder / "mr", subject=subject, description="first")
    write(ct, folder / "ct", subject=subject, description="second")
    write(ct.with_array((ct.array > 0).astype(np.uint8), unit="label"), folder / "mask.nii.gz")
    untrained_run(folder / "run", folder / "tiny.yaml")
    return folder


def words(command: str, good: Path, bad: Path) -> list[str]:
    return [word.format(good=good, bad=bad) for word in command.split()]


def assert_one_line(done: Done, says: str, code: int = 1) -> None:
    """The error stands alone, at the end, and says what it should; what came before is no part of it."""
    assert done.code == code, done
    assert done.error.startswith("Error: "), done.err
    assert sum(line.startswith("Error") for line in done.err.splitlines()) == 1, done.err
    assert "Traceback" not in done.err
    assert not done.warned
    assert not done.out
    assert re.search(says, done.error), done.error


def no_parts(folder: Path) -> bool:
    return not any(".part." in path.name for path in folder.rglob("*"))


# --- what users get wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_one_line_says_what_to_do_and_nothing_is_left(case: Bad, good: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    case.make(bad, good)
    before = tree(bad), tree(good)
    assert_one_line(medgan(*words(case.command, good, bad)), case.says, case.code)
    assert (tree(bad), tree(good)) == before


@pytest.mark.slow
@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_the_same_in_a_process_of_its_own(case: Bad, good: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    case.make(bad, good)
    assert_one_line(in_a_process(*words(case.command, good, bad)), case.says, case.code)


def in_a_process(*argv: object) -> Done:
    done = subprocess.run([*PROGRAM, *map(str, argv)], capture_output=True, text=True, check=False, env=QUIET)
    return Done(done.returncode, done.stdout, done.stderr)


def test_every_row_has_a_name_of_its_own() -> None:
    assert len({case.name for case in ALL}) == len(ALL)


def test_the_line_is_red_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.run([*PROGRAM, "inspect", "/none"], stdout=theirs, stderr=theirs, check=False)
    os.close(theirs)
    assert process.returncode == 1
    shown = os.read(ours, 4096).decode().splitlines()
    os.close(ours)
    assert shown == ["\x1b[31mError: /none: does not exist; give a folder or a file with scans\x1b[0m"]


def test_debug_shows_where_it_comes_from(good: Path) -> None:
    with pytest.raises(MedganError, match="does not exist"):
        medgan("--debug", "inspect", "/none")
    with pytest.raises(OSError, match="too long"):
        medgan("--debug", "inspect", "n" * 300)


def test_no_gpu(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for command in (
        "train {good}/tiny.yaml --out {bad}/run --device cuda",
        "train {good}/tiny.yaml --dry-run --device cuda",
        "translate {good}/run {good}/mr {bad}/out --device cuda",
    ):
        assert_one_line(medgan(*words(command, good, tmp_path)), r"device: cuda .* no GPU here; use cpu or auto")
    assert not tree(tmp_path)


def test_too_little_memory(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def starve(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr(sys.modules["medgan.ensemble"], "predict", starve)
    done = medgan("translate", good / "run", good / "p0_mr.nii.gz", tmp_path / "o.nii.gz", "--device", "cpu")
    assert_one_line(done, r"p0_mr\.nii\.gz: cpu has too little memory for 8 windows at once; lower --batch")
    assert not tree(tmp_path)


# --- what machines do -------------------------------------------------------------------------------------------------


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """The system refuses to write any file beyond so many bytes: in this process, and for real."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


WRITERS = {
    "a translation": ("translate {good}/run {good}/p0_mr.nii.gz {bad}/o.nii.gz", 900, r"o\.(nii\.gz|json): cannot be"),
    "a series": ("translate {good}/run {good}/mr {bad}/o", 1000, r"bad/o: cannot be written \(File too large\)"),
    "a table": ("translate {good}/run {good}/cases.csv {bad}/o --split test", 900, r"p4\.(nii\.gz|json): cannot be"),
    "a conversion": ("convert {good}/mr {bad}/o.nii", 2000, r"o\.(nii|json): cannot be written \(File too large\)"),
    "scores": ("evaluate {good}/p0_ct.nii.gz {good}/p0_ct.nii.gz --out {bad}/o", 500, r"o/\w+\.jsonl?: cannot be"),
    "an index": ("index {good} --a {{patient}}_mr.nii.gz --b {{patient}}_ct.nii.gz --out {bad}/c.csv", 99, r"c\.csv: "),
    "a run": ("train {good}/tiny.yaml --out {bad}/run --device cpu", 500, r"bad/run: cannot be written"),
    "weights": ("train {good}/tiny.yaml --out {bad}/run --device cpu", 30_000, r"weights\.safetensors: cannot be"),
    "a checkpoint": ("train {good}/tiny.yaml --out {bad}/run --device cpu", 99_000, r"state\.pt: cannot be .* room"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_no_space(name: str, good: Path, tmp_path: Path) -> None:
    command, size, says = WRITERS[name]
    bad = tmp_path / "bad"
    bad.mkdir()
    with files_end_at(size):
        done = medgan(*words(command, good, bad))
    assert_one_line(Done(done.code, done.out, done.err), says)
    assert no_parts(tmp_path)
    assert not [path for path in bad.rglob("*") if path.suffix in (".gz", ".nii", ".dcm", ".pt", ".csv")]


def test_a_full_disk(good: Path, tmp_path: Path) -> None:
    disk = tmp_path / "bad"
    disk.mkdir()
    with small_disk(disk, "60k"):
        done = in_a_process("train", good / "tiny.yaml", "--out", disk / "run", "--device", "cpu")
        assert_one_line(done, r"weights\.safetensors: cannot be written \(No space left on device\); choose")
        assert no_parts(disk)
        assert not (disk / "run/state.pt").exists()


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    """A disk of its own at `place`; skips the test where this may not be mounted."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_checkpoint_outlives_the_one_that_cannot_be_written(good: Path, tmp_path: Path) -> None:
    run = open_run(good / "run")
    copy = Run(tmp_path, run.config)
    copy.save_state({"step": 1})
    before = tree(tmp_path)
    with files_end_at(1000), pytest.raises(MedganError, match="the one before is intact"):
        copy.save_state({"step": 2, "game": torch.zeros(9999)})
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["inspect {bad}/locked/x.nii.gz", "convert {good}/mr {bad}/locked/x/o.nii.gz"])
def test_no_permission(name: str, good: Path, tmp_path: Path) -> None:
    """A folder that may not even be entered, and a user who is not above that."""
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0)
    drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if drop and (not shutil.which("setpriv") or subprocess.run([*drop, "true"], check=False).returncode):
        pytest.skip("root may enter every folder, and setpriv is not there to forbid it")
    argv = words(name, good, tmp_path)
    done = subprocess.run([*drop, *PROGRAM, *argv], capture_output=True, text=True, check=False, env=QUIET)
    locked.chmod(0o700)
    assert_one_line(Done(done.returncode, done.stdout, done.stderr), r"locked/x.*: Permission denied; check the path")
    assert not tree(locked)


@pytest.mark.parametrize("refusal", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_whatever_the_system_refuses(refusal: int, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(refusal, os.strerror(refusal), str(path))

    monkeypatch.setattr(Path, "replace", refuse)
    for command in ("convert {good}/mr {bad}/o.nii.gz", "translate {good}/run {good}/mr {bad}/o"):
        done = medgan(*words(command, good, tmp_path))
        assert_one_line(done, rf"/o.*: cannot be written \({re.escape(os.strerror(refusal))}\); choose another place")
    assert not tree(tmp_path)


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_an_interrupt_is_one_line_and_the_same_command_goes_on(tiny_cohort: Path, tmp_path: Path) -> None:
    argv = ["train", str(tiny_cohort / "tiny.yaml"), "train.steps=60", "--out", str(tmp_path / "run")]
    argv += ["train.validate_every=60", "train.checkpoint_every=60", "--device", "cpu"]
    process = subprocess.Popen([*PROGRAM, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=QUIET)
    wait_for(lambda: (tmp_path / "run/metrics.jsonl").exists() and (tmp_path / "run/metrics.jsonl").stat().st_size > 0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert_one_line(Done(process.returncode, out, err), r"stopped at step \d+ of 60; the same command goes on")
    assert "stopping after this step; once more to stop at once" in err.splitlines()
    assert no_parts(tmp_path)
    step = torch.load(tmp_path / "run/state.pt", weights_only=True)["step"]
    done = medgan(*argv)
    assert (done.code, done.out) == (0, f"{tmp_path / 'run'}\n")
    assert f"going on from step {step}" in done.err
    assert torch.load(tmp_path / "run/state.pt", weights_only=True)["step"] == 60


def listen_to_interrupts() -> None:
    """What a shell starts in the background is deaf to them, and so would be what the tests start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupt_while_there_is_nothing_to_save(good: Path, tmp_path: Path) -> None:
    """Reading a pipe that nobody writes to waits, so the moment is known."""
    os.mkfifo(tmp_path / "pipe.csv")
    command = "index {good} --a {{patient}}_mr.nii.gz --b {{patient}}_ct.nii.gz --patients {bad}/pipe.csv --out {bad}/c"
    argv = [*PROGRAM, *words(command, good, tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(argv, text=True, env=QUIET, preexec_fn=listen_to_interrupts, **pipes)  # noqa: PLW1509
    writer: list[int] = []
    wait_for(lambda: is_read(tmp_path / "pipe.csv", writer))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    os.close(writer[0])
    assert process.returncode == 130
    assert out == ""
    assert [line.split(",")[0] for line in err.splitlines()] == ["Passed over"]  # other folders of the cohort
    assert [path.name for path in tmp_path.iterdir()] == ["pipe.csv"]


def is_read(pipe: Path, writer: list[int]) -> bool:
    """A pipe can be opened for writing only once somebody reads it."""
    try:
        writer.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def wait_for(there: Callable[[], bool], limit_s: float = 120) -> None:
    start = time.monotonic()
    while not there():
        assert time.monotonic() - start < limit_s
        time.sleep(0.02)


# --- random damage ----------------------------------------------------------------------------------------------------

SPICE = [
    b'!!int ""',
    b"!!timestamp x",
    b"!!bool 7",
    b"&a ",
    b"*a",
    b"<<: ",
    b"? ",
    b"- ",
    b"\0",
    b"\xff",
    b"\xed\xb3\xbf",
]
SPICE += [b"null", b"1e999", b".inf", b".nan", b"9" * 30, b"2001-99-99", b"{" * 999, b"[" * 999, b"%YAML 9\n", b"---\n"]
SPICE += [b'"', b"'", b"{", b"}", b"[", b"]", b":", b",", b"\n", b"\r", b"\t", b"|", b"=", b"\xef\xbb\xbf", b"..", b""]
edits = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 20), st.one_of(st.sampled_from(SPICE), st.binary(max_size=2))),
    min_size=1,
    max_size=3,
)


def edited(content: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    for where, length, new in changes:
        at = int(where * len(content))
        content = content[:at] + new + content[at + length :]
    return content


@pytest.fixture(scope="module")
def whole(good: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A run with everything in it, a config and a table; and what reads each of their files."""
    folder = tmp_path_factory.mktemp("whole")
    for path in good.glob("p*.nii.gz"):
        (folder / path.name).symlink_to(path)
    shutil.copy(good / "tiny.yaml", folder)
    shutil.copy(good / "cases.csv", folder)
    shutil.copytree(good / "run", folder / "run")
    run, config = open_run(folder / "run"), load(folder / "tiny.yaml")
    weights = run.translator().state_dict()
    adam = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1.0, "betas": (0.5, 0.9)}]}
    state = {"step": 5, "best": {"step": 5, "mae": 1.0}, "game": weights, "shadow": weights}
    run.save_state({**state, "optimizers": {"generator": adam}})
    for step in range(3):
        run.log({"step": step, "loss": {"G": 1.5}})
    readers: dict[str, Callable[[], object]] = {
        "tiny.yaml": lambda: load(folder / "tiny.yaml"),
        "cases.csv": lambda: read_cases(folder / "cases.csv"),
        "run/config.yaml": lambda: (open_run(run.path), start_run(run.path, config)),
        "run/card.json": lambda: (open_run(run.path), start_run(run.path, config)),
        "run/metrics.jsonl": lambda: (open_run(run.path).metrics(), open_run(run.path).forget_after(1)),
        "run/state.pt": lambda: open_run(run.path).load_state(),
        "run/weights.safetensors": lambda: (open_run(run.path).best, open_run(run.path).translator()),
    }
    return SimpleNamespace(folder=folder, readers=readers)


@pytest.mark.parametrize(
    "name",
    [
        *("tiny.yaml", "cases.csv", "run/config.yaml", "run/card.json"),
        *("run/metrics.jsonl", "run/state.pt", "run/weights.safetensors"),
    ],
)
def test_random_damage_is_refused_or_harmless(name: str, whole: SimpleNamespace) -> None:
    """No damage to a file of ours makes anything escape but a MedganError."""
    path, read = whole.folder / name, whole.readers[name]
    content = path.read_bytes()
    read()
    path.write_bytes(content)

    @settings(
        max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(changes=edits)
    def damage(changes: list[tuple[float, int, bytes]]) -> None:
        path.write_bytes(edited(content, changes))
        with suppress(MedganError):
            read()

    try:
        damage()
    finally:
        path.write_bytes(content)
    assert no_parts(whole.folder)


def test_a_config_that_unfolds_without_end_is_refused_in_time(tmp_path: Path) -> None:
    """Ten lines of YAML that would be ten thousand million values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    (tmp_path / "bomb.yaml").write_text("\n".join([*lines, "cases: *a9", "patch: *a9"]))
    with pytest.raises(MedganError, match=r"patch: .*\(seen: \[\[\["):
        load(tmp_path / "bomb.yaml")


def test_json_of_what_was_refused_is_not_printed(good: Path) -> None:
    done = medgan("inspect", good / "mr", "--json")
    assert json.loads(done.out)[0]["modality"] == "MR"
    assert medgan("inspect", "/none", "--json").out == ""
