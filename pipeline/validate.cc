#include <string>

#include "absl/strings/str_cat.h"
#include "pipeline/play.h"
#include "pipeline/schedule.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

// Micro-batches done so far per stage; each kind runs in order 0..M-1, so a count says which.
struct StageProgress {
  int32_t forward = 0, input_grad = 0, weight_grad = 0;
  int32_t sent_forward = 0, received_forward = 0, sent_backward = 0, received_backward = 0;
  bool reduced = false, optimized = false;
};

// Everything that one rank's program shows by itself; what is wrong is a sentence, empty = nothing.
class RankChecker {
 public:
  explicit RankChecker(const ScheduleShape& shape) : shape_(shape), stages_(shape.num_stages) {}

  std::string Check(const Instruction& cell) {
    const int32_t s = cell.stage.value(), m = cell.microbatch.value();
    StageProgress& now = stages_[s];
    if (now.optimized) return absl::StrCat("stage ", s, " has had its optimizer step");
    switch (cell.op) {
      case Op::kForward:
        return CheckForward(s, m, &now);
      case Op::kBackward:
        return CheckBackward(s, m, &now);
      case Op::kInputGrad:
        return CheckInputGrad(s, m, &now);
      case Op::kWeightGrad:
        return CheckWeightGrad(s, m, &now);
      case Op::kSendForward:
        return CheckSend(m, now.forward, &now.sent_forward);
      case Op::kRecvForward:
        return CheckNext(m, &now.received_forward);
      case Op::kSendBackward:
        if (s <= shape_.num_frozen_stages) return BelowFrontier(s - 1);
        return CheckSend(m, now.input_grad, &now.sent_backward);
      case Op::kRecvBackward:
        if (s < shape_.num_frozen_stages) return BelowFrontier(s);
        return CheckNext(m, &now.received_backward);
      case Op::kReduce:
        return CheckReduce(s, &now);
      case Op::kOptimize:
        return CheckOptimize(s, &now);
    }
    return "unknown instruction";
  }

  std::string CheckEnd(int32_t s) const {
    const int32_t num_microbatches = shape_.num_microbatches;
    const StageProgress& now = stages_[s];
    auto missing = [&](absl::string_view name, int32_t count, bool wanted) {
      const int32_t want = wanted ? num_microbatches : 0;
      return count == want
                 ? ""
                 : absl::StrCat("stage ", s, " ends after ", count, " of ", want, " ", name);
    };
    const bool trains = s >= shape_.num_frozen_stages;
    for (const std::string& what : {
             missing("F", now.forward, true),
             missing("B or I", now.input_grad, trains),
             missing("B or W", now.weight_grad, trains),
             missing("RF", now.received_forward, HasEdge(s - 1)),
             missing("SF", now.sent_forward, HasEdge(s)),
             missing("RB", now.received_backward, trains && HasEdge(s)),
             missing("SB", now.sent_backward, s > shape_.num_frozen_stages && HasEdge(s - 1)),
         }) {
      if (!what.empty()) return what;
    }
    return trains && !now.optimized ? absl::StrCat("stage ", s, " has no OPT") : "";
  }

 private:
  bool HasEdge(int32_t s) const {  // between s and s + 1, of different ranks
    return s >= 0 && s + 1 < shape_.num_stages && shape_.rank_of(s) != shape_.rank_of(s + 1);
  }
  static std::string BelowFrontier(int32_t s) {
    return absl::StrCat("stage ", s, " is frozen and takes no gradient");
  }
  static std::string CheckNext(int32_t m, int32_t* count) {
    if (m != *count) return absl::StrCat("micro-batch ", *count, " is next");
    ++*count;
    return "";
  }
  static std::string CheckSend(int32_t m, int32_t num_made, int32_t* count) {
    if (m >= num_made) return "what it sends is not computed yet";
    return CheckNext(m, count);
  }

  std::string CheckForward(int32_t s, int32_t m, StageProgress* now) const {
    if (s > 0) {
      const int32_t have = HasEdge(s - 1) ? now->received_forward : stages_[s - 1].forward;
      if (m >= have) return absl::StrCat("its input from stage ", s - 1, " is not there yet");
    }
    return CheckNext(m, &now->forward);
  }
  std::string CheckInputGrad(int32_t s, int32_t m, StageProgress* now) const {
    if (s < shape_.num_frozen_stages) return BelowFrontier(s);
    if (m >= now->forward) return "its forward has not run yet";
    if (s + 1 < shape_.num_stages) {
      const int32_t have = HasEdge(s) ? now->received_backward : stages_[s + 1].input_grad;
      if (m >= have) return absl::StrCat("its gradient from stage ", s + 1, " is not there yet");
    }
    return CheckNext(m, &now->input_grad);
  }
  std::string CheckWeightGrad(int32_t s, int32_t m, StageProgress* now) const {
    if (s < shape_.num_frozen_stages) return BelowFrontier(s);
    if (m >= now->input_grad) return "its I has not run yet";
    return CheckNext(m, &now->weight_grad);
  }
  std::string CheckBackward(int32_t s, int32_t m, StageProgress* now) const {
    const std::string what = CheckInputGrad(s, m, now);
    return what.empty() ? CheckWeightGrad(s, m, now) : what;
  }
  std::string CheckReduce(int32_t s, StageProgress* now) const {
    if (s < shape_.num_frozen_stages) return BelowFrontier(s);
    if (now->reduced) return "the gradients are reduced already";
    if (now->weight_grad < shape_.num_microbatches) return "a backward is missing before it";
    now->reduced = true;
    return "";
  }
  std::string CheckOptimize(int32_t s, StageProgress* now) const {
    if (s < shape_.num_frozen_stages) return absl::StrCat("stage ", s, " is frozen");
    if (now->weight_grad < shape_.num_microbatches) return "a backward is missing before it";
    if (s > shape_.num_frozen_stages && HasEdge(s - 1) &&
        now->sent_backward < shape_.num_microbatches) {
      return "a gradient is not sent yet";
    }
    now->optimized = true;
    return "";
  }

  const ScheduleShape& shape_;
  std::vector<StageProgress> stages_;
};

}  // namespace

absl::Status ValidatePrograms(const ScheduleShape& shape, const std::vector<Program>& programs) {
  SP_RETURN_IF_ERROR(CheckCells(shape, programs));
  for (size_t rank = 0; rank < programs.size(); ++rank) {
    RankChecker checker(shape);
    for (size_t i = 0; i < programs[rank].size(); ++i) {
      const std::string what = checker.Check(programs[rank][i]);
      if (!what.empty()) return CellError(programs, rank, i, what);
    }
    for (int32_t s = 0; s < shape.num_stages; ++s) {
      if (shape.rank_of(s) != static_cast<int32_t>(rank)) continue;
      const std::string what = checker.CheckEnd(s);
      if (!what.empty()) return CellError(programs, rank, programs[rank].size(), what);
    }
  }
  return Annotate(Play::Make(shape, programs, SendMode::kRendezvous, {}).status(),
                  "with sends that wait for their receive");
}

}  // namespace smartpipe
