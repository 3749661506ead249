#include "worker/engine/trainer.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"
#include "worker/engine/stopwatch.h"
#include "worker/model/layer_state.h"

namespace smartpipe {
namespace {

/// State of one run of the loop.
class TrainLoop {
 public:
  TrainLoop(const TrainerOptions& options, ControlPlane& control)
      : options_(options), control_(control) {}

  absl::StatusOr<WorkerResult> Run() {
    SP_ASSIGN_OR_RETURN(interpreter_,
                        Interpreter::Create(options_.context, options_.assignment.plan));
    Step step = options_.assignment.first_step;
    SetPosition(step, "loading the checkpoint");
    if (step > Step(0)) SP_RETURN_IF_ERROR(LoadCheckpoint(step));
    SetPosition(step, "measuring the link to the next worker");
    SP_ASSIGN_OR_RETURN(link_, MeasureLink(transport(), options_.context.device));
    SetPosition(step, "waiting for the other workers to start");
    SP_RETURN_IF_ERROR(Barrier(transport()));
    Stopwatch train_watch;
    step_watch_.Restart();
    for (; step.value() < options_.shape.num_steps; ++step) {
      if (step.value() % options_.shape.interval_steps == 0) {
        SP_ASSIGN_OR_RETURN(const bool stop, PassBoundary(step));
        if (stop) break;
      }
      SP_RETURN_IF_ERROR(RunStep(step));
      const Step done = step + 1;
      if (done.value() % options_.shape.interval_steps == 0)
        SP_RETURN_IF_ERROR(ReportInterval(done));
      if (EvaluationDue(done)) {
        SP_RETURN_IF_ERROR(interpreter_->Drain());
        SP_RETURN_IF_ERROR(
            Barrier(transport()));  // every rank has ended its step: training time stops here
        result_.train_s += train_watch.seconds();
        SP_RETURN_IF_ERROR(Evaluate(done));
        SP_RETURN_IF_ERROR(Barrier(transport()));
        train_watch.Restart();
        step_watch_.Restart();
      }
      if (CheckpointDue(done)) SP_RETURN_IF_ERROR(TakeCheckpoint(done));
    }
    if (step.value() == options_.shape.num_steps) {
      SP_RETURN_IF_ERROR(WriteWeights());
    } else {
      SP_RETURN_IF_ERROR(interpreter_->Drain());
      SP_RETURN_IF_ERROR(Barrier(transport()));
      result_.train_s += train_watch.seconds();
    }
    return result_;
  }

 private:
  Transport& transport() { return *options_.context.transport; }

  void SetPosition(Step step, absl::string_view what) {
    if (options_.context.position != nullptr) options_.context.position->Set(step, what);
  }

  // What `watch` has measured; `step` is the next one to run.
  void Record(const char* name, Step step, const Stopwatch& watch) {
    AddSpan(options_.context.trace, name, step.value(), watch.start_ns());
  }

  bool EvaluationDue(Step done) const {
    if (done.value() == options_.shape.num_steps) return true;
    const int64_t every_epochs = options_.context.config->eval.every_epochs;
    return every_epochs > 0 && done.value() % (every_epochs * options_.shape.steps_per_epoch) == 0;
  }

  bool CheckpointDue(Step done) const {
    return options_.checkpoints != nullptr && (done.value() == options_.shape.num_steps ||
                                               done.value() % options_.shape.checkpoint_steps == 0);
  }

  absl::Status LoadCheckpoint(Step step) {
    if (options_.source == nullptr) {
      return absl::FailedPreconditionError(absl::StrCat(
          "the generation starts at step ", step.value(), ", but the run has no checkpoints"));
    }
    Stopwatch watch;
    for (const auto& [index, runner] : interpreter_->layers()) {
      SP_ASSIGN_OR_RETURN(const std::string bytes, options_.source->Get(step, index));
      const absl::Status loaded = LoadLayer(bytes, *runner);
      if (loaded.ok()) continue;
      // Bytes that are not a layer's may be another's next time.
      return absl::UnavailableError(absl::StrCat("the checkpoint of step ", step.value(),
                                                 ", layer ", index.value(), ": ",
                                                 loaded.message()));
    }
    Record("load", step, watch);
    return absl::OkStatus();
  }

