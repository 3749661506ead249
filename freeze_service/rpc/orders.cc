// The operator's orders: decode, validate, apply or try, answer.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "freeze_service/core/decision_text.h"
#include "freeze_service/core/orders.h"
#include "freeze_service/rpc/codec.h"
#include "freeze_service/rpc/freeze_service_impl.h"
#include "services/base/error_reason.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"
#include "services/rpc/access.h"
#include "services/rpc/status.h"

namespace smartpipe {
namespace {

absl::Status CheckRequestId(const std::string& id) {
  const bool good = std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
  });
  if (good && id.size() <= static_cast<size_t>(limits::kRequestIdBytesMax)) return absl::OkStatus();
  return WithReason(absl::InvalidArgumentError(absl::StrCat(
                        "request_id must be [A-Za-z0-9._-]{1,", limits::kRequestIdBytesMax,
                        "}, or empty for one that the service gives")),
                    {"BAD_REQUEST_ID", {}});
}

/// What all orders have in common.
template <typename Request>
absl::StatusOr<OrderGiven> DecodeOrder(const Request& request, Order order) {
  SP_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  SP_RETURN_IF_ERROR(CheckText("reason", request.reason()));
  if (std::any_of(request.reason().begin(), request.reason().end(), absl::ascii_iscntrl)) {
    return absl::InvalidArgumentError(
        "reason has control characters, and it is shown on terminals; give one line of text");
  }
  OrderGiven given{.request_id = request.request_id(),
                   .who = {},
                   .why = request.reason(),
                   .step = {},
                   .order = std::move(order)};
  if constexpr (requires { request.step(); }) {
    if (request.has_step()) given.step = Step(request.step());
  }
  return given;
}

absl::StatusOr<ChangePolicy> DecodePolicy(const v1::SetPolicyRequest& request) {
  if (request.schedule_size() > limits::kScheduleEntriesMax) {
    return absl::ResourceExhaustedError(absl::StrCat("the schedule has ", request.schedule_size(),
                                                     " entries; the limit is ",
                                                     limits::kScheduleEntriesMax));
  }
  ChangePolicy change;
  if (request.has_policy()) change.policy = request.policy();
  if (request.has_tau()) change.tau = request.tau();
  if (request.has_lambda_max()) change.lambda_max = request.lambda_max();
  if (request.has_warmup_intervals()) change.warmup_intervals = request.warmup_intervals();
  if (request.has_hits()) change.hits = request.hits();
  if (request.has_min_trainable()) change.min_trainable = request.min_trainable();
  if (request.has_fixed_layers()) change.fixed_layers = request.fixed_layers();
  for (const v1::ScheduleEntry& entry : request.schedule())
    change.schedule.emplace_back(Step(entry.step()), LayerIndex(entry.frontier()));
  return change;
}

}  // namespace

v1::Order EncodeOrder(const OrderRecord& record) {
  v1::Order order;
  order.set_request_id(record.given.request_id);
  order.set_name(std::string(OrderName(record.given.order)));
  order.set_who(record.given.who);
  order.set_reason(record.given.why);
  order.set_step(record.step.value());
  order.set_boundary(record.boundary.value());
  order.set_done(record.done);
  order.set_text(Describe(record.given.order));
  return order;
}

absl::Status FreezeServiceImpl::CheckOrder(const OrderGiven& given) const {
  const bool needs_store = std::holds_alternative<TakeCheckpoint>(given.order) ||
                           std::holds_alternative<smartpipe::DrainWorker>(given.order);
  if (needs_store && options_.parameter_service.empty()) {
    return WithReason(absl::FailedPreconditionError(
                          "the run takes no checkpoints: the freeze service was started without "
                          "--parameter-service"),
                      {"NO_CHECKPOINTS", {}});
  }
  return WithReason(CheckNotEnded(), {"RUN_OVER", {}});
}

absl::Status FreezeServiceImpl::TryOrder(const OrderGiven& given, v1::OrderResult* result) {
  SP_RETURN_IF_ERROR(CheckOrder(given));
  SP_ASSIGN_OR_RETURN(const OrderPreview preview, coordinator_->Preview(given));
  *result->mutable_order() = EncodeOrder({.given = given,
                                          .boundary = preview.accepted.boundary,
                                          .step = preview.accepted.step,
                                          .done = false});
  if (preview.verdict.has_value()) *result->mutable_preview() = EncodeVerdict(*preview.verdict);
  return absl::OkStatus();
}

absl::Status FreezeServiceImpl::TakeOrder(const OrderGiven& given, v1::OrderResult* result) {
  const OrderRecord* known = FindOrder(coordinator_->orders(), given.request_id);
  const bool repeated = known != nullptr && known->given == given;
  if (!repeated) {
    SP_RETURN_IF_ERROR(CheckOrder(given));
    SP_RETURN_IF_ERROR(ApplyEvent(given));
    known = FindOrder(coordinator_->orders(), given.request_id);
  }
  *result->mutable_order() = EncodeOrder(*known);
  return absl::OkStatus();
}

