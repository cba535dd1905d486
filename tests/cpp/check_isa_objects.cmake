# Fails if an object built with an instruction set's flags defines a symbol that the linker may
# merge with another of the same name: nm's W, V and u.
# SPDX-License-Identifier: Apache-2.0
if(NOT OBJECTS)
  message(FATAL_ERROR "expected objects of instruction sets, got none")
endif()
foreach(object IN LISTS OBJECTS)
  execute_process(
    COMMAND "${NM}" --demangle --defined-only "${object}"
    OUTPUT_VARIABLE symbols
    COMMAND_ERROR_IS_FATAL ANY
  )
  string(REGEX MATCHALL "[^\n]* [VWu] [^\n]*" shared "${symbols}")
  if(shared)
    list(JOIN shared "\n" shared)
    message(SEND_ERROR "${object} defines mergeable symbols:\n${shared}")
  endif()
endforeach()
