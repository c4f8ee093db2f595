//! SQL on either connection that writes: the writer's own, on which statements run in its thread,
//! and the one that a door-2 transaction shares with its user; and on those of the readers.

use bytes::Bytes;
use evenkeel_core::{Error, ErrorKind, Result};
use futures_util::TryStreamExt;
use rusqlite::Connection;
use rusqlite::types::{ToSqlOutput, ValueRef};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Either, Row as _, SqliteConnection, TypeInfo, ValueRef as _};
use uuid::Uuid;

use crate::error::SqlResult;

/// What a `?` stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Param<'a> {
    Null,
    Integer(i64),
    Text(&'a str),
    Blob(&'a [u8]),
}

/// A row that was found.
#[derive(Debug)]
pub(crate) struct Row(Vec<Value>);

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Integer(i64),
    Text(String),
    Blob(Bytes),
    /// Of a type that no column has.
    Other,
}

/// Runs SQL; `doing` says what failed where it does.
pub(crate) trait Sql: Send {
    /// The rows that a query finds.
    fn query(
        &mut self,
        sql: &str,
        params: &[Param<'_>],
        doing: &'static str,
    ) -> impl Future<Output = Result<Vec<Row>>> + Send;

    /// The first row that a query finds for each of `params`. Its parameters have no numbers.
    fn find_each<const N: usize>(
        &mut self,
        sql: &str,
        params: &[[Param<'_>; N]],
        doing: &'static str,
    ) -> impl Future<Output = Result<Vec<Option<Row>>>> + Send;

    /// Runs a statement for each of `params`; how many rows it changed. Its parameters have no
    /// numbers.
    fn execute_each<const N: usize>(
        &mut self,
        sql: &str,
        params: &[[Param<'_>; N]],
        doing: &'static str,
    ) -> impl Future<Output = Result<usize>> + Send;
}

impl Sql for Connection {
    fn query(
        &mut self,
        sql: &str,
        params: &[Param<'_>],
        doing: &'static str,
    ) -> impl Future<Output = Result<Vec<Row>>> + Send {
        std::future::ready(query(self, sql, params, doing))
    }

    fn find_each<const N: usize>(
        &mut self,
        sql: &str,
        params: &[[Param<'_>; N]],
        doing: &'static str,
    ) -> impl Future<Output = Result<Vec<Option<Row>>>> + Send {
        std::future::ready(find_each(self, sql, params, doing))
    }

    fn execute_each<const N: usize>(
        &mut self,
        sql: &str,
        params: &[[Param<'_>; N]],
        doing: &'static str,
    ) -> impl Future<Output = Result<usize>> + Send {
        let changed = self.prepare_cached(sql).and_then(|mut statement| {
            let execute = |params: &[Param<'_>; N]| {
                bind(&mut statement, params)?;
                statement.raw_execute()
            };
            params.iter().map(execute).sum()
        });
        std::future::ready(changed.or_store_error(doing))
    }
}

/// What [`Sql::query`] does, in this thread.
pub(crate) fn query(
    connection: &Connection,
    sql: &str,
    params: &[Param<'_>],
    doing: &'static str,
) -> Result<Vec<Row>> {
    let rows = connection.prepare_cached(sql).and_then(|mut statement| {
        let columns = statement.column_count();
        bind(&mut statement, params)?;
        let mut found = statement.raw_query();
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            rows.push(Row::of_rusqlite(row, columns)?);
        }
        Ok(rows)
    });
    rows.or_store_error(doing)
}

/// What [`Sql::find_each`] does, in this thread.
pub(crate) fn find_each<const N: usize>(
    connection: &Connection,
    sql: &str,
    params: &[[Param<'_>; N]],
    doing: &'static str,
) -> Result<Vec<Option<Row>>> {
    let rows = connection.prepare_cached(sql).and_then(|mut statement| {
        let columns = statement.column_count();
        let mut find = |params: &[Param<'_>; N]| {
            bind(&mut statement, params)?;
            statement.raw_query().next()?.map(|row| Row::of_rusqlite(row, columns)).transpose()
        };
        params.iter().map(&mut find).collect()
    });
    rows.or_store_error(doing)
}

/// Gives the parameters of a statement their values; it may leave out the last of them.
fn bind(statement: &mut rusqlite::Statement<'_>, params: &[Param<'_>]) -> rusqlite::Result<()> {
    (1..=statement.parameter_count())
        .zip(params)
        .try_for_each(|(place, param)| statement.raw_bind_parameter(place, param))
}

impl rusqlite::ToSql for Param<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(integer) => ValueRef::Integer(*integer),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(blob) => ValueRef::Blob(blob),
        }))
    }
}

/// A statement that is run several times is written as often, since each trip to the connection's
/// thread costs more than to prepare it.
impl Sql for SqliteConnection {
    async fn query(&mut self, sql: &str, params: &[Param<'_>], doing: &'static str) -> Result<Vec<Row>> {
        let query = sqlx::query_with(AssertSqlSafe(sql), arguments(params)?);
        let rows = query.fetch_all(self).await.or_store_error(doing)?;
        rows.iter().map(Row::of_sqlx).collect()
    }

    async fn find_each<const N: usize>(
        &mut self,
        sql: &str,
        params: &[[Param<'_>; N]],
        doing: &'static str,
    ) -> Result<Vec<Option<Row>>> {
        let mut found = Vec::with_capacity(params.len());
        if params.is_empty() {
            return Ok(found);
        }
        let query = sqlx::query_with(AssertSqlSafe(repeated(sql, params)), arguments(params.as_flattened())?);
        #[expect(deprecated, reason = "one query text is several statements here, which is the point")]
        let mut results = query.persistent(params.len() == 1).fetch_many(self);
        let mut first = None;
        while let Some(result) = results.try_next().await.or_store_error(doing)? {
            match result {
                Either::Right(row) if first.is_none() => first = Some(Row::of_sqlx(&row)?),
                Either::Right(_) => {}
                Either::Left(_) => found.push(first.take()),
            }
        }
        Ok(found)
    }

    async fn execute_each<const N: usize>(
        &mut self,
        sql: &str,
        params: &[[Param<'_>; N]],
        doing: &'static str,
    ) -> Result<usize> {
        if params.is_empty() {
            return Ok(0);
        }
        let query = sqlx::query_with(AssertSqlSafe(repeated(sql, params)), arguments(params.as_flattened())?);
        let done = query.persistent(params.len() == 1).execute(self).await.or_store_error(doing)?;
        Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
    }
}

fn repeated<T>(sql: &str, times: &[T]) -> String {
    vec![sql; times.len()].join(";")
}

fn arguments(params: &[Param<'_>]) -> Result<SqliteArguments> {
    let mut arguments = SqliteArguments::default();
    for param in params {
        let added = match *param {
            Param::Null => sqlx::Arguments::add(&mut arguments, None::<i64>),
            Param::Integer(integer) => sqlx::Arguments::add(&mut arguments, integer),
            Param::Text(text) => sqlx::Arguments::add(&mut arguments, text.to_owned()),
            Param::Blob(blob) => sqlx::Arguments::add(&mut arguments, blob.to_vec()),
        };
        added.map_err(sqlx::Error::Encode).or_store_error("binding")?;
    }
    Ok(arguments)
}

impl Row {
    /// Reads a column as it is.
    pub(crate) fn get<T: Column>(&self, index: usize) -> Result<T> {
        self.0.get(index).and_then(T::of).ok_or_else(|| damaged("value"))
    }

    fn of_rusqlite(row: &rusqlite::Row<'_>, columns: usize) -> rusqlite::Result<Self> {
        let value = |index| {
            Ok(match row.get_ref(index)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(integer) => Value::Integer(integer),
                ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
                ValueRef::Blob(blob) => Value::Blob(Bytes::copy_from_slice(blob)),
                ValueRef::Real(_) => Value::Other,
            })
        };
        (0..columns).map(value).collect::<rusqlite::Result<_>>().map(Self)
    }

    fn of_sqlx(row: &SqliteRow) -> Result<Self> {
        let value = |index| {
            let raw = row.try_get_raw(index)?;
            if raw.is_null() {
                return Ok(Value::Null);
            }
            let kind = raw.type_info().into_owned();
            Ok(match kind.name() {
                "INTEGER" => Value::Integer(row.try_get_unchecked(index)?),
                "TEXT" => Value::Text(row.try_get_unchecked(index)?),
                "BLOB" => Value::Blob(row.try_get_unchecked::<Vec<u8>, _>(index)?.into()),
                _ => Value::Other,
            })
        };
        (0..row.len()).map(value).collect::<sqlx::Result<_>>().or_store_error("reading a row").map(Self)
    }
}

/// What can stand in a column.
pub(crate) trait Column: Sized {
    fn of(value: &Value) -> Option<Self>;
}

macro_rules! column {
    ($type:ty, $pattern:pat => $column:expr) => {
        impl Column for $type {
            fn of(value: &Value) -> Option<Self> {
                match value {
                    $pattern => $column,
                    _ => None,
                }
            }
        }
    };
}

column!(i64, Value::Integer(integer) => Some(*integer));
column!(u64, Value::Integer(integer) => Self::try_from(*integer).ok());
column!(u32, Value::Integer(integer) => Self::try_from(*integer).ok());
column!(String, Value::Text(text) => Some(text.clone()));
column!(Bytes, Value::Blob(blob) => Some(blob.clone()));
column!(Uuid, Value::Blob(blob) => Self::from_slice(blob).ok());

impl<T: Column> Column for Option<T> {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(None),
            value => T::of(value).map(Some),
        }
    }
}

impl<'a> From<&'a str> for Param<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Param<'a> {
    fn from(blob: &'a [u8]) -> Self {
        Self::Blob(blob)
    }
}

impl From<i64> for Param<'_> {
    fn from(integer: i64) -> Self {
        Self::Integer(integer)
    }
}

impl<'a, T: Into<Self>> From<Option<T>> for Param<'a> {
    fn from(param: Option<T>) -> Self {
        param.map_or(Self::Null, Into::into)
    }
}

pub(crate) fn damaged(what: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, "a row has an unexpected value").with("column", what)
}
