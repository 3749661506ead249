#include "cli/render.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace smartpipe {
namespace {

constexpr int kBarMin = 8;
constexpr int kBarMax = 24;

std::string EpochText(const Progress& progress) {
  if (progress.steps_per_epoch <= 0) return "";
  const int64_t num_epochs =
      (progress.num_steps + progress.steps_per_epoch - 1) / progress.steps_per_epoch;
  const int64_t epoch = std::min(progress.step / progress.steps_per_epoch + 1, num_epochs);
  return absl::StrCat("epoch ", epoch, "/", num_epochs);
}

std::string LossText(double loss) {
  if (!std::isfinite(loss)) return "loss -";
  return loss < 1000 ? absl::StrFormat("loss %.3f", loss) : absl::StrFormat("loss %.2e", loss);
}

std::string Bar(const Progress& progress, int width) {
  const double share = std::clamp(static_cast<double>(progress.step) /
                                      static_cast<double>(std::max<int64_t>(1, progress.num_steps)),
                                  0.0, 1.0);
  const int inner = width - 2;
  const int full = static_cast<int>(share * inner);
  std::string bar(full, '=');
  if (full < inner) bar += '>';
  bar.resize(inner, ' ');
  return absl::StrCat("[", bar, "]");
}

std::string CutWord(const std::vector<int64_t>& cuts) {
  return absl::StrCat(cuts.size() > 1 ? "cuts " : "cut ", FormatCutList(cuts));
}

}  // namespace

std::string FormatDuration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  if (seconds < 59.95) return absl::StrFormat("%.1f s", seconds);
  const int64_t whole = static_cast<int64_t>(std::min(seconds + 0.5, 1e9));
  const int64_t hours = whole / 3600, minutes = whole / 60 % 60;
  if (hours > 0) return absl::StrFormat("%d:%02d:%02d", hours, minutes, whole % 60);
  return absl::StrFormat("%d:%02d", minutes, whole % 60);
}

std::string FormatRate(double per_second) {
  if (!std::isfinite(per_second) || per_second < 0) return "-";
  if (per_second < 9.95) return absl::StrFormat("%.1f", per_second);
  if (per_second < 9999.5) return absl::StrFormat("%.0f", per_second);
  if (per_second < 99'950) return absl::StrFormat("%.1fk", per_second / 1000);
  return absl::StrFormat("%.0fk", per_second / 1000);
}

std::string FormatCutList(const std::vector<int64_t>& cuts) {
  return cuts.empty() ? "-" : absl::StrJoin(cuts, ",");
}

std::string LiveLine(const Progress& progress, int width) {
  struct Part {
    std::string text;
    int importance;  // the least important leaves first
  };
  std::vector<Part> parts = {
      {EpochText(progress), 3},
      {absl::StrCat("step ", progress.step, "/", progress.num_steps), 6},
      {LossText(progress.loss), 4},
      {absl::StrCat(FormatRate(progress.samples_per_second), "/s"), 2},
      {absl::StrCat("frontier ", progress.frontier), 5},
      {CutWord(progress.cuts), 1},
      {progress.eta_s < 0 ? "" : absl::StrCat("ETA ", FormatDuration(progress.eta_s)), 3},
  };
  for (;;) {
    std::vector<std::string> texts;
    for (const Part& part : parts) {
      if (!part.text.empty()) texts.push_back(part.text);
    }
    const std::string line = absl::StrJoin(texts, " ");
    const int room = width - static_cast<int>(line.size()) - 1;
    if (room >= kBarMin) return absl::StrCat(Bar(progress, std::min(room, kBarMax)), " ", line);
    if (room >= -1) return line;
    if (parts.size() == 1) return line.substr(0, std::max(0, width));
    parts.erase(std::min_element(parts.begin(), parts.end(), [](const Part& a, const Part& b) {
      return a.importance < b.importance;
    }));
  }
}

std::string PlainLine(const Progress& progress) {
  std::vector<std::string> parts = {
      EpochText(progress),
      absl::StrCat("step ", progress.step, "/", progress.num_steps),
      LossText(progress.loss),
      absl::StrCat(FormatRate(progress.samples_per_second), " samples/s"),
      absl::StrCat("frontier ", progress.frontier),
      CutWord(progress.cuts),
      progress.eta_s < 0 ? "" : absl::StrCat("ETA ", FormatDuration(progress.eta_s)),
  };
  parts.erase(std::remove(parts.begin(), parts.end(), ""), parts.end());
  return absl::StrJoin(parts, "  ");
}

std::string FormatDecision(const DecisionLine& decision) {
  std::vector<std::string> what;
  if (decision.frontier != decision.old_frontier) {
    what.push_back(absl::StrCat("frontier ", decision.old_frontier, " -> ", decision.frontier));
  }
  if (decision.cuts != decision.old_cuts) {
    what.push_back(absl::StrCat(decision.cuts.size() > 1 ? "cuts " : "cut ",
                                FormatCutList(decision.old_cuts), " -> ",
                                FormatCutList(decision.cuts)));
  }
  return absl::StrCat("step ", decision.step, ": ", absl::StrJoin(what, ", "),
                      what.empty() ? "" : ": ", decision.reason);
}

std::string FormatColumns(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const std::vector<std::string>& row : rows) {
    if (row.size() > widths.size()) widths.resize(row.size());
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const std::vector<std::string>& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string fill(widths[i] - row[i].size(), ' ');
      absl::StrAppend(&line, i == 0 ? "" : "  ", i == 0 ? row[i] + fill : fill + row[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    absl::StrAppend(&out, line, "\n");
  }
  return out;
}

std::string Wrap(absl::string_view text, int width, int indent) {
  std::string out;
  std::string line;
  const size_t room = static_cast<size_t>(std::max(1, width - indent));
  const auto flush = [&] {
    absl::StrAppend(&out, std::string(indent, ' '), line, "\n");
    line.clear();
  };
  for (const absl::string_view word : absl::StrSplit(text, ' ', absl::SkipEmpty())) {
    if (!line.empty() && line.size() + 1 + word.size() > room) flush();
    absl::StrAppend(&line, line.empty() ? "" : " ", word);
  }
  if (!line.empty()) flush();
  return out;
}

}  // namespace smartpipe
