#include "cli/files.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace smartpipe {

absl::StatusOr<std::string> ProgramFolder() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error)
    return absl::UnknownError(absl::StrCat("cannot read /proc/self/exe: ", error.message()));
  return self.parent_path().string();
}

}  // namespace smartpipe
