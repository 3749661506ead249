# Protocol buffers and gRPC services.
#
#   smartpipe_proto(NAME proto SRCS smartpipe/v1/a.proto grpc/health/v1/health.proto ...)
#       library `smartpipe::proto`; SRCS are relative to proto/ (a leading "proto/" is accepted), and
#       so are the headers: #include "smartpipe/v1/a.grpc.pb.h"

# Protobuf 3.21 of the distributions has no config file, gRPC and abseil have.
find_package(Protobuf MODULE REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_program(SMARTPIPE_GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)
mark_as_advanced(SMARTPIPE_GRPC_CPP_PLUGIN)

function(smartpipe_proto)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME" "SRCS")
  _smartpipe_short_name("${arg_NAME}" name)
  set(root "${PROJECT_SOURCE_DIR}/proto")
  set(out "${PROJECT_BINARY_DIR}/generated/proto")
  file(MAKE_DIRECTORY "${out}")
  set(generated "")
  foreach(src IN LISTS arg_SRCS)
    string(REGEX REPLACE "^(${root}|proto)/" "" src "${src}")
    if(NOT EXISTS "${root}/${src}")
      message(FATAL_ERROR "smartpipe_proto(${name}): proto/${src} does not exist.")
    endif()
    list(APPEND inputs "${root}/${src}")
    string(REGEX REPLACE "\\.proto$" "" stem "${src}")
    set(outputs "${out}/${stem}.pb.cc" "${out}/${stem}.pb.h" "${out}/${stem}.grpc.pb.cc" "${out}/${stem}.grpc.pb.h")
    list(APPEND generated ${outputs})
    list(APPEND stems "${src}")
  endforeach()
  # One call for all files: an edit of one may change the others through imports.
  add_custom_command(
    OUTPUT ${generated}
    COMMAND protobuf::protoc "--proto_path=${root}" "--cpp_out=${out}" "--grpc_out=generate_mock_code=true:${out}"
            "--plugin=protoc-gen-grpc=${SMARTPIPE_GRPC_CPP_PLUGIN}" ${stems}
    DEPENDS ${inputs}
    WORKING_DIRECTORY "${root}"
    COMMENT "Generating C++ from proto/"
    VERBATIM)
  set(target "smartpipe_${name}")
  add_library(${target} STATIC ${generated})
  add_library(smartpipe::${name} ALIAS ${target})
  # Generated code is not ours to lint.
  target_compile_options(${target} PRIVATE -w)
  target_include_directories(${target} SYSTEM PUBLIC "${out}")
  target_link_libraries(${target} PUBLIC gRPC::grpc++ protobuf::libprotobuf)
endfunction()
