//! The relay's rooms that speak to PostgreSQL.

mod wal;
