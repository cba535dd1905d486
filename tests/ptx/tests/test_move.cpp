// All forms of mov; cvta, isspacep, and the special registers by name.
// SPDX-License-Identifier: Apache-2.0
#include "elementwise_test.h"

using namespace ptxsim;
using namespace ptxsim::test;

namespace {

void test_types() {
  for (const std::string type :
       {"b16", "u16", "s16", "b32", "u32", "s32", "f32", "b64", "u64", "s64", "f64"}) {
    const std::string bits = untyped(8 * bytes_of_type(type));
    check_rows({"mov." + type, bits, {bits}}, with_random({}, 32, 1),
               [](const Values& in) { return in[0]; });
  }
  check_rows({"mov.pred", "pred", {"pred"}}, {{0}, {1}}, [](const Values& in) { return in[0]; });
}

void test_immediates() {
  struct Case {
    const char* type;
    const char* text;
    u64 bits;
  };
  const Case cases[] = {{"b32", "-1", 0xffffffff},
                        {"b32", "0xdeadbeef", 0xdeadbeef},
                        {"b32", "0XFFU", 0xff},
                        {"b32", "010", 8},
                        {"b32", "0b101", 5},
                        {"f32", "0f3F800000", 0x3f800000},
                        {"f32", "1.5", 0x3fc00000},
                        {"f32", "-2.5e1", 0xc1c80000},
                        {"f32", "0d3FF0000000000000", 0x3f800000},
                        {"f64", "0d3FF8000000000000", 0x3ff8000000000000},
                        {"f64", "0f3F800000", 0x3ff0000000000000},
                        {"b16", "-2", 0xfffe},
                        {"b64", "0x123456789abcdef0", 0x123456789abcdef0},
                        {"b64", "-9223372036854775808", u64{1} << 63},
                        {"u32", "WARP_SZ", 32}};
  for (const Case& c : cases) {
    const std::string bits = untyped(8 * bytes_of_type(c.type));
    check_rows({std::string("mov.") + c.type, bits, {}, std::string("%d, ") + c.text}, {{}},
               [&](const Values&) { return c.bits; });
  }
  check_rows({"mov.pred", "pred", {}, "%d, 1"}, {{}}, [](const Values&) { return u64{1}; });
  check_rows({"mov.pred", "pred", {}, "%d, 0"}, {{}}, [](const Values&) { return u64{0}; });
  CHECK_ERROR(run_ptx({.body = ".reg .b16 %h;\nmov.b16 %h, 0x10000;"}), "does not fit");
  CHECK_ERROR(run_ptx({.body = ".reg .b16 %h;\nmov.b16 %h, 1.0;"}), "16 bits");
}

void test_vectors() {
  check_rows({"mov.b64", "b64", {"b32", "b32"}, "%d, {%a, %b}"}, with_random({}, 64, 2),
             [](const Values& in) { return in[1] << 32 | in[0]; });
  check_rows({"mov.b32", "b32", {"b16", "b16"}, "%d, {%a, %b}"}, with_random({}, 64, 2),
             [](const Values& in) { return in[1] << 16 | in[0]; });
  check_rows({"mov.b64", "b64", {"b16", "b16", "b16", "b16"}, "%d, {%a, %b, %c, %e}"},
             with_random({}, 64, 4),
             [](const Values& in) { return in[3] << 48 | in[2] << 32 | in[1] << 16 | in[0]; });
  check_rows({"mov.b64", "b32", {"b64"}, "{_, %d}, %a"}, with_random({}, 64, 1),
             [](const Values& in) { return in[0] >> 32; });
  check_rows({"mov.b64", "b32", {"b64"}, "{%d, _}, %a"}, with_random({}, 64, 1),
             [](const Values& in) { return in[0]; });
  check_rows({"mov.b32", "b16", {"b32"}, "{_, %d}, %a"}, with_random({}, 64, 1),
             [](const Values& in) { return in[0] >> 16; });
  check_rows({"mov.b64", "b16", {"b64"}, "{_, _, %d, _}, %a"}, with_random({}, 64, 1),
             [](const Values& in) { return in[0] >> 32; });
  CHECK_ERROR(run_ptx({.body = ".reg .b32 %r;\nmov.b32 %r, {1, 2, 3, 4};"}), "parts of this size");
}

/// Where a guard is false, the lane's register keeps its value.
void test_guarded() {
  const auto out = run_ptx({.body = ".reg .pred %g;\nsetp.ne.u64 %g, %in0, 0;\n"
                                    "mov.b64 %out0, 1;\n@!%g mov.b64 %out0, 2;\n",
                            .inputs = {{0, 1, 0, 1}},
                            .block = {4}});
  CHECK(out[0] == Values({2, 1, 2, 1}));
}

void test_clock() {
  const auto out = run_ptx({.body = ".reg .b32 %r;\nmov.u64 %out0, %clock64;\n"
                                    "mov.u64 %out1, %clock64;\nmov.u64 %out2, %globaltimer;\n"
                                    "mov.u32 %r, %clock;\ncvt.u64.u32 %out3, %r;\n"
                                    "mov.u32 %r, %clock_hi;\ncvt.u64.u32 %out4, %r;\n",
                            .num_outputs = 5});
  CHECK(out[0][0] < out[1][0] && out[1][0] < out[2][0] && out[2][0] < out[3][0]);
  CHECK(out[4][0] == 0);
  CHECK_ERROR(run_ptx({.body = "mov.u64 %out0, %clock;"}), "'%clock' has another size");
}

/// Addresses of variables, in 64 and 32 bits and with an offset.
void test_addresses() {
  const auto out =
      run_ptx({.body = ".shared .align 16 .b8 first[16];\n.shared .align 16 .b8 second[16];\n"
                       ".reg .b32 %r<2>;\n.reg .b64 %a<4>;\n"
                       "mov.u64 %a0, first;\nmov.u64 %a1, second;\nsub.u64 %out0, %a1, %a0;\n"
                       "mov.u64 %a2, second+4;\nsub.u64 %out1, %a2, %a1;\n"
                       "mov.u32 %r0, second;\ncvt.u64.u32 %a3, %r0;\nsub.u64 %out2, %a3, %a1;\n"
                       "mov.u32 %r1, second+8;\nsub.u32 %r1, %r1, %r0;\ncvt.u64.u32 %out3, %r1;\n",
               .num_outputs = 4});
  CHECK(out[0][0] == 16 && out[1][0] == 4 && out[2][0] == 0 && out[3][0] == 8, out[0][0], out[1][0],
        out[2][0], out[3][0]);
}

/// Converts shared addresses to generic ones and back; all others are the same in both.
void test_cvta() {
  const auto out =
      run_ptx({.body = ".shared .align 8 .u64 word;\n.reg .b64 %a, %g, %back;\n.reg .pred %p;\n"
                       "mov.u64 %a, word;\ncvta.shared.u64 %g, %a;\n"
                       "st.shared.u64 [%a], %in0;\nld.u64 %out0, [%g];\n"
                       "cvta.to.shared.u64 %back, %g;\nsub.u64 %out1, %back, %a;\n"
                       "cvta.shared::cta.u64 %g, %a;\ncvta.to.shared::cta.u64 %back, %g;\n"
                       "sub.u64 %out2, %back, %a;\n"
                       "cvta.to.global.u64 %back, %to;\nsub.u64 %out3, %back, %to;\n"
                       "cvta.global.u64 %back, %to;\nsub.u64 %out4, %back, %to;\n",
               .inputs = {{77}},
               .num_outputs = 5,
               .block = {1}});
  CHECK(out[0][0] == 77);
  for (std::size_t i = 1; i < 5; ++i) CHECK(out[i][0] == 0, i, out[i][0]);
}

/// Converts an address of another block of the cluster, obtained by mapa.
void test_cvta_cluster() {
  const auto out = run_ptx(
      {.body = ".shared .align 8 .u64 word;\n.reg .b64 %a, %m, %g, %back;\n.reg .b32 %rank;\n"
               ".reg .pred %p;\n"
               "mov.u64 %a, word;\nst.shared.u64 [%a], %in0;\n"
               "barrier.cluster.arrive;\nbarrier.cluster.wait;\n"
               "mov.u32 %rank, %cluster_ctarank;\nxor.b32 %rank, %rank, 1;\n"
               "mapa.shared::cluster.u64 %m, %a, %rank;\n"
               "cvta.shared::cluster.u64 %g, %m;\nld.u64 %out0, [%g];\n"
               "cvta.to.shared::cluster.u64 %back, %g;\nsub.u64 %out1, %back, %m;\n"
               "isspacep.shared::cluster %p, %g;\nselp.b64 %out2, 1, 0, %p;\n"
               "isspacep.shared::cta %p, %g;\nselp.b64 %out3, 1, 0, %p;\n"
               "barrier.cluster.arrive;\nbarrier.cluster.wait;\n",
       .inputs = {{5, 6}},
       .num_outputs = 4,
       .block = {1},
       .grid = {2},
       .cluster = {2}});
  CHECK(out[0] == Values({6, 5}));
  CHECK(out[1] == Values({0, 0}));
  CHECK(out[2] == Values({1, 1}));
  CHECK(out[3] == Values({0, 0}));
}

void test_isspacep() {
  const std::string ask =
      "isspacep.global %p, %x;\nselp.b64 %y, 1, 0, %p;\n"
      "isspacep.shared %p, %x;\nselp.b64 %z, 2, 0, %p;\nor.b64 %y, %y, %z;\n"
      "isspacep.local %p, %x;\nselp.b64 %z, 4, 0, %p;\nor.b64 %y, %y, %z;\n";
  const auto out =
      run_ptx({.body = ".shared .align 8 .u64 word;\n.local .align 8 .u64 own;\n"
                       ".reg .b64 %x, %y, %z;\n.reg .pred %p;\n"
                       "mov.u64 %x, %to;\n" +
                       ask + "mov.b64 %out0, %y;\nmov.u64 %x, word;\ncvta.shared.u64 %x, %x;\n" +
                       ask + "mov.b64 %out1, %y;\nmov.u64 %x, own;\ncvta.local.u64 %x, %x;\n" +
                       ask + "mov.b64 %out2, %y;\n",
               .num_outputs = 3});
  CHECK(out[0][0] == 1 && out[1][0] == 2 && out[2][0] == 4, out[0][0], out[1][0], out[2][0]);
}

}  // namespace

int main() {
  test_types();
  test_immediates();
  test_vectors();
  test_guarded();
  test_clock();
  test_addresses();
  test_cvta();
  test_cvta_cluster();
  test_isspacep();
  CHECK_FORMS("mov", "cvta", "isspacep");
  return finish();
}
