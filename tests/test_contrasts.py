"""Several contrasts in, one image out: channels in one order everywhere, blanked at random, and some may be missing."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import medgan
from conftest import tiny_pair

from medgan import Grid, Volume, index, read, translate, write
from medgan.cases import Case, by_role, read_cases, write_cases
from medgan.config import Config, dump, load
from medgan.data import Augment, Pair, Patches, batches, read_pair
from medgan.errors import CasesError, ConfigError, GeometryError, InputError
from medgan.formats.sidecar import sidecar_path
from medgan.prep import BACKGROUND, Intensity, Prep, to_channels, to_network
from medgan.run import Run
from medgan.sliding import predict
from medgan.train import train

MR = Intensity(modality="MR", times_median=(0, 2))
MAP = Intensity(modality="MR", range=(0, 100))
CT = Intensity(modality="CT", unit="HU", range=(-1000, 1000))
PLAIN = Augment(flip_axes=(), rotate_deg=0, scale=0, gamma=0, noise=0)
TWO = "prep.contrasts={t2: {modality: MR, range: [0, 100]}}"
DROP = "prep.contrast_dropout=0.4"


def prep(*names: str, dropout: float = 0) -> Prep:
    return Prep(a=MR, b=CT, contrasts=dict.fromkeys(names, MAP), contrast_dropout=dropout)


def t2_of(mr: Volume) -> Volume:
    """An image of the same anatomy with values of its own."""
    return mr.with_array((100 - mr.array.clip(0, 800) / 8).astype(np.float32))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory, tiny_cohort: Path) -> Path:
    """The tiny cohort with a second contrast."""
    folder = tmp_path_factory.mktemp("contrasts")
    cases = []
    for case in read_cases(tiny_cohort / "cases.csv"):
        t2 = write(t2_of(read(case.images["a"])), folder / f"{case.name}_t2.nii.gz")
        cases.append(replace(case, images={**case.images, "t2": t2}))
    write_cases(cases, folder / "cases.csv")
    (folder / "tiny.yaml").write_text((tiny_cohort / "tiny.yaml").read_text())
    return folder


@pytest.fixture(scope="module")
def run(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Ten steps without a break, with dropout."""
    return train(cohort / "tiny.yaml", [TWO, DROP], out=tmp_path_factory.mktemp("run") / "run", device="cpu")


def without(table: Path, out: Path, role: str, *names: str) -> Path:
    """The table with the cells of a role empty in some cases."""
    rows = list(csv.DictReader(table.open()))
    for row in rows:
        row |= {column: str((table.parent / row[column]).resolve()) for column in ("a", "b", "t2") if row[column]}
        if row["case"] in names:
            row[role] = ""
    with out.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return out


# --- the contract -----------------------------------------------------------------------------------------------------


def test_channels_are_a_and_then_the_alphabet() -> None:
    contract = prep("t2", "flair", "pd")
    assert list(contract.sources) == ["a", "flair", "pd", "t2"]
    mr = tiny_pair(0)[0]
    volumes = {"a": mr} | {role: mr.with_array(mr.array * 0 + n) for n, role in enumerate(("t2", "flair", "pd"), 1)}
    x = to_channels(volumes, contract)
    torch.testing.assert_close(x[:1], to_network(mr, MR), rtol=0, atol=0)
    assert x[1:].flatten(1).unique(dim=1).flatten().tolist() == pytest.approx([2 * n / 100 - 1 for n in (2, 3, 1)])


