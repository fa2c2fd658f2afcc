//! The program alone, for tests and trials on an ordinary host. The image has it in its one binary.

fn main() -> std::process::ExitCode {
    berth_network::main()
}
