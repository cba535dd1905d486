# SPDX-License-Identifier: Apache-2.0
"""Faults to plant in the generated PTX, and the test that must find each.

A fault is what a slip in the sources or in the compiler would leave behind: a misplaced operand, a
missing or weaker fence, wait or barrier, a wrong coordinate or count. ``text`` replaces every match
of ``pattern`` in the PTX of the kernels whose name matches ``kernels``.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Fault:
    name: str
    test: str  # A key of TESTS.
    pattern: str
    text: str = ""
    kernels: str = ""  # Regular expression for mangled names.
    environment: dict[str, str] = field(default_factory=dict)


# The tests that may catch a fault: programs of this folder and of tests/gpu, with their arguments.
TESTS = {
    "attention_sm80": ["test_attention", "brief"],
    "attention_sm90": ["test_attention_sm90", "brief"],
    "instructions": ["instructions"],
    "estimate_vertical_slash": ["test_estimate_vertical_slash"],
    "select_rows": ["test_select_rows"],
    "plan": ["test_plan"],
    "work_table": ["test_work_table"],
    "merge_attention": ["test_merge_attention"],
}

CHECKED = {"PTXSIM_CHECK": "1"}
LATE = {"PTXSIM_LANDING": "late"}
RANDOM = {"PTXSIM_LANDING": "random"}

# "{%r1, %r2, ...}" in an instruction, and single registers.
LIST = r"\{[^}]*\}"
R = r"%\w+"

PRODUCT_REGISTERS = rf"(wgmma\.mma_async\S+ {LIST}, {LIST}, {R}, p, )"
PRODUCT_SHARED = rf"(wgmma\.mma_async\S+ {LIST}, {R}, {R}, p, )"
LOAD_4D = rf"(cp\.async\.bulk\.tensor\.4d\.shared\S+ \[{R}\], \[{R}, \{{)({R}), ({R}), ({R}), ({R})"
STORE_4D = rf"(cp\.async\.bulk\.tensor\.4d\.global\S+ \[{R}, \{{)({R}), ({R}), ({R}), ({R})"
SM90 = "sm90.*attention_kernel"
SM80 = "sm80.*attention_kernel"

FAULTS = [
    # ---- Operands of matrix instructions ---------------------------------------------------------
    Fault(
        "wgmma: V read as K-major",
        "attention_sm90",
        PRODUCT_REGISTERS + "1, 1, 1",
        r"\g<1>1, 1, 0",
        SM90,
    ),
    Fault(
        "wgmma: K read as MN-major",
        "attention_sm90",
        PRODUCT_SHARED + "1, 1, 0, 0",
        r"\g<1>1, 1, 0, 1",
        SM90,
    ),
    Fault("wgmma: A negated", "attention_sm90", PRODUCT_SHARED + "1, 1", r"\g<1>-1, 1", SM90),
    Fault(
        "wgmma: P's registers 1 and 2 swapped",
        "attention_sm90",
        rf"(wgmma\.mma_async\S+ {LIST}, \{{{R}), ({R}), ({R})",
        r"\1, \3, \2",
        SM90,
    ),
    Fault(
        "wgmma: descriptors of A and B swapped",
        "attention_sm90",
        rf"(wgmma\.mma_async\S+ {LIST}, )({R}), ({R}), p",
        r"\1\3, \2, p",
        SM90,
    ),
    Fault(
        "wgmma: accumulators begin with what is there",
        "attention_sm90",
        r"setp\.ne\.b32 p, (%r\d+), 0;\s*(wgmma)",
        r"setp.ne.b32 p, 1, 0;\n\2",
        SM90,
    ),
    Fault(
        "mma: A's registers 1 and 2 swapped",
        "attention_sm80",
        rf"(mma\.sync\S+ {LIST}, \{{{R}), ({R}), ({R})",
        r"\1, \3, \2",
        SM80,
    ),
    Fault(
        "mma: B's registers swapped",
        "attention_sm80",
        rf"(mma\.sync\S+ {LIST}, {LIST}, )\{{({R}), ({R})\}}",
        r"\1{\3, \2}",
        SM80,
    ),
    Fault(
        "mma: accumulates into another register",
        "attention_sm80",
        rf"(mma\.sync\S+ \{{)({R}), ({R})",
        r"\1\3, \2",
        SM80,
    ),
    Fault("ldmatrix: V not transposed", "attention_sm80", r"(ldmatrix\S+x4)\.trans", r"\1", SM80),
    Fault(
        "ldmatrix: K transposed",
        "attention_sm80",
        r"(ldmatrix\S+x4)(\.shared)",
        r"\1.trans\2",
        SM80,
    ),
    Fault(
        "stmatrix: registers swapped",
        "attention_sm90",
        rf"(stmatrix\S+ \[{R}\], \{{{R}), ({R}), ({R})",
        r"\1, \3, \2",
        SM90,
    ),
    Fault(
        "cvt: halves of a pair swapped",
        "attention_sm90",
        rf"(cvt\.rn\.bf16x2\.f32 {R}), ({R}), ({R})",
        r"\1, \3, \2",
        SM90,
    ),
    Fault(
        "exponential: of 2 to the power, logarithm instead",
        "attention_sm80",
        r"ex2\.approx\.ftz",
        "lg2.approx.ftz",
        SM80,
    ),
    # ---- Coordinates and sizes of copies ---------------------------------------------------------
    Fault(
        "TMA load: first two coordinates swapped",
        "attention_sm90",
        LOAD_4D,
        r"\1\3, \2, \4, \5",
        SM90,
    ),
    Fault("TMA load: row and batch swapped", "attention_sm90", LOAD_4D, r"\1\2, \3, \5, \4", SM90),
    Fault(
        "TMA load: signals another mbarrier",
        "attention_sm90",
        LOAD_4D + rf"(\}}\], \[{R})\]",
        r"\1\2, \3, \4, \5\6+8]",
        SM90,
    ),
    Fault(
        "TMA store: first two coordinates swapped",
        "attention_sm90",
        STORE_4D,
        r"\1\3, \2, \4, \5",
        SM90,
    ),
    Fault(
        "cp.async: no bytes past the last key",
        "attention_sm80",
        rf"(cp\.async\.cg\S+ \[{R}\], \[{R}\], 16), {R};",
        r"\1, 16;",
        SM80,
    ),
    Fault(
        "cp.async: nothing is read",
        "attention_sm80",
        rf"(cp\.async\.cg\S+ \[{R}\], \[{R}\], 16), {R};",
        r"\1, 0;",
        SM80,
    ),
    Fault(
        "mbarrier: expects the bytes of none",
        "attention_sm90",
        rf"mbarrier\.arrive\.expect_tx\.shared::cta\.b64 _, (\[{R}\]), {R};",
        r"mbarrier.arrive.shared::cta.b64 _, \1;",
        SM90,
        LATE,
    ),
    Fault(
        "mbarrier: expects 16 bytes more",
        "attention_sm90",
        rf"(mbarrier\.arrive\.expect_tx\.shared::cta\.b64 _, \[{R}\]), ({R});",
        r"{ .reg .b32 %more; add.u32 %more, \2, 16; \1, %more; }",
        SM90,
    ),
    # ---- Waits -----------------------------------------------------------------------------------
    Fault(
        "cp.async: waits for one group less",
        "attention_sm80",
        r"cp\.async\.wait_group 1;",
        "cp.async.wait_group 2;",
        SM80,
        LATE,
    ),
    Fault(
        "cp.async: no wait at all", "attention_sm80", r"cp\.async\.wait_group \d+;", "", SM80, LATE
    ),
    Fault("cp.async: no commit", "attention_sm80", r"cp\.async\.commit_group;", "", SM80, LATE),
    Fault(
        "bulk store: source reused before it was read",
        "attention_sm90",
        r"cp\.async\.bulk\.wait_group\.read 0;",
        "",
        SM90,
        CHECKED | LATE,
    ),
    Fault(
        "wgmma: no wait",
        "attention_sm90",
        r"wgmma\.wait_group\.sync\.aligned \d+;",
        "",
        SM90,
        CHECKED,
    ),
    Fault(
        "wgmma: waits for one group less",
        "attention_sm90",
        r"wgmma\.wait_group\.sync\.aligned 0;",
        "wgmma.wait_group.sync.aligned 1;",
        SM90,
        CHECKED,
    ),
    Fault(
        "wgmma: late, and no wait",
        "attention_sm90",
        r"wgmma\.wait_group\.sync\.aligned \d+;",
        "",
        SM90,
        LATE,
    ),
    Fault(
        "mbarrier: waits for nothing",
        "attention_sm90",
        r"mbarrier\.try_wait\.parity\.shared::cta\.b64 p, [^;]*;",
        "setp.eq.u32 p, 0, 0;",
        SM90,
        LATE,
    ),
    Fault(
        "mbarrier: waits for the other phase",
        "attention_sm90",
        rf"(mbarrier\.try_wait\.parity\.shared::cta\.b64 p, \[{R}\]), ({R}), ({R});",
        r"{ .reg .b32 %other; xor.b32 %other, \2, 1; \1, %other, \3; }",
        SM90,
    ),
    # ---- Fences ----------------------------------------------------------------------------------
    Fault("no fence.proxy.async", "attention_sm90", r"fence\.proxy\.async\S*;", "", SM90, CHECKED),
    # Those of attention_mainloop.h: its function is inlined into the kernel from another file.
    Fault(
        "no fence behind ordinary reads of V",
        "attention_sm90",
        r"(\.loc\t(?!1 )(\d+) \d+ \d+, function_name \S+ inlined_at 1 \d+ \d+\n"
        r"\.loc\t\d+ \d+ \d+, function_name \S+ inlined_at \2 \d+ \d+\n\s*)"
        r"fence\.proxy\.async\S*;",
        r"\1",
        SM90,
        CHECKED,
    ),
    Fault(
        "no fence.mbarrier_init", "attention_sm90", r"fence\.mbarrier_init\S*;", "", SM90, CHECKED
    ),
    Fault("no wgmma.fence", "attention_sm90", r"wgmma\.fence\.sync\.aligned;", "", SM90, CHECKED),
    Fault(
        "no wgmma.commit_group",
        "attention_sm90",
        r"wgmma\.commit_group\.sync\.aligned;",
        "",
        SM90,
        CHECKED,
    ),
    # ---- Barriers --------------------------------------------------------------------------------
    Fault(
        "mbarrier: nobody arrives",
        "attention_sm90",
        rf"mbarrier\.arrive\.shared::cta\.b64 _, \[{R}\];",
        "",
        SM90,
    ),
    Fault(
        "mbarrier: arrives twice",
        "attention_sm90",
        rf"(mbarrier\.arrive\.shared::cta\.b64 _, \[{R}\];)",
        r"\1\n\1",
        SM90,
    ),
    Fault(
        "mbarrier: one arrival more is expected",
        "attention_sm90",
        rf"(mbarrier\.init\.shared::cta\.b64 \[{R}\]), ({R});",
        r"{ .reg .b32 %more; add.u32 %more, \2, 1; \1, %more; }",
        SM90,
    ),
    Fault(
        "barrier.sync left out",
        "attention_sm90",
        rf"barrier\.sync\.aligned {R}, {R};",
        "",
        SM90,
        RANDOM,
    ),
    Fault(
        "barrier.sync: another number of threads",
        "attention_sm90",
        rf"(barrier\.sync\.aligned {R}), ({R});",
        r"{ .reg .b32 %more; add.u32 %more, \2, 32; \1, %more; }",
        SM90,
    ),
    Fault("bar.sync left out", "attention_sm80", r"bar\.sync\s+\S+;", "", SM80, RANDOM),
    Fault(
        "barrier.red: or becomes and",
        "attention_sm90",
        r"barrier\.red\.or",
        "barrier.red.and",
        SM90,
    ),
    Fault(
        "setmaxnreg: more and less swapped",
        "attention_sm90",
        r"setmaxnreg\.inc(\S+) (\d+);",
        r"setmaxnreg.dec\1 \2;",
        SM90,
    ),
    Fault(
        "setmaxnreg: more than there are",
        "attention_sm90",
        r"setmaxnreg\.inc(\S+) \d+;",
        r"setmaxnreg.inc\1 256;",
        SM90,
    ),
    # ---- Warps -----------------------------------------------------------------------------------
    Fault(
        "shfl: butterfly becomes up", "attention_sm80", r"shfl\.sync\.bfly", "shfl.sync.up", SM80
    ),
    Fault(
        "shfl: lanes of half a warp",
        "attention_sm80",
        r"(shfl\.sync\.bfly\.b32\s+[^;]*), (%\w+|-1);",
        r"\1, 65535;",
        SM80,
    ),
    Fault("vote: any becomes all", "attention_sm80", r"vote\.sync\.any", "vote.sync.all", SM80),
    Fault("popc: counts leading zeros", "select_rows", r"popc\.b32", "clz.b32"),
    # ---- Stages before attention -----------------------------------------------------------------
    Fault(
        "estimate: mma's A registers swapped",
        "estimate_vertical_slash",
        rf"(mma\.sync\S+ {LIST}, \{{{R}), ({R}), ({R})",
        r"\1, \3, \2",
        "VerticalSlashTraits",
    ),
    Fault(
        "estimate: wgmma's B transposed",
        "estimate_vertical_slash",
        r"(wgmma\.mma_async[^;]*, p, 1, 1, (?:0, )?)0;",
        r"\g<1>1;",
        "vertical_slash.*VerticalSlashTraits",
    ),
    Fault(
        "atomic counts: add becomes max",
        "select_rows",
        r"atom\.shared\.add\.u32",
        "atom.shared.max.u32",
    ),
    Fault("plan: a barrier left out", "plan", r"bar\.sync\s+\S+;", "", "plan", RANDOM),
    Fault("work table: a barrier left out", "work_table", r"bar\.sync\s+\S+;", "", "", RANDOM),
    Fault(
        "merge: exponentials of the wrong base",
        "merge_attention",
        r"ex2\.approx\.ftz",
        "lg2.approx.ftz",
    ),
]
