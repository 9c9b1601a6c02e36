//! The reference of the worker's file: every key with its unit, default and example.
//!
//! `docs/config-worker.md` is printed from this. Tests hold that no key is missing and that every example is taken.

mod keys;
mod processor_keys;

use std::fmt::Write as _;

use keys::SECTIONS;
use processor_keys::PROCESSORS;

/// All tables of the file, in the order of the reference.
pub fn sections() -> impl Iterator<Item = &'static Section> {
    SECTIONS.iter().chain(PROCESSORS)
}

/// A table of the file.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// How it is written, e.g. `[worker]`.
    pub header: &'static str,
    /// What it is for.
    pub says: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

/// A key of a table.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name, with dots where a table stands in the table; `<...>` is one that is free to choose.
    pub name: &'static str,
    /// What it takes, with the unit.
    pub takes: &'static str,
    /// What holds if it is absent.
    pub default: &'static str,
    /// A line of a file.
    pub example: &'static str,
    /// What it does.
    pub says: &'static str,
}

/// What a running worker takes over, for people.
const HOT: &str = "
## Changes while the worker runs

SIGHUP (`systemctl reload`, `kill -HUP PID`) and `damocles-worker reload -c FILE` let a running worker read its file again. \
The file is checked as at a start, with what its stores say, and is then taken over as a whole or not at all. These keys \
can change:

- all of `[sealing]` and of `sealing.*` in `[[sealing_thread]]`,
- `[processors.limitation.concurrent]`, `[processors.limitation.staggered]` and `[processors.ext_locks]`.

If any other key says something else than before, or anything in the file is wrong, nothing of it is taken over and all \
of these keys and mistakes are named; so is a sector size whose verifying keys were not compared with the manager's when \
the worker started. Such a change needs a restart. `reload` prints what changed and ends with 0, or prints why nothing did \
and ends with 2; `list` and `info` show what came of the last try, and the log has it too.

A sector that has begun is never touched. A thread goes by the new settings at its next decision: when it asks for a \
sector, repeats a step, or looks at a sector that waits. One that waits for work asks at once; any other wait becomes as \
long as the new settings say, counted from its beginning. Limits hold for what starts from then on.

## `config.toml` in a sealing store

A sealing store may hold a file `config.toml` with what its thread does otherwise, in the form of damocles-worker 0.13. It \
goes before `sealing.*` of the thread, and that before `[sealing]`, key by key:

```toml
[sealing]
allowed_miners = [10123]
max_retries = 3
```

It has the keys of `[sealing]`, and `plan`, which cannot change while the worker runs. It is read when the worker starts, \
whenever it changes (replace it in one step, with `mv`, if it is written by a program), and at SIGHUP. Without it the \
worker's file holds again. A mistake in it is an error at a start, and `config check` tells it. While the worker runs it \
leaves the thread as it was, keeps the worker's file from being taken over, and is shown by `list` and `info` until it is \
mended. A link to a file elsewhere is followed, but a change there is seen at SIGHUP only.
";

