// Nothing is computed, recorded, sent or changed below the frontier, in whichever stage it lies.
#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "ATen/Parallel.h"
#include "ATen/record_function.h"
#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "c10/core/Allocator.h"
#include "gtest/gtest.h"
#include "services/base/memory_key_value_store.h"
#include "tests/numeric/rank_threads.h"
#include "worker/engine/interpreter.h"

namespace smartpipe {
namespace {

/// Autograd nodes that ran on this thread, counted by Torch's own profiling hook.
thread_local int64_t num_backward_nodes = 0;

std::unique_ptr<at::ObserverContext> CountBackwardNode(const at::RecordFunction&) {
  ++num_backward_nodes;
  return nullptr;
}

/// The convnet on few images, 8 a step in 4 micro-batches.
struct SmallRun {
  explicit SmallRun(const std::string& schedule) {
    options.config.train = {
        .epochs = 1, .batch_size = 8, .microbatches = 4, .seed = 3, .max_steps = 0};
    options.config.pipeline.schedule = schedule;
    options.config.data = {.name = "fashion_mnist", .path = "", .limit_train = 64, .limit_test = 8};
    dataset = OpenDataset(options.config).value();
    model = MakeModel("convnet", dataset->sample_shape(), 10).value();
    options.model = model.get();
    std::vector<std::unique_ptr<Layer>> layers;
    for (LayerIndex layer(0); layer.value() < model->num_layers(); ++layer)
      layers.push_back(model->MakeLayer(layer, 3));
    edge_shapes = EdgeShapes(layers, dataset->sample_shape());
  }
  EngineContext Context(Transport& transport) const {
    return {.config = &options.config,
            .model = model.get(),
            .dataset = dataset.get(),
            .transport = &transport,
            .start_weights = {},
            .edge_shapes = edge_shapes};
  }

  RankThreadsOptions options;
  std::unique_ptr<Dataset> dataset;
  std::unique_ptr<ModelSpec> model;
  std::vector<std::vector<int64_t>> edge_shapes;
};

struct Counts {
  std::vector<int64_t> backward_nodes;  // [rank]
  std::vector<LayerCounters> layers;    // [layer]
  int64_t gradient_messages = 0, gradient_bytes = 0;
  std::vector<int64_t> gradient_bytes_sent;  // [rank]
};

/// Runs `num_steps` steps on threads with a fixed frontier and counts.
Counts CountWork(const std::string& schedule, int64_t frontier, const std::vector<int64_t>& cuts,
                 int64_t num_steps) {
  const SmallRun run(schedule);
  const int32_t size = static_cast<int32_t>(cuts.size()) + 1;
  LoopbackHub hub(size);
  Counts counts;
  counts.layers.resize(run.model->num_layers());
  counts.gradient_bytes_sent.resize(size);
  counts.backward_nodes.resize(size);
  std::vector<std::thread> threads;
  for (int32_t rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      at::set_num_threads(1);
      const std::unique_ptr<Transport> transport = hub.MakeTransport(Rank(rank));
      const EngineContext context = run.Context(*transport);
      const Plan plan = MakePlan(run.options, {.step = 0, .frontier = frontier, .cuts = cuts}, 0);
      const auto interpreter = Interpreter::Create(context, plan).value();
      for (Step step(0); step.value() < num_steps; ++step) {
        const auto loss = interpreter->RunStep(step, /*probe=*/step.value() == 0);
        ASSERT_TRUE(loss.ok()) << loss.status();
      }
      ASSERT_TRUE(interpreter->Drain().ok());
      ASSERT_TRUE(Barrier(*transport).ok());
      for (const auto& [index, runner] : interpreter->layers())
        counts.layers[index.value()] = runner->counters();
      counts.gradient_bytes_sent[rank] = interpreter->gradient_bytes_sent();
      counts.backward_nodes[rank] = num_backward_nodes;
    });
  }
  for (std::thread& thread : threads) thread.join();
  counts.gradient_messages = hub.num_messages(ChannelKind::kGradient);
  counts.gradient_bytes = hub.num_bytes(ChannelKind::kGradient);
  return counts;
}

