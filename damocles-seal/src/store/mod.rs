//! Sealing stores and persist stores.
