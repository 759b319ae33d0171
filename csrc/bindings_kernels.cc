// Every kernel of every table as Python calls it, for tests and benchmarks:
// the module influence._native.kernels. Sizes are checked here; the GIL is
// released around the work. bfloat16 travels as the uint16 of its bits.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <new>
#include <numeric>
#include <optional>

#include "cpu.h"
#include "kernels/kernels.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace influence {

void bind_kernels(nb::module_& m);

namespace {

using Array = nb::ndarray<nb::numpy, nb::device::cpu>;
using ConstArray = nb::ndarray<nb::ro, nb::numpy, nb::device::cpu>;
using Row = nb::ndarray<float, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using ConstRow = nb::ndarray<const float, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<float, nb::numpy, nb::ndim<2>, nb::device::cpu>;
using ConstRows = nb::ndarray<const float, nb::numpy, nb::ndim<2>, nb::device::cpu>;
using ConstPacked =
    nb::ndarray<const uint8_t, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Slots = nb::ndarray<const int, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <class AnyArray>
DType dtype_of(const AnyArray& array) {
  const nb::dlpack::dtype half{static_cast<uint8_t>(nb::dlpack::dtype_code::Float), 16, 1};
  if (array.dtype() == nb::dtype<float>()) return DType::kF32;
  if (array.dtype() == half) return DType::kF16;
  require(array.dtype() == nb::dtype<uint16_t>(),
          "elements must be float32, float16 or (as uint16) bfloat16");
  return DType::kBF16;
}

template <class AnyArray>
int64_t size_of(const AnyArray& array, size_t axis) {
  return static_cast<int64_t>(array.shape(axis));
}

template <class AnyArray>
void require_rows(const AnyArray& array, const char* what) {
  require(array.ndim() == 2 && array.shape(0) > 0 && array.shape(1) > 0 &&
              (array.shape(1) == 1 || array.stride(1) == 1) && array.stride(0) >= 0,
          std::string(what) + " must be a matrix that is not empty, its columns contiguous");
}

// Activations made ready for the weights of one dtype; aligned as kernels expect.
class Prepared {
 public:
  Prepared(const MatmulKernel& kernel, DType dtype, const ConstRows& x)
      : dtype_(dtype), n_tokens_(size_of(x, 0)), cols_(size_of(x, 1)) {
    auto bytes = static_cast<size_t>(n_tokens_ * kernel.prepared_bytes(cols_));
    data_.reset(static_cast<char*>(::operator new(bytes, std::align_val_t{kAlignment})));
    kernel.prepare(x.data(), x.stride(0), n_tokens_, cols_, data_.get());
    if (kernel.arrange != nullptr && n_tokens_ > 1) arrange(kernel, bytes);
  }
  DType dtype() const { return dtype_; }
  int64_t n_tokens() const { return n_tokens_; }
  int64_t cols() const { return cols_; }
  const void* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(char* p) const { ::operator delete(p, std::align_val_t{kAlignment}); }
  };

  void arrange(const MatmulKernel& kernel, size_t bytes) {
    auto* arranged = static_cast<char*>(::operator new(bytes, std::align_val_t{kAlignment}));
    for (int64_t token = 0; token < n_tokens_; token += kArrangedTokens) {
      const int64_t at = token * kernel.prepared_bytes(cols_);
      kernel.arrange(data_.get() + at, std::min(kArrangedTokens, n_tokens_ - token), cols_,
                     arranged + at);
    }
    data_.reset(arranged);
  }

  DType dtype_;
  int64_t n_tokens_;
  int64_t cols_;
  std::unique_ptr<char, Free> data_;
};

// A kernel table and its entries.
class Kernels {
 public:
  explicit Kernels(const std::string& name) : table_(select_kernels(detect_cpu(), name)) {}

  std::string name() const { return table_.name; }

  int64_t rows_per_task(const std::string& dtype) const {
    return table_.matmul[static_cast<int>(dtype_named(dtype))].rows_per_task;
  }

  Prepared prepare(const std::string& dtype, const ConstRows& x) const {
    require_rows(x, "x");
    return Prepared(table_.matmul[static_cast<int>(dtype_named(dtype))], dtype_named(dtype), x);
  }

  void multiply(const Prepared& x, const ConstArray& w, const Rows& out) const {
    require_rows(w, "w");
    require_rows(out, "out");
    require(dtype_of(w) == x.dtype(), "x was prepared for weights of another dtype");
    require(size_of(w, 1) == x.cols(), "x and w differ in their number of columns");
    require(size_of(out, 0) == x.n_tokens() && out.shape(1) == w.shape(0),
            "out must have x's tokens and w's rows");
    run_product(x, w.data(), w.stride(0), out);
  }

