"""The service: who may send, when a study is whole, and that nothing is lost or doubled wherever it is killed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from command_line import medgan, tree, untrained_run
from conftest import tiny_pair
from dicom_folders import make_slices, ramp, save
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed; pip install 'medgan[pacs]'")

from archives import DimseArchive, dimse_archive
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from medgan import write
from medgan.errors import InputError, OutputError, RunError
from medgan.formats.dicom import Subject
from medgan.formats.pacs import Intake, Outcome, Receiver, Sent, listening, settle_uids
from medgan.formats.pacs.receipts import Answer
from medgan.push import push
from medgan.run import Run
from medgan.serve_dicom import _refuse_several
from medgan.serve_dicom import desk as desk_module
from medgan.serve_dicom.desk import Desk, lay_out
from medgan.serve_dicom.worker import Facts, Worker

SECRETS = ("SECRET", "Secret", "ACC1", "MADE-UP", "Made-up")


@pytest.fixture(scope="module")
def run(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """MR to CT."""
    return untrained_run(tmp_path_factory.mktemp("runs") / "run", tiny_cohort / "tiny.yaml")


# --- when a study is whole --------------------------------------------------------------------------------------------


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def files(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(folder.rglob("*.dcm"))]


@pytest.fixture
def mr(tmp_path: Path) -> list[bytes]:
    return files(save(make_slices(ramp(4)), tmp_path / "mr"))


def intake(folder: Path, clock: Clock, quiet_s: float = 10) -> Intake:
    for name in ("incoming", "ready"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Intake(folder / "incoming", folder / "ready", quiet_s, clock)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.rglob("*.dcm"))


def test_a_study_is_whole_after_a_quiet_time(tmp_path: Path, mr: list[bytes]) -> None:
    clock = Clock()
    door = intake(tmp_path, clock)
    for data in mr:
        door.take(data, 1)
        clock.now += 9
        assert door.settle() == []
    door.closed(1, True)
    clock.now += 9
    assert door.settle() == []
    clock.now += 1
    (job,) = door.settle()
    assert sorted(files(job)) == sorted(mr)
    assert not list((tmp_path / "incoming").iterdir())
    assert door.settle() == []


def test_an_open_line_is_waited_for_and_an_idle_one_not_forever(tmp_path: Path, mr: list[bytes]) -> None:
    clock = Clock()
    door = intake(tmp_path, clock)
    door.take(mr[0], 1)
    clock.now += 59
    assert door.settle() == []
    clock.now += 1
    assert len(door.settle()) == 1
    door.closed(1, True)


def test_a_study_of_several_lines_is_one(tmp_path: Path, mr: list[bytes]) -> None:
    """Some senders open a line for each image."""
    clock = Clock()
    door = intake(tmp_path, clock)
    for sender, data in enumerate(mr):
        door.take(data, sender)
        door.closed(sender, True)
        clock.now += 5
        assert door.settle() == []
    clock.now += 5
    (job,) = door.settle()
    assert len(names(job)) == 4


def test_what_was_cut_off_gets_longer_for_the_rest(tmp_path: Path, mr: list[bytes]) -> None:
    clock = Clock()
    door = intake(tmp_path, clock)
    door.take(mr[0], 1)
    door.closed(1, False)
    clock.now += 29
    assert door.settle() == []
    for data in mr:
        door.take(data, 2)
    door.closed(2, True)
    clock.now += 10
    (job,) = door.settle()
    assert len(names(job)) == 4


def test_a_study_of_which_images_could_not_be_kept_waits_for_them(
    tmp_path: Path, mr: list[bytes], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """If they come again it is whole; if not, it is known not to be."""
    clock = Clock()
    door = intake(tmp_path, clock)
    for again in (True, False):
        door.take(mr[0], 1)
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            for data in mr[1:]:
                with pytest.raises(OutputError):
                    door.take(data, 1)
        door.closed(1, True)
        clock.now += 29
        assert door.settle() == []
        if again:
            for data in mr:
                door.take(data, 2)
            door.closed(2, True)
        clock.now += 10
        (job,) = door.settle()
        assert job.name.endswith(".cut") is not again
        assert len(names(job)) == (4 if again else 1)
    assert capfd.readouterr().err.count("images cannot be kept") == 2


def full(_number: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_was_arriving_at_a_restart_goes_on(tmp_path: Path, mr: list[bytes]) -> None:
    clock = Clock()
    first = intake(tmp_path, clock)
    first.take(mr[0], 1)
    again = intake(tmp_path, clock)
    clock.now += 29
    assert again.settle() == []
    clock.now += 1
    (job,) = again.settle()
    assert files(job) == mr[:1]


def test_with_no_quiet_time_the_end_of_the_line_counts(tmp_path: Path, mr: list[bytes]) -> None:
    door = intake(tmp_path, Clock(), quiet_s=0)
    door.take(mr[0], 1)
    assert door.settle() == []
    door.closed(1, True)
    assert len(door.settle()) == 1


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 2), st.sampled_from(["take", "close", "cut", "wait"]))))
@settings(max_examples=60, deadline=None)
def test_whatever_the_order_each_image_lands_in_a_study(steps: list[tuple[int, int, str]]) -> None:
    import tempfile

    images = [image for seed in range(3) for image in _studies()[seed]]
    with tempfile.TemporaryDirectory() as place:
        clock = Clock()
        door, taken, jobs = intake(Path(place), clock), set(), list[Path]()
        for image, sender, what in steps:
            if what == "take":
                door.take(images[image], sender)
                taken.add(images[image])
            elif what == "wait":
                clock.now += 7
            else:
                door.closed(sender, what == "close")
            jobs += door.settle()
        clock.now += 100
        jobs += door.settle()
        assert {data for job in jobs for data in files(job)} == taken
        assert all(len({str(dcmread(BytesIO(data)).StudyInstanceUID) for data in files(job)}) == 1 for job in jobs)
        assert not list((Path(place) / "incoming").iterdir())


def _studies(made: list[list[bytes]] = []) -> list[list[bytes]]:  # noqa: B006  # made once
    if not made:
        import tempfile

        with tempfile.TemporaryDirectory() as place:
            made += [files(save(make_slices(ramp(4)), Path(place) / str(seed))) for seed in range(3)]
    return made


# --- who may send -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def door(folder: Path, allow: tuple[str, ...] = ("ME",)) -> Iterator[str]:
    """A service that takes and does nothing; its address."""
    taken = intake(folder, Clock())
    with listening(Receiver("MEDGAN", 0, allow=allow), taken.take, taken.closed) as port:
        yield f"dicom://ME@MEDGAN@127.0.0.1:{port}"


def test_only_those_on_the_list_may_send(tmp_path: Path, mr: list[bytes], capfd: pytest.CaptureFixture[str]) -> None:
    with door(tmp_path) as url:
        assert {one.outcome for one in push([tmp_path / "mr"], url)} == {Outcome.STORED}
        for wrong in (url.replace("ME@M", "YOU@M"), url.replace("MEDGAN", "OTHER")):
            with pytest.raises(InputError, match="refused the association"):
                push([tmp_path / "mr"], wrong)
    assert len(names(tmp_path / "incoming")) == 4
    assert "rejected 'YOU' at 127.0.0.1" in capfd.readouterr().err


def test_it_answers_an_echo(tmp_path: Path) -> None:
    with door(tmp_path) as url:
        ours = AE("ME")
        ours.add_requested_context(Verification)
        line = ours.associate("127.0.0.1", int(url.rpartition(":")[2]), ae_title="MEDGAN")
        assert line.send_c_echo().Status == 0
        line.release()


def test_what_arrives_is_kept_byte_by_byte(tmp_path: Path, mr: list[bytes]) -> None:
    with door(tmp_path) as url:
        push([tmp_path / "mr"], url)
    for one, data in zip(sorted(files(tmp_path / "incoming")), sorted(mr), strict=True):
        assert dcmread(BytesIO(one)) == dcmread(BytesIO(data))


def test_a_full_disk_is_told_to_the_sender(tmp_path: Path, mr: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    with door(tmp_path) as url:
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            sent = push([tmp_path / "mr"], url)
        assert {one.code for one in sent} == {0xA700}
        assert all(one.passing for one in sent)
        assert not names(tmp_path / "incoming")
        assert {one.code for one in push([tmp_path / "mr"], url)} == {0}


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with door(tmp_path) as url, contextlib.ExitStack() as stack:
        taken = Receiver("MEDGAN", int(url.rpartition(":")[2]), allow=("ME",))
        with pytest.raises(InputError, match="cannot be listened at"):
            stack.enter_context(listening(taken, lambda _data, _sender: None, lambda _sender, _whole: None))


# --- the desk, with a worker that is quick ----------------------------------------------------------------------------


class Quick:
    """Makes of each image one that is named after it; of some series nothing."""

    facts = Facts("0" * 64, "MR")

    def translate(self, source: Path, out: Path) -> Answer:
        if source.name == "2.bad":
            return Answer(refused=["a slice is missing"])
        if source.name == "3.ct":
            return Answer(passed_over=["CT"])
        (out / "000").mkdir(parents=True)
        for image in source.iterdir():
            (out / "000" / image.name).write_text(f"made of {image.stem}")
        return Answer(made={"000": sorted(image.stem for image in source.iterdir())})


@contextlib.contextmanager
def at_desk(folder: Path, post: Callable[[list[Path], str], list[Sent]]) -> Iterator[Desk]:
    """A desk whose worker is quick, and whose post goes where it is told."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(desk_module, "push", post)
        folder.mkdir(exist_ok=True)
        lay_out(folder)
        yield Desk(Quick(), folder, "dicom://PACS@host:104")  # type: ignore[arg-type]


