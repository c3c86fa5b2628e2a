"""medgan augment: labelled images in another modality, their labels with them, and no patient in two splits."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Done, medgan, tree, untrained_run
from conftest import tiny_pair
from monai.data import DataLoader, Dataset
from monai.inferers import sliding_window_inference
from monai.networks.nets import UNet
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, RandSpatialCropd, ScaleIntensityRanged

from medgan import Grid, Volume, processes, read, write
from medgan.augment.translated import augment, translated_manifest
from medgan.cases import Case, read_cases, write_cases
from medgan.errors import CasesError, GeometryError, InputError, OutputError, RunError
from medgan.formats.dicom import Subject
from medgan.formats.marks import missing_marks
from medgan.run import Run, open_run
from medgan.translate import translate_volume

SPLITS = ("train", "train", "train", "val", "test")


def label_of(ct: Volume, **changes: object) -> Volume:
    """The ball of a tiny pair, as a label image."""
    return replace(ct, array=(ct.array > -500).astype(np.uint8), unit="label", modality="", **changes)


@pytest.fixture(scope="module")
def home(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run from MR to CT, and `labelled.csv`: MR of five patients, three in train, and their labels."""
    folder = tmp_path_factory.mktemp("augment")
    untrained_run(folder / "run", tiny_cohort / "tiny.yaml")
    cases = []
    for number, split in enumerate(SPLITS):
        mr, ct = tiny_pair(number)
        images = {role: folder / f"q{number}_{role}.nii.gz" for role in ("a", "mask", "organ")}
        write(mr, images["a"])
        write(label_of(ct), images["organ"])
        write(label_of(ct), images["mask"])
        cases.append(Case(f"q{number}", f"person{number}", split, images, {"class": f"c{number % 2}", "age": "50"}))
    write_cases(cases, folder / "labelled.csv")
    return folder


@pytest.fixture
def run(home: Path) -> Run:
    return open_run(home / "run")


def rewritten(home: Path, table: Path, *changes: tuple[str, Path]) -> Path:
    """The table with another file for a role of its second case."""
    cases = read_cases(home / "labelled.csv")
    cases[1] = replace(cases[1], images={**cases[1].images, **dict(changes)})
    return write_cases(cases, table)


# --- what is made -----------------------------------------------------------------------------------------------------


def test_a_table_of_translations_with_all_that_belongs_to_them(home: Path, run: Run, tmp_path: Path) -> None:
    made = augment(run, home / "labelled.csv", tmp_path / "set", device="cpu")
    before = read_cases(home / "labelled.csv", split="train")
    after = read_cases(tmp_path / "set" / "cases.csv")
    assert [(c.name, c.patient, c.split, c.conditions) for c in after] == [
        (c.name, c.patient, c.split, c.conditions) for c in before
    ]
    assert [set(case.images) for case in after] == [{"b", "mask", "organ"}] * 3
    for one, other in zip(after, before, strict=True):
        assert all(one.images[role].samefile(other.images[role]) for role in ("mask", "organ"))
    assert [case.name for case in made] == [case.name for case in after]


def test_the_images_are_those_that_translate_makes(home: Path, run: Run, tmp_path: Path) -> None:
    for case in augment(run, home / "labelled.csv", tmp_path / "set", device="cpu"):
        source = read(home / f"{case.name}_a.nii.gz")
        expected, seen = translate_volume(run, source), read(case.images["b"])
        np.testing.assert_array_equal(seen.array, expected.array)
        assert seen.grid.same_as(source.grid, tolerance_mm=1e-3)
        assert (seen.unit, seen.modality) == ("HU", "CT")
        assert seen.synthetic is not None
        assert missing_marks(case.images["b"]) == ()


