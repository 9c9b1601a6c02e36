//! Children where they should be, and nowhere else: against the kernel of this machine. The program is its own child.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed step is a failed test")]
#![expect(clippy::print_stdout, reason = "the runner prints")]

mod bound;
mod child;
mod ended;
mod granted;
#[path = "../pool/runner.rs"]
mod runner;
mod unified;
mod world;

use runner::cases;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("child") => child::main(),
        Some("parent") => ended::parent(&args[1..]),
        Some("owner") => ended::owner(&args[1..]),
        Some("user") => granted::user(&args[1..]),
        _ => runner::run(
            &cases![
                bound::two_slots_stay_on_their_cpus_also_after_a_restart,
                bound::affinity_alone_binds_as_well,
                bound::a_child_that_is_moved_is_killed_and_its_slot_goes_on,
                bound::a_proc_that_cannot_be_read_ends_no_job,
                bound::a_group_that_lost_a_cpu_gets_it_back,
                bound::memory_that_runs_out_is_told_from_a_crash,
                bound::a_memory_policy_binds_where_no_group_does,
                bound::what_nobody_can_give_is_an_error_with_its_remedy,
                bound::children_keep_no_capabilities_that_they_do_not_need,
                ended::a_frozen_group_is_killed_and_thawed,
                ended::version_two_kills_a_group_at_once,
                ended::a_frozen_group_of_version_two_is_ended,
                ended::without_groups_a_daemonised_grandchild_is_found,
                ended::killing_the_parent_ends_the_group_and_removes_it,
                ended::groups_of_a_dead_owner_are_cleaned_and_no_others,
                ended::a_leftover_that_does_not_die_holds_nobody_up,
                granted::an_ordinary_user_gets_what_was_set_up_for_it,
                unified::version_two_is_asked_for_what_a_slot_says,
                unified::memory_that_runs_out_is_said_of_whom,
                unified::what_version_two_gives_otherwise_is_an_error,
            ],
            &args,
        ),
    }
}
