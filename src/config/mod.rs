//! The configuration: one TOML file, the environment and `--set`, with every mistake told at once.
