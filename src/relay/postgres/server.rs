//! What the server says when it says no, and what its SQLSTATE asks for.

/// An error that the server reports.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message} (SQLSTATE {state}{})", self.printable_detail().map(|detail| format!(", {detail}")).unwrap_or_default())]
pub struct ServerError {
    /// The SQLSTATE.
    pub state: String,
    /// The message.
    pub message: String,
    /// The detail.
    pub detail: Option<Box<str>>,
    /// It happened in pgoutput, while a change was decoded.
    is_from_plugin: bool,
    /// The function of the server that failed: unlike the message it is the same in every language.
    routine: Box<str>,
}

/// Where a publication is looked up by name.
const PUBLICATION_ROUTINES: [&str; 2] = ["get_publication_oid", "GetPublicationByName"];
/// Where a slot is acquired.
const SLOT_ROUTINES: [&str; 2] = ["ReplicationSlotAcquire", "ReplicationSlotAcquireInternal"];
/// Where a slot that lost WAL is refused, and nothing else in this state.
const LOST_SLOT_ROUTINES: [&str; 3] =
    ["StartLogicalReplication", "RaiseSlotInvalidationError", "ReplicationSlotAcquire"];
/// Where a setting of the startup packet is read.
const SETTING_ROUTINES: [&str; 6] = [
    "find_option",
    "parse_and_validate_value",
    "set_config_option",
    "set_config_option_ext",
    "set_config_with_handle",
    "assignable_custom_variable_name",
];
/// Where the right to replicate is checked.
const REPLICATION_ROUTINES: [&str; 4] =
    ["InitPostgres", "CheckSlotPermissions", "check_permissions", "check_replication_permissions"];

