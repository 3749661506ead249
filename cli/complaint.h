// How the command says on stderr what went wrong.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace smartpipe {

/// Prints `text`, of one or several lines: wrapped with a hanging indent on a terminal, else as it
/// is, one line per problem.
void Complain(absl::string_view text);

/// Complain("smartpipe: <message>"); returns `exit_code`.
int Fail(const absl::Status& status, int exit_code);

}  // namespace smartpipe
