#include "cli/top_command.h"

#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>
#include <iostream>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cli/commands.h"
#include "cli/complaint.h"
#include "cli/display.h"
#include "cli/run_views.h"
#include "cli/view_commands.h"
#include "services/rpc/run_state.h"

namespace smartpipe {
namespace {

constexpr char kHome[] = "\x1b[H";         // to the first line
constexpr char kClearLine[] = "\x1b[K\n";  // what is left of a line
constexpr char kClearRest[] = "\x1b[J";    // the lines below
constexpr char kOtherScreen[] = "\x1b[?1049h\x1b[?25l";
constexpr char kBack[] = "\x1b[?25h\x1b[?1049l";

/// Draws over what was there, so that nothing flickers.
void Draw(const std::string& text) {
  std::string screen = kHome;
  for (const char c : text) {
    if (c == '\n') {
      screen += kClearLine;
    } else {
      screen += c;
    }
  }
  std::cout << screen << kClearRest << std::flush;
}

/// True when Ctrl-C or SIGTERM came within `period`.
bool WaitOrStop(int signals, absl::Duration period) {
  pollfd waited = {.fd = signals, .events = POLLIN, .revents = 0};
  return poll(&waited, 1, static_cast<int>(absl::ToInt64Milliseconds(period))) > 0;
}

int Watch(const TopArguments& arguments, v1::FreezeService::StubInterface& stub) {
  const bool live = !arguments.once && isatty(STDOUT_FILENO) != 0;
  sigset_t stops;
  sigemptyset(&stops);
  sigaddset(&stops, SIGINT);
  sigaddset(&stops, SIGTERM);
  if (live) pthread_sigmask(SIG_BLOCK, &stops, nullptr);
  const int signals = signalfd(-1, &stops, SFD_CLOEXEC);
  if (live) std::cout << kOtherScreen;
  absl::StatusOr<RunView> view;
  std::string text;
  while (true) {
    view = FetchRunView(stub);
    if (!view.ok()) break;
    text = StatusText(*view, TerminalWidth(STDOUT_FILENO));
    if (!live) break;
    Draw(absl::StrCat(text, "\n", absl::FormatTime("%H:%M:%S", absl::Now(), absl::LocalTimeZone()),
                      ", Ctrl-C leaves"));
    if (IsOver(view->run) || WaitOrStop(signals, absl::Seconds(arguments.period_s))) break;
  }
  if (live) std::cout << kBack;
  close(signals);
  std::cout << text << std::flush;  // what was seen last stays
  if (view.ok()) return kExitFinished;
  return Fail(view.status(), IsUnreachable(view.status()) ? kExitUnreachable : kExitFailed);
}

}  // namespace

CLI::App* AddTopCommand(CLI::App& app, TopArguments& arguments) {
  CLI::App* command = app.add_subcommand("top", "watch a run on a live screen");
  AddRunTarget(*command, arguments.target);
  command->add_option("--period", arguments.period_s, "seconds between two looks [1]")
      ->check(CLI::Range(0.1, 3600.0));
  command->add_flag("--once", arguments.once, "one look, without a screen; so is a pipe");
  command->footer(
      "Ends with the run, or with Ctrl-C. A worker's idle share is the part of a step in which\n"
      "it waits for others.\n\n"
      "Example: smartpipe top runs/fixed\n\n"
      "Exit codes: 0 done, 1 the service refused, 2 mistake in the command line, 3 the run\n"
      "cannot be reached.");
  return command;
}

int TopCommand(const TopArguments& arguments) {
  return RunCommand(arguments.target, [&arguments](v1::FreezeService::StubInterface& stub) {
    return Watch(arguments, stub);
  });
}

}  // namespace smartpipe
