//! Values, rows and statements: what travels between a query and either engine.

use std::sync::Arc;

use super::DbError;

/// One SQL value. Booleans are a type of their own because PostgreSQL keeps them apart from integers.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
    /// Text that is shared with somebody else, such as an event's JSON.
    SharedText(Arc<str>),
    Blob(Vec<u8>),
    /// The lane of the transaction that carries the statement; see `stream::lane`.
    Lane,
    /// The position in that lane which the transaction takes; see `stream::lane`.
    Seq,
}

macro_rules! value_from {
    ($($source:ty => |$name:ident| $value:expr),+ $(,)?) => {
        $(impl From<$source> for Value {
            fn from($name: $source) -> Self {
                $value
            }
        })+
    };
}

value_from! {
    bool => |value| Value::Bool(value),
    i64 => |value| Value::Int(value),
    i32 => |value| Value::Int(value.into()),
    u32 => |value| Value::Int(value.into()),
    u16 => |value| Value::Int(value.into()),
    u64 => |value| Value::Int(i64::try_from(value).unwrap_or(i64::MAX)),
    usize => |value| Value::Int(i64::try_from(value).unwrap_or(i64::MAX)),
    String => |value| Value::Text(value),
    &String => |value| Value::Text(value.clone()),
    &str => |value| Value::Text(value.to_owned()),
    Arc<str> => |value| Value::SharedText(value),
    &Arc<str> => |value| Value::SharedText(value.clone()),
    Vec<u8> => |value| Value::Blob(value),
    &[u8] => |value| Value::Blob(value.to_vec()),
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// Makes the parameter list of a statement: `params![room_nid, "m.room.member", user_id.as_str()]`.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => { vec![$($crate::storage::Value::from($value)),*] };
}

/// One statement with its parameters, ready to be sent with others.
#[derive(Clone, Debug)]
pub struct Stmt {
    pub sql: &'static str,
    pub params: Vec<Value>,
    /// Whether others of the same text may join it.
    pub(super) inserts_a_row: bool,
}

impl Stmt {
    /// A statement; `sql` is `'static` because each engine prepares it once under that text.
    pub fn new(sql: &'static str, params: Vec<Value>) -> Self {
        Self { sql, params, inserts_a_row: false }
    }

    /// A statement `INSERT … VALUES ($1, …, $n)` that inserts one row and nothing else; see [`Self::join_inserts`].
    pub fn insert(sql: &'static str, params: Vec<Value>) -> Self {
        Self { sql, params, inserts_a_row: true }
    }
}

/// One row of an answer.
#[derive(Clone, Debug)]
pub struct Row(pub(super) Vec<Value>);

impl Row {
    /// The value in column `index`, counted from zero.
    ///
    /// # Errors
    /// [`DbError::Column`] when there is no such column or it holds another type.
    pub fn get<T: FromValue>(&self, index: usize) -> Result<T, DbError> {
        let value = self.0.get(index).ok_or(DbError::Column { index, wanted: std::any::type_name::<T>() })?;
        T::from_value(value).ok_or(DbError::Column { index, wanted: std::any::type_name::<T>() })
    }
}

/// What can be read out of a [`Row`].
pub trait FromValue: Sized {
    fn from_value(value: &Value) -> Option<Self>;
}

impl FromValue for i64 {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Int(number) => Some(*number),
            Value::Bool(flag) => Some((*flag).into()),
            _ => None,
        }
    }
}

impl FromValue for u64 {
    fn from_value(value: &Value) -> Option<Self> {
        i64::from_value(value).and_then(|number| u64::try_from(number).ok())
    }
}

impl FromValue for bool {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(flag) => Some(*flag),
            // SQLite has no booleans of its own.
            Value::Int(number) => Some(*number != 0),
            _ => None,
        }
    }
}

impl FromValue for String {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(text.clone()),
            Value::SharedText(text) => Some(text.as_ref().to_owned()),
            _ => None,
        }
    }
}

impl FromValue for Vec<u8> {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Blob(bytes) => Some(bytes.clone()),
            _ => None,
        }
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(None),
            other => T::from_value(other).map(Some),
        }
    }
}

/// A JSON array of `items`, for statements that take a list: `json_each(CAST($1 AS TEXT))`.
pub fn json_list<T: serde::Serialize>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<T> = items.into_iter().collect();
    serde_json::to_string(&items).expect("plain scalars always serialise")
}
