"""The desk between what arrives and what is sent: study by study, one step after another."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from medgan.atomic import replacing
from medgan.errors import InputError, OutputError, RunError
from medgan.formats.pacs import Outcome
from medgan.formats.pacs.intake import CUT
from medgan.formats.pacs.receipts import Answer, Receipt, earlier_images
from medgan.progress import say
from medgan.push import push
from medgan.serve_dicom.worker import Worker

__all__ = ["PLACES", "Desk", "lay_out", "log"]

LONGEST_WAIT_S = 300.0
PLACES = ("incoming", "ready", "translated", "sent", "refused", "work")


@dataclass
class Desk:
    """What is done with whole studies, one step after another; each can be cut off anywhere and is then done again.

    Args:
        worker: translates.
        folder: the queue.
        send_to: where translations go.
    """

    worker: Worker
    folder: Path
    send_to: str
    _fails: dict[str, int] = field(default_factory=dict)
    _until: dict[str, float] = field(default_factory=dict)

    def place(self, name: str) -> Path:
        """A part of the queue."""
        return self.folder / name

    def step(self) -> bool:
        """Translate the study that waits longest, and send what is due; False if there was nothing to do."""
        ready = [job for job in sorted(self.place("ready").iterdir()) if self._due(job.name)][:1]
        did = [self._tried(self._translated, job) for job in ready]
        made = sorted(self.place("translated").iterdir())
        did += [self._tried(self._sent, job) for job in made if self._due("peer") and self._due(job.name)]
        return any(did)

    def _tried(self, work: Callable[[Path], bool], job: Path) -> bool:
        """What fails for want of space, or of a run that can be used, may do so no more later."""
        try:
            return work(job)
        except (OutputError, RunError, OSError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
            why = cause.strerror if isinstance(cause, OSError) else "the disk is full, or the run cannot be used"
            self._wait(job.name, f"cannot be done now ({why})")
            return False

    # --- translating --------------------------------------------------------------------------------------------------

    def _translated(self, job: Path) -> bool:
        target = self.place("translated") / job.name
        has_images = any(job.rglob("*.dcm"))  # none of a study that came when the disk was full
        if has_images and not target.exists() and not self._receipt(job.name).exists():
            self._make(job, target)
        self._put_away(job, target)
        return True

    def _make(self, job: Path, target: Path) -> None:
        """The derived series of a study and their receipt, of all or none."""
        told = Receipt(weights_sha256=self.worker.facts.weights_sha256)
        earlier = self._earlier(job.name)
        with replacing(target) as temporary:
            temporary.mkdir()
            series_of_job = sorted(one for one in job.iterdir() if one.is_dir())
            if job.name.endswith(CUT):
                told.refused["study"], series_of_job = _UNKEPT, []
            for series in series_of_job:
                self._make_series(series, temporary, told, earlier.get(series.name, set()))
            told.write(temporary / "receipt.json")

    def _make_series(self, folder: Path, out: Path, told: Receipt, earlier: set[str]) -> None:
        names = {file.stem for file in folder.iterdir()}
        if earlier - names and not names - earlier:
            told.repeated.append(folder.name)
        elif earlier - names:
            told.add(folder.name, names | earlier, Answer(refused=[_LATE.format(count=len(names - earlier))]))
        else:
            told.add(folder.name, names, self.worker.translate(folder, out / folder.name))

    def _put_away(self, job: Path, target: Path) -> None:
        """The source of what is translated is not kept, what was refused is."""
        if not target.exists():
            self._discard(job)
            return
        told = Receipt.read(target / "receipt.json")
        if not told.made and not told.refused and not told.repeated:
            wanted = self.worker.facts.modality
            told.refused["study"] = f"no series of {wanted} to translate; seen: {'; '.join(told.passed_over)}"
        if told.refused:
            shutil.copyfile(target / "receipt.json", job / "receipt.json")
            self._refuse(job, told.why_refused)
        else:
            self._discard(job)
        if told.made:
            log(f"{job.name}: {len(told.made)} series translated")
        else:
            self._discard(target)

    def _discard(self, folder: Path) -> None:
        """Gone at once: half a folder would be taken for a whole one."""
        gone = self.place("work") / f"gone-{folder.name}"
        folder.rename(gone)
        shutil.rmtree(gone)

    def _refuse(self, job: Path, reason: str, suffix: str = "") -> None:
        place = self.place("refused") / (job.name + suffix)
        with replacing(job / "reason.txt") as temporary:
            temporary.write_text(reason + "\n")
        job.rename(place)
        log(f"{job.name}: refused; the reason is in {place.relative_to(self.folder)}/reason.txt")

    # --- sending ------------------------------------------------------------------------------------------------------

    def _sent(self, job: Path) -> bool:
        receipt, series = self._receipt(job.name), sorted(one for one in job.iterdir() if one.is_dir())
        if receipt.exists() or not series:
            self._discard(job)
            return True
        try:
            sent = push(series, self.send_to)
        except InputError as error:
            self._wait("peer", str(error))
            return False
        bad = [one for one in sent if one.outcome in {Outcome.REFUSED, Outcome.UNSENT}]
        if any(one.passing for one in bad):
            self._wait(job.name, f"{len(bad)} of {len(sent)} images were not taken ({bad[0].reason})")
            return False
        for key in ("peer", job.name):
            self._fails.pop(key, None)
        if bad:
            self._refuse(job, "\n".join(f"{one.path.name}: {one.reason}" for one in bad), "-unsent")
        else:
            self._finish(job, receipt, len(sent))
        return True

    def _finish(self, job: Path, receipt: Path, num_images: int) -> None:
        with replacing(receipt) as temporary:
            Receipt.read(job / "receipt.json").write(temporary)
        self._discard(job)
        log(f"{job.name}: {num_images} images sent")

    def _receipt(self, name: str) -> Path:
        return self.place("sent") / f"{name}.json"

    def _earlier(self, name: str) -> dict[str, set[str]]:
        """The images of each series of this study that came before and were done."""
        label = name.partition("-")[2].removesuffix(CUT)
        receipts = list(self.place("sent").glob(f"*-{label}.json"))
        for kept in ("translated", "refused"):
            receipts += self.place(kept).glob(f"*-{label}*/receipt.json")
        return earlier_images(receipts)

    # --- patience -----------------------------------------------------------------------------------------------------

    def _due(self, key: str) -> bool:
        return time.monotonic() >= self._until.get(key, 0)

    def _wait(self, key: str, why: str) -> None:
        self._fails[key] = self._fails.get(key, 0) + 1
        wait = min(2.0 ** (self._fails[key] - 1), LONGEST_WAIT_S)
        self._until[key] = time.monotonic() + wait
        log(f"{key}: {why}; next try in {wait:g} s")


_UNKEPT = "images of it could not be kept when they came, and did not come again; send the whole study again"
_LATE = (
    "images that came after the rest of their series had been dealt with, and without it: {count}; send the whole "
    "series again"
)


def log(line: str) -> None:
    """A line of news with its time; never of a patient, nor a UID, which leads to one."""
    say(f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}")


def lay_out(folder: Path) -> None:
    """Make the queue, or clear away what a service that was killed left half written in it."""
    for name in PLACES:
        (folder / name).mkdir(exist_ok=True)
    for path in [*folder.rglob(".*.part.*"), *(folder / "work").iterdir()]:
        shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
