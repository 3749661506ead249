// The real worker/cuda/nccl_transport.cc over a CUDA and an NCCL that are made of threads, so that
// its logic runs where there is no GPU: order, connecting, aborts, time-outs, what peers are told.
//
// Fake: streams (a thread that does one thing after the other), events, five calls of NCCL. As with
// the real ones an operation waits for its peer on its stream, an abort ends it with the tensor as
// it happens to be, and a peer is told nothing. What only a GPU can show stays unproven.
#pragma once

#include "tests/component/transport/rank_group.h"

namespace smartpipe::testutil {

/// Ranks are on "cuda:<rank>"; the tests' tensors are used in place, as if they were there.
TransportKind FakeNcclKind();

/// Communicators, and streams of channels, that are there now.
int NumFakeCommunicators();
int NumFakeStreams();

}  // namespace smartpipe::testutil
