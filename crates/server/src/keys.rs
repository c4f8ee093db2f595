use std::process::ExitCode;

use clap::{ArgMatches, Subcommand};
use evenkeel::core::{Error, ErrorKind, Result};
use evenkeel::flare::signing::{Secret, VaultKey};
use evenkeel::flare::{Flare, Resealed, Unsealable};

use crate::access::Token;
use crate::command::{block_on, print, with_causes};
use crate::settings::{Given, Settings};

/// Makes what is secret, none of which is kept by this program, and changes what secrets are kept under.
#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// A token for a caller of the server, shown this once, and the line with its hash for the
    /// settings.
    ///
    /// To rotate a token, add a second one under another name, let its caller change over, and take
    /// the first one's line away. Servers read their settings when they start.
    Token {
        /// Who calls: 1 to 64 letters, digits, - _ and .
        #[arg(long)]
        name: String,
        /// What it may do, with commas between: publish, subscribe, read, admin
        #[arg(long)]
        scopes: String,
    },
    /// A secret that signs a subscription's messages, to be given when subscribing; the server makes
    /// one where none is given.
    ///
    /// To rotate it, POST to /subscriptions/{id}/rotate-secret: messages carry the signatures of the
    /// old and the new one for a while, and either suffices.
    Secret,
    /// A key that the secrets of subscriptions are kept encrypted under.
    ///
    /// To rotate it, put the new key in front of the list and leave the old one behind it: the first
    /// one encrypts, all of them decrypt. Then `evenkeel keys reseal`, and take the old one away.
    Vault {
        /// The key's name, 1 to 32 letters, digits, - and _; another one for every key
        #[arg(long, default_value = "1")]
        id: String,
    },
    /// Encrypt the secrets of all subscriptions under the first vault key of the settings
    ///
    /// Every server must have that key by then. The secrets stay what they are, and what is done already
    /// stays as it is. The exit code is 1 where some cannot be decrypted.
    Reseal(Box<Given>),
}

impl Keys {
    /// Does what was asked; `matches` are those of the command that this is part of.
    ///
    /// # Errors
    /// `InvalidInput` or `Config` where a name, a scope or a setting is none; those of the store.
    pub(crate) fn run(self, matches: &ArgMatches) -> Result<ExitCode> {
        match self {
            Self::Token { name, scopes } => {
                let (token, secret) = Token::generate(&name, &scopes)?;
                Ok(print(format!(
                    "token, for the caller, who sends it as `Authorization: Bearer`:\n  {secret}\n\n\
                     in evenkeel.toml (or the token alone in EVENKEEL_TOKENS, or as --token):\n  \
                     tokens = [\"{token}\"]"
                )))
            }
            Self::Secret => Ok(print(Secret::generate().to_string())),
            Self::Vault { id } => Ok(print(format!("vault-keys = [\"{}\"]", VaultKey::generate(&id)?))),
            Self::Reseal(given) => {
                let (_, matches) = matches.subcommand().expect("clap has found the subcommand");
                let settings = given.resolve(matches)?;
                block_on(reseal(&settings))
            }
        }
    }
}

/// The exit code is 1 where secrets are left.
async fn reseal(settings: &Settings) -> Result<ExitCode> {
    if settings.vault_keys.is_empty() {
        return Err(
            Error::new(ErrorKind::Config, "there is no key to encrypt under").with("setting", "vault-keys")
        );
    }
    let store = evenkeel::open(&settings.store).await?;
    let Resealed { resealed, current, left, .. } =
        Flare::new(store).vault(settings.vault()?).reseal().await?;
    for Unsealable { error, .. } in &left {
        eprintln!("left as it is: {}", with_causes(error));
    }
    println!(
        "subscriptions whose secrets are under the first key now: {resealed}, as before: {current}, left: {}",
        left.len()
    );
    Ok(if left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
