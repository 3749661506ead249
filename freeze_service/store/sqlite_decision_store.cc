#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "freeze_service/store/decision_lines.h"
#include "freeze_service/store/decision_store.h"
#include "freeze_service/store/event_codec.h"
#include "freeze_service/store/sqlite.h"
#include "freeze_service/store/verdict_index.h"
#include "services/base/content_digest.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

namespace fs = std::filesystem;
using Mode = SqliteDatabase::Mode;

constexpr char kVersion[] = "1";  // of the tables; the codec has its own
constexpr char kTables[] = R"(
CREATE TABLE settings (id INTEGER PRIMARY KEY, num_cores INTEGER NOT NULL, config_toml BLOB NOT NULL,
                       digest BLOB NOT NULL);
CREATE TABLE records (sequence INTEGER PRIMARY KEY, now_ns INTEGER NOT NULL, event BLOB NOT NULL,
                      decisions BLOB NOT NULL, digest BLOB NOT NULL);
CREATE TABLE snapshot (id INTEGER PRIMARY KEY, num_records INTEGER NOT NULL, state BLOB NOT NULL,
                       digest BLOB NOT NULL);
)";

// Digest of a row, as its last column has it.
std::string RowDigest(int64_t first, int64_t second, absl::string_view text,
                      absl::string_view more = "") {
  ContentHasher hasher;
  for (const uint64_t number : {static_cast<uint64_t>(first), static_cast<uint64_t>(second),
                                uint64_t{text.size()}, uint64_t{more.size()}}) {
    std::string bytes;
    for (int i = 0; i < 8; ++i) bytes += static_cast<char>(number >> (8 * i));
    hasher.Add(bytes);
  }
  hasher.Add(text);
  hasher.Add(more);
  const ContentDigest digest = hasher.Finish();
  return std::string(digest.bytes.begin(), digest.bytes.end());
}

absl::Status SyncFolder(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  const int error = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  return error == 0 ? absl::OkStatus()
                    : absl::ErrnoToStatus(error, absl::StrCat("cannot sync ", path));
}

