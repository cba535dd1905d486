// Warp-wide instructions.
// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <random>

#include "run_ptx.h"
#include "test.h"

namespace {

using namespace ptxsim;
using namespace ptxsim::test;

std::mt19937_64 random_bits(7);

Values random_values(u64 mask = ~u64{0}) {
  Values values(kWarpSize);
  for (u64& value : values) value = random_bits() & mask;
  return values;
}

constexpr const char* kRegisters = R"(
    .reg .b32 %a, %b, %c, %d, %mask;
    .reg .pred %p, %q;
    cvt.u32.u64 %a, %in0;
)";

std::string number(u64 value) { return std::to_string(value); }

// ---- shfl ---------------------------------------------------------------------------------------

/// The pseudocode of section 9.7.9.6.
struct Shuffled {
  u64 d = 0;
  bool p = false;
};
Shuffled shuffled(const std::string& mode, const Values& a, u32 lane, u32 b, u32 c) {
  const int bval = static_cast<int>(b & 0x1f);
  const int cval = static_cast<int>(c & 0x1f);
  const int mask = static_cast<int>(c >> 8 & 0x1f);
  const int l = static_cast<int>(lane);
  const int max_lane = (l & mask) | (cval & ~mask);
  const int min_lane = l & mask;
  int j = 0;
  bool p = false;
  if (mode == "up") {
    j = l - bval;
    p = j >= max_lane;
  } else if (mode == "down") {
    j = l + bval;
    p = j <= max_lane;
  } else if (mode == "bfly") {
    j = l ^ bval;
    p = j <= max_lane;
  } else {
    j = min_lane | (bval & ~mask);
    p = j <= max_lane;
  }
  if (!p) j = l;
  return {a[static_cast<std::size_t>(j)] & 0xffffffff, p};
}

void test_shuffle(const std::string& mode, Values b, Values c) {
  b.resize(kWarpSize, b.back());
  c.resize(kWarpSize, c.back());
  const Values a = random_values();
  const auto out = run_ptx({.body = std::string(kRegisters) + R"(
        cvt.u32.u64 %b, %in1;
        cvt.u32.u64 %c, %in2;
        shfl.sync.)" + mode + R"(.b32 %d|%p, %a, %b, %c, -1;
        cvt.u64.u32 %out0, %d;
        selp.b64 %out1, 1, 0, %p;
        shfl.sync.)" + mode + R"(.b32 %a, %a, %b, %c, 0xffffffff;
        cvt.u64.u32 %out2, %a;)",
                            .inputs = {a, b, c},
                            .num_outputs = 3});
  for (u32 lane = 0; lane < kWarpSize; ++lane) {
    const Shuffled expected =
        shuffled(mode, a, lane, static_cast<u32>(b[lane]), static_cast<u32>(c[lane]));
    CHECK(out[0][lane] == expected.d, mode, lane, b[lane], c[lane]);
    CHECK(out[1][lane] == u64{expected.p}, mode, lane, b[lane], c[lane]);
    CHECK(out[2][lane] == expected.d, mode, lane);  // In place, without p.
  }
}

/// Distance and segments are constants in the text; for all lanes and for some.
void test_constant_shuffle(const std::string& mode, u32 b, u32 c) {
  const Values a = random_values();
  const std::string operands = ", %a, " + number(b) + ", " + number(c);
  const auto out = run_ptx({.body = std::string(kRegisters) + "shfl.sync." + mode + ".b32 %d|%p" +
                                    operands + ", -1;\ncvt.u64.u32 %out0, %d;\n" +
                                    "selp.b64 %out1, 1, 0, %p;\nsetp.lt.u32 %q, %tid, 16;\n" +
                                    "mov.b32 %d, 77;\n@%q shfl.sync." + mode + ".b32 %d" +
                                    operands + ", 0xffff;\ncvt.u64.u32 %out2, %d;",
                            .inputs = {a},
                            .num_outputs = 3});
  for (u32 lane = 0; lane < kWarpSize; ++lane) {
    const Shuffled expected = shuffled(mode, a, lane, b, c);
    CHECK(out[0][lane] == expected.d, mode, lane, b, c);
    CHECK(out[1][lane] == u64{expected.p}, mode, lane, b, c);
    CHECK(out[2][lane] == (lane < 16 ? expected.d : 77), mode, lane, b, c);
  }
}

