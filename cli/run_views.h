// What people see of a run that is asked for, as pure functions from messages to text.
#pragma once

#include <string>
#include <vector>

#include "smartpipe/v1/freeze_service.pb.h"

namespace smartpipe {

/// All that `status` and `top` show, as the service told it.
struct RunView {
  v1::Run run;
  std::vector<v1::WorkerStatus> workers;
  v1::GetPlanResponse plan;  // empty before the start
  std::vector<v1::Order> orders;
  std::vector<v1::Verdict> verdicts;  // the newest ones, at least the last
};

/// State, step, loss, speed; plan; one line per worker with the share of a step that it idles; the
/// last decision with its reason; open orders. At most `width` columns.
std::string StatusText(const RunView& view, int width);
/// A table of the layers, then since when and why they are frozen.
std::string LayersText(const std::vector<v1::LayerStatus>& layers, int width);
/// One paragraph per verdict.
std::string DecisionsText(const std::vector<v1::Verdict>& verdicts, int width);
/// "FreezeLayers 3 is carried out at step 40 (request order-57).", or what would happen.
std::string OrderText(const v1::OrderResult& result, bool validate_only, int width);

}  // namespace smartpipe
