"""Products with one row and with several, in every format, against float64, and answers that can be read off."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'influence[torch]'")
pytest.importorskip("triton", reason="needs triton, which comes with torch on Linux")

from influence.engines.torch import ops
from influence.engines.torch.matrices import Linear, Matrix, Norm, dense
from influence.engines.torch.quantize import MatrixFormat, converted
from influence.engines.torch.triton import launch, products
from influence.engines.torch.triton.table import TRITON
from influence.models.spec import Activation, NormKind
from support.kernel_device import DEVICE, among_nan, values

FORMATS: tuple[MatrixFormat, ...] = ("stored", "q8", "q4", "packed")
# Rows and columns that fill no tile, and in bfloat16 a row that fills two, so that splits have work.
CASES = [(torch.float32, 40), (torch.float16, 40), (torch.bfloat16, 1100)]


def matrix_of(form: MatrixFormat, n_rows: int, n_cols: int, dtype: torch.dtype) -> Matrix:
    """Random weights, and those that packing finds rare: zeros, a tiny and a large one in a row, in the last row too."""
    weight = values(n_rows, n_cols, seed=1, dtype=dtype)
    weight[2, 3:9] = torch.tensor([0.0, -0.0, 1e-30, 9.0, 1e-20, -3e-9], dtype=dtype)
    weight[-1, -1] = 1e-12
    return converted(weight, form)


def assert_close(got: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, scale: float = 1e-6) -> None:
    """To x @ weight.T in float64, by the sum of the magnitudes that went into it."""
    x, weight = x.double(), weight.double()
    error = (got.double() - x @ weight.T).abs()
    assert (error <= scale * (x.abs() @ weight.abs().T) + 1e-30).all()


@pytest.mark.parametrize("n_tokens", [1, 5])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("dtype", "n_cols"), CASES, ids=["f32", "f16", "bf16"])
def test_a_product_is_the_product(n_tokens: int, form: MatrixFormat, dtype: torch.dtype, n_cols: int) -> None:
    matrix = matrix_of(form, 7, n_cols, dtype)
    x = values(n_tokens, n_cols, dtype=dtype)
    got = TRITON.norm_linear(among_nan(x), None, Linear(matrix), torch.float32)
    # Weights of few bits become the dtype for a tensor core; for them one row becomes whole numbers.
    is_rounded = form in ("q8", "q4") and (n_tokens == 1 or dtype != torch.float32)
    assert_close(got, x, dense(matrix), 1e-2 if is_rounded else 1e-6)


@pytest.mark.parametrize("n_tokens", [1, 3])
@pytest.mark.parametrize("kind", ["rms", "layer"])
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_norm_a_bias_and_a_residual_go_along(n_tokens: int, kind: NormKind, has_bias: bool) -> None:
    norm = Norm(kind, 1e-3, 1.0, values(130, seed=2), values(130, seed=3) if has_bias else None)
    weight, x = values(9, 130, seed=1), values(n_tokens, 130) + 3
    bias, residual = (values(9, seed=4) if has_bias else None), values(n_tokens, 9, seed=5)
    normed = TRITON.norm_linear(x, norm, Linear(weight, bias))
    torch.testing.assert_close(normed, ops.norm_linear(x, norm, Linear(weight, bias)), rtol=1e-5, atol=1e-4)
    added = TRITON.linear_residual(x, weight, bias, residual, 0.25)
    torch.testing.assert_close(added, ops.linear_residual(x, weight, bias, residual, 0.25))


@pytest.mark.parametrize("n_tokens", [1, 2])
@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh", "relu", "relu_squared"])
@pytest.mark.parametrize("gated", [True, False])
def test_gate_and_up_leave_through_the_activation(n_tokens: int, activation: Activation, gated: bool) -> None:
    norm, x = Norm("rms", 1e-5, 0.0, values(70, seed=2)), values(n_tokens, 70)
    weights = Linear(values(6, 70, seed=1) / 8, values(6, seed=3))
    got = TRITON.gate_up(x, norm, weights, activation, gated)
    torch.testing.assert_close(got, ops.gate_up(x, norm, weights, activation, gated), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("form", FORMATS)
def test_gate_and_up_are_fused_in_every_format(form: MatrixFormat) -> None:
    weights = Linear(matrix_of(form, 10, 300, torch.bfloat16))
    x = values(1, 300, dtype=torch.bfloat16) / 16
    got = products.gate_up_row(x, None, weights, "silu").float()
    gate, up = (x.float() @ dense(weights.weight).float().T).chunk(2, dim=-1)
    torch.testing.assert_close(got, torch.nn.functional.silu(gate) * up, rtol=0.03, atol=0.03)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("n_tokens", [1, 2])
def test_a_row_of_one_weight_gives_that_column(form: MatrixFormat, n_tokens: int) -> None:
    """Weight [r, 5 r] is 2, all others 0, and x counts: y[r] is 2 * 5 r."""
    weight = torch.zeros(9, 64, dtype=torch.bfloat16)
    for row in range(9):
        weight[row, 5 * row] = 2
    x = torch.arange(64, dtype=torch.bfloat16).expand(n_tokens, 64).contiguous()
    matrix = converted(weight.to(DEVICE), form)
    y = TRITON.norm_linear(x.to(DEVICE), None, Linear(matrix), torch.float32)
    # bfloat16 scales keep 2 to one part in 256; a row of whole numbers up to 63 its own to a quarter.
    torch.testing.assert_close(
        y, torch.arange(9.0, device=DEVICE).expand(n_tokens, 9) * 10, rtol=1 / 256, atol=0.5
    )


@pytest.mark.parametrize("form", ["q8", "q4"])
def test_a_row_that_is_whole_numbers_already_loses_nothing(form: MatrixFormat) -> None:
    """A chunk's largest is 127, so its scale is 1."""
    x = torch.from_numpy(np.random.default_rng(1).integers(-127, 128, (1, 1100)).astype(np.float32))
    x[0, ::16] = 127
    matrix = matrix_of(form, 7, 1100, torch.float32)
    got = TRITON.norm_linear(among_nan(x.to(DEVICE)), None, Linear(matrix), torch.float32)
    assert_close(got, x.to(DEVICE), dense(matrix))


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_no_number_in_a_row_shows(form: MatrixFormat) -> None:
    x = values(1, 300, dtype=torch.bfloat16)
    x[0, 77] = torch.nan
    matrix = matrix_of(form, 7, 300, torch.bfloat16)
    assert TRITON.norm_linear(x, None, Linear(matrix), torch.float32).isnan().all()