absl::Status Rename(const std::string& from, const std::string& to) {
  if (rename(from.c_str(), to.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot rename ", from, " to ", to));
}

// ---- Tables -------------------------------------------------------------------------------------

// The settings of a run, oldest first: the first row is that of its start, each resumption may add
// one.
using AllSettings = std::vector<RunSettings>;

absl::Status PutSettings(SqliteDatabase& database, int64_t id, const RunSettings& settings) {
  const std::string digest = RowDigest(settings.num_cores, id, settings.config_toml);
  SP_ASSIGN_OR_RETURN(const auto insert,
                      database.Prepare("INSERT INTO settings VALUES (?, ?, ?, ?)"));
  insert->Bind(0, id);
  insert->Bind(1, settings.num_cores);
  insert->Bind(2, settings.config_toml);
  insert->Bind(3, digest);
  return insert->Step().status();
}

absl::Status CreateTables(SqliteDatabase& database, const AllSettings& settings) {
  SP_RETURN_IF_ERROR(database.Run(absl::StrCat("BEGIN IMMEDIATE;", kTables)));
  for (size_t id = 0; id < settings.size(); ++id) {
    SP_RETURN_IF_ERROR(PutSettings(database, static_cast<int64_t>(id), settings[id]));
  }
  return database.Run(absl::StrCat("PRAGMA user_version = ", kVersion, "; COMMIT"));
}

absl::StatusOr<AllSettings> ReadSettings(SqliteDatabase& database, const std::string& path) {
  SP_ASSIGN_OR_RETURN(const std::string version, database.Ask("PRAGMA user_version"));
  if (version != kVersion) {
    return absl::FailedPreconditionError(absl::StrCat(path, " has format ", version,
                                                      "; this program reads ", kVersion,
                                                      ": use the program that wrote it"));
  }
  SP_ASSIGN_OR_RETURN(
      const auto select,
      database.Prepare("SELECT id, num_cores, config_toml, digest FROM settings ORDER BY id"));
  AllSettings settings;
  while (true) {
    SP_ASSIGN_OR_RETURN(const bool has_row, select->Step());
    if (!has_row && !settings.empty()) return settings;
    const auto id = static_cast<int64_t>(settings.size());
    if (!has_row || select->Integer(0) != id ||
        RowDigest(select->Integer(1), id, select->Bytes(2)) != select->Bytes(3)) {
      return absl::DataLossError(absl::StrCat(path, ": the run's settings are not whole"));
    }
    settings.push_back({.config_toml = std::string(select->Bytes(2)),
                        .num_cores = static_cast<int32_t>(select->Integer(1))});
  }
}

struct WholeRecords {
  int64_t count = 0;
  std::string damage;  // what ends them; empty = the end of the log
};

// Columns of `select`: sequence, now_ns, event, decisions, digest.
constexpr char kSelectRecords[] =
    "SELECT sequence, now_ns, event, decisions, digest FROM records WHERE sequence >= ? "
    "ORDER BY sequence";

WholeRecords CountWholeRecords(SqliteDatabase& database) {
  WholeRecords whole;
  const auto end_with = [&](absl::string_view why) {
    whole.damage = absl::StrCat("record ", whole.count, " is damaged (", why, ")");
    return whole;
  };
  const auto select = database.Prepare(kSelectRecords);
  if (!select.ok()) return end_with(select.status().message());
  (*select)->Bind(0, int64_t{0});
  for (;; ++whole.count) {
    const absl::StatusOr<bool> has_row = (*select)->Step();
    if (!has_row.ok()) return end_with(has_row.status().message());
    if (!*has_row) return whole;
    const int64_t sequence = (*select)->Integer(0);
    if (sequence != whole.count) return end_with(absl::StrCat("then comes record ", sequence));
    if (RowDigest(sequence, (*select)->Integer(1), (*select)->Bytes(2), (*select)->Bytes(3)) !=
        (*select)->Bytes(4)) {
      return end_with("its digest is wrong");
    }
  }
}

constexpr char kInsertRecord[] = "INSERT INTO records VALUES (?, ?, ?, ?, ?)";

absl::Status PutRecord(SqliteStatement& insert, int64_t sequence, int64_t now_ns,
                       absl::string_view event, absl::string_view decisions) {
  const std::string digest = RowDigest(sequence, now_ns, event, decisions);
  insert.Bind(0, sequence);
  insert.Bind(1, now_ns);
  insert.Bind(2, event);
  insert.Bind(3, decisions);
  insert.Bind(4, digest);
  return insert.Step().status();
}

absl::Status PutSnapshot(SqliteDatabase& database, const StoredSnapshot& snapshot) {
  const std::string bytes = EncodeState(snapshot.state);
  const std::string digest = RowDigest(snapshot.num_records, 0, bytes);
  SP_ASSIGN_OR_RETURN(const auto insert,
                      database.Prepare("INSERT OR REPLACE INTO snapshot VALUES (0, ?, ?, ?)"));
  insert->Bind(0, snapshot.num_records);
  insert->Bind(1, bytes);
  insert->Bind(2, digest);
  return insert->Step().status();
}

// ---- Repair -------------------------------------------------------------------------------------

std::string RepairedPath(const std::string& path) { return path + ".repaired"; }

// Puts the repaired database, if there is one, in the place of the damaged one. A crash in between
// leaves it there, and the next call goes on.
absl::Status TakeRepaired(const std::string& path) {
  if (access(RepairedPath(path).c_str(), F_OK) != 0) return absl::OkStatus();
  SP_RETURN_IF_ERROR(Rename(path, path + ".damaged"));
  // It would be taken for the new one's.
  SP_RETURN_IF_ERROR(Rename(path + "-wal", path + ".damaged-wal"));
  SP_RETURN_IF_ERROR(Rename(path + "-shm", path + ".damaged-shm"));
  SP_RETURN_IF_ERROR(Rename(RepairedPath(path), path));
  return SyncFolder(fs::path(path).parent_path());
}

// Copies the first `num_records` records.
absl::Status WriteRepaired(SqliteDatabase& damaged, const AllSettings& settings,
                           int64_t num_records, const std::string& path) {
  const std::string temporary = RepairedPath(path) + ".tmp";
  std::error_code ignored;
  fs::remove(temporary, ignored);
  {
    SP_ASSIGN_OR_RETURN(const auto database, SqliteDatabase::Open(temporary, Mode::kReadWrite));
    SP_RETURN_IF_ERROR(CreateTables(*database, settings));
    SP_RETURN_IF_ERROR(database->Run("BEGIN IMMEDIATE"));
    SP_ASSIGN_OR_RETURN(const auto select, damaged.Prepare(kSelectRecords));
    select->Bind(0, int64_t{0});
    SP_ASSIGN_OR_RETURN(const auto insert, database->Prepare(kInsertRecord));
    for (int64_t i = 0; i < num_records; ++i) {
      SP_RETURN_IF_ERROR(select->Step().status());
      SP_RETURN_IF_ERROR(PutRecord(*insert, select->Integer(0), select->Integer(1),
                                   select->Bytes(2), select->Bytes(3)));
    }
    SP_RETURN_IF_ERROR(database->Run("COMMIT"));
  }
  SP_RETURN_IF_ERROR(Rename(temporary, RepairedPath(path)));
  return SyncFolder(fs::path(path).parent_path());
}

// ---- Store --------------------------------------------------------------------------------------

class SqliteDecisionStore final : public DecisionStore {
 public:
  /// Of the first `num_records` records.  Errors: those of reading.
  static absl::StatusOr<std::unique_ptr<SqliteDecisionStore>> Create(
      std::unique_ptr<SqliteDatabase> database, int64_t num_records) {
    std::unique_ptr<SqliteDecisionStore> store(
        new SqliteDecisionStore(std::move(database), num_records));
    SP_RETURN_IF_ERROR(store->FindVerdicts());
    return store;
  }
  ~SqliteDecisionStore() override {
    if (folder_fd_ >= 0) close(folder_fd_);
  }

  /// Takes over the lock on the run's folder and the copy in decisions.jsonl.
  void MakeWritable(int folder_fd, std::unique_ptr<DecisionLines> lines) {
    folder_fd_ = folder_fd;
    lines_ = std::move(lines);
  }

  absl::Status Append(absl::Span<const EventRecord> records,
                      const StoredSnapshot* snapshot) override {
    SP_RETURN_IF_ERROR(CheckSequences(records, num_records_));
    if (const absl::Status status = Write(records, snapshot); !status.ok()) {
      (void)database_->Run("ROLLBACK");  // the error that counts is there already
      return status;
    }
    num_records_ += static_cast<int64_t>(records.size());
    for (const EventRecord& record : records) verdicts_.Add(record.sequence, record.decisions);
    for (const EventRecord& record : records) SP_RETURN_IF_ERROR(lines_->Append(record));
    return absl::OkStatus();
  }

  int64_t num_records() const override { return num_records_; }

  absl::Status Read(int64_t first,
                    const std::function<absl::Status(const EventRecord&)>& visit) const override {
    SP_ASSIGN_OR_RETURN(const auto select, database_->Prepare(kSelectRecords));
    select->Bind(0, first);
    for (int64_t i = first; i < num_records_; ++i) {
      SP_ASSIGN_OR_RETURN(const EventRecord record, NextRecord(*select));
      SP_RETURN_IF_ERROR(visit(record));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Verdict> ReadVerdict(IntervalIndex boundary) const override {
    return verdicts_.Read(boundary, [this](int64_t sequence) -> absl::StatusOr<EventRecord> {
      SP_ASSIGN_OR_RETURN(const auto select, database_->Prepare(kSelectRecords));
      select->Bind(0, sequence);
      return NextRecord(*select);
    });
  }

  std::optional<StoredSnapshot> ReadSnapshot() const override {
    const auto select = database_->Prepare("SELECT num_records, state, digest FROM snapshot");
    if (!select.ok()) return std::nullopt;
    const absl::StatusOr<bool> has_row = (*select)->Step();
    if (!has_row.ok() || !*has_row) return std::nullopt;
    const int64_t num_records = (*select)->Integer(0);
    if (num_records > num_records_ ||
        RowDigest(num_records, 0, (*select)->Bytes(1)) != (*select)->Bytes(2)) {
      return std::nullopt;
    }
    absl::StatusOr<CoordinatorState> state = DecodeState((*select)->Bytes(1));
    if (!state.ok()) return std::nullopt;
    return StoredSnapshot{.num_records = num_records, .state = *std::move(state)};
  }

 private:
  SqliteDecisionStore(std::unique_ptr<SqliteDatabase> database, int64_t num_records)
      : database_(std::move(database)), num_records_(num_records) {}

  static absl::StatusOr<EventRecord> NextRecord(SqliteStatement& select) {
    SP_RETURN_IF_ERROR(select.Step().status());
    EventRecord record{.sequence = select.Integer(0),
                       .now = absl::FromUnixNanos(select.Integer(1)),
                       .event = {},
                       .decisions = {}};
    SP_ASSIGN_OR_RETURN(record.event, DecodeEvent(select.Bytes(2)));
    SP_ASSIGN_OR_RETURN(record.decisions, DecodeDecisions(select.Bytes(3)));
    return record;
  }

  absl::Status FindVerdicts() {
    SP_ASSIGN_OR_RETURN(const auto select,
                        database_->Prepare("SELECT sequence, decisions FROM records WHERE "
                                           "sequence < ? AND length(decisions) > ? ORDER BY 1"));
    select->Bind(0, num_records_);
    select->Bind(1, static_cast<int64_t>(EncodeDecisions({}).size()));  // of most records
    while (true) {
      SP_ASSIGN_OR_RETURN(const bool has_row, select->Step());
      if (!has_row) return absl::OkStatus();
      SP_ASSIGN_OR_RETURN(const std::vector<Decision> decisions, DecodeDecisions(select->Bytes(1)));
      verdicts_.Add(select->Integer(0), decisions);
    }
  }

  absl::Status Write(absl::Span<const EventRecord> records, const StoredSnapshot* snapshot) {
    if (insert_ == nullptr) {
      SP_ASSIGN_OR_RETURN(insert_, database_->Prepare(kInsertRecord));
    }
    SP_RETURN_IF_ERROR(database_->Run("BEGIN IMMEDIATE"));
    for (const EventRecord& record : records) {
      SP_RETURN_IF_ERROR(PutRecord(*insert_, record.sequence, absl::ToUnixNanos(record.now),
                                   EncodeEvent(record.event), EncodeDecisions(record.decisions)));
    }
    if (snapshot != nullptr) SP_RETURN_IF_ERROR(PutSnapshot(*database_, *snapshot));
    return database_->Run("COMMIT");
  }

  const std::unique_ptr<SqliteDatabase> database_;
  std::unique_ptr<SqliteStatement> insert_;  // of a record; before the database goes
  int64_t num_records_;
  int folder_fd_ = -1;
  std::unique_ptr<DecisionLines> lines_;
  VerdictIndex verdicts_;
};

// ---- Opening ------------------------------------------------------------------------------------

// One service per run: the lock goes with the process.
absl::StatusOr<int> LockFolder(const std::string& run_dir) {
  const int fd = open(run_dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open the folder ", run_dir));
  if (faccessat(AT_FDCWD, run_dir.c_str(), W_OK | X_OK, AT_EACCESS) != 0) {
    // SQLite would say that there is no such file.
    const int error = errno;
    close(fd);
    return absl::ErrnoToStatus(error, absl::StrCat("cannot write to the folder ", run_dir));
  }
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
  const int error = errno;
  close(fd);
  if (error != EWOULDBLOCK)
    return absl::ErrnoToStatus(error, absl::StrCat("cannot lock the folder ", run_dir));
  return absl::FailedPreconditionError(absl::StrCat("another freeze_service serves the run in ",
                                                    run_dir,
                                                    "; stop it first, or give another folder"));
}

absl::StatusOr<std::unique_ptr<SqliteDatabase>> OpenForWriting(const std::string& path) {
  SP_ASSIGN_OR_RETURN(auto database, SqliteDatabase::Open(path, Mode::kReadWrite));
  SP_RETURN_IF_ERROR(database->Run("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL"));
  return database;
}

bool IsDamage(const absl::Status& status) {
  return absl::IsDataLoss(status) || absl::IsInternal(status);
}

struct Opened {
  std::unique_ptr<SqliteDatabase> database;
  RunSettings first_settings;
  int64_t num_records = 0;
  std::string repair;
};

// Errors: also DATA_LOSS, saying what is damaged.
absl::StatusOr<Opened> OpenWhole(const std::string& path, const RunSettings& settings,
                                 Resuming resuming) {
  SP_ASSIGN_OR_RETURN(auto database, OpenForWriting(path));
  SP_ASSIGN_OR_RETURN(const std::string num_tables,
                      database->Ask("SELECT count(*) FROM sqlite_schema"));
  if (num_tables == "0") SP_RETURN_IF_ERROR(CreateTables(*database, {settings}));
  SP_ASSIGN_OR_RETURN(const AllSettings recorded, ReadSettings(*database, path));
  if (const std::string difference = DifferenceOf(recorded.back(), settings, resuming);
      !difference.empty()) {
    const bool may_resume = resuming == Resuming::kNo &&
                            DifferenceOf(recorded.back(), settings, Resuming::kYes).empty();
    return absl::FailedPreconditionError(
        absl::StrCat("the run was recorded with other settings: ", difference, "; give those, ",
                     may_resume ? "or go on with these by --resume auto, " : "",
                     "or start a new run in another folder"));
  }
  if (recorded.back() != settings) {
    SP_RETURN_IF_ERROR(PutSettings(*database, static_cast<int64_t>(recorded.size()), settings));
  }
  const WholeRecords whole = CountWholeRecords(*database);
  if (!whole.damage.empty()) return absl::DataLossError(absl::StrCat(path, ": ", whole.damage));
  SP_ASSIGN_OR_RETURN(const std::string check, database->Ask("PRAGMA quick_check(1)"));
  if (check != "ok") return absl::DataLossError(absl::StrCat(path, ": ", check));
  return Opened{std::move(database), recorded.front(), whole.count, ""};
}

absl::StatusOr<int64_t> SaveWholeRecords(const std::string& path, const RunSettings& settings,
                                         const absl::Status& damage) {
  SP_ASSIGN_OR_RETURN(const auto damaged, SqliteDatabase::Open(path, Mode::kSalvage));
  const int64_t num_records = CountWholeRecords(*damaged).count;
  const absl::StatusOr<AllSettings> recorded = ReadSettings(*damaged, path);
  // Without its settings a log is as good as none, unless its records prove the given ones.
  if (num_records == 0 && IsDamage(recorded.status())) {
    return absl::DataLossError(
        absl::StrCat("the log of the run's decisions is damaged beyond repair (", damage.message(),
                     "); put back a copy of ", path, ", or start a new run in another folder"));
  }
  SP_RETURN_IF_ERROR(WriteRepaired(*damaged, recorded.ok() ? *recorded : AllSettings{settings},
                                   num_records, path));
  return num_records;
}

// `damage`: what OpenWhole said.
absl::StatusOr<Opened> Repair(const std::string& path, const RunSettings& settings,
                              Resuming resuming, const absl::Status& damage) {
  SP_ASSIGN_OR_RETURN(const int64_t num_records, SaveWholeRecords(path, settings, damage));
  SP_RETURN_IF_ERROR(TakeRepaired(path));
  SP_ASSIGN_OR_RETURN(Opened opened, OpenWhole(path, settings, resuming));
  opened.repair = absl::StrCat(damage.message(), "; the log goes on behind its ", num_records,
                               " whole records, the damaged file is ", path, ".damaged");
  return opened;
}

absl::StatusOr<Opened> OpenAndRepair(const std::string& path, const RunSettings& settings,
                                     Resuming resuming) {
  SP_RETURN_IF_ERROR(TakeRepaired(path));
  absl::StatusOr<Opened> opened = OpenWhole(path, settings, resuming);
  if (IsDamage(opened.status())) return Repair(path, settings, resuming, opened.status());
  return opened;
}

// Brings decisions.jsonl up to date.
absl::StatusOr<std::unique_ptr<DecisionLines>> CatchUp(const std::string& path,
                                                       const DecisionStore& store,
                                                       std::string* repair) {
  SP_ASSIGN_OR_RETURN(auto lines, DecisionLines::Open(path));
  if (lines->last_sequence() >= store.num_records()) {
    // Records are there before their lines: the database has lost some.
    if (repair->empty()) {
      *repair = absl::StrCat(path, " tells of record ", lines->last_sequence(),
                             ", but decisions.db only has ", store.num_records(),
                             " records: the others are lost; the log goes on behind these");
    }
    absl::StrAppend(repair, "; the old lines are in ", path, ".damaged");
    SP_RETURN_IF_ERROR(Rename(path, path + ".damaged"));
    SP_ASSIGN_OR_RETURN(lines, DecisionLines::Open(path));
  }
  // The lines of its last record may be incomplete.
  const int64_t first = std::max<int64_t>(0, lines->last_sequence());
  SP_RETURN_IF_ERROR(lines->CutFrom(first));
  SP_RETURN_IF_ERROR(
      store.Read(first, [&lines](const EventRecord& record) { return lines->Append(record); }));
  return lines;
}

}  // namespace

absl::StatusOr<OpenedDecisionStore> OpenDecisionStore(const std::string& run_dir,
                                                      const RunSettings& settings,
                                                      Resuming resuming) {
  SP_ASSIGN_OR_RETURN(const int folder_fd, LockFolder(run_dir));
  absl::StatusOr<Opened> opened = OpenAndRepair(run_dir + "/decisions.db", settings, resuming);
  if (!opened.ok()) {
    close(folder_fd);
    return opened.status();
  }
  auto created = SqliteDecisionStore::Create(std::move(opened->database), opened->num_records);
  if (!created.ok()) {
    close(folder_fd);
    return created.status();
  }
  std::unique_ptr<SqliteDecisionStore> store = *std::move(created);
  std::string repair = std::move(opened->repair);
  absl::StatusOr<std::unique_ptr<DecisionLines>> lines =
      CatchUp(run_dir + "/decisions.jsonl", *store, &repair);
  store->MakeWritable(folder_fd, lines.ok() ? *std::move(lines) : nullptr);
  SP_RETURN_IF_ERROR(lines.status());
  return OpenedDecisionStore{std::move(store), std::move(opened->first_settings),
                             std::move(repair)};
}

absl::StatusOr<RecordedRun> OpenRecordedRun(const std::string& run_dir) {
  const std::string path = run_dir + "/decisions.db";
  if (access(path.c_str(), R_OK) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
  SP_ASSIGN_OR_RETURN(auto database, SqliteDatabase::Open(path, Mode::kReadOnly));
  SP_ASSIGN_OR_RETURN(const AllSettings settings, ReadSettings(*database, path));
  const WholeRecords whole = CountWholeRecords(*database);
  SP_ASSIGN_OR_RETURN(auto store, SqliteDecisionStore::Create(std::move(database), whole.count));
  return RecordedRun{std::move(store), settings.front(),
                     whole.damage.empty() ? "" : absl::StrCat(path, ": ", whole.damage)};
}

}  // namespace smartpipe
