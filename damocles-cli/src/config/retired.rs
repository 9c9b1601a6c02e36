//! Keys of earlier forms of the worker's file, and what is written instead.

use super::Retired;

/// A key of a stage. What else stands in `[processors]` may have keys of that name: those of `ext_locks` are free.
macro_rules! of_stages {
    ($key:literal) => {
        concat!("processors.add_pieces|tree_d|pc1|pc2|c1|c2|transfer|wdpost_read|window_post.", $key)
    };
}

/// Keys of earlier forms of `[processors]`.
pub(super) const PROCESSORS: &[Retired] = &[
    Retired { path: "processors.limit", instead: "write [processors.limitation.concurrent]" },
    Retired { path: "processors.ext_stages", instead: "a slot serves every task of its [[processors.<stage>]]" },
    Retired { path: of_stages!("weight"), instead: "remove it: the least loaded slot is taken" },
    Retired { path: of_stages!("external"), instead: "each [[processors.<stage>]] entry is one child" },
    Retired { path: of_stages!("subs"), instead: "write one [[processors.<stage>]] entry for each child" },
    Retired { path: "processors.sealing_daemons", instead: "start such programs with the machine's service manager" },
    Retired { path: "processors.synth_proof", instead: "remove it: no plan of this version makes synthetic proofs" },
    Retired { path: "processors.snap_encode", instead: "remove it: no plan of this version makes snap sectors" },
    Retired { path: "processors.snap_prove", instead: "remove it: no plan of this version makes snap sectors" },
    Retired { path: "processors.unseal", instead: "remove it: no plan of this version unseals" },
];

/// Keys of the manager's file outside `[processors]`.
pub(super) const MANAGER: &[Retired] = &[Retired {
    path: "piece_stores",
    instead: "remove it: `damocles-manager piece add` queues a file, and the manager serves it from where it lies, below \
              one of `pieces.dirs`",
}];

/// Keys of the worker's file outside `[processors]`.
pub(super) const WORKER: &[Retired] = &[
    Retired {
        path: "worker.rpc_server",
        instead: "remove it: the control RPC is a Unix socket, `<run dir>/<worker name>.sock`, see `worker.run_dir`",
    },
    Retired { path: "worker.local_pieces_dir", instead: "write `local_pieces_dirs = [\"...\"]`" },
    Retired { path: "worker.ScanPersistStores", instead: "write `scan_persist_stores`" },
    Retired { path: "sector_manager.piece_token", instead: "write `token` or `token_file`" },
    Retired { path: "sector_manager.rpc_client.headers", instead: "write `sector_manager.token` or `token_file`" },
    Retired {
        path: "sealing.ignore_proof_check",
        instead: "remove it: a sector is done when its proof has landed and not before",
    },
    Retired { path: "sealing.request_task_max_retries", instead: "remove it: an idle thread waits for work" },
    Retired { path: "sealing.verify_after_pc2", instead: "remove it: every proof is verified before it is sent" },
    Retired {
        path: "sealing_thread.sealing.ignore_proof_check",
        instead: "remove it: a sector is done when its proof has landed and not before",
    },
    Retired {
        path: "sealing_thread.sealing.request_task_max_retries",
        instead: "remove it: an idle thread waits for work",
    },
    Retired {
        path: "sealing_thread.sealing.verify_after_pc2",
        instead: "remove it: every proof is verified before it is sent",
    },
    Retired { path: "remote_store", instead: "write [[attached]] with `name` and `location`" },
    Retired { path: "remote", instead: "write [[attached]] with `name` and `location`" },
    Retired { path: "attached_selection", instead: "remove it: the manager chooses the store" },
    Retired { path: "instance", instead: "write `worker.name`" },
    Retired { path: "worker_server", instead: "remove it: the control RPC is a Unix socket, see `worker.run_dir`" },
    Retired { path: "sealer_rpc", instead: "write [sector_manager] with `rpc_client.addr`" },
    Retired { path: "piece_store", instead: "pieces come from the manager: write [sector_manager] with `token`" },
    Retired { path: "store", instead: "write [[sealing_thread]] with `location`" },
    Retired { path: "limit", instead: "write [processors.limitation.concurrent]" },
    Retired { path: "static_tree_d", instead: "write [processors.static_tree_d]" },
];
