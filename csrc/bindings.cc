// The engine as Python sees it: the module influence._native.
//
// Converts arguments, releases the GIL around the work, and turns the core's
// exceptions into Python's. Knows shapes, not arithmetic.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include "bindings_weights.h"
#include "choosing.h"
#include "cpu.h"
#include "decoder.h"
#include "kernels/kernels.h"
#include "mapped_file_guard.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace influence {

void bind_crc32(nb::module_& m);
void bind_kernels(nb::module_& m);

namespace {

using TokenIds = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

std::vector<RopeShape> rope_shapes(const std::vector<std::pair<int64_t, bool>>& ropes) {
  std::vector<RopeShape> shapes;
  for (auto [rotary_dim, interleaved] : ropes) shapes.push_back({rotary_dim, interleaved});
  return shapes;
}

KvType kv_type_named(const std::string& name) {
  if (name == "f32") return KvType::kF32;
  if (name == "f16") return KvType::kF16;
  require(name == "q8", "the KV cache holds f32, f16 or q8");
  return KvType::kQ8;
}

// The decoder and the Python objects whose memory it reads.
struct PyDecoder {
  nb::list kept_alive;
  std::unique_ptr<Decoder> decoder;
  Chooser chooser;
};

std::optional<int64_t> choose(PyDecoder& self, int64_t row, float temperature, int64_t top_k,
                              double top_p, double min_p, double chance) {
  Decoder& decoder = *self.decoder;
  require(row >= 0 && row < decoder.n_logits(), "there is no such row of logits");
  const auto n = static_cast<size_t>(decoder.spec().vocab_size);
  nb::gil_scoped_release release;
  return self.chooser.choose({decoder.logits() + row * n, n}, {temperature, top_k, top_p, min_p},
                             chance);
}

void forward(PyDecoder& self, const std::vector<nb::tuple>& steps) {
  std::vector<TokenIds> token_ids;  // keeps the arrays alive while the GIL is gone
  std::vector<Step> converted;
  for (const nb::tuple& step : steps) {
    token_ids.push_back(nb::cast<TokenIds>(step[1]));
    converted.push_back({nb::cast<Session*>(step[0]),
                         {token_ids.back().data(), token_ids.back().size()},
                         nb::cast<int64_t>(step[2])});
  }
  nb::gil_scoped_release release;
  self.decoder->forward(converted);
}

using LogitRows = nb::ndarray<float, nb::numpy, nb::ndim<2>, nb::device::cpu>;

LogitRows logits(nb::handle self) {
  Decoder& decoder = *nb::cast<PyDecoder&>(self).decoder;
  return LogitRows(
      decoder.logits(),
      {static_cast<size_t>(decoder.n_logits()), static_cast<size_t>(decoder.spec().vocab_size)},
      self);
}

Ropes ropes_of(const Spec& spec, const std::vector<std::pair<Floats, float>>& ropes) {
  require(ropes.size() == spec.ropes.size(), "a session needs the frequencies of every rope");
  auto out = std::make_shared<std::vector<RopeFrequencies>>();
  for (size_t i = 0; i < ropes.size(); ++i) {
    const auto& [inv_freq, factor] = ropes[i];
    require(static_cast<int64_t>(inv_freq.size()) * 2 == spec.ropes[i].rotary_dim,
            "a rope has rotary_dim / 2 frequencies");
    out->push_back({{inv_freq.data(), inv_freq.data() + inv_freq.size()}, factor});
  }
  return out;
}

void bind_spec(nb::module_& m) {
  nb::enum_<Norm>(m, "Norm").value("rms", Norm::kRms).value("layer", Norm::kLayer);
  nb::enum_<Activation>(m, "Activation")
      .value("silu", Activation::kSilu)
      .value("gelu", Activation::kGelu)
      .value("gelu_tanh", Activation::kGeluTanh)
      .value("relu", Activation::kRelu)
      .value("relu_squared", Activation::kReluSquared);
  nb::enum_<QkNorm>(m, "QkNorm")
      .value("none", QkNorm::kNone)
      .value("head", QkNorm::kHead)
      .value("full", QkNorm::kFull);
  nb::class_<Spec>(m, "Spec")
      .def(nb::init<>())
      .def_rw("vocab_size", &Spec::vocab_size)
      .def_rw("hidden_size", &Spec::hidden_size)
      .def_rw("intermediate_size", &Spec::intermediate_size)
      .def_rw("n_layers", &Spec::n_layers)
      .def_rw("n_heads", &Spec::n_heads)
      .def_rw("n_kv_heads", &Spec::n_kv_heads)
      .def_rw("head_dim", &Spec::head_dim)
      .def_rw("norm", &Spec::norm)
      .def_rw("norm_eps", &Spec::norm_eps)
      .def_rw("norm_offset", &Spec::norm_offset)
      .def_rw("activation", &Spec::activation)
      .def_rw("qk_norm", &Spec::qk_norm)
      .def_rw("parallel_block", &Spec::parallel_block)
      .def_rw("attention_scale", &Spec::attention_scale)
      .def_rw("attention_softcap", &Spec::attention_softcap)
      .def_rw("logit_softcap", &Spec::logit_softcap)
      .def_rw("embedding_scale", &Spec::embedding_scale)
      .def_rw("residual_scale", &Spec::residual_scale)
      .def_rw("logit_scale", &Spec::logit_scale)
      .def_rw("layer_rope", &Spec::layer_rope)
      .def_rw("layer_window", &Spec::layer_window)
      .def(
          "set_ropes",
          [](Spec& spec, const std::vector<std::pair<int64_t, bool>>& ropes) {
            spec.ropes = rope_shapes(ropes);
          },
          "ropes"_a);
}

using Blocks = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using OwnedBlocks = nb::ndarray<uint8_t, nb::numpy, nb::ndim<2>, nb::device::cpu>;

OwnedBlocks read_blocks(const Session& session, int64_t first, int64_t n) {
  require(!session.closed(), "the session is closed");
  require(first >= 0 && n >= 0 && first <= session.position() && n <= session.position(),
          "the blocks are not all filled");
  const auto bytes = static_cast<size_t>(session.block_bytes());
  auto* memory = new char[static_cast<size_t>(n) * bytes];
  nb::capsule owner(memory, [](void* p) noexcept { delete[] static_cast<char*>(p); });
  {
    nb::gil_scoped_release release;
    session.read_blocks(first, n, memory);
  }
  return OwnedBlocks(memory, {static_cast<size_t>(n), bytes}, owner);
}

void append_blocks(Session& session, const Blocks& blocks) {
  require(!session.closed(), "the session is closed");
  require(static_cast<int64_t>(blocks.shape(1)) == session.block_bytes(),
          "the blocks have another size");
  nb::gil_scoped_release release;
  session.append_blocks(static_cast<int64_t>(blocks.shape(0)),
                        reinterpret_cast<const char*>(blocks.data()));
}

void bind_session(nb::module_& m) {
  nb::class_<Session>(m, "Session")
      .def_prop_ro("position", &Session::position)
      .def_prop_ro("context", &Session::context)
      .def("rewind", &Session::rewind, "position"_a)
      .def("fork", &Session::fork, "position"_a)
      .def("read_blocks", &read_blocks, "first"_a, "n"_a)
      .def("append_blocks", &append_blocks, "blocks"_a)
      .def("close", &Session::close);
}

void bind_decoder(nb::module_& m) {
  nb::class_<PyDecoder>(m, "Decoder")
      .def(
          "__init__",
          [](PyDecoder* self, const Spec& spec, const nb::dict& outer, const nb::list& layers,
             const std::string& kernels, int n_threads, const std::string& kv_type,
             int64_t kv_blocks, int64_t shared_work) {
            nb::list kept;
            kept.append(outer);
            kept.append(layers);
            auto decoder = std::make_unique<Decoder>(
                spec, weights_of(outer, layers), select_kernels(detect_cpu(), kernels), n_threads,
                kv_type_named(kv_type), kv_blocks, shared_work);
            new (self) PyDecoder{std::move(kept), std::move(decoder), {}};
          },
          "spec"_a, "outer"_a, "layers"_a, "kernels"_a, "n_threads"_a, "kv_type"_a, "kv_blocks"_a,
          "shared_work"_a)
      .def_prop_ro("kernels",
                   [](const PyDecoder& self) { return std::string(self.decoder->kernels().name); })
      .def_prop_ro("n_threads", [](const PyDecoder& self) { return self.decoder->n_threads(); })
      .def_prop_ro("n_blocks",
                   [](const PyDecoder& self) { return self.decoder->cache()->n_blocks(); })
      .def_prop_ro("n_free_blocks",
                   [](const PyDecoder& self) { return self.decoder->cache()->n_free(); })
      .def(
          "new_session",
          [](PyDecoder& self, int64_t context, const std::vector<std::pair<Floats, float>>& ropes) {
            return std::make_unique<Session>(self.decoder->cache(),
                                             ropes_of(self.decoder->spec(), ropes), context);
          },
          "context"_a, "ropes"_a)
      .def("forward", &forward, "steps"_a)
      .def_prop_ro("n_logits", [](const PyDecoder& self) { return self.decoder->n_logits(); })
      .def("choose", &choose, "row"_a, "temperature"_a, "top_k"_a, "top_p"_a, "min_p"_a, "chance"_a)
      .def("logits", [](nb::handle_t<PyDecoder> self) { return logits(self); });
}

}  // namespace

