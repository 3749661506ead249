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
  EXPECT_EQ(memory.text(),
            "waiting\r" + live + "\x1b[K" + "\r\x1b[Kdecision\n" + live + "\r\x1b[K");
}

TEST(DisplayTest, TerminalDrawsWhatIsUnchangedOnlyOnce) {
  MemoryFile memory;
  Display display(memory.file(), /*is_terminal=*/true, 79);
  display.ShowProgress(kProgress, absl::UnixEpoch());
  display.ShowProgress(kProgress, absl::UnixEpoch());
  EXPECT_EQ(memory.text(), LiveLine(kProgress, 79));
}

TEST(DisplayTest, SentencesAreWrappedOnATerminalOnly) {
  for (const bool is_terminal : {true, false}) {
    MemoryFile memory;
    Display display(memory.file(), is_terminal, 12);
    display.PrintSentence("one two three four");
    EXPECT_EQ(memory.text(),
              is_terminal ? "one two\n    three\n    four\n" : "one two three four\n");
  }
}

TEST(DisplayTest, OnlyAStateIsCleared) {
  MemoryFile memory;
  Display display(memory.file(), /*is_terminal=*/true, 79);
  display.ShowProgress(kProgress, absl::UnixEpoch());
  display.ClearState();
  const std::string live = LiveLine(kProgress, 79);
  EXPECT_EQ(memory.text(), live);
  display.ShowState("evaluating");
  display.ClearState();
  EXPECT_EQ(memory.text(), live + "\revaluating\x1b[K\r\x1b[K");
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
