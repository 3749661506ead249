#include "worker/weights_main.h"

#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "services/obs/log.h"
#include "services/rpc/exit_codes.h"
#include "worker/weights_job.h"

namespace smartpipe {
namespace {

using Json = nlohmann::ordered_json;

struct Words {
  ExportOptions exported;
  EvalOptions evaluated;
  int64_t step = -1;
  int result_fd = 1;
};

CLI::App* AddJob(CLI::App& app, const char* name, const char* help, std::string& run_dir,
                 Words& words) {
  CLI::App* job = app.add_subcommand(name, help);
  job->add_option("--run", run_dir, "run directory")->type_name("DIR");
  job->add_option("--step", words.step, "of the checkpoint [newest complete one]");
  job->add_option("--result-fd", words.result_fd, "where the result is written as JSON [stdout]");
  return job;
}

Json ToJson(const ExportResult& result) {
  return {{"step", result.step.value()},
          {"num_tensors", result.num_tensors},
          {"tensor_bytes", result.tensor_bytes},
          {"weights_sha256", result.weights_sha256}};
}

Json ToJson(const EvalResult& result) {
  return {{"step", result.step ? Json(result.step->value()) : Json(nullptr)},
          {"test_accuracy", result.score.accuracy},
          {"test_loss", result.score.loss},  // null if it is not finite
          {"num_samples", result.num_samples},
          {"weights_sha256", result.weights_sha256}};
}

template <typename Result>
Json ToAnswer(const absl::StatusOr<Result>& result) {
  if (result.ok()) return ToJson(*result);
  return {{"error",
           {{"code", result.status().raw_code()},
            {"message", std::string(result.status().message())}}}};
}

bool WriteLine(int fd, const Json& answer) {
  const std::string line = answer.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  for (size_t done = 0; done < line.size();) {
    const ssize_t count = write(fd, line.data() + done, line.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    done += static_cast<size_t>(count);
  }
  return true;
}

}  // namespace

bool IsWeightsJob(absl::string_view word) { return word == "export" || word == "eval"; }

int WeightsMain(int argc, char** argv) {
  Words words;
  CLI::App app("Work on stored weights, without any service.", "stage_worker");
  app.require_subcommand(1);
  CLI::App* exported =
      AddJob(app, "export", "a checkpoint as a weights file", words.exported.run_dir, words);
  exported->get_option("--run")->required();
  exported->add_option("--output", words.exported.output_path, "safetensors file")->required();
  CLI::App* evaluated =
      AddJob(app, "eval", "weights on the test set", words.evaluated.run_dir, words);
  evaluated->add_option("--config", words.evaluated.config_path, "TOML file")->required();
  evaluated->add_option("--weights", words.evaluated.weights_path,
                        "safetensors file, in place of --run");
  if (const auto code = ParseFlags<CLI::ParseError>(app, argc, argv)) return *code;
  absl::Status logging = InitLogging({.process = "stage_worker", .level = "warning", .file = ""});
  if (!logging.ok()) LogWarning(logging.message());
  if (words.step >= 0) words.exported.step = words.evaluated.step = Step(words.step);
  const Json answer = exported->parsed() ? ToAnswer(ExportWeights(words.exported))
                                         : ToAnswer(EvaluateWeights(words.evaluated));
  return WriteLine(words.result_fd, answer) && !answer.contains("error") ? 0 : 1;
}

}  // namespace smartpipe
