"""CycleGAN from end to end: unpaired tables, resuming, both directions."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_train import assert_same, state

from medgan import read, translate
from medgan.cases import Case, read_cases, write_cases
from medgan.config import Config, load
from medgan.cost import estimate
from medgan.data import Pair, UnpairedPatches
from medgan.errors import CasesError, ConfigError, InputError, OutputError, RunError
from medgan.lesson import TranslationLesson, translation_cases
from medgan.run import Run
from medgan.train import train

GAME = (
    "model={name: cyclegan, generator: {name: resnet_6blocks, width: 2}, pool: 3, "
    "discriminator: {name: n_layers, num_layers: 1, width: 4}}"
)
UNPAIRED = [GAME, "augment.gamma=0", "augment.noise=0"]


@pytest.fixture(scope="module")
def table(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One patient with a alone, one with b alone, one with both on two grids; a pair to validate on."""
    whole = {case.name: case for case in read_cases(tiny_cohort / "cases.csv")}
    images = {
        "p0": {"a": whole["p0"].images["a"]},
        "p1": {"b": whole["p1"].images["b"]},
        "p2": {"a": whole["p2"].images["a"], "b": whole["p4"].images["b"]},
        "p3": dict(whole["p3"].images),
    }
    cases = [Case(name, name, "val" if name == "p3" else "train", found) for name, found in images.items()]
    return write_cases(cases, tmp_path_factory.mktemp("unpaired") / "cases.csv")


