// Plans and costs on the wire; both the service and the workers speak them.
#pragma once

#include "absl/status/statusor.h"
#include "pipeline/partition.h"
#include "pipeline/plan.h"
#include "smartpipe/v1/freeze_service.pb.h"

namespace smartpipe {

v1::Plan ToProto(const Plan& plan);
/// Checks shape and limits only (ValidatePlan needs the number of layers).
/// Errors: INVALID_ARGUMENT naming the field.  Threads: pure.
absl::StatusOr<Plan> FromProto(const v1::Plan& plan);

v1::LayerCost ToProto(const LayerCost& cost);
LayerCost FromProto(const v1::LayerCost& cost);

}  // namespace smartpipe
