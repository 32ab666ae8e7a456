//! The `netobs` command: reads the command line, runs what it names, reports what went wrong.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use netobs::{
    app,
    cli::{self, Cli, Command, GlobalArgs, environment::Environment, failure, run::RunArgs},
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
        Command::Run(args) => return run(args, globals),
        Command::Trace(args) => return args.run(globals, &probes::names()),
        Command::Audit(args) => return args.run(),
        Command::Check(args) => return args.run(globals, &probes::names()),
        Command::Diagnose(args) => return args.run(globals, &probes::names()),
        Command::Top(args) => return args.run(globals, &probes::names()),
        Command::Probe(args) => return args.run(globals),
        Command::Completions(args) => args.run()?,
        Command::Man(args) => args.run()?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `netobs run`, and the check that it makes of its configuration alone.
fn run(args: &RunArgs, globals: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let environment = Environment::read()?;
    let (args, globals) = (args.clone(), globals.clone());
    if args.config_check {
        let config = cli::run::configure(&args, &globals, &environment, &probes::names())?;
        app::check(&config)?;
        for stray in &environment.strays {
            writeln!(io::stderr(), "netobs: warning: {stray}")?;
        }
        match args.config_file(&environment) {
            Some(path) => writeln!(
                io::stdout(),
                "{}: the configuration is valid",
                path.display()
            )?,
            None => writeln!(io::stdout(), "the configuration is valid; it names no file")?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let file = args.config_file(&environment);
    let configure = {
        let environment = environment.clone();
        move || cli::run::configure(&args, &globals, &environment, &probes::names())
    };
    let config = configure()?;
    let reread = app::Reread {
        level: logging::init(config.log)?,
        config: Box::new(configure),
        file,
    };
    for stray in &environment.strays {
        tracing::warn!("{stray}");
    }
    app::run(&config, reread)?;
    Ok(ExitCode::SUCCESS)
}
