use serde::Serialize;
use serde::ser::{self, Error as _, Impossible};
use serde_json::Error;

/// Takes an externally tagged value apart: the tag is the kind, the content the payload.
pub(super) struct KindAndPayload;

type Parts = (&'static str, Vec<u8>);

/// Makes the methods for what is neither an enum nor a struct.
macro_rules! refuse {
    ($($method:ident($($arg:ty),*) -> $ok:ty;)*) => {$(
        fn $method(self, $(_: $arg),*) -> Result<$ok, Error> {
            Err(Error::custom("an event is an enum or a struct"))
        }
    )*};
}

impl ser::Serializer for KindAndPayload {
    type Ok = Parts;
    type Error = Error;
    type SerializeSeq = Impossible<Parts, Error>;
    type SerializeTuple = Impossible<Parts, Error>;
    type SerializeTupleStruct = Members;
    type SerializeTupleVariant = Members;
    type SerializeMap = Impossible<Parts, Error>;
    type SerializeStruct = Members;
    type SerializeStructVariant = Members;

    fn serialize_unit_struct(self, name: &'static str) -> Result<Parts, Error> {
        Ok((name, b"null".to_vec()))
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Parts, Error> {
        Ok((variant, b"null".to_vec()))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<Parts, Error> {
        Ok((name, serde_json::to_vec(value)?))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Parts, Error> {
        Ok((variant, serde_json::to_vec(value)?))
    }

    fn serialize_tuple_struct(self, name: &'static str, _: usize) -> Result<Members, Error> {
        Ok(Members::new(name, b'['))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Members, Error> {
        Ok(Members::new(variant, b'['))
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Members, Error> {
        Ok(Members::new(name, b'{'))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Members, Error> {
        Ok(Members::new(variant, b'{'))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<Parts, Error> {
        self.serialize_none()
    }

    refuse! {
        serialize_bool(bool) -> Parts;
        serialize_i8(i8) -> Parts;
        serialize_i16(i16) -> Parts;
        serialize_i32(i32) -> Parts;
        serialize_i64(i64) -> Parts;
        serialize_u8(u8) -> Parts;
        serialize_u16(u16) -> Parts;
        serialize_u32(u32) -> Parts;
        serialize_u64(u64) -> Parts;
        serialize_f32(f32) -> Parts;
        serialize_f64(f64) -> Parts;
        serialize_char(char) -> Parts;
        serialize_str(&str) -> Parts;
        serialize_bytes(&[u8]) -> Parts;
        serialize_none() -> Parts;
        serialize_unit() -> Parts;
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_map(Option<usize>) -> Self::SerializeMap;
    }
}

/// The payload of a kind that has several members, as it is written.
pub(super) struct Members {
    kind: &'static str,
    json: Vec<u8>,
    close: u8,
}

impl Members {
    fn new(kind: &'static str, open: u8) -> Self {
        Self { kind, json: vec![open], close: if open == b'{' { b'}' } else { b']' } }
    }

    fn add<T: Serialize + ?Sized>(&mut self, name: Option<&'static str>, value: &T) -> Result<(), Error> {
        if self.json.len() > 1 {
            self.json.push(b',');
        }
        if let Some(name) = name {
            serde_json::to_writer(&mut self.json, name)?;
            self.json.push(b':');
        }
        serde_json::to_writer(&mut self.json, value)
    }

    fn finish(mut self) -> Parts {
        self.json.push(self.close);
        (self.kind, self.json)
    }
}

macro_rules! members {
    ($($trait:ident: $method:ident($($name:ident)?);)*) => {$(
        impl ser::$trait for Members {
            type Ok = Parts;
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(
                &mut self,
                $($name: &'static str,)?
                value: &T,
            ) -> Result<(), Error> {
                self.add(None$(.or(Some($name)))?, value)
            }

            fn end(self) -> Result<Parts, Error> {
                Ok(self.finish())
            }
        }
    )*};
}
members! {
    SerializeStruct: serialize_field(name);
    SerializeStructVariant: serialize_field(name);
    SerializeTupleStruct: serialize_field();
    SerializeTupleVariant: serialize_field();
}