NB_MODULE(_native, m) {
  nb::set_leak_warnings(false);  // at exit the threads of an interrupted program may hold objects
  m.doc() = "The native core: kernel tables, KV cache, decoder.";
  nb::register_exception_translator([](const std::exception_ptr& p, void*) {
    try {
      std::rethrow_exception(p);
    } catch (const OutOfBlocks& e) {
      PyErr_SetString(PyExc_MemoryError, e.what());
    }
  });
  m.attr("BLOCK_POSITIONS") = kBlockPositions;
  m.def("cpu_features", [] { return detect_cpu().names(); });
  m.def(
      "kv_block_bytes",
      [](const Spec& spec, const std::string& kv_type) {
        return KvCache::block_bytes(spec, kv_type_named(kv_type));
      },
      "spec"_a, "kv_type"_a);
  m.def(
      "watch_mapped_file",
      [](const Memory& mapping, const char* path) {
        watch_mapped_file(reinterpret_cast<uintptr_t>(mapping.data()), mapping.size(), path);
      },
      "mapping"_a, "path"_a);
  m.def(
      "unwatch_mapped_file",
      [](const Memory& mapping) {
        unwatch_mapped_file(reinterpret_cast<uintptr_t>(mapping.data()));
      },
      "mapping"_a);
  bind_spec(m);
  bind_session(m);
  bind_weights(m);
  bind_decoder(m);
  bind_kernels(m);
  bind_crc32(m);
}

}  // namespace influence
