#include "tests/unit/core/core_player.h"

#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "tests/unit/core/core_harness.h"

namespace smartpipe::testutil {
namespace {

double Number(absl::string_view text) {
  double value = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(absl::SimpleAtod(text, &value)) << text;
  return value;
}

int32_t Whole(absl::string_view text) {
  int32_t value = 0;
  EXPECT_TRUE(absl::SimpleAtoi(text, &value)) << text;
  return value;
}

std::vector<std::string> ListArg(const ScenarioCommand& command, absl::string_view key) {
  return absl::StrSplit(command.Arg(key), ',', absl::SkipEmpty());
}

// The words that are no key=value, from the `first`-th on.
std::string Words(const ScenarioCommand& command, size_t first) {
  std::vector<std::string> words;
  for (const std::string& arg : command.args) {
    if (arg.find('=') == std::string::npos) words.push_back(arg);
  }
  if (words.size() <= first) return "";
  return absl::StrJoin(words.begin() + first, words.end(), " ");
}

CoordinatorOptions MakeOptions(const ScenarioCommand& command) {
  CoordinatorOptions options;
  options.num_stages = static_cast<int32_t>(command.IntArg("stages", 2));
  options.num_microbatches = static_cast<int32_t>(command.IntArg("microbatches", 4));
  options.schedule = command.Arg("schedule", "1f1b");
  options.statistic = command.Arg("statistic", "norm");
  options.rebalance_enabled = command.Arg("rebalance", "on") == "on";
  options.rebalance_min_gain = command.DoubleArg("min_gain", 0.03);
  options.recovery.enabled = command.Arg("recovery", "on") == "on";
  options.recovery.max_restarts = static_cast<int32_t>(command.IntArg("restarts", 10));
  for (const std::string& cut : ListArg(command, "cuts")) {
    options.cuts.push_back(LayerIndex(Whole(cut)));
  }
  PolicyOptions& policy = options.policy;
  policy.policy = command.Arg("policy", "smartpipe");
  policy.tau = command.DoubleArg("tau", 0.1);
  policy.lambda_max = command.DoubleArg("lambda", 0.5);
  policy.warmup_intervals = static_cast<int32_t>(command.IntArg("warmup", 1));
  policy.hits = static_cast<int32_t>(command.IntArg("hits", 1));
  policy.min_trainable = static_cast<int32_t>(command.IntArg("min_trainable", 1));
  policy.fixed_layers = static_cast<int32_t>(command.IntArg("fixed", 2));
  for (const std::string& entry : ListArg(command, "plan")) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(entry, ':');
    policy.schedule.emplace_back(Step(Whole(parts.first)), LayerIndex(Whole(parts.second)));
  }
  return options;
}

void Spoil(const std::string& what, IntervalReported* report) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  LayerStatistics& statistics = report->statistics.front();
  if (what == "missing_layer") {
    report->statistics.pop_back();
    report->costs.pop_back();
  } else if (what == "missing_cost") {
    report->costs.pop_back();
  } else if (what == "wrong_layer") {
    statistics.layer = statistics.layer + 1;
  } else if (what == "frozen") {
    statistics.frozen = !statistics.frozen;
  } else if (what == "negative_norm") {
    statistics.grad_norm_l2 = -1;
  } else if (what == "negative_count") {
    statistics.num_nonfinite_steps = -1;
  } else if (what == "nan_cost") {
    report->costs.front().forward_s = kNaN;
  } else if (what == "nan_time") {
    report->step_s = kNaN;
  } else if (what == "negative_time") {
    report->verdict_wait_s = -0.5;
  } else if (what == "nonfinite_steps") {
    statistics.num_nonfinite_steps = 3;
  } else if (what == "zero_norm") {
    statistics.grad_norm_l2 = 0;
  } else if (!what.empty()) {
    ADD_FAILURE() << "spoil=" << what << " is not known";
  }
}

}  // namespace

std::string CorePlayer::Play(const ScenarioCommand& command) {
  const std::string& name = command.name;
  if (name == "run") return Run(command);
  if (coordinator_ == nullptr) return "no run";
  const WorkerId worker(command.args.empty() ? "" : command.args[0]);
  const Generation generation(command.IntArg("generation", coordinator_->generation().value()));
  if (name == "layer") return ChangeLayer(command);
  if (name == "join") return Join(command, worker.value());
  if (name == "ready") return Ready(command);
  if (name == "report") return Report(command);
  if (name == "lost") {
    return Apply(WorkerLost{worker, command.IntArg("incarnation", 1), Words(command, 1)});
  }
  if (name == "fail") return Apply(WorkerFailed{worker, generation, Words(command, 1)});
  if (name == "fault") return Apply(FaultReported{worker, generation, Words(command, 1)});
  if (name == "finish") return Apply(WorkerFinished{worker, generation});
  if (name == "order") return Apply(MakeOrder(command));
  if (name == "preview") return Preview(command);
  if (name == "resume") return Resume(command);
  if (name == "state") return State();
  ADD_FAILURE() << "line " << command.line << ": no command `" << name << "`";
  return "";
}

