#include "cli/display.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace smartpipe {
namespace {

constexpr int kWidthMax = 80;
constexpr char kClearLine[] = "\r\x1b[K";

// One column stays free: a terminal may wrap after the last.
int TerminalWidth() {
  winsize size = {};
  const bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return std::min<int>(known ? size.ws_col : kWidthMax, kWidthMax) - 1;
}

}  // namespace

Display::Display(std::FILE* out, bool is_terminal, int width, absl::Duration plain_period)
    : out_(out), is_terminal_(is_terminal), width_(width), plain_period_(plain_period) {}

Display Display::ForStdout() {
  return Display(stdout, isatty(STDOUT_FILENO) == 1, TerminalWidth());
}

void Display::Draw(const std::string& line) {
  std::fputs(absl::StrCat(live_.empty() ? "" : kClearLine, line).c_str(), out_);
  std::fflush(out_);
  live_ = line;
}

void Display::Print(const std::string& line) {
  std::fputs(
      absl::StrCat(live_.empty() ? "" : kClearLine, absl::StripSuffix(line, "\n"), "\n", live_)
          .c_str(),
      out_);
  std::fflush(out_);
}

void Display::ShowProgress(const Progress& progress, absl::Time now) {
  if (is_terminal_) {
    Draw(LiveLine(progress, width_));
  } else if (now - last_plain_ >= plain_period_) {
    last_plain_ = now;
    Print(PlainLine(progress));
  }
}

void Display::ShowState(const std::string& text) {
  if (is_terminal_) {
    Draw(text.substr(0, static_cast<size_t>(width_)));
  } else if (text != state_) {
    Print(text);
  }
  state_ = text;
}

void Display::Clear() {
  if (!live_.empty()) Draw("");
}

}  // namespace smartpipe
