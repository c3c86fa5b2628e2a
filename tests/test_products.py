"""Matrix products by oneDNN: the numbers, gradients and gradients of gradients of torch's own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from medgan.nets import products
from medgan.nets.products import HAS_ONEDNN, product

needs_onednn = pytest.mark.skipif(not HAS_ONEDNN, reason="this torch was built without oneDNN")
LAYOUTS = ("rows", "columns", "every second", "one row again and again")
Sizes = tuple[int, int, int]


@pytest.fixture(autouse=True)
def work_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "LEAST_WORK", 1)


def drawn(rows: int, columns: int, layout: str = "rows") -> Tensor:
    if layout == "columns":
        return torch.randn(columns, rows).mT.requires_grad_()
    if layout == "every second":
        return torch.randn(rows, 2 * columns)[:, ::2].detach().requires_grad_()
    if layout == "one row again and again":
        return torch.randn(1, columns).expand(rows, columns).requires_grad_()
    return torch.randn(rows, columns, requires_grad=True)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40)),
    layouts=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
)
def test_it_is_the_product_in_every_layout(sizes: Sizes, layouts: tuple[str, str, str]) -> None:
    torch.manual_seed(0)
    m, k, n = sizes
    a, b, towards = drawn(m, k, layouts[0]), drawn(k, n, layouts[1]), drawn(m, n, layouts[2]).detach()
    seen = product(a, b), *torch.autograd.grad(product(a, b), (a, b), towards)
    exact_a, exact_b, exact_towards = (x.detach().double() for x in (a, b, towards))
    exact = exact_a @ exact_b, exact_towards @ exact_b.mT, exact_a.mT @ exact_towards
    for one, other in zip(seen, exact, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5 * max(sizes))


@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_a_gradient_of_weights_lies_as_they_do(layout: str) -> None:
    a, b = drawn(3, 8), drawn(8, 5, layout)
    (to_b,) = torch.autograd.grad(product(a, b).sum(), b)
    assert to_b.stride() == b.stride()


def test_only_the_gradients_that_are_wanted_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = drawn(3, 8), drawn(8, 5)
    for wanted in (a, b):
        y = product(*(one if one is wanted else one.detach() for one in (a, b)))
        made: list[Tensor] = []
        real = products.product
        with monkeypatch.context() as patch:
            patch.setattr(products, "product", lambda *of, made=made, real=real: (made.append(of[0]), real(*of))[1])
            (seen,) = torch.autograd.grad(y.sum(), wanted)
        assert len(made) == 1
        torch.testing.assert_close(seen, torch.autograd.grad((a @ b).sum(), wanted)[0])


def test_gradients_of_gradients() -> None:
    torch.manual_seed(0)
    a, b = drawn(6, 4), drawn(4, 5)

    def penalty(y: Tensor) -> tuple[Tensor, ...]:
        (to_a,) = torch.autograd.grad(y.pow(2).sum(), a, create_graph=True)
        return torch.autograd.grad(to_a.pow(2).sum(), (a, b))

    for one, other in zip(penalty(product(a, b)), penalty(a @ b), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_many_at_once() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(4, 3, 5), torch.randn(4, 6, 5).mT
    torch.testing.assert_close(products.products(a, b), a @ b)
    torch.testing.assert_close(products.products(a.double(), b.double()), a.double() @ b.double())
    assert not products.products(a.requires_grad_(), b).requires_grad
    assert not products.products(a.double(), b.double()).requires_grad


@needs_onednn
def test_shapes_are_known_without_values() -> None:
    with FakeTensorMode():
        a, b = torch.empty(3, 4, requires_grad=True), torch.empty(4, 5, requires_grad=True)
        product(a, b).sum().backward()
        assert a.grad is not None
        assert b.grad is not None
        assert (a.grad.shape, b.grad.shape) == (a.shape, b.shape)


@needs_onednn
def test_it_is_what_multiplies_in_float32_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(*_: object) -> None:
        raise RuntimeError("oneDNN was asked")

    a, b = torch.randn(3, 4), torch.randn(4, 5)
    monkeypatch.setattr(products, "_by_onednn", told)
    with pytest.raises(RuntimeError, match="oneDNN was asked"):
        product(a, b)
    with monkeypatch.context() as patch:
        patch.setattr(products, "LEAST_WORK", 3 * 4 * 5 + 1)
        torch.testing.assert_close(product(a, b), a @ b)
    for dtype in (torch.float64, torch.bfloat16):
        torch.testing.assert_close(product(a.to(dtype), b.to(dtype)), a.to(dtype) @ b.to(dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert product(a, b).dtype == torch.bfloat16
    monkeypatch.setattr(products, "HAS_ONEDNN", False)
    torch.testing.assert_close(product(a, b), a @ b)
