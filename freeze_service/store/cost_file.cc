#include "freeze_service/store/cost_file.h"

#include <algorithm>
#include <cmath>

#include "nlohmann/json.hpp"

namespace smartpipe {
namespace {

using Json = nlohmann::ordered_json;

// Nanosecond steps: more digits would only be noise.
double Microseconds(double seconds) { return std::round(std::max(seconds, 0.0) * 1e9) / 1e3; }

}  // namespace

std::string CostFileJson(const std::vector<LayerInfo>& layers, const PlannerInput& input) {
  Json rows = Json::array();
  for (const LayerInfo& layer : layers) {
    const LayerCost& cost = layer.cost;
    rows.push_back({{"name", layer.name},
                    {"forward_us", Microseconds(cost.forward_s)},
                    {"input_grad_us", Microseconds(cost.input_grad_s)},
                    {"weight_grad_us", Microseconds(cost.weight_grad_s)},
                    {"optimize_us", Microseconds(cost.optimize_s)},
                    {"output_bytes", cost.output_bytes},
                    {"param_bytes", cost.param_bytes},
                    {"state_bytes", cost.state_bytes},
                    {"activation_bytes", cost.activation_bytes}});
  }
  Json json = {{"layers", std::move(rows)},
               {"link_bytes_per_s", std::round(input.link_bytes_per_s)},
               {"link_latency_us", Microseconds(input.link_latency_s)},
               {"worker_speed", std::vector<double>(input.num_workers(), 1.0)}};
  return json.dump(1) + "\n";
}

}  // namespace smartpipe
