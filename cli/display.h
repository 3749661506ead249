// Where lines for people go: a terminal with one live line at the bottom, or a pipe with plain
// lines.
#pragma once

#include <cstdio>
#include <string>

#include "absl/time/time.h"
#include "cli/render.h"

namespace smartpipe {

/// Columns of the terminal behind `fd` that lines for people use: one stays free, as a terminal may
/// wrap after the last, and at most 99; 79 where it is not known.
int TerminalWidth(int fd);

/// Threads: one.
class Display {
 public:
  /// `out` must outlive the display. On a terminal the live line is redrawn in place; else
  /// ShowProgress prints a line at most every `plain_period`.
  Display(std::FILE* out, bool is_terminal, int width,
          absl::Duration plain_period = absl::Seconds(5));
  /// For stdout as it is.
  static Display ForStdout();

  /// A lasting line, above the live one; a \n at its end adds nothing.
  void Print(const std::string& line);
  /// The same for a long sentence: wrapped with a hanging indent on a terminal, else one line.
  void PrintSentence(const std::string& sentence);
  void ShowProgress(const Progress& progress, absl::Time now);
  /// A passing state instead of numbers, like "2 of 4 workers ...": live on a terminal, else once.
  void ShowState(const std::string& text);
  /// Takes the live line away.
  void Clear();
  /// Takes the live line away if it is a state: what is printed next made it old.
  void ClearState();

 private:
  void Draw(const std::string& line);

  std::FILE* out_;
  bool is_terminal_;
  int width_;
  absl::Duration plain_period_;
  absl::Time last_plain_ = absl::InfinitePast();
  std::string live_;   // what stands on the live line
  std::string state_;  // last state shown; empty = progress came after it
};

}  // namespace smartpipe
