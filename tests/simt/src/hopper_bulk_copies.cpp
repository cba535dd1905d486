// Bulk copies: see hopper_bulk_copies.h.
//
// Nobody may touch a load's target from its start until it has landed. Whether a thread may read it
// after that is up to the race checker: the write is by the copy's agent, of which a thread learns
// through the mbarrier. A store's source is read-only from its start until its thread has waited.
// SPDX-License-Identifier: Apache-2.0
#include "hopper_bulk_copies.h"

#include <simt/hopper.h>

#include <algorithm>
#include <cstring>

#include "engine.h"
#include "hopper_units.h"

namespace simt::engine {

void BulkCopies::start_block() {
  loads_.clear();
  stores_.clear();
  groups_.clear();
}

void BulkCopies::start_load(Engine& engine, const Thread& thread, BulkLoad& load) {
  load.agent = engine.next_agent();
  engine.clocks().inherit(load.agent, thread.id);
  char* target = engine.shared().base() + load.shared_offset;
  const UnfencedAccess write = find_unfenced_write(engine, load.agent, target, load.bytes);
  const UnfencedAccess read = find_unfenced_read(engine, load.agent, target, load.bytes);
  engine.begin_write(thread, load.agent, target, load.bytes);
  for (const UnfencedAccess& unfenced : {write, read}) {
    report_unfenced(engine, thread, unfenced, "starts a bulk copy that overwrites");
  }
  for (const Piece& piece : load.pieces) {
    if (piece.address == 0) continue;
    engine.check_access(thread, reinterpret_cast<const void*>(piece.address), piece.bytes,
                        Access::kRead);
  }
  const auto complete = [&engine, &load] {
    for (const Piece& piece : load.pieces) {
      char* to = engine.shared().base() + piece.shared_offset;
      if (piece.address == 0) {
        std::memset(to, 0, piece.bytes);
      } else {
        std::memcpy(to, reinterpret_cast<const void*>(piece.address), piece.bytes);
      }
    }
    load.pieces = {};
    MbarrierState& barrier = *load.barrier;
    std::erase(barrier.operations, load.operation);
    engine.finish_write(load.agent, engine.shared().base() + load.shared_offset, load.bytes);
    HopperUnits::instance().mbarriers.land(engine, barrier, load.agent,
                                           static_cast<uint32_t>(load.bytes));
  };
  const uint64_t operation = engine.start_async({complete, load.what, thread.id});
  if (load.pieces.empty()) return;  // It has already landed.
  load.operation = operation;
  load.barrier->operations.push_back(operation);
}

void BulkCopies::start_store(Engine& engine, const Thread& thread, BulkStore& store) {
  store.agent = engine.next_agent();
  engine.clocks().inherit(store.agent, thread.id);
  char* source = engine.shared().base() + store.shared_offset;
  const UnfencedAccess unfenced = find_unfenced_write(engine, store.agent, source, store.bytes);
  engine.begin_read(thread, store.agent, source, store.bytes);
  report_unfenced(engine, thread, unfenced, "starts a bulk copy that reads");
  for (const Piece& piece : store.pieces) {
    if (piece.address == 0) continue;
    engine.check_access(thread, reinterpret_cast<const void*>(piece.address), piece.bytes,
                        Access::kWrite);
  }
  groups_[thread.id].open.push_back(&store);
  const auto do_read = [&engine, &store] { read(engine, store); };
  const auto do_write = [&engine, &store] { write(engine, store); };
  store.read_operation =
      engine.start_async({do_read, store.what, thread.id, /*must_be_awaited=*/false});
  store.write_operation =
      engine.start_async({do_write, store.what, thread.id, /*must_be_awaited=*/false});
}

void BulkCopies::read(Engine& engine, BulkStore& store) {
  if (store.has_read) return;
  store.has_read = true;
  for (const Piece& piece : store.pieces) {
    const char* from = engine.shared().base() + piece.shared_offset;
    if (piece.address != 0) store.data.insert(store.data.end(), from, from + piece.bytes);
  }
}

void BulkCopies::write(Engine& engine, BulkStore& store) {
  if (store.has_written) return;
  read(engine, store);
  store.has_written = true;
  const char* from = store.data.data();
  for (const Piece& piece : store.pieces) {
    if (piece.address == 0) continue;
    std::memcpy(reinterpret_cast<void*>(piece.address), from, piece.bytes);
    from += piece.bytes;
  }
  store.data = {};
  store.pieces = {};
}

void BulkCopies::commit(const Thread& thread) {
  ThreadGroups& groups = groups_[thread.id];
  groups.committed.push_back(std::move(groups.open));
  groups.open.clear();
}

void BulkCopies::finish_read(Engine& engine, const Thread& thread, const Group& group) {
  for (BulkStore* store : group) {
    engine.complete_async(store->read_operation);
    read(engine, *store);
    engine.finish_read(engine.shared().base() + store->shared_offset, store->bytes);
    engine.clocks().inherit_count(thread.id, store->agent);
  }
}

void BulkCopies::wait(Engine& engine, const Thread& thread, std::size_t pending, bool read_only) {
  ThreadGroups& groups = groups_[thread.id];
  if (groups.committed.size() <= pending) return;
  const std::size_t done = groups.committed.size() - pending;
  for (; groups.num_read < done; ++groups.num_read) {
    finish_read(engine, thread, groups.committed[groups.num_read]);
  }
  if (read_only) return;
  for (std::size_t i = 0; i < done; ++i) {
    for (BulkStore* store : groups.committed.front()) engine.complete_async(store->write_operation);
    groups.committed.pop_front();
    --groups.num_read;
  }
}

void BulkCopies::thread_exits(Engine& engine, const Thread& thread) {
  const auto found = groups_.find(thread.id);
  if (found == groups_.end()) return;
  const ThreadGroups& groups = found->second;
  bool reading = !groups.open.empty();
  for (std::size_t i = groups.num_read; i < groups.committed.size(); ++i) {
    reading = reading || !groups.committed[i].empty();
  }
  if (reading) {
    engine.fail(thread, "exits with bulk copies from shared memory that it has not waited for");
  }
}

}  // namespace simt::engine

