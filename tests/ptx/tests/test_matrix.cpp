// ldmatrix, stmatrix.
// SPDX-License-Identifier: Apache-2.0
#include "run_ptx.h"
#include "test.h"

namespace {

using namespace ptxsim;
using namespace ptxsim::test;

std::string registers(const char* prefix, u32 count) {
  std::string text;
  for (u32 i = 0; i < count; ++i) text += (i == 0 ? "" : ", ") + (prefix + std::to_string(i));
  return text;
}

/// Element (row, column) of matrix i, as the tests store it.
u16 element(u32 i, u32 row, u32 column) {
  return static_cast<u16>(1000 * i + 100 * row + column + 7);
}

/// What register i of a lane holds: row lane / 4, columns 2 (lane % 4) and the next; transposed,
/// rows and columns are exchanged.
u32 fragment(u32 i, u32 lane, bool transposed) {
  const u32 g = lane / 4, t = lane % 4;
  const u32 low = transposed ? element(i, 2 * t, g) : element(i, g, 2 * t);
  const u32 high = transposed ? element(i, 2 * t + 1, g) : element(i, g, 2 * t + 1);
  return low | high << 16;
}

/// A matrix's rows are 16 bytes each, anywhere: here in reverse order, 48 bytes apart.
u32 row_place(u32 row) { return (31 - row) * 48; }

Values row_addresses() {
  Values addresses(32);
  for (u32 row = 0; row < 32; ++row) addresses[row] = row_place(row);
  return addresses;
}

const std::string kDeclarations = R"(
    .shared .align 16 .b8 rows[1536];
    .reg .b32 %at, %from, %d<4>, %v<4>;
    mov.u32 %at, rows;
    cvt.u32.u64 %from, %in0;
    add.u32 %at, %at, %from;
  )";

/// Four words of the row whose address this lane passes.
std::vector<Values> rows_as_words() {
  std::vector<Values> words(4, Values(32));
  for (u32 lane = 0; lane < 32; ++lane) {
    for (u32 word = 0; word < 4; ++word) {
      words[word][lane] = element(lane / 8, lane % 8, 2 * word) |
                          u32{element(lane / 8, lane % 8, 2 * word + 1)} << 16;
    }
  }
  return words;
}

void test_load(const std::string& opcode, u32 count, bool transposed) {
  const std::vector<Values> words = rows_as_words();
  std::string body = kDeclarations;
  for (u32 i = 0; i < 4; ++i) {
    body += "cvt.u32.u64 %v" + std::to_string(i) + ", %in" + std::to_string(i + 1) + ";\n";
  }
  body += "st.shared.v4.b32 [%at], {%v0, %v1, %v2, %v3};\nbar.warp.sync -1;\n";
  body += opcode + " {" + registers("%d", count) + "}, [%at];\n";
  for (u32 i = 0; i < count; ++i) {
    body += "cvt.u64.u32 %out" + std::to_string(i) + ", %d" + std::to_string(i) + ";\n";
  }
  const auto out = run_ptx({.body = body,
                            .inputs = {row_addresses(), words[0], words[1], words[2], words[3]},
                            .num_outputs = static_cast<int>(count)});
  for (u32 i = 0; i < count; ++i) {
    for (u32 lane = 0; lane < 32; ++lane) {
      CHECK(out[i][lane] == fragment(i, lane, transposed), opcode, i, lane);
    }
  }
}

void test_store(const std::string& opcode, u32 count, bool transposed) {
  std::vector<Values> inputs = {row_addresses()};
  for (u32 i = 0; i < count; ++i) {
    Values& values = inputs.emplace_back(32);
    for (u32 lane = 0; lane < 32; ++lane) values[lane] = fragment(i, lane, transposed);
  }
  std::string body = kDeclarations;
  for (u32 i = 0; i < count; ++i) {
    body += "cvt.u32.u64 %d" + std::to_string(i) + ", %in" + std::to_string(i + 1) + ";\n";
  }
  body += "st.shared.v4.b32 [%at], {-1, -1, -1, -1};\nbar.warp.sync -1;\n";
  body += opcode + " [%at], {" + registers("%d", count) + "};\nbar.warp.sync -1;\n";
  body += "ld.shared.v4.b32 {%v0, %v1, %v2, %v3}, [%at];\n";
  for (u32 i = 0; i < 4; ++i) {
    body += "cvt.u64.u32 %out" + std::to_string(i) + ", %v" + std::to_string(i) + ";\n";
  }
  const auto out = run_ptx({.body = body, .inputs = inputs, .num_outputs = 4});
  const std::vector<Values> words = rows_as_words();
  for (u32 lane = 0; lane < 32; ++lane) {
    for (u32 word = 0; word < 4; ++word) {
      const u64 want = lane < 8 * count ? words[word][lane] : 0xffffffff;
      CHECK(out[word][lane] == want, opcode, lane, word);
    }
  }
}