  static absl::Status LoadLayer(const std::string& bytes, LayerRunner& runner) {
    SP_ASSIGN_OR_RETURN(const std::vector<NamedTensor> state, UnpackTensors(bytes));
    return runner.LoadState(state, runner.frozen());
  }

  // True when the run stops here.
  absl::StatusOr<bool> PassBoundary(Step step) {
    const IntervalIndex boundary(step.value() / options_.shape.interval_steps);
    Stopwatch watch;
    SetPosition(step, "waiting for the verdict of its boundary");
    SP_ASSIGN_OR_RETURN(WorkerVerdict verdict, control_.WaitVerdict(boundary));
    SetPosition(step, "a switch of plans");
    Record("verdict_wait", step, watch);
    report_ = {.link_bytes_per_s = link_.bytes_per_s, .link_latency_s = link_.latency_s};
    report_.verdict_wait_s = watch.Restart();
    result_.verdict_wait_s += report_.verdict_wait_s;
    const bool wanted = verdict.stop || verdict.checkpoint;
    if (wanted && step != last_checkpoint_ && options_.checkpoints != nullptr)
      SP_RETURN_IF_ERROR(TakeCheckpoint(step));
    if (verdict.stop) return true;
    if (!verdict.plan || verdict.plan->plan_epoch == interpreter_->plan().plan_epoch) return false;
    for (LayerIndex layer = verdict.plan->frontier; layer < interpreter_->plan().frontier; ++layer)
      thawed_.insert(layer);
    absl::StatusOr<SwitchCost> cost = interpreter_->SwitchPlan(*verdict.plan);
    if (!cost.ok())
      return Annotate(cost.status(), absl::StrCat("plan switch at step ", step.value()));
    report_.switch_drain_s = cost->drain_s;
    report_.switch_move_s = cost->move_s;
    report_.switch_moved_bytes = cost->moved_bytes;
    result_.switch_s += watch.seconds();
    step_watch_.Restart();
    return false;
  }

  // The plan in force from `step` on if it is known already and nothing comes before that step.
  std::optional<Plan> PlanAhead(Step step) {
    if (EvaluationDue(step)) return std::nullopt;
    const Plan& plan = interpreter_->plan();
    if (step.value() % options_.shape.interval_steps != 0) return plan;
    const std::optional<WorkerVerdict> verdict =
        control_.PeekVerdict(IntervalIndex(step.value() / options_.shape.interval_steps));
    if (!verdict || verdict->stop) return std::nullopt;
    return verdict->plan ? *verdict->plan : plan;
  }

  absl::Status RunStep(Step step) {
    const bool probe = step.value() % options_.shape.interval_steps == 0;
    const std::optional<Plan> next = PlanAhead(step + 1);
    SP_ASSIGN_OR_RETURN(std::optional<double> loss,
                        interpreter_->RunStep(step, probe, next ? &*next : nullptr));
    const double step_s = step_watch_.Restart();
    step_s_.push_back(step_s);
    if (!loss) return absl::OkStatus();
    control_.ReportStep({.step = step, .loss = *loss, .step_s = step_s});
    return absl::OkStatus();
  }

