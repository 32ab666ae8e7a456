//! The `netobs` command: reads the command line, runs what it names, reports what went wrong.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use netobs::{
    app,
    cli::{self, Cli, Command, failure},
    logging, probes,
};

fn main() -> ExitCode {
    match dispatch(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprint!("{}", failure::report(&error));
            failure::exit_code(&error)
        }
    }
}

fn dispatch(Cli { globals, command }: &Cli) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => {
            let config = cli::run::configure(args, globals, &probes::names())?;
            if args.check_config {
                writeln!(io::stdout(), "the configuration is valid")?;
                return Ok(ExitCode::SUCCESS);
            }
            logging::init(config.log)?;
            app::run(&config)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Audit(args) => args.run(),
        Command::Completions(args) => Ok(args.run().map(|()| ExitCode::SUCCESS)?),
        Command::Man(args) => args.run().map(|()| ExitCode::SUCCESS),
    }
}
