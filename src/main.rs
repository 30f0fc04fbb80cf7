//! The `sturn` binary.

fn main() -> std::process::ExitCode {
    sturn::cli::main()
}