def test_the_manifest_tells_the_run_its_weights_and_what_was_carried(home: Path, run: Run, tmp_path: Path) -> None:
    augment(run, home / "labelled.csv", tmp_path / "set", role="ct", device="cpu")
    told = translated_manifest(tmp_path / "set")
    assert told is not None
    assert (told["run"], told["weights_sha256"]) == (str(home / "run"), run.weights_sha256)
    assert (told["model"], told["role"], told["split"], told["synthetic"]) == ("pix2pix", "ct", "train", True)
    assert told["images"][0] == {"case": "q0", "file": "q0.nii.gz", "carried": ["mask", "organ"]}
    assert set(read_cases(tmp_path / "set" / "cases.csv")[0].images) == {"ct", "mask", "organ"}


def test_labels_are_where_they_were_and_corrections_reach_the_set(home: Path, run: Run, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path / "data")
    augment(run, tmp_path / "data" / "labelled.csv", tmp_path / "set", device="cpu")
    assert sorted(path.name for path in (tmp_path / "set" / "images").glob("*.nii.gz")) == [
        f"q{number}.nii.gz" for number in range(3)
    ]
    label = read(tmp_path / "data" / "q0_organ.nii.gz")
    write(label.with_array(label.array * 3), tmp_path / "data" / "q0_organ.nii.gz")
    assert read(read_cases(tmp_path / "set" / "cases.csv")[0].images["organ"]).array.max() == 3


def test_held_out_patients_go_into_a_folder_of_their_own(home: Path, run: Run, tmp_path: Path) -> None:
    augment(run, home / "labelled.csv", tmp_path / "train", device="cpu")
    augment(run, home / "labelled.csv", tmp_path / "test", split="test", device="cpu")
    for split in ("train", "test"):
        assert {case.split for case in read_cases(tmp_path / split / "cases.csv")} == {split}
    with pytest.raises(OutputError, match=r"made otherwise \(split\)"):
        augment(run, home / "labelled.csv", tmp_path / "train", split="test", device="cpu")
    assert {case.split for case in read_cases(tmp_path / "train" / "cases.csv")} == {"train"}


def test_a_stopped_call_goes_on_and_ends_the_same(home: Path, run: Run, tmp_path: Path) -> None:
    augment(run, home / "labelled.csv", tmp_path / "whole", device="cpu")
    augment(run, home / "labelled.csv", tmp_path / "set", device="cpu")
    (tmp_path / "set" / "images" / "q1.nii.gz").unlink()
    (tmp_path / "set" / "cases.csv").unlink()
    kept = (tmp_path / "set" / "images" / "q0.nii.gz").stat().st_mtime_ns
    augment(run, home / "labelled.csv", tmp_path / "set", device="cpu")
    assert (tmp_path / "set" / "images" / "q0.nii.gz").stat().st_mtime_ns == kept
    assert tree(tmp_path / "set") == tree(tmp_path / "whole")


