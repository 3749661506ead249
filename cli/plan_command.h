// `smartpipe plan`: the cuts for measured layers, and what they are worth.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "pipeline/partition.h"

namespace CLI {
class App;
}

namespace smartpipe {

struct PlanArguments {
  std::string costs_path;
  std::string schedule = "1f1b";
  int stages = 0, microbatches = 0;
  int stages_per_worker = 1;  // more than 1 for interleaved_1f1b only
  int cores = 0;              // that all workers share; 0 = each has its own
  int frontier = 0;
  int64_t memory_limit_bytes = 0;  // of each worker; 0 = none
  std::vector<int> cuts;           // judge these instead of searching; empty = search
  std::string svg_path;            // empty = no picture
  bool json = false;
};

/// Adds the command and its options; they are read into `arguments`.
CLI::App* AddPlanCommand(CLI::App& app, PlanArguments& arguments);

/// Prints a plan. Returns an exit code: kExitFailed when no cuts fit the memory.
int PlanCommand(const PlanArguments& arguments);

/// A plan and what it is compared with.
struct PlanReport {
  PlannerInput input;
  std::vector<std::string> names;  // [layer]
  PartitionResult best;            // found
  PartitionResult plan;  // what the report is about: the best, or the cuts that were asked for
  // The best with nothing frozen, under the same limits; none if no cuts fit the memory then.
  std::optional<PartitionResult> unfrozen;
};
/// Errors: INVALID_ARGUMENT with the option and its range, or of the cost file; RESOURCE_EXHAUSTED
/// as in Partition. Cuts that were asked for may exceed the memory limit: their report shows it.
absl::StatusOr<PlanReport> MakePlan(const PlanArguments& arguments);

std::string PlanJson(const PlanReport& report);
std::string PlanText(const PlanReport& report);
/// Two steps of the plan, when all that fills up at the start is full.
absl::StatusOr<std::string> PlanSvg(const PlanReport& report);

}  // namespace smartpipe
