// SQLite as far as the decision store needs it: statuses instead of codes, statements that clean
// up.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "sqlite3.h"

namespace smartpipe {

/// A prepared statement. A failed binding shows at the next step.  Threads: as its database.
class SqliteStatement {
 public:
  ~SqliteStatement() { sqlite3_finalize(statement_); }
  SqliteStatement(const SqliteStatement&) = delete;
  SqliteStatement& operator=(const SqliteStatement&) = delete;

  /// Parameters and columns count from 0. Bound bytes must live until the row is stepped to.
  void Bind(int parameter, int64_t value) { sqlite3_bind_int64(statement_, parameter + 1, value); }
  void Bind(int parameter, absl::string_view bytes) {
    sqlite3_bind_blob64(statement_, parameter + 1, bytes.data(), bytes.size(), SQLITE_STATIC);
  }
  /// True when there is a row. An error or the last row sets the statement back to its start.
  absl::StatusOr<bool> Step();
  int64_t Integer(int column) const { return sqlite3_column_int64(statement_, column); }
  /// Valid until the next step.
  absl::string_view Bytes(int column) const;

 private:
  friend class SqliteDatabase;
  SqliteStatement(sqlite3_stmt* statement, const std::string& path)
      : statement_(statement), path_(path) {}

  sqlite3_stmt* const statement_;
  const std::string path_;
};

/// An open database file.  Threads: calls are serialised by the caller.
class SqliteDatabase {
 public:
  enum class Mode {
    kReadOnly,
    kReadWrite,  // creates the file
    kSalvage,    // reads what can be read of a damaged file
  };

  /// Errors of all calls: the reason with the path; RESOURCE_EXHAUSTED for a full disk, NOT_FOUND
  /// when there is no such file or folder, DATA_LOSS for a damaged file (INTERNAL where the library
  /// only sees that its tables are not as they should be), UNAVAILABLE when another process writes
  /// or the disk fails.
  static absl::StatusOr<std::unique_ptr<SqliteDatabase>> Open(const std::string& path, Mode mode);
  ~SqliteDatabase() { sqlite3_close(database_); }
  SqliteDatabase(const SqliteDatabase&) = delete;
  SqliteDatabase& operator=(const SqliteDatabase&) = delete;

  /// Runs statements that give no rows one is interested in.
  absl::Status Run(const std::string& sql);
  absl::StatusOr<std::unique_ptr<SqliteStatement>> Prepare(const std::string& sql);
  /// The single number or text that a query gives.
  absl::StatusOr<std::string> Ask(const std::string& sql);

 private:
  SqliteDatabase(sqlite3* database, std::string path)
      : database_(database), path_(std::move(path)) {}

  sqlite3* const database_;
  const std::string path_;
};

}  // namespace smartpipe
