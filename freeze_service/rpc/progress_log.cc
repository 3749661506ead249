#include "freeze_service/rpc/progress_log.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "freeze_service/rpc/codec.h"
#include "nlohmann/json.hpp"
#include "services/base/limits.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

// The shown speed is the mean over the newest interval, but at most about this long and this many
// steps.
constexpr double kSpeedWindowS = 2.0;
constexpr int64_t kSpeedWindowSteps = 4096;
constexpr size_t kEvaluationsMax = 100'000;

nlohmann::json NumberOrNull(double value) {
  return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json(nullptr);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ProgressLog>> ProgressLog::Create(const std::string& path,
                                                                 int64_t batch_size) {
  std::unique_ptr<ProgressLog> log(new ProgressLog(path, batch_size));
  if (path.empty()) return log;
  SP_RETURN_IF_ERROR(log->ReadBack());
  log->file_.open(path, std::ios::out | std::ios::app);
  if (!log->file_)
    return absl::UnavailableError(absl::StrCat("cannot open ", path, ": ", std::strerror(errno)));
  return log;
}

absl::Status ProgressLog::ReadBack() {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path_, error)) return absl::OkStatus();
  std::ifstream file(path_);
  const auto number_in = [](const nlohmann::json& json, const char* key) {
    const auto found = json.find(key);
    return found != json.end() && found->is_number() ? found->get<double>()
                                                     : std::numeric_limits<double>::quiet_NaN();
  };
  int64_t num_whole_bytes = 0;
  for (std::string text; std::getline(file, text) && !file.eof();) {
    num_whole_bytes += static_cast<int64_t>(text.size()) + 1;
    const nlohmann::json line = nlohmann::json::parse(text, nullptr, false);
    if (!line.is_object()) continue;
    if (const double step = number_in(line, "step"); step >= static_cast<double>(steps_done_)) {
      const double epoch = number_in(line, "epoch"), step_s = number_in(line, "step_s");
      AddStep(static_cast<int64_t>(step), epoch >= 0 ? static_cast<int64_t>(epoch) : 0,
              number_in(line, "loss"), step_s >= 0 ? step_s : 0);
    }
    const auto found = line.find("evaluation");
    if (found == line.end() || !found->is_object() || !(number_in(*found, "step") >= 0)) continue;
    v1::Evaluation evaluation;
    evaluation.set_step(static_cast<int64_t>(number_in(*found, "step")));
    evaluation.set_accuracy(number_in(*found, "accuracy"));
    evaluation.set_loss(number_in(*found, "loss"));
    evaluation.set_seconds(number_in(*found, "seconds"));
    if (IsNew(evaluation)) evaluations_.push_back(evaluation);
  }
  std::filesystem::resize_file(path_, static_cast<uintmax_t>(num_whole_bytes), error);
  if (!error) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot shorten ", path_, ": ", error.message()));
}

void ProgressLog::AddStep(int64_t step, int64_t epoch, double loss, double step_s) {
  steps_done_ = step + 1;
  losses_.push_back({step, epoch, loss});
  while (losses_.front().epoch < epoch - 1) losses_.pop_front();
  step_seconds_ += step_s;
}

bool ProgressLog::IsNew(const v1::Evaluation& evaluation) const {
  return evaluations_.empty() || evaluation.step() > evaluations_.back().step();
}

absl::Status ProgressLog::CheckRequest(const v1::ReportProgressRequest& request,
                                       const Length& length) const {
  int64_t previous = -1;
  for (const v1::StepProgress& step : request.steps()) {
    if (step.step() <= previous || step.step() >= length.num_steps) {
      return absl::InvalidArgumentError(absl::StrCat("steps: step ", step.step(), " after ",
                                                     previous, "; steps must ascend and be in [0, ",
                                                     length.num_steps, ")"));
    }
    previous = step.step();
    SP_RETURN_IF_ERROR(
        CheckNotNegative(absl::StrCat("step_s of step ", step.step()), step.step_s()));
  }
  previous = -1;
  size_t num_evaluations = evaluations_.size();
  for (const v1::Evaluation& evaluation : request.evaluations()) {
    if (evaluation.step() <= previous || evaluation.step() > length.num_steps) {
      return absl::InvalidArgumentError(
          absl::StrCat("evaluations: step ", evaluation.step(), " after ", previous,
                       "; steps must ascend and be in [0, ", length.num_steps, "]"));
    }
    previous = evaluation.step();
    if (!(evaluation.accuracy() >= 0 && evaluation.accuracy() <= 1)) {
      return absl::InvalidArgumentError(
          absl::StrCat("accuracy is ", evaluation.accuracy(), "; the range is 0 to 1"));
    }
    SP_RETURN_IF_ERROR(CheckNotNegative("seconds", evaluation.seconds()));
    if (IsNew(evaluation) && ++num_evaluations > kEvaluationsMax) {
      return absl::ResourceExhaustedError(absl::StrCat("the run has more than ", kEvaluationsMax,
                                                       " evaluations; that is the limit"));
    }
  }
  return absl::OkStatus();
}

