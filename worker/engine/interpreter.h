// The interpreter: runs this rank's program of a plan, step by step.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pipeline/instruction.h"
#include "pipeline/plan.h"
#include "pipeline/schedule.h"
#include "services/base/ids.h"
#include "services/obs/trace_file.h"
#include "worker/comm/transport.h"
#include "worker/data/dataset.h"
#include "worker/data/sampler.h"
#include "worker/engine/layer_runner.h"
#include "worker/engine/mailbox.h"
#include "worker/engine/position.h"
#include "worker/engine/step_clock.h"
#include "worker/model/model.h"

namespace smartpipe {

/// What all interpreters of a run share; everything outlives them.
struct EngineContext {
  const RunConfig* config = nullptr;
  const ModelSpec* model = nullptr;
  const Dataset* dataset = nullptr;
  Transport* transport = nullptr;
  std::vector<NamedTensor> start_weights;         // of model.weights; empty = keyed initialisation
  std::vector<std::vector<int64_t>> edge_shapes;  // [num_layers + 1] shape of one sample
  TraceWriter* trace = nullptr;                   // null = nothing is recorded
  Position* position = nullptr;                   // null = nobody watches
  at::Device device = at::kCPU;                   // of weights, activations and gradients
};

/// A trainable layer with its start weights, ready to run; also what profiling uses.
absl::StatusOr<std::unique_ptr<LayerRunner>> MakeLayerRunner(const EngineContext& context,
                                                             LayerIndex layer);

struct TestScore {
  double accuracy = 0;  // 0..1
  double loss = 0;      // mean over samples
};

/// A rank may arrive at a switch long before its peers, which still need their time: what it waits
/// for them is not what switching costs.
struct SwitchCost {
  // Until nothing of this rank was under way; with waits for peers.
  double drain_s = 0;
  // Receiving layers, each from when its sender was there, and putting them in place.
  double move_s = 0;
  int64_t moved_bytes = 0;  // received by this rank
};

/// Owns the layers of this rank and runs them.
///
/// Sends are asynchronous and receives are posted ahead, both within the plan's credits. A rank
/// whose stages are wholly frozen waits for no gradient, so it runs ahead into the next steps until
/// its credits are used up; with pipeline.run_ahead = false all ranks meet at each step's end.
/// Errors of a transfer end the step; the interpreter is then only good for destruction.  Threads:
/// the compute thread.
class Interpreter {
 public:
  /// Builds the layers that `plan` gives to `context.transport->rank()`.
  static absl::StatusOr<std::unique_ptr<Interpreter>> Create(const EngineContext& context,
                                                             const Plan& plan);

  /// Goes over to the next plan between two steps. A plan that only raises the frontier drains
  /// nothing. One with other cuts drains sends, and layers that change their owner move with all
  /// their state, digests checked. One that lowers the frontier drains, too; the layers that train
  /// again start with a new optimizer and statistic.
  absl::StatusOr<SwitchCost> SwitchPlan(const Plan& plan);

  /// Runs one step. `probe` times weight gradients apart on the last micro-batch. On the rank of
  /// the last stage the mean loss of the global batch is returned, else nothing. `next`: the plan
  /// of the next step, if nothing but steps comes in between and it is known by now; with the same
  /// cuts its activations are received ahead.
  absl::StatusOr<std::optional<double>> RunStep(Step step, bool probe, const Plan* next = nullptr);

  /// Forwards the whole test set through the pipeline in eval mode. On the last rank the score,
  /// else nothing.
  absl::StatusOr<std::optional<TestScore>> Evaluate();
  /// Returns when nothing of this rank is under way, here or on its device.
  absl::Status Drain();
  /// Asked behind a wait for the device, before its numbers are given to anyone: why they may mean
  /// nothing. Always OK on the CPU, where transfers say so themselves.
  absl::Status CheckDevice() const;

  /// Gathers all layers on the last stage's rank, one at a time, calling `keep` there for each in
  /// layer order.
  absl::Status Gather(
      const std::function<absl::Status(LayerIndex, std::vector<NamedTensor>)>& keep);

  const Plan& plan() const { return plan_; }
  bool is_last() const {
    return rank_of(plan_.num_stages() - 1) == context_.transport->rank().value();
  }
  /// This rank's layers, ascending.
  const std::map<LayerIndex, std::unique_ptr<LayerRunner>>& layers() const { return layers_; }
  /// Bytes of gradients sent upstream over the life of the interpreter.
  int64_t gradient_bytes_sent() const;

 private:
  struct StageState {
    LayerRange range;
    std::map<MicrobatchIndex, at::Tensor>
        outputs;  // not yet sent or used by the next stage on this rank
    std::map<MicrobatchIndex, at::Tensor>
        loss_grads;  // last stage: gradients of the logits, not yet used
    std::map<MicrobatchIndex, at::Tensor> input_grads;  // not yet sent or used
    // Null at the ends of the pipeline and on edges inside the rank; shared by the edges between
    // two ranks.
    Inbox *activation_inbox = nullptr, *gradient_inbox = nullptr;
    Outbox *activation_outbox = nullptr, *gradient_outbox = nullptr;
  };
  using ChannelId = std::pair<Rank, ChannelKind>;

  explicit Interpreter(const EngineContext& context)
      : context_(context), clock_(context.trace, context.device) {}
  int rank_of(int stage) const { return shape_.rank_of(stage); }
  bool owns_stage(int stage) const { return stages_.contains(StageIndex(stage)); }
  absl::Status Adopt(const Plan& plan);
  void MakeMailboxes();
  Inbox* InboxOf(Rank from, ChannelKind kind);
  Outbox* OutboxOf(Rank to, ChannelKind kind);
  void SetCredits();
  ScheduleShape ShapeOf(const Plan& plan) const;
  /// This rank's.
  absl::StatusOr<Program> ProgramOf(const Plan& plan) const;
  absl::Status ExpectMessages(const Program& program, Op receive);
  absl::Status Execute(const Instruction& instruction);
  /// Tells whoever watches.
  void SetPosition(const Instruction& instruction);
  absl::Status Forward(StageState& stage, const Instruction& instruction);
  absl::Status Backward(StageState& stage, const Instruction& instruction);
  absl::StatusOr<at::Tensor> ForwardInput(StageState& stage, const Instruction& instruction);
  absl::StatusOr<at::Tensor> OutputGrad(StageState& stage, const Instruction& instruction);
  void ComputeLoss(StageState& stage, MicrobatchIndex microbatch, const at::Tensor& logits);
  absl::Status SetFrontier(LayerIndex frontier);
  absl::Status MoveLayers(const Plan& plan, SwitchCost& cost);
  std::vector<int64_t> BatchShape(LayerIndex edge, int64_t num_samples) const;
  int64_t microbatch_size() const;

  const EngineContext context_;
  Plan plan_;
  ScheduleShape shape_;
  Program program_;
  bool received_ahead_ = false;  // the next step's activations are expected already
  std::map<StageIndex, StageState> stages_;
  std::map<ChannelId, Inbox> inboxes_;
  std::map<ChannelId, Outbox> outboxes_;
  std::map<LayerIndex, std::unique_ptr<LayerRunner>> layers_;
  std::unique_ptr<Sampler> sampler_;
  Step step_;
  bool probe_ = false;
  std::vector<at::Tensor> losses_;  // of the step so far, in the order of its micro-batches
  int64_t past_gradient_bytes_sent_ = 0;
  StepClock clock_;
};

}  // namespace smartpipe
