// smartpipe: freezes the leading trainable layers whose gradient has stopped changing.
//
// Source: SmartPipe, definitions 2-4; differs: eta compares means over intervals, and lambda_t
//         follows from how many layers qualify, bounded by lambda_max.
// Test:   tests/scenario/policy/smartpipe.txt
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "freeze_service/core/policies/policies.h"
#include "freeze_service/core/reason.h"

namespace smartpipe {
namespace {

constexpr int kEtasListed = 4;

class SmartPipePolicy final : public Policy {
 public:
  explicit SmartPipePolicy(const PolicyOptions& options) : options_(options) {}

  PolicyDecision Decide(const PolicyInput& input) const override {
    if (input.interval.value() < 0) return {input.frontier, "no statistics yet"};
    if (input.interval.value() < options_.warmup_intervals) {
      return {input.frontier, absl::StrCat("warm-up: interval ", input.interval.value(),
                                           " decides nothing, interval ", options_.warmup_intervals,
                                           " is the first that may")};
    }
    const int32_t num_may_freeze =
        input.num_layers - input.frontier.value() - options_.min_trainable;
    if (num_may_freeze < 1) {
      return {input.frontier, absl::StrCat("all layers are frozen but the last ",
                                           options_.min_trainable, " (freeze.min_trainable)")};
    }
    LayerIndex end = input.frontier;
    while (end.value() < input.num_layers && Hits(input, end) >= options_.hits) ++end;
    if (end == input.frontier) return {input.frontier, WhyNot(input, end)};
    return Freeze(input, end - input.frontier, num_may_freeze);
  }

 private:
  // Newest intervals in a row with eta < tau; intervals of the warm-up do not count.
  int32_t Hits(const PolicyInput& input, LayerIndex layer) const {
    const int64_t num_usable = std::min<int64_t>(
        input.eta_history.size(), input.interval.value() - options_.warmup_intervals + 1);
    int32_t hits = 0;
    for (auto eta = input.eta_history.rbegin(); hits < num_usable; ++eta, ++hits) {
      if (!((*eta)[layer.value()] < options_.tau)) break;  // NaN stops here, too
    }
    return hits;
  }

  std::string WhyNot(const PolicyInput& input, LayerIndex layer) const {
    const double eta = input.eta_history.back()[layer.value()];
    if (std::isnan(eta)) return absl::StrCat("no evidence on ", input.no_evidence[layer.value()]);
    const std::string label = absl::StrCat(LayerLabel(layer, input.layer_names[layer.value()]),
                                           " has eta ", RoundedBeside(eta, options_.tau));
    if (eta >= options_.tau) return absl::StrCat(label, " >= tau ", Rounded(options_.tau));
    return absl::StrCat(label, " < tau ", Rounded(options_.tau), " for ",
                        Counted(Hits(input, layer), "interval"), ", not yet for ", options_.hits);
  }

  PolicyDecision Freeze(const PolicyInput& input, int32_t num_qualified,
                        int32_t num_may_freeze) const {
    const int32_t num_trainable = input.num_layers - input.frontier.value();
    // The small term keeps a product such as 0.29 * 100 from falling below its whole number.
    const int32_t num_at_once =
        std::max(1, static_cast<int32_t>(std::floor(options_.lambda_max * num_trainable + 1e-9)));
    const int32_t count = std::min({num_qualified, num_at_once, num_may_freeze});
    const LayerIndex frontier = input.frontier + count;
    std::string reason =
        absl::StrCat("eta ", Etas(input, frontier), " < tau ", Rounded(options_.tau), " for ",
                     Counted(options_.hits, "interval"));
    if (count < num_qualified) {
      absl::StrAppend(&reason, ", ", num_qualified - count, " more qualified but ");
      if (num_at_once <= num_may_freeze) {
        absl::StrAppend(&reason, "freeze.lambda_max ", Rounded(options_.lambda_max), " of ",
                        Counted(num_trainable, "trainable layer"), " allows ", count, " at once");
      } else {
        absl::StrAppend(&reason, "freeze.min_trainable keeps the last ", options_.min_trainable);
      }
    } else if (count < num_may_freeze && !input.no_evidence[frontier.value()].empty()) {
      absl::StrAppend(&reason, ", no evidence on ", input.no_evidence[frontier.value()]);
    }
    return {frontier, reason};
  }

  std::string Etas(const PolicyInput& input, LayerIndex end) const {
    const std::vector<double>& eta = input.eta_history.back();
    std::vector<double> chosen(eta.begin() + input.frontier.value(), eta.begin() + end.value());
    if (chosen.size() > kEtasListed) {
      const auto [least, most] = std::minmax_element(chosen.begin(), chosen.end());
      return absl::StrCat(Rounded(*least), " to ", RoundedBeside(*most, options_.tau));
    }
    return absl::StrJoin(chosen, ", ", [this](std::string* out, double value) {
      out->append(RoundedBeside(value, options_.tau));
    });
  }

  const PolicyOptions options_;
};

}  // namespace

std::unique_ptr<Policy> MakeSmartPipePolicy(const PolicyOptions& options) {
  return std::make_unique<SmartPipePolicy>(options);
}

}  // namespace smartpipe