void test_forms() {
  for (const u32 count : {1u, 2u, 4u}) {
    for (const bool transposed : {false, true}) {
      const std::string number = ".x" + std::to_string(count) + (transposed ? ".trans" : "");
      for (const std::string space : {".shared.b16", ".shared::cta.b16"}) {
        test_load("ldmatrix.sync.aligned.m8n8" + number + space, count, transposed);
        test_load("ldmatrix.sync.aligned" + number + ".m8n8" + space, count, transposed);
        test_store("stmatrix.sync.aligned.m8n8" + number + space, count, transposed);
        test_store("stmatrix.sync.aligned" + number + ".m8n8" + space, count, transposed);
      }
    }
  }
}

std::string error_of_lines(const std::string& lines, u32 num_threads = 32) {
  return error_of([&] {
    run_ptx({.body = kDeclarations + "mov.b32 %d0, 0;\nmov.b64 %out0, 0;\n" + lines,
             .inputs = {row_addresses()},
             .block = {num_threads, 1, 1}});
  });
}

void test_refused() {
  const std::string store = "stmatrix.sync.aligned.m8n8.x1.shared.b16 [%at], {%d0};\n";
  const std::string load = "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%d1}, [%at];\n";
  CHECK(error_of_lines(store + load).empty(), error_of_lines(store + load));
  for (const std::string& line : {store, load}) {
    CHECK_ERROR(run_ptx({.body = kDeclarations + "mov.b32 %d0, 0;\nadd.u32 %at, %at, 8;\n" + line,
                         .inputs = {row_addresses()}}),
                "misaligned", "multiple of 16");
    CHECK_ERROR(run_ptx({.body = kDeclarations + "mov.b32 %d0, 0;\nadd.u32 %at, %at, 48;\n" + line,
                         .inputs = {row_addresses()}}),
                "shared address outside");
    // Some threads do not exist.
    const std::string few = error_of_lines(line, 16);
    CHECK(contains(few, {"other threads do not exist or have exited", "lanes 0-15"}), few);
    const std::string exited =
        error_of_lines(".reg .pred %q;\nsetp.eq.u32 %q, %tid, 3;\n@%q exit;\n" + line);
    CHECK(contains(exited, {"other threads do not exist or have exited"}), exited);
    // Only some lanes execute it, and the others never come.
    const std::string some =
        error_of_lines(".reg .pred %q;\nsetp.lt.u32 %q, %tid, 9;\n@%q " + line);
    CHECK(contains(some, {"guard is false"}), some);
  }
  // With .x1, lanes 8 and up pass no address, so theirs may be anything.
  CHECK(error_of_lines(".reg .pred %q;\nsetp.ge.u32 %q, %tid, 8;\n@%q mov.b32 %at, 1;\n" + store +
                       load)
            .empty());
  CHECK(contains(error_of_lines("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%d1}, [%at];\n"),
                 {"a vector of 2 registers expected, not of 1"}));
  CHECK(contains(error_of_lines("ldmatrix.sync.aligned.m8n8.x1.shared.b16 %d1, [%at];\n"),
                 {"is no vector"}));
  CHECK(contains(error_of_lines("ldmatrix.sync.aligned.m8n8.x3.shared.b16 {%d1}, [%at];\n"),
                 {"'.x3' is not known here"}));
  CHECK(contains(error_of_lines("ldmatrix.sync.aligned.m8n8.x1.shared.b8 {%d1}, [%at];\n"),
                 {"'.b8' is not known here"}));
}

/// A matrix needs one wavefront if its rows are in different banks.
void test_counts() {
  for (const u32 pitch : {16u, 128u, 144u}) {
    Values addresses(32);
    for (u32 row = 0; row < 32; ++row) addresses[row] = row % 8 * pitch;
    Counts counts;
    run_ptx({.body = kDeclarations + R"(
        mov.b32 %d0, 0;
        mov.b32 %d1, 0;
        mov.b64 %out0, 0;
        stmatrix.sync.aligned.m8n8.x2.shared.b16 [%at], {%d0, %d1};)",
             .inputs = {addresses}},
            &counts);
    CHECK(counts.shared_accesses == 1, pitch, counts.shared_accesses);
    CHECK(counts.shared_wavefronts_ideal == 2, pitch, counts.shared_wavefronts_ideal);
    CHECK(counts.shared_wavefronts == (pitch == 128 ? 16 : 2), pitch, counts.shared_wavefronts);
  }
}

}  // namespace

int main() {
  test_forms();
  test_refused();
  test_counts();
  CHECK_FORMS("ldmatrix", "stmatrix");
  return finish();
}
