#include "kv_cache.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <limits>

namespace influence {
namespace {

int64_t half_block_bytes(const Spec& spec, KvType type) {
  return round_up(kv_bytes(type, spec.head_dim), kAlignment);
}

}  // namespace

int64_t KvCache::block_bytes(const Spec& spec, KvType type) {
  return spec.n_layers * spec.n_kv_heads * 2 * half_block_bytes(spec, type);
}

KvCache::KvCache(const Spec& spec, KvType type, int64_t n_blocks)
    : type_(type),
      n_kv_heads_(spec.n_kv_heads),
      half_bytes_(half_block_bytes(spec, type)),
      block_bytes_(block_bytes(spec, type)),
      reserved_bytes_(n_blocks * block_bytes_) {
  require(n_blocks >= 1, "the KV cache needs at least one block");
  require(
      n_blocks <= std::numeric_limits<int>::max() && n_blocks <= (int64_t{1} << 46) / block_bytes_,
      "the KV cache is larger than the address space");
  void* memory = mmap(nullptr, reserved_bytes_, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw OutOfBlocks("the system has no room for the KV cache");
  memory_ = static_cast<char*>(memory);
  references_.assign(n_blocks, 0);
  for (int64_t block = n_blocks; block-- > 0;) free_.push_back(static_cast<int>(block));
}

KvCache::~KvCache() { munmap(memory_, reserved_bytes_); }

int KvCache::take() {
  if (free_.empty()) throw OutOfBlocks("the KV cache has no free block");
  int block = free_.back();
  free_.pop_back();
  references_[block] = 1;
  return block;
}

void KvCache::retain(int block) { ++references_[block]; }

void KvCache::release(int block) {
  if (--references_[block] == 0) free_.push_back(block);
}

void KvCache::copy(int from, int to) {
  std::memcpy(memory_ + to * block_bytes_, memory_ + from * block_bytes_, block_bytes_);
}

const int64_t Session::kBlock = kBlockPositions;

Session::Session(std::shared_ptr<KvCache> cache, Ropes ropes, int64_t context)
    : cache_(std::move(cache)), ropes_(std::move(ropes)), context_(context) {
  require(context >= 1, "a session's context must be at least 1");
  blocks_.reserve(std::min(ceil_div(context, kBlock), cache_->n_blocks()));
}

void Session::close() {
  if (closed()) return;
  rewind(0);
  cache_.reset();
}

void Session::rewind(int64_t position) {
  require(!closed(), "the session is closed");
  require(0 <= position && position <= position_, "can't rewind to a position not yet reached");
  position_ = position;
  trim();
}

void Session::trim() {
  while (static_cast<int64_t>(blocks_.size()) > ceil_div(position_, kBlock)) {
    cache_->release(blocks_.back());
    blocks_.pop_back();
  }
}

std::unique_ptr<Session> Session::fork(int64_t position) const {
  require(!closed(), "the session is closed");
  require(0 <= position && position <= position_, "can't fork at a position not yet reached");
  auto forked = std::make_unique<Session>(cache_, ropes_, context_);
  forked->position_ = position;
  forked->blocks_.assign(blocks_.begin(), blocks_.begin() + ceil_div(position, kBlock));
  for (int block : forked->blocks_) cache_->retain(block);
  return forked;
}

void Session::read_blocks(int64_t first, int64_t n, char* out) const {
  require(!closed(), "the session is closed");
  require(first >= 0 && n >= 0 && (first + n) * kBlock <= position_,
          "the blocks are not all filled");
  for (int64_t i = 0; i < n; ++i) {
    std::memcpy(out + i * block_bytes(), cache_->data(blocks_[first + i]), block_bytes());
  }
}

void Session::append_blocks(int64_t n, const char* blocks) {
  require(!closed(), "the session is closed");
  require(position_ % kBlock == 0, "blocks are appended at a block's beginning");
  require(position_ + n * kBlock <= context_, "the blocks reach beyond the context");
  if (n > cache_->n_free()) throw OutOfBlocks("the KV cache has no free blocks");
  for (int64_t i = 0; i < n; ++i) {
    blocks_.push_back(cache_->take());
    std::memcpy(cache_->data(blocks_.back()), blocks + i * block_bytes(), block_bytes());
  }
  position_ += n * kBlock;
}

bool Session::tail_is_shared() const {
  return position_ % kBlock != 0 && cache_->shared(blocks_.back());
}

int64_t Session::blocks_needed(int64_t n_tokens) const {
  int64_t held = static_cast<int64_t>(blocks_.size());
  return ceil_div(position_ + n_tokens, kBlock) - held + (tail_is_shared() ? 1 : 0);
}

void Session::reserve(int64_t n_tokens) {
  if (tail_is_shared()) {
    int own = cache_->take();
    cache_->copy(blocks_.back(), own);
    cache_->release(blocks_.back());
    blocks_.back() = own;
  }
  while (static_cast<int64_t>(blocks_.size()) < ceil_div(position_ + n_tokens, kBlock)) {
    blocks_.push_back(cache_->take());
  }
}

}  // namespace influence
