// How long a freeze_service needs for a long log: records a run of two workers in a folder, if it
// holds none yet, and times opening and restoring it.
//   restart_probe --dir DIR [--events 100000]
#include <cstdint>
#include <iostream>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/time/clock.h"
#include "freeze_service/store/restore.h"
#include "services/base/files.h"
#include "tests/unit/store/log_harness.h"

namespace {

double SecondsSince(absl::Time start) { return absl::ToDoubleSeconds(absl::Now() - start); }

int Fail(const absl::Status& status) {
  std::cerr << status << "\n";
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace smartpipe;  // NOLINT: a main program
  std::string dir;
  int64_t num_events = 100'000;
  CLI::App app("Times the restart of a freeze_service.", "restart_probe");
  app.add_option("--dir", dir, "existing folder")->required();
  app.add_option("--events", num_events)->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  const RunSettings settings = testutil::LogSettings();
  const absl::StatusOr<CoordinatorOptions> options = MakeCoordinatorOptions(settings);
  if (!options.ok()) return Fail(options.status());
  {
    const absl::StatusOr<OpenedDecisionStore> opened = OpenDecisionStore(dir, settings);
    if (!opened.ok()) return Fail(opened.status());
    if (opened->store->num_records() == 0) {
      const absl::Time start = absl::Now();
      testutil::RecordRun(num_events / 2, 64, *opened->store);
      std::cout << "record_s " << SecondsSince(start) << "\n";
    }
  }
  const absl::Status written = WriteFileAtomically(dir + "/config.toml", settings.config_toml);
  if (!written.ok()) return Fail(written);
  const absl::Time start = absl::Now();
  const absl::StatusOr<OpenedDecisionStore> opened = OpenDecisionStore(dir, settings);
  if (!opened.ok()) return Fail(opened.status());
  std::cout << "records " << opened->store->num_records() << "\nopen_s " << SecondsSince(start)
            << "\n";
  const auto coordinator = RestoreCoordinator(*options, *opened->store);
  if (!coordinator.ok()) return Fail(coordinator.status());
  std::cout << "serving_s " << SecondsSince(start) << "\n"
            << (*coordinator)->state_message() << "\n";
  return 0;
}