void test_shuffles() {
  for (const char* const mode : {"up", "down", "bfly", "idx"}) {
    const bool up = std::string(mode) == "up";
    for (u64 distance = 0; distance <= 33; ++distance) {
      test_shuffle(mode, {distance}, {up ? u64{0} : u64{31}});
    }
    // Segments of 2 to 16 lanes, like CUDA's width.
    for (u32 width = 2; width <= 16; width *= 2) {
      const u32 segment = (kWarpSize - width) << 8;
      test_constant_shuffle(mode, width / 2, segment | (up ? 0 : 31));
    }
    for (u64 width = 2; width <= 16; width *= 2) {
      const u64 segment = (kWarpSize - width) << 8;
      test_shuffle(mode, {random_bits() % 32}, {segment | (up ? 0 : 31)});
    }
    for (int i = 0; i < 50; ++i) test_shuffle(mode, random_values(), random_values());
  }
}

void test_shuffle_errors() {
  const auto shuffle = [](const std::string& guard, const std::string& mode, const std::string& b,
                          const std::string& mask) {
    return error_of([&] {
      run_ptx({.body = std::string(kRegisters) + "mov.b32 %d, 0;\nsetp.lt.u32 %p, %tid, 16;\n" +
                       guard + " shfl.sync." + mode + ".b32 %d, %a, " + b + ", 31, " + mask +
                       ";\ncvt.u64.u32 %out0, %d;",
               .inputs = {random_values()}});
    });
  };
  CHECK(shuffle("", "bfly", "16", "-1").empty());
  CHECK(shuffle("@%p", "bfly", "8", "0xffff").empty());
  const std::string inactive = shuffle("@%p", "bfly", "16", "0xffff");
  CHECK(contains(inactive, {"shfl reads lane 16, which does not take part", "lanes 0-15"}),
        inactive);
  const std::string outside = shuffle("", "bfly", "1", "0xffff");
  CHECK(contains(outside, {"mask of lanes does not name the lane itself", "lanes 16-31"}), outside);
  // The other half never comes. If it has exited, it is not waited for; if it waits at a barrier,
  // there is a deadlock.
  const std::string missing = error_of([] {
    run_ptx({.body = std::string(kRegisters) + R"(
        setp.lt.u32 %p, %tid, 16;
        @%p bra LOW;
        bar.sync 0;
        bra DONE;
      LOW:
        shfl.sync.idx.b32 %a, %a, 0, 31, -1;
      DONE:
        cvt.u64.u32 %out0, %a;)",
             .inputs = {random_values()}});
  });
  CHECK(contains(missing, {"deadlock", "lanes 0-15: waits for lanes 16-31; PTX line",
                           "shfl.sync.idx.b32 %a, %a, 0, 31, -1",
                           "lanes 16-31: waits for lanes 0-15", "bar.sync 0"}),
        missing);
}

// ---- Lanes that arrive from several places, or never --------------------------------------------

