# The functions that the folders' CMakeLists.txt are written with.
#
#   smartpipe_subdirectories(folder...)                  adds each folder that has a CMakeLists.txt
#   smartpipe_library(NAME n SRCS... [HDRS...] [DEPS...] [PRIVATE_DEPS...])
#       static library `smartpipe::n` (header-only without SRCS); headers are included from the
#       repository root: #include "pipeline/plan.h"
#   smartpipe_binary(NAME n SRCS... [DEPS...])           program build/bin/n, installed
#   smartpipe_test(NAME n SRCS... [DEPS...] LABELS kind [TIMEOUT seconds] [SERIAL] [BINARIES b...] [ENV "K=V"...])
#       one googletest program and one ctest entry; kind is one of
#       unit scenario component integration numeric fuzz. SERIAL: never beside another test.
#       BINARIES: programs that the test starts (built before it). Its test cases are counted from
#       the JSON file it writes to build/test-results/.
#   smartpipe_script_test(NAME n COMMAND... LABELS kind [TIMEOUT seconds] [SERIAL] [BINARIES b...])
#       any other program as one test case; exit code 77 means skipped.
#
# DEPS: `base` and `smartpipe::base` are the same; everything else is a full CMake target name
# (absl::status, ZLIB::ZLIB, Threads::Threads).

# Designated initializers leave members out on purpose.
set(SMARTPIPE_WARNINGS -Wall -Wextra -Werror -Wno-missing-field-initializers)
set(SMARTPIPE_TEST_RESULTS "${CMAKE_BINARY_DIR}/test-results")
set(SMARTPIPE_TEST_KINDS unit scenario component integration numeric fuzz arch)

function(smartpipe_subdirectories)
  foreach(folder IN LISTS ARGN)
    if(EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${folder}/CMakeLists.txt")
      add_subdirectory("${folder}")
    endif()
  endforeach()
endfunction()

# smartpipe_proto and proto both name the target smartpipe_proto with the alias smartpipe::proto.
function(_smartpipe_short_name name out)
  string(REGEX REPLACE "^smartpipe(_|::)" "" short "${name}")
  set(${out} "${short}" PARENT_SCOPE)
endfunction()

# Bare names mean this project's own libraries; anything else is passed on as it is.
function(_smartpipe_resolve out)
  set(resolved "")
  foreach(dep IN LISTS ARGN)
    if(dep MATCHES "^[A-Za-z0-9_]+$")
      _smartpipe_short_name("${dep}" short)
      list(APPEND resolved "smartpipe::${short}")
    else()
      list(APPEND resolved "${dep}")
    endif()
  endforeach()
  set(${out} "${resolved}" PARENT_SCOPE)
endfunction()

# Sets out to TRUE when every source file, target and program exists. A gap is an error, except a target or
# program that a pure-only build leaves out: then out is FALSE.
function(_smartpipe_complete out name)
  cmake_parse_arguments(PARSE_ARGV 2 arg "" "" "SRCS;DEPS;PROGRAMS")
  set(gap "")
  set(sources_exist TRUE)
  foreach(src IN LISTS arg_SRCS)
    cmake_path(ABSOLUTE_PATH src BASE_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}" OUTPUT_VARIABLE path)
    get_source_file_property(generated "${path}" GENERATED)
    if(NOT EXISTS "${path}" AND NOT generated)
      list(APPEND gap "source ${src}")
      set(sources_exist FALSE)
    endif()
  endforeach()
  foreach(dep IN LISTS arg_DEPS)
    if(dep MATCHES "::" AND NOT dep MATCHES "\\$<" AND NOT TARGET "${dep}")
      list(APPEND gap "target ${dep}")
    endif()
  endforeach()
  foreach(program IN LISTS arg_PROGRAMS)
    if(NOT TARGET ${program}_bin)
      list(APPEND gap "program ${program}")
    endif()
  endforeach()
  if(NOT gap)
    set(${out} TRUE PARENT_SCOPE)
    return()
  endif()
  set(${out} FALSE PARENT_SCOPE)
  list(JOIN gap ", " gap)
  if(SMARTPIPE_PURE_ONLY AND sources_exist)
    message(STATUS "Not in a pure-only build: ${name} (needs ${gap})")
  else()
    message(FATAL_ERROR "${name} cannot be built: ${gap} does not exist. "
                        "Check the spelling, or add the folder that defines it before this one.")
  endif()
endfunction()

function(_smartpipe_common target)
  target_compile_options(${target} PRIVATE ${SMARTPIPE_WARNINGS})
  target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}" "${PROJECT_BINARY_DIR}/generated")
