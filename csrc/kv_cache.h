// The KV cache: one pool of equal blocks, and the sessions that hold them.
//
// A block keeps kBlockPositions positions of every layer and KV head:
//
//     block: layer 0 [head 0: keys (head_dim, P), values (P, head_dim)] [head 1] ...  layer 1 ...
//
// with P = kBlockPositions. Keys are transposed so that attention's lanes are
// positions; kv_bytes() says what a half holds. Blocks are counted by reference: sessions forked
// from each other share the blocks below the fork, and who writes into a shared one copies it.
#pragma once

#include <memory>
#include <vector>

#include "base.h"
#include "kernels/kernels.h"
#include "spec.h"

namespace influence {

class KvCache {
 public:
  // Address space for n_blocks is reserved at once; memory comes as it is used.
  KvCache(const Spec& spec, KvType type, int64_t n_blocks);
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  // Bytes of one block.
  static int64_t block_bytes(const Spec& spec, KvType type);

  KvType type() const { return type_; }
  int64_t bytes_per_block() const { return block_bytes_; }
  int64_t n_blocks() const { return static_cast<int64_t>(references_.size()); }
  int64_t n_free() const { return static_cast<int64_t>(free_.size()); }
  bool shared(int block) const { return references_[block] > 1; }

  int take();  // a free block with one reference; throws OutOfBlocks
  void retain(int block);
  void release(int block);
  void copy(int from, int to);
  char* data(int block) const { return memory_ + block * block_bytes_; }

  void* keys(int block, int64_t layer, int64_t kv_head) const {
    return memory_ + block * block_bytes_ + (layer * n_kv_heads_ + kv_head) * 2 * half_bytes_;
  }
  void* values(int block, int64_t layer, int64_t kv_head) const {
    return static_cast<char*>(keys(block, layer, kv_head)) + half_bytes_;
  }

 private:
  const KvType type_;
  const int64_t n_kv_heads_;
  const int64_t half_bytes_;  // the keys, or the values, of one head in one block
  const int64_t block_bytes_;
  const int64_t reserved_bytes_;
  char* memory_ = nullptr;
  std::vector<int> references_;  // by block
  std::vector<int> free_;        // a stack: the warmest block is reused first
};

// Rotary frequencies of one session, one entry for each of the spec's ropes.
struct RopeFrequencies {
  std::vector<float> inv_freq;  // (rotary_dim / 2,) radians a position
  float attention_factor = 1;   // multiplies cos and sin
};
using Ropes = std::shared_ptr<const std::vector<RopeFrequencies>>;

// One timeline of positions.
class Session {
 public:
  Session(std::shared_ptr<KvCache> cache, Ropes ropes, int64_t context);
  ~Session() { close(); }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  int64_t position() const { return position_; }
  int64_t context() const { return context_; }
  const std::vector<RopeFrequencies>& ropes() const { return *ropes_; }
  int block_at(int64_t position) const { return blocks_[position / kBlock]; }

  void rewind(int64_t position);
  std::unique_ptr<Session> fork(int64_t position) const;
  int64_t block_bytes() const { return cache_->bytes_per_block(); }
  // Copies out blocks [first, first + n), every position of which is filled.
  void read_blocks(int64_t first, int64_t n,
                   char* out) const;  // (n, block_bytes())
  // Goes on by blocks that read_blocks gave, from a position at a block's beginning. Nothing has
  // changed if it throws OutOfBlocks.
  void append_blocks(int64_t n,
                     const char* blocks);  // (n, block_bytes())
  void close();
  bool closed() const { return cache_ == nullptr; }

  // Blocks that must be taken before n more tokens can be written.
  int64_t blocks_needed(int64_t n_tokens) const;
  // Takes them, so that positions [position, position + n) can be written.
  void reserve(int64_t n_tokens);
  // Drops what reserve() took and nobody wrote.
  void trim();
  void advance(int64_t n_tokens) { position_ += n_tokens; }

 private:
  static const int64_t kBlock;

  bool tail_is_shared() const;

  std::shared_ptr<KvCache> cache_;
  Ropes ropes_;
  int64_t context_;
  int64_t position_ = 0;
  std::vector<int> blocks_;
};

}  // namespace influence
