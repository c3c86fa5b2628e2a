"""Several processes that share one job."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch

from medgan.errors import ConfigError, InputError
from medgan.evaluate import evaluate
from medgan.processes import Place, all_of, copies, gathered, is_first, place, share
from medgan.train import train
from medgan.translate import translate

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_STEP_ID": "0",
}
# Samples do not see one another in these nets, and nothing is drawn at random, so a split batch is the same batch.
SEPARABLE = [
    "model.generator.norm=instance",
    "model.discriminator.norm=instance",
    "model.generator.dropout=false",
    "weights={body_only: true, regions: [{range: [300, 2000], weight: 4}]}",
]
IN_PARTS = [
    "model={name: supervised, generator: {name: resnet_6blocks, width: 2}, lambda_ssim: 1, lambda_gradient: 1}",
    SEPARABLE[-1],
    "train.batch=4",
    "train.clip=0.1",
]
CYCLEGAN = (
    "model={name: cyclegan, generator: {name: resnet_6blocks, width: 2}, "
    "discriminator: {name: n_layers, num_layers: 1, width: 4}, pool: 3}"
)
SCRIPT = f"""
import sys
from importlib import import_module
from pathlib import Path
import torch

module = import_module("medgan.train")
cohort, out = Path(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(1)
separable = {SEPARABLE!r}
module.train(cohort / "tiny.yaml", separable, out=out / "together", device="cpu")
in_parts = [*{IN_PARTS!r}, "train.accumulate=2"]
module.train(cohort / "tiny.yaml", in_parts, out=out / "in_parts", device="cpu")
unpaired = ["augment={{gamma: 0, noise: 0}}", {CYCLEGAN!r}]
module.train(cohort / "tiny.yaml", unpaired, out=out / "straight", device="cpu")
real = module._step

def step(learner, *rest):
    if learner.step == 7:
        raise KeyboardInterrupt
    return real(learner, *rest)

module._step = step
try:
    module.train(cohort / "tiny.yaml", unpaired, out=out / "resumed", device="cpu")
except KeyboardInterrupt:
    module._step = real
module.train(cohort / "tiny.yaml", unpaired, out=out / "resumed", device="cpu")
"""
TABLE = """
import json, sys
from pathlib import Path
import torch
from medgan.evaluate import evaluate
from medgan.processes import place
from medgan.translate import translate

run, table, out = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
torch.set_num_threads(1)
done = translate(run, table, out / "images", device="cpu")
rows = evaluate(out / "images", table, out=out / "scores")
told = {"done": [one.case for one in done], "rows": [row["case"] for row in rows]}
(out / f"told_{place().rank}.json").write_text(json.dumps(told))
"""


def start(script: str, *arguments: object, processes: int = 2) -> None:
    """Run a script in that many processes that know of one another."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*command, script, *map(str, arguments)],
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def runs(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs that two processes left, by name."""
    folder = tmp_path_factory.mktemp("together")
    (folder / "script.py").write_text(SCRIPT)
    start(str(folder / "script.py"), tiny_cohort, folder)
    return folder


def state(run: Path) -> dict[str, dict[str, torch.Tensor]]:
    return torch.load(run / "state.pt", weights_only=True)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("name", "overrides"), [("together", SEPARABLE), ("in_parts", IN_PARTS)])
def test_two_processes_train_as_one_does(
    name: str, overrides: list[str], runs: Path, tiny_cohort: Path, tmp_path: Path
) -> None:
    """Also where each does its share in parts, and gradients are too long."""
    assert_alike(runs / name, train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "alone", device="cpu").path)


def assert_alike(together: Path, alone: Path) -> None:
    """Biases in front of instance norm have no effect, and Adam moves them by rounding errors.

    So it does any weight whose gradient is next to nothing, by a part of a step, which is 1e-3 long. Ten steps lead
    1e-2 astray where processes do not hear of one another.
    """
    weights = {name: value for name, value in state(alone)["game"].items() if value.ndim > 1}
    for name, wanted in weights.items():
        torch.testing.assert_close(state(together)["game"][name], wanted, rtol=1e-3, atol=5e-5)
    for line, wanted_line in zip(lines(together, "loss"), lines(alone, "loss"), strict=True):
        assert line == pytest.approx(wanted_line, rel=1e-3)
    assert lines(together, "val")[-1] == pytest.approx(lines(alone, "val")[-1], rel=1e-3)


@pytest.mark.slow
def test_two_tasks_of_slurm_train_as_one_process_does(tiny_cohort: Path, tmp_path: Path) -> None:
    """With the variables that srun sets; the port, 15000 on, is of the last four digits of the job's number."""
    command = [sys.executable, "-m", "medgan", "train", str(tiny_cohort / "tiny.yaml"), *SEPARABLE, "--device", "cpu"]
    step = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_STEP_ID": "0", "SLURM_NODEID": "0"}
    where, tasks = {"SLURM_NODELIST": "localhost", "SLURM_JOB_ID": str(free_port() - 15000)}, []
    for number in ("0", "1"):
        own = {"SLURM_PROCID": number, "SLURM_LOCALID": number, "OMP_NUM_THREADS": "1"}
        tasks.append(
            subprocess.Popen(
                [*command, "--out", str(tmp_path / "together")],
                env={**os.environ, **step, **own, **where},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    told = [task.communicate(timeout=300)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0]
    assert [str(tmp_path / "together") in one for one in told] == [True, False]
    alone = train(tiny_cohort / "tiny.yaml", SEPARABLE, out=tmp_path / "alone", device="cpu")
    assert_alike(tmp_path / "together", alone.path)


def free_port() -> int:
    for port in range(15000, 25000):
        with socket.socket() as one, suppress(OSError):
            one.bind(("", port))
            return port
    raise AssertionError("no port from 15000 to 24999 is free")


def lines(run: Path, kind: str) -> list[dict[str, float]]:
    """What the journal says of losses or validations."""
    told = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line[kind] for line in told if kind in line]


def test_one_process_writes(runs: Path) -> None:
    told = [json.loads(line) for line in (runs / "together" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in told if "loss" in line] == list(range(1, 11))
    assert len(list((runs / "together" / "tb").iterdir())) == 1
    assert {file.name for file in (runs / "together" / "images").iterdir()} == {"step_0000005.png", "step_0000010.png"}


def test_two_processes_resume_to_the_bit_each_with_its_own_pool(runs: Path) -> None:
    straight, resumed = state(runs / "straight"), state(runs / "resumed")
    for name, value in straight["game"].items():
        assert torch.equal(resumed["game"][name], value), name
    mine, others = straight["buffers"]
    assert mine.keys() == others.keys()
    assert not torch.equal(mine["pools.b.images"], others["pools.b.images"])
    for before, after in zip(straight["buffers"], resumed["buffers"], strict=True):
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_one_process_goes_on_where_two_were_and_says_so(
    runs: Path, tiny_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unpaired = ["augment={gamma: 0, noise: 0}", CYCLEGAN]
    module_state = state(runs / "straight")
    train(tiny_cohort / "tiny.yaml", [*unpaired, "train.steps=11"], out=tmp_path / "run", device="cpu")
    torch.save({**module_state, "step": 10}, tmp_path / "run" / "state.pt")
    train(tiny_cohort / "tiny.yaml", [*unpaired, "train.steps=11"], out=tmp_path / "run", device="cpu")
    assert "was left by 2 processes and goes on with 1" in capsys.readouterr().err


def test_two_processes_share_a_table(runs: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    """All of it is done once, and both know of all; the numbers are those of one process."""
    (tmp_path / "script.py").write_text(TABLE)
    start(str(tmp_path / "script.py"), runs / "together", tiny_cohort / "cases.csv", tmp_path)
    cases = [f"p{number}" for number in range(5)]
    for rank in range(2):
        told = json.loads((tmp_path / f"told_{rank}.json").read_text())
        assert told == {"done": cases, "rows": cases}
    translate(runs / "together", tiny_cohort / "cases.csv", tmp_path / "alone", device="cpu")
    for case in cases:
        name = f"{case}.nii.gz"
        assert (tmp_path / "images" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    rows = evaluate(tmp_path / "alone", tiny_cohort / "cases.csv")
    assert json.loads((tmp_path / "scores" / "metrics.json").read_text())["rows"] == rows


def test_one_volume_is_not_shared(
    runs: Path, tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="one volume cannot be shared by 8 processes"):
        translate(runs / "together", tiny_cohort / "p4_mr.nii.gz", tmp_path / "x.nii.gz", device="cpu")


@pytest.mark.parametrize("environment", [TORCHRUN, SLURM])
def test_a_process_knows_its_place(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert place() == Place(rank=5, count=8, local_rank=1, local_count=4)
    assert place().machines == 2
    assert not is_first()
    assert share(range(20)) == [5, 13]


def test_alone_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch script that asked for tasks, but did not start them by srun, is one process."""
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert place() == Place()
    assert is_first()
    assert share("abc") == ["a", "b", "c"]
    assert gathered("x") == ["x"]
    assert all_of("abc") == ["a", "b", "c"]


def test_half_an_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SLURM, "SLURM_NTASKS_PER_NODE": "4(x2)"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="SLURM_NTASKS_PER_NODE"):
        place()


def test_shares_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [[0, 3, 6], [1, 4], [2, 5]]
    monkeypatch.setattr("medgan.processes.gathered", lambda part: parts)
    assert all_of(parts[0]) == list(range(7))


def test_a_batch_that_cannot_be_shared_is_refused(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="2 patches cannot be shared by 8 processes"):
        train(tiny_cohort / "tiny.yaml", out=tmp_path / "run", device="cpu")


STARTING = """
import os, signal
from medgan.processes import copies
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have what they start in the background ignore it
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))
with copies(2, "counts") as over:
    print(list(over(abs, [-1])))
"""


def test_ctrl_c_while_copies_start_is_neither_lost_nor_waited_on() -> None:
    done = subprocess.run([sys.executable, "-c", STARTING], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGINT
    assert done.stdout == ""
    assert done.stderr.endswith("KeyboardInterrupt\n")
    assert "Exception ignored" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
def test_what_waits_for_copies_is_not_begun_after_ctrl_c(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _interrupted(tmp_path)
    assert 0 < len(list(tmp_path.iterdir())) < 20


def _interrupted(folder: Path) -> None:
    with copies(2, "marks") as over:
        marked = over(partial(_mark, folder), range(100))
        for _ in marked:
            raise KeyboardInterrupt


def _mark(folder: Path, number: int) -> None:
    (folder / str(number)).touch()
    time.sleep(0.05)