std::string CorePlayer::Run(const ScenarioCommand& command) {
  options_ = MakeOptions(command);
  length_ = {command.IntArg("steps", 80), command.IntArg("epoch", 20),
             command.IntArg("interval", 10)};
  layers_ = MakeLayers(static_cast<int32_t>(command.IntArg("layers", 6)));
  members_.clear();
  coordinator_ = nullptr;
  absl::StatusOr<std::unique_ptr<Coordinator>> coordinator = Coordinator::Create(options_);
  if (!coordinator.ok()) return std::string(coordinator.status().message());
  coordinator_ = *std::move(coordinator);
  return coordinator_->state_message();
}

std::string CorePlayer::Resume(const ScenarioCommand& command) {
  options_.num_stages = static_cast<int32_t>(command.IntArg("stages", options_.num_stages));
  options_.schedule = command.Arg("schedule", options_.schedule);
  options_.rebalance_enabled =
      command.Arg("rebalance", options_.rebalance_enabled ? "on" : "off") == "on";
  options_.cuts.clear();
  for (const std::string& cut : ListArg(command, "cuts")) {
    options_.cuts.push_back(LayerIndex(Whole(cut)));
  }
  RunResumed resumed{.execution = options_, .step = {}};
  if (const int64_t step = command.IntArg("step", -1); step >= 0) resumed.step = Step(step);
  return Apply(resumed);
}

std::string CorePlayer::ChangeLayer(const ScenarioCommand& command) {
  LayerInfo& layer = layers_[Whole(command.args[0])];
  layer.name = command.Arg("name", layer.name);
  layer.cost.forward_s = command.DoubleArg("f", layer.cost.forward_s * 1e3) * 1e-3;
  layer.cost.input_grad_s = command.DoubleArg("d", layer.cost.input_grad_s * 1e3) * 1e-3;
  layer.cost.weight_grad_s = command.DoubleArg("w", layer.cost.weight_grad_s * 1e3) * 1e-3;
  layer.cost.state_bytes = command.IntArg("state", layer.cost.state_bytes);
  return "ok";
}

std::string CorePlayer::Join(const ScenarioCommand& command, const std::string& id) {
  WorkerJoined joined;
  joined.worker = WorkerId(id);
  joined.incarnation = command.IntArg("incarnation", 1);
  joined.length = length_;
  joined.length.num_steps = command.IntArg("steps", length_.num_steps);
  joined.layers = layers_;
  joined.layers.resize(command.IntArg("layers", num_layers()));
  const double speed = command.DoubleArg("speed", 1);
  for (LayerInfo& layer : joined.layers) layer.cost.forward_s *= speed;
  if (const int64_t i = command.IntArg("rename", -1); i >= 0) joined.layers[i].name = "other";
  for (const std::string& step : ListArg(command, "checkpoints")) {
    joined.checkpoints.push_back(Step(Whole(step)));
  }
  if (const int64_t bytes = command.IntArg("state", -1); bytes >= 0) {
    joined.layers[0].cost.state_bytes = bytes;
  }
  const std::string text = Apply(joined);
  if (coordinator_->plan().has_value()) {
    members_.clear();
    for (const auto& stage : coordinator_->plan()->placement) members_.push_back(stage.front());
  }
  return text;
}

std::string CorePlayer::Ready(const ScenarioCommand& command) {
  std::string text;
  for (int32_t i = 0; coordinator_->state() == RunState::kWaiting && i < options_.num_stages; ++i) {
    text = Join(command, absl::StrCat("w", i));
  }
  return text;
}

