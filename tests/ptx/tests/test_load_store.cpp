// ld, ldu, st, prefetch: every type, width and space; bounds and alignment.
// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "device_memory.h"
#include "ptx.h"
#include "run_ptx.h"
#include "tensor_map.h"
#include "test.h"

namespace {

using namespace ptxsim;
using namespace ptxsim::test;

constexpr const char* kTypes[] = {"b8",  "b16", "b32", "b64", "u8",  "u16", "u32",
                                  "u64", "s8",  "s16", "s32", "s64", "f32", "f64"};

std::string text(u64 value) { return std::to_string(value); }

/// {%r0, %r1}, or %r0 alone.
std::string vector_of(u32 count) {
  if (count == 1) return "%r0";
  std::string result = "{%r0";
  for (u32 i = 1; i < count; ++i) result += ", %r" + text(i);
  return result + "}";
}

std::string vector_word(u32 count) { return count == 1 ? "" : ".v" + text(count); }

/// Moves the bits of a register of `bytes` to a 64-bit one, or back.
std::string widen(u32 bytes, const std::string& to, const std::string& from) {
  const std::string bits = text(8 * bytes);
  return bytes == 8 ? "mov.b64 " + to + ", " + from + ";\n"
                    : "cvt.u64.u" + bits + " " + to + ", " + from + ";\n";
}
std::string narrow(u32 bytes, const std::string& to, const std::string& from) {
  const std::string bits = text(8 * bytes);
  return bytes == 8 ? "mov.b64 " + to + ", " + from + ";\n"
                    : "cvt.u" + bits + ".u64 " + to + ", " + from + ";\n";
}

/// A value of memory as a register holds it: sign-extended or zero-extended.
u64 extended(const u8* at, u32 bytes, bool is_signed, u32 register_bytes) {
  u64 value = 0;
  std::memcpy(&value, at, bytes);
  if (is_signed && bytes < 8 && (value >> (8 * bytes - 1) & 1) != 0) value |= ~u64{0} << 8 * bytes;
  return register_bytes == 8 ? value : value & ((u64{1} << 8 * register_bytes) - 1);
}

/// Every lane makes one load from its own place after `base`.
void check_load(const std::string& opcode, const std::string& type, u32 count, u32 register_bytes,
                const std::string& extra = "") {
  const u32 bytes = bytes_of_type(type);
  const u32 pitch = bytes * count;
  const DeviceMemory<u8> memory(random_bytes(std::size_t{32} * pitch));
  std::string body = ".reg .b" + text(8 * register_bytes) + " %r<4>;\n.reg .b64 %a, %policy;\n" +
                     "mov.b64 %policy, 0;\nmul.wide.u32 %a, %tid, " + text(pitch) +
                     ";\nadd.u64 %a, %a, %p0;\n" + opcode + vector_word(count) + "." + type + " " +
                     vector_of(count) + ", [%a]" + extra + ";\n";
  for (u32 i = 0; i < count; ++i) body += widen(register_bytes, "%out" + text(i), "%r" + text(i));
  const std::vector<Values> out = run_ptx(
      {.body = body, .num_outputs = static_cast<int>(count), .parameters = {memory.address()}});
  for (u32 i = 0; i < count; ++i) {
    for (u32 lane = 0; lane < 32; ++lane) {
      const u64 expected =
          extended(&memory[lane * pitch + i * bytes], bytes, type[0] == 's', register_bytes);
      CHECK(out[i][lane] == expected, opcode, type, count, register_bytes, lane);
    }
  }
}

void check_store(const std::string& opcode, const std::string& type, u32 count, u32 register_bytes,
                 const std::string& extra = "") {
  const u32 bytes = bytes_of_type(type);
  const u32 pitch = bytes * count;
  DeviceMemory<u8> memory(std::vector<u8>(std::size_t{32} * pitch));
  std::string body = ".reg .b" + text(8 * register_bytes) + " %r<4>;\n.reg .b64 %a, %policy;\n" +
                     "mov.b64 %policy, 0;\nmul.wide.u32 %a, %tid, " + text(pitch) +
                     ";\nadd.u64 %a, %a, %p0;\n";
  std::vector<Values> in(count);
  for (u32 i = 0; i < count; ++i) {
    const std::vector<u8> random = random_bytes(32 * sizeof(u64), i + 1);
    in[i].resize(32);
    std::memcpy(in[i].data(), random.data(), random.size());
    body += narrow(register_bytes, "%r" + text(i), "%in" + text(i));
  }
  body += opcode + vector_word(count) + "." + type + " [%a], " + vector_of(count) + extra + ";\n";
  run_ptx({.body = body + "mov.b64 %out0, 0;\n", .inputs = in, .parameters = {memory.address()}});
  for (u32 i = 0; i < count; ++i) {
    for (u32 lane = 0; lane < 32; ++lane) {
      CHECK(std::memcmp(&memory[lane * pitch + i * bytes], &in[i][lane], bytes) == 0, opcode, type,
            count, register_bytes, lane);
    }
  }
}

void test_types() {
  for (const char* type : kTypes) {
    const u32 bytes = bytes_of_type(type);
    for (const u32 register_bytes : {2u, 4u, 8u}) {
      const bool is_float = type[0] == 'f';
      if (register_bytes < bytes || (is_float && register_bytes != bytes)) continue;
      for (const u32 count : {1u, 2u, 4u}) {
        if (bytes * count > 16) continue;
        check_load("ld.global", type, count, register_bytes);
        check_load("ldu.global", type, count, register_bytes);
        check_load("ld", type, count, register_bytes);
        check_store("st.global", type, count, register_bytes);
        check_store("st", type, count, register_bytes);
      }
    }
  }
}

void test_modifiers() {
  for (const char* opcode : {"ld.weak.global",
                             "ld.global.ca",
                             "ld.global.cg",
                             "ld.global.cs",
                             "ld.global.lu",
                             "ld.global.cv",
                             "ld.global.L1::evict_last.L2::128B",
                             "ld.cg.global",
                             "ld.volatile.global",
                             "ld.volatile",
                             "ld.relaxed.gpu.global",
                             "ld.acquire.sys.global",
                             "ld.acquire.cta",
                             "ld.relaxed.cluster.global.L1::no_allocate",
                             "ld.global.acquire.gpu",
                             "ld.global.relaxed.sys",
                             "ld.global.nc",
                             "ld.global.cg.nc",
                             "ld.global.nc.L1::no_allocate.L2::256B",
                             "ldu"}) {
    check_load(opcode, "u32", 1, 4);
  }
  check_load("ld.global.L2::cache_hint", "b32", 4, 4, ", %policy");
  check_load("ld.global.nc.L1::evict_first.L2::cache_hint", "b32", 2, 4, ", %policy");
  for (const char* opcode :
       {"st.weak.global", "st.global.wb", "st.global.cg", "st.global.cs", "st.global.wt",
        "st.global.L1::evict_first", "st.volatile.global", "st.volatile", "st.relaxed.gpu.global",
        "st.release.sys.global", "st.release.cluster", "st.global.release.gpu",
        "st.global.relaxed.cta"}) {
    check_store(opcode, "u32", 1, 4);
  }
  check_store("st.global.L2::cache_hint", "b64", 2, 8, ", %policy");
  CHECK_ERROR(check_load("ld.global.foo", "u32", 1, 4), "'.foo' is not known");
  CHECK_ERROR(check_load("ld.global", "b128", 1, 8), "'.b128' is not known");
}

/// Each lane writes its number to `space` and reads it back from the same place.
void check_space(const std::string& declaration, const std::string& store_word,
                 const std::string& load_word, const std::string& base) {
  const Values out = run_ptx({.body = declaration + R"(
      .reg .b32 %value;
      .reg .b64 %base, %a;
      mov.u64 %base, )" + base + R"(;
      mul.wide.u32 %a, %tid, 4;
      add.u64 %a, %a, %base;
      st)" + store_word + R"(.u32 [%a+4], %tid;
      ld)" + load_word + R"(.u32 %value, [%a+4];
      cvt.u64.u32 %out0, %value;)"})[0];
  for (u32 lane = 0; lane < 32; ++lane) CHECK(out[lane] == lane, store_word, load_word, lane);
}

void test_spaces() {
  const std::string shared = ".shared .align 8 .b8 words[160];";
  check_space(shared, ".shared", ".shared", "words");
  check_space(shared, ".shared::cta", ".shared::cluster", "words");
  check_space(shared, ".shared::cluster", ".shared::cta", "words");
  check_space(shared, ".volatile.shared", ".volatile.shared", "words");
  check_space(".local .align 8 .b8 words[160];", ".local", ".local", "words");
  const Values out = run_ptx({.body = R"(
      .reg .b64 %a, %b, %c;
      mov.u64 %a, table;
      ld.const.u64 %out0, [%a+8];
      ld.const.u64 %b, [table];
      ld.param.u64 %c, [p0];
      add.u64 %out0, %out0, %b;
      add.u64 %out0, %out0, %c;)",
                              .module = ".const .align 8 .u64 table[2] = {5, 6};",
                              .parameters = {7}})[0];
  CHECK(out[31] == 18, out[31]);
}

/// A shared and a local address, as generic addresses.
void test_generic() {
  const Values out = run_ptx({.body = R"(
      .shared .align 8 .b8 words[256];
      .local .align 8 .b8 own[8];
      .reg .b64 %s, %l, %a, %b, %lane;
      cvt.u64.u32 %lane, %tid;
      mov.u64 %s, words;
      cvta.shared.u64 %s, %s;
      mad.wide.u32 %s, %tid, 8, %s;
      mov.u64 %l, own;
      cvta.local.u64 %l, %l;
      st.u64 [%s], %lane;
      st.u64 [%l], %lane;
      ld.u64 %a, [%s];
      ld.u64 %b, [%l];
      add.u64 %out0, %a, %b;)"})[0];
  for (u32 lane = 0; lane < 32; ++lane) CHECK(out[lane] == 2 * lane, out[lane]);
}

/// The error of an access. There are 64 bytes of global memory at %p0, of shared memory at `words`
/// and of local memory at `own`; nothing is mapped elsewhere.
std::string error_of_access(const std::string& access) {
  const DeviceMemory<u8> memory(std::vector<u8>(64));
  return error_of([&] {
    run_ptx({.body = R"(
        .shared .align 16 .b8 words[64];
        .local .align 16 .b8 own[64];
        .reg .b32 %r<4>;
        .reg .b64 %a, %l;
        mov.b32 %r0, 0;
        mov.b32 %r1, 0;
        mov.u64 %l, own;
        cvta.local.u64 %a, %l;
        )" + access + "\nmov.b64 %out0, 0;",
             .parameters = {memory.address()}});
  });
}

void test_bounds() {
  CHECK(error_of_access("ld.global.u32 %r0, [%p0+60];").empty());
  CHECK_ERROR(throw Error(error_of_access("ld.global.u32 %r0, [%p0+64];")), "invalid global",
              "4 bytes", "at byte 64", "which has 64", "ld.global.u32");
  CHECK_ERROR(throw Error(error_of_access("ld.u32 %r0, [%p0-4];")), "invalid global");
  CHECK_ERROR(throw Error(error_of_access("ld.global.v2.u32 {%r0, %r1}, [%p0+64];")), "invalid");
  CHECK(error_of_access("st.shared.u32 [words+60], %r0;").empty());
  CHECK_ERROR(throw Error(error_of_access("st.shared.u32 [words+64], %r0;")), "outside", "64 bytes",
              "4 bytes at 64");
  CHECK_ERROR(throw Error(error_of_access("ld.shared.u32 %r0, [words-4];")), "outside", "at -4");
  CHECK(error_of_access("st.local.u32 [own+60], %r0;").empty());
  CHECK_ERROR(throw Error(error_of_access("st.local.u32 [own+64], %r0;")), "lane's own 64 bytes",
              "offset 64");
  CHECK_ERROR(throw Error(error_of_access("ld.u32 %r0, [%a+64];")), "local memory of another lane");
  CHECK(error_of_access("ld.param.u64 %a, [p0];").empty());
  CHECK_ERROR(throw Error(error_of_access("ld.param.u64 %a, [p0+8];")), "24 bytes of parameters",
              "offset 24");
  CHECK_ERROR(throw Error(error_of_access("ld.global.u32 %r0, [%l];")), "invalid global");
  // Only one lane is out of bounds.
  CHECK_ERROR(
      throw Error(error_of_access("mad.wide.u32 %a, %tid, 2, %p0; ld.global.u16 %r0, [%a];"
                                  "mad.wide.u32 %a, %tid, 3, %p0; ld.global.u8 %r0, [%a];")),
      "ld.global.u8");
}

void test_alignment() {
  CHECK_ERROR(throw Error(error_of_access("ld.global.u32 %r0, [%p0+2];")), "misaligned",
              "no multiple of 4");
  CHECK_ERROR(throw Error(error_of_access("ld.shared.v4.u32 {%r0, %r1, %r2, %r3}, [words+8];")),
              "misaligned", "no multiple of 16");
  CHECK_ERROR(throw Error(error_of_access("st.local.v2.u32 [own+4], {%r0, %r1};")),
              "no multiple of 8");
  CHECK(error_of_access("ld.global.v2.u32 {%r0, %r1}, [%p0+8];").empty());
}

/// Block 1 of a cluster can read block 0's memory only with .shared::cluster.
void test_cluster() {
  const auto body = [](const std::string& space) {
    return R"(
      .shared .align 8 .b8 word[8];
      .reg .b32 %a, %b, %v, %rank;
      mov.u32 %rank, %cluster_ctarank;
      mov.u32 %a, word;
      st.shared.u32 [%a], %rank;
      barrier.cluster.arrive;
      barrier.cluster.wait;
      mapa.shared::cluster.u32 %b, %a, 0;
      ld)" +
           space +
           R"(.u32 %v, [%b];
      cvt.u64.u32 %out0, %v;
      barrier.cluster.arrive;
      barrier.cluster.wait;)";
  };
  const Program program{.body = body(".shared::cluster"), .grid = {2}, .cluster = {2}};
  const Values out = run_ptx(program)[0];
  CHECK(out[0] == 0 && out[63] == 0, out[63]);
  Program without = program;
  without.body = body(".shared::cta");
  CHECK_ERROR(run_ptx(without), "another block of the cluster");
}

void test_prefetch() {
  for (const char* opcode : {"prefetch.global.L1", "prefetch.global.L2", "prefetch.L1",
                             "prefetch.global.L2::evict_last", "prefetchu.L1"}) {
    CHECK(error_of_access(opcode + std::string(" [%p0];")).empty(), opcode);
  }
  CHECK_ERROR(throw Error(error_of_access("prefetch.tensormap [%p0];")), "invalid global",
              "128 bytes");
  DeviceMemory<u64> map(std::vector<u64>(16));
  const auto prefetch = [&] {
    run_ptx(
        {.body = "prefetch.tensormap [%p0];\nmov.b64 %out0, 0;", .parameters = {map.address()}});
  };
  CHECK_ERROR(prefetch(), "no tensor map");
  map[0] = TensorMap::kMagic;
  prefetch();
}

}  // namespace

int main() {
  test_types();
  test_modifiers();
  test_spaces();
  test_generic();
  test_bounds();
  test_alignment();
  test_cluster();
  test_prefetch();
  CHECK_FORMS("ld", "ldu", "st", "prefetch", "prefetchu");
  return finish();
}
