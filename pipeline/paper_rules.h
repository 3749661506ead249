// The SmartPipe paper's pipelines, played by its rules: where its figures for time and bubbles come
// from.
//
// No engine runs them: the paper's 1F1B starts a batch before the optimizer step of the batch
// before it, which takes stale weights. What the engine does is in simulate.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "pipeline/simulate.h"

namespace smartpipe {

struct PaperShape {
  std::string schedule = "1f1b";  // "gpipe" or "1f1b"
  int32_t num_stages = 1;         // 1..limits::kStagesMax
  int32_t num_samples = 1;        // 1..limits::kMicrobatchesMax; a sample is a micro-batch
  int32_t batch_size = 1;         // 1..limits::kMicrobatchesMax; the last batch may be short
  int32_t num_frozen_stages = 0;  // 0..num_stages-1, at the front; they only forward
};

/// Plays samples 0..D-1 through all stages; each stage takes them in order, backward too. A stage
/// chooses whenever it is free, from what had ended by then, and waits only if nothing is possible:
///
///   GPipe     forward first. A trainable stage forwards the next batch only after all its own
///             backwards of this one, and starts those only after all its own forwards of it.
///   1F1B      backward first. Stage i of s holds at most min(s - i, b) forwards without their
///             backward; no flush between batches.
///   credits   from the start of the last frozen stage's forward to the end of the first trainable
///             stage's forward a sample holds one of b credits. Edges between frozen stages are
///             unbounded.
///
/// An optimizer step, if it costs anything, follows the last backward of each batch at its stage.
///
/// Output:  makespan_s (= step_s), busy_s and trace as in Simulate, one rank per stage; microbatch
///          is the sample and step its batch. Free optimizer steps are left out.
/// Errors:  INVALID_ARGUMENT for the shape, for sizes and for times; these count in whole
///          nanoseconds, so that what ends together is seen together.
/// Threads: pure.   Cost: O(stages * samples * log(stages)).
/// Source:  SmartPipe (ICPADS 2023), figures of GPipe and 1F1B with D = 6, s = 4.
/// Test:    tests/unit/pipeline/paper_rules_test.cc has all eight.
absl::StatusOr<SimulateResult> PlayPaperRules(const PaperShape& shape,
                                              const std::vector<StageCost>& costs,
                                              const std::vector<LinkCost>& links);

/// Time that a rank does not compute, from 0 on: until everything is done, or for a rank whose
/// stages are all frozen until its last forward ends.
struct RankUse {
  bool frozen = false;  // all its stages
  double busy_s = 0, idle_s = 0;
  double end_s = 0;  // where idle time stops to count
};
/// Of a result with a trace, [rank].
std::vector<RankUse> RankUses(const SimulateResult& result);

/// True if a rank starts a forward of a trainable stage before it ended the backwards of the batch
/// or step before: its optimizer step comes too late for that forward.
bool NeedsStaleWeights(const SimulateResult& result, int32_t num_frozen_stages);

}  // namespace smartpipe
