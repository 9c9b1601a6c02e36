//! Machines of the field, faked as the files that a kernel would show of them, and what is planned for and checked on them.

mod fake;
mod golden;
mod hostile;
mod random;
mod rules;