namespace simt {
namespace {

using engine::BulkCopies;
using engine::BulkCopy;
using engine::BulkLoad;
using engine::BulkStore;
using engine::Engine;
using engine::HopperUnits;
using engine::LibraryCall;
using engine::TensorMap;
using engine::Thread;

constexpr std::size_t kRunAlignment = 16;
constexpr std::size_t kBoxAlignment = 128;

BulkCopies& copies() { return HopperUnits::instance().bulk_copies; }

void set_shared(Engine& engine, const Thread& thread, BulkCopy& copy, const void* shared,
                std::size_t alignment) {
  if (!engine.shared().contains(shared) || reinterpret_cast<uintptr_t>(shared) % alignment != 0) {
    engine.fail(thread, [&] {
      return "starts " + std::string(copy.what) +
             " whose shared address is not one of shared memory, or not a multiple of " +
             std::to_string(alignment);
    });
  }
  copy.shared_offset = engine.shared().offset_of(shared);
}

void set_run(Engine& engine, const Thread& thread, BulkCopy& copy, const void* shared,
             const void* global, uint32_t bytes) {
  set_shared(engine, thread, copy, shared, kRunAlignment);
  const auto address = reinterpret_cast<uintptr_t>(global);
  if (address % kRunAlignment != 0 || bytes % kRunAlignment != 0 || bytes == 0 ||
      !engine::DeviceHeap::instance().contains(global)) {
    engine.fail(thread, [&] {
      return "starts " + std::string(copy.what) + " of " + std::to_string(bytes) +
             " bytes: bytes and addresses are multiples of 16, the other side device memory";
    });
  }
  copy.bytes = bytes;
  copy.pieces.push_back({copy.shared_offset, address, bytes});
}

/// The map at this address, checked for a copy of this rank.
TensorMap map_at(Engine& engine, const Thread& thread, const CUtensorMap* address, int rank,
                 const char* what) {
  TensorMap map;
  if (reinterpret_cast<uintptr_t>(address) % 64 != 0 || address == nullptr ||
      !engine::decode_tensor_map(*address, map)) {
    engine.fail(thread, [&] {
      return "starts " + std::string(what) + " with what is not a tensor map, 64-byte aligned";
    });
  }
  if (map.rank != rank) {
    engine.fail(thread, [&] {
      return "starts " + std::string(what) + " with " + std::to_string(rank) +
             " coordinates, the tensor map has " + std::to_string(map.rank);
    });
  }
  if (map.swizzle != CU_TENSOR_MAP_SWIZZLE_NONE && map.row_bytes() != map.swizzle_bytes()) {
    engine.fail(thread, [&] {
      return "starts " + std::string(what) + " of a box " + std::to_string(map.row_bytes()) +
             " bytes wide, swizzled in " + std::to_string(map.swizzle_bytes()) +
             ": where the rest of the row goes is not documented, so not emulated";
    });
  }
  return map;
}

void set_box(Engine& engine, const Thread& thread, BulkCopy& copy, const void* shared,
             const CUtensorMap* address, const int32_t* coordinates, int rank) {
  set_shared(engine, thread, copy, shared, kBoxAlignment);
  const TensorMap map = map_at(engine, thread, address, rank, copy.what);
  copy.bytes = map.box_bytes();
  engine::append_pieces(map, coordinates, copy.shared_offset, copy.pieces);
}

}  // namespace

void prefetch_tensor_map(const CUtensorMap* map) {
  LibraryCall call;
  TensorMap decoded;
  if (map == nullptr || !engine::decode_tensor_map(*map, decoded)) {
    call.engine().fail(call.thread(), "prefetches what is not a tensor map");
  }
}

void bulk_load(void* shared, const void* global, uint32_t bytes, void* barrier) {
  LibraryCall call;
  Engine& engine = call.engine();
  engine.maybe_yield();
  BulkLoad& load = copies().new_load();
  load.what = "a bulk load";
  set_run(engine, call.thread(), load, shared, global, bytes);
  load.barrier = &HopperUnits::instance().mbarriers.at_for_copy(engine, call.thread(), barrier);
  copies().start_load(engine, call.thread(), load);
}

void bulk_tensor_load(void* shared, const CUtensorMap* map, const int32_t* coordinates, int rank,
                      void* barrier) {
  LibraryCall call;
  Engine& engine = call.engine();
  engine.maybe_yield();
  BulkLoad& load = copies().new_load();
  load.what = "a bulk tensor load";
  set_box(engine, call.thread(), load, shared, map, coordinates, rank);
  load.barrier = &HopperUnits::instance().mbarriers.at_for_copy(engine, call.thread(), barrier);
  copies().start_load(engine, call.thread(), load);
}

void bulk_store(void* global, const void* shared, uint32_t bytes) {
  LibraryCall call;
  Engine& engine = call.engine();
  engine.maybe_yield();
  BulkStore& store = copies().new_store();
  store.what = "a bulk store";
  set_run(engine, call.thread(), store, shared, global, bytes);
  copies().start_store(engine, call.thread(), store);
}

void bulk_tensor_store(const CUtensorMap* map, const int32_t* coordinates, int rank,
                       const void* shared) {
  LibraryCall call;
  Engine& engine = call.engine();
  engine.maybe_yield();
  BulkStore& store = copies().new_store();
  store.what = "a bulk tensor store";
  set_box(engine, call.thread(), store, shared, map, coordinates, rank);
  copies().start_store(engine, call.thread(), store);
}

void bulk_commit() {
  LibraryCall call;
  copies().commit(call.thread());
}

void bulk_wait(int pending, bool read_only) {
  LibraryCall call;
  call.engine().maybe_yield();
  copies().wait(call.engine(), call.thread(), static_cast<std::size_t>(pending), read_only);
}

}  // namespace simt
