use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};
use serde_json::de::{Deserializer as Json, SliceRead};

/// Puts a kind and its payload together again, as if they were one externally tagged value.
pub(super) struct KindAndPayload<'a> {
    pub(super) kind: &'a str,
    pub(super) payload: &'a [u8],
}

/// Why there is no event.
#[derive(Debug)]
pub(super) enum Failure {
    /// The type has no such kind.
    UnknownKind,
    /// What is inside is not as the type has it, or the type is neither enum nor struct.
    Payload(serde_json::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKind => f.write_str("unknown kind"),
            Self::Payload(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

impl de::Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Payload(de::Error::custom(message))
    }

    fn unknown_variant(_: &str, _: &'static [&'static str]) -> Self {
        Self::UnknownKind
    }
}

impl<'de> KindAndPayload<'de> {
    fn read<T>(
        &self,
        read: impl FnOnce(&mut Json<SliceRead<'de>>) -> Result<T, serde_json::Error>,
    ) -> Result<T, Failure> {
        let mut json = Json::from_slice(self.payload);
        let value = read(&mut json).map_err(Failure::Payload)?;
        json.end().map_err(Failure::Payload)?;
        Ok(value)
    }

    /// Refuses a kind that is not the struct's name.
    fn is(&self, name: &str) -> Result<(), Failure> {
        if self.kind == name { Ok(()) } else { Err(Failure::UnknownKind) }
    }
}

impl<'de> de::Deserializer<'de> for KindAndPayload<'de> {
    type Error = Failure;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        if self.kind.is_empty() {
            // Of a type that takes kinds it does not know for one of its own, too.
            return Err(Failure::UnknownKind);
        }
        visitor.visit_enum(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.is(name)?;
        self.read(|json| de::Deserializer::deserialize_struct(json, name, fields, visitor))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.is(name)?;
        self.read(|json| de::Deserializer::deserialize_newtype_struct(json, name, visitor))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.is(name)?;
        self.read(|json| de::Deserializer::deserialize_unit_struct(json, name, visitor))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.is(name)?;
        self.read(|json| de::Deserializer::deserialize_tuple_struct(json, name, len, visitor))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Failure> {
        Err(de::Error::custom("an event is an enum without `tag`, or a struct"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit seq
        tuple map identifier ignored_any
    }
}

impl<'de> de::EnumAccess<'de> for KindAndPayload<'de> {
    type Error = Failure;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Failure> {
        let variant = seed.deserialize(self.kind.into_deserializer())?;
        Ok((variant, self))
    }
}

impl<'de> de::VariantAccess<'de> for KindAndPayload<'de> {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        self.read(|json| de::Deserialize::deserialize(json).map(|_: de::IgnoredAny| ()))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Failure> {
        self.read(|json| seed.deserialize(json))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Failure> {
        self.read(|json| de::Deserializer::deserialize_tuple(json, len, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.read(|json| de::Deserializer::deserialize_struct(json, "", fields, visitor))
    }
}

/// Whether the type asks for an enum or a struct by its name, rather than for anything.
pub(super) fn knows_its_kinds<E: DeserializeOwned>() -> bool {
    // No kind is empty, so this fails before any payload is looked at.
    matches!(E::deserialize(KindAndPayload { kind: "", payload: b"" }), Err(Failure::UnknownKind))
}
