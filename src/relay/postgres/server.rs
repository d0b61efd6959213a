//! An error that the server reports, classified by its SQLSTATE.

/// An error that the server reports.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message} (SQLSTATE \
         {state}{})", self.printable_detail().map(|detail| format!(", {detail}")).unwrap_or_default())]
pub struct ServerError {
    /// The SQLSTATE.
    pub state: String,
    pub message: String,
    pub detail: Option<Box<str>>,
    /// It came from pgoutput, while a change was decoded.
    is_from_plugin: bool,
    /// The server's function that failed: unlike the message, it does not depend on the language.
    routine: Box<str>,
}

/// The functions that look up a publication by name.
const PUBLICATION_ROUTINES: [&str; 2] = ["get_publication_oid", "GetPublicationByName"];
/// The functions that acquire a slot.
const SLOT_ROUTINES: [&str; 2] = ["ReplicationSlotAcquire", "ReplicationSlotAcquireInternal"];
/// The functions that reject a slot that lost WAL, and nothing else with this SQLSTATE.
const LOST_SLOT_ROUTINES: [&str; 3] =
    ["StartLogicalReplication", "RaiseSlotInvalidationError", "ReplicationSlotAcquire"];
/// The functions that read a setting of the startup packet.
const SETTING_ROUTINES: [&str; 6] = [
    "find_option",
    "parse_and_validate_value",
    "set_config_option",
    "set_config_option_ext",
    "set_config_with_handle",
    "assignable_custom_variable_name",
];
/// The functions that check the REPLICATION attribute.
const REPLICATION_ROUTINES: [&str; 4] =
    ["InitPostgres", "CheckSlotPermissions", "check_permissions", "check_replication_permissions"];

impl ServerError {
    /// Parses the fields of an ErrorResponse, by
    /// [Error and Notice Message Fields](https://www.postgresql.org/docs/18/protocol-error-fields.html).
    #[must_use]
    pub fn parse(fields: &[u8]) -> Self {
        let mut found = Self::new("XX000", "no message", None, None);
        for field in fields.split(|byte| *byte == 0) {
            let Some((kind, text)) = field.split_first() else { continue };
            // Before the server knows the client encoding it uses its own.
            let text = String::from_utf8_lossy(text);
            match kind {
                b'C' => found.state = one_line(&text),
                b'M' => found.message = one_line(&text),
                b'D' => found.detail = Some(one_line(&text).into()),
                b'R' => found.routine = one_line(&text).into(),
                b'W' => found.is_from_plugin = is_from_plugin(&text),
                _ => {}
            }
        }
        found
    }

    pub(super) fn new(state: &str, message: &str, detail: Option<&str>, context: Option<&str>) -> Self {
        Self {
            state: one_line(state),
            message: one_line(message),
            detail: detail.map(|detail| one_line(detail).into()),
            is_from_plugin: context.is_some_and(is_from_plugin),
            routine: Box::default(),
        }
    }

    /// Adds the server's function that failed.
    pub(super) fn in_routine(mut self, routine: Option<&str>) -> Self {
        self.routine = routine.map(one_line).unwrap_or_default().into();
        self
    }

    /// Says whether the cause is a stored value: the error comes again whenever it is read.
    pub(super) fn is_about_content(&self) -> bool {
        matches!(self.state.as_str(), "22021" | "22P05")
    }

    /// Says whether it may pass with time or by an operator's action: connections, read-only nodes, conflicts,
    /// resources, locks, operator intervention, the server's files.
    pub(super) fn may_pass(&self) -> bool {
        ["08", "25", "40", "53", "55", "57", "58"].iter().any(|class| self.state.starts_with(class))
    }

    pub(super) fn routine(&self) -> &str {
        &self.routine
    }

    fn is_in(&self, routines: &[&str]) -> bool {
        routines.contains(&&*self.routine)
    }

    /// The detail, unless it may quote a row: that of a violated constraint or an invalid value does.
    fn printable_detail(&self) -> Option<&str> {
        let quotes_rows = ["22", "23", "44", "P0"].iter().any(|class| self.state.starts_with(class));
        self.detail.as_deref().filter(|_| !quotes_rows)
    }

