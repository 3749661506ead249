#include "cli/render.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace smartpipe {
namespace {

constexpr int kBarMin = 7;
constexpr int kBarMax = 24;
constexpr size_t kEtaWidth = 19;  // of "9 min 59 s to train"

std::string EpochText(const Progress& progress) {
  if (progress.steps_per_epoch <= 0) return "";
  const int64_t num_epochs =
      (progress.num_steps + progress.steps_per_epoch - 1) / progress.steps_per_epoch;
  const int64_t epoch = std::min(progress.step / progress.steps_per_epoch + 1, num_epochs);
  return absl::StrCat("epoch ", epoch, "/", num_epochs);
}

std::string CutWord(const std::vector<int64_t>& cuts) {
  return absl::StrCat(cuts.size() > 1 ? "cuts " : "cut ", FormatCutList(cuts));
}

// Five characters from 0 to 1e99.
std::string LossText(double loss) {
  if (!std::isfinite(loss)) return "-";
  if (loss < 9.9995) return absl::StrFormat("%.3f", loss);
  if (loss < 99.995) return absl::StrFormat("%.2f", loss);
  return loss < 999.95 ? absl::StrFormat("%.1f", loss) : absl::StrFormat("%.0e", loss);
}

std::string Padded(const std::string& text, size_t width) {
  return text.size() < width ? std::string(width - text.size(), ' ') + text : text;
}

size_t Digits(int64_t number) { return absl::StrCat(number).size(); }

// How long training still takes, without evaluations; rounded, as it is a guess.
std::string EtaText(double eta_s) {
  if (eta_s < 0) return "";
  std::string text = FormatDuration(eta_s);
  if (eta_s < 59.5) text = absl::StrFormat("%.0f s", eta_s);
  if (eta_s >= 600 && eta_s < 3599.5) text = absl::StrFormat("%.0f min", eta_s / 60);
  return text + " to train";
}

// The cuts with room for every number that they may have.
std::string PaddedCuts(const Progress& progress) {
  const size_t digits = Digits(std::max<int64_t>(1, progress.num_layers) - 1);
  const size_t width = progress.cuts.size() * (digits + 1);
  std::string text = CutWord(progress.cuts);
  const size_t word = text.find(' ') + 1;
  if (text.size() + 1 < word + width) text.append(word + width - 1 - text.size(), ' ');
  return text;
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

}  // namespace

std::string FormatDuration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  if (seconds < 59.95) return absl::StrFormat("%.1f s", seconds);
  const int64_t whole = static_cast<int64_t>(std::min(seconds + 0.5, 1e9));
  if (whole < 3600) return absl::StrFormat("%d min %02d s", whole / 60, whole % 60);
  return absl::StrFormat("%d h %02d min", whole / 3600, whole / 60 % 60);
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
      {EpochText(progress), 2},
      {absl::StrCat("step ", Padded(absl::StrCat(progress.step), Digits(progress.num_steps)), "/",
                    progress.num_steps),
       7},
      {absl::StrCat("loss ", Padded(LossText(progress.loss), 5)), 5},
      {absl::StrCat(Padded(FormatRate(progress.samples_per_second), 4), " samples/s"), 3},
      {absl::StrCat("frontier ", Padded(absl::StrCat(progress.frontier),
                                        Digits(std::max<int64_t>(0, progress.num_layers)))),
       6},
      {PaddedCuts(progress), 1},
      {Padded(EtaText(progress.eta_s), kEtaWidth), 4},
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
      absl::StrCat("loss ", LossText(progress.loss)),
      absl::StrCat(FormatRate(progress.samples_per_second), " samples/s"),
      absl::StrCat("frontier ", progress.frontier),
      CutWord(progress.cuts),
      EtaText(progress.eta_s),
  };
  parts.erase(std::remove(parts.begin(), parts.end(), ""), parts.end());
  return absl::StrJoin(parts, "  ");
}

std::string FormatDecision(const DecisionLine& decision) {
  std::vector<std::string> what;
  if (decision.frontier != decision.old_frontier) {
    what.push_back(absl::StrCat("frontier ", decision.old_frontier, " -> ", decision.frontier));
  }
  const bool reason_has_cuts = absl::StrContains(decision.reason, "cuts [");
  if (decision.cuts != decision.old_cuts && !reason_has_cuts) {
    what.push_back(absl::StrCat(decision.cuts.size() > 1 ? "cuts " : "cut ",
                                FormatCutList(decision.old_cuts), " -> ",
                                FormatCutList(decision.cuts)));
  }
  if (absl::StartsWith(decision.reason, "start: ")) return decision.reason;
  const bool changes =
      decision.frontier != decision.old_frontier || decision.cuts != decision.old_cuts;
  return absl::StrCat(changes ? "from step " : "step ", decision.step, changes ? " on: " : ": ",
                      absl::StrJoin(what, ", "), what.empty() ? "" : ": ", decision.reason);
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

std::string WrapHanging(absl::string_view text, int width, int hang) {
  std::string out;
  if (text.empty()) return out;
  for (const absl::string_view line : absl::StrSplit(absl::StripSuffix(text, "\n"), '\n')) {
    const size_t spaces = std::min(line.find_first_not_of(' '), line.size());
    const std::string first(spaces, ' '), next(spaces + static_cast<size_t>(hang), ' ');
    std::string row = first;
    for (const absl::string_view word : absl::StrSplit(line, ' ', absl::SkipEmpty())) {
      const bool has_word = row.find_first_not_of(' ') != std::string::npos;
      if (has_word && row.size() + 1 + word.size() > static_cast<size_t>(std::max(1, width))) {
        absl::StrAppend(&out, row, "\n");
        row = next;
        absl::StrAppend(&row, word);
      } else {
        absl::StrAppend(&row, has_word ? " " : "", word);
      }
    }
    absl::StrAppend(&out, row, "\n");
  }
  return out;
}

}  // namespace smartpipe
