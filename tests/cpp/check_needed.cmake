# Fails if the library requires a CUDA library at load time: it must load on machines without one.
# SPDX-License-Identifier: Apache-2.0
execute_process(
  COMMAND "${READELF}" --dynamic "${LIBRARY}"
  OUTPUT_VARIABLE entries
  COMMAND_ERROR_IS_FATAL ANY
)
string(REGEX MATCHALL "\\(NEEDED\\)[^\n]*" needed "${entries}")
if(NOT needed MATCHES "libc\\.")
  message(FATAL_ERROR "expected the library to need libc, got:\n${entries}")
endif()
string(REGEX MATCHALL "lib(cuda|cudart|nv)[^\n]*" cuda "${needed}")
if(cuda)
  message(FATAL_ERROR "${LIBRARY} needs ${cuda}")
endif()
