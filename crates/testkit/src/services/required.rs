/// The environment variable that names what must not be missing.
const VARIABLE: &str = "EVENKEEL_TEST_REQUIRE";

/// Which stores and services must not be missing: what needs them fails then, where it would
/// otherwise be left out.
///
/// The environment variable `EVENKEEL_TEST_REQUIRE` says so: `all`, or names with commas between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Required {
    /// All of them.
    All,
    /// Those of these names.
    Named(Vec<String>),
}

impl Required {
    /// What the environment requires; nothing where it does not say.
    #[must_use]
    pub fn by_environment() -> Self {
        Self::parse(&std::env::var(VARIABLE).unwrap_or_default())
    }

    /// Whether the store or service of this name is required.
    #[must_use]
    pub fn includes(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.iter().any(|required| required == name),
        }
    }

    fn parse(value: &str) -> Self {
        match value {
            "all" => Self::All,
            names => Self::Named(names.split(',').map(|name| name.trim().to_owned()).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_or_some_or_nothing_is_required() {
        assert!(Required::parse("all").includes("pg"));
        assert!(Required::parse("pg, redis").includes("redis"));
        assert!(!Required::parse("pg,redis").includes("redis-cluster"));
        assert!(!Required::parse("").includes("pg"));
    }
}
