// A checksum of bytes as Python calls it: influence._native.crc32.
#include <nanobind/nanobind.h>

#include "crc32.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace influence {

void bind_crc32(nb::module_& m);

namespace {

// The bytes of anything that has some in one piece, held for as long as this lives.
class HeldBytes {
 public:
  explicit HeldBytes(nb::handle object) {
    if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_SIMPLE) != 0) nb::raise_python_error();
  }
  ~HeldBytes() { PyBuffer_Release(&view_); }
  HeldBytes(const HeldBytes&) = delete;
  HeldBytes& operator=(const HeldBytes&) = delete;

  const uint8_t* data() const { return static_cast<const uint8_t*>(view_.buf); }
  size_t size() const { return static_cast<size_t>(view_.len); }

 private:
  Py_buffer view_;
};

// The GIL is kept: a piece of a file takes less time than handing the lock over and back.
uint32_t crc32_of(nb::handle data, uint32_t crc) {
  const HeldBytes bytes(data);
  return crc32(bytes.data(), bytes.size(), crc);
}

}  // namespace

void bind_crc32(nb::module_& m) {
  m.def("has_fast_crc32", &has_fast_crc32);
  m.def("crc32", &crc32_of, "data"_a, "crc"_a = 0);
}

}  // namespace influence
