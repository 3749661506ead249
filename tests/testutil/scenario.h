// Scenario tests: text files of commands and expected output, replayed by a handler.
//
//   # A comment; kept by a rewrite.
//   compile schedule=1f1b stages=2 microbatches=2     <- command line: a name and arguments
//   optional further lines, the body
//   ----
//   expected output up to the next blank line
//
// Output that has blank lines itself stands between doubled separators (`----` twice before and
// twice after). With `--rewrite` or SMARTPIPE_REWRITE=1 the file's expected parts are replaced by
// what the handler said; the diff of the file is then what a reviewer reads.
//
//   TEST(Coordinator, Scenarios) {
//     for (const std::string& path : ScenarioFiles("coordinator")) {
//       Coordinator coordinator;
//       RunScenario(path, [&](const ScenarioCommand& command) { return Play(coordinator, command);
//       });
//     }
//   }
#ifndef SMARTPIPE_TESTS_TESTUTIL_SCENARIO_H_
#define SMARTPIPE_TESTS_TESTUTIL_SCENARIO_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace smartpipe::testutil {

struct ScenarioCommand {
  std::string text;               // the block as written: command line and body
  std::string name;               // first word of the command line
  std::vector<std::string> args;  // its other words
  std::string body;               // the lines after it, with their line ends; often empty
  int line = 0;                   // of the command line in the file, from 1

  /// Value of the argument `key=value`; `otherwise` when it is not there.
  std::string Arg(absl::string_view key, absl::string_view otherwise = "") const;
  /// Same as a number; a value that is none fails the running test and gives `otherwise`.
  int64_t IntArg(absl::string_view key, int64_t otherwise = 0) const;
  double DoubleArg(absl::string_view key, double otherwise = 0) const;
};
using ScenarioHandler = std::function<std::string(const ScenarioCommand&)>;

/// Sorted paths of tests/scenario/<folder>/*.txt. Fails the running test when there are none.
std::vector<std::string> ScenarioFiles(absl::string_view folder);

/// Calls `handler` for each command of the file, in order, and expects its output (trailing line
/// ends do not count). A difference is a non-fatal failure that shows file, line, command, expected
/// and actual.
void RunScenario(const std::string& path, const ScenarioHandler& handler);

/// The replay as a function on text; RunScenario is this on a file.
struct ScenarioReplay {
  std::string rewritten;              // the file as the handler would have it
  std::vector<std::string> failures;  // one message per difference
};
/// INVALID_ARGUMENT, naming the line, for a command without `----`.
absl::StatusOr<ScenarioReplay> ReplayScenario(absl::string_view file_text,
                                              const ScenarioHandler& handler);

/// Root of the source tree: SMARTPIPE_SOURCE_DIR, or where the test was built from.
std::string SourceDir();

}  // namespace smartpipe::testutil

#endif  // SMARTPIPE_TESTS_TESTUTIL_SCENARIO_H_
