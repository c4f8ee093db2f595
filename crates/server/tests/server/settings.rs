use crate::common::process::Program;

/// What `doctor` says of a setting that is in effect.
async fn in_effect(program: Program, setting: &str) -> String {
    let printed = program.printed().await;
    let line = printed.lines().find_map(|line| line.trim().strip_prefix(&format!("{setting} = ")));
    line.unwrap_or_else(|| panic!("{setting}: {printed}")).to_owned()
}

fn doctor(arguments: &[&str]) -> Program {
    Program::new(&[&["doctor", "--store", "memory:"], arguments].concat())
}

#[tokio::test]
async fn flags_are_stronger_than_the_environment_than_the_file_than_defaults() {
    let lease = |program| in_effect(program, "lease");
    assert_eq!(lease(doctor(&[])).await, "\"30s\"");
    let file = |arguments| doctor(arguments).file("evenkeel.toml", "lease = '4s'");
    assert_eq!(lease(file(&[])).await, "\"4s\"");
    assert_eq!(lease(file(&[]).env("EVENKEEL_LEASE", "3s")).await, "\"3s\"");
    assert_eq!(lease(file(&["--lease", "2s"]).env("EVENKEEL_LEASE", "3s")).await, "\"2s\"");
}

#[tokio::test]
async fn a_file_can_be_named_and_must_then_be_there() {
    let named = doctor(&["--config", "other.toml"]).file("other.toml", "concurrency = 5");
    assert_eq!(in_effect(named, "concurrency").await, "5");
    let complaint = doctor(&["--config", "other.toml"]).complaint().await;
    assert!(complaint.contains("other.toml"), "{complaint}");
}

#[tokio::test]
async fn the_store_of_the_environment_is_the_store() {
    let program = Program::new(&["doctor"]).env("EVENKEEL_STORE", "sqlite://there.db");
    assert_eq!(in_effect(program, "store").await, "\"sqlite://there.db\"");
}

#[tokio::test]
async fn an_unknown_setting_is_refused_by_name_wherever_it_stands() {
    for command in ["serve", "migrate", "doctor"] {
        let complaint = Program::new(&[command]).env("EVENKEEL_LISSTEN", "1").complaint().await;
        assert!(complaint.contains("EVENKEEL_LISSTEN"), "{complaint}");
        let complaint = Program::new(&[command]).file("evenkeel.toml", "lissten = 1").complaint().await;
        assert!(complaint.contains("lissten") && complaint.contains("evenkeel.toml"), "{complaint}");
        let output = Program::new(&[command, "--lissten", "1"]).run().await;
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("--lissten"));
    }
}

#[tokio::test]
async fn beyond_loopback_it_refuses_to_listen_without_a_token_and_says_what_to_do() {
    let complaint = Program::new(&["--listen", "0.0.0.0:0", "--store", "memory:"]).complaint().await;
    assert!(complaint.contains("evenkeel keys token"), "{complaint}");
}

#[tokio::test]
async fn doctor_ends_with_1_where_a_server_would_not_work() {
    let output = Program::new(&["doctor", "--store", "sqlite:///proc/nowhere/x.db"]).run().await;
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("bad   store"), "{printed}");
}

#[tokio::test]
async fn help_lists_every_setting_with_its_variable_and_its_default() {
    let help = Program::new(&["--help"]).printed().await;
    for (flag, variable, default) in [
        ("--config", "EVENKEEL_CONFIG", "[default: evenkeel.toml, if there is one]"),
        ("--store", "EVENKEEL_STORE", "[default: sqlite://evenkeel.db]"),
        ("--listen", "EVENKEEL_LISTEN", "[default: 127.0.0.1:8080]"),
        ("--allow-target", "EVENKEEL_ALLOW_TARGET", ""),
        ("--token", "EVENKEEL_TOKENS", ""),
        ("--vault-key", "EVENKEEL_VAULT_KEYS", ""),
        ("--body-limit", "EVENKEEL_BODY_LIMIT", "[default: 1048576]"),
        ("--request-timeout", "EVENKEEL_REQUEST_TIMEOUT", "[default: 30s]"),
        ("--shutdown-grace", "EVENKEEL_SHUTDOWN_GRACE", "[default: 20s]"),
        ("--concurrency", "EVENKEEL_CONCURRENCY", "[default: 32]"),
        ("--lease", "EVENKEEL_LEASE", "[default: 30s]"),
        ("--log-format", "EVENKEEL_LOG_FORMAT", "[default: human]"),
        ("--log-level", "EVENKEEL_LOG_LEVEL", "[default: info]"),
        #[cfg(feature = "otlp")]
        ("--otlp-endpoint", "EVENKEEL_OTLP_ENDPOINT", ""),
    ] {
        let start = help.find(&format!("{flag} <")).unwrap_or_else(|| panic!("{flag}: {help}"));
        let end = help[start + 2..].find("\n      --").map_or(help.len(), |end| start + 2 + end);
        let about = &help[start..end];
        assert!(about.contains(variable) && about.contains(default), "{about}");
    }
}

#[tokio::test]
async fn migrate_creates_the_store_and_says_what_it_is() {
    let printed = Program::new(&["migrate", "--store", "sqlite://new.db"]).printed().await;
    assert!(printed.contains("sqlite://new.db is up to date"), "{printed}");
}

#[tokio::test]
async fn openapi_prints_a_document_of_the_routes() {
    let printed = Program::new(&["openapi"]).printed().await;
    let document: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    assert!(document["paths"]["/resources"].is_object());
}
