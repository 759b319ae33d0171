// What goes through the layers together: rows of activations, one for each
// token, in segments of one session each.
#pragma once

#include "kv_cache.h"

namespace influence {

// Neighbouring tokens of one session.
struct Segment {
  Session* session;
  const int32_t* token_ids;
  int64_t n_tokens;
  int64_t n_logits;  // its last tokens that give a logit row
  int64_t position;  // of its first token
  int64_t row;       // of its first token in the activations
};

// One token.
struct Row {
  const Segment* segment;
  int32_t token_id;
  int64_t position;
};

}  // namespace influence
