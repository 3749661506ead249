#include "cli/display.h"

#include <cstdlib>

#include "gtest/gtest.h"

namespace smartpipe {
namespace {

class MemoryFile {
 public:
  MemoryFile() : file_(open_memstream(&text_, &size_)) {}
  ~MemoryFile() {
    std::fclose(file_);
    std::free(text_);
  }
  std::FILE* file() { return file_; }
  std::string text() {
    std::fflush(file_);
    return std::string(text_, size_);
  }

 private:
  char* text_ = nullptr;
  size_t size_ = 0;
  std::FILE* file_;
};

const Progress kProgress{.step = 1,
                         .num_steps = 4,
                         .steps_per_epoch = 2,
                         .loss = 1,
                         .samples_per_second = 5,
                         .cuts = {3}};

TEST(DisplayTest, TerminalKeepsOneLiveLineBelowThePrintedOnes) {
  MemoryFile memory;
  Display display(memory.file(), /*is_terminal=*/true, 79);
  display.ShowState("waiting");
  display.ShowProgress(kProgress, absl::UnixEpoch());
  const std::string live = LiveLine(kProgress, 79);
  display.Print("decision\n");
  display.Clear();
  display.Clear();
  EXPECT_EQ(memory.text(), "waiting\r\x1b[K" + live + "\r\x1b[Kdecision\n" + live + "\r\x1b[K");
}

TEST(DisplayTest, TerminalCutsALongState) {
  MemoryFile memory;
  Display display(memory.file(), /*is_terminal=*/true, 5);
  display.ShowState("1234567");
  EXPECT_EQ(memory.text(), "12345");
}

TEST(DisplayTest, PipeGetsPlainLinesNowAndThen) {
  MemoryFile memory;
  Display display(memory.file(), /*is_terminal=*/false, 79, absl::Seconds(5));
  display.ShowState("waiting");
  display.ShowState("waiting");
  for (int second = 0; second < 10; ++second) {
    display.ShowProgress(kProgress, absl::UnixEpoch() + absl::Seconds(second));
  }
  display.Clear();
  const std::string line = PlainLine(kProgress) + "\n";
  EXPECT_EQ(memory.text(), "waiting\n" + line + line);
}

}  // namespace
}  // namespace smartpipe
