// Weights between Python and the core: as they lie in files, or packed.
#include "bindings_weights.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "bf12.h"
#include "cpu.h"
#include "kernels/kernels.h"
#include "quantize.h"
#include "read_ahead.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace influence {
namespace {

using Array = nb::ndarray<nb::ro, nb::numpy, nb::device::cpu>;
using Bytes = nb::ndarray<uint8_t, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using ConstBytes =
    nb::ndarray<const uint8_t, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr int64_t kLargestSide = int64_t{1} << 31;

// bfloat16 travels as the uint16 of its bits: numpy has no such type.
DType dtype_of(const Array& array) {
  if (array.dtype() == nb::dtype<float>()) return DType::kF32;
  if (array.dtype() == nb::dtype<uint16_t>()) return DType::kBF16;
  const nb::dlpack::dtype half{static_cast<uint8_t>(nb::dlpack::dtype_code::Float), 16, 1};
  require(array.dtype() == half, "weights must be float32, float16 or (as uint16) bfloat16");
  return DType::kF16;
}

int64_t positive_stride(const Array& array, size_t axis) {
  require(array.stride(axis) >= 0, "weights may not have negative strides");
  return array.stride(axis);
}

// (rows, cols), or (groups, rows, cols) where rows lie in groups with gaps.
Matrix matrix_of(const Array& array) {
  require(array.ndim() == 2 || array.ndim() == 3, "a weight matrix has 2 or 3 dimensions");
  const size_t row_axis = array.ndim() - 2;
  const auto group_rows = static_cast<int64_t>(array.shape(row_axis));
  const auto cols = static_cast<int64_t>(array.shape(row_axis + 1));
  const int64_t groups = row_axis == 1 ? static_cast<int64_t>(array.shape(0)) : 1;
  require(groups >= 1 && group_rows >= 1 && cols >= 1, "a weight matrix may not be empty");
  require(cols == 1 || array.stride(row_axis + 1) == 1,
          "a weight matrix's columns must be contiguous");
  Matrix matrix;
  matrix.data = array.data();
  matrix.dtype = dtype_of(array);
  matrix.rows = groups * group_rows;
  matrix.cols = cols;
  matrix.row_stride = positive_stride(array, row_axis);
  matrix.group_rows = group_rows;
  matrix.group_stride = row_axis == 1 ? positive_stride(array, 0) : 0;
  return matrix;
}

DType packed_dtype(const std::string& name) {
  if (name == "q8") return DType::kQ8;
  if (name == "q4") return DType::kQ4;
  require(name == "bf12", "packed weights are bf12, q8 or q4");
  return DType::kBF12;
}

DType stored_dtype(const std::string& name) {
  if (name == "F32") return DType::kF32;
  if (name == "F16") return DType::kF16;
  require(name == "BF16", "stored weights are F32, F16 or BF16");
  return DType::kBF16;
}

using Slots = nb::dict;
using Sizes = std::vector<int64_t>;

// Weights as they lie in a file, kept alive. A vector is a matrix of one row.
struct PyStored {
  Memory memory;
  Matrix matrix;
};

// Whether every element of such a view lies within `n` elements; sizes are at most kLargestSide.
bool lies_within(const Sizes& shape, const Sizes& strides, int64_t n) {
  for (size_t axis = 0; axis < shape.size() && n >= 1; ++axis) {
    const int64_t n_steps = shape[axis] - 1;
    if (n_steps > 0 && strides[axis] > (n - 1) / n_steps) return false;
    n -= n_steps * strides[axis];
  }
  return n >= 1;
}

Matrix stored_matrix(const Memory& memory, DType dtype, Sizes shape, Sizes strides) {
  require(!shape.empty() && shape.size() <= 3 && strides.size() == shape.size(),
          "weights have 1 to 3 dimensions");
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    require(shape[axis] >= 1 && shape[axis] <= kLargestSide,
            "weights may not be empty, nor have 2^31 rows");
    require(strides[axis] >= 0, "weights may not have negative strides");
  }
  require(strides.back() == 1 || shape.back() == 1, "a weight matrix's columns must be contiguous");
  require(lies_within(shape, strides, static_cast<int64_t>(memory.size()) / dtype_bytes(dtype)),
          "the weights reach beyond their memory");
  shape.insert(shape.begin(), 3 - shape.size(), 1);
  strides.insert(strides.begin(), 3 - strides.size(), 0);
  Matrix matrix;
  matrix.data = memory.data();
  matrix.dtype = dtype;
  matrix.rows = shape[0] * shape[1];
  matrix.cols = shape[2];
  matrix.row_stride = strides[1];
  matrix.group_rows = shape[1];
  matrix.group_stride = strides[0];
  return matrix;
}

// Packed weights as Python holds them: their bytes, and what they are of.
struct PyPacked {
  nb::object kept_alive;
  Matrix matrix;
};

Matrix matrix_in(const Slots& slots, const std::string& name) {
  nb::str key(name.c_str());
  if (!slots.contains(key)) return {};
  nb::handle slot = slots[key];
  if (nb::isinstance<PyPacked>(slot)) return nb::cast<PyPacked&>(slot).matrix;
  return nb::cast<PyStored&>(slot).matrix;
}

// Any shape, flattened and widened to float32.
Vector vector_of(const Slots& slots, const std::string& name) {
  nb::str key(name.c_str());
  if (!slots.contains(key)) return {};
  const Matrix& matrix = nb::cast<PyStored&>(slots[key]).matrix;
  const KernelTable& table = select_kernels(detect_cpu(), "generic");
  Vector values(static_cast<size_t>(matrix.rows * matrix.cols));
  for (int64_t row = 0; row < matrix.rows; ++row) {
    table.load_row(matrix.dtype, matrix.row(row), 1.0f, matrix.cols, &values[row * matrix.cols]);
  }
  return values;
}

