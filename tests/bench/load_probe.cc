// What one freeze service can take: many simulated workers, over as many connections as asked for,
// report as fast as verdicts let them, or at a given rate. The service is another process, with
// real gRPC and SQLite.
//   load_probe --dir DIR [--workers 256] [--connections 8] [--layers 512] [--seconds 60] [--rate
//   2000]
// Prints reports per second, their latencies, CPU and memory of the service, and counts the reports
// on both sides: those answered OK here against those in DIR/decisions.db.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <fstream>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "freeze_service/core/coordinator.h"
#include "freeze_service/rpc/freeze_service_impl.h"
#include "freeze_service/store/decision_store.h"
#include "services/base/clock.h"
#include "services/obs/log.h"
#include "services/rpc/channel.h"
#include "services/rpc/server.h"
#include "smartpipe/v1/freeze_service.grpc.pb.h"

namespace smartpipe {
namespace {

using Clock = std::chrono::steady_clock;

struct Load {
  std::string dir;
  int32_t num_workers = 256;
  int32_t num_layers = 512;
  int32_t num_connections = 0;  // that the workers share; 0 = one each
  double seconds = 60;
  double rate = 0;  // reports per second of all workers together; 0 = as many as there can be
  bool moves = false;
};

// No config of a real model has that many stages; the service itself does not look at it.
RunSettings Settings() { return {.config_toml = "", .num_cores = 0}; }

CoordinatorOptions Options(const Load& load) {
  CoordinatorOptions options;
  options.num_stages = load.num_workers;
  options.num_microbatches = 8;
  options.rebalance_enabled = load.moves;
  options.policy.policy = "smartpipe";
  return options;
}

// ---- The service --------------------------------------------------------------------------------

absl::Status ServeLoad(const Load& load) {
  const SystemClock clock;
  absl::StatusOr<OpenedDecisionStore> opened = OpenDecisionStore(load.dir, Settings());
  if (!opened.ok()) return opened.status();
  absl::StatusOr<std::unique_ptr<Coordinator>> coordinator = Coordinator::Create(Options(load));
  if (!coordinator.ok()) return coordinator.status();
  FreezeServiceImpl::Options options;
  options.run_id = "load";
  options.run_dir = load.dir;
  options.metrics_path = load.dir + "/metrics.jsonl";
  options.costs_path = load.dir + "/costs.json";
  options.resumption.execution = Options(load);
  auto service =
      FreezeServiceImpl::Create(options, *std::move(coordinator), std::move(opened->store), &clock);
  if (!service.ok()) return service.status();
  auto server = StartServer({}, {{FreezeServiceImpl::kName, service->get()}});
  if (!server.ok()) return server.status();
  std::cout << (*server)->port() << std::endl;
  char byte = 0;
  while (read(STDIN_FILENO, &byte, 1) > 0) {  // until the other side goes
  }
  (*service)->Leave();
  (*server)->Shutdown(absl::Seconds(1));
  return (*service)->failure();
}

/// This program again, with --serve; ends when its standard input is closed.
class ServiceProcess {
 public:
  explicit ServiceProcess(std::vector<std::string> argv) {
    int to_child[2], from_child[2];
    if (pipe2(to_child, O_CLOEXEC) != 0 || pipe2(from_child, O_CLOEXEC) != 0) return;
    std::vector<char*> arguments;
    for (std::string& argument : argv) arguments.push_back(argument.data());
    arguments.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(to_child[0], STDIN_FILENO);
      dup2(from_child[1], STDOUT_FILENO);
      execv("/proc/self/exe", arguments.data());
      _exit(127);
    }
    close(to_child[0]);
    close(from_child[1]);
    input_ = to_child[1];
    FILE* output = fdopen(from_child[0], "r");
    if (output == nullptr || fscanf(output, "%d", &port_) != 1) port_ = 0;
  }
  int port() const { return port_; }
  bool Stop() {
    close(input_);
    int status = 0;
    return waitpid(pid_, &status, 0) == pid_ && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }
  double ResidentMb() const {
    std::ifstream file(absl::StrCat("/proc/", pid_, "/statm"));
    int64_t total = 0, resident = 0;
    file >> total >> resident;
    return static_cast<double>(resident * sysconf(_SC_PAGESIZE)) / 1e6;
  }
  double CpuSeconds() const {
    std::ifstream file(absl::StrCat("/proc/", pid_, "/stat"));
    std::string word;
    double ticks = 0;
    for (int field = 1; file >> word; ++field) {
      if (field == 14 || field == 15) ticks += std::stod(word);
    }
    return ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
  }

