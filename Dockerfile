# The static binary and nothing else: no shell, no libc, no root.
FROM rust:1.95-slim-bookworm AS build
# aws-lc and jemalloc are C; the rest needs only the linker.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev make cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# --target keeps crt-static away from build scripts and procedural macros, which cannot be static.
RUN RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --release --locked --target x86_64-unknown-linux-gnu \
    && mkdir -p /image/data \
    && cp target/x86_64-unknown-linux-gnu/release/lamplighter /image/lamplighter

FROM scratch
COPY --from=build --chown=65532:65532 /image /
USER 65532:65532
# The journal, when [data] dir is /data. Relative paths start here too.
VOLUME /data
WORKDIR /data
EXPOSE 5060/udp 5060/tcp 5061/tcp 8000/tcp
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["/lamplighter", "health", "--url", "http://127.0.0.1:8000/healthz"]
# docker run -v ./lamplighter.toml:/etc/lamplighter.toml:ro ... ; the embedded demo listens on the container's loopback.
ENTRYPOINT ["/lamplighter"]
CMD ["serve", "--config", "/etc/lamplighter.toml"]