def test_all_weights_may_be_zero() -> None:
    matrix = converted(torch.zeros(5, 40, dtype=torch.bfloat16, device=DEVICE), "packed")
    y = TRITON.norm_linear(values(1, 40, dtype=torch.bfloat16), None, Linear(matrix), torch.float32)
    assert y.tolist() == [[0.0] * 5]


@pytest.mark.parametrize("n_tokens", [1, 4])
def test_split_columns_give_the_same_bits_every_time_and_leave_the_counters_at_zero(n_tokens: int) -> None:
    weight, x = values(9, 2100, seed=1), values(n_tokens, 2100)
    first, second = (TRITON.norm_linear(x, None, Linear(weight)) for _ in range(2))
    assert torch.equal(first, second)
    assert_close(first, x, weight)
    assert launch.arrivals(DEVICE).count_nonzero() == 0


def test_many_rows_of_a_dense_matrix_are_plain_torch_s() -> None:
    weight, x = values(33, 48, seed=1), values(80, 48)
    norm, residual = Norm("rms", 1e-5, 0.0, values(48, seed=2)), values(80, 33, seed=3)
    got = TRITON.norm_linear(x, norm, Linear(weight))
    torch.testing.assert_close(got, ops.norm_linear(x, norm, Linear(weight)))
    assert torch.equal(
        TRITON.linear_residual(x, weight, None, residual), ops.linear_residual(x, weight, None, residual)
    )


def test_many_rows_of_packed_weights_take_several_tiles() -> None:
    matrix = matrix_of("packed", 40, 96, torch.bfloat16)
    x = values(70, 96, dtype=torch.bfloat16)
    assert_close(TRITON.norm_linear(x, None, Linear(matrix), torch.float32), x, dense(matrix))


def test_a_norm_of_many_rows_is_the_norm() -> None:
    norm, x = Norm("layer", 1e-4, 1.0, values(1500, seed=1), values(1500, seed=2)), values(3, 1500)
    torch.testing.assert_close(TRITON.normed(among_nan(x), norm), ops.normed(x, norm), rtol=1e-5, atol=1e-5)
    assert TRITON.normed(x, None) is x