def test_a_config_keeps_its_contrasts_in_any_order(cohort: Path, tmp_path: Path) -> None:
    one, other = (
        load(cohort / "tiny.yaml", [f"prep.contrasts={{{names[0]}: {value}, {names[1]}: {value}}}"])
        for names in (("t2", "pd"), ("pd", "t2"))
        for value in ["{modality: MR, range: [0, 100]}"]
    )
    assert one == other
    assert list(one.prep.sources) == list(other.prep.sources) == ["a", "pd", "t2"]
    assert one.in_channels == 3
    (tmp_path / "c.yaml").write_text(dump(one))
    assert load(tmp_path / "c.yaml") == one
    assert load(cohort / "tiny.yaml").in_channels == 1


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["prep.contrasts={b: {modality: MR, range: [0, 1]}}"], r"prep: contrasts are named by a column .*seen 'b'"),
        (["prep.contrasts={mask: {modality: MR, range: [0, 1]}}"], r"seen 'mask'"),
        (["prep.contrasts={T2: {modality: MR, range: [0, 1]}}"], r"seen 'T2'"),
        (["prep.contrasts={t2: {modality: MR}}"], r"prep\.contrasts\.t2: give either range"),
        ([DROP], r"contrast_dropout: there is one source alone"),
        ([TWO, "prep.contrast_dropout=1"], r"prep\.contrast_dropout"),
        (
            [TWO, "model={name: cyclegan}", "augment.gamma=0", "augment.noise=0"],
            r"prep\.contrasts: cyclegan learns without pairs",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(cohort: Path, overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(cohort / "tiny.yaml", overrides)


def test_a_contrast_on_another_grid_is_refused_by_role_and_mm(tmp_path: Path) -> None:
    mr, ct = tiny_pair(0)
    affine = mr.grid.affine.copy()
    affine[2, 3] += 2.5
    moved = replace(t2_of(mr), grid=Grid(mr.grid.shape, affine))
    images = {"a": tmp_path / "a.nii.gz", "b": tmp_path / "b.nii.gz", "t2": tmp_path / "t2.nii.gz"}
    for role, volume in zip(images, (mr, ct, moved), strict=True):
        write(volume, images[role])
    with pytest.raises(GeometryError, match=r"p1, t2: its grid .* is not that of a .*up to 2\.5 mm apart"):
        read_pair(Case("p1", "p1", "train", images), prep("t2"))


def test_a_contrast_in_another_axis_order_is_one_grid(tmp_path: Path) -> None:
    mr, ct = tiny_pair(0)
    images = {role: tmp_path / f"{role}.nii.gz" for role in ("a", "b", "t2")}
    for role, volume in zip(images, (mr, ct, t2_of(mr).reorient("PSL")), strict=True):
        write(volume, images[role])
    pair = read_pair(Case("p1", "p1", "train", images), prep("t2"))
    torch.testing.assert_close(pair.x[1:], to_network(t2_of(mr), MAP))


# --- patches ----------------------------------------------------------------------------------------------------------


def pair_of(x: torch.Tensor, **fields: Any) -> Pair:
    shape = (x.shape[1], x.shape[2], x.shape[3])
    volume, everywhere = Volume(np.zeros(shape), Grid.regular(shape)), np.ones(shape, dtype=bool)
    return Pair("p", x, everywhere, volume, x[:1], volume, everywhere, **fields)


def numbered(contrasts: int, length: int = 10) -> torch.Tensor:
    """(contrasts, 10, 10, 10): the number of the slice along z, in hundredths, plus the contrast in tenths."""
    slices = torch.arange(length).expand(length, length, length) / 100
    return torch.stack([slices + contrast / 10 for contrast in range(contrasts)])


def test_slices_and_contrasts_have_one_order_in_training_and_use() -> None:
    x = numbered(3)
    item = Patches([pair_of(x)], (4, 4, 1), PLAIN, seed=1, neighbours=1)[0]
    assert item["a"].shape == (9, 4, 4)
    centre = round(float(item["b"].max()) * 100)
    seen = [round(float(channel.max()) * 100) for channel in item["a"]]
    assert 0 < centre < 9
    assert seen == [centre + step + 10 * contrast for step in (-1, 0, 1) for contrast in range(3)]
    for channel in range(9):
        y = predict(lambda w, c=channel: w[:, c : c + 1], x, patch=(8, 8, 1), neighbours=1)  # type: ignore[misc]
        assert round(float(y[0, :, :, centre].max()) * 100) == seen[channel]


def test_all_contrasts_move_alike() -> None:
    volume = torch.rand(1, 20, 20, 20, generator=torch.Generator().manual_seed(0))
    patches = Patches([pair_of(volume.expand(3, -1, -1, -1))], (8, 8, 4), Augment(gamma=0, noise=0), seed=0)
    for item in (patches[k] for k in range(10)):
        assert all(torch.equal(channel, item["b"][0]) for channel in item["a"])


def test_contrasts_are_tinted_one_by_one() -> None:
    volume = torch.rand(1, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    tint = Augment(flip_axes=(), rotate_deg=0, scale=0, gamma=0.5, noise=0.1)
    patches = Patches([pair_of(volume.expand(2, -1, -1, -1))], (8, 8, 1), tint, seed=0)
    alike = [torch.equal(item["a"][0], item["a"][1]) for item in (patches[k] for k in range(30))]
    assert 0 < sum(alike) < 10  # both left alone in 1 of 16


def test_contrasts_are_dropped_as_often_as_said_and_never_all() -> None:
    """Each with probability p, and where chance takes all n, one stays: n·p − pⁿ blank ones a patch."""
    count, p, draws = 3, 0.4, 2000
    x = torch.full((count, 4, 4, 4), 0.5)
    patches = Patches([pair_of(x)], (1, 2, 2), PLAIN, seed=0, contrast_dropout=p)
    blank = np.array([(patches[k]["a"] == BACKGROUND).flatten(1).all(1).numpy() for k in range(draws)])
    assert blank.sum(1).max() == count - 1
    assert blank.sum(1).mean() == pytest.approx(count * p - p**count, abs=4 * (count * p * (1 - p) / draws) ** 0.5)
    assert np.abs(blank.mean(0) - blank.mean()).max() < 4 * (0.25 / draws) ** 0.5
    assert all(float(patches[k]["b"].max()) > 0 for k in range(50))


def test_what_is_missing_stays_blank_and_what_is_alone_stays() -> None:
    x = torch.full((3, 4, 4, 4), 0.5)
    patches = Patches([pair_of(x, missing=(0, 2))], (2, 2, 1), Augment(), seed=0, contrast_dropout=0.9)
    for item in (patches[k] for k in range(40)):
        assert (item["a"][[0, 2]] == BACKGROUND).all()
        assert item["a"][1].max() > 0
    noisy = Augment(rotate_deg=0, scale=0, noise=0.5)
    kept = Patches([pair_of(x, missing=(2,))], (2, 2, 1), noisy, seed=0)
    assert all((kept[k]["a"][2] == BACKGROUND).all() for k in range(10))


def test_dropping_is_a_function_of_seed_and_number(cohort: Path) -> None:
    config = load(cohort / "tiny.yaml", [TWO, DROP])
    pairs = [read_pair(case, config.prep) for case in read_cases(config.cases, split="train")]
    first, second = (Patches(pairs, config.patch, config.augment, 3, contrast_dropout=0.4) for _ in range(2))
    second[4]
    assert torch.equal(first[9]["a"], second[9]["a"])
    whole, late = (
        [batch.a for batch in batches(first, batch=2, start=start, stop=6, workers=workers)]
        for start, workers in ((0, 0), (3, 1))
    )
    torch.testing.assert_close(late, whole[3:], rtol=0, atol=0)


def test_without_dropout_no_number_is_drawn_for_it(cohort: Path) -> None:
    """The first contrast and the target are what they are in a training on it alone."""
    cases = read_cases(cohort / "cases.csv", split="train")
    one, two = (
        Patches([read_pair(case, contract) for case in cases], (16, 16, 1), Augment(), 3)
        for contract in (prep(), prep("t2"))
    )
    for k in range(6):
        torch.testing.assert_close(one[k]["a"], two[k]["a"][:1], rtol=0, atol=0)
        torch.testing.assert_close(one[k]["b"], two[k]["b"], rtol=0, atol=0)


# --- from the table to the translation --------------------------------------------------------------------------------


def test_a_stopped_training_with_dropout_goes_on_exactly(run: Run, cohort: Path, tmp_path: Path) -> None:
    from importlib import import_module  # the module behind the function of the same name

    module = import_module("medgan.train")
    with pytest.MonkeyPatch.context() as patch:
        real = module._step

        def step(learner: Any, *rest: Any) -> Any:
            if learner.step == 7:
                raise KeyboardInterrupt
            return real(learner, *rest)

        patch.setattr(module, "_step", step)
        with pytest.raises(KeyboardInterrupt):
            train(cohort / "tiny.yaml", [TWO, DROP], out=tmp_path / "run", device="cpu")
    again = train(cohort / "tiny.yaml", [TWO, DROP], out=tmp_path / "run", device="cpu")
    assert again.weights_path.read_bytes() == run.weights_path.read_bytes()


def test_the_first_layer_sees_all_contrasts(run: Run) -> None:
    (first, *_) = run.translator().generators.parameters()
    assert first.shape[1] == 2
    assert json.loads((run.path / "card.json").read_text())["contract"]["contrasts"].keys() == {"t2"}


def test_a_missing_contrast_is_background(run: Run, tiny_cohort: Path, cohort: Path, tmp_path: Path) -> None:
    """Without a t2 the result is that of a t2 whose values all lie at the low end of its window; with one it is not."""
    a = tiny_cohort / "p4_mr.nii.gz"
    empty = write(read(cohort / "p4_t2.nii.gz").with_array(np.zeros((24, 20, 8), np.float32)), tmp_path / "t2.nii.gz")
    (alone,) = translate(run.path, a, tmp_path / "alone.nii.gz")
    (blank,) = translate(run.path, a, tmp_path / "blank.nii.gz", contrasts={"t2": empty})
    (both,) = translate(run.path, a, tmp_path / "both.nii.gz", contrasts={"t2": cohort / "p4_t2.nii.gz"})
    values = {one.path.name: read(one.path).array for one in (alone, blank, both)}
    np.testing.assert_array_equal(values["alone.nii.gz"], values["blank.nii.gz"])
    assert np.abs(values["alone.nii.gz"] - values["both.nii.gz"]).max() > 1
    assert (alone.contrasts, both.contrasts) == (("a",), ("a", "t2"))
    assert "from a without t2," in sidecar_path(alone.path).read_text()
    assert "from a, t2," in sidecar_path(both.path).read_text()


def test_a_table_may_lack_any_one_contrast(run: Run, cohort: Path, tmp_path: Path) -> None:
    table = without(cohort / "cases.csv", tmp_path / "c.csv", "t2", "p3")
    table = without(table, table, "a", "p4")
    done = {one.case: one for one in translate(run.path, table, tmp_path / "out")}
    assert done["p3"].contrasts == ("a",)
    assert done["p4"].contrasts == ("t2",)
    assert done["p0"].contrasts == ("a", "t2")
    assert read(done["p4"].path).grid.same_as(read(cohort / "p4_t2.nii.gz").grid)
    told = medgan("translate", run.path, table, tmp_path / "again")
    assert told.code == 0
    assert "p3.nii.gz from a without t2:" in told.out
    assert "p0.nii.gz from a, t2:" in told.out


def test_training_and_use_without_dropout_need_all(cohort: Path, tmp_path: Path) -> None:
    table = without(cohort / "cases.csv", tmp_path / "c.csv", "t2", "p1", "p4")
    with pytest.raises(CasesError, match="p1 has no t2"):
        train(cohort / "tiny.yaml", [TWO, f"cases={table}"], out=tmp_path / "no", device="cpu")
    strict = train(cohort / "tiny.yaml", [TWO, "train.steps=5"], out=tmp_path / "run", device="cpu")
    a = read_cases(cohort / "cases.csv")[4].images["a"]
    with pytest.raises(CasesError, match="p4 has no t2"):
        translate(strict, table, tmp_path / "out")
    with pytest.raises(InputError, match=r"p4_mr\.nii\.gz: has no t2, and all of a, t2 are needed; .*--contrast"):
        translate(strict, a, tmp_path / "o.nii.gz")
    assert not (tmp_path / "o.nii.gz").exists()


def test_training_with_dropout_takes_cases_that_lack_one(cohort: Path, tmp_path: Path) -> None:
    table = without(cohort / "cases.csv", tmp_path / "c.csv", "t2", "p1", "p3")
    made = train(cohort / "tiny.yaml", [TWO, DROP, f"cases={table}", "train.steps=5"], out=tmp_path / "r", device="cpu")
    assert made.best["step"] == 5
    table = without(cohort / "cases.csv", tmp_path / "c.csv", "a", "p1")
    with pytest.raises(CasesError, match="p1 has no a"):
        train(cohort / "tiny.yaml", [TWO, DROP, f"cases={table}"], out=tmp_path / "s", device="cpu")


def test_the_command_line_names_contrasts(run: Run, tiny_cohort: Path, cohort: Path, tmp_path: Path) -> None:
    a, t2 = tiny_cohort / "p4_mr.nii.gz", cohort / "p4_t2.nii.gz"
    done = medgan("translate", run.path, a, tmp_path / "o.nii.gz", "--contrast", f"t2={t2}")
    assert (done.code, "from a, t2:" in done.out) == (0, True)
    for extra, says in (
        (["--contrast", "t2"], "give each as name=value"),
        (["--contrast", f"t2={t2}", "--contrast", f"t2={t2}"], "given twice"),
        (["--contrast", f"pd={t2}"], "pd unknown to this run (it sees a, t2)"),
        (["--contrast", "t2=none.nii.gz"], "none.nii.gz: does not exist"),
    ):
        failed = medgan("translate", run.path, a, tmp_path / "no.nii.gz", *extra)
        assert (failed.code, says in failed.error) == (1, True), failed.error
    failed = medgan("translate", run.path, cohort / "cases.csv", tmp_path / "no", "--contrast", f"t2={t2}")
    assert "a table has a column for each" in failed.error


def test_a_contrast_of_another_modality_is_refused_by_its_path(run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    a, ct = tiny_cohort / "p4_mr.nii.gz", tiny_cohort / "p4_ct.nii.gz"
    with pytest.raises(InputError, match=r"p4_ct\.nii\.gz: its modality is CT, accepted is MR; .*--trust"):
        translate(run, a, tmp_path / "o.nii.gz", contrasts={"t2": ct})
    translate(run, a, tmp_path / "o.nii.gz", contrasts={"t2": ct}, trust=True)


# --- the table --------------------------------------------------------------------------------------------------------


def study(folder: Path) -> Path:
    for number in range(5):
        mr, ct = tiny_pair(number)
        for name, volume in {"t1": mr, "t2": t2_of(mr), "ct": ct}.items():
            write(volume, folder / f"p{number}" / f"{name}.nii.gz")
    return folder


def test_contrasts_become_columns(tmp_path: Path) -> None:
    folder = study(tmp_path / "s")
    wanted = ["index", folder, "--a", "t1.nii.gz", "--b", "ct.nii.gz", "--out", tmp_path / "c.csv"]
    done = medgan(*wanted, "--contrast", "t2=t2.nii.gz")
    assert done.code == 0, done.err
    assert (tmp_path / "c.csv").read_text().startswith("case,patient,split,a,b,t2\n")
    assert read_cases(tmp_path / "c.csv")[2].images["t2"] == folder / "p2/t2.nii.gz"
    (folder / "p2/t2.nii.gz").unlink()
    done = medgan(*wanted, "--contrast", "t2=t2.nii.gz")
    assert done.code == 0
    assert "p2 has no t2" in done.err
    assert read_cases(tmp_path / "c.csv", required=())[2].images.keys() == {"a", "b"}


@pytest.mark.parametrize(
    ("contrasts", "says"),
    [
        ({"b": "t2.nii.gz"}, "b are columns already"),
        ({"t2": "pd.nii.gz"}, "fits .*pd.nii.gz as t2"),
        ({"t2": "ct.nii.gz"}, "b and t2 are the same image"),
    ],
)
def test_wrong_contrasts_are_refused(tmp_path: Path, contrasts: dict[str, str], says: str) -> None:
    with pytest.raises(CasesError, match=says):
        index(study(tmp_path), a="t1.nii.gz", b="ct.nii.gz", contrasts=contrasts, out=tmp_path / "c.csv")


def test_contrasts_without_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="t2 serve models that learn from pairs"):
        index(study(tmp_path), a="t1.nii.gz", b="ct.nii.gz", contrasts={"t2": "t2.nii.gz"}, unpaired=True, out=tmp_path)


def test_roles_are_read_from_text() -> None:
    assert by_role(["t2=a=b.nii.gz", "pd=x"]) == {"t2": "a=b.nii.gz", "pd": "x"}
    with pytest.raises(CasesError, match="T2=x"):
        by_role(["T2=x"])


def test_a_config_of_one_source_is_what_it_was(tiny_cohort: Path) -> None:
    config: Config = load(tiny_cohort / "tiny.yaml")
    assert (config.prep.contrasts, config.prep.contrast_dropout, config.required) == ({}, 0, ("a", "b"))