endfunction()

# Programs find LibTorch in the dependency folder while they are in the build folder, and beside
# themselves once installed.
function(_smartpipe_rpath target)
  if(TARGET smartpipe_torch)
    set_target_properties(${target} PROPERTIES
      BUILD_RPATH "${SMARTPIPE_TORCH_RPATH}"
      INSTALL_RPATH "$ORIGIN/../lib/smartpipe/torch/lib;$ORIGIN/../lib/smartpipe/nvidia/cu13/lib")
  endif()
endfunction()

function(smartpipe_library)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME" "SRCS;HDRS;DEPS;PRIVATE_DEPS")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "smartpipe_library(${arg_NAME}): unknown arguments ${arg_UNPARSED_ARGUMENTS}")
  endif()
  _smartpipe_short_name("${arg_NAME}" name)
  _smartpipe_resolve(deps ${arg_DEPS})
  _smartpipe_resolve(private_deps ${arg_PRIVATE_DEPS})
  _smartpipe_complete(complete "library ${name}" SRCS ${arg_SRCS} ${arg_HDRS} DEPS ${deps} ${private_deps})
  if(NOT complete)
    return()
  endif()
  set(target "smartpipe_${name}")
  if(arg_SRCS)
    add_library(${target} STATIC ${arg_SRCS} ${arg_HDRS})
    _smartpipe_common(${target})
    target_include_directories(${target} PUBLIC "${PROJECT_SOURCE_DIR}" "${PROJECT_BINARY_DIR}/generated")
    target_link_libraries(${target} PUBLIC ${deps} PRIVATE ${private_deps})
  else()
    add_library(${target} INTERFACE)
    target_include_directories(${target} INTERFACE "${PROJECT_SOURCE_DIR}" "${PROJECT_BINARY_DIR}/generated")
    target_link_libraries(${target} INTERFACE ${deps} ${private_deps})
  endif()
  add_library(smartpipe::${name} ALIAS ${target})
endfunction()

function(smartpipe_binary)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME" "SRCS;DEPS")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "smartpipe_binary(${arg_NAME}): unknown arguments ${arg_UNPARSED_ARGUMENTS}")
  endif()
  _smartpipe_resolve(deps ${arg_DEPS})
  _smartpipe_complete(complete "program ${arg_NAME}" SRCS ${arg_SRCS} DEPS ${deps})
  if(NOT complete)
    return()
  endif()
  # The target is called after the program, with a suffix so that it never meets a library's name.
  set(target "${arg_NAME}_bin")
  add_executable(${target} ${arg_SRCS})
  set_target_properties(${target} PROPERTIES OUTPUT_NAME "${arg_NAME}")
  _smartpipe_common(${target})
  _smartpipe_rpath(${target})
  target_link_libraries(${target} PRIVATE ${deps})
  include(GNUInstallDirs)
  # A component each, so that an image gets the programs that it runs and no others.
  install(TARGETS ${target} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT ${arg_NAME})
endfunction()

