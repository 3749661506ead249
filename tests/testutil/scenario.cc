#include "tests/testutil/scenario.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "gtest/gtest.h"

namespace smartpipe::testutil {
namespace {

constexpr absl::string_view kSeparator = "----";

bool IsBlank(absl::string_view line) { return absl::StripAsciiWhitespace(line).empty(); }

std::string JoinLines(const std::vector<std::string>& lines) {
  std::string out;
  for (const std::string& line : lines) absl::StrAppend(&out, line, "\n");
  return out;
}

ScenarioCommand MakeCommand(const std::vector<std::string>& block, int line) {
  ScenarioCommand command;
  command.text = JoinLines(block);
  command.line = line;
  command.args = absl::StrSplit(block[0], ' ', absl::SkipWhitespace());
  command.name = command.args[0];
  command.args.erase(command.args.begin());
  command.body = JoinLines({block.begin() + 1, block.end()});
  return command;
}

// Expected output that starts at lines[*next]; leaves *next behind it.
std::string TakeExpected(const std::vector<std::string>& lines, size_t* next) {
  std::vector<std::string> expected;
  const bool doubled = *next < lines.size() && lines[*next] == kSeparator;
  if (doubled) ++*next;
  while (*next < lines.size()) {
    const bool ends = doubled ? lines[*next] == kSeparator && *next + 1 < lines.size() &&
                                    lines[*next + 1] == kSeparator
                              : IsBlank(lines[*next]);
    if (ends) break;
    expected.push_back(lines[(*next)++]);
  }
  if (doubled) *next = std::min(*next + 2, lines.size());
  return JoinLines(expected);
}

std::string Normalized(absl::string_view output) {
  while (!output.empty() && (output.back() == '\n' || output.back() == ' '))
    output.remove_suffix(1);
  return output.empty() ? "" : absl::StrCat(output, "\n");
}

std::string WithSeparators(const std::string& output) {
  std::vector<std::string> lines = absl::StrSplit(output, '\n');
  lines.pop_back();
  const bool doubled = std::any_of(lines.begin(), lines.end(), IsBlank) ||
                       (!lines.empty() && lines[0] == kSeparator);
  return doubled ? absl::StrCat("----\n----\n", output, "----\n----\n")
                 : absl::StrCat("----\n", output);
}

}  // namespace

std::string ScenarioCommand::Arg(absl::string_view key, absl::string_view otherwise) const {
  for (absl::string_view arg : args) {
    if (absl::ConsumePrefix(&arg, key) && absl::ConsumePrefix(&arg, "=")) return std::string(arg);
  }
  return std::string(otherwise);
}

int64_t ScenarioCommand::IntArg(absl::string_view key, int64_t otherwise) const {
  const std::string text = Arg(key);
  int64_t value = otherwise;
  if (!text.empty() && !absl::SimpleAtoi(text, &value)) {
    ADD_FAILURE() << "line " << line << ": " << key << "=" << text << " is not a whole number";
    return otherwise;
  }
  return value;
}

double ScenarioCommand::DoubleArg(absl::string_view key, double otherwise) const {
  const std::string text = Arg(key);
  double value = otherwise;
  if (!text.empty() && !absl::SimpleAtod(text, &value)) {
    ADD_FAILURE() << "line " << line << ": " << key << "=" << text << " is not a number";
    return otherwise;
  }
  return value;
}

std::string SourceDir() {
  const char* dir = std::getenv("SMARTPIPE_SOURCE_DIR");
  return dir != nullptr && *dir != '\0' ? dir : SMARTPIPE_BUILT_FROM;
}

std::vector<std::string> ScenarioFiles(absl::string_view folder) {
  const std::string dir = absl::StrCat(SourceDir(), "/tests/scenario/", folder);
  std::vector<std::string> paths;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(dir, error)) {
    const std::filesystem::path& path = entry.path();
    if (path.extension() == ".txt" && path.filename() != "CMakeLists.txt") {
      paths.push_back(path.string());
    }
  }
  if (paths.empty()) ADD_FAILURE() << "No scenario files *.txt in " << dir;
  std::sort(paths.begin(), paths.end());
  return paths;
}

absl::StatusOr<ScenarioReplay> ReplayScenario(absl::string_view file_text,
                                              const ScenarioHandler& handler) {
  std::vector<std::string> lines = absl::StrSplit(file_text, '\n');
  if (!lines.empty() && lines.back().empty()) lines.pop_back();
  ScenarioReplay replay;
  for (size_t next = 0; next < lines.size();) {
    if (IsBlank(lines[next]) || absl::StartsWith(lines[next], "#")) {
      absl::StrAppend(&replay.rewritten, lines[next++], "\n");
      continue;
    }
    const int line = static_cast<int>(next) + 1;
    std::vector<std::string> block;
    while (next < lines.size() && lines[next] != kSeparator) block.push_back(lines[next++]);
    if (next == lines.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", line, ": command `", block[0], "` has no ---- after it"));
    }
    ++next;
    const std::string expected = Normalized(TakeExpected(lines, &next));
    const ScenarioCommand command = MakeCommand(block, line);
    const std::string actual = Normalized(handler(command));
    if (actual != expected) {
      replay.failures.push_back(absl::StrCat("line ", line, ": ", command.text, "---- expected\n",
                                             expected, "---- actual\n", actual));
    }
    absl::StrAppend(&replay.rewritten, command.text, WithSeparators(actual));
  }
  return replay;
}

void RunScenario(const std::string& path, const ScenarioHandler& handler) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  if (!in) {
    ADD_FAILURE() << "Cannot read scenario file " << path;
    return;
  }
  const absl::StatusOr<ScenarioReplay> replay = ReplayScenario(text.str(), handler);
  if (!replay.ok()) {
    ADD_FAILURE() << path << ": " << replay.status();
    return;
  }
  const char* rewrite = std::getenv("SMARTPIPE_REWRITE");
  if (rewrite != nullptr && absl::string_view(rewrite) == "1") {
    if (replay->rewritten == text.str()) return;
    std::ofstream(path) << replay->rewritten;
    std::cout << "Rewrote " << path << "\n";
    return;
  }
  for (const std::string& failure : replay->failures) ADD_FAILURE() << path << ":\n" << failure;
}

}  // namespace smartpipe::testutil
