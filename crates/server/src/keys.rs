use clap::Subcommand;
use evenkeel::core::Result;
use evenkeel::flare::signing::{Secret, VaultKey};

use crate::access::Token;

/// Makes what is secret. Nothing of it is kept by this program.
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
    /// one encrypts, all of them decrypt. Take the old one away once every secret was rotated since.
    Vault {
        /// The key's name, 1 to 32 letters, digits, - and _; another one for every key
        #[arg(long, default_value = "1")]
        id: String,
    },
}

impl Keys {
    /// # Errors
    /// `InvalidInput` or `Config` where a name or a scope is none.
    pub(crate) fn make(&self) -> Result<String> {
        Ok(match self {
            Self::Token { name, scopes } => {
                let (token, secret) = Token::generate(name, scopes)?;
                format!(
                    "token, for the caller, who sends it as `Authorization: Bearer`:\n  {secret}\n\n\
                     in evenkeel.toml (or the token alone in EVENKEEL_TOKENS, or as --token):\n  \
                     tokens = [\"{token}\"]"
                )
            }
            Self::Secret => Secret::generate().to_string(),
            Self::Vault { id } => {
                format!("vault-keys = [\"{}\"]", VaultKey::generate(id)?)
            }
        })
    }
}
