# LibTorch without TorchConfig.cmake (which asks for a CUDA compiler).
#
#   smartpipe::torch      tensors, autograd and operators on the CPU
#   smartpipe::c10d_gloo  the same with ProcessGroupGloo's header; only worker/comm uses it
#
# The headers come last on the search path (-idirafter): the folder also holds old protobuf and fmt
# headers that must not win over the system's. Linked are exactly libtorch_cpu and libc10;
# libtorch.so would pull in CUDA.

set(SMARTPIPE_TORCH_DIR "${SMARTPIPE_DEPS_DIR}/torch-2.11.0")
set(_torch_lib "${SMARTPIPE_TORCH_DIR}/torch/lib")
set(_torch_cuda_lib "${SMARTPIPE_TORCH_DIR}/nvidia/cu13/lib")
if(NOT EXISTS "${_torch_lib}/libtorch_cpu.so")
  message(FATAL_ERROR "LibTorch is not in ${SMARTPIPE_TORCH_DIR}. Run `./dev deps`, which downloads it, "
                      "or point -DSMARTPIPE_DEPS_DIR at a folder that has it.")
endif()
set(SMARTPIPE_TORCH_RPATH "${_torch_lib};${_torch_cuda_lib}")

add_library(smartpipe_torch INTERFACE)
add_library(smartpipe::torch ALIAS smartpipe_torch)
target_compile_options(smartpipe_torch INTERFACE
  "SHELL:-idirafter ${SMARTPIPE_TORCH_DIR}/torch/include"
  "SHELL:-idirafter ${SMARTPIPE_TORCH_DIR}/torch/include/torch/csrc/api/include")
# One item, so that CMake neither reorders nor drops a part of it: operators register themselves when
# libtorch_cpu is loaded, although no symbol of theirs is used.
target_link_libraries(smartpipe_torch INTERFACE
  "-Wl,--no-as-needed,${_torch_lib}/libtorch_cpu.so,${_torch_lib}/libc10.so,--as-needed"
  "-Wl,--allow-shlib-undefined,-rpath-link,${_torch_lib},-rpath-link,${_torch_cuda_lib}"
  Threads::Threads)

add_library(smartpipe_c10d_gloo INTERFACE)
add_library(smartpipe::c10d_gloo ALIAS smartpipe_c10d_gloo)
target_link_libraries(smartpipe_c10d_gloo INTERFACE smartpipe_torch)
target_compile_definitions(smartpipe_c10d_gloo INTERFACE USE_C10D_GLOO)

if(SMARTPIPE_INSTALL_TORCH)
  # The folders keep their relation to each other: the libraries find one another through it.
  file(GLOB _torch_install "${_torch_lib}/libtorch_cpu.so" "${_torch_lib}/libc10.so" "${_torch_lib}/libgomp*.so*")
  install(FILES ${_torch_install} DESTINATION lib/smartpipe/torch/lib COMPONENT torch)
  file(GLOB _torch_install "${_torch_cuda_lib}/libcudart.so*" "${_torch_cuda_lib}/libcupti.so*")
  install(FILES ${_torch_install} DESTINATION lib/smartpipe/nvidia/cu13/lib COMPONENT torch)
  # Whoever passes the libraries on must pass on their licences: all that the wheels came with.
  file(GLOB _torch_licenses RELATIVE "${SMARTPIPE_TORCH_DIR}"
       "${SMARTPIPE_TORCH_DIR}/*.dist-info/[Ll][Ii][Cc][Ee][Nn][Ss][Ee]*"
       "${SMARTPIPE_TORCH_DIR}/*.dist-info/NOTICE*"
       "${SMARTPIPE_TORCH_DIR}/*.dist-info/licenses/*")
  foreach(_file IN LISTS _torch_licenses)
    if(NOT IS_DIRECTORY "${SMARTPIPE_TORCH_DIR}/${_file}")
      cmake_path(GET _file PARENT_PATH _folder)
      install(FILES "${SMARTPIPE_TORCH_DIR}/${_file}" DESTINATION "lib/smartpipe/licenses/${_folder}"
              COMPONENT torch)
    endif()
  endforeach()
endif()
