"""The table of cases: what is written comes back, what leaks or is broken is refused."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from medgan.cases import Case, read_cases, write_cases
from medgan.errors import CasesError

ROWS = ["one,p1,train,one/a.nii,one/b.nii", "two,p2,val,two/a.nii,two/b.nii", "three,p3,test,three/a.nii,three/b.nii"]


def table(folder: Path, *rows: str, header: str = "case,patient,split,a,b") -> Path:
    """A table whose images exist, wherever its rows name any."""
    for cell in (cell.strip() for row in rows for cell in row.split(",")):
        if cell.endswith(".nii"):
            (folder / cell).parent.mkdir(parents=True, exist_ok=True)
            (folder / cell).touch()
    path = folder / "cases.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(CasesError) as caught:
        read_cases(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_table_is_read_relative_to_its_folder(tmp_path: Path) -> None:
    first, *_ = cases = read_cases(table(tmp_path, *ROWS))
    assert first == Case("one", "p1", "train", {"a": tmp_path / "one/a.nii", "b": tmp_path / "one/b.nii"})
    assert [case.split for case in cases] == ["train", "val", "test"]
    assert [case.name for case in read_cases(tmp_path / "cases.csv", split="val")] == ["two"]


def test_spaces_blank_lines_and_a_byte_order_mark_are_forgiven(tmp_path: Path) -> None:
    path = table(tmp_path, " one , p1 , train , a.nii , b.nii ", "", ",,,,")
    path.write_text("\ufeff" + path.read_text())
    assert read_cases(path)[0].images["a"] == tmp_path / "a.nii"


def test_a_split_without_cases_is_an_empty_list(tmp_path: Path) -> None:
    assert read_cases(table(tmp_path, ROWS[0]), split="test") == []
    with pytest.raises(CasesError, match="unknown split 'valid'"):
        read_cases(tmp_path / "cases.csv", split="valid")


def test_roles_may_be_missing_where_they_are_not_required(tmp_path: Path) -> None:
    path = table(tmp_path, "one,p1,train,a.nii,", "two,p2,train,,b.nii")
    assert [list(case.images) for case in read_cases(path, required=())] == [["a"], ["b"]]
    with pytest.raises(CasesError, match="one has no b"):
        read_cases(path, required=("b",))
    assert "empty cells: one has no b; two has no a" in refusal(path)


def test_a_case_without_any_image_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path, "one,p1,train,a.nii,", "two,p2,train,,")
    with pytest.raises(CasesError, match="two has no image"):
        read_cases(path, required=())


@pytest.mark.parametrize(
    ("rows", "header", "said"),
    [
        ([], "case,patient,split,a,b", "has no cases, only a header"),
        ([], "", "lacks columns: case, patient, split (seen, split at commas: nothing)"),
        (["one,a.nii"], "case,a", "lacks columns: patient, split (seen, split at commas: case, a)"),
        (["one;p1;train;a.nii"], "case;patient;split;a", "seen, split at commas: case;patient;split;a"),
        (["one,p1,train"], "case,patient,split", "lacks columns: a role such as a"),
        (["one,p1,train,a.nii"], "case,patient,split,Image 1", "roles, each once, in lower case"),
        (["one,p1,train,a.nii,a.nii"], "case,patient,split,a,a", "roles, each once, in lower case"),
        (["one,p1,train,a.nii"], "case,patient,split,a,b", "rows have more or fewer: 2"),
        ([ROWS[0], ROWS[0]], "case,patient,split,a,b", "cases named twice: one"),
        (
            ["one,p1,training,a.nii,b.nii"],
            "case,patient,split,a,b",
            "unknown split 'training' (accepted: train, val, test)",
        ),
        (["one,,train,a.nii,b.nii"], "case,patient,split,a,b", "cases without a patient: one"),
        (["../one,p1,train,a.nii,b.nii"], "case,patient,split,a,b", "these cannot: '../one'"),
        ([",p1,train,a.nii,b.nii"], "case,patient,split,a,b", "these cannot: ''"),
    ],
)
def test_a_broken_table_is_refused(tmp_path: Path, rows: list[str], header: str, said: str) -> None:
    assert said in refusal(table(tmp_path, *rows, header=header))


def test_one_patient_in_two_splits_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path, *ROWS, "four,p1,test,four/a.nii,four/b.nii", "five,p1,train,five/a.nii,five/b.nii")
    assert "one patient is in two splits: one in train, four in test, five in train" in refusal(path)


def test_missing_files_are_listed(tmp_path: Path) -> None:
    path = table(tmp_path, *ROWS)
    (tmp_path / "one/b.nii").unlink()
    (tmp_path / "three/a.nii").unlink()
    said = refusal(path)
    assert "names 2 files that are not there" in said
    assert "one/b.nii" in said
    assert "three/a.nii" in said


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x01", b'case,patient,split,a\n"one,p1,train,a.nii\x00'])
def test_a_table_that_is_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cases.csv").write_bytes(content)
    refusal(tmp_path / "cases.csv")


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "nowhere.csv")
    assert "Is a directory" in refusal(tmp_path)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    path = table(
        tmp_path / "in",
        "one,p1,train,a.nii,b.nii,m.nii",
        'two,"Smith, J.",val,c.nii,d.nii,n.nii',
        header="case,patient,split,b,a,mask",
    )
    cases = read_cases(path)
    for place in (tmp_path / "in/again.csv", tmp_path / "elsewhere/again.csv"):
        assert read_cases(write_cases(cases, place)) == cases
    assert (tmp_path / "in/again.csv").read_text().splitlines()[:2] == [
        "case,patient,split,a,b,mask",
        "one,p1,train,b.nii,a.nii,m.nii",
    ]
    assert str(tmp_path / "in/a.nii") in (tmp_path / "elsewhere/again.csv").read_text()


def test_what_would_be_refused_is_not_written(tmp_path: Path) -> None:
    leak = [Case("one", "p1", "train", {"a": tmp_path / "x"}), Case("two", "p1", "val", {"a": tmp_path / "x"})]
    for cases in (
        leak,
        [leak[0], leak[0]],
        [Case("one", "p1", "train", {"A b": tmp_path})],
        [Case("one", "p1", "train", {})],
        [],
    ):
        with pytest.raises(CasesError):
            write_cases(cases, tmp_path / "cases.csv")
    assert list(tmp_path.iterdir()) == []


# --- by hand ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_tables_are_put_together_and_filtered_as_the_docs_show(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs/how-to/index-cases.md").read_text()
    lines = next(text for text in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) if "tail -n +2" in text)
    splits = {"P001": "train", "P003": "val", "P005": "test", "P010": "train", "P017": "train", "P020": "test"}
    for site, names in {"a": ["P001", "P003", "P005"], "b": ["P010", "P017", "P020"]}.items():
        cases = [Case(name, name, splits[name], {"a": tmp_path / f"site_{site}" / f"{name}.nii.gz"}) for name in names]
        for case in cases:
            case.images["a"].parent.mkdir(exist_ok=True)
            case.images["a"].touch()
        write_cases(cases, tmp_path / f"site_{site}.csv")
    done = subprocess.run(["bash", "-c", lines], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert not done.stderr
    assert [line[2:6] for line in done.stdout.splitlines() if line.startswith("> ")] == ["P010", "P017", "P020"]

    def read_back(name: str) -> dict[str, str]:
        return {case.name: case.split for case in read_cases(tmp_path / name)}

    assert read_back("both.csv") == splits
    assert read_back("training.csv") == dict.fromkeys(("P001", "P010", "P017"), "train")
    assert read_back("without.csv") == {name: splits[name] for name in ("P001", "P005", "P010", "P020")}
    (tmp_path / "moved").mkdir()
    for path in [*tmp_path.glob("*.csv"), *tmp_path.glob("site_?")]:
        path.rename(tmp_path / "moved" / path.name)
    assert read_back("moved/both.csv") == splits
