#include "cli/complaint.h"

#include <unistd.h>

#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "cli/display.h"
#include "cli/render.h"

namespace smartpipe {

void Complain(absl::string_view text) {
  std::cout.flush();
  if (isatty(STDERR_FILENO) == 1) {
    std::cerr << WrapHanging(text, TerminalWidth(STDERR_FILENO), 2) << std::flush;
  } else {
    std::cerr << absl::StripSuffix(text, "\n") << std::endl;
  }
}

int Fail(const absl::Status& status, int exit_code) {
  Complain(absl::StrCat("smartpipe: ", status.message()));
  return exit_code;
}

}  // namespace smartpipe
