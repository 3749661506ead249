// smartpipe: the command. Parses the command line; the commands themselves are in commands.cc.
#include <algorithm>
#include <csignal>
#include <iostream>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cli/certs_command.h"
#include "cli/checkpoints_command.h"
#include "cli/commands.h"
#include "cli/complaint.h"
#include "cli/completion_command.h"
#include "cli/ctl_command.h"
#include "cli/doctor_command.h"
#include "cli/eval_command.h"
#include "cli/explain_command.h"
#include "cli/export_command.h"
#include "cli/plan_command.h"
#include "cli/render.h"
#include "cli/replay_command.h"
#include "cli/simulate_command.h"
#include "cli/timeline_command.h"
#include "cli/top_command.h"
#include "cli/usage.h"
#include "cli/view_commands.h"
#include "pipeline/schedule.h"
#include "services/base/version.h"

namespace {

constexpr char kExamples[] = R"(Examples:
  smartpipe demo examples/fashion_mnist.toml
  smartpipe train examples/fashion_mnist.toml --set pipeline.stages=4 \
      --set freeze.policy=fixed --run-dir runs/fixed --summary fixed.json
  smartpipe explain runs/fixed
  smartpipe timeline runs/fixed --svg pipeline.svg --perfetto pipeline.json
  smartpipe replay runs/fixed
  smartpipe checkpoints runs/fixed
  smartpipe top runs/fixed
  smartpipe ctl freeze runs/fixed 3 --dry-run
  smartpipe export runs/fixed -o model.safetensors
  smartpipe eval runs/fixed
  smartpipe config check my.toml
  smartpipe config show my.toml
  smartpipe config keys freeze
  smartpipe simulate --schedule 1f1b --stages 4 --samples 6 --batch 3
  smartpipe plan --costs costs.json --stages 4 --microbatches 8 --frontier 12

)";

constexpr char kExitCodes[] =
    R"(`smartpipe COMMAND --help` says more. Exit codes: 0 finished, 1 the run failed,
2 mistake in the command line or the config (nothing was started), 130 stopped by
Ctrl-C, SIGTERM or an operator's order.)";

// "Schedules (pipeline.schedule): gpipe runs all forwards, then all backwards; ..."
std::string ScheduleSummaries() {
  std::vector<std::string> summaries;
  for (const smartpipe::ScheduleTraits& traits : smartpipe::AllSchedules())
    summaries.push_back(absl::StrCat(traits.name, " ", traits.summary));
  return smartpipe::Wrap(
      absl::StrCat("Schedules (pipeline.schedule): ", absl::StrJoin(summaries, "; "), "."), 79, 0);
}

constexpr char kTrainFooter[] =
    R"(Shows one live line and a line for each decision. `smartpipe config keys` lists
what --set can change; docs/guide.md says what is in the run directory.

Examples:
  smartpipe train examples/fashion_mnist.toml
  smartpipe train my.toml --set train.epochs=1 --set freeze.policy=full
  smartpipe train my.toml --run-dir runs/a --resume auto --set pipeline.stages=4

A killed process is started again, and the run goes on from its last checkpoint.
Ctrl-C stops at the next boundary behind a checkpoint, a second one at once.

Exit codes: 0 finished, 1 the run failed, 2 mistake in the command line or the
config (nothing was started), 130 stopped by Ctrl-C, SIGTERM or an
operator's order.)";

constexpr char kDemoFooter[] =
    R"(Runs the config twice with the same seed: with freeze.policy = full, which never
freezes, then with the config's own policy. DIR/full and DIR/POLICY are run
directories as of `train`; DIR/comparison.json holds both results.

Example:
  smartpipe demo examples/fashion_mnist.toml --set freeze.tau=0.2

Exit codes: as of `smartpipe train`.)";

constexpr char kKeysFooter[] = R"(Examples:
  smartpipe config keys
  smartpipe config keys freeze)";

void AddConfigArguments(CLI::App* command, smartpipe::TrainArguments& arguments) {
  command->add_option("CONFIG", arguments.config_path, "TOML file")->required()->type_name("");
  // One word per --set, so that CONFIG may follow it.
  command->add_option("--set", arguments.sets, "change a key; may be repeated")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void AddRunArguments(CLI::App* command, smartpipe::TrainArguments& arguments,
                     const std::string& run_dir_help) {
  AddConfigArguments(command, arguments);
  command->add_option("--run-dir", arguments.run_dir, run_dir_help)->type_name("DIR");
  command->add_option("--summary", arguments.summary_path, "write the results as JSON, too")
      ->type_name("FILE");
}

// The command of the command line, the innermost: "config check" for `smartpipe config check x`.
const CLI::App* ParsedCommand(const CLI::App& app) {
  const CLI::App* command = &app;
  while (!command->get_subcommands().empty()) command = command->get_subcommands().front();
  return command;
}

std::vector<std::string> CommandNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands(nullptr)) names.push_back(command->get_name());
  return names;
}

