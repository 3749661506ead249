#include "worker/stage_worker.h"

#include <algorithm>
#include <memory>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "services/base/status_macros.h"
#include "services/config/run_config.h"
#include "services/obs/log.h"
#include "services/obs/trace_file.h"
#include "services/parameter_service/layer_store.h"
#include "services/rpc/address.h"
#include "services/rpc/channel.h"
#include "worker/built_model.h"
#include "worker/catch_exceptions.h"
#include "worker/comm/device_plugin.h"
#include "worker/comm/transport.h"
#include "worker/control/checkpoint_reader.h"
#include "worker/control/checkpoint_uploader.h"
#include "worker/control/control_session.h"
#include "worker/data/dataset.h"
#include "worker/engine/compute_settings.h"
#include "worker/engine/profile.h"
#include "worker/engine/trainer.h"
#include "worker/model/layer_state.h"
#include "worker/watchdog.h"

namespace smartpipe {
namespace {

constexpr absl::Duration kTransferTimeoutMin = absl::Minutes(10);
// For what is still to be stored of the last checkpoint.
constexpr absl::Duration kUploadPatience = absl::Minutes(2);
// A call that was refused may be the first sign of a generation that ends.
constexpr absl::Duration kEchoPatience = absl::Milliseconds(500);
constexpr char kOutOfMemoryCure[] =
    "use a smaller train.batch_size, more train.microbatches or more stages";

/// What a worker builds from the config before it knows its stage.
struct Workbench {
  RunConfig config;
  RunShape shape;
  UsedDevice device;
  std::unique_ptr<Dataset> dataset;
  std::unique_ptr<ModelSpec> model;
  EngineContext context;
  std::vector<LayerDescription> layers;
};

/// Every name of the weights file must belong to the model, unless model.allow_partial, and every
/// number must be finite.
absl::Status CheckStartWeights(const RunConfig& config,
                               const std::vector<std::unique_ptr<Layer>>& layers,
                               const std::vector<NamedTensor>& weights) {
  std::set<std::string> known;
  for (const auto& layer : layers) {
    int64_t found = 0;
    SP_RETURN_IF_ERROR(LoadIntoLayer(weights, config.model.allow_partial, *layer, found));
    for (const NamedTensor& tensor : layer->parameters()) known.insert(tensor.name);
    for (const NamedTensor& tensor : layer->buffers()) known.insert(tensor.name);
  }
  for (const NamedTensor& tensor : weights) {
    SP_RETURN_IF_ERROR(CheckFinite(tensor));
    if (config.model.allow_partial || known.contains(tensor.name)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("it holds \"", tensor.name, "\", which model \"", config.model.name,
                     "\" does not have; set model.allow_partial = true to ignore it"));
  }
  return absl::OkStatus();
}

absl::Status BuildWorkbench(const StageWorkerOptions& options, const RunWelcome& welcome,
                            Workbench& bench) {
  SP_ASSIGN_OR_RETURN(bench.config, ParseRunConfig(welcome.config_toml, "the run's config"));
  const RunConfig& config = bench.config;
  // Before anything asks Torch what there is: it asks only once.
  SP_ASSIGN_OR_RETURN(bench.device, UseDevice(config.worker.device, options.device_index));
  const at::Device device(bench.device.name);
  if (bench.device.plugin != nullptr) {
    LogInfo("computes on ", bench.device.name, ", ", bench.device.info.name, ", ",
            bench.device.info.memory_bytes >> 30, " GiB");
  }
  SetUpComputing(config.worker.threads, device);
  SP_ASSIGN_OR_RETURN(BuiltModel built, BuildModel(config));
  bench.dataset = std::move(built.dataset);
  bench.model = std::move(built.model);
  bench.context = built.context;
  bench.context.device = device;
  SP_ASSIGN_OR_RETURN(bench.shape, MakeRunShape(config, bench.dataset->size(Split::kTrain)));
  if (!config.model.weights.empty()) {
    SP_ASSIGN_OR_RETURN(bench.context.start_weights, ReadSafetensors(config.model.weights));
    SP_RETURN_IF_ERROR(
        Annotate(CheckStartWeights(config, built.layers, bench.context.start_weights),
                 config.model.weights));
  }
  SP_ASSIGN_OR_RETURN(const std::vector<LayerCost> costs, ProfileLayers(bench.context));
  for (LayerIndex layer(0); layer.value() < bench.model->num_layers(); ++layer) {
    bench.layers.push_back({.name = bench.model->layer_name(layer), .cost = costs[layer.value()]});
  }
  return absl::OkStatus();
}

/// More threads change the bytes of a run, so it is for the user to say.
void HintAtIdleCores(const RunConfig& config) {
  if (config.worker.device != "cpu") return;
  const int64_t num_cores = std::thread::hardware_concurrency();
  const int64_t num_busy = config.pipeline.num_workers() * config.worker.threads;
  if (num_busy >= num_cores) return;
  LogInfo("hint: ", config.pipeline.num_workers(),
          " workers with worker.threads = ", config.worker.threads, " keep ", num_busy, " of ",
          num_cores,
          " cores busy; more threads are faster and give other, equally reproducible bytes");
}

/// The plan must deal out the stages in turn, as the engine takes them.
absl::Status CheckPlacement(const WorkerAssignment& assignment) {
  const std::vector<int32_t> ranks =
      DealStages(assignment.plan.num_stages(), static_cast<int32_t>(assignment.members.size()));
  for (size_t stage = 0; stage < ranks.size(); ++stage) {
    if (assignment.plan.placement[stage] == std::vector{assignment.members[ranks[stage]]}) continue;
    return absl::InternalError(absl::StrCat("the plan does not place stage ", stage,
                                            " on the worker of rank ", ranks[stage]));
  }
  return absl::OkStatus();
}

/// Null, with a warning, when the file cannot be made: a trace never fails a run.
std::unique_ptr<TraceWriter> MakeTrace(const RunWelcome& welcome, const WorkerId& worker,
                                       const Workbench& bench, const WorkerAssignment& assignment) {
  if (!bench.config.worker.trace) return nullptr;
  absl::StatusOr<std::unique_ptr<TraceWriter>> trace = TraceWriter::Create(
      absl::StrCat(welcome.run_dir, "/trace-", worker.value(), ".jsonl"),
      {.worker = worker.value(),
       .rank = assignment.rank.value(),
       .num_ranks = static_cast<int32_t>(assignment.members.size()),
       .generation = assignment.generation.value(),
       .num_layers = bench.model->num_layers(),
       .num_microbatches = static_cast<int32_t>(bench.config.train.microbatches),
       .interval_steps = bench.shape.interval_steps,
       .batch_size = bench.config.train.batch_size,
       .run_ahead = bench.config.pipeline.run_ahead,
       .num_cores = welcome.num_cores});
  if (trace.ok()) return *std::move(trace);
  LogWarning("no trace of this run: ", trace.status().message());
  return nullptr;
}

/// What a run's checkpoints need; none if it takes none.
struct Checkpoints {
  std::shared_ptr<grpc::Channel> channel;  // null = none are taken
  std::shared_ptr<CheckpointReader> reader;

