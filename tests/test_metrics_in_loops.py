"""Paired metrics in loops that are not ours: MONAI's and Ignite's engines, beside their own metrics; two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.data import DataLoader, decollate_batch
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler, from_engine
from monai.metrics import MAEMetric, PSNRMetric
from monai.transforms import CopyItemsd
from torch import Tensor, nn

from medgan.errors import GeometryError
from medgan.metrics import LoopMetric, PairedScores, mae, psnr, ssim_2004

ignite = pytest.importorskip("ignite")
from ignite.engine import Engine  # noqa: E402
from ignite.metrics import MeanAbsoluteError  # noqa: E402

Array = npt.NDArray[Any]


def images(count: int, shape: tuple[int, ...] = (10, 9, 8), seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions, references and masks, (count, 1, *shape)."""
    rng = np.random.default_rng(seed)
    ref = rng.normal(0, 300, (count, 1, *shape)).astype(np.float32)
    pred = ref + rng.normal(0, 50, ref.shape).astype(np.float32)
    return torch.from_numpy(pred), torch.from_numpy(ref), torch.from_numpy(ref > -200)


def mean_mae(pred: Tensor, ref: Tensor, mask: Tensor | None = None) -> float:
    masks = [None] * len(ref) if mask is None else list(mask[:, 0].numpy())
    return float(np.mean([mae(p, r, m) for p, r, m in zip(pred[:, 0].numpy(), ref[:, 0].numpy(), masks, strict=True)]))


# --- MONAI ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("decollated", [False, True])
def test_in_a_loop_it_stands_where_those_of_monai_stand(spatial_dims: Any, decollated: bool) -> None:
    pred, ref, _ = images(5, (12, 11, 10)[:spatial_dims])
    ours = [LoopMetric(name, value_range=(-2000, 2000), spatial_dims=spatial_dims) for name in ("mae", "psnr")]
    theirs = [MAEMetric(), PSNRMetric(max_val=4000)]
    for metric in (*ours, *theirs):
        for part in (slice(0, 2), slice(2, 4), slice(4, 5)):
            pair = pred[part], ref[part]
            y_pred, y = (decollate_batch(one) for one in pair) if decollated else pair
            metric(y_pred=y_pred, y=y)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.aggregate().item() == pytest.approx(other.aggregate().item(), rel=1e-5)
        assert len(mine.scores.rows) == 5
        mine.reset()
        assert np.isnan(mine.aggregate().item())


class Blur(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool3d(x, 3, 1, 1)


def batches(pred: Tensor, ref: Tensor, mask: Tensor) -> Any:
    items = [{"image": p, "label": r, "body": m} for p, r, m in zip(pred, ref, mask, strict=True)]
    return DataLoader(items, batch_size=2)


def test_an_evaluator_of_monai_takes_it_as_its_key_metric() -> None:
    source, ref, mask = images(5)
    metric = LoopMetric("mae", output_transform=from_engine(["pred", "label", "mask"]))
    whole = LoopMetric("psnr", output_transform=from_engine(["pred", "label"]))
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=batches(source, ref, mask),
        network=Blur(),
        postprocessing=CopyItemsd("body", names="mask"),  # what the batch brings is no output, unless it is copied
        key_val_metric={"body_mae": metric},
        additional_metrics={"psnr": whole},
    )
    made = Blur()(source)
    for _ in range(2):  # the second run forgets the first
        evaluator.run()
        assert evaluator.state.metrics["body_mae"] == pytest.approx(mean_mae(made, ref, mask), rel=1e-12)
        values = [psnr(p, r) for p, r in zip(made[:, 0].numpy(), ref[:, 0].numpy(), strict=True)]
        assert evaluator.state.metrics["psnr"] == pytest.approx(np.mean(values), rel=1e-12)
    assert evaluator.state.best_metric == evaluator.state.metrics["body_mae"]


def test_the_handler_of_monai_takes_it_too() -> None:
    pred, ref, _ = images(4)
    engine = Engine(lambda _, batch: batch)
    IgniteMetricHandler(LoopMetric("mae"), save_details=False).attach(engine, "mae")  # type: ignore[arg-type]
    engine.run([(pred[:3], ref[:3]), (pred[3:], ref[3:])])
    assert engine.state.metrics["mae"] == pytest.approx(mean_mae(pred, ref), rel=1e-12)


