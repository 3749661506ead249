#include "cli/complaint.h"

#include <iostream>

namespace smartpipe {

int Fail(const absl::Status& status, int exit_code) {
  std::cout.flush();
  std::cerr << "smartpipe: " << status.message() << std::endl;
  return exit_code;
}

}  // namespace smartpipe
