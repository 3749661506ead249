// smartpipe: the command. Parses the command line; the commands themselves are in commands.cc.
#include <csignal>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "cli/commands.h"
#include "cli/explain_command.h"
#include "cli/plan_command.h"
#include "cli/simulate_command.h"
#include "cli/timeline_command.h"
#include "services/base/version.h"

namespace {

constexpr char kFooter[] = R"(Examples:
  smartpipe train examples/fashion_mnist.toml
  smartpipe train examples/fashion_mnist.toml --set pipeline.stages=4 \
      --set freeze.policy=fixed --run-dir runs/fixed --summary fixed.json
  smartpipe demo examples/fashion_mnist.toml
  smartpipe explain runs/fixed
  smartpipe timeline runs/fixed --svg pipeline.svg --perfetto pipeline.json
  smartpipe config check my.toml
  smartpipe config keys
  smartpipe simulate --schedule 1f1b --stages 4 --samples 6 --batch 3
  smartpipe plan --costs costs.json --stages 4 --microbatches 8 --frontier 12

Exit codes: 0 finished, 1 the run failed, 2 mistake in the command line or the
config (nothing was started), 130 stopped by Ctrl-C or SIGTERM.)";

void AddConfigArguments(CLI::App* command, smartpipe::TrainArguments& arguments) {
  command->add_option("CONFIG", arguments.config_path, "TOML file")->required()->type_name("");
  // One word per --set, so that CONFIG may follow it.
  command->add_option("--set", arguments.sets, "change a key; may be repeated")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void AddRunArguments(CLI::App* command, smartpipe::TrainArguments& arguments) {
  AddConfigArguments(command, arguments);
  command->add_option("--run-dir", arguments.run_dir, "new folder for files [runs/TIME-POLICY]")
      ->type_name("DIR");
  command->add_option("--summary", arguments.summary_path, "write the results as JSON, too")
      ->type_name("FILE");
}

}  // namespace

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);  // a closed pipe must not end a run
  smartpipe::TrainArguments arguments;
  CLI::App app("Pipeline-parallel training that gets faster as the model converges.", "smartpipe");
  app.set_help_flag("-h,--help", "print this help");
  app.set_version_flag("--version", "smartpipe " SMARTPIPE_VERSION, "print the version");
  app.require_subcommand(1);
  app.footer(kFooter);
  app.get_formatter()->column_width(28);

  CLI::App* train = app.add_subcommand("train", "train on this machine, one process per stage");
  AddRunArguments(train, arguments);
  CLI::App* demo = app.add_subcommand("demo", "train without and with freezing, and compare");
  AddRunArguments(demo, arguments);
  smartpipe::TimelineArguments timeline_arguments;
  CLI::App* timeline = smartpipe::AddTimelineCommand(app, timeline_arguments);
  smartpipe::ExplainArguments explain_arguments;
  CLI::App* explain = smartpipe::AddExplainCommand(app, explain_arguments);
  CLI::App* config = app.add_subcommand("config", "check and explain config files");
  config->require_subcommand(1);
  CLI::App* check = config->add_subcommand("check", "say what is wrong: line, key and cure");
  AddConfigArguments(check, arguments);
  CLI::App* show = config->add_subcommand("show", "print it with every key");
  AddConfigArguments(show, arguments);
  CLI::App* keys = config->add_subcommand("keys", "explain every key");
  smartpipe::SimulateArguments simulate_arguments;
  CLI::App* simulate = smartpipe::AddSimulateCommand(app, simulate_arguments);
  smartpipe::PlanArguments plan_arguments;
  CLI::App* plan = smartpipe::AddPlanCommand(app, plan_arguments);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (argc > 1 && argv[1][0] != '-' && app.get_subcommands().empty())
      return smartpipe::UnknownCommand(argv[1]);
    return app.exit(error) == 0 ? smartpipe::kExitFinished : smartpipe::kExitUsage;
  }
  if (train->parsed()) return smartpipe::TrainCommand(arguments);
  if (demo->parsed()) return smartpipe::DemoCommand(arguments);
  if (timeline->parsed()) return smartpipe::TimelineCommand(timeline_arguments);
  if (explain->parsed()) return smartpipe::ExplainCommand(explain_arguments);
  if (check->parsed()) return smartpipe::ConfigCheckCommand(arguments.config_path, arguments.sets);
  if (show->parsed()) return smartpipe::ConfigShowCommand(arguments.config_path, arguments.sets);
  if (keys->parsed()) return smartpipe::ConfigKeysCommand();
  if (simulate->parsed()) return smartpipe::SimulateCommand(simulate_arguments);
  if (plan->parsed()) return smartpipe::PlanCommand(plan_arguments);
  return smartpipe::kExitUsage;
}
