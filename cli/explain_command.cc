// smartpipe explain: where the time of a run went.
#include <iostream>
#include <string>

#include "cli/commands.h"
#include "cli/explain.h"
#include "cli/run_trace.h"
#include "services/base/status_macros.h"

namespace smartpipe {

namespace {

absl::StatusOr<std::string> ExplainText(const std::string& run_dir, bool json) {
  SP_ASSIGN_OR_RETURN(const RunTrace run, LoadRunTrace(run_dir));
  SP_ASSIGN_OR_RETURN(const Explanation explanation, Explain(run));
  return json ? ExplanationJson(run, explanation) : ExplanationText(run, explanation);
}

}  // namespace

int ExplainCommand(const std::string& run_dir, bool json) {
  const absl::StatusOr<std::string> text = ExplainText(run_dir, json);
  if (!text.ok()) {
    std::cerr << "smartpipe: " << text.status().message() << std::endl;
    return kExitUsage;
  }
  std::cout << *text << std::flush;
  return std::cout ? kExitFinished : kExitFailed;
}

}  // namespace smartpipe