# --- Ignite -----------------------------------------------------------------------------------------------------------


def test_an_engine_of_ignite_has_it_among_its_metrics() -> None:
    pred, ref, mask = images(6)
    engine = Engine(lambda _, batch: batch)
    LoopMetric("mae").attach(engine, "mae")
    LoopMetric("mae", output_transform=lambda out: (*out, mask[:2])).attach(engine, "inside")
    MeanAbsoluteError().attach(engine, "theirs")
    engine.run([(pred[n : n + 2], ref[n : n + 2]) for n in (0, 2, 4)], max_epochs=3)
    theirs = engine.state.metrics["theirs"] / ref[0].numel()  # a sum over voxels, a mean over images
    assert engine.state.metrics["mae"] == pytest.approx(theirs, rel=1e-5)
    assert engine.state.metrics["mae"] == pytest.approx(mean_mae(pred, ref), rel=1e-12)
    expected = [mean_mae(pred[n : n + 2], ref[n : n + 2], mask[:2]) for n in (0, 2, 4)]
    assert engine.state.metrics["inside"] == pytest.approx(np.mean(expected), rel=1e-12)


def test_outputs_may_name_their_images() -> None:
    pred, ref, mask = images(2)
    metric = LoopMetric("mae")
    metric.update({"y_pred": pred, "y": ref, "mask": mask})
    assert metric.compute() == pytest.approx(mean_mae(pred, ref, mask), rel=1e-12)


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_pictures_are_volumes_of_one_slice() -> None:
    pred, ref, _ = images(3, (40, 30))
    metric = LoopMetric("ssim_2d", "wang2004", spatial_dims=2)
    found = metric(pred, ref)
    slices = ((p.numpy()[..., None], r.numpy()[..., None]) for p, r in zip(pred[:, 0], ref[:, 0], strict=True))
    expected = [ssim_2004(p, r, axis=2) for p, r in slices]
    assert found[:, 0].tolist() == expected
    assert 0 < min(expected) < 1
    with pytest.raises(GeometryError, match=r"seen \(3, 1, 40, 30, 1\); spatial_dims=3 is for volumes"):
        metric(pred[..., None], ref[..., None])
    with pytest.raises(GeometryError, match=r"seen \(3, 1, 40, 30\)"):
        LoopMetric("mae")(pred, ref)


# --- processes --------------------------------------------------------------------------------------------------------

PROCESS = """
import json, sys
from pathlib import Path
import numpy as np
from torch import distributed
from medgan.metrics import LoopMetric, PairedScores
from medgan.processes import part_at_exit

distributed.init_process_group("gloo")
part_at_exit()
rank, (pred, ref) = distributed.get_rank(), np.load(sys.argv[1])
scores, metric = PairedScores("synthrad2023-fixed"), LoopMetric("psnr")
for n in (range(3) if rank == 0 else range(3, len(ref)) if rank == 1 else ()):
    scores.update(pred[n], ref[n], case=str(n))
    metric(pred[n][None, None], ref[n][None, None])
every = scores.gathered()
told = {"own": len(scores.rows), "cases": [row["case"] for row in every.rows], "metric": float(metric.compute())}
Path(sys.argv[1]).with_name(f"{rank}.json").write_text(json.dumps({**told, "scores": every.compute()}))
"""


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_tell_of_all_images_whatever_part_each_has_seen(processes: int, tmp_path: Path) -> None:
    pred, ref, _ = images(5)
    whole, single = PairedScores("synthrad2023-fixed"), LoopMetric("psnr")
    whole.update(pred, ref)
    single(pred, ref)
    np.save(tmp_path / "images.npy", np.stack([pred[:, 0], ref[:, 0]]))
    (tmp_path / "process.py").write_text(PROCESS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    subprocess.run(
        [*command, str(tmp_path / "process.py"), str(tmp_path / "images.npy")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
        timeout=300,
    )
    same = {"cases": ["0", "1", "2", "3", "4"], "scores": whole.compute(), "metric": float(single.compute())}
    for rank, own in enumerate([3, 2, 0][:processes]):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == {"own": own, **same}