void test_masks_of_parts() {
  // Each half names itself, in the same instruction.
  const Values a = random_values(0xffff);
  const auto halves = run_ptx({.body = std::string(kRegisters) + R"(
      setp.lt.u32 %p, %tid, 16;
      selp.b32 %mask, 0x0000ffff, 0xffff0000, %p;
      redux.sync.add.u32 %d, %a, %mask;
      cvt.u64.u32 %out0, %d;
      setp.eq.u32 %q, %tid, 20;
      vote.sync.ballot.b32 %d, %q, %mask;
      cvt.u64.u32 %out1, %d;)",
                               .inputs = {a},
                               .num_outputs = 2});
  u64 sums[2] = {};
  for (u32 lane = 0; lane < kWarpSize; ++lane) sums[lane / 16] += a[lane];
  for (u32 lane = 0; lane < kWarpSize; ++lane) {
    CHECK(halves[0][lane] == sums[lane / 16], lane);
    CHECK(halves[1][lane] == (lane < 16 ? 0 : 1u << 20), lane);
  }
  // Lanes arrive one after another, each after a loop of its own length.
  const auto late = run_ptx({.body = std::string(kRegisters) + R"(
      .reg .b32 %i;
      mov.b32 %i, %tid;
    NEXT:
      setp.eq.u32 %p, %i, 0;
      @%p bra MEET;
      sub.u32 %i, %i, 1;
      bra NEXT;
    MEET:
      redux.sync.add.u32 %d, %a, -1;
      cvt.u64.u32 %out0, %d;)",
                             .inputs = {a}});
  for (u32 lane = 0; lane < kWarpSize; ++lane) CHECK(late[0][lane] == sums[0] + sums[1], lane);
  // Lanes that have exited are not waited for.
  const auto left = run_ptx({.body = std::string(kRegisters) + R"(
      setp.ge.u32 %p, %tid, 16;
      @%p exit;
      redux.sync.add.u32 %d, %a, -1;
      cvt.u64.u32 %out0, %d;)",
                             .inputs = {a}});
  for (u32 lane = 0; lane < 16; ++lane) CHECK(left[0][lane] == sums[0], lane);
  // Lanes that skipped it by their guard come back to it.
  const auto again = run_ptx({.body = std::string(kRegisters) + R"(
      .reg .b32 %i;
      mov.b32 %i, 0;
      mov.b32 %d, 0;
    NEXT:
      shr.u32 %b, %tid, 4;
      setp.ge.u32 %p, %i, %b;
      @%p redux.sync.add.u32 %d, %a, -1;
      add.u32 %i, %i, 1;
      setp.lt.u32 %q, %i, 2;
      @%q bra NEXT;
      cvt.u64.u32 %out0, %d;)",
                              .inputs = {a},
                              .block = {32, 1, 1}});
  // The first half's first round waits for the second half's second; its second round waits for
  // nobody, because the others have exited.
  for (u32 lane = 0; lane < kWarpSize; ++lane) {
    CHECK(again[0][lane] == (lane < 16 ? sums[0] : sums[0] + sums[1]), lane);
  }
}

// ---- vote, match, redux, elect, activemask ------------------------------------------------------

void test_vote(u32 votes, u32 members) {
  const auto run = [&](const std::string& instructions) {
    return run_ptx({.body = std::string(kRegisters) + R"(
        setp.ne.u64 %p, %in1, 0;
        mov.b64 %out0, 2;
        mov.b64 %out1, 2;
        setp.ne.u64 %q, %in2, 0;
        @!%q bra DONE;
        )" + instructions + "\nDONE:",
                    .inputs = {{0},
                               [&] {
                                 Values bits;
                                 for (u32 l = 0; l < 32; ++l) bits.push_back(votes >> l & 1);
                                 return bits;
                               }(),
                               [&] {
                                 Values bits;
                                 for (u32 l = 0; l < 32; ++l) bits.push_back(members >> l & 1);
                                 return bits;
                               }()},
                    .num_outputs = 2});
  };
  const std::string mask = number(members);
  const auto expect = [&](const std::string& mode, u64 plain, u64 negated) {
    const std::string opcode =
        mode == "ballot" ? "vote.sync.ballot.b32 %d, " : "vote.sync." + mode + ".pred %p, ";
    const auto convert = [&](const std::string& to) {
      return mode == "ballot" ? "cvt.u64.u32 " + to + ", %d;\n"
                              : "selp.b64 " + to + ", 1, 0, %p;\n";
    };
    const std::string keep = ".reg .pred %given;\nmov.pred %given, %p;\n";
    const auto out = run(keep + opcode + "%given, " + mask + ";\n" + convert("%out0") + opcode +
                         "!%given, " + mask + ";\n" + convert("%out1"));
    for (u32 lane = 0; lane < kWarpSize; ++lane) {
      const bool takes_part = members >> lane & 1;
      CHECK(out[0][lane] == (takes_part ? plain : 2), mode, votes, members, lane);
      CHECK(out[1][lane] == (takes_part ? negated : 2), mode, votes, members, lane);
    }
  };
  const u32 yes = votes & members;
  const u32 no = ~votes & members;
  expect("any", yes != 0, no != 0);
  expect("all", no == 0, yes == 0);
  expect("uni", yes == 0 || no == 0, yes == 0 || no == 0);
  expect("ballot", yes, no);
}

