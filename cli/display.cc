#include "cli/display.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace smartpipe {
namespace {

constexpr int kWidthMax = 100;
constexpr int kWidthUnknown = 80;
constexpr char kClearLine[] = "\r\x1b[K";
constexpr char kClearRest[] = "\x1b[K";

}  // namespace

int TerminalWidth(int fd) {
  winsize size = {};
  const bool known = ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return std::min<int>(known ? size.ws_col : kWidthUnknown, kWidthMax) - 1;
}

Display::Display(std::FILE* out, bool is_terminal, int width, absl::Duration plain_period)
    : out_(out), is_terminal_(is_terminal), width_(width), plain_period_(plain_period) {}

Display Display::ForStdout() {
  return Display(stdout, isatty(STDOUT_FILENO) == 1, TerminalWidth(STDOUT_FILENO));
}

// Written over the old line, whose rest is cleared then: cleared first, it would blink.
void Display::Draw(const std::string& line) {
  if (line == live_) return;
  std::fputs(live_.empty() ? line.c_str() : absl::StrCat("\r", line, kClearRest).c_str(), out_);
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

void Display::PrintSentence(const std::string& sentence) {
  Print(is_terminal_ ? WrapHanging(sentence, width_, 4) : sentence);
}

void Display::ShowProgress(const Progress& progress, absl::Time now) {
  state_.clear();
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

void Display::ClearState() {
  if (!state_.empty()) Clear();
}

}  // namespace smartpipe
