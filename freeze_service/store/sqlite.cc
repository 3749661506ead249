#include "freeze_service/store/sqlite.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

constexpr int kBusyTimeoutMs = 2000;

absl::StatusCode CodeOf(int code) {
  switch (code & 0xff) {
    case SQLITE_FULL:
    case SQLITE_NOMEM:
      return absl::StatusCode::kResourceExhausted;
    case SQLITE_CANTOPEN:
      return absl::StatusCode::kNotFound;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::StatusCode::kDataLoss;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_IOERR:
      return absl::StatusCode::kUnavailable;
    case SQLITE_READONLY:
    case SQLITE_PERM:
      return absl::StatusCode::kPermissionDenied;
    default:
      return absl::StatusCode::kInternal;
  }
}

absl::Status SqliteError(sqlite3* database, const std::string& path) {
  const int code = sqlite3_extended_errcode(database);
  // The library keeps the system's reason for some codes, and forgets it for a full disk.
  int system_error = 0;
  if ((code & 0xff) == SQLITE_FULL) system_error = ENOSPC;
  if ((code & 0xff) == SQLITE_IOERR || (code & 0xff) == SQLITE_CANTOPEN)
    system_error = sqlite3_system_errno(database);
  return absl::Status(
      CodeOf(code),
      absl::StrCat(path, ": ", sqlite3_errmsg(database),
                   system_error != 0 ? absl::StrCat(": ", std::strerror(system_error)) : ""));
}

}  // namespace

absl::StatusOr<bool> SqliteStatement::Step() {
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  const absl::Status status =
      code == SQLITE_DONE ? absl::OkStatus() : SqliteError(sqlite3_db_handle(statement_), path_);
  sqlite3_reset(statement_);
  if (!status.ok()) return status;
  return false;
}

absl::string_view SqliteStatement::Bytes(int column) const {
  const void* data = sqlite3_column_blob(statement_, column);
  const int size = sqlite3_column_bytes(statement_, column);
  return {static_cast<const char*>(data), static_cast<size_t>(size)};
}

absl::StatusOr<std::unique_ptr<SqliteDatabase>> SqliteDatabase::Open(const std::string& path,
                                                                     Mode mode) {
  const int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE |
                    (mode == Mode::kReadOnly ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE) |
                    (mode == Mode::kReadWrite ? SQLITE_OPEN_CREATE : 0);
  sqlite3* handle = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
  if (handle == nullptr) return absl::ResourceExhaustedError("no memory for SQLite");
  std::unique_ptr<SqliteDatabase> database(new SqliteDatabase(handle, path));
  if (code != SQLITE_OK) return SqliteError(handle, path);
  sqlite3_busy_timeout(handle, kBusyTimeoutMs);
  // A damaged file must not make the library do what its text says.
  sqlite3_db_config(handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  // With this the library also reads a file that is shorter than its header says.
  sqlite3_db_config(handle, SQLITE_DBCONFIG_WRITABLE_SCHEMA, mode == Mode::kSalvage ? 1 : 0,
                    nullptr);
  return database;
}

absl::Status SqliteDatabase::Run(const std::string& sql) {
  if (sqlite3_exec(database_, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK)
    return absl::OkStatus();
  return SqliteError(database_, path_);
}

absl::StatusOr<std::unique_ptr<SqliteStatement>> SqliteDatabase::Prepare(const std::string& sql) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(database_, sql.c_str(), -1, &statement, nullptr) != SQLITE_OK)
    return SqliteError(database_, path_);
  return std::unique_ptr<SqliteStatement>(new SqliteStatement(statement, path_));
}

absl::StatusOr<std::string> SqliteDatabase::Ask(const std::string& sql) {
  SP_ASSIGN_OR_RETURN(const std::unique_ptr<SqliteStatement> statement, Prepare(sql));
  SP_ASSIGN_OR_RETURN(const bool has_row, statement->Step());
  return has_row ? std::string(statement->Bytes(0)) : "";
}

}  // namespace smartpipe
