use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use evenkeel::core::{Error, ErrorKind, Result};
use evenkeel::flare::signing::{Vault, VaultKey};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::Targets;

use crate::access::Token;
use crate::period::Period;

/// The file that is read where none is named.
const FILE: &str = "evenkeel.toml";

/// What every variable of the environment that is meant for evenkeel begins with.
const PREFIX: &str = "EVENKEEL_";

/// What is the tests' own begins so.
const TESTS: &str = "EVENKEEL_TEST_";

/// Settings as flags and the environment give them, and the file that they are laid over.
#[derive(Args, Debug)]
pub(crate) struct Given {
    /// The TOML file with settings, whose keys are the names below without the dashes in front
    /// (lists: allow-target, tokens, vault-keys). A setting is taken from its flag, else from the
    /// environment, else from the file, else as by default.
    ///
    /// [default: evenkeel.toml, if there is one]
    #[arg(long, env = "EVENKEEL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// What a server goes by.
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Settings {
    /// Where everything is kept: sqlite://..., pg://..., dynamo://..., redis://... or memory:
    #[arg(
        long,
        env = "EVENKEEL_STORE",
        value_name = "URL",
        hide_env_values = true,
        default_value = "sqlite://evenkeel.db"
    )]
    pub(crate) store: String,
    /// The address to listen on; beyond loopback only with a token
    #[arg(long, env = "EVENKEEL_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// A network that subscribers may name although it is not public, such as 10.0.0.0/8; repeatable
    #[arg(long, env = "EVENKEEL_ALLOW_TARGET", value_name = "CIDR", value_delimiter = ',')]
    #[serde(default)]
    pub(crate) allow_target: Vec<IpNet>,
    /// Who may call: NAME:SCOPE+SCOPE:SHA256, as `evenkeel keys token` prints it; repeatable
    #[arg(
        long = "token",
        env = "EVENKEEL_TOKENS",
        value_name = "TOKEN",
        hide_env_values = true,
        value_delimiter = ','
    )]
    #[serde(default)]
    pub(crate) tokens: Vec<Token>,
    /// A key that secrets are kept encrypted under, as `evenkeel keys vault` prints it; repeatable,
    /// and the first one encrypts
    #[arg(
        long = "vault-key",
        env = "EVENKEEL_VAULT_KEYS",
        value_name = "KEY",
        hide_env_values = true,
        value_delimiter = ','
    )]
    #[serde(default)]
    pub(crate) vault_keys: Vec<KeyText>,
    /// The longest body of a request, in bytes
    #[arg(long, env = "EVENKEEL_BODY_LIMIT", value_name = "BYTES", default_value = "1048576")]
    pub(crate) body_limit: usize,
    /// How long a request may take until it is answered with 503
    #[arg(long, env = "EVENKEEL_REQUEST_TIMEOUT", value_name = "TIME", default_value = "30s")]
    pub(crate) request_timeout: Period,
    /// How long requests and deliveries that are under way have to end when the server stops
    #[arg(long, env = "EVENKEEL_SHUTDOWN_GRACE", value_name = "TIME", default_value = "20s")]
    pub(crate) shutdown_grace: Period,
    /// How many deliveries are under way at once to a subscription that does not say so itself
    #[arg(long, env = "EVENKEEL_CONCURRENCY", value_name = "COUNT", default_value = "32")]
    pub(crate) concurrency: usize,
    /// After how long without a sign of life another server takes over what this one was delivering
    #[arg(long, env = "EVENKEEL_LEASE", value_name = "TIME", default_value = "30s")]
    pub(crate) lease: Period,
    /// How logs are written, to standard error
    #[arg(long, env = "EVENKEEL_LOG_FORMAT", value_enum, default_value = "human")]
    pub(crate) log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace or off, also by target: info,evenkeel_flare=debug
    #[arg(long, env = "EVENKEEL_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: String,
    /// The OpenTelemetry collector that spans are sent to, over HTTP, such as http://localhost:4318;
    /// none without it
    #[cfg(feature = "otlp")]
    #[arg(long, env = "EVENKEEL_OTLP_ENDPOINT", value_name = "URL")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) otlp_endpoint: Option<String>,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// A line for people.
    Human,
    /// A JSON object a line.
    Json,
}

/// A vault's key as it is written; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct KeyText(String);

impl Given {
    /// The settings in effect, checked.
    ///
    /// # Errors
    /// `Config` naming the setting: one that does not exist, of a wrong type, or against a rule.
    pub(crate) fn resolve(self, matches: &ArgMatches) -> Result<Settings> {
        check_environment(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))?;
        let file = self.config.or_else(|| Path::new(FILE).exists().then(|| FILE.into()));
        let settings = match file {
            Some(path) => self.settings.over(&read(&path)?, &path, matches)?,
            None => self.settings,
        };
        settings.check()?;
        Ok(settings)
    }
}

impl Settings {
    /// Those of these flags alone, whatever environment and files say.
    ///
    /// # Errors
    /// `Config` where the flags are none.
    pub(crate) fn of_flags(flags: &[&str]) -> Result<Self> {
        let invalid =
            |source: clap::Error| Error::new(ErrorKind::Config, "these are no settings").with_source(source);
        let matches = flags_only().try_get_matches_from(flags).map_err(invalid)?;
        Self::from_arg_matches(&matches).map_err(invalid)
    }

