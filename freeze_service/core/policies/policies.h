// The makers of all policies, for the table in freeze_service/core/policy.cc.
#pragma once

#include <memory>

#include "freeze_service/core/policy.h"

namespace smartpipe {

std::unique_ptr<Policy> MakeFullPolicy(const PolicyOptions& options);
std::unique_ptr<Policy> MakeFixedPolicy(const PolicyOptions& options);
std::unique_ptr<Policy> MakeLinearPolicy(const PolicyOptions& options);
std::unique_ptr<Policy> MakeSmartPipePolicy(const PolicyOptions& options);
std::unique_ptr<Policy> MakeSchedulePolicy(const PolicyOptions& options);

}  // namespace smartpipe
