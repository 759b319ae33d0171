// Weights as Python hands them over.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "weights.h"

namespace influence {

// Memory as any object of Python's lends it: a mapped file, bytes.
using Memory =
    nanobind::ndarray<const uint8_t, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu>;

// Slots by name: of the outer weights, and of each layer. The objects in them own the memory.
DecoderWeights weights_of(const nanobind::dict& outer, const nanobind::list& layers);

// The classes Stored and Packed, and how weights are packed.
void bind_weights(nanobind::module_& m);

}  // namespace influence