    /// Classifies the error: one table of SQLSTATEs and, within a state, of the server's functions. The message depends
    /// on version and language: it decides only without a function, as from a pooler.
    pub(super) fn kind(&self) -> Kind {
        match self.state.as_str() {
            "55006" => Kind::SlotActive,
            "42704" if self.is_missing_publication() => Kind::SlotOlder,
            "42704" if self.is_in(&SLOT_ROUTINES) => Kind::Missing,
            "42704" if self.routine.is_empty() && self.message.starts_with("replication slot ") => Kind::Missing,
            "42704" | "22023" if self.is_in(&SETTING_ROUTINES) => Kind::Setting,
            "42704" => Kind::Mismatch,
            "55000" if self.is_lost_slot() => Kind::SlotLost,
            "55000" if self.is_in(&["exec_replication_command"]) => Kind::Unavailable,
            "55000" if self.message.contains("shutting down") || self.message.contains("in recovery") => {
                Kind::Unavailable
            }
            // Names of settings are not translated.
            "55000" if self.message.contains("wal_level") => Kind::WalLevel,
            "55000" => Kind::Mismatch,
            "57P01" => Kind::Shutdown,
            "42501" if self.is_about_replication() => Kind::Replication,
            "42501" => Kind::Rights,
            "3D000" => Kind::NoDatabase,
            "53400" if self.message.contains("replication slots") => Kind::NoSlot,
            "3F000" | "42P01" | "42703" => Kind::Mismatch,
            // From PostgreSQL it is about what the client sent. A pooler uses this state for everything, and only a
            // rejected kind of connection is permanent.
            "08P01" if !self.routine.is_empty() => Kind::Client,
            "08P01" if self.message.contains("unsupported startup parameter") => Kind::Pooler,
            "08P01" if self.message.contains("statement pooling") => Kind::Pooled,
            // A statement that was prepared on another session.
            "26000" | "42P05" => Kind::Pooled,
            "22021" | "22P05" => Kind::Content,
            "42601" | "22023" | "0A000" => Kind::Client,
            "XX000" if self.message.contains("invalid memory alloc request size") => Kind::RowTooLarge,
            "XX000" if self.message.contains("pgoutput option") => Kind::Client,
            state if state.starts_with("28") => Kind::Login,
            // Connections, resources, operator intervention, the server's files, read-only nodes, conflicts with
            // recovery; and anything unknown: to stop would be worse than to retry.
            _ => Kind::Unavailable,
        }
    }

    fn is_about_replication(&self) -> bool {
        self.is_in(&REPLICATION_ROUTINES)
            || ["replication", "WAL sender", "walsender"].iter().any(|word| self.message.contains(word))
    }

    /// A type that is missing while a change is decoded has the same state and context, and another function.
    fn is_missing_publication(&self) -> bool {
        if !self.routine.is_empty() {
            return self.is_in(&PUBLICATION_ROUTINES);
        }
        self.message.starts_with("publication ") || self.is_from_plugin
    }

    fn is_lost_slot(&self) -> bool {
        let detail = self.detail.as_deref().unwrap_or_default();
        self.is_in(&LOST_SLOT_ROUTINES)
            || self.message.starts_with("can no longer")
            || self.message.starts_with("cannot read from logical replication slot")
            || detail.contains("invalidated")
            || detail.contains("exceeded the maximum reserved size")
    }
}

fn is_from_plugin(context: &str) -> bool {
    context.contains("output plugin")
}

/// Makes a text of the server fit for one line of a log.
fn one_line(text: &str) -> String {
    const MAX_LENGTH: usize = 1_000;
    let mut line = String::new();
    for char in text.chars().take(MAX_LENGTH) {
        if char.is_control() {
            line.extend(char.escape_default());
        } else {
            line.push(char);
        }
    }
    line
}

/// The next step where all replication slots are in use.
pub const NO_SLOT: &str = "drop an unused slot (SELECT slot_name, active FROM pg_replication_slots), or run `ALTER \
                           SYSTEM SET max_replication_slots = 20` as a superuser and restart PostgreSQL";

/// What an error is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    SlotActive,
    Missing,
    SlotLost,
    Mismatch,
    WalLevel,
    NoSlot,
    NoDatabase,
    SlotOlder,
    Shutdown,
    Login,
    Replication,
    Rights,
    RowTooLarge,
    Content,
    Pooler,
    Pooled,
    /// The request of the client is wrong.
    Client,
    /// A setting that the startup packet asks for.
    Setting,
    Unavailable,
}