impl ServerError {
    /// Reads the fields of an ErrorResponse.
    #[must_use]
    pub fn parse(fields: &[u8]) -> Self {
        let mut found = Self::new("XX000", "no message", None, None);
        for field in fields.split(|byte| *byte == 0) {
            let Some((kind, text)) = field.split_first() else { continue };
            // A server that fails before it knows the encoding sends its own.
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

    /// Notes which function of the server failed.
    pub(super) fn in_routine(mut self, routine: Option<&str>) -> Self {
        self.routine = routine.map(one_line).unwrap_or_default().into();
        self
    }

    /// Says whether the server met this in what it reads, and not in its own state: it will meet it there again.
    pub(super) fn is_about_content(&self) -> bool {
        matches!(self.state.as_str(), "22021" | "22P05")
    }

    /// Says whether time or an operator of the server makes it pass: connections, read-only nodes, conflicts, resources,
    /// locks, the operator's own word, the server's files.
    pub(super) fn may_pass(&self) -> bool {
        ["08", "25", "40", "53", "55", "57", "58"].iter().any(|class| self.state.starts_with(class))
    }

    fn is_in(&self, routines: &[&str]) -> bool {
        routines.contains(&&*self.routine)
    }

    /// The detail of a broken constraint or a bad value quotes the row.
    fn printable_detail(&self) -> Option<&str> {
        let quotes_rows = ["22", "23", "44", "P0"].iter().any(|class| self.state.starts_with(class));
        self.detail.as_deref().filter(|_| !quotes_rows)
    }

    /// What a server in this state needs: one table of SQLSTATEs and, within a state, of the server's functions. The words
    /// differ between versions and languages: they decide only where a server (or something between) names no function.
    pub(super) fn kind(&self) -> Kind {
        match self.state.as_str() {
            "55006" => Kind::SlotActive,
            "42704" if self.is_missing_publication() => Kind::SlotOlder,
            "42704" if self.is_in(&SLOT_ROUTINES) => Kind::Missing,
            "42704" if self.routine.is_empty() && self.message.starts_with("replication slot ") => Kind::Missing,
            "42704" | "22023" if self.is_in(&SETTING_ROUTINES) => Kind::Setting,
            "42704" => Kind::Contract,
            "55000" if self.is_lost_slot() => Kind::SlotLost,
            "55000" if self.is_in(&["exec_replication_command"]) => Kind::Away,
            "55000" if self.message.contains("shutting down") || self.message.contains("in recovery") => Kind::Away,
            // The name of a setting is never translated.
            "55000" if self.message.contains("wal_level") => Kind::WalLevel,
            "55000" => Kind::Contract,
            "57P01" => Kind::Shutdown,
            "42501" if self.is_about_replication() => Kind::Replication,
            "42501" => Kind::Rights,
            "3D000" => Kind::NoDatabase,
            "53400" if self.message.contains("replication slots") => Kind::NoSlot,
            "3F000" | "42P01" | "42703" => Kind::Contract,
            // PostgreSQL's own routine complains of what we sent; a pooler says in this state whatever it has to say, and only
            // of a connection that it never takes is that for good.
            "08P01" if !self.routine.is_empty() => Kind::Ours,
            "08P01" if self.message.contains("unsupported startup parameter") => Kind::Pooler,
            "08P01" if self.message.contains("statement pooling") => Kind::Pooled,
            // A statement that was prepared on another session.
            "26000" | "42P05" => Kind::Pooled,
            "22021" | "22P05" => Kind::Content,
            "42601" | "22023" | "0A000" => Kind::Ours,
            "XX000" if self.message.contains("invalid memory alloc request size") => Kind::RowTooLarge,
            "XX000" if self.message.contains("pgoutput option") => Kind::Ours,
            state if state.starts_with("28") => Kind::Login,
            // Connections, resources, operators, the server's own files, read-only nodes, conflicts with recovery; and
            // what nobody has seen yet: stopping for it would be worse than trying again.
            _ => Kind::Away,
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

/// What a peer says, fit for one line of a log.
fn one_line(text: &str) -> String {
    const LENGTH_MAX: usize = 1_000;
    let mut line = String::new();
    for char in text.chars().take(LENGTH_MAX) {
        if char.is_control() {
            line.extend(char.escape_default());
        } else {
            line.push(char);
        }
    }
    line
}

/// What to do where all slots are in use.
pub const NO_SLOT: &str = "drop a slot that nobody needs (SELECT slot_name, active FROM pg_replication_slots), \
                           or run `ALTER SYSTEM SET max_replication_slots = 20` as a superuser and restart PostgreSQL";

/// What has happened to the server, or to us on it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    SlotActive,
    Missing,
    SlotLost,
    Contract,
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
    Ours,
    /// A setting that the startup packet asks for.
    Setting,
    Away,
}

impl Kind {
    pub(super) const fn help(self) -> Option<&'static str> {
        Some(match self {
            Self::Login => {
                "check user and password, that the role may log in (ALTER ROLE ... LOGIN), and its line in pg_hba.conf"
            }
            Self::Replication => {
                "let the role replicate: ALTER ROLE ... REPLICATION; where that is refused, set source.mode = \"poll\""
            }
            Self::Rights => "grant what the server names; `walrelay setup --role NAME` prints all that is needed",
            Self::Missing => {
                "run `walrelay setup --apply` if this is the first start; if it is not, the log since then is gone: compare the \
                 outbox table with Kafka, then accept the gap with `walrelay setup --apply --accept-gap`"
            }
            Self::SlotLost => {
                "the log that the slot needed is gone: compare the outbox table with Kafka, drop the slot with \
                 pg_drop_replication_slot, raise max_slot_wal_keep_size, then run `walrelay setup --apply --accept-gap`"
            }
            Self::Contract => "mend what the server names (`walrelay setup` prints the SQL), then restart",
            Self::WalLevel => {
                "run `ALTER SYSTEM SET wal_level = 'logical'` as a superuser and restart PostgreSQL; then go on where this stopped"
            }
            Self::NoSlot => NO_SLOT,
            Self::NoDatabase => "create the database, or name another one in postgres.url",
            Self::SlotOlder => {
                "create the publication if it is missing with `walrelay setup --apply`; if it is there, it did not exist when the WAL \
                 that comes next was written: compare the outbox table with Kafka, then run `walrelay setup --apply --accept-gap`, \
                 which advances the slot to where the publication exists, and says how far that is"
            }
            Self::RowTooLarge => "the row is larger than the server can send; it must be dealt with by hand",
            Self::Pooler => {
                "let postgres.url lead to PostgreSQL itself: a pooler such as PgBouncer takes no replication connection"
            }
            Self::Pooled => {
                "let the pooler keep a session for as long as a client is connected (pool_mode = session), or let postgres.url \
                 lead to PostgreSQL itself"
            }
            Self::Content => {
                "correct the value: it has a character that UTF-8 does not have, or bytes that are none in the encoding of the \
                 database"
            }
            Self::Ours => "please report this",
            Self::Setting => "correct options= in postgres.url: it holds a setting that the server refuses",
            Self::SlotActive | Self::Shutdown | Self::Away => return None,
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
    fn b18_what_is_missing_is_told_by_the_servers_function_and_not_by_its_words() {
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
            // Something between that names no function.
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
        assert!(matches!(missing(Some("lookup_type_cache")), Kind::Contract), "no publication that was created late");
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
