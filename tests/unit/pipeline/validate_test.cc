// The validator against a second, dumber referee on broken programs.
#include <algorithm>
#include <random>
#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pipeline/schedule.h"
#include "tests/unit/pipeline/shapes.h"

namespace smartpipe {
namespace {

using ::testing::HasSubstr;

// Plays with rendezvous sends and data as sets of words; true when all data was there and nothing
// is missing.
bool DumbPlay(const ScheduleShape& shape, const std::vector<Program>& programs) {
  const int num_stages = shape.num_stages, frozen = shape.num_frozen_stages;
  std::set<std::string>
      have;  // "F2.1" computed or received, "a2.1" activation at the input of stage 2, ...
  auto word = [](const char* kind, int s, int m) { return absl::StrCat(kind, s, ".", m); };
  std::vector<size_t> next(programs.size(), 0);
  std::vector<int> last_forward(num_stages, -1), last_backward(num_stages, -1);
  bool moved = true;
  auto run = [&](const Instruction& cell) {
    const int s = cell.stage.value(), m = cell.microbatch.value();
    if (have.count(word("OPT", s, 0))) return false;
    switch (cell.op) {
      case Op::kForward:
        return (s == 0 || have.count(word("a", s, m))) && m == ++last_forward[s] &&
               have.insert(word("F", s, m)).second;
      case Op::kBackward:
        return s >= frozen && have.count(word("F", s, m)) &&
               (s == num_stages - 1 || have.count(word("g", s, m))) && m == ++last_backward[s] &&
               have.insert(word("B", s, m)).second;
      case Op::kOptimize:
        return s >= frozen && last_backward[s] == shape.num_microbatches - 1 &&
               have.insert(word("OPT", s, 0)).second;
      default:
        return false;
    }
  };
  while (moved) {
    moved = false;
    for (size_t rank = 0; rank < programs.size(); ++rank) {
      if (next[rank] == programs[rank].size()) continue;
      const Instruction& cell = programs[rank][next[rank]];
      const int s = cell.stage.value(), m = cell.microbatch.value();
      if (IsCompute(cell.op)) {
        if (!run(cell)) return false;
      } else {
        const bool forward = cell.op == Op::kSendForward;
        if (!forward && cell.op != Op::kSendBackward) continue;
        const int peer = forward ? s + 1 : s - 1;
        if (peer < 0 || peer >= num_stages || next[peer] == programs[peer].size()) continue;
        const Instruction want{forward ? Op::kRecvForward : Op::kRecvBackward, StageIndex(peer),
                               cell.microbatch};
        if (programs[peer][next[peer]] != want) continue;
        if (!have.count(word(forward ? "F" : "B", s, m)) || have.count(word("OPT", s, 0)))
          return false;
        if (!have.insert(word(forward ? "a" : "g", peer, m)).second) return false;
        ++next[peer];
      }
      ++next[rank];
      moved = true;
    }
  }
  for (size_t rank = 0; rank < programs.size(); ++rank) {
    if (next[rank] != programs[rank].size()) return false;
  }
  const size_t trains = num_stages - frozen, m = shape.num_microbatches;
  return have.size() == m * (num_stages + trains + (num_stages - 1) + (trains - 1)) + trains;
}

std::vector<Program> Mutated(const std::vector<Program>& programs, std::mt19937& random) {
  std::vector<Program> mutated = programs;
  Program& program = mutated[random() % mutated.size()];
  const size_t i = random() % program.size(), j = random() % program.size();
  switch (random() % 4) {
    case 0:
      std::swap(program[i], program[std::min(i + 1, program.size() - 1)]);
      break;
    case 1:
      std::swap(program[i], program[j]);
      break;
    case 2:
      program.erase(program.begin() + i);
      break;
    default:
      program.insert(program.begin() + j, program[i]);
      break;
  }
  return mutated;
}

TEST(Validate, AgreesWithTheDumbRefereeOnMutatedPrograms) {
  std::mt19937 random(5);
  int num_refused = 0, num_harmless = 0, num_unchanged = 0;
  for (const std::string& name : ScheduleNames()) {
    for (const ScheduleShape& shape : AllSmallShapes()) {
      const auto programs = *MakePrograms(shape, name);
      ASSERT_TRUE(DumbPlay(shape, programs)) << Describe(shape, name);
      for (int repeat = 0; repeat < 40; ++repeat) {
        const auto mutated = Mutated(programs, random);
        const absl::Status status = ValidatePrograms(shape, mutated);
        ASSERT_EQ(status.ok(), DumbPlay(shape, mutated)) << Describe(shape, name) << "\n"
                                                         << status << "\n"
                                                         << FormatGrid(mutated);
        (mutated == programs ? num_unchanged : status.ok() ? num_harmless : num_refused)++;
      }
    }
  }
  std::printf("mutants: %d refused, %d harmless, %d unchanged\n", num_refused, num_harmless,
              num_unchanged);
  EXPECT_GT(num_refused, 8000);
}

TEST(Validate, EveryDroppedOrDoubledInstructionIsCaught) {
  for (const std::string& name : ScheduleNames()) {
    for (const ScheduleShape& shape : {MakeShape(3, 4), MakeShape(4, 3, 2), MakeShape(1, 2)}) {
      const auto programs = *MakePrograms(shape, name);
      for (size_t rank = 0; rank < programs.size(); ++rank) {
        for (size_t i = 0; i < programs[rank].size(); ++i) {
          auto dropped = programs, doubled = programs;
          dropped[rank].erase(dropped[rank].begin() + i);
          doubled[rank].insert(doubled[rank].begin() + i, programs[rank][i]);
          EXPECT_FALSE(ValidatePrograms(shape, dropped).ok()) << programs[rank][i];
          EXPECT_FALSE(ValidatePrograms(shape, doubled).ok()) << programs[rank][i];
        }
      }
    }
  }
}

struct Case {
  const char* rank0;
  const char* rank1;
  int frozen;
  const char* want;
};

TEST(Validate, MessagesNameTheCell) {
  const Case kCases[] = {
      {"0B0", "", 0, "rank 0, cell 0 (0B0): its forward has not run yet\nrank 0: >0B0<"},
      {"0F0 0F0", "", 0, "rank 0, cell 1 (0F0): micro-batch 1 is next"},
      {"0F0 0SF1", "", 0, "there are 1 micro-batches"},
      {"0SF0", "", 0, "what it sends is not computed yet"},
      {"0F0 0SF0", "1F0", 0,
       "rank 0, end: stage 0 ends after 0 of 1 B or I\nrank 0: 0F0 0SF0 >end<"},
      {"0F0 0SF0 0RB0 0B0", "", 0, "stage 0 has no OPT"},
      {"0F0 0SF0 0RB0 0B0 0OPT", "1F0", 0, "its input from stage 0 is not there yet"},
      {"0F0 0SF0 0RB0 0B0 0OPT 0F0", "", 0, "stage 0 has had its optimizer step"},
      {"0F0 0SF0 0OPT", "", 0, "a backward is missing before it"},
      {"0F0 0SF0 0B0", "", 0, "its gradient from stage 1 is not there yet"},
      {"0F0 0SF0 0RB0", "", 1, "stage 0 is frozen and takes no gradient"},
      {"0F0 0SF0 0OPT", "", 1, "stage 0 is frozen"},
      {"0F0 0SF0", "1RF0 1F0 1B0 1SB0", 1, "stage 0 is frozen and takes no gradient"},
      {"0F0 0RF0", "", 0, "there is no edge to another rank"},
      {"1F0", "", 0, "stage 1 belongs to rank 1"},
      {"2F0", "", 0, "there are 2 stages"},
      {"0F0 0SF0 0RB0 0W0", "", 0, "its I has not run yet"},
      {"0F0 0SF0 0RB0 0I0 0REDUCE", "", 0, "a backward is missing before it"},
      {"0F0 0RB0 0SF0 0B0 0OPT", "1RF0 1F0 1B0 1SB0 1OPT", 0,
       "with sends that wait for their receive: deadlock: these wait for ever: rank 0 at cell 1 "
       "(0RB0), rank 1 at "
       "cell 0 (1RF0)\nrank 0: 0F0 >0RB0< 0SF0 0B0 0OPT\nrank 1: >1RF0< 1F0"},
  };
  for (const Case& test : kCases) {
    const absl::Status status = ValidatePrograms(
        MakeShape(2, 1, test.frozen), {*ParseProgram(test.rank0), *ParseProgram(test.rank1)});
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << test.want;
    EXPECT_THAT(status.message(), HasSubstr(test.want));
  }
  EXPECT_THAT(ValidatePrograms(MakeShape(2, 1), {{}}).message(),
              HasSubstr("1 programs for 2 ranks"));
}

TEST(Validate, ReduceIsAllowedBeforeTheOptimizer) {
  EXPECT_TRUE(ValidatePrograms(MakeShape(1, 1), {*ParseProgram("0F0 0B0 0REDUCE 0OPT")}).ok());
  EXPECT_FALSE(
      ValidatePrograms(MakeShape(1, 1), {*ParseProgram("0F0 0B0 0REDUCE 0REDUCE 0OPT")}).ok());
}

}  // namespace
}  // namespace smartpipe
