// SPDX-License-Identifier: Apache-2.0
#include "wgmma_program.h"

#include <bit>
#include <cstring>

namespace ptxsim::test {
namespace {

constexpr u32 kThreads = 128;

/// The element's place, from A's rows or the accumulators.
struct Place {
  u32 row = 0, column = 0;
};
/// Place of element i of the eight that a thread holds of A, in pairs (figure "WGMMA .m64nNk16
/// register fragment layout for matrix A").
Place place_of_a(u32 thread, u32 i) {
  const u32 warp = thread / 32, lane = thread % 32;
  const bool is_low_row = i < 2 || (i >= 4 && i < 6);
  return {16 * warp + lane / 4 + (is_low_row ? 0u : 8u), lane % 4 * 2 + i % 2 + (i >= 4 ? 8u : 0u)};
}
/// Place of element i of an accumulator fragment (figure "... for accumulator matrix D").
Place place_of_d(u32 thread, u32 i) {
  const u32 warp = thread / 32, lane = thread % 32;
  return {16 * warp + lane / 4 + 8 * (i / 2 % 2), 8 * (i / 4) + lane % 4 * 2 + i % 2};
}

std::string numbers(const char* prefix, u32 count) {
  std::string text;
  for (u32 i = 0; i < count; ++i) text += (i == 0 ? "" : ", ") + (prefix + std::to_string(i));
  return text;
}

}  // namespace

WgmmaProgram::WgmmaProgram(const WgmmaCase& product, std::vector<float> a, std::vector<float> b,
                           std::vector<float> c)
    : product_(product),
      a_layout_(product, product.a_is_mn_major, 64),
      b_layout_(product, product.b_is_mn_major, product.n),
      shared_(a_layout_.bytes() + b_layout_.bytes()),
      a_registers_(4 * kThreads),
      accumulators_(product.num_registers() * kThreads) {
  const auto put = [&](u32 at, float value) {
    const u16 bits = product.encode(value);
    std::memcpy(&shared_[at], &bits, sizeof bits);
  };
  for (u32 k = 0; k < 16; ++k) {
    for (u32 m = 0; m < 64; ++m) put(a_layout_.offset(m, k), a[m * 16 + k]);
    for (u32 n = 0; n < product.n; ++n) {
      put(a_layout_.bytes() + b_layout_.offset(n, k), b[n * 16 + k]);
    }
  }
  for (u32 thread = 0; thread < kThreads; ++thread) {
    for (u32 i = 0; i < 8; ++i) {
      const Place place = place_of_a(thread, i);
      const u32 bits = product.encode(a[place.row * 16 + place.column]);
      a_registers_[i / 2 * kThreads + thread] |= bits << (16 * (i % 2));
    }
    for (u32 i = 0; i < product.n / 2; ++i) {
      const Place place = place_of_d(thread, i);
      const float value = c[place.row * product.n + place.column];
      if (product.f16_accumulators) {
        const u32 bits = float_to_f16(value);
        accumulators_[i / 2 * kThreads + thread] |= bits << (16 * (i % 2));
      } else {
        accumulators_[i * kThreads + thread] = std::bit_cast<u32>(value);
      }
    }
  }
  add_memory(shared_.data(), shared_.size());
  add_memory(a_registers_.data(), 4 * a_registers_.size());
  add_memory(accumulators_.data(), 4 * accumulators_.size());
}

WgmmaProgram::~WgmmaProgram() {
  remove_memory(shared_.data());
  remove_memory(a_registers_.data());
  remove_memory(accumulators_.data());
}

std::string WgmmaProgram::declare() const {
  return ".reg .b32 %d<" + std::to_string(product_.num_registers()) + R"(>, %a<4>, %base, %i, %v<4>;
    .reg .b64 %da, %db, %x, %y;
    .reg .pred %scale, %q;
  )";
}

