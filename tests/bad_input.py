"""What users get wrong, as a table: how to make it bad, the command, and what the one line on standard error says."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from conftest import TINY_CONFIG, tiny_pair

from medgan import Volume, write

__all__ = ["ALL", "Bad"]

Make = Callable[[Path, Path], object]
Change = Callable[[Path], object]


def nothing(bad: Path, good: Path) -> None:
    """All is well; what is wrong stands in the command."""


def text(name: str, content: str) -> Make:
    def make(bad: Path, good: Path) -> None:
        (bad / name).parent.mkdir(parents=True, exist_ok=True)
        (bad / name).write_text(content.format(good=good))

    return make


def link(name: str, target: str) -> Make:
    return lambda bad, good: (bad / name).symlink_to(target)


def folder(name: str) -> Make:
    return lambda bad, good: (bad / name).mkdir(parents=True)


def copied(name: str, *changes: Change) -> Make:
    """A copy of something good, changed."""

    def make(bad: Path, good: Path) -> None:
        copy = shutil.copytree if (good / name).is_dir() else shutil.copy
        copy(good / name, bad / name)
        for change in changes:
            change(bad / name)

    return make


def cut(inner: str = "", keep: float = 0.5) -> Change:
    """Of a file, or of one in a folder, only the first share of the bytes."""

    def change(path: Path) -> None:
        file = path / inner if inner else path
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * keep)])

    return change


def without(inner: str) -> Change:
    return lambda path: (path / inner).unlink()


def replaced(inner: str, old: str, new: str) -> Change:
    def change(path: Path) -> None:
        file = path / inner if inner else path
        before = file.read_text()
        assert old in before
        file.write_text(before.replace(old, new))

    return change


def config(*changes: tuple[str, str]) -> Make:
    """tiny.yaml with other words in it, beside a table that works."""

    def make(bad: Path, good: Path) -> None:
        content = TINY_CONFIG.replace("cases.csv", str(good / "cases.csv"))
        for old, new in changes:
            assert old in content
            content = content.replace(old, new)
        (bad / "bad.yaml").write_text(content)

    return make


def table(content: str) -> Make:
    """cases.csv, and tiny.yaml beside it."""

    def make(bad: Path, good: Path) -> None:
        (bad / "cases.csv").write_text(content.format(good=good))
        (bad / "tiny.yaml").write_text(TINY_CONFIG)

    return make


ROW = "{good}/p0_mr.nii.gz,{good}/p0_ct.nii.gz"
OTHER = ROW.replace("p0", "p2")


def nifti(array: object, affine: object = None, code: int = 1) -> Make:
    def make(bad: Path, good: Path) -> None:
        image = nib.Nifti1Image(np.asarray(array), None)
        image.header.set_sform(np.eye(4) if affine is None else np.asarray(affine, float), code)
        image.header.set_qform(None, 0)
        nib.save(image, bad / "x.nii.gz")

    return make


def several(*makes: Make) -> Make:
    return lambda bad, good: [make(bad, good) for make in makes]


def volume(name: str, change: Callable[[Volume], Volume]) -> Make:
    """The MR of the first patient, changed."""
    return lambda bad, good: write(change(tiny_pair(0)[0]), bad / name)


def two_series(bad: Path, good: Path) -> None:
    shutil.copytree(good / "mr", bad / "both/one")
    shutil.copytree(good / "ct", bad / "both/two")


RAMP = np.arange(24 * 20 * 8, dtype=np.float32).reshape(24, 20, 8)


@dataclass(frozen=True)
class Bad:
    """One thing that goes wrong.

    Args:
        name: what is wrong.
        command: words after `medgan`; {good} is a folder in which all is well, {bad} the one that `make` fills.
        says: pattern of the line.
        make: fills {bad}.
        code: that the command exits with: 1, or 2 for a command line that cannot be understood.
    """

    name: str
    command: str
    says: str
    make: Make = nothing
    code: int = 1


TRANSLATE = "translate {good}/run {bad}/x.nii.gz {bad}/out.nii.gz"
TRAIN = "train {bad}/bad.yaml --out {bad}/run --device cpu"
TABLE = "train {bad}/tiny.yaml --out {bad}/run --device cpu"
USE = "translate {bad}/run {good}/p0_mr.nii.gz {bad}/out.nii.gz"

FILES = [
    Bad("nothing there", "inspect {bad}/none", r"bad/none: does not exist; give"),
    Bad("a broken link", "inspect {bad}/x.nii.gz", r"x\.nii\.gz: does not exist; give", link("x.nii.gz", "gone")),
    Bad("no source", TRANSLATE, r"x\.nii\.gz: does not exist; give"),
    Bad("a broken link as source", TRANSLATE, r"x\.nii\.gz: does not exist; give", link("x.nii.gz", "gone")),
    Bad("a folder named as a file", TRANSLATE, r"x\.nii\.gz: holds no DICOM image; accepted", folder("x.nii.gz")),
    Bad("a name that no system takes", "inspect " + 300 * "a", r"aaa: File name too long; check the path"),
    Bad(
        "a device in place of a file",
        TRANSLATE,
        r"x\.nii\.gz: .*Input/output error",
        link("x.nii.gz", "/proc/self/mem"),
    ),
    Bad(
        "a text file", "translate {good}/run {bad}/a.txt {bad}/o.nii", r"a\.txt: is neither .*give", text("a.txt", "hi")
    ),
    Bad("an empty file", TRANSLATE, r"x\.nii\.gz: does not start as NIfTI", text("x.nii.gz", "")),
    Bad("no scan to convert", "convert {bad}/none {bad}/o.nii", r"none: does not exist; give"),
    Bad("no folder to index", "index {bad}/none --a a --b b --out {bad}/c.csv", r"none: is no folder; give"),
    Bad("a file to index", "index {good}/cases.csv --a a --b b --out {bad}/c.csv", r"cases\.csv: is no folder; give"),
    Bad("no config", TRAIN, r"bad\.yaml: cannot be read \(No such file or directory\); name a YAML"),
    Bad("a folder as config", TRAIN, r"bad\.yaml: cannot be read \(Is a directory\); name", folder("bad.yaml")),
    Bad(
        "no table",
        TABLE,
        r"cases\.csv: cannot be read as a table.*No such file.*medgan index",
        text("tiny.yaml", TINY_CONFIG.replace("{", "{{").replace("}", "}}")),
    ),
    Bad("no run", USE, r"bad/run: is no run folder .*; name one made by train"),
    Bad("a file as run", USE, r"bad/run: is no run folder .*; name one made by train", text("run", "x")),
    Bad("no prediction", "evaluate {bad}/none {good}/p0_ct.nii.gz", r"none: is not there; give"),
    Bad("no reference", "evaluate {good}/p0_ct.nii.gz {bad}/none", r"none: is not there; give"),
    Bad("no mask", "evaluate {good}/p0_ct.nii.gz {good}/p0_ct.nii.gz --mask {bad}/none", r"none: is not there; give"),
    Bad(
        "no table of patients",
        "index {good} --a {{patient}}_mr.nii.gz --b {{patient}}_ct.nii.gz --patients {bad}/p.csv --out {bad}/c.csv",
        r"p\.csv: cannot be read",
    ),
]
SCANS = [
    Bad(
        "a slice cut short",
        "convert {bad}/mr {bad}/o.nii.gz",
        r"IM0004\.dcm: .*; (send|copy)",
        copied("mr", cut("IM0004.dcm", 0.6)),
    ),
    Bad(
        "a slice cut to its header",
        "convert {bad}/mr {bad}/o.nii.gz",
        r"1 slice is missing .* IM0003\.dcm .* IM0005\.dcm .*; send",
        copied("mr", cut("IM0004.dcm", 0.05)),
    ),
    Bad(
        "a slice missing",
        "convert {bad}/mr {bad}/o.nii.gz",
        r"1 slice is missing .* IM0004\.dcm .* IM0006\.dcm .*; send",
        copied("mr", without("IM0005.dcm")),
    ),
    Bad(
        "two series",
        "convert {bad}/both {bad}/o.nii.gz",
        r"both: holds 2 series; choose one by its number or UID: (.*'first'.*'second'|.*'second'.*'first')",
        two_series,
    ),
    Bad("a series of a table", "translate {good}/run {good}/cases.csv {bad}/out --series 1", r"series: '1' .*a table"),
    Bad(
        "a split of a volume",
        "translate {good}/run {good}/p0_mr.nii.gz {bad}/o.nii.gz --split val",
        r"split: 'val' goes with a table",
    ),
    Bad(
        "a series of another name",
        "convert {bad}/both {bad}/o.nii.gz --series third",
        r"no series is called 'third'; choose",
        two_series,
    ),
    Bad(
        "not a number", TRANSLATE, r"x\.nii\.gz: 3840 of 3840 voxels are NaN or infinite; replace", nifti(RAMP * np.nan)
    ),
    Bad(
        "a singular affine",
        TRANSLATE,
        r"x\.nii\.gz: the affine is singular.*; correct its sform",
        nifti(RAMP, np.diag([0, 1, 1, 1])),
    ),
    Bad("no orientation", TRANSLATE, r"x\.nii\.gz: knows no orientation.*; convert", nifti(RAMP, code=0)),
    Bad(
        "four dimensions",
        TRANSLATE,
        r"x\.nii\.gz: holds 8 volumes .*; give one 3-D",
        nifti(RAMP[..., None].swapaxes(2, 3)),
    ),
    Bad("complex values", TRANSLATE, r"x\.nii\.gz: has complex values", nifti(RAMP.astype(np.complex64))),
    Bad(
        "cut short",
        TRANSLATE,
        r"x\.nii\.gz: is damaged or cut short.*; copy",
        several(nifti(RAMP), lambda bad, good: cut()(bad / "x.nii.gz")),
    ),
    Bad(
        "cut short in training",
        TABLE,
        r"p0_mr\.nii\.gz: is damaged or cut short.*; copy",
        several(
            copied("p0_mr.nii.gz", cut()),
            table(
                "case,patient,split,a,b\np,p,train,p0_mr.nii.gz,{good}/p0_ct.nii.gz\nq,q,val,{good}/p1_mr.nii.gz,{good}/p1_ct.nii.gz\n"
            ),
        ),
    ),
    Bad("an image of nothing", TRANSLATE, r"x\.nii\.gz: .*median .* is 0", nifti(0 * RAMP)),
    Bad(
        "another modality",
        "translate {good}/run {good}/ct {bad}/out",
        r"good\w*/ct: its modality is CT, accepted is MR; .*--trust",
    ),
    Bad(
        "another unit",
        TRANSLATE,
        r"x\.nii\.gz: its unit is HU, accepted is a\.u\.; .*--trust",
        volume("x.nii.gz", lambda v: v.with_array(v.array, unit="HU")),
    ),
    Bad(
        "labels as target",
        TABLE,
        r"p, b: its unit is label, accepted is HU",
        table("case,patient,split,a,b\np,p,train,{good}/p0_mr.nii.gz,{good}/mask.nii.gz\nq,q,val," + OTHER + "\n"),
    ),
    Bad(
        "another grid",
        TABLE,
        r"p, b: its grid .* is not that of a .*; register",
        table("case,patient,split,a,b\np,p,train,{good}/p0_mr.nii.gz,{good}/p1_ct.nii.gz\nq,q,val," + OTHER + "\n"),
    ),
]
TABLES = [
    Bad("an empty table", TABLE, r"cases\.csv: lacks columns: case, patient, split.*medgan index", table("")),
    Bad("a header alone", TABLE, r"cases\.csv: has no cases, only a header; make", table("case,patient,split,a,b\n")),
    Bad(
        "no text",
        TABLE,
        r"cases\.csv: cannot be read as a table of cases: it is no CSV text.*medgan index",
        several(table(""), lambda bad, good: (bad / "cases.csv").write_bytes(b"\xff\x00\xfe")),
    ),
    Bad(
        "a patient in two splits",
        TABLE,
        r"cases\.csv: one patient is in two splits: c1 in train, c2 in val; put",
        table(f"case,patient,split,a,b\nc1,p,train,{ROW}\nc2,p,val,{ROW}\n"),
    ),
    Bad(
        "a case twice",
        TABLE,
        r"cases\.csv: cases named twice: c1; each",
        table(f"case,patient,split,a,b\nc1,p,train,{ROW}\nc1,p,train,{ROW}\n"),
    ),
    Bad(
        "another split",
        TABLE,
        r"cases\.csv: unknown split 'dev' \(accepted: train, val, test\)",
        table(f"case,patient,split,a,b\nc1,p,dev,{ROW}\n"),
    ),
    Bad(
        "files missing",
        TABLE,
        r"cases\.csv: names 2 files that are not there: .*gone\.nii.*; paths are relative",
        table("case,patient,split,a,b\nc1,p,train,gone.nii,gone.nii\n"),
    ),
    Bad(
        "a name too long",
        TABLE,
        r"File name too long|names 2 files that are not there",
        table("case,patient,split,a,b\nc1,p,train," + 300 * "a" + "," + 300 * "b" + "\n"),
    ),
    Bad(
        "an empty cell",
        TABLE,
        r"cases\.csv: empty cells: c1 has no b; fill",
        table("case,patient,split,a,b\nc1,p,train,{good}/p0_mr.nii.gz,\n"),
    ),
    Bad(
        "no validation",
        TABLE,
        r"cases\.csv: has no case in the split val; add",
        table(f"case,patient,split,a,b\nc1,p,train,{ROW}\n"),
    ),
    Bad(
        "a name that is a path",
        TABLE,
        r"cases\.csv: names of cases become names of files; .*'\.\./c1'",
        table(f"case,patient,split,a,b\n../c1,p,train,{ROW}\n"),
    ),
    Bad(
        "an empty split to translate",
        "translate {good}/run {bad}/cases.csv {bad}/out --split test",
        r"cases\.csv: has no case with an image a in the split test",
        table(f"case,patient,split,a,b\nc1,p,train,{ROW}\n"),
    ),
    Bad(
        "an unknown split to translate",
        "translate {good}/run {good}/cases.csv {bad}/out --split dev",
        r"unknown split 'dev' \(accepted",
    ),
    Bad(
        "nothing fits a pattern",
        "index {good} --a {{patient}}_t9.nii --b {{patient}}_ct.nii.gz --out {bad}/c.csv",
        r"nothing below .* fits \{patient\}_t9\.nii as a; .* holds:",
    ),
    Bad(
        "shares that do not add up",
        "index {good} --a {{patient}}_mr.nii.gz --b {{patient}}_ct.nii.gz --fractions 0.5 0.1 0.1 --out {bad}/c.csv",
        r"fractions are .*add up to 1; seen: \[0\.5, 0\.1, 0\.1\]",
    ),
]
CONFIGS = [
    Bad(
        "an unknown key",
        TRAIN,
        r"train\.stepz: unknown key \(accepted here: steps,",
        config(("steps: 10", "stepz: 10")),
    ),
    Bad("out of range", TRAIN, r"train\.lr: .*greater than 0 \(seen: -1\)", config(("lr: 0.001", "lr: -1"))),
    Bad("no YAML", TRAIN, r"bad\.yaml: is no YAML", config(("patch: [16, 16, 1]", "patch: [16, 16"))),
    Bad("an empty config", TRAIN, r"bad\.yaml: holds no settings; see configs/", text("bad.yaml", "")),
    Bad(
        "a picture as config",
        TRAIN,
        r"bad\.yaml: is no YAML",
        lambda bad, good: (bad / "bad.yaml").write_bytes(b"\x89PNG\r\n\x1a\n\0\xff"),
    ),
    Bad("no date at all", TRAIN, r"bad\.yaml: is no YAML", config(("steps: 10", "steps: 2001-99-99"))),
    Bad("a path with a null", TRAIN, r"cases", config(("cases: ", 'cases: "a\\0b" #'))),
    Bad("keys that are numbers", TRAIN, r"1: ", config(("cases: ", "1: 2\ncases: "))),
    Bad(
        "a patch of a line",
        TRAIN,
        r"patch: at most one of its three sizes may be 1; seen \[16, 1, 1\]",
        config(("[16, 16, 1]", "[16, 1, 1]")),
    ),
    Bad("a patch that the nets cannot take", TRAIN, r"18×16", config(("[16, 16, 1]", "[18, 16, 1]"))),
    Bad(
        "an unknown override",
        "train {good}/tiny.yaml train.epochs=3 --out {bad}/run",
        r"train\.epochs: unknown key \(accepted here: steps,",
    ),
    Bad("no override at all", "train {good}/tiny.yaml fast --out {bad}/run", r"fast: an override is key=value"),
    Bad(
        "an override of two levels",
        "train {good}/tiny.yaml cases.a.b=1 --out {bad}/run",
        r"cases\.a\.b: cases holds a value",
    ),
    Bad(
        "an override that is no YAML",
        "train {good}/tiny.yaml train.steps=2001-99-99 --out {bad}/run",
        r"train\.steps: '2001-99-99' cannot be read as a YAML value",
    ),
    Bad(
        "an unknown device",
        "train {good}/tiny.yaml --out {bad}/run --device tpu",
        r"device: 'tpu' is none of auto, cpu, cuda",
    ),
    Bad(
        "an estimate of a bad config",
        "train {bad}/bad.yaml --dry-run",
        r"train\.stepz: unknown key",
        config(("steps: 10", "stepz: 10")),
    ),
]
RUNS = [
    Bad("no card", USE, r"bad/run: is no run folder", copied("run", without("card.json"))),
    Bad(
        "another version",
        USE,
        r"bad/run: a run of format 99; medgan .* reads format 1",
        copied("run", replaced("card.json", '"format": 1', '"format": 99')),
    ),
    Bad("a card that is no JSON", USE, r"card\.json: cannot be read", copied("run", cut("card.json"))),
    Bad(
        "a card that is a list",
        USE,
        r"bad/run: a run of format None",
        copied("run", lambda run: (run / "card.json").write_text("[1]")),
    ),
    Bad(
        "no weights", USE, r"bad/run: holds no weights yet; train until", copied("run", without("weights.safetensors"))
    ),
    Bad("weights cut short", USE, r"weights\.safetensors: .*damaged", copied("run", cut("weights.safetensors"))),
    Bad("empty weights", USE, r"weights\.safetensors: .*damaged", copied("run", cut("weights.safetensors", 0))),
    Bad(
        "another net",
        USE,
        r"weights\.safetensors: does not fit config\.yaml",
        copied("run", replaced("config.yaml", "width: 2", "width: 3")),
    ),
    Bad(
        "an unknown net",
        USE,
        r"model\.generator\.name",
        copied("run", replaced("config.yaml", "resnet_6blocks", "resnet_7blocks")),
    ),
    Bad(
        "a config that is no YAML",
        USE,
        r"config\.yaml: is no YAML",
        copied("run", replaced("config.yaml", "prep:", "prep: [")),
    ),
    Bad(
        "another config in the folder",
        "train {good}/tiny.yaml train.lr=0.1 --out {bad}/run",
        r"bad/run: was started with another config: train\.lr \(0\.001 there, 0\.1 now\); name",
        copied("run", lambda run: torch.save({"format": 1, "step": 5}, run / "state.pt")),
    ),
    Bad(
        "a checkpoint cut short",
        "train {good}/tiny.yaml --out {bad}/run --device cpu",
        r"state\.pt: is damaged.*; delete it",
        copied("run", lambda run: torch.save({"format": 1, "x": torch.zeros(999)}, run / "state.pt"), cut("state.pt")),
    ),
    Bad(
        "a checkpoint of something else",
        "train {good}/tiny.yaml --out {bad}/run --device cpu",
        r"state\.pt: is no checkpoint of format 1; delete it",
        copied("run", lambda run: torch.save({"format": 1}, run / "state.pt")),
    ),
    Bad(
        "a checkpoint of another net",
        "train {good}/tiny.yaml --out {bad}/run --device cpu",
        r"state\.pt: is of another net \(.*\); delete it",
        copied(
            "run",
            lambda run: torch.save(
                {"format": 1, "step": 5, "best": {}, "game": {"x": torch.ones(1)}, "shadow": {}, "optimizers": {}},
                run / "state.pt",
            ),
        ),
    ),
    Bad(
        "other weights in the folder",
        "translate {good}/run {good}/cases.csv {bad}/out",
        r"bad/out: holds translations by other weights; name another",
        text("out/translation.json", '{{"weights_sha256": "0"}}'),
    ),
    Bad(
        "a ledger that is no JSON",
        "translate {good}/run {good}/cases.csv {bad}/out",
        r"translation\.json: cannot be read .*; name",
        text("out/translation.json", "{{"),
    ),
    Bad(
        "a ledger that is a list",
        "translate {good}/run {good}/cases.csv {bad}/out",
        r"bad/out: holds translations by other weights; name",
        text("out/translation.json", "[]"),
    ),
    Bad(
        "a run to evaluate by that is none",
        "evaluate {good}/p0_ct.nii.gz {good}/p0_ct.nii.gz --run {bad}/run",
        r"bad/run: is no run folder",
    ),
]
PLACES = [
    Bad(
        "out below a file",
        "translate {good}/run {good}/p0_mr.nii.gz {bad}/file/o.nii.gz",
        r"file/o\.nii\.gz: cannot be written \(.*\); choose",
        text("file", "x"),
    ),
    Bad(
        "out where nobody may write",
        "translate {good}/run {good}/p0_mr.nii.gz /sys/medgan/o.nii.gz",
        r"/sys/medgan/o\.nii\.gz: cannot be written \(.*\); choose",
    ),
    Bad(
        "DICOM out where nobody may write",
        "translate {good}/run {good}/mr /sys/medgan",
        r"/sys/medgan: cannot be written \(.*\); choose",
    ),
    Bad(
        "a table's out below a file",
        "translate {good}/run {good}/cases.csv {bad}/file/o",
        r"file/o.*: cannot be written \(.*\); choose",
        text("file", "x"),
    ),
    Bad(
        "a table's out is a file",
        "translate {good}/run {good}/cases.csv {bad}/file",
        r"bad/file.*: cannot be written \(.*\); choose",
        text("file", "x"),
    ),
    Bad(
        "a run below a file",
        "train {good}/tiny.yaml --out {bad}/file/run",
        r"file/run: cannot be written \(.*\); choose",
        text("file", "x"),
    ),
    Bad(
        "a run that is a file",
        "train {good}/tiny.yaml --out {bad}/file",
        r"bad/file: cannot be written \(.*\); choose",
        text("file", "x"),
    ),
    Bad(
        "someone else's config in the folder",
        "train {good}/tiny.yaml --out {bad}/full",
        r"bad/full: is a folder with something in it; name",
        text("full/config.yaml", "precious: 1"),
    ),
    Bad(
        "a run in a full folder",
        "train {good}/tiny.yaml --out {bad}/full",
        r"bad/full: is a folder with something in it; name",
        text("full/a", "x"),
    ),
    Bad(
        "a run where nobody may write",
        "train {good}/tiny.yaml --out /sys/medgan",
        r"/sys/medgan: cannot be written \(.*\); choose",
    ),
    Bad(
        "a table where nobody may write",
        "index {good} --a {{patient}}_mr.nii.gz --b {{patient}}_ct.nii.gz --out /sys/medgan.csv",
        r"/sys/medgan\.csv: cannot be written \(.*\); choose",
    ),
    Bad(
        "a conversion where nobody may write",
        "convert {good}/mr /sys/medgan.nii",
        r"/sys/medgan\.(nii|json): cannot be written \(.*\); choose",
    ),
    Bad(
        "scores where nobody may write",
        "evaluate {good}/p0_ct.nii.gz {good}/p0_ct.nii.gz --out /sys/medgan",
        r"/sys/medgan/rows\.jsonl: cannot be written \(.*\); choose",
    ),
    Bad(
        "scores below a file",
        "evaluate {good}/p0_ct.nii.gz {good}/p0_ct.nii.gz --out {bad}/file",
        r"bad/file/rows\.jsonl: cannot be written \(.*\); choose",
        text("file", "x"),
    ),
    Bad("a demo where nobody may write", "demo --out /sys/medgan", r"/sys/medgan.*: cannot be written \(.*\); choose"),
    Bad(
        "a full folder of DICOM",
        "translate {good}/run {good}/mr {bad}/full",
        r"bad/full: .*(full|something in it|exists already)",
        text("full/a", "x"),
    ),
    Bad(
        "a file that is there",
        "translate {good}/run {good}/p0_mr.nii.gz {bad}/o.nii.gz",
        r"o\.nii\.gz: exists already; choose",
        text("o.nii.gz", "precious"),
    ),
    Bad(
        "the source as out",
        "translate {good}/run {bad}/p0_mr.nii.gz {bad}/p0_mr.nii.gz",
        r"p0_mr\.nii\.gz: exists already; choose",
        copied("p0_mr.nii.gz"),
    ),
    Bad(
        "a conversion over a file",
        "convert {good}/mr {bad}/o.nii.gz",
        r"o\.nii\.gz: exists already; choose",
        text("o.nii.gz", "precious"),
    ),
    Bad(
        "someone else's sidecar",
        "translate {good}/run {good}/p0_mr.nii.gz {bad}/o.nii.gz",
        r"o\.json: would be overwritten.*; choose",
        text("o.json", "{{}}"),
    ),
    Bad(
        "a folder for a file",
        "translate {good}/run {good}/p0_mr.nii.gz {bad}/out",
        r"bad/out: the source is no DICOM series.*\.nii\.gz",
    ),
    Bad(
        "an ending that is not written",
        "translate {good}/run {good}/mr {bad}/out.jpg",
        r"out\.jpg: the ending \.jpg is not written",
    ),
    Bad(
        "DICOM without a series to join",
        "convert {good}/p0_ct.nii.gz {bad}/out",
        r"a DICOM series needs a patient.*like",
    ),
    Bad("like is no DICOM", "convert {good}/p0_ct.nii.gz {bad}/out --like {good}/p0_ct.nii.gz", r"like"),
    Bad(
        "like lies elsewhere",
        "convert {good}/p1_ct.nii.gz {bad}/out --like {good}/ct",
        r"is not on the grid of its source series.*resample",
    ),
]
SCORES = [
    Bad(
        "an unknown preset",
        "evaluate {good}/p0_ct.nii.gz {good}/p0_ct.nii.gz --preset mine",
        r"preset 'mine' is unknown \(accepted: synthrad2023, synthrad2025, .*, full\)",
    ),
    Bad(
        "no case in both",
        "evaluate {bad}/one {bad}/two",
        r"no case is in both: .*one has a, .*two has b, c; name them alike",
        several(
            lambda bad, good: write(tiny_pair(0)[1], bad / "one/a.nii.gz"),
            lambda bad, good: write(tiny_pair(0)[1], bad / "two/b.nii.gz"),
            lambda bad, good: write(tiny_pair(0)[1], bad / "two/c.nii.gz"),
        ),
    ),
    Bad("an empty folder", "evaluate {bad}/one {good}/p0_ct.nii.gz", r"bad/one: is empty", folder("one")),
    Bad(
        "an empty mask",
        "evaluate {good}/p0_ct.nii.gz {good}/p0_ct.nii.gz --mask {bad}/m.nii.gz",
        r"the mask is empty; it has to",
        volume("m.nii.gz", lambda v: v.with_array(np.zeros(v.grid.shape, np.uint8), unit="label")),
    ),
    Bad(
        "a mask on another grid",
        "evaluate {good}/p1_ct.nii.gz {good}/p1_ct.nii.gz --mask {good}/mask.nii.gz",
        r"the mask is not on the reference's grid.*resample",
    ),
    Bad(
        "volumes on two grids",
        "evaluate {good}/p1_ct.nii.gz {good}/p0_ct.nii.gz",
        r"the prediction is not on the reference's grid.*resample",
    ),
    Bad(
        "two units",
        "evaluate {bad}/x.nii.gz {good}/p0_ct.nii.gz",
        r"the prediction is in Bq/ml, the reference in HU; convert",
        volume("x.nii.gz", lambda v: v.with_array(v.array, unit="Bq/ml", modality="CT")),
    ),
    Bad("a range upside down", "evaluate {good}/p0_mr.nii.gz {good}/p0_mr.nii.gz --range 5 1", r"range.*5.*1"),
    Bad("a range of no numbers", "evaluate {good}/p0_mr.nii.gz {good}/p0_mr.nii.gz --range nan 1", r"range.*nan"),
]
USAGE = [
    Bad(
        "no batch",
        "translate {good}/run {good}/p0_mr.nii.gz {bad}/o.nii.gz --batch 0",
        r"'--batch': (Input should be greater than or equal to 1|0 is not in the range x>=1)",
        code=2,
    ),
    Bad(
        "windows that never advance",
        "translate {good}/run {good}/p0_mr.nii.gz {bad}/o.nii.gz --overlap 1",
        r"'--overlap': (Input should be less than or equal to 0\.95|1.0 is not in the range 0<=x<=0\.95)",
        code=2,
    ),
    Bad("an unknown option", "train {good}/tiny.yaml --fast", r"No such option:? '?--fast", code=2),
    Bad("an unknown command", "segment {good}", r"No such command 'segment'", code=2),
    Bad("an argument too few", "translate {good}/run", r"Missing argument 'IN'", code=2),
    Bad("two numbers for three", "index {good} --a a --b b --fractions 0.5 0.5", r"--fractions", code=2),
]
ALL = [*FILES, *SCANS, *TABLES, *CONFIGS, *RUNS, *PLACES, *SCORES, *USAGE]
