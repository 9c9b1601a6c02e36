//! The fake prover as a program: it speaks the child protocol. Only tests start it.

fn main() -> std::process::ExitCode {
    damocles_tests::fake_prover::main(std::env::args_os())
}