IntervalReported CorePlayer::MakeOneReport(const ScenarioCommand& command, const std::string& id) {
  std::vector<double> eta(num_layers(), 1.0);
  const std::vector<std::string> given = ListArg(command, "eta");
  for (size_t i = 0; i < given.size(); ++i) eta[i] = Number(given[i]);
  const IntervalIndex interval(command.IntArg("interval"));
  std::vector<WorkerId> members = members_.empty() ? std::vector<WorkerId>{WorkerId(id)} : members_;
  Rank rank(0);
  for (size_t i = 0; i < members.size(); ++i) {
    if (members[i].value() == id) rank = Rank(static_cast<int32_t>(i));
  }
  IntervalReported report = MakeReport(*coordinator_, members, rank, interval, eta, layers_);
  report.worker = WorkerId(id);
  report.generation = Generation(command.IntArg("generation", report.generation.value()));
  report.plan_epoch = PlanEpoch(command.IntArg("epoch", report.plan_epoch.value()));
  report.switch_drain_s = command.DoubleArg("drain_ms") * 1e-3;
  report.switch_move_s = command.DoubleArg("move_ms") * 1e-3;
  report.switch_moved_bytes = command.IntArg("moved_bytes");
  if (!report.statistics.empty()) Spoil(command.Arg("spoil"), &report);
  return report;
}

std::string CorePlayer::Report(const ScenarioCommand& command) {
  if (command.args[0] != "all") return Apply(MakeOneReport(command, command.args[0]));
  std::string text;
  for (const WorkerId& member : members_) {
    const std::string one = Apply(MakeOneReport(command, member.value()));
    if (one != "ok") absl::StrAppend(&text, text.empty() ? "" : "\n", one);
  }
  return text.empty() ? "ok" : text;
}

OrderGiven CorePlayer::MakeOrder(const ScenarioCommand& command) const {
  const std::string& name = command.args[0];
  OrderGiven given{.request_id = command.Arg("id", "r1"),
                   .who = command.Arg("who", "alice"),
                   .why = Words(command, 1),
                   .step = {},
                   .order = {}};
  if (const int64_t step = command.IntArg("step", -1); step >= 0) given.step = Step(step);
  const LayerIndex frontier(static_cast<int32_t>(command.IntArg("frontier", 0)));
  if (name == "freeze") {
    given.order = FreezeLayers{frontier};
  } else if (name == "unfreeze") {
    given.order = UnfreezeLayers{frontier};
  } else if (name == "rebalance") {
    RebalanceStages rebalance;
    for (const std::string& cut : ListArg(command, "cuts"))
      rebalance.cuts.push_back(LayerIndex(Whole(cut)));
    given.order = rebalance;
  } else if (name == "policy") {
    ChangePolicy change;
    if (const std::string policy = command.Arg("policy", ""); !policy.empty())
      change.policy = policy;
    if (const double tau = command.DoubleArg("tau", 0); tau != 0) change.tau = tau;
    for (const std::string& entry : ListArg(command, "plan")) {
      const std::pair<std::string, std::string> parts = absl::StrSplit(entry, ':');
      change.schedule.emplace_back(Step(Whole(parts.first)), LayerIndex(Whole(parts.second)));
    }
    given.order = change;
  } else if (name == "pause") {
    given.order = PauseRun{};
  } else if (name == "resume") {
    given.order = ResumeRun{};
  } else if (name == "checkpoint") {
    given.order = TakeCheckpoint{};
  } else if (name == "drain") {
    given.order = DrainWorker{WorkerId(command.Arg("worker"))};
  } else if (name == "stop") {
    given.order = StopRun{command.Arg("at") == "once"};
  } else {
    ADD_FAILURE() << "line " << command.line << ": no order `" << name << "`";
  }
  return given;
}

std::string CorePlayer::Preview(const ScenarioCommand& command) const {
  const std::string before = coordinator_->Dump();
  const auto preview = coordinator_->Preview(MakeOrder(command));
  EXPECT_EQ(coordinator_->Dump(), before) << "a dry run changed the state";
  std::vector<Decision> decisions;
  if (preview.ok()) decisions.push_back(preview->accepted);
  if (preview.ok() && preview->verdict.has_value()) decisions.push_back(*preview->verdict);
  return preview.ok() ? Text(decisions, num_layers()) : Text(preview.status(), num_layers());
}

std::string CorePlayer::State() const {
  static constexpr absl::string_view kNames[] = {"waiting", "running", "finished", "failed"};
  return absl::StrFormat("%s, generation %d, %d steps, %d verdicts, speed-up at most %.3f: %s",
                         kNames[static_cast<int>(coordinator_->state())],
                         coordinator_->generation().value(), coordinator_->length().num_steps,
                         coordinator_->verdicts().size(), coordinator_->SpeedupLimitOfRun(),
                         coordinator_->state_message());
}

std::string CorePlayer::Apply(const Event& event) {
  const std::string before = coordinator_->Dump();
  const auto result = coordinator_->Apply(event, absl::UnixEpoch());
  if (!result.ok()) {
    EXPECT_EQ(coordinator_->Dump(), before) << "a refused event changed the state";
  }
  return Text(result, num_layers());
}

}  // namespace smartpipe::testutil
