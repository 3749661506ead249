// Nothing is computed, recorded, sent or changed below the frontier, in whichever stage it lies.
#include <memory>
#include <thread>
#include <vector>

#include "ATen/Parallel.h"
#include "ATen/record_function.h"
#include "gtest/gtest.h"
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

/// One rank with its interpreter, made on this thread and run on its own.
struct RankRun {
  std::unique_ptr<Transport> transport;
  EngineContext context;
  std::unique_ptr<Interpreter> interpreter;
};

// Two frozen stages before a trainable one that has not begun: the last frozen one goes through one
// step, the first through two, and nobody holds more than the credits.
TEST(FrontierTest, FrozenStagesRunAheadAcrossStepsWithinTheirCredits) {
  constexpr int64_t kMicrobatches = 4, kNumSteps = 3;
  const SmallRun small("1f1b");
  const Plan plan = MakePlan(small.options, {.step = 0, .frontier = 4, .cuts = {2, 4}}, 0);
  ASSERT_EQ(plan.credits, std::vector<int32_t>({kMicrobatches, kMicrobatches}));
  LoopbackHub hub(3);
  std::vector<RankRun> ranks(3);
  for (int32_t rank = 0; rank < 3; ++rank) {
    ranks[rank].transport = hub.MakeTransport(Rank(rank));
    ranks[rank].context = small.Context(*ranks[rank].transport);
    ranks[rank].interpreter = Interpreter::Create(ranks[rank].context, plan).value();
  }
  auto run = [&ranks](int rank, int64_t first_step, int64_t end_step) {
    return std::thread([&ranks, rank, first_step, end_step] {
      at::set_num_threads(1);
      for (Step step(first_step); step.value() < end_step; ++step) {
        const auto loss = ranks[rank].interpreter->RunStep(step, /*probe=*/false);
        ASSERT_TRUE(loss.ok()) << loss.status();
      }
    });
  };
  std::thread first = run(0, 0, 2), second = run(1, 0, 1);
  second.join();
  // Rank 0 needs the receives that rank 1 posts for its second step.
  std::thread rest_of_second = run(1, 1, kNumSteps);
  first.join();
  EXPECT_EQ(hub.num_messages(ChannelKind::kActivation) > 0, true);
  EXPECT_EQ(ranks[2].interpreter->peak_receive_buffers(), 0) << "rank 2 has begun";
  std::thread rest_of_first = run(0, 2, kNumSteps), third = run(2, 0, kNumSteps);
  for (std::thread* thread : {&rest_of_second, &rest_of_first, &third}) thread->join();
  for (int rank : {1, 2}) {
    EXPECT_EQ(ranks[rank].interpreter->peak_receive_buffers(), kMicrobatches) << "rank " << rank;
  }
  for (int rank = 0; rank < 3; ++rank) {
    for (const auto& [index, runner] : ranks[rank].interpreter->layers()) {
      // The trainable stage is the last of a 1F1B: one micro-batch at a time.
      EXPECT_EQ(runner->counters().peak_saved, rank == 2 ? 1 : 0) << "layer " << index.value();
    }
  }
}

}  // namespace
}  // namespace smartpipe
