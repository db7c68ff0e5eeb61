#!/bin/sh
# cargo-nextest. Any version that knows our configuration will do: .config/nextest.toml states the oldest.
set -eu

if cargo nextest --version >/dev/null 2>&1; then
    exit 0
fi
echo "setup: building cargo-nextest (minutes, once)"
cargo install --locked --version 0.9.143 cargo-nextest
