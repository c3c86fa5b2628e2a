"""Configs: read, overridden, written back, and refused by the full name of the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from medgan.config import dump, load
from medgan.errors import ConfigError, InputError, MedganError


@pytest.fixture
def tiny(tiny_cohort: Path) -> Path:
    return tiny_cohort / "tiny.yaml"


def test_dumping_and_loading_is_the_identity(tiny: Path, tmp_path: Path) -> None:
    config = load(tiny, ["train.steps=7"])
    (tmp_path / "again.yaml").write_text(dump(config))
    assert load(tmp_path / "again.yaml") == config
    assert config.train.steps == 7
    assert config.spatial_dims == 2


def test_paths_are_relative_to_the_file_and_overrides_to_the_caller(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(tiny).cases == tiny.parent / "cases.csv"
    assert load(tiny, ["cases=mine.csv"]).cases == tmp_path / "mine.csv"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stepz=3", r"train\.stepz: unknown key \(accepted here: steps"),
        ("train.lr=-1", r"train\.lr: .*greater than 0 \(seen: -1\)"),
        ("train.precision=fp8", r"train\.precision"),
        ("model.generator.name=unet_257", r"model.*generator\.name"),
        ("model.generator.depth=3", r"model.*generator\.depth: unknown key"),
        ("model.discriminator.num_layers=9", r"model.*discriminator\.num_layers"),
        ("prep.b.range=[5, 1]", r"prep\.b: the lower end 5"),
        ("patch=[8, 8]", r"patch"),
        ("patch=[8, 0, 8]", r"patch"),
        ("augment.rotate_deg=.nan", r"augment\.rotate_deg"),
        (
            "weights.regions=[{range: [5000, 6000], weight: 2}]",
            r"nothing lies at 5000 to 6000, .* clipped to -1000 to 10",
        ),
        ("weights.regions=[{range: [-3000, 3000], weight: 0}]", r"all values of the target have the weight 0"),
        ("nonsense", r"key=value"),
        ("cases.x=1", r"cases\.x: cases holds a value"),
        ("train.steps=[", r"train\.steps: .* YAML"),
    ],
)
def test_a_wrong_value_names_its_key(tiny: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tiny, [override])


def test_weights_of_some_values_may_be_zero(tiny: Path) -> None:
    regions = "[{range: [-3000, 3000], weight: 0}, {range: [300, 301], weight: 1}]"
    assert load(tiny, [f"weights.regions={regions}"]).weigh is not None  # type: ignore[union-attr]


def test_registration_is_one_switch(tiny: Path) -> None:
    assert load(tiny, ["model.registration=true"]) == load(tiny, ["model.registration={}"]) != load(tiny)
    assert load(tiny, ["model.registration=false"]) == load(tiny)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "a: [", "\x00\x01"])
def test_what_is_no_config_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(MedganError, match=r"bad\.yaml"):
        load(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml"):
        load(tmp_path / "none.yaml")


def test_a_config_cannot_run_code(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("cases: !!python/object/apply:os.system ['touch /tmp/owned']\n")
    with pytest.raises(InputError, match="is no YAML"):
        load(path)
