// The models behind MakeModel, one file each; the table is in model.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "worker/model/model.h"

namespace smartpipe {

// sample_shape: [C, H, W], already checked against the table's smallest sizes.

/// Six convolutions with batch normalisation and ReLU, and a head: 7 layers.
std::unique_ptr<ModelSpec> MakeConvnet(const std::vector<int64_t>& sample_shape,
                                       int64_t num_classes);
/// ResNet-18 (He et al. 2016) with torchvision's names and shapes: stem, 8 blocks, head: 10 layers.
/// Two things differ where the data wants it: `conv1` has the data's channels, `fc` its classes.
std::unique_ptr<ModelSpec> MakeResnet18(const std::vector<int64_t>& sample_shape,
                                        int64_t num_classes);
/// The block network of the benchmark: stem, 24 equal blocks, head: 26 layers.
std::unique_ptr<ModelSpec> MakeBlocknet(const std::vector<int64_t>& sample_shape,
                                        int64_t num_classes);

}  // namespace smartpipe
