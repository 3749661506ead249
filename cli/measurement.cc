#include "cli/measurement.h"

#include <algorithm>
#include <string>
#include <utility>

namespace smartpipe {
namespace {

double Seconds(int64_t ns) { return static_cast<double>(ns) / 1e9; }

}  // namespace

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

Measurement::Measurement(const RunTrace& run, const CoreTime& core_time, IntervalTime* out)
    : run_(run),
      core_time_(core_time),
      out_(*out),
      num_stages_(static_cast<int>(out->plan.cuts.size()) + 1),
      path_(run, out->first_step, out->end_step) {
  for (const int32_t cut : out_.plan.cuts) num_frozen_stages_ += cut <= out_.plan.frontier;
}

bool Measurement::Measure() {
  TakeSpans();
  TakeSteps();
  if (step_s_.empty()) return false;
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
}

void Measurement::TakeSteps() {
  int64_t before_ns = out_.first_step > run_.first_step ? run_.StepEndNs(out_.first_step - 1) : -1;
  if (out_.first_step == out_.plan.step) interrupted_.insert(out_.first_step);
  std::vector<double> sent_message_s;
  for (int64_t step = out_.first_step; step < out_.end_step; ++step) {
    const int64_t end_ns = run_.StepEndNs(step);
    if (before_ns >= 0 && end_ns >= 0) {
      const CriticalPath::Waits waits = path_.WaitsOf(step, before_ns);
      out_.verdict_s +=
          Seconds(waits.verdict_ns) / static_cast<double>(out_.end_step - out_.first_step);
      if (!interrupted_.contains(step)) {
        step_s_.push_back(Seconds(end_ns - before_ns - waits.verdict_ns));
        sent_message_s.push_back(Seconds(waits.sent_message_ns));
        steps_.insert(step);
      }
    }
    before_ns = end_ns;
  }
  out_.sent_message_s = Median(std::move(sent_message_s));
}

template <typename Function>
void Measurement::ForEachEvent(const Function& function) const {
  for (const WorkerTrace& worker : run_.workers) {
    for (const int64_t step : steps_) {
      const RunStep* found = worker.FindStep(step);
      if (found == nullptr) continue;
      for (const RunEvent& event : found->events) function(worker.header.rank, step, event);
    }
  }
}

void Measurement::TakeCosts() {
  std::vector<std::map<Op, std::vector<double>>> durations(num_stages_);
  ForEachEvent([&](int, int64_t step, const RunEvent& event) {
    const Op op = event.instruction.op;
    if (IsSend(op) && path_.IsHeldUp(step, event)) return;
    durations[event.instruction.stage.value()][op].push_back(
        IsCompute(op) ? core_time_.Seconds(event) : Seconds(event.ns()));
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
  ForEachEvent([&](int, int64_t step, const RunEvent& event) {
    if (IsSend(event.instruction.op)) sends[KeyOf(step, event.instruction)] = &event;
  });
  std::vector<std::vector<double>> latencies(num_stages_);
  ForEachEvent([&](int, int64_t step, const RunEvent& event) {
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
  ForEachEvent([&](int rank, int64_t step, const RunEvent& event) {
    if (!IsCompute(event.instruction.op)) return;
    const double seconds = core_time_.Seconds(event);
    busy_s[step] += seconds;
    if (event.instruction.op != Op::kOptimize)
      mean_busy_s_[rank] += seconds / static_cast<double>(steps_.size());
  });
  std::vector<double> sums;
  for (const auto& [step, seconds] : busy_s) sums.push_back(seconds);
  busy_s_ = Median(std::move(sums));
}

}  // namespace smartpipe
