# walrelay alone, in an image of nothing else: no shell, nothing written, not root.
#   docker build -t walrelay --build-arg WALRELAY_REVISION="$(git rev-parse --short HEAD)" .
#   docker run --read-only --cap-drop=ALL -v ./config.toml:/etc/walrelay/config.toml:ro walrelay
FROM rust:1.95-bookworm AS build
# What `walrelay version` and walrelay_build_info show.
ARG WALRELAY_REVISION=
WORKDIR /src
# Not rust-toolchain.toml: the image is the toolchain, and rustup would download another one. Tests, benches and
# examples are not built, but Cargo.toml names them, and cargo requires the files.
COPY Cargo.toml Cargo.lock config.toml README.md ./
COPY sql ./sql
COPY src ./src
COPY crates ./crates
COPY benches ./benches
COPY examples ./examples
COPY tests ./tests
RUN WALRELAY_REVISION=$WALRELAY_REVISION cargo build --release --locked --bin walrelay
# The root of the image: the program, the C library, nsswitch.conf and the CA certificates.
RUN mkdir -p /image/etc/ssl/certs /image/etc/walrelay \
    && ldd target/release/walrelay | grep -o '/[^ ]*' | xargs cp --parents --dereference --target-directory=/image \
    && echo 'hosts: files dns' >/image/etc/nsswitch.conf \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && cp target/release/walrelay /image/walrelay

FROM scratch
COPY --from=build /image /
# In a container the endpoints must be reachable from outside of it.
ENV WALRELAY_HTTP__LISTEN=0.0.0.0:7430
USER 65532:65532
EXPOSE 7430
HEALTHCHECK --interval=10s --timeout=4s --start-period=5s CMD ["/walrelay", "healthcheck"]
ENTRYPOINT ["/walrelay"]
CMD ["run"]