def test_processes_share_the_work(home: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchrun starts them, one after another: the first one's part is missing until it has run itself."""
    monkeypatch.setattr(import_module("medgan.translate"), "gathered", lambda value: [value])
    for rank in (1, 0):
        monkeypatch.setattr(processes, "place", lambda rank=rank: processes.Place(rank, 2, rank, 2))
        augment(run, home / "labelled.csv", tmp_path / "set", device="cpu")
        names = sorted(path.name for path in (tmp_path / "set" / "images").glob("*.nii.gz"))
        assert names == (["q1.nii.gz"] if rank else ["q0.nii.gz", "q1.nii.gz", "q2.nii.gz"])
        assert (tmp_path / "set" / "cases.csv").exists() == (rank == 0)
    monkeypatch.undo()
    augment(run, home / "labelled.csv", tmp_path / "alone", device="cpu")
    assert tree(tmp_path / "set") == tree(tmp_path / "alone")


def test_series_stay_series_and_their_labels_are_carried(home: Path, run: Run, tmp_path: Path) -> None:
    mr, ct = tiny_pair(0)
    write(mr, tmp_path / "mr", subject=Subject("Q^0", "q0", "Q0"))
    label = write(label_of(ct).reorient("LPS"), tmp_path / "organ.nii.gz")
    case = Case("q0", "q0", "train", {"a": tmp_path / "mr", "organ": label})
    (made,) = augment(run, write_cases([case], tmp_path / "t.csv"), tmp_path / "set", device="cpu")
    assert made.images["b"] == tmp_path / "set" / "images" / "q0"
    assert missing_marks(made.images["b"]) == ()


def test_back_to_a_by_a_model_that_knows_the_way(home: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    nets = "generator: {name: resnet_6blocks, width: 2}, discriminator: {name: n_layers, num_layers: 1, width: 4}"
    both = untrained_run(
        tmp_path / "cyc",
        tiny_cohort / "tiny.yaml",
        f"model={{name: cyclegan, {nets}}}",
        "augment.gamma=0",
        "augment.noise=0",
    )
    _, ct = tiny_pair(0)
    images = {"b": write(ct, tmp_path / "ct.nii.gz"), "organ": write(label_of(ct), tmp_path / "organ.nii.gz")}
    table = write_cases([Case("q0", "q0", "train", images)], tmp_path / "t.csv")
    (made,) = augment(both, table, tmp_path / "set", to="a", device="cpu")
    assert set(made.images) == {"a", "organ"}
    assert read(made.images["a"]).modality == "MR"


# --- what is refused --------------------------------------------------------------------------------------------------


def test_cases_without_labels_are_refused_unless_told(home: Path, run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    cases = [replace(case, images={"a": case.images["a"]}) for case in read_cases(tiny_cohort / "cases.csv")]
    table = write_cases(cases, tmp_path / "t.csv")
    with pytest.raises(CasesError, match=r"no label to carry over.*p0; p1; p2.*--unlabelled"):
        augment(run, table, tmp_path / "set", device="cpu")
    assert not (tmp_path / "set").exists()
    assert len(augment(run, table, tmp_path / "set", unlabelled=True, device="cpu")) == 3


def test_a_class_is_a_label(home: Path, run: Run, tmp_path: Path) -> None:
    case = Case("q0", "q0", "train", {"a": home / "q0_a.nii.gz"}, {"class": "c1"})
    (made,) = augment(run, write_cases([case], tmp_path / "t.csv"), tmp_path / "set", device="cpu")
    assert made.conditions == {"class": "c1"}


@pytest.mark.parametrize("change", ["shape", "place", "spacing"])
def test_labels_off_the_grid_are_refused(home: Path, run: Run, tmp_path: Path, change: str) -> None:
    _, ct = tiny_pair(1)
    label, affine = label_of(ct), ct.grid.affine.copy()
    if change == "shape":
        label = label.crop((0, 0, 0), (24, 20, 7))
    else:
        affine[:3, 3] += 1.0 * (change == "place")
        affine[:3, :3] *= 1.02 if change == "spacing" else 1
        label = replace(label, grid=replace(ct.grid, affine=affine))
    table = rewritten(home, tmp_path / "t.csv", ("organ", write(label, tmp_path / "l.nii.gz")))
    with pytest.raises(GeometryError, match=r"1 labels are not on the grid of their image: q1: organ is"):
        augment(run, table, tmp_path / "set", device="cpu")
    assert not (tmp_path / "set").exists()


def test_real_images_in_the_place_of_translations_are_refused(home: Path, run: Run, tmp_path: Path) -> None:
    table = rewritten(home, tmp_path / "t.csv", ("b", home / "q1_a.nii.gz"))
    with pytest.raises(CasesError, match=r"an image b of their own already \(q1\).*--role"):
        augment(run, table, tmp_path / "set", device="cpu")
    made = augment(run, table, tmp_path / "set", role="ct", device="cpu")
    assert [set(case.images) - {"mask", "organ"} for case in made] == [{"ct"}, {"b", "ct"}, {"ct"}]


@pytest.mark.parametrize("role", ["B", "patient", "mask", "", "a b"])
def test_columns_that_cannot_be_are_refused(home: Path, run: Run, tmp_path: Path, role: str) -> None:
    with pytest.raises(InputError, match=f"role: '{role}' can be no column"):
        augment(run, home / "labelled.csv", tmp_path / "set", role=role, device="cpu")


def test_patients_in_two_splits_are_refused(home: Path, run: Run, tmp_path: Path) -> None:
    text = (home / "labelled.csv").read_text().replace("person4", "person0")
    (tmp_path / "t.csv").write_text(text.replace("q", f"{home}/q").replace(f"\n{home}/", "\n"))
    with pytest.raises(CasesError, match="one patient is in two splits"):
        augment(run, tmp_path / "t.csv", tmp_path / "set", device="cpu")


def test_other_folders_and_tables_are_refused(home: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(OutputError, match="something in it"):
        augment(run, home / "labelled.csv", tmp_path / "full", device="cpu")
    augment(run, home / "labelled.csv", tmp_path / "set", device="cpu")
    with pytest.raises(OutputError, match=r"made otherwise \(role\)"):
        augment(run, home / "labelled.csv", tmp_path / "set", role="ct", device="cpu")
    table = rewritten(home, tmp_path / "t.csv", ("organ", home / "q1_mask.nii.gz"))
    with pytest.raises(OutputError, match=r"made otherwise \(cases_sha256\)"):
        augment(run, table, tmp_path / "set", device="cpu")


def test_a_folder_in_which_nothing_was_made_may_be_taken_again(home: Path, run: Run, tmp_path: Path) -> None:
    _, ct = tiny_pair(0)
    images = {"b": write(ct, tmp_path / "ct.nii.gz"), "organ": write(label_of(ct), tmp_path / "organ.nii.gz")}
    table = write_cases([Case("q0", "q0", "train", images)], tmp_path / "t.csv")
    with pytest.raises(RunError, match="translates to b alone"):
        augment(run, table, tmp_path / "set", to="a", device="cpu")
    assert len(augment(run, home / "labelled.csv", tmp_path / "set", device="cpu")) == 3


def test_empty_splits_and_other_files_are_refused(home: Path, run: Run, tmp_path: Path) -> None:
    train_only = write_cases(read_cases(home / "labelled.csv", split="train"), tmp_path / "t.csv")
    with pytest.raises(CasesError, match="no case with an image a in the split val"):
        augment(run, train_only, tmp_path / "set", split="val", device="cpu")
    shutil.copy(train_only, tmp_path / "t.txt")
    with pytest.raises(CasesError, match=r"name a \.csv file"):
        augment(run, tmp_path / "t.txt", tmp_path / "set", device="cpu")


def test_patients_that_the_run_has_learnt_from_are_told(
    home: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the table of the run p0 is in train; held out here, results on p0 would be too good."""
    cases = [replace(case, patient=f"p{4 - n}") for n, case in enumerate(read_cases(home / "labelled.csv"))]
    augment(run, write_cases(cases, tmp_path / "t.csv"), tmp_path / "set", device="cpu")
    assert "names were in the training of the run (p1; p0)" in capsys.readouterr().err
    augment(run, home / "labelled.csv", tmp_path / "other", device="cpu")
    assert "training of the run" not in capsys.readouterr().err


# --- from the command line, to a segmenter ----------------------------------------------------------------------------


def command(home: Path, out: Path, *more: object) -> Done:
    return medgan("augment", home / "labelled.csv", "--run", home / "run", "--out", out, "--device", "cpu", *more)


def test_the_command_line(home: Path, tmp_path: Path) -> None:
    done = command(home, tmp_path / "set")
    assert done.code == 0, done.err
    assert "3 cases of 3 patients (train 3), translations in the column b" in done.out
    assert "with mask, organ, condition:class, condition:age" in done.out
    told = json.loads(command(home, tmp_path / "set", "--json").out)
    assert told[0]["patient"] == "person0"
    assert Path(told[0]["images"]["b"]).exists()
    bad = command(home, tmp_path / "set", "--split", "holdout")
    assert bad.code == 1
    assert "unknown split 'holdout'" in bad.error


def head(seed: int) -> tuple[Volume, Volume, Volume]:
    """MR and CT of a ball with a block of bone somewhere in it, dark in MR and bright in CT, and the bone's label."""
    rng = np.random.default_rng(seed)
    grid = Grid.regular((24, 24, 8), spacing_mm=(2, 2, 5))
    x, y, z = np.indices(grid.shape)
    ball = ((x - 12) / 10) ** 2 + ((y - 12) / 10) ** 2 + ((z - 3.5) / 5) ** 2 < 1
    u, v = rng.integers(7, 13, 2)
    bone = ball & (x >= u) & (x < u + 5) & (y >= v) & (y < v + 5)
    mr = np.where(bone, 90, np.where(ball, 300, 0)) + rng.uniform(0, 15, grid.shape)
    ct = np.where(bone, 700, np.where(ball, 40, -1000))
    return (
        Volume(mr.astype(np.int16), grid, "a.u.", "MR"),
        Volume(ct.astype(np.int16), grid, "HU", "CT"),
        Volume(bone.astype(np.uint8), grid, "label"),
    )


class Ideal(torch.nn.Module):
    """A translator that knows what bone is: the median of the ball is 0 to the net, bone in MR about -0.7, air -1."""

    def __init__(self) -> None:
        super().__init__()
        self.generators = {"b": self.translate}

    def translate(self, x: torch.Tensor, to: str = "b") -> torch.Tensor:
        return torch.where(x < -0.85, -1.0, torch.where(x < -0.4, 0.7, 0.04))


def segmenter(cases: list[Case], role: str, low: float, high: float) -> tuple[torch.nn.Module, list[float]]:
    """A small net after 20 steps of people's own MONAI code on a column and the labels, and its losses."""
    keys = (role, "l")
    scale = ScaleIntensityRanged(role, low, high, -1, 1, clip=True)
    crop = RandSpatialCropd(keys, (16, 16, 8), random_size=False)
    files = [{key: str(case.images[key]) for key in keys} for case in cases]
    loading = [LoadImaged(keys, reader="NibabelReader"), EnsureChannelFirstd(keys)]
    data = Dataset(files, Compose([*loading, scale, crop]).set_random_state(0))
    torch.manual_seed(0)
    net = UNet(3, 1, 1, channels=(8, 16), strides=(2,), norm="BATCH")
    optimiser, losses = torch.optim.Adam(net.parameters(), lr=0.02), []
    for _ in range(20):
        for batch in DataLoader(data, batch_size=4):
            logits = net(batch[role].as_tensor())
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch["l"].as_tensor().float())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    return net.eval(), losses


@torch.no_grad()
def dice_on_ct(net: torch.nn.Module, number: int) -> float:
    """Of the bone in a CT that no net has seen."""
    _, ct, bone = head(number)
    x = torch.from_numpy(ct.array.astype(np.float32) / 1000).clamp(-1, 1)[None, None]
    found = sliding_window_inference(x, (16, 16, 8), 2, net)[0, 0].numpy() > 0
    return float(2 * (found & (bone.array > 0)).sum() / (found.sum() + bone.array.sum()))


def test_a_segmenter_of_the_other_modality_learns_from_the_table(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No labelled CT is used: labelled MR, made CT-like, teaches a net to find bone in CT; MR as it is does not."""
    monkeypatch.setattr(Run, "translator", lambda self: Ideal())
    cases = []
    for number in range(4):
        mr, _, bone = head(number)
        paths = {"a": write(mr, tmp_path / f"h{number}_a.nii.gz"), "l": write(bone, tmp_path / f"h{number}_l.nii.gz")}
        cases.append(Case(f"h{number}", f"h{number}", "train", paths))
    made = augment(run, write_cases(cases, tmp_path / "t.csv"), tmp_path / "set", device="cpu")
    of_ct, losses = segmenter(made, "b", -1000, 1000)
    of_mr, _ = segmenter(cases, "a", 0, 400)
    assert losses[-1] < 0.5 * losses[0]
    assert dice_on_ct(of_ct, 20) > 0.8
    assert dice_on_ct(of_mr, 20) < 0.3
