"""Matrix products in float32 by oneDNN, the library that makes torch's convolutions on a CPU.

torch gives such products to MKL, which uses half of what a processor of AMD can do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["HAS_ONEDNN", "product", "products"]

LEAST_WORK = 2**21  # multiplications; fewer are done before oneDNN has begun (measured by tools/bench/products.py)
HAS_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def product(a: Tensor, b: Tensor) -> Tensor:
    """The product a @ b of matrices (M, K) and (K, N), in whatever layout; (M, N), contiguous.

    Small ones, other types than float32, other devices than the CPU, and what is autocast or compiled are torch's.
    """
    if not _is_for_onednn(a, b):
        return a @ b
    y: Tensor = _Product.apply(a, b)  # type: ignore[no-untyped-call]
    return y


@torch.no_grad()
def products(a: Tensor, b: Tensor) -> Tensor:
    """The products a @ b of as many matrices, (P, M, K) and (P, K, N); (P, M, N). They have no gradient."""
    if not _is_for_onednn(a, b):
        return a @ b
    y = a.new_empty(len(a), a.shape[1], b.shape[2])
    for one, left, right in zip(y, a, b, strict=True):
        one.copy_(_by_onednn(left, right))
    return y


def _is_for_onednn(a: Tensor, b: Tensor) -> bool:
    if not HAS_ONEDNN or (a.device.type, a.dtype, b.dtype) != ("cpu", torch.float32, torch.float32):
        return False
    if torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    return a.numel() * b.shape[-1] >= LEAST_WORK


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return _by_onednn(a, b)

    @staticmethod
    def backward(ctx: Any, *towards: Tensor) -> tuple[Tensor | None, Tensor | None]:
        [given], (a, b), (to_a, to_b) = towards, ctx.saved_tensors, ctx.needs_input_grad
        return product(given, b.mT) if to_a else None, _towards_b(a, b, given) if to_b else None


def _towards_b(a: Tensor, b: Tensor, given: Tensor) -> Tensor:
    """As b lies in memory, so that a gradient of weights need not be copied."""
    return product(given.mT, a).mT if b.mT.is_contiguous() else product(a.mT, given)


def _by_onednn(a: Tensor, b: Tensor) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(_dense(a), _dense(b.mT), None, "none", [], "")
    return y


def _dense(a: Tensor) -> Tensor:
    """A matrix whose rows or columns lie one behind the other; others oneDNN multiplies by its slow routine."""
    return a if a.is_contiguous() or a.mT.is_contiguous() else a.contiguous()
