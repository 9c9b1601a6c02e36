//! The keys, as the reference prints them.

use super::{Key, Section};

pub(super) const fn key(
    name: &'static str,
    takes: &'static str,
    default: &'static str,
    example: &'static str,
    says: &'static str,
) -> Key {
    Key { name, takes, default, example, says }
}

/// All tables of the file but those of `[processors]`.
pub(super) const SECTIONS: &[Section] = &[
    Section {
        header: "[worker]",
        says: "Who the worker is.",
        keys: &[
            key(
                "name",
                "a text of letters, digits, `-`, `_` and `.`, at most 64",
                "the machine's name",
                "name = \"worker-1\"",
                "The name that the manager shows and that the control socket has.",
            ),
            key(
                "ping_interval",
                "a time, not 0",
                "30s",
                "ping_interval = \"30s\"",
                "How often the worker tells the manager its name, address and the states of its threads. `damocles-manager worker list` shows them.",
            ),
            key(
                "local_pieces_dirs",
                "directories",
                "none",
                "local_pieces_dirs = [\"/mnt/pieces\"]",
                "Where deal pieces are looked for before the manager is asked for them, by the name of their CID.",
            ),
            key(
                "scan_persist_stores",
                "patterns of directories",
                "none",
                "scan_persist_stores = [\"/mnt/stores/*\"]",
                "Each match with a `sectorstore.json` is attached as a persist store.",
            ),
            key(
                "run_dir",
                "a directory",
                "`/run/damocles` for root, else `damocles` below `XDG_RUNTIME_DIR`",
                "run_dir = \"/run/damocles\"",
                "Where the control socket lies.",
            ),
            key(
                "control_listen",
                "an address and a port",
                "none",
                "control_listen = \"127.0.0.1:17890\"",
                "Where the control RPC is served over TCP beside the socket. Needs `control_token_file`.",
            ),
            key(
                "control_token_file",
                "a file",
                "none",
                "control_token_file = \"/etc/damocles/control-token\"",
                "Holds the token without which nothing is answered over TCP: at least 16 characters, in a file that only its owner can read.",
            ),
        ],
    },
    Section {
        header: "[metrics]",
        says: "Where metrics are served.",
        keys: &[
            key("enable", "true or false", "false", "enable = true", "Whether metrics are served."),
            key(
                "http_listen",
                "an address and a port",
                "127.0.0.1:17891",
                "http_listen = \"127.0.0.1:9000\"",
                "Where Prometheus finds them.",
            ),
        ],
    },
    Section {
        header: "[sector_manager]",
        says: "Where the manager is. Needed.",
        keys: &[
            key(
                "rpc_client.addr",
                "a URL or a multiaddr",
                "needed",
                "rpc_client.addr = \"/ip4/127.0.0.1/tcp/1789\"",
                "How the manager is reached: `http`, `https`, or `/ip4|ip6|dns/.../tcp/N[/http|https]`. The path is `/rpc/v0` where none is named.",
            ),
            key(
                "rpc_client.timeout",
                "a time, not 0",
                "60s",
                "rpc_client.timeout = \"60s\"",
                "How long one call to the manager may take. Calls that wait for something may take that much longer.",
            ),
            key(
                "token",
                "a text",
                "none",
                "token = \"TOKEN\"",
                "The token that is sent to the manager. It is never printed; a warning says that it stands in the file.",
            ),
            key(
                "token_file",
                "a file",
                "none",
                "token_file = \"/etc/damocles/token\"",
                "A file that holds the token, instead of `token`.",
            ),
            key(
                "token_env",
                "the name of a variable",
                "none",
                "token_env = \"DAMOCLES_TOKEN\"",
                "A variable of the daemon's environment that holds the token, instead of `token`.",
            ),
        ],
    },
    Section {
        header: "[sealing]",
        says: "What is sealed and how patiently, for all threads.",
        keys: &[
            key(
                "allowed_miners",
                "numbers of miners",
                "all",
                "allowed_miners = [10123]",
                "Only sectors of these miners.",
            ),
            key(
                "allowed_sizes",
                "sector sizes: 2KiB, 8MiB, 512MiB, 32GiB, 64GiB",
                "all",
                "allowed_sizes = [\"32GiB\"]",
                "Only sectors of these sizes. Memory is checked against what the largest of them needs.",
            ),
            key(
                "enable_deals",
                "true or false",
                "true",
                "enable_deals = true",
                "Whether pieces are asked for. Without, sectors are committed capacity. A piece that a sector was promised before goes into it all the same.",
            ),
            key(
                "disable_cc",
                "true or false",
                "false",
                "disable_cc = true",
                "Whether a sector that gets no pieces keeps its number and waits for some, instead of being sealed as committed capacity. It asks again when the manager has new pieces, or after `recover_interval`.",
            ),
            key(
                "max_deals",
                "a number of pieces, not 0",
                "as many as fit, at most 256",
                "max_deals = 3",
                "At most so many pieces a sector. The manager gives those that waited longest.",
            ),
            key(
                "min_deal_space",
                "a size",
                "none",
                "min_deal_space = \"8GiB\"",
                "At least so many bytes of pieces a sector, each with its padding. If those that wait and fit have less, the sector gets none.",
            ),
            key(
                "max_retries",
                "a number of repeats",
                "5",
                "max_retries = 5",
                "How often a step may fail for one cause before its sector is parked; each cause is counted for itself, and progress sets all counts back. This is for what may pass: a child that crashed, was killed for want of memory or hung, and errors of files and disks. A manager that is away and a full disk are waited for without limit. What cannot pass parks at once: a refusal by the manager, a lease that was lost, a journal that is damaged. A parked sector goes on by `auto_resume` if its cause may pass, else by `damocles-worker resume`.",
            ),
            key(
                "seal_interval",
                "a time",
                "30s",
                "seal_interval = \"30s\"",
                "The pause between two sectors of a thread.",
            ),
            key(
                "recover_interval",
                "a time, not 0",
                "60s",
                "recover_interval = \"60s\"",
                "The longest pause before a failed step is repeated: the first is 1 s, and each is twice the one before. Also the pause before the manager is asked again for work.",
            ),
            key(
                "rpc_polling_interval",
                "a time, not 0",
                "180s",
                "rpc_polling_interval = \"180s\"",
                "The longest time between two questions about the state of the chain; a manager of this version speaks up by itself.",
            ),
            key(
                "auto_resume",
                "a time; 0s is never",
                "1h",
                "auto_resume = \"1h\"",
                "After how long a parked sector goes on by itself if its error may pass. One whose state is proven wrong never does.",
            ),
        ],
    },
    Section {
        header: "[[sealing_thread]]",
        says: "One sector at a time, in one sealing store. A worker needs at least one.",
        keys: &[
            key(
                "location",
                "a directory",
                "needed",
                "location = \"/mnt/nvme1/store1\"",
                "The sealing store, made by `damocles-worker store sealing-init`.",
            ),
            key("plan", "`sealer`", "`sealer`", "plan = \"sealer\"", "What becomes of its sectors."),
            key(
                "disk",
                "the name of a disk, a device, a mount point, or a file-system identifier",
                "anywhere",
                "disk = \"nvme0n1\"",
                "Where the store must lie: a disk that is not mounted is an error, and its mount point is never filled.",
            ),
            key(
                "sealing.<key>",
                "as in `[sealing]`",
                "as in `[sealing]`",
                "sealing.max_retries = 10",
                "Goes before `[sealing]`, key by key.",
            ),
        ],
    },
    Section {
        header: "[[attached]]",
        says: "A store that finished sectors go to.",
        keys: &[
            key(
                "name",
                "a text",
                "the location",
                "name = \"persist-store1\"",
                "The name by which the manager knows it.",
            ),
            key(
                "location",
                "a directory",
                "needed",
                "location = \"/mnt/remote/store1\"",
                "The persist store, made by `damocles-worker store file-init`.",
            ),
            key("readonly", "true or false", "false", "readonly = true", "Whether no sector goes there."),
            key(
                "disk",
                "the name of a disk, a device, a mount point, or a file-system identifier",
                "anywhere",
                "disk = \"nas:/export\"",
                "Where the store must lie.",
            ),
            key(
                "bandwidth",
                "a size: the bytes of one second, at least 1MiB for each copy that runs at a time",
                "no limit of its own",
                "bandwidth = \"200MiB\"",
                "How much copies to this store take together. Each takes an equal share, whether the others run or not; `stores.bandwidth` holds too.",
            ),
        ],
    },
    Section {
        header: "[stores]",
        says: "How stores are used. How many copies to persist stores run at a time is said by `processors.limitation.concurrent.transfer` and the slots of `processors.transfer`.",
        keys: &[
            key(
                "bandwidth",
                "a size: the bytes of one second, at least 1MiB for each copy that runs at a time",
                "no limit",
                "bandwidth = \"1GiB\"",
                "How much all copies to persist stores take together. Each takes an equal share, whether the others run or not.",
            ),
            key(
                "low_mark",
                "percent of a file system, 0 to 100",
                "2",
                "low_mark = 3",
                "With less than this free and not promised, no new sector is begun on the file system of a sealing store. A sector is begun only if there is room for all that it will write, too.",
            ),
            key(
                "high_mark",
                "percent of a file system, at least `low_mark`",
                "4, or `low_mark` if that is more",
                "high_mark = 5",
                "From this on sectors are begun there again.",
            ),
            key(
                "stall_limit",
                "a time, not 0",
                "2min",
                "stall_limit = \"2min\"",
                "For how long a copy to a persist store may stand still before the store is looked at. One that does not answer then is left out for some minutes, and another is used.",
            ),
        ],
    },
];
