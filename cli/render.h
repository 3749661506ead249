// What a person sees, as pure functions from numbers to text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace smartpipe {

/// The numbers of the live line.
struct Progress {
  int64_t step = 0;       // steps done
  int64_t num_steps = 0;  // of the whole run; 0 = not known yet
  int64_t steps_per_epoch = 0;
  double loss = 0;  // NaN = none yet
  double samples_per_second = 0;
  int64_t frontier = 0;
  int64_t num_layers = 0;  // of the model; 0 = not known
  std::vector<int64_t> cuts;
  double eta_s = -1;  // seconds of training to go; negative = not known
};

/// A time for people, always with its units: "0.4 s", "12.3 s", "4 min 05 s", "1 h 02 min"; "?" for
/// what is negative or not finite.
std::string FormatDuration(double seconds);

/// "1.23k", "45.6k", "812", "9.4": at most five characters up to a million.
std::string FormatRate(double per_second);

/// "4", "2,4,6", or "-" for one stage.
std::string FormatCutList(const std::vector<int64_t>& cuts);

/// The live line for a terminal, never wider than `width` columns: progress bar, step, loss, epoch,
/// samples/s, frontier, time to train, cut. What has no room is left out, least important first.
/// Numbers have a fixed width, so that neither what is shown nor the bar changes during a run.
std::string LiveLine(const Progress& progress, int width);

/// The same numbers for a pipe or log, spelled out.
std::string PlainLine(const Progress& progress);

/// One decision as a line: from where on it holds, what changes (nothing at the start or after a
/// refusal; cuts only if the reason does not give them), the reason verbatim. Decisions are known
/// before they take effect.
struct DecisionLine {
  int64_t step = 0;
  int64_t old_frontier = 0, frontier = 0;
  std::vector<int64_t> old_cuts, cuts;
  std::string reason;
};
std::string FormatDecision(const DecisionLine& decision);

/// Rows of cells as aligned columns, two spaces between them; the first column to the left, the
/// others to the right. A row shorter than the widest is filled up. Every line ends with \n and
/// without spaces.
std::string FormatColumns(const std::vector<std::vector<std::string>>& rows);

/// `text` broken at spaces into lines of at most `width` columns, each led by `indent` spaces. A
/// longer word stays whole.
std::string Wrap(absl::string_view text, int width, int indent);

/// Each line of `text` broken at spaces into lines of at most `width` columns; those that continue
/// a line are led by its own leading spaces and `hang` more. A longer word stays whole. Ends with
/// \n unless empty.
std::string WrapHanging(absl::string_view text, int width, int hang);

}  // namespace smartpipe
