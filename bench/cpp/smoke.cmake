# Checks that every row of minference_bench runs on the CPU at small shapes and prints its figures;
# ignores times. Run by ctest with BENCH (the program) and OUT (a JSON file).
# SPDX-License-Identifier: Apache-2.0
cmake_minimum_required(VERSION 3.25)

set(prefill dense a_shape tri_shape vertical_slash block_sparse mixed)
list(TRANSFORM prefill PREPEND prefill/ OUTPUT_VARIABLE expected)
foreach(stage estimate attention)
  list(APPEND expected ${stage}/vertical_slash ${stage}/block_sparse)
endforeach()
list(SORT expected)

foreach(seqlen 300 512)
  execute_process(
    COMMAND "${BENCH}" --device cpu --threads 2 --seqlen ${seqlen} --head_dim 32 --seconds 0 --json
            "${OUT}"
    OUTPUT_VARIABLE said
    ERROR_VARIABLE said
    RESULT_VARIABLE status
  )
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "minference_bench: status ${status}\n${said}")
  endif()
  file(READ "${OUT}" json)
  foreach(key minference build_info cpu device backend cpu_isa)
    string(JSON value GET "${json}" environment ${key})
    if(value STREQUAL "" OR value STREQUAL "none")
      message(FATAL_ERROR "environment: expected ${key}, got '${value}'")
    endif()
  endforeach()
  string(JSON count LENGTH "${json}" rows)
  math(EXPR last "${count} - 1")
  set(found "")
  foreach(index RANGE ${last})
    string(JSON name GET "${json}" rows ${index} name)
    list(APPEND found "${name}")
    set(keys median_ms density workspace_MiB)
    if(name MATCHES "^estimate/")
      list(APPEND keys GB/s)
    else()
      list(APPEND keys executed_TFLOP/s dense_equivalent_TFLOP/s)
    endif()
    foreach(key IN LISTS keys)
      string(JSON value GET "${json}" rows ${index} ${key})
      if(NOT value GREATER 0)
        message(FATAL_ERROR "${name}: expected ${key} above 0, got ${value}")
      endif()
    endforeach()
    string(JSON density GET "${json}" rows ${index} density)
    # Columns have separate tiles beside those of runs, so vertical-slash may be above 1.
    if(density GREATER 2 OR (name MATCHES "/dense" AND NOT density EQUAL 1))
      message(FATAL_ERROR "${name}: density ${density}")
    endif()
  endforeach()
  list(SORT found)
  if(NOT found STREQUAL expected)
    message(FATAL_ERROR "expected the rows\n  ${expected}\ngot\n  ${found}")
  endif()
endforeach()

# Runs with the arguments after `status`; the output must contain `text`.
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

check_says("--head_dim N" 0 --help)
check_says("--seqlens: no such option, or no value" 2 --seqlens 300)
check_says("--seqlen: no such option, or no value" 2 --seqlen)
check_says("--seqlen: expected a whole number, got '3k'" 2 --seqlen 3k)
check_says("--only: no row's name holds 'nothing'" 2 --device cpu --seqlen 64 --only nothing)
check_says("head_dim" 1 --device cpu --seqlen 64 --head_dim 12)
check_says("--device: expected cpu or cuda, got 'gpu'" 2 --device gpu)
