// A KeyValueStore over one socket between a test and its child processes.
#ifndef SMARTPIPE_TESTS_COMPONENT_TRANSPORT_PROCESS_STORE_H_
#define SMARTPIPE_TESTS_COMPONENT_TRANSPORT_PROCESS_STORE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "services/base/key_value_store.h"

namespace smartpipe::testutil {

/// Child's end. One call at a time (others wait).  `after_set` runs when a Set has arrived: the
/// place to die at.
std::unique_ptr<KeyValueStore> ConnectStore(int fd,
                                            std::function<void(const std::string& key)> after_set);

/// Parent's end: answers calls from `store` until the child closes the socket. Closes `fd`.
void ServeStore(int fd, KeyValueStore& store);

}  // namespace smartpipe::testutil

#endif  // SMARTPIPE_TESTS_COMPONENT_TRANSPORT_PROCESS_STORE_H_