TEST(FrontierTest, NoGradientBelowTheFrontierInAnyStage) {
  constexpr int64_t kNumSteps = 3, kMicrobatches = 4;
  const std::vector<int64_t> cuts = {2, 4};  // stages [0,2) [2,4) [4,7)
  at::addGlobalCallback(
      at::RecordFunctionCallback(CountBackwardNode).scopes({at::RecordScope::BACKWARD_FUNCTION}));
  for (const char* schedule : {"gpipe", "1f1b"}) {
    std::vector<int64_t> nodes_before;
    for (int64_t frontier = 0; frontier < 7; ++frontier) {
      SCOPED_TRACE(testing::Message() << schedule << " frontier " << frontier);
      const Counts counts = CountWork(schedule, frontier, cuts, kNumSteps);
      for (int64_t layer = 0; layer < 7; ++layer) {
        const LayerCounters& counter = counts.layers[layer];
        if (layer < frontier) {
          EXPECT_EQ(counter.num_graphs, 0) << "layer " << layer;
          EXPECT_EQ(counter.num_gradient_tensors, 0) << "layer " << layer;
        } else {
          EXPECT_EQ(counter.num_graphs, kNumSteps * kMicrobatches) << "layer " << layer;
          EXPECT_GE(counter.num_gradient_tensors, kNumSteps * kMicrobatches) << "layer " << layer;
        }
      }
      // A stage runs autograd nodes for its trainable layers only: fewer with each frozen layer.
      for (size_t rank = 0; rank < 3; ++rank) {
        const bool frozen = rank < cuts.size() && frontier >= cuts[rank];
        EXPECT_EQ(counts.backward_nodes[rank] == 0, frozen) << "rank " << rank;
        if (nodes_before.empty()) continue;
        EXPECT_LE(counts.backward_nodes[rank], nodes_before[rank]) << "rank " << rank;
      }
      EXPECT_NE(counts.backward_nodes, nodes_before);
      nodes_before = counts.backward_nodes;
      // Gradients cross an edge only if a layer before it is trainable.
      const int64_t live_edges = (frontier < 2) + (frontier < 4);
      EXPECT_EQ(counts.gradient_messages, live_edges * kNumSteps * kMicrobatches);
      EXPECT_EQ(counts.gradient_bytes > 0, live_edges > 0);
      EXPECT_EQ(counts.gradient_bytes_sent[1] > 0, frontier < 2);
      EXPECT_EQ(counts.gradient_bytes_sent[2] > 0, frontier < 4);
      EXPECT_EQ(counts.gradient_bytes_sent[0], 0);
    }
  }
}

/// Counts the live blocks of each size that a rank's thread has made. One for the process: Torch
/// keeps blocks to its end.
class CountingAllocator final : public c10::Allocator {
 public:
  static CountingAllocator& Get() {
    static CountingAllocator& allocator = *new CountingAllocator();
    return allocator;
  }
  static inline thread_local int32_t rank_of_thread = -1;

