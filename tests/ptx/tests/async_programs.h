// Lines of PTX that tests of asynchronous copies and mbarriers share.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace ptxsim::test {

/// Declares `bar`, an mbarrier; `tile`, 16 KiB of shared memory; some registers; and %leader, which
/// is true in thread 0.
inline std::string declarations() {
  return R"(
      .shared .align 8 .b8 bar[8];
      .shared .align 1024 .b8 tile[16384];
      .reg .pred %leader, %done, %p;
      .reg .b32 %r<8>;
      .reg .b64 %a, %b, %state;
      setp.eq.u32 %leader, %tid, 0;
      mov.b64 %out0, 0;
  )";
}

/// Initialises `bar` for this number of arrivals, visible to all.
inline std::string init_barrier(int arrivals) {
  return "@%leader mbarrier.init.shared::cta.b64 [bar], " + std::to_string(arrivals) + R"(;
      @%leader fence.mbarrier_init.release.cluster;
      bar.sync 0;
  )";
}

/// Waits for a phase of `bar`. `label` must be unique in the program.
inline std::string wait_for_barrier(const std::string& label, int parity = 0) {
  return label + ":\nmbarrier.try_wait.parity.shared::cta.b64 %done, [bar], " +
         std::to_string(parity) + ";\n@!%done bra " + label + ";\n";
}

/// Thread 0 loads `bytes` from the address in the register `source` to `tile`.
inline std::string load_tile(const std::string& source, int bytes) {
  const std::string count = std::to_string(bytes);
  return "@%leader mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], " + count +
         ";\n@%leader cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [tile], [" +
         source + "], " + count + ", [bar];\n";
}

/// Each thread reads its 8 bytes of `tile` into %out0.
inline std::string read_tile() {
  return "mov.u32 %r0, tile;\nmad.lo.u32 %r0, %tid, 8, %r0;\nld.shared.u64 %out0, [%r0];\n";
}

/// Each thread writes %in0 to its 8 bytes of `tile`.
inline std::string write_tile() {
  return "mov.u32 %r0, tile;\nmad.lo.u32 %r0, %tid, 8, %r0;\nst.shared.u64 [%r0], %in0;\n";
}

}  // namespace ptxsim::test