/// The whole reference as Markdown.
pub fn markdown() -> String {
    let mut text = String::from(
        "# The worker's configuration file\n\n\
         Printed by `damocles-worker config docs`; change `damocles-cli/src/config/reference/keys.rs` and print it anew.\n\n\
         The file is TOML and is read strictly: an unknown key, a wrong type or a key of an older program is an error \
         that names file, line and what to write instead. `damocles-worker config check FILE` tells everything that is \
         wrong with a file on this machine, on a recorded one (`--machine FILE`, made by `hwinfo --json`), or by itself \
         (`--machine none`); the daemon checks the same at its start. `damocles-worker config import FILE` makes a file \
         of one of damocles-worker 0.13 or venus-worker.\n\n\
         Times are texts such as `30s`, `5min` or `1h 30m`; sizes are texts such as `64GiB`, or numbers of bytes; CPUs \
         and memory nodes are lists as the kernel writes them, such as `0-7,16`.\n",
    );
    for section in sections() {
        let _ = write!(text, "\n## `{}`\n\n{}\n", section.header, section.says);
        for key in section.keys {
            let _ = write!(
                text,
                "\n### `{}`\n\n{}\n\n- Takes: {}\n- Default: {}\n- Example: `{}`\n",
                key.name, key.says, key.takes, key.default, key.example
            );
        }
    }
    text.push_str(HOT);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Source, StoreFile, WorkerConfig};
    use std::collections::BTreeSet;

    /// A file with one line more in a section.
    fn file(section: &Section, line: &str) -> String {
        let header = section.header.replace("<stage>", "pc1");
        let base = match section.header {
            "[sector_manager]" if !line.starts_with("rpc_client.addr") => "rpc_client.addr = \"http://m\"\n",
            "[[sealing_thread]]" | "[[attached]]" if !line.starts_with("location") => "location = \"/mnt/x\"\n",
            _ => "",
        };
        // Locks of examples.
        let locks = "[processors.ext_locks]\ngpu0 = 1\n";
        let locks = if section.header == "[processors.ext_locks]" { "" } else { locks };
        let manager = "[sector_manager]\nrpc_client.addr = \"http://m\"\n";
        let manager = if section.header == "[sector_manager]" { "" } else { manager };
        let with = match line.split(' ').next() {
            Some("cgroup.exclusive") => "cgroup.cpuset = \"0\"\n",
            Some("control_listen") => "control_token_file = \"/t\"\n",
            Some("control_token_file") => "control_listen = \"127.0.0.1:1\"\n",
            _ => "",
        };
        format!("{manager}[[sealing_thread]]\nlocation = \"/mnt/a\"\n{locks}{header}\n{base}{with}{line}\n")
    }

    #[test]
    fn every_example_is_taken() {
        for section in sections() {
            for key in section.keys {
                let text = file(section, key.example);
                if let Err(error) = WorkerConfig::parse(&Source::of("w.toml", text.as_str())) {
                    panic!("{} {}: {error}\n{text}", section.header, key.name);
                }
            }
        }
    }

    #[test]
    fn the_example_of_a_store_is_taken() {
        let (_, example) = HOT.split_once("```toml\n").unwrap();
        let source = Source::of("config.toml", example.split_once("```").unwrap().0);
        let (read, found) = StoreFile::parse_all(&source);
        assert!(found.is_usable() && read.unwrap().sealing.max_retries == Some(3));
    }

    #[test]
    fn no_key_is_missing() {
        for section in sections() {
            // The table itself, and each table in it whose keys are not free to choose.
            let tables: BTreeSet<&str> = section
                .keys
                .iter()
                .filter(|key| !key.name.contains('<'))
                .map(|key| key.name.rsplit_once('.').map_or("", |(table, _)| table))
                .collect();
            for table in tables {
                let prefix = if table.is_empty() { String::new() } else { format!("{table}.") };
                let text = file(section, &format!("{prefix}zzzzzzzzzzzzzzzzzzzzzzzz = 1"));
                let error = WorkerConfig::parse(&Source::of("w.toml", text)).unwrap_err();
                let known = error.hint().unwrap().strip_prefix("known here: ").unwrap_or_else(|| panic!("{error}"));
                let documented: BTreeSet<&str> = section
                    .keys
                    .iter()
                    .filter_map(|key| key.name.strip_prefix(prefix.as_str()))
                    .map(|name| name.split('.').next().unwrap_or(name))
                    .collect();
                assert_eq!(documented, known.split(", ").collect(), "{} {table}", section.header);
            }
        }
    }

    #[test]
    fn the_page_is_up_to_date() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/config-worker.md");
        let there = std::fs::read_to_string(page).unwrap_or_default();
        assert!(there == markdown(), "write it anew: damocles-worker config docs >docs/config-worker.md");
    }
}