// What the parser says, with a hint where an option is meant for another place.
int BadUsage(const CLI::App& app, const CLI::ParseError& error,
             const std::vector<std::string>& words) {
  const CLI::App* command = ParsedCommand(app);
  std::string path = "smartpipe";
  for (const CLI::App* at = &app; at != command; path += " " + at->get_name())
    at = at->get_subcommands().front();
  std::vector<std::string> options;
  for (const CLI::Option* option : command->get_options()) {
    for (const std::string& name : option->get_lnames()) options.push_back("--" + name);
  }
  const bool takes_set = std::find(options.begin(), options.end(), "--set") != options.end();
  std::string message = error.what();
  while (!message.empty() && (message.back() == '\n' || message.back() == ' ')) message.pop_back();
  // All options that are not texts take whole numbers.
  if (error.get_name() == "ConversionError") message += ", which is not a whole number in range";
  const std::string unknown = smartpipe::UnknownOption(words, options);
  const std::string hint = smartpipe::OptionHint(words, options, takes_set);
  if (!unknown.empty())
    message = "unknown option " + unknown + (hint.empty() ? "" : ": " + hint);
  else if (!command->get_subcommands(nullptr).empty())
    message = "`" + path + "` needs a command";
  smartpipe::Complain("smartpipe: " + message + "\n`" + path + " --help` explains " +
                      (command == &app ? "the commands." : "this command."));
  return smartpipe::kExitUsage;
}

// The command line with `help X` and `version` as the options that they stand for.
std::vector<std::string> Words(int argc, char** argv) {
  std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  if (words.empty()) return words;
  if (words[0] == "version") words[0] = "--version";
  if (words[0] == "help") {
    words.erase(words.begin());
    words.push_back("--help");
  }
  return words;
}

