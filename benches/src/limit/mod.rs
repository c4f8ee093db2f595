//! The limits: the least that does the same work by hand, on the same kind of server in the same run.

pub(crate) mod pgbench; // SQL on PostgreSQL, by its own benchmark
pub(crate) mod plain_dynamo; // requests of DynamoDB's client
pub(crate) mod plain_sql; // SQL on SQLite
pub(crate) mod plain_webhooks; // one subscriber, told by hand
pub(crate) mod redis_benchmark; // commands of Redis, by its own benchmark