absl::Status ProgressLog::Add(const v1::ReportProgressRequest& request, const Length& length,
                              const std::function<LayerIndex(Step)>& frontier_at) {
  SP_RETURN_IF_ERROR(CheckRequest(request, length));
  std::string lines;
  const size_t window =
      static_cast<size_t>(std::clamp<int64_t>(length.interval_steps, 1, kSpeedWindowSteps));
  for (const v1::StepProgress& step : request.steps()) {
    if (step.step() < steps_done_) continue;
    const int64_t epoch = step.step() / std::max<int64_t>(1, length.steps_per_epoch);
    AddStep(step.step(), epoch, step.loss(), step.step_s());
    step_s_.push_back(step.step_s());
    while (step_s_.size() > window) step_s_.pop_front();
    const nlohmann::json line = {
        {"step", step.step()},
        {"epoch", epoch},
        {"loss", NumberOrNull(step.loss())},
        {"step_s", step.step_s()},
        {"samples_per_s", NumberOrNull(static_cast<double>(batch_size_) / step.step_s())},
        {"frontier", frontier_at(Step(step.step())).value()}};
    absl::StrAppend(&lines, line.dump(), "\n");
  }
  for (const v1::Evaluation& evaluation : request.evaluations()) {
    if (!IsNew(evaluation)) continue;
    evaluations_.push_back(evaluation);
    const nlohmann::json line = {{"evaluation",
                                  {{"step", evaluation.step()},
                                   {"accuracy", evaluation.accuracy()},
                                   {"loss", NumberOrNull(evaluation.loss())},
                                   {"seconds", evaluation.seconds()}}}};
    absl::StrAppend(&lines, line.dump(), "\n");
  }
  Write(lines);
  return absl::OkStatus();
}

void ProgressLog::Write(const std::string& lines) {
  if (path_.empty() || lines.empty()) return;
  file_ << lines << std::flush;
  if (file_) return;
  if (problem_.empty()) problem_ = absl::StrCat("cannot write ", path_, ": ", std::strerror(errno));
  file_.clear();
}

void ProgressLog::Fill(v1::Run& run, const Length& length) const {
  run.set_step(steps_done_);
  if (!losses_.empty()) run.set_loss(losses_.back().loss);
  double loss_sum = 0;
  int64_t num_losses = 0;
  for (const StepLoss& entry : losses_) {
    if (entry.step < length.num_steps - length.steps_per_epoch) continue;
    loss_sum += entry.loss;
    ++num_losses;
  }
  // Lines of the file that were lost leave no mean.
  const bool is_whole = steps_done_ < length.num_steps ||
                        num_losses == std::min(length.num_steps, length.steps_per_epoch);
  if (num_losses > 0) {
    run.set_train_loss(is_whole ? loss_sum / static_cast<double>(num_losses)
                                : std::numeric_limits<double>::quiet_NaN());
  }
  run.set_step_seconds(step_seconds_);
  double seconds = 0;
  int64_t num_steps = 0;
  for (auto step_s = step_s_.rbegin(); step_s != step_s_.rend() && seconds < kSpeedWindowS;
       ++step_s) {
    seconds += *step_s;
    ++num_steps;
  }
  if (seconds > 0)
    run.set_samples_per_second(static_cast<double>(num_steps * batch_size_) / seconds);
  run.mutable_evaluations()->Assign(evaluations_.begin(), evaluations_.end());
}

}  // namespace smartpipe