    /// These, with those of the file in the place of defaults.
    fn over(mut self, file: &str, path: &Path, matches: &ArgMatches) -> Result<Self> {
        let invalid = |message: String| Error::new(ErrorKind::Config, message).with("file", path.display());
        let file: toml::Table = file.parse().map_err(|error: toml::de::Error| invalid(error.to_string()))?;
        let known = names();
        for (name, value) in file {
            if !known.contains(&name) {
                let message = format!("there is no setting {name:?}; there are {}", known.join(", "));
                return Err(invalid(message));
            }
            let source = matches.value_source(&name.replace('-', "_"));
            if !matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
                self = self
                    .with(&name, value)
                    .map_err(|error| invalid(format!("{name}: {}", error.message())))?;
            }
        }
        Ok(self)
    }

    fn with(self, name: &str, value: toml::Value) -> Result<Self, toml::de::Error> {
        let mut table = toml::Table::try_from(self).expect("settings are a table");
        table.insert(name.to_owned(), value);
        table.try_into()
    }

    /// # Errors
    /// `Config` naming the setting and its value.
    fn check(&self) -> Result<()> {
        let refuse = |message, setting, value: &dyn std::fmt::Display| {
            Err(Error::new(ErrorKind::Config, message).with("setting", setting).with("value", value))
        };
        if !self.listen.ip().is_loopback() && self.tokens.is_empty() {
            return refuse(
                "beyond loopback everybody could publish and subscribe: make a token with \
                 `evenkeel keys token --name NAME --scopes publish,subscribe,read,admin` and set it, \
                 or listen on 127.0.0.1",
                "listen",
                &self.listen,
            );
        }
        if let Some(twice) = self.tokens.iter().enumerate().find_map(|(n, token)| {
            self.tokens[..n].iter().any(|other| other.name() == token.name()).then(|| token.name())
        }) {
            return refuse("two tokens have the same name", "tokens", &twice);
        }
        if self.body_limit == 0 {
            return refuse("a body has at least 1 byte", "body-limit", &self.body_limit);
        }
        if self.concurrency == 0 {
            return refuse("at least 1 delivery is under way", "concurrency", &self.concurrency);
        }
        if self.request_timeout.0.is_zero() {
            return refuse("a request takes some time", "request-timeout", &self.request_timeout);
        }
        if self.lease.0.as_secs() < 1 {
            return refuse("a lease is at least 1s", "lease", &self.lease);
        }
        self.log_targets()?;
        self.vault().map(drop)
    }

    pub(crate) fn vault(&self) -> Result<Vault> {
        Vault::new(self.vault_keys.iter().map(|key| key.0.parse::<VaultKey>()).collect::<Result<Vec<_>>>()?)
    }

    pub(crate) fn log_targets(&self) -> Result<Targets> {
        self.log_level.parse().map_err(|error| {
            Error::new(ErrorKind::Config, "this is no level")
                .with("setting", "log-level")
                .with("value", &self.log_level)
                .with_source(error)
        })
    }

    /// All of them but what is secret, a line each.
    pub(crate) fn shown(&self) -> String {
        let mut table = toml::Table::try_from(self).expect("settings are a table");
        let list = |items: Vec<String>| items.into_iter().map(toml::Value::from).collect::<Vec<_>>().into();
        table.insert("store".to_owned(), self.shown_store().into());
        table.insert("tokens".to_owned(), list(self.tokens.iter().map(Token::shown).collect()));
        table.insert(
            "vault-keys".to_owned(),
            list(self.vault_keys.iter().map(|key| format!("{key:?}")).collect()),
        );
        table.iter().map(|(name, value)| format!("  {name} = {value}")).collect::<Vec<_>>().join("\n")
    }

    /// The store's URL without what is secret in it.
    pub(crate) fn shown_store(&self) -> String {
        let Ok(mut url) = url::Url::parse(&self.store) else { return self.store.clone() };
        if url.password().is_none() || url.set_password(Some("***")).is_err() {
            return self.store.clone();
        }
        url.into()
    }
}

impl std::str::FromStr for KeyText {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Debug for KeyText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.split(':').next().unwrap_or_default())
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| {
        Error::new(ErrorKind::Config, "the file with settings cannot be read")
            .with("file", path.display())
            .with_source(source)
    })
}

/// A command of these settings, deaf to the environment.
fn flags_only() -> Command {
    let command = Settings::augment_args(Command::new("settings").no_binary_name(true));
    command.mut_args(|argument| argument.env(None))
}

/// The settings by their names in a file.
fn names() -> Vec<String> {
    let command = flags_only();
    command.get_arguments().map(|argument| argument.get_id().as_str().replace('_', "-")).collect()
}

