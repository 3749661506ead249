// Reads trace files. They come from outside: every field is checked, so that what reads a Trace can
// rely on its sizes and ranges.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <functional>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"
#include "services/base/ids.h"
#include "services/base/limits.h"
#include "services/base/status_macros.h"
#include "services/obs/trace_file.h"

namespace smartpipe {
namespace {

using Json = nlohmann::json;

constexpr int64_t kLineBytesMax = 16 << 20;
// A time of the worker's clock, and what leads from it to the service's: a time of the service's
// clock, and the difference of two, stay in range.
constexpr int64_t kTimeNsMax = int64_t{1} << 60;
constexpr int64_t kOffsetNsMax = int64_t{1} << 61;
constexpr int64_t kNumberMax = int64_t{1} << 61;

// The fields of one line. The first problem is kept; a field that is missing or wrong reads as its
// least value.
class Fields {
 public:
  explicit Fields(const Json& json) : json_(json) {}
  const std::string& problem() const { return problem_; }
  void Complain(const std::string& what) {
    if (problem_.empty()) problem_ = what;
  }

  const Json& Get(const char* key) {
    static const Json* const kNothing = new Json();
    const auto found = json_.find(key);
    if (found != json_.end()) return *found;
    Complain(absl::StrCat("\"", key, "\" is missing"));
    return *kNothing;
  }
  int64_t ToInt(const Json& json, int64_t min, int64_t max, absl::string_view what) {
    if (json.is_number_integer() &&
        (!json.is_number_unsigned() || json.get<uint64_t>() <= uint64_t{kNumberMax})) {
      const int64_t value = json.get<int64_t>();
      if (min <= value && value <= max) return value;
    }
    Complain(absl::StrCat("\"", what, "\" is not a whole number in ", min, "..", max));
    return min;
  }
  int64_t Int(const char* key, int64_t min, int64_t max) { return ToInt(Get(key), min, max, key); }
  int32_t Int32(const char* key, int32_t min, int32_t max) {
    return static_cast<int32_t>(Int(key, min, max));
  }
  bool Bool(const char* key) {
    const Json& value = Get(key);
    if (!value.is_boolean()) Complain(absl::StrCat("\"", key, "\" is neither true nor false"));
    return value.is_boolean() && value.get<bool>();
  }
  std::string String(const char* key) {
    const Json& value = Get(key);
    if (!value.is_string()) Complain(absl::StrCat("\"", key, "\" is not a text"));
    return value.is_string() ? value.get<std::string>() : "";
  }
  std::vector<int64_t> IntList(const char* key, size_t min_size, size_t max_size, int64_t min,
                               int64_t max) {
    const Json& list = Get(key);
    std::vector<int64_t> values;
    if (list.is_array() && min_size <= list.size() && list.size() <= max_size) {
      for (const Json& value : list) values.push_back(ToInt(value, min, max, key));
    } else {
      Complain(absl::StrCat("\"", key, "\" is not a list of ", min_size,
                            min_size == max_size ? "" : absl::StrCat("..", max_size), " numbers"));
      values.assign(min_size, min);
    }
    return values;
  }
  std::vector<int32_t> Int32List(const char* key, size_t min_size, size_t max_size, int32_t min,
                                 int32_t max) {
    const std::vector<int64_t> values = IntList(key, min_size, max_size, min, max);
    return {values.begin(), values.end()};
  }

