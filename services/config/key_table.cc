#include "services/config/key_table.h"

#include <charconv>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "services/base/limits.h"

namespace smartpipe {

const std::vector<std::string> kPolicyNames = {"full", "fixed", "linear", "smartpipe", "schedule"};
const std::vector<std::string> kScheduleNames = {"gpipe", "1f1b", "interleaved_1f1b"};
const std::vector<std::string> kModelNames = {"convnet", "resnet18", "blocknet"};
const std::vector<std::string> kDatasetNames = {"fashion_mnist", "synthetic"};
const std::vector<std::string> kOptimizerNames = {"sgd", "adamw"};
const std::vector<std::string> kStatisticNames = {"norm", "vector", "corrected"};
const std::vector<std::string> kServiceLossNames = {"wait"};
const std::vector<std::string> kDeviceNames = {"cpu", "cuda"};

namespace {

constexpr int64_t kEpochsMax = 1'000'000;
constexpr int64_t kBatchSizeMax = 1'048'576;
constexpr int64_t kSamplesMax = 1'000'000'000;
constexpr int64_t kThreadsMax = 256;
constexpr int64_t kCheckpointsMax = 10'000;
constexpr int64_t kRestartsMax = 1'000'000;
constexpr int64_t kHitsMax = 16;  // as many intervals as the policies remember

std::vector<KeySpec> MakeKeyTable() {
  using C = RunConfig;
  return {
      {"decision_timeout_s", [](C& c) { return &c.decision_timeout_s; },
       RealRange{.min = 0, .max = 86'400, .min_open = true},
       "seconds a worker waits at a boundary for its verdict, or for a freeze service that is "
       "gone, "
       "before it gives up"},
      {"watchdog_s", [](C& c) { return &c.watchdog_s; }, RealRange{.min = 0, .max = 86'400},
       "seconds without a step after which a worker writes down what it waits for and all workers "
       "go on from the last checkpoint; must be longer than an evaluation takes; 0 = never"},
      {"on_service_loss", [](C& c) { return &c.on_service_loss; }, Choice{&kServiceLossNames},
       "wait: workers without a freeze service train up to the next boundary and wait there, at "
       "most decision_timeout_s"},

      {"train.epochs", [](C& c) { return &c.train.epochs; }, IntRange{1, kEpochsMax},
       "passes over the training set"},
      {"train.batch_size", [](C& c) { return &c.train.batch_size; }, IntRange{1, kBatchSizeMax},
       "samples of one optimizer step; a multiple of train.microbatches"},
      {"train.microbatches", [](C& c) { return &c.train.microbatches; },
       IntRange{1, limits::kMicrobatchesMax}, "slices of a batch that fill the pipeline"},
      {"train.seed", [](C& c) { return &c.train.seed; }, IntRange{0, INT64_MAX},
       "all random draws follow from it: weights, data order, augmentation"},
      {"train.max_steps", [](C& c) { return &c.train.max_steps; }, IntRange{0, limits::kStepsMax},
       "stop after this many steps, if the epochs are not over first; 0 = no bound"},

      {"optim.name", [](C& c) { return &c.optim.name; }, Choice{&kOptimizerNames}, "optimizer"},
      {"optim.lr", [](C& c) { return &c.optim.lr; },
       RealRange{.min = 0, .max = 1000, .min_open = true}, "learning rate"},
      {"optim.momentum", [](C& c) { return &c.optim.momentum; },
       RealRange{.min = 0, .max = 1, .max_open = true}, "momentum of sgd; adamw has none"},
      {"optim.weight_decay", [](C& c) { return &c.optim.weight_decay; },
       RealRange{.min = 0, .max = 1}, "weight decay; never touches a frozen layer"},

      {"eval.every_epochs", [](C& c) { return &c.eval.every_epochs; }, IntRange{0, kEpochsMax},
       "measure test accuracy every so many epochs; 0 = only at the end"},

      {"pipeline.stages", [](C& c) { return &c.pipeline.stages; }, IntRange{1, limits::kStagesMax},
       "pipeline stages: parts of the model, one worker process for each (or for each "
       "pipeline.stages_per_worker of them)"},
      {"pipeline.stages_per_worker", [](C& c) { return &c.pipeline.stages_per_worker; },
       IntRange{1, limits::kStagesMax},
       "stages of each worker, dealt out in turn (stage s runs on worker s modulo the number of "
       "workers); more than 1 for schedule interleaved_1f1b only"},
      {"pipeline.schedule", [](C& c) { return &c.pipeline.schedule; }, Choice{&kScheduleNames},
       "order of forwards and backwards; gpipe: all forwards, then all backwards; 1f1b: backwards "
       "as "
       "soon as they can start, so that less is kept in memory; interleaved_1f1b: 1f1b with "
       "several "
       "stages on each worker, which shortens fill and drain"},
      {"pipeline.run_ahead", [](C& c) { return &c.pipeline.run_ahead; }, AnyValue{},
       "frozen stages go on to the next micro-batches and steps; false: all workers meet at each "
       "step's end, for comparison"},
      {"pipeline.cuts", [](C& c) { return &c.pipeline.cuts; }, IntRange{1, limits::kLayersMax - 1},
       "first layer of stage 1, 2, ...; empty = found from measured costs"},

      {"freeze.policy", [](C& c) { return &c.freeze.policy; }, Choice{&kPolicyNames},
       "full: never freeze; fixed: the first freeze.fixed_layers from the start; linear: one more "
       "layer each epoch; smartpipe: by gradient statistics; schedule: freeze.schedule"},
      {"freeze.interval_steps", [](C& c) { return &c.freeze.interval_steps; },
       IntRange{0, limits::kStepsMax}, "steps between decisions; 0 = a quarter epoch"},
      {"freeze.statistic", [](C& c) { return &c.freeze.statistic; }, Choice{&kStatisticNames},
       "norm: relative change of the gradient norm; vector: norm of the relative gradient change "
       "(literal); corrected: vector corrected for micro-batch noise"},
      {"freeze.tau", [](C& c) { return &c.freeze.tau; },
       RealRange{.min = 0, .max = 1000, .min_open = true},
       "a layer may freeze while its statistic (eta in decisions.jsonl) is below this"},
      {"freeze.lambda_max", [](C& c) { return &c.freeze.lambda_max; },
       RealRange{.min = 0, .max = 1, .min_open = true},
       "largest share of the trainable layers that one decision freezes"},
      {"freeze.warmup_intervals", [](C& c) { return &c.freeze.warmup_intervals; },
       IntRange{0, limits::kStepsMax},
       "intervals at the start whose statistics freeze nothing; a decision takes effect two "
       "intervals after its evidence, so the first freeze is at least this + 2 intervals in"},
      {"freeze.hits", [](C& c) { return &c.freeze.hits; }, IntRange{1, kHitsMax},
       "intervals in a row that must be below tau"},
      {"freeze.min_trainable", [](C& c) { return &c.freeze.min_trainable; },
       IntRange{1, limits::kLayersMax}, "layers at the end that never freeze"},
      {"freeze.fixed_layers", [](C& c) { return &c.freeze.fixed_layers; },
       IntRange{0, limits::kLayersMax - 1}, "layers frozen by policy fixed"},
      {"freeze.schedule", [](C& c) { return &c.freeze.schedule; }, IntRange{0, limits::kStepsMax},
       "list of [step, frontier] for policy schedule, both ascending; steps are multiples of the "
       "interval"},

      {"rebalance.enabled", [](C& c) { return &c.rebalance.enabled; }, AnyValue{},
       "move layers between stages when that pays"},
      {"rebalance.min_gain", [](C& c) { return &c.rebalance.min_gain; },
       RealRange{.min = 0, .max = 1, .max_open = true},
       "share of the step time that a move must gain at least"},

      {"model.name", [](C& c) { return &c.model.name; }, Choice{&kModelNames}, "model"},
      {"model.weights", [](C& c) { return &c.model.weights; }, AnyValue{},
       "safetensors file to start from; empty = random weights from the seed"},
      {"model.allow_partial", [](C& c) { return &c.model.allow_partial; }, AnyValue{},
       "accept a weights file with missing or extra names"},

      {"data.name", [](C& c) { return &c.data.name; }, Choice{&kDatasetNames}, "dataset"},
      {"data.path", [](C& c) { return &c.data.path; }, AnyValue{},
       "folder of the dataset's files; empty = the dataset's own default"},
      {"data.limit_train", [](C& c) { return &c.data.limit_train; }, IntRange{0, kSamplesMax},
       "use only the first training samples; 0 = all"},
      {"data.limit_test", [](C& c) { return &c.data.limit_test; }, IntRange{0, kSamplesMax},
       "use only the first test samples; 0 = all"},

      {"worker.device", [](C& c) { return &c.worker.device; }, Choice{&kDeviceNames},
       "what workers compute on; cuda: one GPU for each, which needs the CUDA plug-in "
       "(docs/gpu.md); results are comparable only on the same device"},
      {"worker.threads", [](C& c) { return &c.worker.threads; }, IntRange{1, kThreadsMax},
       "compute threads of each worker; results are comparable only at the same number"},
      {"worker.trace", [](C& c) { return &c.worker.trace; }, AnyValue{},
       "record every instruction's start and end, for smartpipe timeline and explain"},

      {"checkpoint.every_steps", [](C& c) { return &c.checkpoint.every_steps; },
       IntRange{0, limits::kStepsMax},
       "steps between checkpoints; 0 = once an epoch; one more follows the last step"},
      {"checkpoint.keep_last", [](C& c) { return &c.checkpoint.keep_last; },
       IntRange{1, kCheckpointsMax},
       "newest complete checkpoints that are kept; older ones are deleted unless they are pinned"},

      {"recovery.enabled", [](C& c) { return &c.recovery.enabled; }, AnyValue{},
       "a worker or a service that is killed is started again and the run goes on from the last "
       "checkpoint; false: the run ends"},
      {"recovery.max_restarts", [](C& c) { return &c.recovery.max_restarts; },
       IntRange{0, kRestartsMax},
       "times that this may happen within an hour; once more ends the run"},

      {"service.address", [](C& c) { return &c.service.address; }, AnyValue{},
       "HOST:PORT where the freeze service listens; empty = a free port of 127.0.0.1"},
      {"parameter_service.address", [](C& c) { return &c.parameter_service.address; }, AnyValue{},
       "HOST:PORT where the parameter service listens; empty = a free port of 127.0.0.1"},

      {"tls.ca", [](C& c) { return &c.tls.ca; }, AnyValue{},
       "PEM file of the authorities that vouch for the run's processes; with tls.cert and tls.key: "
       "they use TLS; empty = plaintext, on loopback only"},
      {"tls.cert", [](C& c) { return &c.tls.cert; }, AnyValue{},
       "PEM file of the certificate that all processes of the run share, all.crt of `smartpipe "
       "certs`"},
      {"tls.key", [](C& c) { return &c.tls.key; }, AnyValue{}, "PEM file of its private key"},
  };
}

// Shortest text that reads back as the same double, and as a TOML float.
std::string RealToToml(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value).ptr;
  std::string text(buffer, end);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

struct ToTomlVisitor {
  std::string operator()(const bool& value) const { return value ? "true" : "false"; }
  std::string operator()(const int64_t& value) const { return absl::StrCat(value); }
  std::string operator()(const double& value) const { return RealToToml(value); }
  std::string operator()(const std::string& value) const { return QuoteToml(value); }
  std::string operator()(const IntList& value) const {
    return absl::StrCat("[", absl::StrJoin(value, ", "), "]");
  }
  std::string operator()(const PairList& value) const {
    return absl::StrCat(
        "[",
        absl::StrJoin(value, ", ",
                      [](std::string* out, const std::pair<int64_t, int64_t>& pair) {
                        absl::StrAppend(out, "[", pair.first, ", ", pair.second, "]");
                      }),
        "]");
  }
};

}  // namespace

const std::vector<KeySpec>& KeyTable() {
  static const auto* const table = new std::vector<KeySpec>(MakeKeyTable());
  return *table;
}

const KeySpec* FindKey(absl::string_view key) {
  for (const KeySpec& spec : KeyTable()) {
    if (spec.key == key) return &spec;
  }
  return nullptr;
}

std::string TypeName(const KeySpec& spec) {
  static constexpr const char* kNames[] = {
      "boolean", "integer", "number", "string", "list of integers", "list of [step, frontier]"};
  return kNames[spec.field.index()];
}

std::string RangeText(const ConfigRange& range) {
  if (const auto* ints = std::get_if<IntRange>(&range)) {
    if (ints->max == INT64_MAX) return absl::StrCat(">= ", ints->min);
    return absl::StrCat(ints->min, " .. ", ints->max);
  }
  if (const auto* real = std::get_if<RealRange>(&range)) {
    return absl::StrCat(real->min_open ? "> " : ">= ", real->min, ", ",
                        real->max_open ? "< " : "<= ", real->max);
  }
  if (const auto* choice = std::get_if<Choice>(&range)) return absl::StrJoin(*choice->names, " | ");
  return "";
}

std::string ValueToToml(const KeySpec& spec, const RunConfig& config) {
  // The accessors only hand out an address; nothing is written through it here.
  auto& fields = const_cast<RunConfig&>(config);
  return std::visit([&](auto field) { return ToTomlVisitor()(*field(fields)); }, spec.field);
}

std::string QuoteToml(absl::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      absl::StrAppendFormat(&out, "\\u%04X", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out + "\"";
}

int64_t NumModelLayers(absl::string_view model) {
  if (model == "convnet") return 7;    // six convolution blocks, head
  if (model == "resnet18") return 10;  // stem, eight blocks, head
  if (model == "blocknet") return 26;  // stem, 24 blocks, head
  return 0;
}

std::vector<ConfigKey> ConfigKeys() {
  const RunConfig defaults;
  std::vector<ConfigKey> keys;
  for (const KeySpec& spec : KeyTable()) {
    keys.push_back(
        {spec.key, TypeName(spec), RangeText(spec.range), ValueToToml(spec, defaults), spec.doc});
  }
  return keys;
}

std::string ToToml(const RunConfig& config) {
  std::string out;
  std::string table;
  for (const KeySpec& spec : KeyTable()) {
    const size_t dot = spec.key.find('.');
    const std::string in_table = dot == std::string::npos ? "" : spec.key.substr(0, dot);
    if (in_table != table) {
      absl::StrAppend(&out, out.empty() ? "[" : "\n[", in_table, "]\n");
      table = in_table;
    }
    const std::string leaf = dot == std::string::npos ? spec.key : spec.key.substr(dot + 1);
    absl::StrAppend(&out, leaf, " = ", ValueToToml(spec, config), "\n");
  }
  return out;
}

}  // namespace smartpipe
