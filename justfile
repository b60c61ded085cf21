# A menu. Whatever needs thought is Rust, in xtask.

# List the recipes
default:
    @just --list

# Everything that must hold before a change is merged
test:
    cargo xtask test

# The quick part of it: format, lints, house rules
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --all-features -- -D warnings
    cargo xtask tidy

# The house rules alone
tidy:
    cargo xtask tidy

# The faults that must never be ours, and the tests that hold them off
faults:
    cargo xtask faults

# Kill commands 10,000 times and cut power after every write
crash:
    cargo xtask crash

# Kill agents and commands at random for ten minutes
unrest:
    cargo xtask unrest

# Kill MQTT proxies, and restart their broker, under load for ten minutes
relays:
    cargo xtask relays

# Run mosquitto's tests of brokers at it and through MQTT proxies
conformance:
    cargo xtask conformance

# Run 25,000 seeds of the simulator
sim:
    cargo xtask sim

# A late reader opens an old message, in one process
demo:
    cargo run --release -- demo

# Measure, write bench/RESULTS.md and its picture, and fail where a promise does not hold
bench:
    cargo run --release -p sealcast-bench

# The API documentation, in a browser
doc:
    cargo doc --workspace --no-deps --all-features --open

# Slow checks; each tool must be installed
nightly:
    cargo deny check bans licenses sources
    cargo hack check --workspace --each-feature --no-dev-deps

# Run fmt and tidy before each commit in this clone
hooks:
    cargo xtask hooks
