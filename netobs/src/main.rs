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
            let check_config = args.check_config;
            let (args, globals) = (args.clone(), globals.clone());
            let configure = move || cli::run::configure(&args, &globals, &probes::names());
            let config = configure()?;
            if check_config {
                app::check(&config)?;
                writeln!(io::stdout(), "the configuration is valid")?;
                return Ok(ExitCode::SUCCESS);
            }
            let reread = app::Reread {
                level: logging::init(config.log)?,
                config: Box::new(configure),
            };
            app::run(&config, reread)?;
        }
        Command::Trace(args) => return args.run(globals, &probes::names()),
        Command::Audit(args) => return args.run(),
        Command::Check(args) => return args.run(globals, &probes::names()),
        Command::Completions(args) => args.run()?,
        Command::Man(args) => args.run()?,
    }
    Ok(ExitCode::SUCCESS)
}