impl Kind {
    pub(super) const fn help(self) -> Option<&'static str> {
        Some(match self {
            Self::Login => {
                "check user and password, that the role has LOGIN (ALTER ROLE ... LOGIN), and its line in pg_hba.conf"
            }
            Self::Replication => {
                "run `ALTER ROLE ... REPLICATION` for this role; where that is not allowed, set source.mode = \"poll\""
            }
            Self::Rights => "grant the missing privilege; `walrelay setup --role NAME` prints all that are needed",
            Self::Missing => {
                "on a new installation run `walrelay setup --apply`; if the slot existed before, events may be missing \
                 in Kafka: run `walrelay setup --apply --accept-gap`; before you start the relay, compare the rows \
                 that were committed before the position that it prints with Kafka"
            }
            Self::SlotLost => {
                "WAL that the slot needed was removed: drop the slot with pg_drop_replication_slot, raise \
                 max_slot_wal_keep_size, then run `walrelay setup --apply --accept-gap`; before you start the relay, \
                 compare the rows that were committed before the position that it prints with Kafka"
            }
            Self::Mismatch => {
                "correct the object that the server names (`walrelay setup` prints the SQL), then restart"
            }
            Self::WalLevel => {
                "run `ALTER SYSTEM SET wal_level = 'logical'` as a superuser and restart PostgreSQL, then repeat this \
                 command"
            }
            Self::NoSlot => NO_SLOT,
            Self::NoDatabase => "create the database, or name another one in postgres.url",
            Self::SlotOlder => {
                "the publication did not exist when the next WAL was written, and events may be missing in Kafka: \
                 run `walrelay setup --apply --accept-gap`, which creates the publication if it is missing, advances \
                 the slot to the first position where it exists, and prints that position; before you start the \
                 relay, compare the rows that were committed before it with Kafka"
            }
            Self::RowTooLarge => {
                "the row is larger than the server can send: publish it by hand and skip its transaction"
            }
            Self::Pooler => {
                "set postgres.url to PostgreSQL itself: a pooler such as PgBouncer does not support replication \
                 connections"
            }
            Self::Pooled => "set pool_mode = session in the pooler, or set postgres.url to PostgreSQL itself",
            Self::Content => {
                "correct the value: it has bytes that are invalid in the database's encoding, or a character that \
                 cannot be converted to UTF-8"
            }
            Self::Client => "please report this",
            Self::Setting => "correct options= in postgres.url: the server rejects a setting in it",
            Self::SlotActive | Self::Shutdown | Self::Unavailable => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_response_is_read_by_its_fields() {
        let error = ServerError::parse(b"SFATAL\0C28P01\0Mno\0Dbecause\0\0");
        assert_eq!(error.to_string(), "no (SQLSTATE 28P01, because)");
    }

    #[test]
    fn b18_a_missing_object_is_recognized_by_the_servers_function_and_not_by_the_message() {
        // As PostgreSQL 15 sends them under lc_messages = 'de_DE.UTF-8'.
        let rows = [
            ("C42704\0MPublikation \u{bb}p\u{ab} existiert nicht\0Rget_publication_oid\0", "WR-6505"),
            ("C42704\0MReplikations-Slot \u{bb}s\u{ab} existiert nicht\0RReplicationSlotAcquire\0", "WR-6601"),
            ("C42704\0Munbekannter Konfigurationsparameter \u{bb}a\u{ab}\0Rfind_option\0", "WR-6423"),
            ("C42704\0MTyp \u{bb}t\u{ab} existiert nicht\0RtypenameType\0", "WR-6505"),
            (
                "C55000\0Mvom logischen Slot \u{bb}s\u{ab} kann nicht gelesen werden\0RStartLogicalReplication\0",
                "WR-6602",
            ),
            ("C42501\0Mnur Superuser oder Replikationsrolle\0RCheckSlotPermissions\0", "WR-6704"),
            // A pooler sends no function.
            ("C42704\0Mreplication slot \"s\" does not exist\0", "WR-6601"),
            ("C42704\0Mwhatever\0", "WR-6505"),
        ];
        for (fields, code) in rows {
            let error = super::super::Error::from(ServerError::parse(fields.as_bytes()));
            assert_eq!(walrelay_events::fault::Diagnose::code(&error).to_string(), code, "{fields:?}");
        }
        let context = Some("slot \"s\", output plugin \"pgoutput\", in the change callback");
        let missing = |routine| ServerError::new("42704", "does not exist", None, context).in_routine(routine).kind();
        assert!(matches!(missing(None), Kind::SlotOlder));
        assert!(matches!(missing(Some("get_publication_oid")), Kind::SlotOlder));
        assert!(matches!(missing(Some("lookup_type_cache")), Kind::Mismatch), "no publication that was created late");
    }

    #[test]
    fn only_what_is_about_replication_asks_for_it() {
        let rows = [
            ("28P01", "password authentication failed for user \"relay\"", false),
            ("42501", "permission denied for table outbox_events", false),
            ("42501", "must be superuser or replication role to start walsender", true),
            ("42501", "permission denied to start WAL sender", true),
            ("42501", "permission denied to use replication slots", true),
        ];
        for (state, message, expected) in rows {
            let help = ServerError::new(state, message, None, None).kind().help().unwrap();
            assert_eq!(help.contains("REPLICATION"), expected, "{message}: {help}");
        }
    }

    #[test]
    fn an_error_prints_on_one_line_and_without_the_row() {
        let error = ServerError::parse(b"C23505\0Mduplicate\x1b[31m\nkey\0DKey (id)=(secret) already exists.\0\0");
        assert_eq!(error.to_string(), "duplicate\\u{1b}[31m\\nkey (SQLSTATE 23505)");
    }
}