  Checkpoints(const RunWelcome& welcome, const TlsFiles& tls) {
    if (welcome.parameter_service.empty()) return;
    channel = MakeChannel({.address = welcome.parameter_service, .keepalive = {}, .tls = tls});
    reader = std::make_shared<CheckpointReader>(channel, ToRunId(welcome.run_id));
  }
  absl::StatusOr<std::vector<Step>> ListSteps() const {
    if (reader == nullptr) return std::vector<Step>();
    return reader->ListSteps();
  }
};

/// Null when the run takes no checkpoints.
std::shared_ptr<CheckpointUploader> MakeUploader(const Checkpoints& checkpoints,
                                                 const RunWelcome& welcome, const Workbench& bench,
                                                 const WorkerAssignment& assignment,
                                                 ControlSession& session) {
  if (checkpoints.channel == nullptr) return nullptr;
  return std::make_shared<CheckpointUploader>(
      CheckpointUploader::Options{.channel = checkpoints.channel,
                                  .run = ToRunId(welcome.run_id),
                                  .generation = assignment.generation,
                                  .num_layers = bench.model->num_layers(),
                                  .keep_last = bench.config.checkpoint.keep_last,
                                  .wait_reported = [&session] { return session.WaitReported(); }});
}

Watchdog::Options WatchdogOptions(const StageWorkerOptions& options, const RunWelcome& welcome,
                                  const RunConfig& config, const WorkerAssignment& assignment,
                                  const std::shared_ptr<const Position>& position,
                                  ControlSession& session,
                                  std::function<void(const absl::Status&)> abort) {
  return {.patience = absl::Seconds(config.watchdog_s),
          .position = position,
          .dump_path = absl::StrCat(welcome.run_dir, "/dumps/", options.worker.value(),
                                    "-generation-", assignment.generation.value(), ".txt"),
          .may_stand_still = [&session] { return session.is_paused(); },
          .describe =
              [position, assignment, &session, worker = options.worker] {
                const int peer = position->peer();
                return absl::StrCat(
                    "worker ", worker.value(), ", generation ", assignment.generation.value(),
                    ", rank ", assignment.rank.value(), " of ", assignment.members.size(), "\n",
                    position->Text(), "\n",
                    peer < 0 ? ""
                             : absl::StrCat("neighbour of that instruction: rank ", peer, " (",
                                            assignment.members[peer].value(), ")\n"),
                    "plan ", assignment.plan.plan_epoch.value(),
                    " at the generation's start, cuts ",
                    absl::StrJoin(assignment.plan.cuts, " ", absl::StreamFormatter()), "\n",
                    session.DescribeQueues());
              },
          .on_stuck = std::move(abort)};
}

/// Asked for anew by each generation: a network that was cut off may come back with another one.
absl::StatusOr<std::string> BindAddress(const StageWorkerOptions& options) {
  if (options.bind_address != "auto") return options.bind_address;
  SP_ASSIGN_OR_RETURN(const HostPort service, ParseHostPort(options.service_address));
  absl::StatusOr<std::string> address = SourceAddressTo(service);
  if (!address.ok()) return Annotate(address.status(), "--bind auto");
  return address;
}

/// One generation, from the assignment to this worker's last step.
absl::StatusOr<WorkerResult> RunGeneration(const StageWorkerOptions& options,
                                           const RunWelcome& welcome, Workbench& bench,
                                           const Checkpoints& checkpoints,
                                           ControlSession& session) {
  SP_ASSIGN_OR_RETURN(const std::vector<Step> steps, checkpoints.ListSteps());
  SP_RETURN_IF_ERROR(session.AnnounceLayers(bench.layers, bench.shape, steps));
  SP_ASSIGN_OR_RETURN(const WorkerAssignment assignment, session.WaitAssignment());
  SP_RETURN_IF_ERROR(CheckPlacement(assignment));
  if (assignment.rank == Rank(0)) HintAtIdleCores(bench.config);
  LogInfo("generation ", assignment.generation.value(), ": rank ", assignment.rank.value(), " of ",
          assignment.members.size(), ", stages ",
          FormatCuts(assignment.plan.cuts, bench.model->num_layers()), ", from step ",
          assignment.first_step.value());
  std::vector<std::string> member_names;
  for (const WorkerId& member : assignment.members) member_names.push_back(member.value());
  SP_ASSIGN_OR_RETURN(const std::string bind_address, BindAddress(options));
  // Nobody's patience for a verdict may outlast his neighbours' patience for him.
  const absl::Duration decision_timeout = absl::Seconds(bench.config.decision_timeout_s);
  SP_ASSIGN_OR_RETURN(
      const std::shared_ptr<Transport> transport,
      MakeTransport(bench.device,
                    {.rank = assignment.rank,
                     .size = static_cast<int32_t>(assignment.members.size()),
                     .member_names = member_names,
                     .store = session.MakeKeyValueStore(assignment.generation),
                     .transfer_timeout = std::max(kTransferTimeoutMin, 2 * decision_timeout),
                     .bind_address = bind_address}));
  const std::shared_ptr<CheckpointUploader> uploader =
      MakeUploader(checkpoints, welcome, bench, assignment, session);
  const auto position = std::make_shared<Position>();
  const auto abort = [transport, uploader](const absl::Status& why) {
    transport->Abort(why);  // frees the compute thread from whatever it waits for
    if (uploader != nullptr) uploader->Cancel();
  };
  const auto watchdog = std::make_shared<Watchdog>(
      WatchdogOptions(options, welcome, bench.config, assignment, position, session, abort));
  // Held by this function only: its end means that the compute thread has left.
  session.OnEnd([abort, weak = std::weak_ptr<Watchdog>(watchdog)](const absl::Status& why) {
    if (why.ok()) return;
    abort(why);
    if (const std::shared_ptr<Watchdog> dog = weak.lock()) dog->Leaving(why);
  });
  bench.context.transport = transport.get();
  bench.context.position = position.get();
  const std::shared_ptr<TraceWriter> trace = MakeTrace(welcome, options.worker, bench, assignment);
  bench.context.trace = trace.get();
  if (trace != nullptr) {
    session.OnClock([trace](const ClockReading& reading) { trace->Add(reading); });
  }
  SP_ASSIGN_OR_RETURN(WorkerResult result,
                      Train({.context = bench.context,
                             .shape = bench.shape,
                             .assignment = assignment,
                             .weights_path = absl::StrCat(welcome.run_dir, "/model.safetensors"),
                             .checkpoints = uploader.get(),
                             .source = checkpoints.reader.get()},
                            session));
  if (uploader != nullptr) {
    const CheckpointBytes bytes = uploader->Finish(kUploadPatience);
    result.checkpoint_bytes_written = bytes.written;
    result.checkpoint_bytes_shared = bytes.shared;
  }
  return result;
}

/// Whether another generation may do better.
bool IsOutsideFault(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsAborted(status) || absl::IsCancelled(status) ||
         absl::IsDeadlineExceeded(status) || absl::IsDataLoss(status);
}

/// Generation after generation, until the run is over.
absl::Status RunSession(const StageWorkerOptions& options, ControlSession& session) {
  const absl::StatusOr<RunWelcome> welcomed = session.WaitWelcome();
  if (!welcomed.ok() && session.run_end() != RunEnd::kOpen)
    return Annotate(welcomed.status(), "there is nothing to do");
  SP_ASSIGN_OR_RETURN(const RunWelcome welcome, welcomed);
  Workbench bench;
  SP_RETURN_IF_ERROR(BuildWorkbench(options, welcome, bench));
  session.set_decision_timeout(absl::Seconds(bench.config.decision_timeout_s));
  const Checkpoints checkpoints(welcome, options.tls);
  while (true) {
    const absl::StatusOr<WorkerResult> result =
        RunGeneration(options, welcome, bench, checkpoints, session);
    if (result.ok()) {
      const absl::Status finished = session.Finish(*result);
      if (finished.ok() || !session.generation_over()) return finished;
    } else if (session.WaitEnd(absl::ZeroDuration()).ok()) {
      return absl::OkStatus();  // this worker's part was done by the one that it replaces
    } else if (session.generation_over(kEchoPatience)) {
      LogInfo("left the generation: ", result.status().message());
    } else if (IsOutsideFault(result.status())) {
      SP_RETURN_IF_ERROR(session.LeaveGeneration(result.status()));
    } else {
      return result.status();
    }
  }
}

}  // namespace

absl::Status RunStageWorker(const StageWorkerOptions& options, WorkerEnd& end) {
  SP_ASSIGN_OR_RETURN(const std::unique_ptr<ControlSession> session,
                      ControlSession::Start({.service_address = options.service_address,
                                             .worker = options.worker,
                                             .tls = options.tls}));
  const absl::Status ended =
      CatchExceptions(kOutOfMemoryCure, [&] { return RunSession(options, *session); });
  const RunEnd run_end = session->run_end();
  if (!ended.ok() && (!IsOutsideFault(ended) || run_end == RunEnd::kOpen)) {
    session->Fail(ended);
    return ended;
  }
  end = run_end == RunEnd::kFailed ? WorkerEnd::kRunFailed : WorkerEnd::kDone;
  if (end == WorkerEnd::kRunFailed) {
    // Its own part may be done.
    const absl::Status why = ended.ok() ? session->WaitEnd(absl::ZeroDuration()) : ended;
    LogError(why.message(), "; starting this worker again mends nothing, --resume=auto of the ",
             "freeze service opens the run again");
  } else if (!ended.ok()) {
    LogInfo(ended.message());
  }
  return absl::OkStatus();
}

}  // namespace smartpipe