template <typename Request>
grpc::Status FreezeServiceImpl::AnswerOrder(grpc::ServerContext* context, const Request& request,
                                            Order order, v1::OrderResult* result) {
  absl::StatusOr<OrderGiven> given = DecodeOrder(request, std::move(order));
  if (!given.ok()) return ToGrpcStatus(given.status());
  if (const Caller caller = CallerOf(*context); !caller.is_local) given->who = caller.name;
  absl::MutexLock lock(&mutex_);
  // Each order that is accepted is a record of its own; somebody may have taken its name.
  for (int64_t n = store_->num_records(); given->request_id.empty(); ++n) {
    std::string id = absl::StrCat("order-", n);
    if (FindOrder(coordinator_->orders(), id) == nullptr) given->request_id = std::move(id);
  }
  return ToGrpcStatus(request.validate_only() ? TryOrder(*given, result)
                                              : TakeOrder(*given, result));
}

grpc::Status FreezeServiceImpl::FreezeLayers(grpc::ServerContext* context,
                                             const v1::FreezeLayersRequest* request,
                                             v1::FreezeLayersResponse* response) {
  return AnswerOrder(context, *request,
                     Order(smartpipe::FreezeLayers{LayerIndex(request->frontier())}),
                     response->mutable_result());
}

grpc::Status FreezeServiceImpl::UnfreezeLayers(grpc::ServerContext* context,
                                               const v1::UnfreezeLayersRequest* request,
                                               v1::UnfreezeLayersResponse* response) {
  return AnswerOrder(context, *request,
                     Order(smartpipe::UnfreezeLayers{LayerIndex(request->frontier())}),
                     response->mutable_result());
}

grpc::Status FreezeServiceImpl::Rebalance(grpc::ServerContext* context,
                                          const v1::RebalanceRequest* request,
                                          v1::RebalanceResponse* response) {
  RebalanceStages rebalance;
  for (const int32_t cut : request->cuts()) {
    if (rebalance.cuts.size() == static_cast<size_t>(limits::kStagesMax)) break;  // too many anyway
    rebalance.cuts.push_back(LayerIndex(cut));
  }
  return AnswerOrder(context, *request, Order(std::move(rebalance)), response->mutable_result());
}

grpc::Status FreezeServiceImpl::SetPolicy(grpc::ServerContext* context,
                                          const v1::SetPolicyRequest* request,
                                          v1::SetPolicyResponse* response) {
  absl::StatusOr<ChangePolicy> change = DecodePolicy(*request);
  if (!change.ok()) return ToGrpcStatus(change.status());
  return AnswerOrder(context, *request, *std::move(change), response->mutable_result());
}

grpc::Status FreezeServiceImpl::Pause(grpc::ServerContext* context, const v1::PauseRequest* request,
                                      v1::PauseResponse* response) {
  return AnswerOrder(context, *request, Order(PauseRun{}), response->mutable_result());
}

grpc::Status FreezeServiceImpl::Resume(grpc::ServerContext* context,
                                       const v1::ResumeRequest* request,
                                       v1::ResumeResponse* response) {
  return AnswerOrder(context, *request, Order(ResumeRun{}), response->mutable_result());
}

grpc::Status FreezeServiceImpl::Checkpoint(grpc::ServerContext* context,
                                           const v1::CheckpointRequest* request,
                                           v1::CheckpointResponse* response) {
  return AnswerOrder(context, *request, Order(TakeCheckpoint{}), response->mutable_result());
}

grpc::Status FreezeServiceImpl::DrainWorker(grpc::ServerContext* context,
                                            const v1::DrainWorkerRequest* request,
                                            v1::DrainWorkerResponse* response) {
  absl::StatusOr<WorkerId> worker = DecodeWorkerId(request->worker_id());
  if (!worker.ok()) return ToGrpcStatus(worker.status());
  return AnswerOrder(context, *request, Order(smartpipe::DrainWorker{*std::move(worker)}),
                     response->mutable_result());
}

grpc::Status FreezeServiceImpl::Stop(grpc::ServerContext* context, const v1::StopRequest* request,
                                     v1::StopResponse* response) {
  return AnswerOrder(context, *request, Order(StopRun{request->at_once()}),
                     response->mutable_result());
}

grpc::Status FreezeServiceImpl::ListOrders(grpc::ServerContext*, const v1::ListOrdersRequest*,
                                           v1::ListOrdersResponse* response) {
  absl::MutexLock lock(&mutex_);
  for (const OrderRecord& record : coordinator_->orders().records)
    *response->add_orders() = EncodeOrder(record);
  return grpc::Status::OK;
}

}  // namespace smartpipe
