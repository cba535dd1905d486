# The version has one source: the MINF_VERSION_* macros of minference.h.
# SPDX-License-Identifier: Apache-2.0
include_guard()

# Sets `result` to the "major.minor.patch" that `header` defines.
function(minference_read_version header result)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${header}")
  file(STRINGS "${header}" lines REGEX "^#define MINF_VERSION_(MAJOR|MINOR|PATCH) [0-9]+$")
  list(TRANSFORM lines REPLACE "^.* " "")
  list(JOIN lines "." version)
  if(NOT version MATCHES "^[0-9]+\\.[0-9]+\\.[0-9]+$")
    message(FATAL_ERROR "${header}: expected three MINF_VERSION_* numbers, got '${version}'")
  endif()
  set(${result} ${version} PARENT_SCOPE)
endfunction()
