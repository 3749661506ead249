# What the CUDA plug-in (worker/cuda) is compiled with and linked to; no CUDA compiler is used.
#
#   smartpipe::cuda   set only where headers of CUDA 13 and NCCL are found: a toolkit ($CUDA_HOME,
#                     /usr/local/cuda), else the folder that `./dev cuda-deps` fills.
#
# Libraries: those of `./dev cuda-deps` where they are there. Otherwise empty stand-ins of the same names: the
# plug-in is compiled and linked all the same, it names the libraries that it needs, and it can be loaded
# where they are. The real ones are 3 GB, more than a build without a GPU should take.

set(SMARTPIPE_CUDA_DIR "${SMARTPIPE_DEPS_DIR}/cuda-13.0")
set(_cuda_real FALSE)
if(EXISTS "${SMARTPIPE_CUDA_DIR}/.complete")
  set(_cuda_real TRUE)
endif()

# "include folder:what to call it"; the first that has both headers wins.
set(_cuda_candidates "")
foreach(_home "$ENV{CUDA_HOME}" /usr/local/cuda)
  if(_home)
    list(APPEND _cuda_candidates "${_home}/include")
  endif()
endforeach()
set(_cuda_include "")
set(_cuda_why "no headers of CUDA and NCCL (a toolkit in CUDA_HOME or /usr/local/cuda, or ./dev cuda-deps)")
foreach(_folder IN LISTS _cuda_candidates)
  if(EXISTS "${_folder}/nccl.h" AND EXISTS "${_folder}/cuda_runtime_api.h")
    file(STRINGS "${_folder}/cuda_runtime_api.h" _cuda_version REGEX "^#define CUDART_VERSION +[0-9]+")
    if(_cuda_version MATCHES " 13[0-9][0-9][0-9]$")
      set(_cuda_include "${_folder}")
      set(_cuda_from "headers of the toolkit, ${_folder}")
      break()
    endif()
    set(_cuda_why "${_folder} is not of CUDA 13, for which LibTorch is built")
  endif()
endforeach()
if(NOT _cuda_include AND _cuda_real)
  set(_cuda_include "${SMARTPIPE_CUDA_DIR}/nvidia/cu13/include" "${SMARTPIPE_CUDA_DIR}/nvidia/cu13/include/cccl"
                    "${SMARTPIPE_CUDA_DIR}/nvidia/nccl/include")
  set(_cuda_from "headers of the wheels")
endif()
if(SMARTPIPE_SANITIZE)
  set(_cuda_include "")
  set(_cuda_why "a sanitizer cannot be used with it")
endif()

if(NOT _cuda_include)
  message(STATUS "CUDA plug-in: not built: ${_cuda_why}")
  return()
endif()

add_library(smartpipe_cuda INTERFACE)
add_library(smartpipe::cuda ALIAS smartpipe_cuda)
target_link_libraries(smartpipe_cuda INTERFACE smartpipe_torch)
foreach(_folder IN LISTS _cuda_include)
  target_compile_options(smartpipe_cuda INTERFACE "SHELL:-idirafter ${_folder}")
endforeach()

# In this order: the libraries of Torch, then what they and the plug-in use.
if(_cuda_real)
  set(_cuda_libraries
      "${SMARTPIPE_CUDA_DIR}/torch/lib/libtorch_cuda.so" "${SMARTPIPE_CUDA_DIR}/torch/lib/libc10_cuda.so"
      "${SMARTPIPE_CUDA_DIR}/nvidia/cu13/lib/libcudart.so.13" "${SMARTPIPE_CUDA_DIR}/nvidia/nccl/lib/libnccl.so.2")
  set(_cuda_with "the libraries of ./dev cuda-deps")
else()
  set(_cuda_libraries "")
  foreach(_name libtorch_cuda.so libc10_cuda.so libcudart.so.13 libnccl.so.2)
    string(MAKE_C_IDENTIFIER "stand_in_${_name}" _target)
    file(CONFIGURE OUTPUT "${CMAKE_BINARY_DIR}/cuda-stand-ins/empty.c" CONTENT "/* Only its name is used. */\n")
    add_library(${_target} SHARED "${CMAKE_BINARY_DIR}/cuda-stand-ins/empty.c")
    set_target_properties(${_target} PROPERTIES
      PREFIX "" SUFFIX "" OUTPUT_NAME "${_name}" NO_SONAME TRUE LINK_OPTIONS "-Wl,-soname,${_name}"
      LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/cuda-stand-ins")
    add_dependencies(smartpipe_cuda ${_target})
    list(APPEND _cuda_libraries "${CMAKE_BINARY_DIR}/cuda-stand-ins/${_name}")
  endforeach()
  set(_cuda_with "stand-ins for its libraries (./dev cuda takes the real ones)")
endif()
# As needed or not: operators register themselves when libtorch_cuda is loaded.
list(JOIN _cuda_libraries "," _cuda_libraries)
target_link_libraries(smartpipe_cuda INTERFACE "-Wl,--no-as-needed,${_cuda_libraries},--as-needed")
if(_cuda_real)
  # Every symbol must be there. Those of the libraries' own libraries are their business.
  target_link_options(smartpipe_cuda INTERFACE "-Wl,-z,defs" "-Wl,--allow-shlib-undefined")
endif()
set(SMARTPIPE_CUDA_RPATH
    "${SMARTPIPE_CUDA_DIR}/torch/lib" "${SMARTPIPE_CUDA_DIR}/nvidia/cu13/lib" "${SMARTPIPE_CUDA_DIR}/nvidia/nccl/lib")
message(STATUS "CUDA plug-in: built with ${_cuda_from}, and ${_cuda_with}")
