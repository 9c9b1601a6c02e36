//! Pipeline, journal and sealing thread, over fake processors and a service in memory, with real files.

mod conformance;
mod crash;
mod damage;
mod fake_work;
mod journal;
mod thread;
mod world;
