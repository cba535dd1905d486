# The install tree, in two layouts:
#   plain        GNUInstallDirs: lib/libminference.so.X.Y.Z with its links, include/, lib/cmake, lib/pkgconfig
#   MINF_PYTHON  the folder of the Python package: libraries at its top, beside the modules that load
#                them; include/ and lib/ below. One file per library: a wheel cannot hold symbolic links.
# Components: library, python (what an editable install needs), development.
# SPDX-License-Identifier: Apache-2.0
include_guard()

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(minference_library_dir "${CMAKE_INSTALL_LIBDIR}")
set(minference_package_dir "${CMAKE_INSTALL_LIBDIR}")
if(MINF_PYTHON)
  set(minference_library_dir .)
  set(minference_package_dir lib)
endif()
set(minference_cmake_dir "${minference_package_dir}/cmake/minference")
set(minference_pkgconfig_dir "${minference_package_dir}/pkgconfig")

# libminference itself: library, headers, CMake package, pkg-config file.
function(minference_install_library target)
  if(NOT MINF_PYTHON)
    # Before 1.0 a minor version may break the ABI.
    set_target_properties(
      ${target}
      PROPERTIES
        VERSION ${PROJECT_VERSION}
        SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}
    )
  endif()
  install(
    TARGETS ${target}
    EXPORT minferenceTargets
    LIBRARY
      DESTINATION ${minference_library_dir}
      COMPONENT library
      NAMELINK_COMPONENT development
  )
  install(
    DIRECTORY "${PROJECT_SOURCE_DIR}/include/minference"
    DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
    COMPONENT development
    FILES_MATCHING
    PATTERN "*.h"
    PATTERN "*.hpp"
  )
  install(
    EXPORT minferenceTargets
    NAMESPACE minference::
    DESTINATION ${minference_cmake_dir}
    COMPONENT development
  )
  minference_install_package_files()
endfunction()

# A library or module that loads libminference from its own folder.
function(minference_install_beside_library target)
  set_target_properties(${target} PROPERTIES INSTALL_RPATH "$ORIGIN" BUILD_WITH_INSTALL_RPATH ON)
  install(TARGETS ${target} LIBRARY DESTINATION ${minference_library_dir} COMPONENT python)
endfunction()

function(minference_install_package_files)
  set(build_dir "${PROJECT_BINARY_DIR}/package")
  configure_package_config_file(
    "${PROJECT_SOURCE_DIR}/cmake/minferenceConfig.cmake.in"
    "${build_dir}/minferenceConfig.cmake"
    INSTALL_DESTINATION ${minference_cmake_dir}
    NO_SET_AND_CHECK_MACRO
  )
  write_basic_package_version_file(
    "${build_dir}/minferenceConfigVersion.cmake"
    COMPATIBILITY SameMinorVersion
  )
  install(
    FILES "${build_dir}/minferenceConfig.cmake" "${build_dir}/minferenceConfigVersion.cmake"
    DESTINATION ${minference_cmake_dir}
    COMPONENT development
  )

  # Relative to the .pc file, so that the tree can be moved and a wheel works wherever it is
  # installed.
  file(RELATIVE_PATH pc_prefix "/${minference_pkgconfig_dir}" "/")
  string(REGEX REPLACE "/$" "" pc_prefix "${pc_prefix}")
  configure_file("${PROJECT_SOURCE_DIR}/cmake/minference.pc.in" "${build_dir}/minference.pc" @ONLY)
  install(
    FILES "${build_dir}/minference.pc"
    DESTINATION ${minference_pkgconfig_dir}
    COMPONENT development
  )
endfunction()