std::string WgmmaProgram::load() const {
  std::string text = R"(
    mov.u32 %base, shared;
    mov.u32 %i, %tid;
  FILL:
    setp.ge.u32 %q, %i, )" +
                     std::to_string(shared_.size() / 16) + R"(;
    @%q bra FILLED;
    mul.wide.u32 %x, %i, 16;
    cvt.u64.u32 %y, %base;
    add.u64 %y, %y, %x;
    add.u64 %x, %x, %p0;
    ld.global.v4.b32 {%v0, %v1, %v2, %v3}, [%x];
    st.shared.v4.b32 [%y], {%v0, %v1, %v2, %v3};
    add.u32 %i, %i, 128;
    bra FILL;
  FILLED:
    and.b32 %i, %tid, 127;
    mul.wide.u32 %x, %i, 4;
    add.u64 %y, %x, %p1;
    add.u64 %x, %x, %p2;
  )";
  for (u32 i = 0; i < 4; ++i) {
    text += "ld.global.b32 %a" + std::to_string(i) + ", [%y+" + std::to_string(512 * i) + "];\n";
  }
  for (u32 i = 0; i < product_.num_registers(); ++i) {
    text += "ld.global.b32 %d" + std::to_string(i) + ", [%x+" + std::to_string(512 * i) + "];\n";
  }
  return text + "mov.b64 %da, %p3;\nmov.b64 %db, %p4;\nsetp.eq.u32 %scale, 1, " +
         (product_.accumulates ? "1" : "0") + ";\nmov.b64 %out0, 0;\n";
}

std::string WgmmaProgram::product(const std::string& a_descriptor,
                                  const std::string& b_descriptor) const {
  const std::string types = std::string(product_.f16_accumulators ? "f16" : "f32") +
                            (product_.is_bf16 ? ".bf16.bf16" : ".f16.f16");
  return "wgmma.mma_async.sync.aligned.m64n" + std::to_string(product_.n) + "k16." + types + " {" +
         numbers("%d", product_.num_registers()) + "}, " +
         (product_.a_in_registers ? "{%a0, %a1, %a2, %a3}" : a_descriptor) + ", " + b_descriptor +
         ", %scale, " + std::to_string(product_.scale_a) + ", " + std::to_string(product_.scale_b) +
         (product_.a_in_registers  ? ""
          : product_.a_is_mn_major ? ", 1"
                                   : ", 0") +
         (product_.b_is_mn_major ? ", 1" : ", 0") + ";\n";
}

std::string WgmmaProgram::store() const {
  std::string text = "and.b32 %i, %tid, 127;\nmul.wide.u32 %x, %i, 4;\nadd.u64 %x, %x, %p2;\n";
  for (u32 i = 0; i < product_.num_registers(); ++i) {
    text += "st.global.b32 [%x+" + std::to_string(512 * i) + "], %d" + std::to_string(i) + ";\n";
  }
  return text;
}

std::string WgmmaProgram::whole() const {
  return kWgmmaFence + product() + kWgmmaCommit + kWgmmaWait;
}

std::vector<float> WgmmaProgram::run(const std::string& body, u32 num_threads, Counts* counts) {
  constexpr u32 kShared = 1024;  // Where dynamic shared memory begins.
  const auto address = [](const auto& vector) { return reinterpret_cast<u64>(vector.data()); };
  run_ptx({.body = body,
           .inputs = {},
           .block = {num_threads, 1, 1},
           .dynamic_shared_bytes = shared_.size(),
           .parameters = {address(shared_), address(a_registers_), address(accumulators_),
                          a_layout_.descriptor(kShared),
                          b_layout_.descriptor(kShared + a_layout_.bytes())}},
          counts);
  std::vector<float> result(64 * product_.n);
  for (u32 thread = 0; thread < kThreads; ++thread) {
    for (u32 i = 0; i < product_.n / 2; ++i) {
      const Place place = place_of_d(thread, i);
      float& to = result[place.row * product_.n + place.column];
      if (product_.f16_accumulators) {
        const u32 pair = accumulators_[i / 2 * kThreads + thread];
        to = f16_to_float(static_cast<u16>(pair >> (16 * (i % 2))));
      } else {
        to = std::bit_cast<float>(accumulators_[i * kThreads + thread]);
      }
    }
  }
  return result;
}

}  // namespace ptxsim::test
