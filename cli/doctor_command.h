// `smartpipe doctor`: what on this machine, or between it and a run, would go wrong.
#pragma once

#include <string>
#include <vector>

#include "cli/run_client.h"

namespace smartpipe {

struct DoctorArguments {
  RunTarget target;  // empty = this machine alone
  bool json = false;
};

enum class Health { kGood, kNote, kBad };

/// One line of the report.
struct Finding {
  Health health = Health::kGood;
  std::string what;   // "ports"
  std::string found;  // "127.0.0.1 can be listened on"
  std::string cure;   // empty when good
};

/// Adds the command and its options; they are read into `arguments`.
CLI::App* AddDoctorCommand(CLI::App& app, DoctorArguments& arguments);

/// Checks, and prints the findings. Returns an exit code: 1 when one is bad.
int DoctorCommand(const DoctorArguments& arguments);

/// Of this machine: programs and their versions, cores, ports, disk, shared memory, open files,
/// GPUs and NCCL.
std::vector<Finding> CheckMachine(const std::string& program_dir, const std::string& data_dir);
/// Of a run: whether it answers, how fast, and whether both clocks agree.
std::vector<Finding> CheckRun(const RunTarget& target);
/// One line for each, with its cure below.  Threads: pure.
std::string FindingsText(const std::vector<Finding>& findings, int width);

}  // namespace smartpipe