void test_votes() {
  for (const u32 votes : {0u, ~0u, 1u, 0x80000000u, 0x0000ffffu, 0x12345678u}) {
    for (const u32 members : {~0u, 0x0000ffffu, 0x80000001u}) test_vote(votes, members);
  }
}

void test_match(const std::string& type, const Values& values) {
  const u64 kept = type == "b32" ? 0xffffffff : ~u64{0};
  const std::string reg = type == "b32" ? "%a" : "%in0";
  const auto out = run_ptx({.body = std::string(kRegisters) + "match.any.sync." + type + " %d, " +
                                    reg + ", -1;\ncvt.u64.u32 %out0, %d;\nmatch.all.sync." + type +
                                    " %d|%p, " + reg + ", -1;\ncvt.u64.u32 %out1, %d;\n" +
                                    "selp.b64 %out2, 1, 0, %p;\nmatch.all.sync." + type + " %d, " +
                                    reg + ", -1;\ncvt.u64.u32 %out3, %d;",
                            .inputs = {values},
                            .num_outputs = 4});
  bool all = true;
  for (u32 lane = 0; lane < kWarpSize; ++lane) {
    all = all && (values[lane] & kept) == (values[0] & kept);
  }
  for (u32 lane = 0; lane < kWarpSize; ++lane) {
    u32 equal = 0;
    for (u32 other = 0; other < kWarpSize; ++other) {
      equal |= static_cast<u32>((values[lane] & kept) == (values[other] & kept)) << other;
    }
    CHECK(out[0][lane] == equal, type, lane);
    CHECK(out[1][lane] == (all ? 0xffffffff : 0), type, lane);
    CHECK(out[2][lane] == u64{all}, type, lane);
    CHECK(out[3][lane] == (all ? 0xffffffff : 0), type, lane);
  }
}

void test_matches() {
  for (const char* const type : {"b32", "b64"}) {
    test_match(type, random_values());
    test_match(type, random_values(3));
    test_match(type, random_values(0x300000000));  // Equal in their low halves.
    test_match(type, Values(kWarpSize, 0x123456789abc));
  }
}

template <class T, class F>
void test_redux(const std::string& opcode, F combine) {
  for (int i = 0; i < 10; ++i) {
    const Values values = random_values();
    const u32 members = i == 0 ? ~0u : static_cast<u32>(random_bits()) | 1;
    const Values out = run_ptx({.body = std::string(kRegisters) + R"(
        shr.u32 %b, )" + number(members) +
                                        R"(, %tid;
        and.b32 %b, %b, 1;
        setp.eq.u32 %p, %b, 1;
        mov.b32 %d, 77;
        @%p redux.sync.)" + opcode + " %d, %a, " +
                                        number(members) + ";\ncvt.u64.u32 %out0, %d;",
                                .inputs = {values}})[0];
    bool first = true;
    T expected = 0;
    for (u32 lane = 0; lane < kWarpSize; ++lane) {
      if (!(members >> lane & 1)) continue;
      const T value = static_cast<T>(values[lane]);
      expected = first ? value : static_cast<T>(combine(expected, value));
      first = false;
    }
    for (u32 lane = 0; lane < kWarpSize; ++lane) {
      const u64 wanted = members >> lane & 1 ? static_cast<u32>(expected) : 77;
      CHECK(out[lane] == wanted, opcode, lane);
    }
  }
}

void test_reductions() {
  const auto add = [](auto x, auto y) { return static_cast<u32>(x) + static_cast<u32>(y); };
  const auto least = [](auto x, auto y) { return std::min(x, y); };
  const auto most = [](auto x, auto y) { return std::max(x, y); };
  test_redux<u32>("add.u32", add);
  test_redux<s32>("add.s32", add);
  test_redux<u32>("min.u32", least);
  test_redux<s32>("min.s32", least);
  test_redux<u32>("max.u32", most);
  test_redux<s32>("max.s32", most);
  test_redux<u32>("and.b32", [](u32 x, u32 y) { return x & y; });
  test_redux<u32>("or.b32", [](u32 x, u32 y) { return x | y; });
  test_redux<u32>("xor.b32", [](u32 x, u32 y) { return x ^ y; });
}