@pytest.fixture(scope="module")
def run(tiny_cohort: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "cyclegan"
    return train(tiny_cohort / "tiny.yaml", [*UNPAIRED, f"cases={table}"], out=out, device="cpu")


def test_a_table_without_pairs_is_learnt_from(run: Run) -> None:
    losses = [line["loss"] for line in run.metrics() if "loss" in line]
    assert losses[0].keys() >= {"G_GAN_a", "G_GAN_b", "G_cycle_a", "G_cycle_b", "G_identity_a", "D_fake_a", "D_real_b"}
    assert run.best["mae"] is not None
    assert json.loads((run.path / "card.json").read_text())["num_train_patients"] == 3


def test_ten_steps_are_five_a_stop_a_resume_and_five(
    run: Run, tiny_cohort: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, with fakes in the pool from before the stop."""
    module = import_module("medgan.train")
    real = module._step

    def step(learner: object, *rest: object) -> object:
        if learner.step == 7:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return real(learner, *rest)

    overrides = [*UNPAIRED, f"cases={table}"]
    monkeypatch.setattr(module, "_step", step)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "run", device="cpu")
    monkeypatch.undo()
    assert state(tmp_path / "run")["step"] == 5
    train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "run", device="cpu")
    assert state(run.path)["game"]["pools.b.images"].shape == (3, 1, 16, 16)  # type: ignore[index]
    assert_same(state(tmp_path / "run"), state(run.path))


def test_it_translates_both_ways(run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    (there,) = translate(run.path, tiny_cohort / "p4_mr.nii.gz", tmp_path / "ct.nii.gz", device="cpu")
    (back,) = translate(run.path, tiny_cohort / "p4_ct.nii.gz", tmp_path / "mr.nii.gz", to="a", device="cpu")
    ct, mr = read(there.path), read(back.path)
    assert (ct.modality, ct.unit, there.unit) == ("CT", "HU", "HU")
    assert (mr.modality, mr.unit, back.low, back.high) == ("MR", "normalised", 0, 2000)
    assert mr.grid.same_as(read(tiny_cohort / "p4_ct.nii.gz").grid)
    assert ct.synthetic == run.synthesis()
    assert mr.synthetic == run.synthesis("a")
    assert "CT to MR by cyclegan" in run.synthesis("a").description


def test_a_scan_of_the_wrong_side_is_refused(run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"its modality is MR, accepted is CT.*--trust"):
        translate(run.path, tiny_cohort / "p4_mr.nii.gz", tmp_path / "o.nii.gz", to="a", device="cpu")


def test_a_table_is_translated_in_one_direction(run: Run, table: Path, tmp_path: Path) -> None:
    done = translate(run.path, table, tmp_path / "mr", to="a", device="cpu")
    assert [one.case for one in done] == ["p1", "p2", "p3"]
    with pytest.raises(OutputError, match="of another direction"):
        translate(run.path, table, tmp_path / "mr", device="cpu")


def test_pix2pix_goes_one_way(tiny_cohort: Path, tmp_path: Path) -> None:
    paired = train(tiny_cohort / "tiny.yaml", ["train.steps=1"], out=tmp_path / "run", device="cpu")
    with pytest.raises(RunError, match=r"pix2pix, translates to b alone; seen to='a'"):
        translate(paired.path, tiny_cohort / "p4_ct.nii.gz", tmp_path / "o.nii.gz", to="a", device="cpu")


def test_without_a_target_the_last_weights_are_kept(
    tiny_cohort: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = read_cases(table, required=())
    alone = [case for case in cases if case.split == "train"]
    alone.append(Case("p3", "p3", "val", {"a": cases[3].images["a"]}))
    write_cases(alone, tmp_path / "cases.csv")
    overrides = [*UNPAIRED, f"cases={tmp_path / 'cases.csv'}"]
    done = train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "run", device="cpu")
    assert done.best == {"step": 10}
    assert "no validation case has a target" in capsys.readouterr().err
    assert_same(dict(done.translator().generators.state_dict()), _generators(state(done.path)))
    assert len(list(done.images.iterdir())) == 2


CUT = "model={name: cut, generator: {name: resnet_6blocks, width: 2}, num_patches: 8, " + GAME.partition("pool: 3, ")[2]


def _validated_on(table: Path, tiny_cohort: Path, roles: dict[str, str], folder: Path) -> list[str]:
    """Overrides for a table of the same training cases; of validation patients there are the images named."""
    whole = {case.name: case for case in read_cases(tiny_cohort / "cases.csv")}
    cases = [case for case in read_cases(table, required=()) if case.split == "train" and case.name != "p2"]
    cases += [Case(n, n, "val", {role: whole[n].images[role] for role in found}) for n, found in roles.items()]
    return [*UNPAIRED, f"cases={write_cases(cases, folder / 'cases.csv')}", "train.steps=2", "train.validate_every=2"]


@pytest.mark.parametrize(
    ("game", "roles", "real", "made"),
    [
        (GAME, {"p3": "a", "p4": "b"}, "ab", "ab"),
        (GAME, {"p3": "ab"}, "ab", "ab"),
        (GAME, {"p3": "a"}, "a", "b"),
        (CUT, {"p3": "a", "p4": "b"}, "b", "b"),
        (CUT, {"p3": "a"}, "", "b"),
    ],
)
def test_discriminators_judge_held_out_images_that_are_no_pairs(  # noqa: PLR0917
    game: str, roles: dict[str, str], real: str, made: str, tiny_cohort: Path, table: Path, tmp_path: Path
) -> None:
    overrides = [*_validated_on(table, tiny_cohort, roles, tmp_path), game, "neighbours=1"]
    done = train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "run", device="cpu")
    (vitals,) = [line["vitals"] for line in done.metrics() if "vitals" in line]
    expected = {f"{number}_held_out_{domain}" for number in ("right", "logit") for domain in real}
    assert {name for name in vitals if "held_out" in name} == expected | {f"logit_held_out_fake_{one}" for one in made}


def test_what_is_translated_in_validation_hangs_on_a_alone(
    tiny_cohort: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where processes share it: none is left without what another counts on."""
    overrides = _validated_on(table, tiny_cohort, {"p2": "b", "p3": "ab", "p4": "a"}, tmp_path)
    config = load(tiny_cohort / "tiny.yaml", overrides)
    cases = [translation_cases(config, split) for split in ("train", "val")]
    lesson = TranslationLesson(config, *cases)
    assert [(scan.name, isinstance(scan, Pair)) for scan in lesson.held_out] == [("p3", True), ("p4", False)]
    assert isinstance(lesson.unseen, UnpairedPatches)
    seen = {role: [scan.name for scan in scans] for role, scans in lesson.unseen.scans.items()}
    assert seen == {"a": ["p3", "p4"], "b": ["p2", "p3"]}
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, (translated, examined) in enumerate([("p3", True), ("p4", False)]):
        for name in ("RANK", "LOCAL_RANK"):
            monkeypatch.setenv(name, str(rank))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
        lesson = TranslationLesson(config, *cases)
        assert [scan.name for scan in lesson.held_out] == [translated]
        assert (lesson.unseen is not None) == examined


def _generators(saved: dict[str, object]) -> dict[str, torch.Tensor]:
    shadow = saved["shadow"]
    assert isinstance(shadow, dict)
    prefix = "generators."
    return {name.removeprefix(prefix): value for name, value in shadow.items() if name.startswith(prefix)}


def test_what_it_costs_is_told_without_pairs(tiny_cohort: Path, table: Path) -> None:
    said = estimate(tiny_cohort / "tiny.yaml", [*UNPAIRED, f"cases={table}"], device="cpu")
    assert "3 training cases, 1 validation cases" in said


@pytest.mark.parametrize(("role", "split"), [("a", "train"), ("b", "train"), ("a", "val")])
def test_a_side_without_images_is_named(role: str, split: str, tiny_cohort: Path, table: Path, tmp_path: Path) -> None:
    cases = [
        Case(
            case.name,
            case.patient,
            case.split,
            {r: p for r, p in case.images.items() if (r, case.split) != (role, split)},
        )
        for case in read_cases(table, required=())
    ]
    write_cases([case for case in cases if case.images], tmp_path / "cases.csv")
    with pytest.raises(CasesError, match=rf"no case with an image {role} in the split {split}"):
        train(
            tiny_cohort / "tiny.yaml", [*UNPAIRED, f"cases={tmp_path / 'cases.csv'}"], out=tmp_path / "r", device="cpu"
        )


def test_contrast_and_noise_are_refused(tiny_cohort: Path) -> None:
    with pytest.raises(ConfigError, match=r"augment: cyclegan learns without pairs.*set augment\.gamma"):
        load(tiny_cohort / "tiny.yaml", [GAME])


# --- without pairs to validate on -------------------------------------------------------------------------------------


def _lesson_without_pairs(table: Path, tiny_cohort: Path, folder: Path) -> TranslationLesson:
    overrides = _validated_on(table, tiny_cohort, {"p3": "a", "p4": "b"}, folder)
    config = load(tiny_cohort / "tiny.yaml", overrides)
    assert isinstance(config, Config)
    return TranslationLesson(config, *(translation_cases(config, split) for split in ("train", "val")))


def test_without_pairs_translations_are_judged_as_a_set(tiny_cohort: Path, table: Path, tmp_path: Path) -> None:
    """Far off if they are all alike; held-out images of b themselves are not off at all."""
    lesson = _lesson_without_pairs(table, tiny_cohort, tmp_path)
    assert lesson.criterion == "fd"
    held_out = [batch.images() for batch in lesson._compared(lesson.unseen)]  # type: ignore[arg-type]
    turns = iter(held_out)
    told = {}
    for name, translate_so in {
        "same": lambda x: next(turns),
        "grey": torch.zeros_like,
        "broken": lambda x: x / 0,
    }.items():
        game = SimpleNamespace(translate=translate_so)
        told[name] = lesson.resemblance(game, torch.device("cpu"))  # type: ignore[arg-type]
    floor = told["same"]["fd_of_training_images"]
    assert floor is not None
    assert told["same"]["fd"] == pytest.approx(0, abs=1e-6 * floor)
    assert told["same"]["coverage"] == 1
    assert told["grey"]["fd"] > 2 * floor > 0
    assert told["grey"]["coverage"] == 0
    assert set(told["broken"].values()) == {None}
    assert lesson.told(told["broken"]) == "the translations are no numbers"


def test_the_set_nearest_to_held_out_images_is_kept(
    tiny_cohort: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = _validated_on(table, tiny_cohort, {"p3": "a", "p4": "b"}, tmp_path)
    overrides += ["train.steps=6", "train.validate_every=2", "train.patience=5"]
    done = train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "run", device="cpu")
    scores = {line["step"]: line["val"] for line in done.metrics() if "val" in line}
    assert list(scores) == [2, 4, 6]
    nearest = min(scores, key=lambda step: scores[step]["fd"])
    assert done.best == {"step": nearest, **scores[nearest]}
    assert "FD-random-conv" in capsys.readouterr().err