Linear linear_of(const Slots& slots, const std::string& name) {
  return {matrix_in(slots, name), vector_of(slots, name + ".bias")};
}

NormWeights norm_of(const Slots& slots, const std::string& name) {
  return {vector_of(slots, name), vector_of(slots, name + ".bias")};
}

LayerWeights layer_of(const Slots& slots) {
  LayerWeights layer;
  layer.attn_norm = norm_of(slots, "attn_norm");
  layer.attn_post_norm = norm_of(slots, "attn_post_norm");
  layer.ffn_norm = norm_of(slots, "ffn_norm");
  layer.ffn_post_norm = norm_of(slots, "ffn_post_norm");
  layer.q_norm = norm_of(slots, "q_norm");
  layer.k_norm = norm_of(slots, "k_norm");
  layer.q = linear_of(slots, "q");
  layer.k = linear_of(slots, "k");
  layer.v = linear_of(slots, "v");
  layer.o = linear_of(slots, "o");
  layer.gate = linear_of(slots, "gate");
  layer.up = linear_of(slots, "up");
  layer.down = linear_of(slots, "down");
  return layer;
}

void pack_matrix(const Array& source, const std::string& dtype, const Bytes& out,
                 const std::string& kernels, int n_threads) {
  const Matrix matrix = matrix_of(source);
  const DType packed = packed_dtype(dtype);
  require(static_cast<int64_t>(out.size()) == packed_bytes(packed, matrix.rows, matrix.cols),
          "out must have the bytes that packed_bytes tells");
  require(packed != DType::kBF12 || matrix.dtype == DType::kBF16, "bf12 is made of bfloat16");
  const KernelTable& table = select_kernels(detect_cpu(), kernels);
  nb::gil_scoped_release release;
  if (packed == DType::kBF12) {
    pack_bf12(matrix, n_threads, out.data());
  } else {
    pack(matrix, packed, table, n_threads, out.data());
  }
}

bool fits_bf12_matrix(const Array& source, int n_threads) {
  const Matrix matrix = matrix_of(source);
  nb::gil_scoped_release release;
  return matrix.dtype == DType::kBF16 && fits_bf12(matrix, n_threads);
}

void bind_stored(nb::module_& m) {
  nb::class_<PyStored>(m, "Stored")
      .def(
          "__init__",
          [](PyStored* self, const Memory& data, const std::string& dtype, const Sizes& shape,
             const Sizes& strides) {
            new (self) PyStored{data, stored_matrix(data, stored_dtype(dtype), shape, strides)};
          },
          "data"_a, "dtype"_a, "shape"_a, "strides"_a);
}

void bind_packed(nb::module_& m) {
  nb::class_<PyPacked>(m, "Packed")
      .def(
          "__init__",
          [](PyPacked* self, const ConstBytes& bytes, const std::string& dtype, int64_t rows,
             int64_t cols) {
            Matrix matrix;
            matrix.dtype = packed_dtype(dtype);
            require(rows >= 1 && cols >= 1 && rows <= kLargestSide && cols <= kLargestSide,
                    "a weight matrix may not be empty, nor have 2^31 rows or columns");
            require(static_cast<int64_t>(bytes.size()) == packed_bytes(matrix.dtype, rows, cols),
                    "the bytes are not those of so many packed rows and columns");
            matrix.data = bytes.data();
            matrix.rows = matrix.group_rows = rows;
            matrix.cols = cols;
            new (self) PyPacked{nb::cast(bytes), matrix};
          },
          "data"_a, "dtype"_a, "rows"_a, "cols"_a);
  m.def(
      "packed_bytes",
      [](const std::string& dtype, int64_t rows, int64_t cols) {
        return packed_bytes(packed_dtype(dtype), rows, cols);
      },
      "dtype"_a, "rows"_a, "cols"_a);
  m.def("fits_bf12", &fits_bf12_matrix, "source"_a, "n_threads"_a);
  m.def("pack", &pack_matrix, "source"_a, "dtype"_a, "out"_a, "kernels"_a, "n_threads"_a);
}

// The reading and the objects whose memory it reads.
struct PyReadAhead {
  explicit PyReadAhead(const std::vector<Memory>& data) : kept_alive(data), ahead(spans(data)) {}

  static std::vector<std::span<const std::byte>> spans(const std::vector<Memory>& data) {
    std::vector<std::span<const std::byte>> out;
    for (const Memory& part : data) {
      out.emplace_back(reinterpret_cast<const std::byte*>(part.data()), part.size());
    }
    return out;
  }

  std::vector<Memory> kept_alive;
  ReadAhead ahead;
};

void bind_read_ahead(nb::module_& m) {
  nb::class_<PyReadAhead>(m, "ReadAhead")
      .def(nb::init<const std::vector<Memory>&>(), "data"_a)
      .def(
          "wait", [](PyReadAhead& self) { self.ahead.wait(); },
          nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace

DecoderWeights weights_of(const nb::dict& outer, const nb::list& layers) {
  DecoderWeights weights;
  weights.embed = matrix_in(outer, "embed");
  weights.final_norm = norm_of(outer, "final_norm");
  weights.lm_head = linear_of(outer, "lm_head");
  for (nb::handle layer : layers) weights.layers.push_back(layer_of(nb::cast<Slots>(layer)));
  return weights;
}

void bind_weights(nb::module_& m) {
  bind_stored(m);
  bind_packed(m);
  bind_read_ahead(m);
}

}  // namespace influence