 private:
  pid_t pid_ = -1;
  int input_ = -1, port_ = 0;
};

// ---- The workers --------------------------------------------------------------------------------

/// One simulated worker: reports an interval when its verdict is there, the report before it is
/// answered and its time has come.  Threads: gRPC's, and one that calls Tick.
class Worker final : public grpc::ClientReadReactor<v1::JoinResponse> {
 public:
  Worker(const Load& load, int index, const std::shared_ptr<grpc::Channel>& channel)
      : load_(load),
        id_(absl::StrFormat("w%03d", index)),
        stub_(v1::FreezeService::NewStub(channel)),
        random_(static_cast<uint64_t>(index)) {
    request_.set_worker_id(id_);
    request_.set_incarnation(1);
    request_.set_address("load");
    stub_->async()->Join(&context_, &request_, this);
    ReadNext();
    StartCall();
    stub_->async()->ReportInterval(&reports_context_, &reports_);
    reports_.StartRead(&response_);
    reports_.AddHold();  // writes come from verdicts
    reports_.StartCall();
  }

  /// Call behind the Welcome.
  absl::Status Announce() {
    v1::AnnounceLayersRequest request;
    request.set_worker_id(id_);
    request.set_incarnation(1);
    for (int layer = 0; layer < load_.num_layers; ++layer) {
      v1::Layer& added = *request.add_layers();
      added.set_name(absl::StrCat("block", layer));
      FillCost(*added.mutable_cost());
    }
    request.set_num_steps(100'000'000);
    request.set_steps_per_epoch(1000);
    request.set_interval_steps(1);
    v1::AnnounceLayersResponse response;
    grpc::ClientContext context;
    const grpc::Status status = stub_->AnnounceLayers(&context, request, &response);
    return status.ok() ? absl::OkStatus() : absl::InternalError(status.error_message());
  }
  void WaitWelcome() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&welcomed_));
  }
  /// Its reports are due `first` and then each `period`.
  void Start(Clock::time_point first, Clock::duration period) {
    absl::MutexLock lock(&mutex_);
    due_ = first;
    period_ = period;
    started_ = true;
    MaybeReport();
  }
  /// Reports if it is due.
  void Tick() {
    absl::MutexLock lock(&mutex_);
    MaybeReport();
  }
  /// No new reports; waits for the answer to the last one.
  void Stop() {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
    mutex_.Await(absl::Condition(
        +[](bool* reporting) { return !*reporting; }, &reporting_));
  }
  void Leave() {
    reports_.StartWritesDone();
    reports_.RemoveHold();
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&reports_done_));
    }
    context_.TryCancel();
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&done_));
  }
  int64_t num_answered() const {
    absl::MutexLock lock(&mutex_);
    return static_cast<int64_t>(latencies_.size());
  }
  std::vector<float> latencies() const {
    absl::MutexLock lock(&mutex_);
    return latencies_;
  }
  std::string error() const {
    absl::MutexLock lock(&mutex_);
    return error_;
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    absl::MutexLock lock(&mutex_);
    if (message_->has_welcome()) welcomed_ = true;
    if (message_->has_assignment()) rank_ = message_->assignment().rank();
    if (message_->has_verdict()) {
      const v1::Verdict& verdict = message_->verdict();
      due_verdicts_.push_back(
          {.boundary = verdict.boundary(),
           .plan_epoch = verdict.plan_epoch(),
           .frontier = verdict.frontier(),
           .first = rank_ == 0 ? 0 : verdict.cuts(rank_ - 1),
           .end = rank_ == load_.num_workers - 1 ? load_.num_layers : verdict.cuts(rank_)});
      MaybeReport();
    }
    ReadNext();
  }
  void OnDone(const grpc::Status&) override {
    absl::MutexLock lock(&mutex_);
    done_ = true;
  }

 private:
  /// What a worker needs of a verdict; its own layers are [first, end).
  struct Due {
    int64_t boundary = 0, plan_epoch = 0;
    int32_t frontier = 0, first = 0, end = 0;
  };

  /// A verdict names all stages: an arena keeps the generator from costing more than the service.
  void ReadNext() {
    arena_.Reset();
    message_ = google::protobuf::Arena::CreateMessage<v1::JoinResponse>(&arena_);
    StartRead(message_);
  }
  void FillCost(v1::LayerCost& cost) {
    cost.set_forward_s(1e-3);
    cost.set_input_grad_s(1e-3);
    cost.set_weight_grad_s(1e-3);
    cost.set_optimize_s(1e-4);
    cost.set_output_bytes(1 << 20);
    cost.set_param_bytes(1 << 20);
    cost.set_state_bytes(3 << 20);
    cost.set_activation_bytes(1 << 20);
  }

  void MaybeReport() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!started_ || reporting_ || writing_ || stopped_ || due_verdicts_.empty()) return;
    const Clock::time_point now = Clock::now();
    if (now < due_) return;
    due_ = std::max(due_ + period_, now - period_);
    const Due verdict = due_verdicts_.front();
    due_verdicts_.pop_front();
    report_.Clear();
    report_.set_worker_id(id_);
    report_.set_generation(1);
    report_.set_plan_epoch(verdict.plan_epoch);
    report_.set_interval(verdict.boundary);
    report_.set_step_s(0.05);
    std::uniform_real_distribution<double> noise(0.5, 1.5);
    for (int layer = verdict.first; layer < verdict.end; ++layer) {
      v1::LayerReport& added = *report_.add_layers();
      added.set_layer(layer);
      added.set_frozen(layer < verdict.frontier);
      added.set_num_microbatches(8);
      if (!added.frozen()) {
        added.set_has_previous(verdict.boundary > 0);
        added.set_grad_norm_l2(noise(random_));
        if (added.has_previous()) {
          added.set_previous_grad_norm_l2(noise(random_));
          added.set_grad_difference_norm_l2(noise(random_));
        }
      }
      FillCost(*added.mutable_cost());
      added.mutable_cost()->set_forward_s(1e-3 * noise(random_));
      if (added.frozen()) {
        added.mutable_cost()->set_input_grad_s(-1);
        added.mutable_cost()->set_weight_grad_s(-1);
        added.mutable_cost()->set_optimize_s(-1);
      }
    }
    reporting_ = writing_ = true;
    sent_ = now;
    reports_.StartWrite(&report_);
  }

  /// The worker's stream of reports.
  class Reports final
      : public grpc::ClientBidiReactor<v1::ReportIntervalRequest, v1::ReportIntervalResponse> {
   public:
    explicit Reports(Worker* worker) : worker_(*worker) {}
    void OnWriteDone(bool) override {
      absl::MutexLock lock(&worker_.mutex_);
      worker_.writing_ = false;
      worker_.MaybeReport();
    }
    void OnReadDone(bool ok) override {
      if (!ok) return;
      worker_.OnAnswer();
      StartRead(&worker_.response_);
    }
    void OnDone(const grpc::Status& status) override { worker_.OnReportsDone(status); }

   private:
    Worker& worker_;
  };

  void OnAnswer() {
    const std::chrono::duration<float> took = Clock::now() - sent_;
    absl::MutexLock lock(&mutex_);
    reporting_ = false;
    latencies_.push_back(took.count());
    MaybeReport();
  }

  void OnReportsDone(const grpc::Status& status) {
    absl::MutexLock lock(&mutex_);
    reporting_ = false;
    reports_done_ = true;
    if (!status.ok() && error_.empty()) error_ = status.error_message();
  }

  const Load& load_;
  const std::string id_;
  const std::unique_ptr<v1::FreezeService::Stub> stub_;
  grpc::ClientContext context_;
  v1::JoinRequest request_;
  google::protobuf::Arena arena_;
  v1::JoinResponse* message_ = nullptr;
  grpc::ClientContext reports_context_;
  Reports reports_{this};
  v1::ReportIntervalRequest report_;
  v1::ReportIntervalResponse response_;
  Clock::time_point sent_;

  mutable absl::Mutex mutex_;
  std::mt19937_64 random_ ABSL_GUARDED_BY(mutex_);
  int32_t rank_ ABSL_GUARDED_BY(mutex_) = -1;
  Clock::time_point due_ ABSL_GUARDED_BY(mutex_);
  Clock::duration period_ ABSL_GUARDED_BY(mutex_) = {};
  bool started_ ABSL_GUARDED_BY(mutex_) = false, welcomed_ ABSL_GUARDED_BY(mutex_) = false,
                reporting_ ABSL_GUARDED_BY(mutex_) = false,
                writing_ ABSL_GUARDED_BY(mutex_) = false,  // a report is not on its way yet
      stopped_ ABSL_GUARDED_BY(mutex_) = false, done_ ABSL_GUARDED_BY(mutex_) = false,
                reports_done_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<Due> due_verdicts_ ABSL_GUARDED_BY(mutex_);
  std::vector<float> latencies_ ABSL_GUARDED_BY(mutex_);  // seconds, of reports answered OK
  std::string error_ ABSL_GUARDED_BY(mutex_);
};