 private:
  const Json& json_;
  std::string problem_;
};

TraceHeader ParseHeader(Fields* in) {
  TraceHeader header;
  if (in->Int("trace", 1, kNumberMax) != 1)
    in->Complain("it was written by a newer SmartPipe; use that version's command");
  header.worker = in->String("worker");
  if (!IsWorkerId(header.worker)) in->Complain("\"worker\" is not the name of a worker");
  header.num_ranks = in->Int32("num_ranks", 1, limits::kWorkersMax);
  header.rank = in->Int32("rank", 0, header.num_ranks - 1);
  header.generation = in->Int("generation", 0, kNumberMax);
  header.num_layers = in->Int32("num_layers", 1, limits::kLayersMax);
  header.num_microbatches = in->Int32("num_microbatches", 1, limits::kMicrobatchesMax);
  header.interval_steps = in->Int("interval_steps", 1, limits::kStepsMax);
  header.batch_size = in->Int("batch_size", 1, kNumberMax);
  header.run_ahead = in->Bool("run_ahead");
  header.num_cores = in->Int32("num_cores", 0, std::numeric_limits<int32_t>::max());
  return header;
}

TracePlan ParsePlan(const TraceHeader& header, Fields* in) {
  TracePlan plan;
  plan.step = in->Int("step", 0, limits::kStepsMax);
  plan.plan_epoch = in->Int("plan_epoch", 0, kNumberMax);
  plan.frontier = in->Int32("frontier", 0, header.num_layers - 1);
  const size_t num_cuts_max = std::min(limits::kStagesMax, header.num_layers) - 1;
  plan.cuts = in->Int32List("cuts", 0, num_cuts_max, 1, header.num_layers - 1);
  if (std::adjacent_find(plan.cuts.begin(), plan.cuts.end(), std::greater_equal<>()) !=
      plan.cuts.end()) {
    in->Complain("\"cuts\" do not ascend");
  }
  const size_t num_cuts = plan.cuts.size();
  plan.stage_to_rank =
      in->Int32List("stage_to_rank", num_cuts + 1, num_cuts + 1, 0, header.num_ranks - 1);
  plan.credits = in->Int32List("credits", num_cuts, num_cuts, 1, limits::kMicrobatchesMax);
  plan.schedule = in->String("schedule");
  return plan;
}

TraceStep ParseStep(Fields* in) {
  TraceStep step;
  step.step = in->Int("step", 0, limits::kStepsMax);
  const int64_t start_ns = in->Int("t_ns", -kTimeNsMax / 2, kTimeNsMax / 2);
  const Json& events = in->Get("events");
  if (!events.is_array() || events.size() % 3 != 0) {
    in->Complain("\"events\" is not a list of name, start, end, name, start, end, ...");
    return step;
  }
  constexpr int64_t kMicrosMax = kTimeNsMax / 2 / 1000;
  step.events.reserve(events.size() / 3);
  for (size_t i = 0; i < events.size(); i += 3) {
    const std::string* name = events[i].get_ptr<const std::string*>();
    if (name == nullptr) {
      in->Complain(absl::StrCat("events[", i, "] is not a name"));
      break;
    }
    const int64_t start_us = in->ToInt(events[i + 1], -kMicrosMax, kMicrosMax, "start");
    const int64_t end_us = in->ToInt(events[i + 2], start_us, kMicrosMax, "end");
    step.events.push_back({*name, start_ns + start_us * 1000, start_ns + end_us * 1000});
  }
  return step;
}

TraceSpan ParseSpan(Fields* in) {
  TraceSpan span;
  span.name = in->String("span");
  span.step = in->Int("step", 0, limits::kStepsMax);
  const std::vector<int64_t> ns = in->IntList("ns", 2, 2, -kTimeNsMax, kTimeNsMax);
  if (ns[1] < ns[0]) in->Complain("the span ends before it starts");
  span.start_ns = ns[0];
  span.end_ns = ns[1];
  return span;
}

ClockReading ParseClock(Fields* in) {
  const std::vector<int64_t> numbers = in->IntList("clock", 3, 3, -kOffsetNsMax, kOffsetNsMax);
  if (std::llabs(numbers[0]) > kTimeNsMax) in->Complain("the clock's time is out of range");
  if (numbers[2] < 0) in->Complain("the clock's error is negative");
  return {.local_ns = numbers[0], .offset_ns = numbers[1], .error_ns = numbers[2]};
}

class TraceReader {
 public:
  explicit TraceReader(std::string path) : path_(std::move(path)) {}

  absl::StatusOr<Trace> Read() {
    const int fd = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path_));
    const absl::Status status = ReadLines(fd);
    close(fd);
    if (!status.ok()) return status;
    if (!has_header_) {
      return absl::InvalidArgumentError(
          absl::StrCat(path_, " is empty: its worker has not written anything"));
    }
    return std::move(trace_);
  }

 private:
  absl::Status ReadLines(int fd) {
    std::string text;
    std::vector<char> buffer(1 << 20);
    for (;;) {
      const ssize_t count = read(fd, buffer.data(), buffer.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path_));
      if (count == 0) break;
      text.append(buffer.data(), static_cast<size_t>(count));
      size_t begin = 0;
      for (size_t end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1)
        SP_RETURN_IF_ERROR(ReadLine(absl::string_view(text).substr(begin, end - begin), true));
      text.erase(0, begin);
      if (static_cast<int64_t>(text.size()) > kLineBytesMax) {
        ++line_;
        return Error(absl::StrCat("it has more than ", kLineBytesMax, " bytes"));
      }
    }
    return text.empty() ? absl::OkStatus() : ReadLine(text, false);
  }

  // What the killed writer left of its last line is no error.
  absl::Status ReadLine(absl::string_view text, bool whole) {
    ++line_;
    const Json json = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) {
      const bool killed = json.is_discarded() && !whole && (has_header_ || text.front() == '{');
      return killed ? absl::OkStatus() : Error("it is not a JSON object");
    }
    const std::string problem = Take(json);
    return problem.empty() ? absl::OkStatus() : Error(problem);
  }

  // What is wrong with the line, or nothing.
  std::string Take(const Json& json) {
    Fields fields(json);
    if (!has_header_) {
      trace_.header = ParseHeader(&fields);
      has_header_ = true;
    } else if (json.contains("events")) {
      trace_.steps.push_back(ParseStep(&fields));
      trace_.step_lines.push_back(line_);
    } else if (json.contains("span")) {
      trace_.spans.push_back(ParseSpan(&fields));
    } else if (json.contains("clock")) {
      trace_.clock.push_back(ParseClock(&fields));
    } else if (json.contains("plan")) {
      Fields plan(fields.Get("plan"));
      trace_.plans.push_back(ParsePlan(trace_.header, &plan));
      return plan.problem();
    } else if (json.contains("dropped")) {
      trace_.num_dropped = fields.Int("dropped", 0, kNumberMax);
    } else {
      return "it is neither plan, clock, step, span nor dropped";
    }
    return fields.problem();
  }

  absl::Status Error(absl::string_view what) const {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ":", line_, ": not a line of a trace: ", what));
  }

  const std::string path_;
  int64_t line_ = 0;
  bool has_header_ = false;
  Trace trace_;
};

}  // namespace

absl::StatusOr<Trace> ReadTrace(const std::string& path) { return TraceReader(path).Read(); }

}  // namespace smartpipe
