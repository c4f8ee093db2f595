# Thin names for what the scripts and cargo do.

# Lists the verbs.
default:
    @just --list

# Everything that must hold before a merge.
test:
    scripts/test

# Who may depend on whom.
layers:
    scripts/layers

# Formats the code.
fmt:
    cargo fmt --all

# Lints, with warnings denied.
lint:
    cargo clippy --workspace --all-targets --all-features -- -D warnings

# The documentation, in a browser.
doc:
    cargo doc --workspace --all-features --no-deps --open

# The payments service on SQLite.
payments:
    cargo run -p example-payments

# Measures a suite beside its limit: just bench idempotency --seconds 1
bench suite *arguments:
    cargo run --release -p evenkeel-bench -- {{suite}} {{arguments}}

# Licences, advisories and sources of the dependencies.
deny:
    cargo deny check
