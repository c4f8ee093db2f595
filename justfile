# Thin names for what the scripts and cargo do.

# Lists the verbs.
default:
    @just --list

# Everything that must hold before a merge.
test:
    scripts/test

# The tests of one crate beside the servers it may need: just test-one storage-pg
test-one crate *arguments:
    cargo run --quiet -p evenkeel-testkit --features services --bin with-services -- cargo nextest run -p evenkeel-{{crate}} {{arguments}}

# The tests of storage-pg on the oldest supported PostgreSQL and on the newest.
pg-versions *arguments:
    scripts/pg-versions {{arguments}}

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

# Fuzzes each target for a minute, or so many seconds: just fuzz 10. Needs cargo-fuzz and a nightly compiler.
fuzz seconds="60":
    for target in $(cargo +nightly fuzz list); do cargo +nightly fuzz run $target -- -max_total_time={{seconds}} || exit 1; done

# A virtual week in which a subscriber is dead and documents change, so many and so often: just ruin 1000 1000
ruin documents="1000" changes="1000":
    EVENKEEL_RUIN={{documents}}x{{changes}} EVENKEEL_PATIENCE=14400 cargo test --release -p evenkeel-flare --test suite -- --exact memory::flare::n1::backlog::a_week_of_changes_is_one_message_a_document
    EVENKEEL_RUIN={{documents}}x{{changes}} EVENKEEL_PATIENCE=14400 cargo test --release -p evenkeel-storage-sqlite --test flare -- --exact sqlite::flare::n1::backlog::a_week_of_changes_is_one_message_a_document

# Licences, advisories and sources of the dependencies.
deny:
    cargo deny check
