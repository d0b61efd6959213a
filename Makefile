# The entry points people need. `make demo` and `make test` do all the set-up on a fresh Debian or Ubuntu machine.

.PHONY: help release demo example test test-versions lint features services bench bench-consumer endure image fresh

help:
	@echo "make demo      relays orders on this machine, from a throwaway PostgreSQL to an in-process Kafka"
	@echo "make release   target/release/walrelay, with OpenSSL built in"
	@echo "make example   a small service on the library, on a real PostgreSQL and a real Kafka"
	@echo "make test      all tests, on a real PostgreSQL and a real Kafka"
	@echo "make test-versions  the relay's tests on PostgreSQL 14 to 18; VERSIONS=\"14 18\" and TESTS=\"relay::wal\" choose"
	@echo "make lint      format, lints and the library's pages, warnings as errors"
	@echo "make features  each feature of the library alone and its oldest Rust, warnings as errors"
	@echo "make services  fetch Kafka's jars for the tests"
	@echo "make bench     the relay against a bare loop on this machine; BENCH=\"drain latency poll --rounds 5\" selects"
	@echo "make bench-consumer  the consumer runtime against a bare poll loop"
	@echo "make endure    long runs: 200,000 events, 50 kills, a group for 3 minutes, a million rows, 10 minutes without Kafka;"
	@echo "               ENDURE=\"events kills group transaction outage\" chooses; ENDURE=\"shutdown return\" measures how long a"
	@echo "               shutdown of PostgreSQL takes, and a return of it or of a broker, VERSIONS=\"14 18\" on which"
	@echo "make image     the Dockerfile's steps without Docker, and a test of the result"
	@echo "make fresh     make demo and make test in a new, minimal Debian 12; FRESH=test reuses the last one"

release:
	@scripts/setup release
	OPENSSL_NO_VENDOR=0 cargo build --release --locked --bin walrelay

demo:
	@scripts/setup demo
	@cargo build --quiet
	@target/debug/walrelay demo $(DEMO)

example: services
	@scripts/example

test: services
	cargo test --workspace --all-features

test-versions: services
	@scripts/setup versions
	@scripts/test-versions "$(or $(VERSIONS),14 15 16 17 18)" $(TESTS)

lint:
	cargo fmt --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps

features:
	@scripts/features

services:
	@scripts/setup test
	@scripts/services

bench: services
	@scripts/bench $(BENCH)

bench-consumer: services
	@scripts/bench consumer $(BENCH)

endure: services
	@scripts/endure "$(VERSIONS)" $(ENDURE)

image: services
	@scripts/image

fresh:
	@scripts/fresh $(FRESH)
