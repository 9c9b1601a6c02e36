//! Machines of the field, faked as the files that a kernel would show of them, and what is planned for and checked on them.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test, which is what a test is for")]

mod fake;
mod golden;
mod hostile;
mod random;
mod rules;