// The exit code of a command whose result is what it prints, as on a full disk.
int OutputWritten(int exit_code) {
  std::cout.flush();
  if (std::cout || exit_code != smartpipe::kExitFinished) return exit_code;
  return smartpipe::Fail(absl::DataLossError("stdout could not be written: it is full or closed"),
                         smartpipe::kExitFailed);
}

}  // namespace

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);  // a closed pipe must not end a run
  smartpipe::TrainArguments arguments;
  CLI::App app("Pipeline-parallel training that gets faster as the model converges.", "smartpipe");
  app.set_help_flag("-h,--help", "print this help");
  app.set_version_flag("--version", "smartpipe " SMARTPIPE_VERSION, "print the version");
  app.require_subcommand(1);
  app.footer(absl::StrCat(kExamples, ScheduleSummaries(), "\n", kExitCodes));
  app.get_formatter()->column_width(28);

  CLI::App* train = app.add_subcommand("train", "train on this machine, one process per worker");
  AddRunArguments(train, arguments, "new folder for files [runs/UTC_TIME-POLICY]");
  train
      ->add_option("--resume", arguments.resume,
                   "go on with the run in --run-dir: never; auto, from its newest checkpoint if "
                   "there is a run; or from a checkpoint's step")
      ->type_name("auto|never|STEP")
      ->default_str("never");
  train->footer(kTrainFooter);
  CLI::App* demo = app.add_subcommand("demo", "train without and with freezing, and compare");
  AddRunArguments(demo, arguments, "new folder for both runs [runs/UTC_TIME-demo]");
  demo->footer(kDemoFooter);
  smartpipe::TimelineArguments timeline_arguments;
  CLI::App* timeline = smartpipe::AddTimelineCommand(app, timeline_arguments);
  smartpipe::ExplainArguments explain_arguments;
  CLI::App* explain = smartpipe::AddExplainCommand(app, explain_arguments);
  smartpipe::ReplayArguments replay_arguments;
  CLI::App* replay = smartpipe::AddReplayCommand(app, replay_arguments);
  smartpipe::CheckpointsArguments checkpoints_arguments;
  CLI::App* checkpoints = smartpipe::AddCheckpointsCommand(app, checkpoints_arguments);
  smartpipe::ExportArguments export_arguments;
  CLI::App* exported = smartpipe::AddExportCommand(app, export_arguments);
  smartpipe::EvalArguments eval_arguments;
  CLI::App* evaluated = smartpipe::AddEvalCommand(app, eval_arguments);
  smartpipe::CertsArguments certs_arguments;
  CLI::App* certs = smartpipe::AddCertsCommand(app, certs_arguments);
  CLI::App* config = app.add_subcommand("config", "check and explain config files");
  config->require_subcommand(1);
  CLI::App* check = config->add_subcommand("check", "say what is wrong: line, key and cure");
  AddConfigArguments(check, arguments);
  check->footer(
      "Also says what is allowed but seldom meant. Exit codes: 0 good (notes do not count),\n"
      "2 a mistake in the file, --set or the command line.");
  CLI::App* show = config->add_subcommand("show", "print it with every key and default");
  show->footer(
      "What `train` would use, and writes to config.toml in the run directory.\n\n"
      "Example: smartpipe config show my.toml --set train.epochs=1 > resolved.toml");
  AddConfigArguments(show, arguments);
  CLI::App* keys = config->add_subcommand("keys", "explain every key");
  std::string keys_prefix;
  keys->add_option("PREFIX", keys_prefix, "only keys that begin so, like freeze")->type_name("");
  keys->footer(kKeysFooter);
  smartpipe::ViewArguments status_arguments, layers_arguments, decisions_arguments;
  CLI::App* status = smartpipe::AddStatusCommand(app, status_arguments);
  smartpipe::TopArguments top_arguments;
  CLI::App* top = smartpipe::AddTopCommand(app, top_arguments);
  CLI::App* layers = smartpipe::AddLayersCommand(app, layers_arguments);
  CLI::App* decisions = smartpipe::AddDecisionsCommand(app, decisions_arguments);
  smartpipe::CtlArguments ctl_arguments;
  CLI::App* ctl = smartpipe::AddCtlCommand(app, ctl_arguments);
  smartpipe::DoctorArguments doctor_arguments;
  CLI::App* doctor = smartpipe::AddDoctorCommand(app, doctor_arguments);
  std::string shell;
  CLI::App* completion = smartpipe::AddCompletionCommand(app, shell);
  smartpipe::SimulateArguments simulate_arguments;
  CLI::App* simulate = smartpipe::AddSimulateCommand(app, simulate_arguments);
  smartpipe::PlanArguments plan_arguments;
  CLI::App* plan = smartpipe::AddPlanCommand(app, plan_arguments);

  const std::vector<std::string> words = Words(argc, argv);
  if (words.empty()) {
    std::cout << app.help() << std::flush;
    return smartpipe::kExitUsage;
  }
  try {
    // CLI11 takes them from the back.
    app.parse(std::vector<std::string>(words.rbegin(), words.rend()));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    // A first word of another command, at the top or in `config`.
    const CLI::App* command = ParsedCommand(app);
    const size_t at = command == &app ? 0 : 1;
    const std::vector<std::string> names = CommandNames(*command);
    if (names.empty() || at >= words.size() || words[at][0] == '-')
      return BadUsage(app, error, words);
    smartpipe::Complain("smartpipe: " + smartpipe::UnknownCommandText(words[at], names));
    return smartpipe::kExitUsage;
  }
  if (train->parsed()) return smartpipe::TrainCommand(arguments);
  if (demo->parsed()) return smartpipe::DemoCommand(arguments);
  return OutputWritten([&] {
    if (timeline->parsed()) return smartpipe::TimelineCommand(timeline_arguments);
    if (explain->parsed()) return smartpipe::ExplainCommand(explain_arguments);
    if (replay->parsed()) return smartpipe::ReplayCommand(replay_arguments);
    if (checkpoints->parsed()) return smartpipe::CheckpointsCommand(checkpoints_arguments);
    if (exported->parsed()) return smartpipe::ExportCommand(export_arguments);
    if (evaluated->parsed()) return smartpipe::EvalCommand(eval_arguments);
    if (certs->parsed()) return smartpipe::CertsCommand(certs_arguments);
    if (check->parsed())
      return smartpipe::ConfigCheckCommand(arguments.config_path, arguments.sets);
    if (show->parsed()) return smartpipe::ConfigShowCommand(arguments.config_path, arguments.sets);
    if (keys->parsed()) return smartpipe::ConfigKeysCommand(keys_prefix);
    if (status->parsed()) return smartpipe::StatusCommand(status_arguments);
    if (top->parsed()) return smartpipe::TopCommand(top_arguments);
    if (layers->parsed()) return smartpipe::LayersCommand(layers_arguments);
    if (decisions->parsed()) return smartpipe::DecisionsCommand(decisions_arguments);
    if (ctl->parsed()) return smartpipe::CtlCommand(*ctl, ctl_arguments);
    if (doctor->parsed()) return smartpipe::DoctorCommand(doctor_arguments);
    if (completion->parsed()) {
      std::cout << smartpipe::CompletionScript(app, shell);
      return smartpipe::kExitFinished;
    }
    if (simulate->parsed()) return smartpipe::SimulateCommand(simulate_arguments);
    if (plan->parsed()) return smartpipe::PlanCommand(plan_arguments);
    return smartpipe::kExitUsage;
  }());
}
