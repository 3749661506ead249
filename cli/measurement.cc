#include "cli/measurement.h"

#include <algorithm>
#include <string>
#include <utility>

namespace smartpipe {
namespace {

double Seconds(int64_t ns) { return static_cast<double>(ns) / 1e9; }
bool IsSend(Op op) { return op == Op::kSendForward || op == Op::kSendBackward; }
bool IsReceive(Op op) { return op == Op::kRecvForward || op == Op::kRecvBackward; }

}  // namespace

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

Measurement::Measurement(const RunTrace& run, IntervalTime* out)
    : run_(run), out_(*out), num_stages_(static_cast<int>(out->plan.cuts.size()) + 1) {
  for (const int32_t cut : out_.plan.cuts) num_frozen_stages_ += cut <= out_.plan.frontier;
}

bool Measurement::Measure() {
  TakeSpans();
  TakeSteps();
  if (step_s_.empty()) return false;
  TakeUses();
  TakeCosts();
  TakeLinks();
  TakeBusy();
  out_.num_steps = static_cast<int64_t>(step_s_.size());
  out_.measured_s = Median(step_s_) + out_.verdict_s;
  return true;
}

void Measurement::TakeSpans() {
  std::map<std::string, std::vector<double>> sums;  // [name][worker]
  for (size_t w = 0; w < run_.workers.size(); ++w) {
    const std::vector<TraceSpan>& spans = run_.workers[w].spans;
    auto next =
        std::lower_bound(spans.begin(), spans.end(), out_.first_step,
                         [](const TraceSpan& span, int64_t step) { return span.step < step; });
    for (; next != spans.end() && next->step < out_.end_step; ++next) {
      const TraceSpan& span = *next;
      const double seconds = Seconds(span.end_ns - span.start_ns);
      std::vector<double>& sum = sums[span.name];
      sum.resize(run_.workers.size());
      sum[w] += seconds;
      if (span.name == "verdict_wait") {
        double& wait_s = verdict_s_[span.step];
        wait_s = std::max(wait_s, seconds);
      }
      if (span.name == "evaluate" || span.name == "drain" || span.name == "move")
        interrupted_.insert(span.step);
    }
  }
  const auto longest = [&sums](const char* name) {
    const std::vector<double>& sum = sums[name];
    return sum.empty() ? 0 : *std::max_element(sum.begin(), sum.end());
  };
  out_.report_s = longest("report");
  out_.evaluate_s = longest("evaluate");
  for (const auto& [step, wait_s] : verdict_s_) {
    if (step > run_.first_step) out_.verdict_s += wait_s;  // no step ended before the first
  }
  out_.verdict_s /= static_cast<double>(out_.end_step - out_.first_step);
}

void Measurement::TakeSteps() {
  int64_t before_ns = out_.first_step > run_.first_step ? run_.StepEndNs(out_.first_step - 1) : -1;
  if (out_.first_step == out_.plan.step) interrupted_.insert(out_.first_step);
  for (int64_t step = out_.first_step; step < out_.end_step; ++step) {
    const int64_t end_ns = run_.StepEndNs(step);
    if (before_ns >= 0 && end_ns >= 0 && !interrupted_.contains(step)) {
      const auto wait = verdict_s_.find(step);
      const double wait_s = wait == verdict_s_.end() ? 0 : wait->second;
      step_s_.push_back(Seconds(end_ns - before_ns) - wait_s);
      steps_.insert(step);
    }
    before_ns = end_ns;
  }
}

Measurement::MessageKey Measurement::KeyOf(int64_t step, const Instruction& instruction) {
  const int stage = instruction.stage.value();
  const bool activation = instruction.op == Op::kRecvForward || instruction.op == Op::kSendForward;
  const bool upper = instruction.op == Op::kRecvForward || instruction.op == Op::kSendBackward;
  return {step, upper ? stage - 1 : stage, activation, instruction.microbatch.value()};
}

template <typename Function>
void Measurement::ForEachEvent(const std::set<int64_t>& steps, const Function& function) const {
  for (const WorkerTrace& worker : run_.workers) {
    for (const int64_t step : steps) {
      const RunStep* found = worker.FindStep(step);
      if (found == nullptr) continue;
      for (const RunEvent& event : found->events) {
        if (event.instruction.stage.value() < num_stages_)
          function(worker.header.rank, step, event);
      }
    }
  }
}

void Measurement::TakeUses() {
  // A credit may have been taken in the step before.
  std::set<int64_t> steps = steps_;
  for (const int64_t step : steps_) steps.insert(step - 1);
  ForEachEvent(steps, [&](int, int64_t step, const RunEvent& event) {
    const int stage = event.instruction.stage.value(), mb = event.instruction.microbatch.value();
    const Op op = event.instruction.op;
    if (op == Op::kForward) used_ns_[{step, stage - 1, true, mb}] = event.end_ns;
    if (op == Op::kBackward || op == Op::kInputGrad)
      used_ns_[{step, stage, false, mb}] = event.end_ns;
  });
}

// Whether a send waited for its credit: the message that held it was not yet used.
bool Measurement::IsHeldUp(int64_t step, const RunEvent& send) const {
  auto [unused, edge, activation, mb] = KeyOf(step, send.instruction);
  if (edge < 0 || edge >= static_cast<int>(out_.plan.credits.size())) return false;
  const int64_t num_microbatches = run_.header().num_microbatches;
  const int64_t before = step * num_microbatches + mb - out_.plan.credits[edge];
  if (before < 0) return false;
  const auto used = used_ns_.find(
      {before / num_microbatches, edge, activation, static_cast<int>(before % num_microbatches)});
  return used != used_ns_.end() && used->second > send.start_ns;
}

void Measurement::TakeCosts() {
  std::vector<std::map<Op, std::vector<double>>> durations(num_stages_);
  ForEachEvent(steps_, [&](int, int64_t step, const RunEvent& event) {
    const Op op = event.instruction.op;
    if (IsSend(op) && IsHeldUp(step, event)) return;
    durations[event.instruction.stage.value()][op].push_back(
        Seconds(event.end_ns - event.start_ns));
  });
  MeasuredCosts& costs = out_.costs;
  costs.stages.resize(num_stages_);
  costs.send_forward_s.resize(num_stages_);
  costs.send_backward_s.resize(num_stages_);
  for (int s = 0; s < num_stages_; ++s) {
    const auto median = [&](Op op) { return Median(durations[s][op]); };
    const bool split = !durations[s][Op::kWeightGrad].empty();
    costs.stages[s] = {.forward_s = median(Op::kForward),
                       .input_grad_s = median(split ? Op::kInputGrad : Op::kBackward),
                       .weight_grad_s = split ? median(Op::kWeightGrad) : 0,
                       .optimize_s = median(Op::kOptimize)};
    costs.send_forward_s[s] = median(Op::kSendForward);
    costs.send_backward_s[s] = median(Op::kSendBackward);
  }
}

// Where the receiver was waiting before the message was sent: else nobody saw it arrive. A message
// may arrive while its sender is still in the call: then it has cost the sender's time, no more.
void Measurement::TakeLinks() {
  std::map<MessageKey, const RunEvent*> sends;
  ForEachEvent(steps_, [&](int, int64_t step, const RunEvent& event) {
    if (IsSend(event.instruction.op)) sends[KeyOf(step, event.instruction)] = &event;
  });
  std::vector<std::vector<double>> latencies(num_stages_);
  ForEachEvent(steps_, [&](int, int64_t step, const RunEvent& event) {
    if (!IsReceive(event.instruction.op)) return;
    const MessageKey key = KeyOf(step, event.instruction);
    const auto send = sends.find(key);
    if (send == sends.end() || event.start_ns > send->second->start_ns) return;
    const double latency_s = Seconds(event.end_ns - send->second->end_ns);
    latencies[std::get<1>(key)].push_back(std::max(0.0, latency_s));
  });
  out_.costs.links.resize(num_stages_ - 1);
  for (int edge = 0; edge + 1 < num_stages_; ++edge)
    out_.costs.links[edge].latency_s = Median(latencies[edge]);
}

void Measurement::TakeBusy() {
  std::map<int64_t, double> busy_s;  // [step]
  mean_busy_s_.assign(run_.header().num_ranks, 0);
  ForEachEvent(steps_, [&](int rank, int64_t step, const RunEvent& event) {
    if (!IsCompute(event.instruction.op)) return;
    const double seconds = Seconds(event.end_ns - event.start_ns);
    busy_s[step] += seconds;
    if (event.instruction.op != Op::kOptimize)
      mean_busy_s_[rank] += seconds / static_cast<double>(steps_.size());
  });
  std::vector<double> sums;
  for (const auto& [step, seconds] : busy_s) sums.push_back(seconds);
  busy_s_ = Median(std::move(sums));
}

}  // namespace smartpipe
