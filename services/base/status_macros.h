// Early-return macros for absl::Status and absl::StatusOr.
//
//   SP_RETURN_IF_ERROR(DoIt());
//   SP_ASSIGN_OR_RETURN(Plan plan, MakePlan(config));
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace smartpipe {

/// Puts `context` before the message of a failed status ("<context>: <message>") and keeps its
/// code. An ok status passes through.  Threads: pure.
inline absl::Status Annotate(const absl::Status& status, absl::string_view context) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(), absl::StrCat(context, ": ", status.message()));
  status.ForEachPayload([&annotated](absl::string_view url, const absl::Cord& payload) {
    annotated.SetPayload(url, payload);
  });
  return annotated;
}

}  // namespace smartpipe

#define SP_CONCAT_INNER_(a, b) a##b
#define SP_CONCAT_(a, b) SP_CONCAT_INNER_(a, b)

#define SP_RETURN_IF_ERROR(expr)                                            \
  do {                                                                      \
    if (absl::Status sp_status = (expr); !sp_status.ok()) return sp_status; \
  } while (false)

#define SP_ASSIGN_OR_RETURN(lhs, expr) \
  SP_ASSIGN_OR_RETURN_IMPL_(SP_CONCAT_(sp_status_or_, __LINE__), lhs, expr)
#define SP_ASSIGN_OR_RETURN_IMPL_(tmp, lhs, expr) \
  auto tmp = (expr);                              \
  if (!tmp.ok()) return std::move(tmp).status();  \
  lhs = std::move(tmp).value()