/// # Errors
/// `Config` naming a variable that is meant for evenkeel, and means nothing to it.
fn check_environment(variables: impl Iterator<Item = String>) -> Result<()> {
    let command = Given::augment_args(Command::new("settings"));
    let known: Vec<_> = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect();
    for name in variables.filter(|name| name.starts_with(PREFIX) && !name.starts_with(TESTS)) {
        if !known.contains(&name.as_str()) {
            return Err(Error::new(ErrorKind::Config, "there is no such setting")
                .with("variable", name)
                .with("there are", known.join(", ")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "test.toml";

    /// The settings of these flags over this file.
    fn resolve(flags: &[&str], file: &str) -> Result<Settings> {
        let matches = flags_only().get_matches_from(flags);
        let settings = Settings::of_flags(flags)?.over(file, Path::new(PATH), &matches)?;
        settings.check()?;
        Ok(settings)
    }

    fn refusal(flags: &[&str], file: &str) -> String {
        let error = resolve(flags, file).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    }

    #[test]
    fn the_file_is_stronger_than_defaults_and_weaker_than_flags() {
        let file = "concurrency = 7\nlease = '2s'\nallow-target = ['10.0.0.0/8', '::1/128']";
        let settings = resolve(&["--lease", "3s"], file).unwrap();
        assert_eq!(settings.concurrency, 7);
        assert_eq!(settings.lease.to_string(), "3s");
        assert_eq!(settings.request_timeout.to_string(), "30s");
        assert_eq!(settings.allow_target.len(), 2);
    }

    #[test]
    fn a_list_that_is_given_replaces_the_one_of_the_file() {
        let settings = resolve(&["--allow-target", "10.0.0.0/8"], "allow-target = ['::1/128']").unwrap();
        assert_eq!(settings.allow_target, ["10.0.0.0/8".parse().unwrap()]);
    }

    #[test]
    fn an_unknown_setting_of_the_file_is_refused_by_name() {
        for name in ["lissten", "body_limit", "config"] {
            let error = refusal(&[], &format!("{name} = 1"));
            assert!(error.contains(&format!("{name:?}")) && error.contains(PATH), "{error}");
        }
    }

    #[test]
    fn a_value_of_a_wrong_type_is_refused_with_its_setting() {
        for file in
            ["body-limit = 'much'", "listen = 'here'", "lease = 30", "tokens = ['x']", "log-format = 'xml'"]
        {
            let error = refusal(&[], file);
            let name = file.split(' ').next().unwrap();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn an_unknown_variable_of_the_environment_is_refused_by_name() {
        let check = |name: &str| check_environment(std::iter::once(name.to_owned()));
        for known in ["EVENKEEL_STORE", "EVENKEEL_CONFIG", "EVENKEEL_TEST_PG_URL", "HOME", "evenkeel_x"] {
            assert!(check(known).is_ok(), "{known}");
        }
        let error = check("EVENKEEL_LISSTEN").unwrap_err().to_string();
        assert!(error.contains("EVENKEEL_LISSTEN") && error.contains("EVENKEEL_LISTEN"), "{error}");
    }

    #[test]
    fn beyond_loopback_it_listens_only_with_a_token() {
        let token = Token::generate("ci", "read").unwrap().0.to_string();
        for beyond in ["0.0.0.0:80", "[::]:80", "192.168.1.7:80"] {
            let error = refusal(&["--listen", beyond], "");
            assert!(error.contains("keys token") && error.contains(beyond), "{error}");
            assert!(resolve(&["--listen", beyond, "--token", &token], "").is_ok());
        }
        for loopback in ["127.0.0.1:80", "[::1]:80"] {
            assert!(resolve(&["--listen", loopback], "").is_ok());
        }
    }

    #[test]
    fn a_value_against_a_rule_is_refused_with_its_setting() {
        for (setting, value) in [
            ("body-limit", "0"),
            ("concurrency", "0"),
            ("request-timeout", "0s"),
            ("lease", "900ms"),
            ("log-level", "a=b=c"),
        ] {
            let error = refusal(&[&format!("--{setting}"), value], "");
            assert!(error.contains(setting) && error.contains(value), "{error}");
        }
        let one = Token::generate("one", "read").unwrap().0.to_string();
        let other = Token::generate("one", "admin").unwrap().0.to_string();
        assert!(refusal(&["--token", &one, "--token", &other], "").contains("value: one"));
        assert!(refusal(&["--vault-key", "a"], "").contains("a key is"));
    }

    #[test]
    fn what_is_shown_of_the_store_has_no_password() {
        for (store, shown) in [
            ("pg://ada:secret@host/db", "pg://ada:***@host/db"),
            ("redis://:secret@host:6379", "redis://:***@host:6379"),
            ("sqlite://evenkeel.db", "sqlite://evenkeel.db"),
            ("memory:", "memory:"),
        ] {
            assert_eq!(resolve(&["--store", store], "").unwrap().shown_store(), shown);
        }
    }

    #[test]
    fn a_vaults_key_is_not_in_debug_output() {
        let key = VaultKey::generate("current").unwrap().to_string();
        let settings = resolve(&["--vault-key", &key], "").unwrap();
        let debug = format!("{settings:?}");
        assert!(debug.contains("current") && !debug.contains(&key["current:".len()..]), "{debug}");
    }
}