function(_smartpipe_check_labels name)
  foreach(label IN LISTS ARGN)
    if(NOT label IN_LIST SMARTPIPE_TEST_KINDS)
      message(FATAL_ERROR "Test ${name}: LABELS must be among ${SMARTPIPE_TEST_KINDS}, not `${label}`.")
    endif()
  endforeach()
  if(NOT ARGN)
    message(FATAL_ERROR "Test ${name}: LABELS is missing; it must be among ${SMARTPIPE_TEST_KINDS}.")
  endif()
endfunction()

function(smartpipe_test)
  cmake_parse_arguments(PARSE_ARGV 0 arg "SERIAL" "NAME;TIMEOUT;PROCESSORS" "SRCS;DEPS;LABELS;BINARIES;ENV")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "smartpipe_test(${arg_NAME}): unknown arguments ${arg_UNPARSED_ARGUMENTS}")
  endif()
  _smartpipe_check_labels("${arg_NAME}" ${arg_LABELS})
  _smartpipe_resolve(deps ${arg_DEPS})
  _smartpipe_complete(complete "test ${arg_NAME}" SRCS ${arg_SRCS} DEPS ${deps} smartpipe::test_main
                      PROGRAMS ${arg_BINARIES})
  if(NOT complete)
    return()
  endif()
  add_executable(${arg_NAME} ${arg_SRCS})
  set_target_properties(${arg_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests")
  _smartpipe_common(${arg_NAME})
  _smartpipe_rpath(${arg_NAME})
  target_link_libraries(${arg_NAME} PRIVATE ${deps} smartpipe::test_main GTest::gmock)
  foreach(binary IN LISTS arg_BINARIES)
    add_dependencies(${arg_NAME} ${binary}_bin)
  endforeach()
  add_test(NAME ${arg_NAME}
           COMMAND ${arg_NAME} "--gtest_output=json:${SMARTPIPE_TEST_RESULTS}/${arg_NAME}.json")
  _smartpipe_test_properties()
endfunction()

function(smartpipe_script_test)
  cmake_parse_arguments(PARSE_ARGV 0 arg "SERIAL" "NAME;TIMEOUT;PROCESSORS" "COMMAND;LABELS;BINARIES;ENV")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "smartpipe_script_test(${arg_NAME}): unknown arguments ${arg_UNPARSED_ARGUMENTS}")
  endif()
  _smartpipe_check_labels("${arg_NAME}" ${arg_LABELS})
  _smartpipe_complete(complete "test ${arg_NAME}" PROGRAMS ${arg_BINARIES})
  if(NOT complete)
    return()
  endif()
  add_test(NAME ${arg_NAME} COMMAND ${arg_COMMAND})
  _smartpipe_test_properties()
endfunction()

# What both kinds of test have in common; reads the caller's arg_ variables.
macro(_smartpipe_test_properties)
  set(sanitizer_options "")
  if(SMARTPIPE_SANITIZE MATCHES "address" AND NOT SMARTPIPE_PURE_ONLY)
    # LibTorch and gRPC keep memory for the whole process, which is not a leak of ours.
    set(sanitizer_options "ASAN_OPTIONS=detect_leaks=0")
  endif()
  set(timeout 120)
  if(arg_TIMEOUT)
    set(timeout ${arg_TIMEOUT})
  endif()
  set_tests_properties(${arg_NAME} PROPERTIES
    LABELS "${arg_LABELS}"
    TIMEOUT ${timeout}
    SKIP_RETURN_CODE 77
    WORKING_DIRECTORY "${CMAKE_BINARY_DIR}"
    ENVIRONMENT "SMARTPIPE_SOURCE_DIR=${PROJECT_SOURCE_DIR};SMARTPIPE_BIN_DIR=${CMAKE_BINARY_DIR}/bin;${sanitizer_options};${arg_ENV}")
  if(arg_SERIAL)
    set_tests_properties(${arg_NAME} PROPERTIES RUN_SERIAL TRUE)
  endif()
  if(arg_PROCESSORS)
    set_tests_properties(${arg_NAME} PROPERTIES PROCESSORS ${arg_PROCESSORS})
  endif()
endmacro()
