//! `damocles-manager` under a name of its own, so that cargo tells tests where it is.

fn main() -> std::process::ExitCode {
    damocles_cli::manager::main(std::env::args_os())
}