  // `w` are the bytes of n_rows packed rows.
  void multiply_packed(const Prepared& x, const ConstPacked& w, const Rows& out) const {
    require_rows(out, "out");
    require(is_packed(x.dtype()), "x was not prepared for packed weights");
    require(static_cast<int64_t>(w.size()) == packed_bytes(x.dtype(), size_of(out, 1), x.cols()),
            "w must hold as many packed rows as out has columns");
    require(size_of(out, 0) == x.n_tokens(), "out must have x's tokens");
    run_product(x, w.data(), 0, out);
  }

  void store_kv(const ConstRow& key, const ConstRow& value, int64_t slot, const Array& keys,
                const Array& values) const {
    auto head_dim = size_of(key, 0);
    require(slot >= 0 && slot < kBlockPositions, "slot is outside the block");
    require(value.shape(0) == key.shape(0), "key and value differ in size");
    attention_of(keys, values, head_dim)
        .store(key.data(), value.data(), head_dim, slot, keys.data(), values.data());
  }

  void attend(const ConstRows& q, const Array& keys, const Array& values, const Slots& first,
              const Slots& last, float softcap, const Row& max, const Row& sum,
              const Rows& out) const {
    require_rows(q, "q");
    require_rows(out, "out");
    size_t n = q.shape(0);
    require(n <= kMaxQueries && first.size() == n && last.size() == n && max.size() == n &&
                sum.size() == n && out.shape(0) == n,
            "attend takes 1 to 16 queries, and as many ranges, maxima, sums and outputs");
    require(out.shape(1) == q.shape(1) && is_contiguous(q) && is_contiguous(out),
            "q and out must be contiguous and of one shape");
    for (size_t i = 0; i < n; ++i) {
      require(first.data()[i] >= 0 && last.data()[i] <= kBlockPositions,
              "a range reaches outside the block");
    }
    const AttentionKernel& kernel = attention_of(keys, values, size_of(q, 1));
    AttendArgs args = {q.data(),      static_cast<int64_t>(n),
                       size_of(q, 1), keys.data(),
                       values.data(), first.data(),
                       last.data(),   softcap,
                       max.data(),    sum.data(),
                       out.data()};
    nb::gil_scoped_release release;
    kernel.attend(args);
  }

  void load_row(const ConstArray& row, float scale, const Row& out) const {
    require(row.ndim() == 1 && row.shape(0) == out.size() && row.stride(0) == 1,
            "row must be contiguous and as long as out");
    table_.load_row(dtype_of(row), row.data(), scale, size_of(out, 0), out.data());
  }

  void rms_norm(const ConstRow& x, const ConstRow& weight, float offset, float eps,
                const Row& out) const {
    require_same_size(out, {x.size(), weight.size()});
    table_.rms_norm(x.data(), weight.data(), offset, eps, size_of(x, 0), out.data());
  }

  void layer_norm(const ConstRow& x, const ConstRow& weight, const std::optional<ConstRow>& bias,
                  float offset, float eps, const Row& out) const {
    require_same_size(out, {x.size(), weight.size(), bias ? bias->size() : out.size()});
    table_.layer_norm(x.data(), weight.data(), bias ? bias->data() : nullptr, offset, eps,
                      size_of(x, 0), out.data());
  }

  void rope(const Row& head, const ConstRow& cos, const ConstRow& sin, bool interleaved) const {
    require(head.size() == 2 * cos.size() && cos.size() == sin.size(),
            "a head has two numbers for each cosine and sine");
    table_.rope(head.data(), cos.data(), sin.data(), size_of(head, 0), interleaved);
  }

  void activate(Activation activation, const Row& gate, const std::optional<ConstRow>& up) const {
    require_same_size(gate, {up ? up->size() : gate.size()});
    table_.activate(activation, gate.data(), up ? up->data() : nullptr, size_of(gate, 0));
  }

  void add(const Row& x, const ConstRow& y, float scale) const {
    require_same_size(x, {y.size()});
    table_.add(x.data(), y.data(), scale, size_of(x, 0));
  }

  void scale(const Row& x, float factor) const { table_.scale(x.data(), factor, size_of(x, 0)); }

  void softcap(const Row& x, float cap) const {
    require(cap > 0, "cap must be positive");
    table_.softcap(x.data(), cap, size_of(x, 0));
  }

 private:
  void run_product(const Prepared& x, const void* w, int64_t w_stride, const Rows& out) const {
    const MatmulKernel& kernel = table_.matmul[static_cast<int>(x.dtype())];
    nb::gil_scoped_release release;
    AlignedBuffer scratch;
    scratch.reserve(kernel.scratch_bytes(x.cols()));
    kernel.multiply(x.data(), x.n_tokens(), w, w_stride, size_of(out, 1), x.cols(), out.data(),
                    out.stride(0), scratch.data());
  }

  static DType dtype_named(const std::string& name) {
    if (name == "f32") return DType::kF32;
    if (name == "f16") return DType::kF16;
    if (name == "q8") return DType::kQ8;
    if (name == "q4") return DType::kQ4;
    if (name == "bf12") return DType::kBF12;
    require(name == "bf16", "weights are f32, f16, bf16, bf12, q8 or q4");
    return DType::kBF16;
  }

