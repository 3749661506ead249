#include "cli/perfetto.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/message_key.h"
#include "cli/timeline.h"
#include "nlohmann/json.hpp"

namespace smartpipe {
namespace {

// Of the file: 0 means something of its own to the viewer, and a thread's number is the whole
// file's.
constexpr int kDecisionsPid = 1, kFirstWorkerPid = 2, kThreadsPerProcess = 10;
constexpr int kCompute = 1, kSends = 2, kWaits = 3, kControl = 4;  // threads
// A slice shorter than this carries no arrow in the viewer.
constexpr int64_t kSliceNsMin = 500;

std::string Quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// Microseconds, to the nanosecond.
std::string Us(int64_t ns) {
  return absl::StrFormat("%s%d.%03d", ns < 0 ? "-" : "", std::abs(ns) / 1000, std::abs(ns) % 1000);
}

const char* NameOf(Op op) {
  switch (op) {
    case Op::kForward:
      return "forward";
    case Op::kBackward:
      return "backward";
    case Op::kInputGrad:
      return "input gradient";
    case Op::kWeightGrad:
      return "weight gradient";
    case Op::kSendForward:
      return "send activation";
    case Op::kRecvForward:
      return "wait for activation";
    case Op::kSendBackward:
      return "send gradient";
    case Op::kRecvBackward:
      return "wait for gradient";
    case Op::kReduce:
      return "reduce";
    case Op::kOptimize:
      return "optimizer";
  }
  return "?";
}

std::string Place(int pid, int thread) {
  return absl::StrCat(R"(,"pid":)", pid, R"(,"tid":)", pid * kThreadsPerProcess + thread);
}

int ThreadOf(Op op) {
  if (IsCompute(op)) return kCompute;
  return IsSend(op) ? kSends : kWaits;
}

class Writer {
 public:
  Writer(const RunTrace& run, FILE* file) : run_(run), file_(file) {}

  PerfettoResult Write(int64_t first_step, int64_t end_step, int64_t bytes_max) {
    Emit("{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n");
    Names();
    PerfettoResult result{.end_step = first_step};
    for (int64_t step = first_step; step < end_step; ++step) {
      buffer_.clear();
      Decisions(step);
      for (size_t w = 0; w < run_.workers.size(); ++w) {
        const WorkerTrace& worker = run_.workers[w];
        Spans(worker, step);
        if (const RunStep* found = worker.FindStep(step); found != nullptr) Step(worker, *found);
      }
      if (bytes_ + static_cast<int64_t>(buffer_.size()) + 8 > bytes_max) break;
      Flush();
      result.end_step = step + 1;
    }
    buffer_.clear();
    Emit("\n]}\n");
    result.num_events = num_events_;
    result.bytes = bytes_;
    return result;
  }
  bool failed() const { return failed_; }

 private:
  static int Pid(const WorkerTrace& worker) { return kFirstWorkerPid + worker.header.rank; }

  void Emit(absl::string_view text) {
    failed_ |= fwrite(text.data(), 1, text.size(), file_) != text.size();
    bytes_ += static_cast<int64_t>(text.size());
  }
  void Flush() {
    Emit(buffer_);
    num_events_ += num_buffered_;
    num_buffered_ = 0;
    buffer_.clear();
  }
  void Add(absl::string_view event) {
    absl::StrAppend(&buffer_, first_ ? "" : ",\n", event);
    first_ = false;
    ++num_buffered_;
  }

  void Names() {
    const auto name = [this](int pid, int thread, absl::string_view what, const std::string& text) {
      Add(absl::StrCat(R"({"ph":"M")", Place(pid, thread), R"(,"name":")", what,
                       R"(","args":{"name":)", Quoted(text), "}}"));
    };
    name(kDecisionsPid, 0, "process_name", "decisions");
    for (const WorkerTrace& worker : run_.workers) {
      const int pid = Pid(worker);
      name(pid, 0, "process_name",
           absl::StrCat(worker.header.worker, " (rank ", worker.header.rank, ")"));
      Add(absl::StrCat(R"({"ph":"M")", Place(pid, 0),
                       R"(,"name":"process_sort_index","args":{"sort_index":)", pid, "}}"));
      name(pid, kCompute, "thread_name", "compute");
      name(pid, kSends, "thread_name", "messages: sends");
      name(pid, kWaits, "thread_name", "messages: waits");
      name(pid, kControl, "thread_name", "control");
    }
    Flush();
  }

  void Slice(int pid, int thread, const std::string& name, int64_t start_ns, int64_t ns,
             const std::string& args) {
    Add(absl::StrCat(R"({"ph":"X")", Place(pid, thread), R"(,"name":)", Quoted(name), R"(,"ts":)",
                     Us(start_ns), R"(,"dur":)", Us(ns), R"(,"args":{)", args, "}}"));
  }