  absl::Status ReportInterval(Step done) {
    Stopwatch watch;
    report_.generation = options_.assignment.generation;
    report_.plan_epoch = interpreter_->plan().plan_epoch;
    report_.interval = IntervalIndex(done.value() / options_.shape.interval_steps - 1);
    report_.step_s = Median(step_s_);
    step_s_.clear();
    for (const auto& [index, runner] : interpreter_->layers()) {
      const GradientNorms norms = runner->EndInterval();
      report_.layers.push_back(
          {.layer = index,
           .frozen = runner->frozen(),
           .has_previous = norms.has_previous,
           .grad_norm_l2 = norms.mean,
           .previous_grad_norm_l2 = norms.previous_mean,
           .grad_difference_norm_l2 = norms.difference,
           .microbatch_grad_norm2_mean = norms.microbatch_norm2,
           .previous_microbatch_grad_norm2_mean = norms.previous_microbatch_norm2,
           .num_microbatches = norms.num_microbatches,
           .num_nonfinite_steps = norms.num_nonfinite_steps,
           .cost = runner->TakeCost()});
      result_.report_s += runner->TakeStatisticSeconds();
    }
    SP_RETURN_IF_ERROR(interpreter_->CheckDevice());
    control_.Report(std::move(report_));
    result_.report_s += watch.seconds();
    Record("report", done, watch);
    return absl::OkStatus();
  }

  // Nothing need be drained: a rank that runs ahead does so with frozen layers only.
  absl::Status TakeCheckpoint(Step done) {
    Stopwatch watch;
    SetPosition(done, "the checkpoint");
    const std::set<LayerIndex> stored = options_.checkpoints->WaitReady();
    WorkerCheckpoint checkpoint{.step = done, .layers = {}};
    for (const auto& [index, runner] : interpreter_->layers()) {
      CheckpointLayer& layer = checkpoint.layers.emplace_back(
          CheckpointLayer{.layer = index,
                          .name = options_.context.model->layer_name(index),
                          .frozen = runner->frozen()});
      const bool is_stored = stored.contains(index) && !thawed_.contains(index);
      if (layer.frozen && is_stored) continue;
      thawed_.erase(index);
      auto packed = std::make_shared<const at::Tensor>(PackTensors(runner->State()));
      layer.bytes = {static_cast<const char*>(packed->const_data_ptr()), packed->nbytes()};
      layer.owner = std::move(packed);
    }
    SP_RETURN_IF_ERROR(interpreter_->CheckDevice());
    options_.checkpoints->Put(std::move(checkpoint));
    last_checkpoint_ = done;
    result_.checkpoint_s += watch.seconds();
    Record("checkpoint", done, watch);
    step_watch_.Restart();
    return absl::OkStatus();
  }

  absl::Status Evaluate(Step done) {
    Stopwatch watch;
    SetPosition(done, "the evaluation");
    SP_ASSIGN_OR_RETURN(std::optional<TestScore> score, interpreter_->Evaluate());
    Record("evaluate", done, watch);
    if (score) {
      control_.ReportEvaluation({.step = done,
                                 .accuracy = score->accuracy,
                                 .loss = score->loss,
                                 .seconds = watch.seconds()});
    }
    return absl::OkStatus();
  }

  absl::Status WriteWeights() {
    SetPosition(Step(options_.shape.num_steps), "gathering the weights");
    WeightsDigest digest;
    std::vector<NamedTensor> all;
    SP_RETURN_IF_ERROR(interpreter_->Gather([&](LayerIndex, std::vector<NamedTensor> tensors) {
      for (NamedTensor& tensor : tensors) {
        digest.Add(tensor);
        all.push_back(std::move(tensor));
      }
      return absl::OkStatus();
    }));
    if (!interpreter_->is_last()) return absl::OkStatus();
    result_.weights_sha256 = digest.Finish();
    if (options_.weights_path.empty()) return absl::OkStatus();
    return WriteSafetensors(options_.weights_path, all);
  }

  const TrainerOptions& options_;
  ControlPlane& control_;
  std::unique_ptr<Interpreter> interpreter_;
  WorkerResult result_;
  IntervalReportInfo report_;
  LinkSpeed link_;
  Stopwatch step_watch_;
  std::vector<double> step_s_;
  Step last_checkpoint_{-1};
  std::set<LayerIndex> thawed_;  // unfrozen since this worker put them into a checkpoint last
};

}  // namespace

absl::StatusOr<WorkerResult> Train(const TrainerOptions& options, ControlPlane& control) {
  return TrainLoop(options, control).Run();
}

}  // namespace smartpipe
