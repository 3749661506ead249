#include "cli/doctor_command.h"

#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <thread>

#include "CLI/CLI.hpp"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "cli/commands.h"
#include "cli/complaint.h"
#include "cli/display.h"
#include "cli/files.h"
#include "cli/render.h"
#include "nlohmann/json.hpp"
#include "services/base/version.h"
#include "services/rpc/address.h"
#include "services/rpc/tls.h"
#include "services/rpc/tls_flags.h"

namespace smartpipe {
namespace {

constexpr int kIndent = 6;  // of a finding's text
constexpr double kDiskWantedGb = 2;
constexpr uint64_t kFilesWanted = 1024;
constexpr absl::Duration kClockDifferenceMax = absl::Seconds(5);

/// What a program prints, and whether it ended well.
struct Answer {
  std::string text;
  bool ended_well = false;
};

Answer Ask(const std::string& program, const char* words) {
  Answer answer;
  std::FILE* pipe = popen(absl::StrCat("'", program, "' ", words, " 2>&1").c_str(), "r");
  if (pipe == nullptr) return answer;
  char buffer[256];
  while (std::fgets(buffer, sizeof(buffer), pipe) != nullptr) answer.text += buffer;
  answer.ended_well = pclose(pipe) == 0;
  absl::StripAsciiWhitespace(&answer.text);
  return answer;
}

/// First line that `program --version` prints; empty = it cannot be run.
std::string VersionOf(const std::string& program) {
  const Answer answer = Ask(program, "--version");
  return answer.ended_well ? answer.text.substr(0, answer.text.find('\n')) : "";
}

Finding CheckPrograms(const std::string& dir) {
  std::string wrong;
  for (const char* name : {"freeze_service", "parameter_service", "stage_worker"}) {
    const std::string version = VersionOf(dir + "/" + name);
    if (version == absl::StrCat(name, " ", SMARTPIPE_VERSION)) continue;
    absl::StrAppend(&wrong, wrong.empty() ? "" : ", ", name,
                    version.empty() ? " does not run" : " is \"" + version + "\"");
  }
  if (wrong.empty()) {
    return {Health::kGood, "programs", absl::StrCat("all of version ", SMARTPIPE_VERSION), ""};
  }
  return {Health::kBad, "programs", wrong,
          absl::StrCat("they belong beside this one, in ", dir, ", of version ", SMARTPIPE_VERSION,
                       ": build or install all together")};
}

Finding CheckPorts() {
  const absl::Status status = ProbeListen(HostPort{.host = "127.0.0.1"});
  if (status.ok()) return {Health::kGood, "ports", "127.0.0.1 can be listened on", ""};
  return {Health::kBad, "ports", std::string(status.message()),
          "bring the loopback interface up: ip link set lo up"};
}

Finding CheckDisk(const std::string& dir) {
  struct statvfs info;
  if (statvfs(dir.c_str(), &info) != 0) {
    return {Health::kBad, "disk", absl::StrCat(dir, ": ", std::strerror(errno)),
            "give a folder that can be read"};
  }
  const double free_gb =
      static_cast<double>(info.f_bavail) * static_cast<double>(info.f_frsize) / 1e9;
  const std::string found = absl::StrFormat("%.1f GB free in %s", free_gb, dir);
  if (access(dir.c_str(), W_OK) != 0) {
    return {Health::kBad, "disk", absl::StrCat(dir, " cannot be written"),
            "give --run-dir a folder that can be"};
  }
  if (free_gb >= kDiskWantedGb) return {Health::kGood, "disk", found, ""};
  return {Health::kNote, "disk", found,
          "checkpoints and traces need space: free some, or put --run-dir elsewhere"};
}

Finding CheckCores() {
  const unsigned cores = std::thread::hardware_concurrency();
  const std::string found = absl::StrCat(cores, cores == 1 ? " core" : " cores");
  if (cores > 1) return {Health::kGood, "cores", found, ""};
  return {Health::kNote, "cores", found,
          "workers share it, so a pipeline gains nothing here but its freezing"};
}

Finding CheckOpenFiles() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const std::string found = absl::StrCat(limit.rlim_cur, " open files");
  if (limit.rlim_cur >= kFilesWanted) return {Health::kGood, "limits", found, ""};
  return {Health::kNote, "limits", found,
          absl::StrCat("raise it for more than a few workers: ulimit -n ", kFilesWanted)};
}

Finding CheckSharedMemory() {
  struct statvfs info;
  if (statvfs("/dev/shm", &info) != 0) {
    return {Health::kNote, "shared memory", "there is no /dev/shm",
            "NCCL wants it between GPUs of one machine; in a container give --shm-size"};
  }
  const double mb = static_cast<double>(info.f_bavail) * static_cast<double>(info.f_frsize) / 1e6;
  return {mb < 64 ? Health::kNote : Health::kGood, "shared memory",
          absl::StrFormat("%.0f MB free in /dev/shm", mb),
          mb < 64 ? "NCCL wants more between GPUs: in a container give --shm-size=1g" : ""};
}

// A worker knows best what it can use: its answer covers the plug-in, its libraries and the driver.
Finding CheckGpus(const std::string& program_dir) {
  std::error_code error;
  if (!std::filesystem::exists("/dev/nvidiactl", error)) {
    return {Health::kNote, "GPU", "no /dev/nvidiactl",
            "runs use the CPU; for GPUs install the driver, and give the container its devices"};
  }
  const Answer answer = Ask(program_dir + "/stage_worker", "devices");
  if (answer.ended_well)
    return {Health::kGood, "GPU", absl::StrReplaceAll(answer.text, {{"\n", "; "}}), ""};
  return {Health::kNote, "GPU", absl::StrCat("no worker can use one: ", answer.text),
          "runs use the CPU until then"};
}

Finding CheckCertificates(const TlsFiles& files) {
  if (files.empty()) {
    return {Health::kGood, "certificates",
            "none are given: connections are not encrypted, which only loopback allows", ""};
  }
  const absl::Status status = CheckTlsFiles(files, absl::Now());
  if (status.ok())
    return {Health::kGood, "certificates", absl::StrCat(files.cert, " can be used"), ""};
  return {Health::kBad, "certificates", std::string(status.message()),
          "`smartpipe certs DIR` makes new ones; docs/security.md says who needs which"};
}

absl::string_view Word(Health health) {
  switch (health) {
    case Health::kGood:
      return "ok";
    case Health::kNote:
      return "note";
    case Health::kBad:
      return "BAD";
  }
  return "?";
}

}  // namespace