  void Step(const WorkerTrace& worker, const RunStep& step) {
    for (size_t i = 0; i < step.events.size(); ++i) {
      const RunEvent& event = step.events[i];
      const Instruction& instruction = event.instruction;
      const bool compute = IsCompute(instruction.op);
      const int64_t ns = compute ? event.ns() : SliceNs(step, i);
      const bool numbered = HasMicrobatch(instruction.op);
      const std::string name =
          numbered ? absl::StrCat(NameOf(instruction.op), " ", instruction.microbatch.value())
                   : NameOf(instruction.op);
      Slice(Pid(worker), ThreadOf(instruction.op), name, event.start_ns, ns,
            absl::StrCat(
                R"("step":)", step.step, R"(,"stage":)", instruction.stage.value(),
                numbered ? absl::StrCat(R"(,"microbatch":)", instruction.microbatch.value()) : "",
                R"(,"instruction":")", Format(instruction), "\""));
      if (!compute) Arrow(worker, step.step, event, ns);
    }
  }

  // Long enough to carry an arrow, but not into the next one of the same thread, which would hide
  // it.
  static int64_t SliceNs(const RunStep& step, size_t i) {
    const RunEvent& event = step.events[i];
    const int thread = ThreadOf(event.instruction.op);
    size_t next = i + 1;
    while (next < step.events.size() && ThreadOf(step.events[next].instruction.op) != thread)
      ++next;
    const int64_t room_ns =
        next < step.events.size() ? step.events[next].start_ns - event.start_ns : kSliceNsMin;
    return std::max(event.ns(), std::min(kSliceNsMin, room_ns));
  }

  // From the send's start into the wait that it ends.
  void Arrow(const WorkerTrace& worker, int64_t step, const RunEvent& event, int64_t ns) {
    const Op op = event.instruction.op;
    if (op == Op::kReduce) return;
    const auto [unused, edge, activation, mb] = KeyOf(step, event.instruction);
    const int64_t ts_ns =
        IsSend(op) ? event.start_ns : event.start_ns + std::max<int64_t>(0, ns - 1);
    const int64_t num_edges = static_cast<int64_t>(run_.PlanAt(step).cuts.size()) + 1;
    const int64_t id =
        ((step * num_edges + edge) * 2 + activation) * run_.header().num_microbatches + mb;
    Add(absl::StrCat(R"({"ph":")", IsSend(op) ? "s" : "f", R"(","bp":"e","cat":"message","name":")",
                     activation ? "activation" : "gradient", R"(","id":)", id,
                     Place(Pid(worker), ThreadOf(op)), R"(,"ts":)", Us(ts_ns), "}"));
  }

  void Spans(const WorkerTrace& worker, int64_t step) {
    for (const TraceSpan& span : worker.SpansBefore(step)) {
      Slice(Pid(worker), kControl, span.name, span.start_ns, span.end_ns - span.start_ns,
            absl::StrCat(R"("before_step":)", step));
    }
  }

  void Decisions(int64_t step) {
    // Where the step before ended: that is where a plan is taken up.
    int64_t at_ns = step > run_.first_step ? run_.StepEndNs(step - 1) : -1;
    if (at_ns < 0) at_ns = StartNs(step);
    for (const RunDecision& decision : run_.decisions) {
      if (decision.step != step || !decision.notable()) continue;
      Add(absl::StrCat(
          R"({"ph":"i","s":"g")", Place(kDecisionsPid, 0), R"(,"name":)",
          Quoted(decision.is_plan ? absl::StrCat("plan ", decision.plan_epoch) : "move refused"),
          R"(,"ts":)", Us(at_ns), R"(,"args":{"step":)", step, R"(,"frontier":)", decision.frontier,
          R"(,"reason":)", Quoted(decision.reason), "}}"));
    }
  }

  int64_t StartNs(int64_t step) const {
    int64_t start_ns = 0;
    for (const WorkerTrace& worker : run_.workers) {
      const RunStep* found = worker.FindStep(step);
      if (found != nullptr && !found->events.empty())
        start_ns = std::max(start_ns, found->events.front().start_ns);
    }
    return start_ns;
  }

  const RunTrace& run_;
  FILE* const file_;
  std::string buffer_;  // of one step
  bool first_ = true;
  bool failed_ = false;
  int64_t bytes_ = 0, num_events_ = 0, num_buffered_ = 0;
};

}  // namespace

absl::StatusOr<PerfettoResult> WritePerfetto(const RunTrace& run, int64_t first_step,
                                             int64_t end_step, const std::string& path,
                                             int64_t bytes_max) {
  const std::string temporary = absl::StrCat(path, ".", getpid(), ".tmp");
  FILE* file = fopen(temporary.c_str(), "we");
  if (file == nullptr) return absl::ErrnoToStatus(errno, absl::StrCat("cannot create ", temporary));
  Writer writer(run, file);
  const PerfettoResult result = writer.Write(first_step, end_step, bytes_max);
  bool failed = writer.failed();
  int error = errno;
  if (fclose(file) != 0 && !failed) {
    failed = true;
    error = errno;
  }
  if (!failed && rename(temporary.c_str(), path.c_str()) != 0) {
    failed = true;
    error = errno;
  }
  if (!failed) return result;
  unlink(temporary.c_str());
  return absl::ErrnoToStatus(error, absl::StrCat("cannot write ", path));
}

}  // namespace smartpipe