  c10::DataPtr allocate(size_t num_bytes) override {
    c10::DataPtr data = base_->allocate(num_bytes);
    void* const start = data.get();
    absl::MutexLock lock(&mutex_);
    Count& count = counts_[{rank_of_thread, num_bytes}];
    count.peak = std::max(count.peak, ++count.live);
    if (start != nullptr) blocks_.insert({start, Block{&count, std::move(data)}});
    return {start, start, &Free, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Free; }
  void copy_data(void* to, const void* from, size_t num_bytes) const override {
    default_copy_data(to, from, num_bytes);
  }
  void Reset() {
    absl::MutexLock lock(&mutex_);
    for (auto& [key, count] : counts_) count.peak = count.live;
  }
  int64_t Peak(int32_t rank, int64_t num_bytes) {
    absl::MutexLock lock(&mutex_);
    return counts_[{rank, static_cast<size_t>(num_bytes)}].peak;
  }

 private:
  struct Count {
    int64_t live = 0, peak = 0;
  };
  struct Block {
    Count* count;
    c10::DataPtr data;
  };
  CountingAllocator() : base_(c10::GetAllocator(c10::kCPU)) {
    c10::SetAllocator(c10::kCPU, this, /*priority=*/1);
  }
  static void Free(void* start) {
    absl::MutexLock lock(&Get().mutex_);
    const auto block = Get().blocks_.extract(start);
    if (!block.empty()) --block.mapped().count->live;
  }
  c10::Allocator* const base_;
  absl::Mutex mutex_;
  std::map<std::pair<int32_t, size_t>, Count> counts_ ABSL_GUARDED_BY(mutex_);
  std::map<void*, Block> blocks_ ABSL_GUARDED_BY(mutex_);
};

/// Peaks of live tensors of the size of the messages on an edge, counted by their maker's rank.
struct LivePeaks {
  int64_t of_sender = 0, of_receiver = 0;
};

/// Two frozen stages before a trainable one that does not begin before the last frozen one is
/// through a step and the first through two. Returns the peaks at both edges.
std::vector<LivePeaks> RunAhead(bool gloo, const std::vector<int64_t>& cuts) {
  constexpr int64_t kNumSteps = 4;
  const SmallRun small("1f1b");
  const Plan plan = MakePlan(small.options, {.step = 0, .frontier = cuts[1], .cuts = cuts}, 0);
  EXPECT_EQ(plan.credits, std::vector<int32_t>({4, 4}));
  CountingAllocator& allocator = CountingAllocator::Get();
  allocator.Reset();
  LoopbackHub hub(3);
  const auto store = std::make_shared<MemoryKeyValueStore>();
  absl::Notification first_is_ahead, second_is_ahead;
  std::vector<std::thread> threads;
  for (int32_t rank = 0; rank < 3; ++rank) {
    threads.emplace_back([&, rank] {
      at::set_num_threads(1);
      CountingAllocator::rank_of_thread = rank;
      const std::unique_ptr<Transport> transport =
          gloo ? MakeGlooTransport({.rank = Rank(rank),
                                    .size = 3,
                                    .member_names = {"w0", "w1", "w2"},
                                    .store = store})
                     .value()
               : hub.MakeTransport(Rank(rank));
      const EngineContext context = small.Context(*transport);
      const auto interpreter = Interpreter::Create(context, plan).value();
      if (rank == 2) {
        first_is_ahead.WaitForNotification();
        second_is_ahead.WaitForNotification();
      }
      for (Step step(0); step.value() < kNumSteps; ++step) {
        const bool goes_on = step.value() + 1 < kNumSteps;
        const auto loss =
            interpreter->RunStep(step, /*probe=*/false, goes_on ? &interpreter->plan() : nullptr);
        ASSERT_TRUE(loss.ok()) << loss.status();
        if (rank == 0 && step == Step(1)) first_is_ahead.Notify();
        if (rank == 1 && step == Step(0)) second_is_ahead.Notify();
      }
      ASSERT_TRUE(interpreter->Drain().ok());
      ASSERT_TRUE(Barrier(*transport).ok());
      for (const auto& [index, runner] : interpreter->layers()) {
        // The trainable stage is the last of a 1F1B: one micro-batch at a time.
        EXPECT_EQ(runner->counters().peak_saved, rank == 2 ? 1 : 0) << "layer " << index.value();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<LivePeaks> peaks;
  for (int32_t edge = 0; edge < 2; ++edge) {
    const std::vector<int64_t>& sample = small.edge_shapes[cuts[edge]];
    const int64_t num_bytes =
        std::accumulate(sample.begin(), sample.end(), 2 * sizeof(float), std::multiplies<>());
    peaks.push_back({allocator.Peak(edge, num_bytes), allocator.Peak(edge + 1, num_bytes)});
  }
  return peaks;
}

TEST(FrontierTest, FrozenStagesRunAheadAcrossStepsWithinTheirCredits) {
  constexpr int64_t kCredits = 4;
  for (const bool gloo : {false, true}) {
    SCOPED_TRACE(gloo ? "gloo" : "loopback");
    // Layers 2 and 4 halve the maps: besides messages only the convolution's own copy of its input
    // has the size of what a stage receives.
    const std::vector<LivePeaks> receive = RunAhead(gloo, {2, 4});
    EXPECT_EQ(receive[0].of_receiver, kCredits + 1);
    EXPECT_EQ(receive[1].of_receiver, kCredits + 2) << "one is saved for its backward";
    // And what a stage sends has the size of its last layer's temporaries alone. The last frozen
    // stage is through a step before anyone receives from it.
    constexpr int64_t kTemporaries = 3;  // of a convolution, a normalisation and a ReLU
    const std::vector<LivePeaks> send = RunAhead(gloo, {3, 5});
    EXPECT_GE(send[1].of_sender, kCredits);
    for (const LivePeaks& edge : send) EXPECT_LE(edge.of_sender, kCredits + kTemporaries);
  }
}

}  // namespace
}  // namespace smartpipe
