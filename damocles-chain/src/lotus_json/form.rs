//! How a chain type is written in Lotus' JSON.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A type with a JSON form of Lotus' that differs from its serde form.
pub trait LotusJson: Sized {
    /// Writes the form.
    ///
    /// # Errors
    ///
    /// The serializer's own.
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;

    /// Reads the form.
    ///
    /// # Errors
    ///
    /// What is there is not of the form.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

/// A value in Lotus' JSON form: what `#[serde(with = "form")]` does for a field, for a value that stands alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lotus<T>(pub T);

impl<T: LotusJson> Serialize for Lotus<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.write(serializer)
    }
}

impl<'de, T: LotusJson> Deserialize<'de> for Lotus<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::read(deserializer).map(Self)
    }
}

struct Borrowed<'a, T>(&'a T);

impl<T: LotusJson> Serialize for Borrowed<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.write(serializer)
    }
}

impl<T: LotusJson> LotusJson for Option<T> {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Some(value) => value.write(serializer),
            None => serializer.serialize_none(),
        }
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<Lotus<T>>::deserialize(deserializer)?.map(|v| v.0))
    }
}

impl<T: LotusJson> LotusJson for Vec<T> {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Borrowed))
    }

    /// Go writes a nil slice as `null`.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = Option::<Vec<Lotus<T>>>::deserialize(deserializer)?.unwrap_or_default();
        Ok(items.into_iter().map(|v| v.0).collect())
    }
}

/// Writes a field.
///
/// # Errors
///
/// The serializer's own.
pub fn serialize<T: LotusJson, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    value.write(serializer)
}

/// Reads a field.
///
/// # Errors
///
/// What is there is not of the form.
pub fn deserialize<'de, T: LotusJson, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::read(deserializer)
}

/// Reads a field whose `null` means its default: Go's nil slices, and amounts that were never set.
///
/// # Errors
///
/// What is there is not of the form.
pub fn null_is_default<'de, T: LotusJson + Default, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::read(deserializer)?.unwrap_or_default())
}

/// [`null_is_default`] for types whose serde form is already Lotus'.
///
/// # Errors
///
/// What is there is not of the form.
pub fn plain_null_is_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a field that may be null and may not be missing.
///
/// # Errors
///
/// What is there is not of the form.
pub fn present<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::<T>::deserialize(deserializer)
}
