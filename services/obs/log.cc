#include "services/obs/log.h"

#include <chrono>
#include <exception>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "services/base/text.h"
#include "spdlog/sinks/basic_file_sink.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace smartpipe {
namespace {

constexpr char kPattern[] = "%Y-%m-%d %H:%M:%S.%e %l %n: %v";

spdlog::level::level_enum SpdlogLevel(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

std::shared_ptr<spdlog::logger> MakeLogger(const std::string& name,
                                           std::vector<spdlog::sink_ptr> sinks) {
  auto logger = std::make_shared<spdlog::logger>(name, sinks.begin(), sinks.end());
  logger->set_pattern(kPattern);
  logger->flush_on(spdlog::level::warn);
  return logger;
}

std::shared_ptr<spdlog::logger>& Logger() {
  // Never destroyed: other threads may log until the process is gone.
  static auto* logger = new std::shared_ptr<spdlog::logger>(
      MakeLogger("smartpipe", {std::make_shared<spdlog::sinks::stderr_sink_mt>()}));
  return *logger;
}

}  // namespace

absl::Status InitLogging(const LogOptions& options) {
  size_t level = 0;
  while (level < std::size(kLogLevelNames) && options.level != kLogLevelNames[level]) ++level;
  if (level == std::size(kLogLevelNames)) {
    return absl::InvalidArgumentError(absl::StrCat("unknown log level \"", options.level,
                                                   "\": use one of ",
                                                   absl::StrJoin(kLogLevelNames, ", ")));
  }
  std::vector<spdlog::sink_ptr> sinks;
  if (options.to_stderr) sinks.push_back(std::make_shared<spdlog::sinks::stderr_sink_mt>());
  try {
    if (!options.file.empty()) {
      sinks.push_back(std::make_shared<spdlog::sinks::basic_file_sink_mt>(options.file));
    }
  } catch (const std::exception& e) {
    return absl::UnavailableError(
        absl::StrCat("cannot open the log file ", options.file, ": ", e.what()));
  }
  std::shared_ptr<spdlog::logger> logger = MakeLogger(options.process, std::move(sinks));
  logger->set_level(SpdlogLevel(static_cast<LogLevel>(level)));
  if (!options.file.empty()) {
    spdlog::drop(options.process);
    spdlog::register_logger(logger);  // flush_every reaches registered loggers only
    spdlog::flush_every(std::chrono::seconds(1));
  }
  Logger() = std::move(logger);
  return absl::OkStatus();
}

void Log(LogLevel level, absl::string_view message) {
  const std::string text = ForLog(message);
  Logger()->log(SpdlogLevel(level), spdlog::string_view_t(text.data(), text.size()));
}

}  // namespace smartpipe
