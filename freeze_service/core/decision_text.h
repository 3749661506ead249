// Plans, events and decisions as text, exact and one fact a line: for state dumps, tests and
// incident reports.
#pragma once

#include <string>

#include "freeze_service/core/coordinator_state.h"
#include "freeze_service/core/events.h"
#include "pipeline/plan.h"

namespace smartpipe {

/// Shortest text that reads back as the same number; "NaN".
std::string Exact(double value);
/// "epoch 1 from step 20, frontier 2, cuts [0,2|4) [4,7), workers w0 w1, 1f1b, credits 4".
std::string Describe(const Plan& plan, int32_t num_layers);
/// Every field of the verdict, numbers exact.
std::string Describe(const Verdict& verdict, int32_t num_layers);
std::string Describe(const IntervalReported& report);
std::string Describe(const LayerInfo& layer);
/// "finished: seconds 1.5 0 0 0 0, checkpoint bytes 4096 0, weights 2cf2...".
std::string Describe(const WorkerFigures& result);
/// "2 stages, 1 on each worker, 1f1b, run-ahead on, 2 cores, cuts 3, rebalance on from 0.03".
std::string Describe(const ExecutionOptions& execution);
/// "from step 96, 1 recovery, the last since ...".
std::string Describe(const RunHistory& history);

std::string Describe(const PolicyOptions& policy);
/// "FreezeLayers 2".
std::string Describe(const Order& order);
/// "r1 FreezeLayers 2 at step 40, ordered by alice: it looks done".
std::string Describe(const OrderGiven& given);
/// What lasts, then one line for each order.
std::string Describe(const Orders& orders);

}  // namespace smartpipe
