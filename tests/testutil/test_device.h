// The device that tests train on, said in one place.
#pragma once

#include <cstdlib>
#include <string>

namespace smartpipe::testutil {

/// "cpu", or what SMARTPIPE_TEST_DEVICE says: a value of worker.device. `./dev gpu-test` sets it.
inline std::string TestDevice() {
  const char* device = std::getenv("SMARTPIPE_TEST_DEVICE");
  return device == nullptr || *device == '\0' ? "cpu" : device;
}

}  // namespace smartpipe::testutil