absl::StatusOr<int64_t> RecordedReports(const std::string& dir, int64_t* num_verdicts) {
  absl::StatusOr<RecordedRun> run = OpenRecordedRun(dir);
  if (!run.ok()) return run.status();
  if (!run->damage.empty()) return absl::DataLossError(run->damage);
  int64_t num_reports = 0;
  const absl::Status read = run->store->Read(0, [&](const EventRecord& record) {
    num_reports += std::holds_alternative<IntervalReported>(record.event) ? 1 : 0;
    for (const Decision& decision : record.decisions) {
      *num_verdicts += std::holds_alternative<Verdict>(decision) ? 1 : 0;
    }
    return absl::OkStatus();
  });
  if (!read.ok()) return read;
  return num_reports;
}

int Run(const Load& load, std::vector<std::string> serve) {
  ServiceProcess service(std::move(serve));
  if (service.port() == 0) {
    std::cerr << "the service did not start\n";
    return 1;
  }
  const int32_t num_connections = load.num_connections > 0
                                      ? std::min(load.num_connections, load.num_workers)
                                      : load.num_workers;
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  for (int i = 0; i < num_connections; ++i) {
    channels.push_back(MakeChannel(
        {.address = absl::StrCat("127.0.0.1:", service.port()), .keepalive = {}, .tls = {}}));
  }
  std::vector<std::unique_ptr<Worker>> workers;
  for (int i = 0; i < load.num_workers; ++i)
    workers.push_back(std::make_unique<Worker>(load, i, channels[i % num_connections]));
  for (const auto& worker : workers) worker->WaitWelcome();
  for (const auto& worker : workers) {
    if (const absl::Status status = worker->Announce(); !status.ok()) {
      std::cerr << status << "\n";
      return 1;
    }
  }
  const auto answered = [&workers] {
    int64_t sum = 0;
    for (const auto& worker : workers) sum += worker->num_answered();
    return sum;
  };
  const Clock::duration period =
      load.rate > 0 ? std::chrono::duration_cast<Clock::duration>(
                          std::chrono::duration<double>(load.num_workers / load.rate))
                    : Clock::duration::zero();
  const Clock::time_point first = Clock::now();
  for (int i = 0; i < load.num_workers; ++i)
    workers[i]->Start(first + i * period / load.num_workers, period);
  const double cpu_before = service.CpuSeconds();
  const absl::Time start = absl::Now();
  int64_t before = answered();
  std::cout << "second  reports/s  service MB\n";
  const double period_s = std::min(10.0, load.seconds);
  absl::Time last = start;
  while (absl::Now() < start + absl::Seconds(load.seconds)) {
    while (absl::Now() < last + absl::Seconds(period_s)) {
      absl::SleepFor(absl::Milliseconds(load.rate > 0 ? 1 : 100));
      if (load.rate <= 0) continue;
      for (const auto& worker : workers) worker->Tick();
    }
    const absl::Time now = absl::Now();
    const int64_t sum = answered();
    std::cout << absl::StreamFormat(
                     "%6.0f  %9.0f  %10.1f", absl::ToDoubleSeconds(now - start),
                     static_cast<double>(sum - before) / absl::ToDoubleSeconds(now - last),
                     service.ResidentMb())
              << std::endl;
    before = sum;
    last = now;
  }
  for (const auto& worker : workers) worker->Stop();
  const double took_s = absl::ToDoubleSeconds(absl::Now() - start);
  const double cpu_s = service.CpuSeconds() - cpu_before;
  std::vector<float> latencies;
  for (const auto& worker : workers) {
    const std::vector<float> more = worker->latencies();
    latencies.insert(latencies.end(), more.begin(), more.end());
    if (!worker->error().empty()) std::cout << "refused: " << worker->error() << "\n";
  }
  std::sort(latencies.begin(), latencies.end());
  const auto at = [&latencies](double share) {
    const auto last_index = static_cast<double>(latencies.size() - 1);
    return latencies.empty() ? 0.0 : 1e3 * latencies[static_cast<size_t>(share * last_index)];
  };
  for (const auto& worker : workers) worker->Leave();
  const bool ended_well = service.Stop();
  int64_t num_verdicts = 0;
  const absl::StatusOr<int64_t> recorded = RecordedReports(load.dir, &num_verdicts);
  if (!recorded.ok()) std::cerr << recorded.status() << "\n";
  const auto num_answered = static_cast<int64_t>(latencies.size());
  std::cout << absl::StreamFormat(
      "%d workers, %d layers, %.1f s: %.0f reports/s; ms: median %.2f, p99 %.2f, most %.2f; the "
      "service used %.2f cores; %d verdicts\n%d reports answered, %d recorded: %s\n",
      load.num_workers, load.num_layers, took_s, static_cast<double>(num_answered) / took_s,
      at(0.5), at(0.99), at(1), cpu_s / took_s, num_verdicts, num_answered, recorded.value_or(-1),
      recorded.value_or(-1) == num_answered ? "none lost" : "THEY DIFFER");
  return recorded.value_or(-1) == num_answered && ended_well ? 0 : 1;
}

}  // namespace
}  // namespace smartpipe

