//! Statements that can be sent prepared, or spelled out as text for a proxy that pools transactions.

use std::fmt::Write;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Encode, PgConnection, Postgres, SqlSafeStr, SqlStr, Type};
use uuid::Uuid;

/// How statements travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Prepared once on each connection, with bound values: one round trip from then on.
    Prepared,
    /// As text with the values in it. A proxy that pools transactions may answer each message from
    /// another server connection, where the statement was not prepared.
    Text,
}

/// The schema that a store lives in. Statements are written for `evenkeel`.
#[derive(Clone, Debug)]
pub(crate) struct Schema(String);

impl Schema {
    pub(crate) const DEFAULT: &'static str = "evenkeel";

    /// The schema `name`, where that is 1 to 48 lower-case letters, digits and underscores, not
    /// beginning with a digit: what needs no quoting to be the same everywhere.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let valid = (1..=48).contains(&name.len())
            && name.bytes().all(allowed)
            && !name.starts_with(|c: char| c.is_ascii_digit());
        valid.then(|| Self(name.to_owned()))
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// The statement for this schema.
    pub(crate) fn sql(&self, sql: &'static str) -> SqlStr {
        if self.0 == Self::DEFAULT {
            return sql.into_sql_str();
        }
        AssertSqlSafe(sql.replace("evenkeel.", &format!("\"{}\".", self.0))).into_sql_str()
    }
}

/// A statement and its values.
pub(crate) enum Statement {
    Prepared(Query<'static, Postgres, PgArguments>),
    Text { sql: SqlStr, values: Vec<String> },
}

impl Statement {
    pub(crate) fn new(protocol: Protocol, sql: SqlStr) -> Self {
        match protocol {
            Protocol::Prepared => Self::Prepared(sqlx::query(sql)),
            Protocol::Text => Self::Text { sql, values: Vec::new() },
        }
    }

    /// Gives the next `$n` its value.
    pub(crate) fn bind<'t, T>(self, value: T) -> Self
    where
        T: Encode<'t, Postgres> + Type<Postgres> + Spell,
    {
        match self {
            Self::Prepared(query) => Self::Prepared(query.bind(value)),
            Self::Text { sql, mut values } => {
                let mut spelled = String::new();
                value.spell(&mut spelled);
                let _ = write!(spelled, "::{}", T::type_name());
                values.push(spelled);
                Self::Text { sql, values }
            }
        }
    }

    pub(crate) async fn fetch(self, conn: &mut PgConnection) -> sqlx::Result<Vec<PgRow>> {
        match self {
            Self::Prepared(query) => query.fetch_all(conn).await,
            Self::Text { sql, values } => {
                sqlx::raw_sql(AssertSqlSafe(spell_out(sql.as_str(), &values))).fetch_all(conn).await
            }
        }
    }
}

/// The statement with its values in the places of `$1`, `$2` and so on.
fn spell_out(sql: &str, values: &[String]) -> String {
    let mut spelled = String::with_capacity(sql.len() + values.iter().map(String::len).sum::<usize>());
    let mut pieces = sql.split('$');
    spelled.extend(pieces.next());
    for piece in pieces {
        let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = piece.split_at(digits);
        let place: usize = number.parse().expect("a `$` stands only before the number of a value");
        spelled.push_str(&values[place - 1]);
        spelled.push_str(rest);
    }
    spelled
}

/// A value that can be written into a statement.
pub(crate) trait Spell {
    /// The SQL type.
    fn type_name() -> String;
    /// Writes a literal that means this value whatever the server's settings are.
    fn spell(&self, out: &mut String);
}

macro_rules! spell_by_display {
    ($($type:ty => $name:literal),*) => {$(
        impl Spell for $type {
            fn type_name() -> String {
                $name.to_owned()
            }

            fn spell(&self, out: &mut String) {
                let _ = write!(out, "'{self}'");
            }
        }
    )*};
}
spell_by_display!(bool => "boolean", i32 => "integer", i64 => "bigint", Uuid => "uuid");

impl Spell for &str {
    fn type_name() -> String {
        "text".to_owned()
    }

    fn spell(&self, out: &mut String) {
        // An escape string means the same whether `standard_conforming_strings` is on or off.
        out.push_str("E'");
        for c in self.chars() {
            if matches!(c, '\'' | '\\') {
                out.push(c);
            }
            out.push(c);
        }
        out.push('\'');
    }
}

impl Spell for String {
    fn type_name() -> String {
        <&str>::type_name()
    }

    fn spell(&self, out: &mut String) {
        self.as_str().spell(out);
    }
}

impl Spell for &[u8] {
    fn type_name() -> String {
        "bytea".to_owned()
    }

    fn spell(&self, out: &mut String) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        out.push_str("E'\\\\x");
        for byte in *self {
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 0xf)]));
        }
        out.push('\'');
    }
}

impl<T: Spell> Spell for Option<T> {
    fn type_name() -> String {
        T::type_name()
    }

    fn spell(&self, out: &mut String) {
        match self {
            Some(value) => value.spell(out),
            None => out.push_str("NULL"),
        }
    }
}

impl<T: Spell> Spell for &[T] {
    fn type_name() -> String {
        T::type_name() + "[]"
    }

    fn spell(&self, out: &mut String) {
        out.push_str("ARRAY[");
        for (place, value) in self.iter().enumerate() {
            if place > 0 {
                out.push(',');
            }
            value.spell(out);
        }
        out.push(']');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(value: &impl Spell) -> String {
        let mut out = String::new();
        value.spell(&mut out);
        out
    }

    #[test]
    fn a_value_is_spelled_so_that_it_cannot_end_its_literal() {
        assert_eq!(spelled(&"it's a \\ and \"quotes\""), r#"E'it''s a \\ and "quotes"'"#);
        assert_eq!(spelled(&&b"\x00\xff'"[..]), r"E'\\x00ff27'");
        assert_eq!(spelled(&-7_i64), "'-7'");
        assert_eq!(spelled(&&["a,b", "}"][..]), "ARRAY[E'a,b',E'}']");
        assert_eq!(spelled(&&[Some(true), None][..]), "ARRAY['true',NULL]");
        assert_eq!(<&[Option<&[u8]>]>::type_name(), "bytea[]");
    }

    #[test]
    fn a_value_stands_in_the_place_of_its_number() {
        let values: Vec<String> = (1..=11).map(|n| format!("<{n}>")).collect();
        assert_eq!(spell_out("$2, $11 and ($1)", &values), "<2>, <11> and (<1>)");
        let tricky = ["E'$1'".to_owned()];
        assert_eq!(spell_out("SELECT $1", &tricky), "SELECT E'$1'");
    }

    #[test]
    fn only_a_schema_that_needs_no_quoting_is_taken() {
        for bad in ["", "Evenkeel", "1st", "a.b", "a\"b", "a b", "ä", &"x".repeat(49)] {
            assert!(Schema::parse(bad).is_none(), "{bad:?}");
        }
        let schema = Schema::parse("shop_2").unwrap();
        assert_eq!(schema.sql("SELECT * FROM evenkeel.head").as_str(), "SELECT * FROM \"shop_2\".head");
    }
}
