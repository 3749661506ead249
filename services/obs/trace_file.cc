#include "services/obs/trace_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <ctime>
#include <mutex>
#include <thread>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "services/obs/log.h"

namespace smartpipe {
namespace {

using Json = nlohmann::ordered_json;
using Line = std::variant<TracePlan, TraceStep, TraceSpan, ClockReading>;

// A killed process loses at most this much: what is written survives it in the system's cache.
constexpr std::chrono::milliseconds kWriteEvery{500};
// Left free below the file's limit for the last line, which says how many are missing.
constexpr int64_t kLastLineBytes = 64;
constexpr mode_t kFileMode = 0644;

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void AppendQuoted(std::string* out, const std::string& text) {
  const bool plain = std::all_of(text.begin(), text.end(), [](char c) {
    return c >= ' ' && c <= '~' && c != '"' && c != '\\';
  });
  if (plain) {
    absl::StrAppend(out, "\"", text, "\"");
  } else {
    out->append(Dump(text));
  }
}

std::string HeaderLine(const TraceHeader& header) {
  return Dump({{"trace", 1},
               {"worker", header.worker},
               {"rank", header.rank},
               {"num_ranks", header.num_ranks},
               {"generation", header.generation},
               {"num_layers", header.num_layers},
               {"num_microbatches", header.num_microbatches},
               {"interval_steps", header.interval_steps},
               {"batch_size", header.batch_size},
               {"run_ahead", header.run_ahead},
               {"num_cores", header.num_cores}}) +
         "\n";
}

void AppendLine(std::string* out, const TracePlan& plan) {
  const Json json = {{"step", plan.step},
                     {"plan_epoch", plan.plan_epoch},
                     {"frontier", plan.frontier},
                     {"cuts", plan.cuts},
                     {"stage_to_rank", plan.stage_to_rank},
                     {"credits", plan.credits},
                     {"schedule", plan.schedule}};
  absl::StrAppend(out, R"({"plan": )", Dump(json), "}\n");
}

// To the nearest microsecond, so that a mean of many has no bias.
int64_t MicrosAfter(int64_t start_ns, int64_t ns) {
  const int64_t after_ns = ns - start_ns;
  return (after_ns + (after_ns < 0 ? -500 : 500)) / 1000;
}

void AppendLine(std::string* out, const TraceStep& step) {
  const int64_t start_ns = step.events.empty() ? 0 : step.events.front().start_ns;
  absl::StrAppend(out, R"({"step": )", step.step, R"(, "t_ns": )", start_ns, R"(, "events": [)");
  const char* separator = "";
  for (const TraceEvent& event : step.events) {
    out->append(separator);
    AppendQuoted(out, event.name);
    absl::StrAppend(out, ",", MicrosAfter(start_ns, event.start_ns), ",",
                    MicrosAfter(start_ns, event.end_ns));
    separator = ",";
  }
  out->append("]}\n");
}

void AppendLine(std::string* out, const TraceSpan& span) {
  out->append(R"({"span": )");
  AppendQuoted(out, span.name);
  absl::StrAppend(out, R"(, "step": )", span.step, R"(, "ns": [)", span.start_ns, ", ", span.end_ns,
                  "]}\n");
}

void AppendLine(std::string* out, const ClockReading& reading) {
  absl::StrAppend(out, R"({"clock": [)", reading.local_ns, ", ", reading.offset_ns, ", ",
                  reading.error_ns, "]}\n");
}

}  // namespace

int64_t MonotonicNs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

struct TraceWriter::Impl {
  Impl(int fd_in, const std::string& path_in, const TraceHeader& header)
      : fd(fd_in), path(path_in), pending(HeaderLine(header)) {}
  ~Impl() {
    Close();
    close(fd);
  }

  void Add(Line line) {
    std::lock_guard<std::mutex> lock(mutex);
    if (closing) return;
    if (queue.size() >= static_cast<size_t>(kQueuedMax)) {
      ++num_refused;
      return;
    }
    queue.push_back(std::move(line));
    // Otherwise the writer comes by on its own: it should not run beside every step.
    if (queue.size() == static_cast<size_t>(kQueuedMax) / 2) wake.notify_one();
  }

  void Close() {
    {
      std::lock_guard<std::mutex> lock(mutex);
      closing = true;
    }
    wake.notify_one();
    std::call_once(joined, [this] { thread.join(); });
  }

  void Start() {
    thread = std::thread([this] { WriteLoop(); });
  }

 private:
  void WriteLoop() {
    WritePending();  // the header
    std::vector<Line> lines;
    for (bool last = false; !last;) {
      int64_t num_refused_now = 0;
      {
        std::unique_lock<std::mutex> lock(mutex);
        wake.wait_for(lock, kWriteEvery, [this] {
          return closing || queue.size() >= static_cast<size_t>(kQueuedMax) / 2;
        });
        last = closing;
        lines.swap(queue);
        num_refused_now = num_refused;
      }
      for (const Line& line : lines) AppendIfRoom(line);
      lines.clear();
      if (last && num_refused_now + num_cut_off > 0)
        absl::StrAppend(&pending, R"({"dropped": )", num_refused_now + num_cut_off, "}\n");
      WritePending();
    }
  }

  void AppendIfRoom(const Line& line) {
    const size_t before = pending.size();
    if (!full) std::visit([this](const auto& value) { AppendLine(&pending, value); }, line);
    full = full ||
           num_written_bytes + static_cast<int64_t>(pending.size()) > kBytesMax - kLastLineBytes;
    if (!full) return;
    pending.resize(before);  // nothing after it either: a file has no holes
    ++num_cut_off;
  }

  void WritePending() {
    for (size_t done = 0; done < pending.size() && !failed;) {
      const ssize_t count = write(fd, pending.data() + done, pending.size() - done);
      if (count >= 0) {
        done += static_cast<size_t>(count);
        num_written_bytes += count;
      } else if (errno != EINTR) {
        failed = full = true;
        LogWarning(absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path)).message(),
                   "; the run goes on, its trace ends here");
      }
    }
    pending.clear();
  }

  const int fd;
  const std::string path;
  std::thread thread;
  std::once_flag joined;

  std::mutex mutex;
  std::condition_variable wake;
  // Guarded by mutex.
  std::vector<Line> queue;
  int64_t num_refused = 0;
  bool closing = false;

  // Of the writer's thread.
  std::string pending;
  int64_t num_written_bytes = 0;
  int64_t num_cut_off = 0;
  bool full = false;
  bool failed = false;
};

TraceWriter::TraceWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TraceWriter::~TraceWriter() = default;

absl::StatusOr<std::unique_ptr<TraceWriter>> TraceWriter::Create(const std::string& path,
                                                                 const TraceHeader& header) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, kFileMode);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot create ", path));
  auto impl = std::make_unique<Impl>(fd, path, header);
  impl->Start();
  return std::unique_ptr<TraceWriter>(new TraceWriter(std::move(impl)));
}

void TraceWriter::Add(TracePlan plan) { impl_->Add(std::move(plan)); }
void TraceWriter::Add(TraceStep step) { impl_->Add(std::move(step)); }
void TraceWriter::Add(TraceSpan span) { impl_->Add(std::move(span)); }
void TraceWriter::Add(ClockReading reading) { impl_->Add(reading); }
void TraceWriter::Close() { impl_->Close(); }

void AddSpan(TraceWriter* trace, const char* name, int64_t step, int64_t start_ns) {
  if (trace == nullptr) return;
  trace->Add(TraceSpan{name, step, start_ns, MonotonicNs()});
}

}  // namespace smartpipe