  template <class AnyArray>
  static bool is_contiguous(const AnyArray& array) {
    return array.stride(0) == size_of(array, 1);
  }

  static void require_same_size(const Row& out, std::initializer_list<size_t> sizes) {
    for (size_t size : sizes) require(size == out.size(), "rows differ in length");
    require(out.size() > 0, "rows may not be empty");
  }

  const AttentionKernel& attention_of(const Array& keys, const Array& values,
                                      int64_t head_dim) const {
    if (keys.dtype() == nb::dtype<uint8_t>()) return q8_attention_of(keys, values, head_dim);
    require_rows(keys, "keys");
    require_rows(values, "values");
    require(head_dim > 0 && size_of(keys, 0) == head_dim && size_of(values, 1) == head_dim &&
                size_of(keys, 1) == kBlockPositions && size_of(values, 0) == kBlockPositions &&
                is_contiguous(keys) && is_contiguous(values),
            "keys must be (head_dim, 64) and values (64, head_dim), contiguous");
    DType dtype = dtype_of(keys);
    require(dtype != DType::kBF16 && dtype_of(values) == dtype,
            "keys and values must both be float32 or both float16");
    return table_.attention[static_cast<int>(dtype == DType::kF32 ? KvType::kF32 : KvType::kF16)];
  }

  const AttentionKernel& q8_attention_of(const Array& keys, const Array& values,
                                         int64_t head_dim) const {
    for (const Array* half : {&keys, &values}) {
      require(half->dtype() == nb::dtype<uint8_t>() && half->ndim() == 1 && half->stride(0) == 1 &&
                  size_of(*half, 0) == kv_bytes(KvType::kQ8, head_dim),
              "keys and values of q8 are 64 * (head_dim + 4) bytes each");
    }
    return table_.attention[static_cast<int>(KvType::kQ8)];
  }

  const KernelTable& table_;
};

std::vector<std::string> supported_names() {
  CpuFeatures cpu = detect_cpu();
  std::vector<std::string> names;
  for (const KernelTable* table : kernel_tables()) {
    if (table->supported(cpu)) names.push_back(table->name);
  }
  return names;
}

// Reads every byte once, as fast as a plain loop can, and nothing else.
uint64_t read_once(const nb::ndarray<const uint64_t, nb::ndim<1>, nb::c_contig>& words) {
  constexpr size_t kSums = 16;
  uint64_t sums[kSums] = {};
  nb::gil_scoped_release release;
  for (size_t i = 0; i + kSums <= words.size(); i += kSums) {
    for (size_t j = 0; j < kSums; ++j) sums[j] ^= words.data()[i + j];
  }
  return std::accumulate(sums, sums + kSums, uint64_t{0});
}

}  // namespace

void bind_kernels(nb::module_& m) {
  nb::module_ kernels = m.def_submodule("kernels", "The kernel tables, entry by entry.");
  kernels.def("supported", supported_names, "Names of the tables that this CPU runs, best first.");
  kernels.def("read_once", read_once, "words"_a);

  nb::class_<Prepared>(kernels, "Prepared")
      .def_prop_ro("n_tokens", &Prepared::n_tokens)
      .def_prop_ro("cols", &Prepared::cols);

  nb::class_<Kernels>(kernels, "Kernels")
      .def(nb::init<const std::string&>(), "name"_a = "")
      .def_prop_ro("name", &Kernels::name)
      .def("rows_per_task", &Kernels::rows_per_task, "dtype"_a)
      .def("prepare", &Kernels::prepare, "dtype"_a, "x"_a)
      .def("multiply", &Kernels::multiply, "x"_a, "w"_a, "out"_a)
      .def("multiply_packed", &Kernels::multiply_packed, "x"_a, "w"_a, "out"_a)
      .def("store_kv", &Kernels::store_kv, "key"_a, "value"_a, "slot"_a, "keys"_a, "values"_a)
      .def("attend", &Kernels::attend, "q"_a, "keys"_a, "values"_a, "first"_a, "last"_a,
           "softcap"_a, "max"_a, "sum"_a, "out"_a)
      .def("load_row", &Kernels::load_row, "row"_a, "scale"_a, "out"_a)
      .def("rms_norm", &Kernels::rms_norm, "x"_a, "weight"_a, "offset"_a, "eps"_a, "out"_a)
      .def("layer_norm", &Kernels::layer_norm, "x"_a, "weight"_a, "bias"_a.none(), "offset"_a,
           "eps"_a, "out"_a)
      .def("rope", &Kernels::rope, "head"_a, "cos"_a, "sin"_a, "interleaved"_a)
      .def("activate", &Kernels::activate, "activation"_a, "gate"_a, "up"_a.none())
      .def("add", &Kernels::add, "x"_a, "y"_a, "scale"_a)
      .def("scale", &Kernels::scale, "x"_a, "factor"_a)
      .def("softcap", &Kernels::softcap, "x"_a, "cap"_a);
}

}  // namespace influence