CLI::App* AddDoctorCommand(CLI::App& app, DoctorArguments& arguments) {
  CLI::App* command = app.add_subcommand("doctor", "say what would go wrong, and what to do");
  command
      ->add_option("RUN", arguments.target.run,
                   "also a run: its directory, or HOST:PORT of its freeze service")
      ->type_name("");
  AddTlsFlags(*command, arguments.target.tls);
  command->add_flag("--json", arguments.json, "print one JSON object");
  command->footer(
      "Examples:\n  smartpipe doctor\n  smartpipe doctor runs/fixed\n\n"
      "Exit codes: 0 nothing is bad (notes do not count), 1 something is, 2 mistake in the\n"
      "command line.");
  return command;
}

std::vector<Finding> CheckMachine(const std::string& program_dir, const std::string& data_dir) {
  return {CheckPrograms(program_dir), CheckCores(),     CheckPorts(),
          CheckDisk(data_dir),        CheckOpenFiles(), CheckSharedMemory(),
          CheckGpus(program_dir)};
}

std::vector<Finding> CheckRun(const RunTarget& target) {
  const auto stub = ConnectRun(target);
  if (!stub.ok()) {
    return {{Health::kBad, "freeze service", std::string(stub.status().message()),
             "see its log in RUN/logs, and that the address can be reached from here"}};
  }
  const absl::Time before = absl::Now();
  const absl::StatusOr<v1::GetRunResponse> run =
      CallRun(**stub, &v1::FreezeService::StubInterface::GetRun, v1::GetRunRequest());
  const absl::Time after = absl::Now();
  if (!run.ok()) {
    return {{Health::kBad, "freeze service", std::string(run.status().message()),
             "a certificate of the role viewer or operator is needed where TLS is on"}};
  }
  std::vector<Finding> findings = {
      {Health::kGood, "freeze service",
       absl::StrFormat("answers in %.1f ms, version %s", absl::ToDoubleMilliseconds(after - before),
                       run->run().version()),
       ""}};
  if (run->run().version() != SMARTPIPE_VERSION) {
    findings.back().health = Health::kBad;
    findings.back().cure =
        absl::StrCat("this program is version ", SMARTPIPE_VERSION, ": use the same on both sides");
  }
  const absl::Duration difference =
      absl::FromUnixMicros(run->run().now_us()) - (before + (after - before) / 2);
  const bool agree = absl::AbsDuration(difference) <= kClockDifferenceMax;
  findings.push_back({agree ? Health::kGood : Health::kNote, "clocks",
                      absl::StrFormat("its clock differs from this one by %.3f s",
                                      absl::ToDoubleSeconds(difference)),
                      agree ? "" : "certificates are judged by the clock: run NTP on both"});
  if (run->run().state() == v1::RUN_STATE_WAITING) {
    findings.push_back({Health::kNote, "workers", run->run().message(),
                        "start those that are missing, or see why they cannot reach the service"});
  } else {
    findings.push_back({Health::kGood, "workers", run->run().message(), ""});
  }
  return findings;
}

std::string FindingsText(const std::vector<Finding>& findings, int width) {
  std::string text;
  for (const Finding& finding : findings) {
    absl::StrAppend(
        &text, absl::StrFormat("%-*s", kIndent, Word(finding.health)),
        WrapHanging(absl::StrCat(finding.what, ": ", finding.found), width - kIndent, kIndent));
    if (!finding.cure.empty()) {
      absl::StrAppend(&text, std::string(kIndent, ' '),
                      WrapHanging("-> " + finding.cure, width - kIndent, kIndent + 3));
    }
  }
  return text;
}

int DoctorCommand(const DoctorArguments& arguments) {
  const absl::StatusOr<std::string> dir = ProgramFolder();
  if (!dir.ok()) return Fail(dir.status(), kExitFailed);
  std::vector<Finding> findings = CheckMachine(*dir, ".");
  findings.push_back(CheckCertificates(TlsOf(arguments.target)));
  if (!arguments.target.run.empty()) {
    for (Finding& finding : CheckRun(arguments.target)) findings.push_back(std::move(finding));
  }
  bool is_bad = false;
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Finding& finding : findings) {
    is_bad |= finding.health == Health::kBad;
    list.push_back({{"health", absl::AsciiStrToLower(Word(finding.health))},
                    {"what", finding.what},
                    {"found", finding.found},
                    {"cure", finding.cure}});
  }
  if (arguments.json) {
    std::cout << nlohmann::ordered_json{{"findings", std::move(list)}}.dump(
                     2, ' ', false, nlohmann::ordered_json::error_handler_t::replace)
              << "\n";
  } else {
    std::cout << FindingsText(findings, TerminalWidth(STDOUT_FILENO));
  }
  return is_bad ? kExitFailed : kExitFinished;
}

}  // namespace smartpipe
