# walrelay alone, in a small image: no shell needed, nothing written, not root.
#   docker build -t walrelay .
#   docker run --read-only --cap-drop=ALL -v ./config.toml:/etc/walrelay/config.toml:ro walrelay
FROM rust:1.95-bookworm AS build
WORKDIR /src
# Not rust-toolchain.toml: the image is the toolchain, and rustup would fetch another one. Tests, benches and examples are
# not built, but Cargo.toml names them, and cargo insists that they are there.
COPY Cargo.toml Cargo.lock config.toml README.md ./
COPY sql ./sql
COPY src ./src
COPY benches ./benches
COPY examples ./examples
COPY tests ./tests
RUN cargo build --release --locked --bin walrelay

FROM debian:bookworm-slim
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/walrelay /walrelay
# In a container the endpoints must be reachable from outside of it.
ENV WALRELAY_HTTP__LISTEN=0.0.0.0:7430
USER 65532:65532
EXPOSE 7430
HEALTHCHECK --interval=10s --timeout=4s --start-period=5s CMD ["/walrelay", "healthcheck"]
ENTRYPOINT ["/walrelay"]
CMD ["run"]
