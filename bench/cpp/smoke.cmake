# Does every pattern, stage and list of minference_bench run on the CPU, and say what it did? Tiny
# shapes; times are never looked at. Run by ctest with BENCH (the program) and OUT (a JSON file).
# SPDX-License-Identifier: Apache-2.0
cmake_minimum_required(VERSION 3.25)

# ---- Rows

set(patterns dense a_shape:16:70 tri_shape:16:70:9 vertical_slash:40:120 block_sparse:3 mixed)
list(JOIN patterns "," pattern_list)
execute_process(
  COMMAND
    "${BENCH}" --device cpu --threads 2 --seqlen 300,512 --head_dim=32 --heads 8/2
    --dtype bf16,fp16,fp32 --pattern "${pattern_list}" --stage prefill,estimate,attention
    --density 0.25,0.5 --benchmark_min_time=0.001 "--benchmark_out=${OUT}"
    --benchmark_out_format=json
  OUTPUT_VARIABLE said
  ERROR_VARIABLE said
  RESULT_VARIABLE status
)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "minference_bench: status ${status}\n${said}")
endif()

set(expected "")
foreach(seqlen 300 512)
  foreach(dtype bf16 fp16 fp32)
    set(rows "")
    foreach(pattern IN LISTS patterns)
      list(APPEND rows prefill/${pattern} attention/${pattern})
      if(pattern MATCHES "vertical_slash|block_sparse|mixed")
        list(APPEND rows estimate/${pattern})
      endif()
    endforeach()
    foreach(density 0.25 0.5)
      list(APPEND rows attention/runs:${density} attention/columns:${density}
           attention/blocks:${density})
    endforeach()
    list(TRANSFORM rows APPEND "/seqlen:${seqlen}/head_dim:32/heads:8:2/${dtype}/cpu/manual_time")
    list(APPEND expected ${rows})
  endforeach()
endforeach()

file(READ "${OUT}" json)
foreach(key minference build_info cpu backend cpu_isa threads)
  string(JSON value GET "${json}" context ${key})
  if(value STREQUAL "" OR value STREQUAL "none")
    message(FATAL_ERROR "context: expected ${key}, got '${value}'")
  endif()
endforeach()

# The number `counter` of row `index` is in (0, most]; also sets `counter` to it.
function(check_counter index name counter most)
  string(JSON value GET "${json}" benchmarks ${index} ${counter})
  if(NOT value GREATER 0 OR value GREATER most)
    message(FATAL_ERROR "${name}: expected ${counter} in (0, ${most}], got ${value}")
  endif()
  set(value ${value} PARENT_SCOPE)
endfunction()

string(JSON count LENGTH "${json}" benchmarks)
math(EXPR last "${count} - 1")
set(found "")
foreach(index RANGE ${last})
  string(JSON name GET "${json}" benchmarks ${index} name)
  list(APPEND found "${name}")
  check_counter(${index} "${name}" density 2) # Above 1: tiles of columns, beside those of runs.
  # What is attended does not depend on who estimates: prefill, or the stages one by one.
  if(name MATCHES "^(prefill|estimate|attention)/(.*)$")
    set(row "${CMAKE_MATCH_2}")
    if(DEFINED "density_${row}" AND NOT "${density_${row}}" EQUAL value)
      message(FATAL_ERROR "${name}: expected density ${density_${row}}, got ${value}")
    endif()
    set("density_${row}" ${value})
  endif()
  if(name MATCHES "/dense/" AND NOT value EQUAL 1)
    message(FATAL_ERROR "${name}: expected density 1, got ${value}")
  endif()
  if(name MATCHES "^estimate/")
    check_counter(${index} "${name}" GB/s 1e6)
  else()
    check_counter(${index} "${name}" executed_TFLOP/s 1e6)
    check_counter(${index} "${name}" dense_equivalent_TFLOP/s 1e6)
  endif()
endforeach()
list(SORT expected)
list(SORT found)
if(NOT found STREQUAL expected)
  list(JOIN expected "\n  " expected)
  list(JOIN found "\n  " found)
  message(FATAL_ERROR "expected the rows\n  ${expected}\ngot\n  ${found}")
endif()

# ---- What it says, and what it refuses

# Runs with the arguments after `status`; `text` must be in what it says.
function(check_says text status)
  execute_process(
    COMMAND "${BENCH}" ${ARGN}
    OUTPUT_VARIABLE said
    ERROR_VARIABLE said
    RESULT_VARIABLE got
  )
  string(FIND "${said}" "${text}" position)
  if(NOT got EQUAL status OR position EQUAL -1)
    message(FATAL_ERROR "${ARGN}: expected status ${status} and '${text}', got ${got}:\n${said}")
  endif()
endfunction()

# Work memory grows with the threads, here more than most machines have.
check_says("estimate/mixed/seqlen:130/" 0 --device cpu --threads 300 --seqlen 130 --heads 4/4
           --head_dim 8 --pattern mixed --stage estimate --benchmark_min_time=0)
check_says("head_dim:16" 0 --benchmark_list_tests --device cpu --head_dim 16)
check_says("Failed to match any benchmarks" 1 --device cpu --benchmark_filter=nothing)
check_says("--pattern P,..." 0 --help)
check_says("--benchmark_out=" 0 --help)
check_says("unknown option '--seqlens'; --help lists them" 2 --seqlens 300)
check_says("unknown option 'dense'" 2 dense)
check_says("--seqlen: expected a value, got none" 2 --seqlen)
check_says("--seqlen: expected a whole number from 1 to 1073741824, got '3k'" 2 --seqlen 3k)
check_says("--seqlen: expected a whole number from 1 to 1073741824, got ''" 2 --seqlen=512,)
check_says("--head_dim: expected a multiple of 8 from 8 to 256, got '100'" 2 --head_dim 100)
check_says("--heads: expected query heads that are a multiple of the KV heads, got '8/3'" 2
           --heads 8/3)
check_says("--heads: expected heads that divide into quarters, for --pattern mixed, got '6/2'" 2
           --heads 6/2 --pattern mixed)
check_says("--density: expected a number in (0, 0.5] (the runs never touch), got '0.7'" 2
           --density 0.7)
check_says("--dtype: expected bf16 or fp16 or fp32, got 'fp8'" 2 --dtype fp8)
check_says("--pattern: expected a_shape:SINK:WINDOW, got 'a_shape:1'" 2 --pattern a_shape:1)
check_says("block_sparse:TOP_K, or mixed, got 'slash'" 2 --pattern slash)
check_says("--stage estimate: none of the patterns is estimated" 2 --device cpu --pattern dense
           --stage estimate)
