// Whatever bytes the log holds: they are read as what writes the same bytes, or refused.
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "freeze_service/store/event_codec.h"
#include "gtest/gtest.h"
#include "tests/testutil/fuzz.h"
#include "tests/unit/core/core_harness.h"

namespace smartpipe {
namespace {

constexpr int kRounds = 200'000;

class EventCodecFuzzTest : public testutil::FuzzTest {
 protected:
  EventCodecFuzzTest() {
    CoordinatorOptions options;
    options.cuts = {LayerIndex(2)};
    coordinator_ = *Coordinator::Create(options);
    const std::vector<WorkerId> members = {WorkerId("w0"), WorkerId("w1")};
    const std::vector<LayerInfo> layers = testutil::MakeLayers(4);
    for (const WorkerId& member : members) Apply(WorkerJoined{member, 1, {40, 20, 10}, layers});
    for (int32_t rank : {0, 1, 0}) {
      const IntervalIndex interval(static_cast<int64_t>(states_.size()) / 4);
      Apply(testutil::MakeReport(*coordinator_, members, Rank(rank), interval, {0.1, 0.2, 0.3, 1},
                                 layers));
    }
    Apply(WorkerFailed{members[0], Generation(1), "no memory"});
  }

  void Apply(const Event& event) {
    const absl::StatusOr<std::vector<Decision>> result = coordinator_->Apply(event, {});
    ASSERT_TRUE(result.ok()) << result.status();
    events_.push_back(EncodeEvent(event));
    decisions_.push_back(EncodeDecisions(*result));
    states_.push_back(EncodeState(coordinator_->Snapshot()));
  }

  std::string Mutate(const std::vector<std::string>& samples) {
    static const std::vector<std::string> kTokens = {std::string(1, '\0'),
                                                     std::string(4, '\xff'),
                                                     std::string(8, '\0'),
                                                     "\x01",
                                                     "\x02",
                                                     "w0",
                                                     std::string("\0\0\0\x7f", 4)};
    return Edited(samples[Below(samples.size())],
                  {.edits_max = 3, .copy_max = 100, .tokens = kTokens});
  }

  template <typename Decode, typename Encode>
  void Fuzz(const std::vector<std::string>& samples, Decode decode, Encode encode) {
    int num_accepted = 0;
    for (int round = 0; round < kRounds; ++round) {
      const std::string bytes = Mutate(samples);
      const auto value = decode(bytes);
      if (value.ok()) {
        ++num_accepted;
        ASSERT_EQ(encode(*value), bytes) << absl::BytesToHexString(bytes);
      } else {
        ASSERT_TRUE(absl::IsDataLoss(value.status()) || absl::IsFailedPrecondition(value.status()))
            << value.status();
      }
    }
    EXPECT_GT(num_accepted, 50) << "the edits are too wild to try the decoder";
  }

  std::unique_ptr<Coordinator> coordinator_;
  std::vector<std::string> events_, decisions_, states_;
};

TEST_F(EventCodecFuzzTest, MutatedEvents) { Fuzz(events_, DecodeEvent, EncodeEvent); }

TEST_F(EventCodecFuzzTest, MutatedDecisions) { Fuzz(decisions_, DecodeDecisions, EncodeDecisions); }

TEST_F(EventCodecFuzzTest, MutatedSnapshots) { Fuzz(states_, DecodeState, EncodeState); }

}  // namespace
}  // namespace smartpipe
