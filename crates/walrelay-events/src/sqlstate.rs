//! What an error of PostgreSQL says about the transaction that it ended, by its SQLSTATE.
//!
//! The outbox and the consumer sort errors by this table and by no other.
//!
//! | SQLSTATE | cause | because |
//! |---|---|---|
//! | 08 connection exception | environment | the connection failed; poolers report their own outages as 08P01 |
//! | 28 invalid authorization, 3D000 database does not exist | environment | only a connect fails like this |
//! | 40 transaction rollback, except 40002 | environment | PostgreSQL chose this transaction for the sake of others |
//! | 55P03 lock not available | environment | another session holds the lock, as in a deadlock |
//! | 25006 read-only transaction | environment | after a failover the client is connected to a standby |
//! | 26000, 42P05 prepared statement missing or duplicate | environment | a pooler switched the server connection |
//! | 53 insufficient resources, except 53400 | environment | disk, memory or connections of the server are used up |
//! | 57 operator intervention, except 57014 | environment | the server or the session is shut down, or starts |
//! | 58 system error | environment | the server's disk or files failed |
//! | 57014 query canceled, 53400 `temp_file_limit` | limit | the statement may cost too much each time |
//! | 25P03, 25P04 `idle_in_transaction_session_timeout`, `transaction_timeout` | limit | so may the transaction |
//! | 40002 and everything else | statement | the same statement fails again |

/// What made PostgreSQL end a transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cause {
    /// Nothing in the transaction. The same transaction succeeds when its environment is well again.
    Environment,
    /// A limit that the transaction reached. It may succeed on a less busy server, or never.
    Limit,
    /// A statement. The same transaction fails again until a person or another transaction changes something.
    Statement,
}

/// Returns the cause of an error with this SQLSTATE.
pub(crate) fn cause(sqlstate: &str) -> Cause {
    match sqlstate {
        "25P03" | "25P04" | "53400" | "57014" => Cause::Limit,
        "25006" | "26000" | "3D000" | "42P05" | "55P03" => Cause::Environment,
        "40002" => Cause::Statement,
        _ => match sqlstate.get(..2) {
            Some("08" | "28" | "40" | "53" | "57" | "58") => Cause::Environment,
            Some(_) | None => Cause::Statement,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i14_every_sqlstate_has_one_cause() {
        let environment = "08000 08006 08P01 25006 26000 28000 28P01 3D000 40000 40001 40003 40P01 42P05 53000 53100 \
                           53200 53300 55P03 57000 57P01 57P02 57P03 57P04 57P05 58000 58030 58P01";
        let statement = "0A000 22021 22P02 23505 25001 25P02 40002 42501 42703 42P01 55000 55006 P0001 XX000";
        for (codes, expected) in [
            (environment, Cause::Environment),
            ("25P03 25P04 53400 57014", Cause::Limit),
            (statement, Cause::Statement),
            // These are no codes.
            ("ä x", Cause::Statement),
        ] {
            for code in codes.split_whitespace() {
                assert_eq!(cause(code), expected, "{code}");
            }
        }
        assert_eq!(cause(""), Cause::Statement);
    }
}
