#include "worker/engine/interpreter.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "ATen/core/grad_mode.h"
#include "ATen/ops/full.h"
#include "absl/strings/str_cat.h"
#include "pipeline/partition.h"
#include "services/base/status_macros.h"
#include "torch/csrc/autograd/autograd.h"
#include "worker/engine/compute_device.h"
#include "worker/engine/stopwatch.h"
#include "worker/model/layer_state.h"

namespace smartpipe {
namespace {

TracePlan DescribePlan(const Plan& plan, const ScheduleShape& shape) {
  TracePlan traced{.step = plan.effective_step.value(),
                   .plan_epoch = plan.plan_epoch.value(),
                   .frontier = plan.frontier.value(),
                   .cuts = {},
                   .stage_to_rank = shape.stage_to_rank,
                   .credits = plan.credits,
                   .schedule = plan.schedule};
  for (LayerIndex cut : plan.cuts) traced.cuts.push_back(cut.value());
  return traced;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LayerRunner>> MakeLayerRunner(const EngineContext& context,
                                                             LayerIndex index) {
  std::unique_ptr<Layer> layer = context.model->MakeLayer(index, context.config->train.seed);
  if (!context.start_weights.empty()) {
    int64_t found = 0;
    SP_RETURN_IF_ERROR(
        LoadIntoLayer(context.start_weights, context.config->model.allow_partial, *layer, found));
  }
  return LayerRunner::Create(
      index, std::move(layer),
      {.optim = context.config->optim,
       .per_microbatch_norms = context.config->freeze.statistic == "corrected",
       .num_microbatches = context.config->train.microbatches,
       .device = context.device});
}

absl::StatusOr<std::unique_ptr<Interpreter>> Interpreter::Create(const EngineContext& context,
                                                                 const Plan& plan) {
  std::unique_ptr<Interpreter> interpreter(new Interpreter(context));
  const TrainConfig& train = context.config->train;
  interpreter->sampler_ = std::make_unique<Sampler>(
      train.seed, context.dataset->size(Split::kTrain), train.batch_size, train.microbatches);
  const int32_t num_layers = context.model->num_layers();
  SP_RETURN_IF_ERROR(ValidatePlan(plan, num_layers));
  if (plan.num_stages() % context.transport->size() != 0) {
    return absl::InvalidArgumentError(absl::StrCat("the plan has ", plan.num_stages(),
                                                   " stages but the group has ",
                                                   context.transport->size(), " ranks"));
  }
  for (LayerIndex layer :
       RankLayers(plan.cuts, num_layers, context.transport->size(), context.transport->rank())) {
    SP_ASSIGN_OR_RETURN(interpreter->layers_[layer], MakeLayerRunner(context, layer));
  }
  SP_RETURN_IF_ERROR(interpreter->Adopt(plan));
  return interpreter;
}

ScheduleShape Interpreter::ShapeOf(const Plan& plan) const {
  return {
      .num_stages = plan.num_stages(),
      .num_microbatches = static_cast<int32_t>(context_.config->train.microbatches),
      .num_frozen_stages = NumFrozenStages(plan.cuts, context_.model->num_layers(), plan.frontier),
      .stage_to_rank = DealStages(plan.num_stages(), context_.transport->size())};
}

absl::StatusOr<Program> Interpreter::ProgramOf(const Plan& plan) const {
  SP_ASSIGN_OR_RETURN(std::vector<Program> programs, MakePrograms(ShapeOf(plan), plan.schedule));
  return std::move(programs[context_.transport->rank().value()]);
}

absl::Status Interpreter::Adopt(const Plan& plan) {
  // Mailboxes may hold sends under way: they stay when nothing but the frontier changes.
  const bool same_cuts =
      !stages_.empty() && plan.cuts == plan_.cuts && plan.schedule == plan_.schedule;
  plan_ = plan;
  shape_ = ShapeOf(plan);
  SP_ASSIGN_OR_RETURN(program_, ProgramOf(plan));
  SP_RETURN_IF_ERROR(SetFrontier(plan.frontier));
  if (same_cuts) {
    SetCredits();
  } else {
    MakeMailboxes();
  }
  if (context_.trace != nullptr) context_.trace->Add(DescribePlan(plan_, shape_));
  return absl::OkStatus();
}

Inbox* Interpreter::InboxOf(Rank from, ChannelKind kind) {
  return &inboxes_.try_emplace({from, kind}, context_.transport, from, kind, context_.device)
              .first->second;
}

Outbox* Interpreter::OutboxOf(Rank to, ChannelKind kind) {
  return &outboxes_.try_emplace({to, kind}, context_.transport, to, kind).first->second;
}

void Interpreter::MakeMailboxes() {
  past_gradient_bytes_sent_ = gradient_bytes_sent();
  stages_.clear();
  inboxes_.clear();
  outboxes_.clear();
  Transport* transport = context_.transport;
  for (int s = 0; s < plan_.num_stages(); ++s) {
    if (rank_of(s) != transport->rank().value()) continue;
    StageState& stage = stages_[StageIndex(s)];
    stage.range = StageLayers(plan_, context_.model->num_layers(), StageIndex(s));
    if (s > 0 && rank_of(s - 1) != rank_of(s)) {
      const Rank before(rank_of(s - 1));
      stage.activation_inbox = InboxOf(before, ChannelKind::kActivation);
      stage.gradient_outbox = OutboxOf(before, ChannelKind::kGradient);
    }
    if (s + 1 < plan_.num_stages() && rank_of(s + 1) != rank_of(s)) {
      const Rank after(rank_of(s + 1));
      stage.activation_outbox = OutboxOf(after, ChannelKind::kActivation);
      stage.gradient_inbox = InboxOf(after, ChannelKind::kGradient);
    }
  }
  SetCredits();
}

void Interpreter::SetCredits() {
  std::map<Inbox*, int32_t> receive;
  std::map<Outbox*, int32_t> send;
  for (auto& [index, stage] : stages_) {
    if (stage.activation_inbox != nullptr) {
      receive[stage.activation_inbox] += plan_.credits[index.value() - 1];
      send[stage.gradient_outbox] += plan_.credits[index.value() - 1];
    }
    if (stage.activation_outbox != nullptr) {
      send[stage.activation_outbox] += plan_.credits[index.value()];
      receive[stage.gradient_inbox] += plan_.credits[index.value()];
    }
  }
  for (auto& [inbox, credits] : receive) inbox->set_credits(credits);
  for (auto& [outbox, credits] : send) outbox->set_credits(credits);
}

absl::StatusOr<SwitchCost> Interpreter::SwitchPlan(const Plan& plan) {
  SwitchCost cost;
  SP_RETURN_IF_ERROR(ValidatePlan(plan, context_.model->num_layers()));
  const int64_t next_step = (step_ + 1).value();
  Stopwatch watch;
  if (plan.cuts != plan_.cuts || plan.frontier < plan_.frontier) {
    SP_RETURN_IF_ERROR(Drain());
    AddSpan(context_.trace, "drain", next_step, watch.start_ns());
    cost.drain_s = watch.Restart();
  }
  // Before the move: what freezes here need not send its optimizer state, and what trains again has
  // a new one.
  SP_RETURN_IF_ERROR(SetFrontier(plan.frontier));
  if (plan.cuts != plan_.cuts) {
    watch.Restart();
    SP_RETURN_IF_ERROR(MoveLayers(plan, cost));
    AddSpan(context_.trace, "move", next_step, watch.start_ns());
  }
  SP_RETURN_IF_ERROR(Adopt(plan));
  return cost;
}

absl::Status Interpreter::SetFrontier(LayerIndex frontier) {
  for (auto& [index, runner] : layers_) {
    const bool frozen = index < frontier;
    if (frozen && !runner->frozen()) runner->Freeze();
    if (!frozen && runner->frozen()) SP_RETURN_IF_ERROR(runner->Unfreeze());
  }
  return absl::OkStatus();
}

absl::Status Interpreter::MoveLayers(const Plan& plan, SwitchCost& cost) {
  Transport& transport = *context_.transport;
  const int rank = transport.rank().value();
  for (const LayerMove& move :
       LayerMoves(plan_.cuts, plan.cuts, context_.model->num_layers(), transport.size())) {
    const int from = rank_of(move.from_stage.value()), to = rank_of(move.to_stage.value());
    if (from == rank) {
      const at::Tensor packed = PackTensors(layers_.at(move.layer)->State());
      SP_RETURN_IF_ERROR(SendPacked(transport, Rank(to), packed));
      layers_.erase(move.layer);
    } else if (to == rank) {
      Stopwatch watch;
      SP_ASSIGN_OR_RETURN(const at::Tensor packed, ReceivePacked(transport, Rank(from), &watch));
      SP_ASSIGN_OR_RETURN(const std::vector<NamedTensor> state, UnpackTensors(packed));
      SP_ASSIGN_OR_RETURN(std::unique_ptr<LayerRunner> runner,
                          MakeLayerRunner(context_, move.layer));
      SP_RETURN_IF_ERROR(runner->LoadState(state, move.layer < plan.frontier));
      cost.moved_bytes += packed.numel();
      cost.move_s += watch.seconds();
      layers_[move.layer] = std::move(runner);
    }
  }
  return absl::OkStatus();
}

int64_t Interpreter::microbatch_size() const {
  return context_.config->train.batch_size / context_.config->train.microbatches;
}

std::vector<int64_t> Interpreter::BatchShape(LayerIndex edge, int64_t num_samples) const {
  std::vector<int64_t> shape = context_.edge_shapes[edge.value()];
  shape.insert(shape.begin(), num_samples);
  return shape;
}

absl::Status Interpreter::ExpectMessages(const Program& program, Op receive) {
  const bool forward = receive == Op::kRecvForward;
  for (const Instruction& cell : program) {
    if (cell.op != receive) continue;
    const StageState& stage = stages_.at(cell.stage);
    Inbox* inbox = forward ? stage.activation_inbox : stage.gradient_inbox;
    const LayerIndex edge = forward ? stage.range.first_layer : stage.range.end_layer;
    SP_RETURN_IF_ERROR(
        inbox->Expect(cell.stage, cell.microbatch, BatchShape(edge, microbatch_size())));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<double>> Interpreter::RunStep(Step step, bool probe,
                                                           const Plan* next) {
  step_ = step;
  probe_ = probe;
  losses_.clear();
  clock_.Begin(step);
  if (!received_ahead_) SP_RETURN_IF_ERROR(ExpectMessages(program_, Op::kRecvForward));
  SP_RETURN_IF_ERROR(ExpectMessages(program_, Op::kRecvBackward));
  // A switch that drains finds nothing on its way.
  received_ahead_ = next != nullptr && next->cuts == plan_.cuts && next->frontier >= plan_.frontier;
  if (received_ahead_ && next->plan_epoch == plan_.plan_epoch) {
    SP_RETURN_IF_ERROR(ExpectMessages(program_, Op::kRecvForward));
  } else if (received_ahead_) {
    // What comes in, and its shape, follows from the cuts; its order from the plan.
    SP_ASSIGN_OR_RETURN(const Program program, ProgramOf(*next));
    SP_RETURN_IF_ERROR(ExpectMessages(program, Op::kRecvForward));
  }
  for (const Instruction& instruction : program_) {
    SetPosition(instruction);
    if (absl::Status status = Execute(instruction); !status.ok()) {
      return Annotate(status,
                      absl::StrCat("step ", step.value(), ", instruction ", Format(instruction)));
    }
    if (!IsReceive(instruction.op)) clock_.Mark(instruction);  // those are posted ahead
  }
  clock_.End();
  if (!context_.config->pipeline.run_ahead) {
    const int64_t start_ns = MonotonicNs();
    SP_RETURN_IF_ERROR(Barrier(*context_.transport));
    AddSpan(context_.trace, "barrier", (step_ + 1).value(), start_ns);
  }
  if (!is_last()) return std::nullopt;
  // Not before, so that a device is waited for once a step.
  double loss = 0;
  const double share = 1.0 / static_cast<double>(context_.config->train.microbatches);
  for (const at::Tensor& microbatch_loss : losses_) loss += share * microbatch_loss.item<double>();
  SP_RETURN_IF_ERROR(CheckDevice());
  return loss;
}

absl::Status Interpreter::CheckDevice() const {
  return context_.device.is_cpu() ? absl::OkStatus() : context_.transport->status();
}

void Interpreter::SetPosition(const Instruction& instruction) {
  if (context_.position == nullptr) return;
  const bool upstream = instruction.op == Op::kForward || instruction.op == Op::kSendBackward;
  const int neighbour = instruction.stage.value() + (upstream ? -1 : 1);
  const bool inside = neighbour >= 0 && neighbour < plan_.num_stages();
  context_.position->Set(step_, instruction, inside ? rank_of(neighbour) : -1);
}

absl::Status Interpreter::Execute(const Instruction& instruction) {
  const auto found = stages_.find(instruction.stage);
  if (found == stages_.end())
    return absl::InternalError("the instruction's stage is not on this rank");
  StageState& stage = found->second;
  const MicrobatchIndex microbatch = instruction.microbatch;
  switch (instruction.op) {
    case Op::kForward:
      return Forward(stage, instruction);
    case Op::kBackward:
    case Op::kInputGrad:
    case Op::kWeightGrad:
      return Backward(stage, instruction);
    case Op::kSendForward:
      return stage.activation_outbox->Send(stage.outputs.extract(microbatch).mapped());
    case Op::kSendBackward:
      return stage.gradient_outbox->Send(stage.input_grads.extract(microbatch).mapped());
    case Op::kRecvForward:
    case Op::kRecvBackward:
      // Posted ahead by ExpectMessages; the instruction that uses the data waits for it, so that a
      // send behind a late receive is not held up.
      return absl::OkStatus();
    case Op::kReduce:
      return absl::UnimplementedError("REDUCE: a stage has one worker today");
    case Op::kOptimize:
      for (LayerIndex layer = stage.range.first_layer; layer < stage.range.end_layer; ++layer) {
        layers_.at(layer)->Optimize();
      }
      return absl::OkStatus();
  }
  return absl::InternalError("unknown instruction");
}

absl::StatusOr<at::Tensor> Interpreter::ForwardInput(StageState& stage,
                                                     const Instruction& instruction) {
  if (instruction.stage == StageIndex(0)) {
    return ToDevice(context_.dataset->Images(Split::kTrain,
                                             sampler_->Microbatch(step_, instruction.microbatch)),
                    context_.device);
  }
  const StageIndex before = instruction.stage - 1;
  if (owns_stage(before.value())) {  // same rank: the edge needs no message
    return std::move(stages_.at(before).outputs.extract(instruction.microbatch).mapped());
  }
  SP_ASSIGN_OR_RETURN(at::Tensor x,
                      stage.activation_inbox->Take(instruction.stage, instruction.microbatch));
  clock_.Mark({Op::kRecvForward, instruction.stage, instruction.microbatch});
  return x;
}

absl::StatusOr<at::Tensor> Interpreter::OutputGrad(StageState& stage,
                                                   const Instruction& instruction) {
  const StageIndex after = instruction.stage + 1;
  if (after.value() == plan_.num_stages()) {
    return std::move(stage.loss_grads.extract(instruction.microbatch).mapped());
  }
  if (owns_stage(after.value())) {
    return std::move(stages_.at(after).input_grads.extract(instruction.microbatch).mapped());
  }
  SP_ASSIGN_OR_RETURN(at::Tensor grad,
                      stage.gradient_inbox->Take(instruction.stage, instruction.microbatch));
  clock_.Mark({Op::kRecvBackward, instruction.stage, instruction.microbatch});
  return grad;
}

absl::Status Interpreter::Forward(StageState& stage, const Instruction& instruction) {
  SP_ASSIGN_OR_RETURN(at::Tensor x, ForwardInput(stage, instruction));
  for (LayerIndex layer = stage.range.first_layer; layer < stage.range.end_layer; ++layer) {
    x = layers_.at(layer)->Forward(instruction.microbatch, x,
                                   /*input_grad=*/layer > plan_.frontier);
  }
  if (stage.activation_inbox != nullptr) SP_RETURN_IF_ERROR(stage.activation_inbox->Release());
  if (instruction.stage.value() + 1 == plan_.num_stages()) {
    ComputeLoss(stage, instruction.microbatch, x);
  } else {
    stage.outputs[instruction.microbatch] = std::move(x);
  }
  return absl::OkStatus();
}

void Interpreter::ComputeLoss(StageState& stage, MicrobatchIndex microbatch,
                              const at::Tensor& logits) {
  at::AutoGradMode record(true);
  const double share = 1.0 / static_cast<double>(context_.config->train.microbatches);
  const at::Tensor labels =
      ToDevice(context_.dataset->Labels(Split::kTrain, sampler_->Microbatch(step_, microbatch)),
               context_.device);
  const at::Tensor leaf = logits.detach().requires_grad_(true);
  const at::Tensor loss = CrossEntropy(leaf, labels);
  losses_.push_back(loss.detach());
  stage.loss_grads[microbatch] =
      torch::autograd::grad({loss}, {leaf}, {at::full({}, share, loss.options())})[0];
}

absl::Status Interpreter::Backward(StageState& stage, const Instruction& instruction) {
  const MicrobatchIndex microbatch = instruction.microbatch;
  const bool probe = probe_ && microbatch.value() + 1 == shape_.num_microbatches;
  const LayerIndex first = std::max(stage.range.first_layer, plan_.frontier);
  if (instruction.op == Op::kWeightGrad) {
    for (LayerIndex layer = stage.range.end_layer - 1; layer >= first; --layer) {
      layers_.at(layer)->WeightGrad(microbatch);
    }
    return absl::OkStatus();
  }
  SP_ASSIGN_OR_RETURN(at::Tensor grad, OutputGrad(stage, instruction));
  for (LayerIndex layer = stage.range.end_layer - 1; layer >= first; --layer) {
    LayerRunner& runner = *layers_.at(layer);
    grad = instruction.op == Op::kBackward ? runner.Backward(microbatch, grad, probe)
                                           : runner.InputGrad(microbatch, grad);
  }
  if (stage.gradient_inbox != nullptr) SP_RETURN_IF_ERROR(stage.gradient_inbox->Release());
  if (grad.defined()) stage.input_grads[microbatch] = std::move(grad);
  return absl::OkStatus();
}

absl::Status Interpreter::Drain() {
  if (received_ahead_) return absl::InternalError("drained although a step was to come next");
  for (auto& [channel, outbox] : outboxes_) SP_RETURN_IF_ERROR(outbox.Drain());
  clock_.Finish();
  return CheckDevice();
}

int64_t Interpreter::gradient_bytes_sent() const {
  int64_t bytes = past_gradient_bytes_sent_;
  for (const auto& [channel, outbox] : outboxes_) {
    if (channel.second == ChannelKind::kGradient) bytes += outbox.bytes_sent();
  }
  return bytes;
}

}  // namespace smartpipe
