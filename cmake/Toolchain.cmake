# Compiler, linker and build-type settings of the whole project.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()
# No -g in the default build: debug information more than doubles the time of files that include Torch.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_CXX_FLAGS_DEBUG "-O0 -g1")

# No fused multiply-add may be formed by the compiler: results must not depend on how code was inlined.
add_compile_options(-ffp-contract=off)

find_program(SMARTPIPE_CCACHE ccache)
mark_as_advanced(SMARTPIPE_CCACHE)
if(SMARTPIPE_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_C_COMPILER_LAUNCHER "${SMARTPIPE_CCACHE}")
  set(CMAKE_CXX_COMPILER_LAUNCHER "${SMARTPIPE_CCACHE}")
endif()

find_program(SMARTPIPE_MOLD mold)
mark_as_advanced(SMARTPIPE_MOLD)
if(SMARTPIPE_MOLD AND NOT (CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 12.1))
  add_link_options(-fuse-ld=mold)
endif()

# Clang proves the ABSL_GUARDED_BY annotations; other compilers do not know the option.
add_compile_options($<$<COMPILE_LANG_AND_ID:CXX,Clang>:-Wthread-safety>)

if(SMARTPIPE_SANITIZE)
  # -O1: without it the planner's tests take ten minutes.
  add_compile_options(-O1 -fsanitize=${SMARTPIPE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${SMARTPIPE_SANITIZE})
endif()