def to_folder(archive: Path) -> Callable[[list[Path], str], list[Sent]]:
    """A post that puts files into a folder, which keeps the first of each name as archives do."""

    def post(folders: list[Path], _peer: str) -> list[Sent]:
        sent = []
        for file in (file for folder in folders for file in sorted(folder.rglob("*.dcm"))):
            if not (archive / file.name).exists():
                shutil.copyfile(file, archive / file.name)
            sent.append(Sent(file, Outcome.STORED, code=0))
        return sent

    archive.mkdir(exist_ok=True)
    return post


def job(folder: Path, name: str, **series: int) -> Path:
    """A study that is whole: so many images of each series."""
    place = folder / "ready" / name
    for kind, count in series.items():
        uid = {"mr": "1.mr", "bad": "2.bad", "ct": "3.ct"}[kind]
        (place / uid).mkdir(parents=True)
        for number in range(count):
            (place / uid / f"{uid}.{number}.dcm").write_text("pixels")
    return place


def finish(desk: Desk) -> None:
    while desk.step():
        pass


def test_studies_go_through_and_bad_ones_aside(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with at_desk(state, to_folder(tmp_path / "archive")) as desk:
        job(state, "1-good", mr=3, ct=2)
        job(state, "2-half", mr=2, bad=2)
        job(state, "3-none", ct=2)
        job(state, "4-bad", bad=2)
        job(state, "5-part.cut", mr=2)
        finish(desk)
    assert names(tmp_path / "archive") == ["1.mr.0.dcm", "1.mr.1.dcm", "1.mr.2.dcm"]
    assert sorted(one.name for one in (state / "sent").iterdir()) == ["1-good.json", "2-half.json"]
    reasons = {one.name: (one / "reason.txt").read_text() for one in (state / "refused").iterdir()}
    assert reasons == {
        "2-half": "2.bad: a slice is missing\n",
        "3-none": "study: no series of MR to translate; seen: CT\n",
        "4-bad": "2.bad: a slice is missing\n",
        "5-part.cut": "study: images of it could not be kept when they came, and did not come again; "
        "send the whole study again\n",
    }
    assert len(names(state / "refused" / "4-bad")) == 2
    assert not [*(state / "ready").iterdir(), *(state / "translated").iterdir()]


def test_wherever_it_is_killed_it_ends_the_same(tmp_path: Path) -> None:
    """Killed as by the system, before each thing that it does on the disk; then started again."""
    whole = _after(tmp_path / "whole", None)
    killed = 0
    for step in range(1, 400):
        folder = tmp_path / str(step)
        if _killed_at(folder, step):
            killed += 1
            assert _after(folder, step) == whole, f"killed at step {step}"
            shutil.rmtree(folder)
        else:
            break
    assert killed > 60
    assert not any(".part." in name for name in whole)
    assert len([name for name in whole if name.startswith("archive/")]) == 3


def _killed_at(folder: Path, step: int) -> bool:
    """Work in a child process that falls dead before so many changes on the disk are done; False if it never did."""
    _studies_at(folder)
    child = os.fork()
    if not child:
        left = [step]

        def fall(event: str, args: tuple[Any, ...]) -> None:
            changing = event in {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link"} or (
                event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax")
            )
            if changing and str(folder) in str(args[0]):
                left[0] -= 1
                if left[0] == 0:
                    os._exit(9)

        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # the child's own
        sys.addaudithook(fall)
        with at_desk(folder / "state", to_folder(folder / "archive")) as desk:
            finish(desk)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def _studies_at(folder: Path) -> None:
    state = folder / "state"
    state.mkdir(parents=True)
    job(state, "1-good", mr=3, ct=1)
    job(state, "2-half", mr=2, bad=1)
    job(state, "3-none", ct=1)


def _after(folder: Path, step: int | None) -> set[str]:
    """All that lies in the queue and the archive when all is done."""
    if step is None:
        _studies_at(folder)
    with at_desk(folder / "state", to_folder(folder / "archive")) as desk:
        finish(desk)
    return {name for name in tree(folder) if not name.endswith(("reason.txt", "receipt.json"))}


def test_an_archive_that_is_away_is_waited_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    away = [True, True]

    def post(folders: list[Path], peer: str) -> list[Sent]:
        if away:
            away.pop()
            raise InputError(f"{peer}: cannot be reached")
        return to_folder(tmp_path / "archive")(folders, peer)

    state = tmp_path / "state"
    with at_desk(state, post) as desk:
        job(state, "1-good", mr=2)
        finish(desk)
        assert names(state / "translated") == names(state / "translated" / "1-good")
        told = capfd.readouterr().err
        assert "peer: dicom://PACS@host:104: cannot be reached; next try in 1 s" in told
        desk._until.clear()
        finish(desk)
        assert "next try in 2 s" in capfd.readouterr().err
        desk._until.clear()
        finish(desk)
    assert len(names(tmp_path / "archive")) == 2
    assert not list((state / "translated").iterdir())


@pytest.mark.parametrize(("passing", "place"), [(True, "translated/1-good"), (False, "refused/1-good-unsent")])
def test_what_the_archive_does_not_take(passing: bool, place: str, tmp_path: Path) -> None:
    def post(folders: list[Path], _peer: str) -> list[Sent]:
        return [Sent(Path("x.dcm"), Outcome.REFUSED, "0xA700, out of resources", 0xA700, passing)]

    state = tmp_path / "state"
    with at_desk(state, post) as desk:
        job(state, "1-good", mr=2)
        finish(desk)
    assert len(names(state / place)) == 2
    assert not list((state / "sent").iterdir())
    if not passing:
        assert (state / place / "reason.txt").read_text() == "x.dcm: 0xA700, out of resources\n"


def test_images_that_come_late_are_not_made_a_series_of_their_own(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with at_desk(state, to_folder(tmp_path / "archive")) as desk:
        job(state, "1-label", mr=3)
        finish(desk)
        late = job(state, "2-label", mr=1)
        (late / "1.mr" / "1.mr.0.dcm").rename(late / "1.mr" / "1.mr.9.dcm")
        finish(desk)
        assert (
            "after the rest of their series had been dealt with, and without it: 1;"
            in (state / "refused" / "2-label" / "reason.txt").read_text()
        )
        job(state, "3-label", mr=2)  # nothing new
        finish(desk)
        assert names(tmp_path / "archive") == ["1.mr.0.dcm", "1.mr.1.dcm", "1.mr.2.dcm"]
        job(state, "4-label", mr=10)  # all of it again, with the late one
        finish(desk)
    assert len(names(tmp_path / "archive")) == 10
    assert [one.name for one in (state / "refused").iterdir()] == ["2-label"]


def test_a_full_disk_makes_it_wait(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state"
    with at_desk(state, to_folder(tmp_path / "archive")) as desk:
        job(state, "1-good", mr=2)
        with pytest.MonkeyPatch.context() as patched:

            def full(self: Quick, source: Path, out: Path) -> Answer:
                raise OutputError("no space")

            patched.setattr(Quick, "translate", full)
            finish(desk)
        assert "1-good: cannot be done now" in capfd.readouterr().err
        assert len(names(state / "ready")) == 2
        desk._until.clear()
        finish(desk)
    assert len(names(tmp_path / "archive")) == 2


def test_a_study_without_images_leaves_no_trace(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with at_desk(state, to_folder(tmp_path / "archive")) as desk:
        (state / "ready" / "1-empty" / "1.mr").mkdir(parents=True)
        finish(desk)
    assert not [*(state / "ready").iterdir(), *(state / "refused").iterdir(), *(state / "sent").iterdir()]


def test_a_series_keeps_its_uids_however_often_it_is_made(tmp_path: Path) -> None:
    made = {}
    for name, seed in (("one", "a"), ("two", "a"), ("three", "b")):
        folder = save(make_slices(ramp(3)), tmp_path / name)
        uids = settle_uids(folder, seed)
        slices = [dcmread(file) for file in sorted(folder.iterdir())]
        assert uids == [one.SOPInstanceUID for one in slices]
        assert all(one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID for one in slices)
        assert [one.InstanceNumber for one in slices] == [1, 2, 3]
        made[name] = [str(slices[0].SeriesInstanceUID), *uids]
    assert made["one"] == made["two"]
    assert not set(made["one"]) & set(made["three"])


# --- what cannot be served --------------------------------------------------------------------------------------------


def serve(run: Path, folder: Path, *more: object) -> Any:
    asked: tuple[object, ...] = ("--port", 0, "--aet", "MEDGAN", "--allow", "ME", "--send-to", "dicom://A@h:1")
    return medgan("serve-dicom", run, *asked, "--folder", folder, *more)


def test_what_cannot_be_served_is_refused(run: Run, tmp_path: Path) -> None:
    assert "AE title" in serve(run.path, tmp_path / "s", "--aet", "A TITLE THAT IS TOO LONG").error
    assert "is no archive's address" in serve(run.path, tmp_path / "s", "--send-to", "PACS").error
    assert not (tmp_path / "s").exists()
    with pytest.raises(RunError, match=r"needs a, t2 of a patient; a run of one source"):
        _refuse_several(run.path, ("a", "t2"))


def test_two_services_do_not_share_a_folder(run: Run, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "state").mkdir()
    with (tmp_path / "state" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = serve(run.path, tmp_path / "state")
    assert done.code == 1
    assert "another service is at work on it" in done.error


# --- the whole service, killed ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def service(run: Run, folder: Path, port: int, archive: DimseArchive) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-m", "medgan", "serve-dicom", str(run.path), "--port", str(port), "--aet", "MEDGAN"]
    argv += ["--allow", "ME", "--send-to", archive.url, "--folder", str(folder), "--quiet", "1", "--device", "cpu"]
    log = (folder.parent / "log.txt").open("a")
    with log, subprocess.Popen(argv, stderr=log, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def until(condition: Callable[[], object], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


def sent_when_it_listens(folders: list[Path], url: str) -> list[Sent]:
    for _ in range(300):
        with contextlib.suppress(InputError):
            return push(folders, url)
        time.sleep(0.2)
    raise TimeoutError(url)


def study(folder: Path) -> list[Path]:
    subject, (mr, ct) = Subject(), tiny_pair(3)
    return [write(mr, folder / "there" / "mr", subject=subject), write(ct, folder / "there" / "ct", subject=subject)]


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_killed_in_the_middle_nothing_is_lost_or_doubled(run: Run, tmp_path: Path) -> None:
    state, port = tmp_path / "state", free_port()
    folders = study(tmp_path)
    with dimse_archive() as archive:
        with service(run, state, port, archive) as process:
            sent = sent_when_it_listens(folders, f"dicom://ME@MEDGAN@127.0.0.1:{port}")
            assert {one.outcome for one in sent} == {Outcome.STORED}
            until(lambda: list((state / "translated").glob(".*.part.*")))  # at work on it
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert not archive.store.sent
        with service(run, state, port, archive) as process:
            until(lambda: "8 images sent" in (tmp_path / "log.txt").read_text())
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
    assert len(archive.store.sent) == len(archive.store.files) == 8
    made = archive.store.datasets()
    assert {(one.Modality, one.SyntheticData) for one in made} == {("CT", "YES")}
    assert len({one.SeriesInstanceUID for one in made}) == 1
    sources = {item.ReferencedSOPInstanceUID for one in made for item in one.SourceImageSequence}
    assert sources == {dcmread(file).SOPInstanceUID for file in folders[0].iterdir()}
    assert {one.StudyInstanceUID for one in made} == {dcmread(next(folders[0].iterdir())).StudyInstanceUID}
    log = (tmp_path / "log.txt").read_text()
    assert log.rstrip().endswith("stopped")
    assert not any(secret in log for secret in (*SECRETS, *(str(one.SOPInstanceUID) for one in made)))
    (receipt,) = (state / "sent").iterdir()
    assert len(json.loads(receipt.read_text())["made"]) == 1
    assert not names(state)


@pytest.mark.slow
def test_killed_while_it_sends_and_sent_to_again(run: Run, tmp_path: Path) -> None:
    """The archive holds each image once, although some were sent twice, and although the study came twice."""
    state, port = tmp_path / "state", free_port()
    folders, url = study(tmp_path), f"dicom://ME@MEDGAN@127.0.0.1:{port}"
    processes: list[subprocess.Popen[str]] = []

    def kill_at_third(_data: bytes) -> int:
        if len(archive.store.sent) == 2 and len(processes) == 1:
            processes[0].send_signal(signal.SIGKILL)
        return 0

    with dimse_archive(answer=kill_at_third) as archive:
        with service(run, state, port, archive) as process:
            processes.append(process)
            sent_when_it_listens(folders, url)
            process.wait(90)
        assert 0 < len(archive.store.files) < 8
        first = set(archive.store.files)
        with service(run, state, port, archive) as process:
            processes.append(process)
            until(lambda: list((state / "sent").iterdir()))
            assert first < archive.store.files.keys()
            assert len(archive.store.files) == 8
            sent_when_it_listens(folders, url)
            until(lambda: len(list((state / "sent").iterdir())) == 2)
        assert len(archive.store.files) == 8
        assert len(archive.store.sent) > 16


@pytest.mark.slow
def test_a_worker_that_falls_is_replaced(run: Run, tmp_path: Path) -> None:
    source = study(tmp_path)[0]
    (tmp_path / "work").mkdir()
    with contextlib.closing(Worker(run.path, "cpu", tmp_path / "work")) as worker:
        first = worker.translate(source, tmp_path / "one")
        assert len(first.made["000"]) == 8
        assert worker._process is not None
        worker._process.kill()
        (tmp_path / "two" / "000").mkdir(parents=True)
        (why,) = worker.translate(source, tmp_path / "two").refused
        assert "crashed (exit code -9)" in why
        assert not (tmp_path / "two").exists()
        assert worker.translate(source, tmp_path / "three") == first
    with pytest.raises(RunError, match="no run"):
        Worker(tmp_path / "no run", "cpu", tmp_path / "work")