void test_elect() {
  for (const u32 members : {~0u, 0xfff0u, 0x80000000u}) {
    const auto out = run_ptx({.body = R"(
        .reg .b32 %d, %b;
        .reg .pred %p, %q;
        mov.b32 %d, 99;
        setp.ne.u32 %p, %tid, %tid;
        shr.u32 %b, )" + number(members) +
                                      R"(, %tid;
        and.b32 %b, %b, 1;
        setp.eq.u32 %q, %b, 1;
        @%q elect.sync %d|%p, )" + number(members) +
                                      R"(;
        cvt.u64.u32 %out0, %d;
        selp.b64 %out1, 1, 0, %p;
        @%q elect.sync _|%p, )" + number(members) +
                                      R"(;
        selp.b64 %out2, 1, 0, %p;)",
                              .num_outputs = 3});
    // One lane of the mask, the same for all; the manual leaves open which.
    u32 elected = 0;
    u32 elected_without_d = 0;
    for (u32 lane = 0; lane < kWarpSize; ++lane) {
      elected |= static_cast<u32>(out[1][lane]) << lane;
      elected_without_d |= static_cast<u32>(out[2][lane]) << lane;
    }
    CHECK(std::popcount(elected) == 1 && (elected & members) != 0, elected, members);
    CHECK(elected == elected_without_d);
    for (u32 lane = 0; lane < kWarpSize; ++lane) {
      const u64 leader = static_cast<u64>(std::countr_zero(elected));
      CHECK(out[0][lane] == (members >> lane & 1 ? leader : 99), lane);
    }
  }
}

void test_activemask() {
  const Values out = run_ptx({.body = R"(
      .reg .b32 %d;
      .reg .pred %p;
      mov.b32 %d, 0;
      setp.lt.u32 %p, %tid, 12;
      @%p activemask.b32 %d;
      cvt.u64.u32 %out0, %d;)",
                              .block = {40, 1, 1}})[0];
  for (u32 thread = 0; thread < 40; ++thread) CHECK(out[thread] == (thread < 12 ? 0xfff : 0));
}

// ---- bar.warp.sync ------------------------------------------------------------------------------

void test_warp_barrier() {
  // Halves wait for each other at different places, and each reads what the other stored.
  const Values a = random_values();
  const Values out = run_ptx({.body = R"(
      .shared .align 8 .b8 words[256];
      .reg .b32 %at, %other;
      .reg .pred %p;
      mov.u32 %at, words;
      mad.lo.u32 %at, %tid, 8, %at;
      xor.b32 %other, %at, 128;
      setp.lt.u32 %p, %tid, 16;
      @%p bra LOW;
      st.shared.b64 [%at], %in0;
      bar.warp.sync -1;
      ld.shared.b64 %out0, [%other];
      bra DONE;
    LOW:
      bar.warp.sync 0x0000ffff;
      st.shared.b64 [%at], %in0;
      bar.warp.sync 0xffffffff;
      ld.shared.b64 %out0, [%other];
    DONE:)",
                              .inputs = {a}})[0];
  for (u32 lane = 0; lane < kWarpSize; ++lane) CHECK(out[lane] == a[lane ^ 16], lane);
  CHECK_ERROR(run_ptx({.body = "mov.b64 %out0, 0;\nbar.warp.sync 0xff;"}),
              "does not name the lane itself", "lanes 8-31");
  CHECK_ERROR(run_ptx({.body = R"(
      .reg .pred %p;
      .reg .b32 %mask;
      mov.b64 %out0, 0;
      setp.lt.u32 %p, %tid, 16;
      selp.b32 %mask, -1, 0xffff0000, %p;
      @%p bra LOW;
      bar.sync 0;
    LOW:
      bar.warp.sync %mask;)"}),
              "deadlock", "lanes 0-15: waits for lanes 16-31; PTX line", "bar.warp.sync %mask");
}

}  // namespace

int main() {
  test_shuffles();
  test_shuffle_errors();
  test_masks_of_parts();
  test_votes();
  test_matches();
  test_reductions();
  test_elect();
  test_activemask();
  test_warp_barrier();
  CHECK_FORMS("shfl", "vote", "match", "redux", "elect", "activemask");
  return finish();
}