int main(int argc, char** argv) {
  smartpipe::Load load;
  bool serve = false;
  CLI::App app("Loads one freeze service with many simulated workers.", "load_probe");
  app.add_option("--dir", load.dir, "existing, empty folder for the run")->required();
  app.add_option("--workers", load.num_workers)->check(CLI::Range(1, 256))->capture_default_str();
  app.add_option("--layers", load.num_layers)->check(CLI::Range(1, 4096))->capture_default_str();
  app.add_option("--connections", load.num_connections,
                 "that the workers share; 0 = each has its own")
      ->check(CLI::Range(0, 256))
      ->capture_default_str();
  app.add_option("--seconds", load.seconds)->check(CLI::Range(1, 3600))->capture_default_str();
  app.add_option("--rate", load.rate, "reports per second, of all workers together; 0 = no limit")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  app.add_flag("--moves", load.moves, "with rebalancing");
  app.add_flag("--serve", serve, "be the service");
  CLI11_PARSE(app, argc, argv);
  const absl::Status logging = smartpipe::InitLogging(
      {.process = "load_probe", .level = serve ? "error" : "warning", .file = ""});
  if (!logging.ok()) std::cerr << logging << "\n";
  if (serve) {
    const absl::Status status = smartpipe::ServeLoad(load);
    if (!status.ok()) std::cerr << status << "\n";
    return status.ok() ? 0 : 1;
  }
  std::vector<std::string> again(argv, argv + argc);
  again.push_back("--serve");
  return smartpipe::Run(load, std::move(again));
}
