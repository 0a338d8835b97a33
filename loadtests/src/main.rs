//! Runs named scenarios against a homeserver and prints what they cost; compares two such reports.

mod client;
mod compare;
mod measure;
mod report;
mod scenarios;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::client::{Server, Target};
use crate::measure::Probe;
use crate::report::Report;
use crate::scenarios::{Context, Scenario, Sizes};

/// Load scenarios against any Matrix homeserver.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs scenarios against one server and prints a table.
    Run(Box<RunArguments>),
    /// Prints two JSON reports beside each other, with the ratios and the bars that the second one shall pass.
    Compare(CompareArguments),
}

#[derive(Debug, Args)]
struct RunArguments {
    /// The scenarios, in the order in which they run.
    #[arg(value_enum, required = true)]
    scenarios: Vec<Scenario>,
    /// The base URL of the server, such as https://localhost:8443.
    #[arg(long)]
    base: String,
    /// A file of PEM certificates to trust besides none: the development CA of the server.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// The secret for registration by `/_synapse/admin/v1/register`; without it registration must be open.
    #[arg(long, env = "GATEHOUSE_REGISTRATION_SECRET", hide_env_values = true)]
    shared_secret: Option<String>,
    /// Speaks HTTP/2 in the place of HTTP/1.1.
    #[arg(long)]
    http2: bool,
    /// A process whose tree of processes is counted, as NAME=PID. A process named here counts for its own name only.
    #[arg(long = "pid", value_name = "NAME=PID")]
    pids: Vec<Probe>,
    /// A shell command that prints the size of the database in bytes, for the scenario `storage`.
    #[arg(long)]
    size_command: Option<String>,
    /// A name for this server in tables.
    #[arg(long, default_value = "server")]
    label: String,
    /// Writes the report as JSON too. A report that is already there is extended.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Ends each measured part after this many seconds, however few operations were made.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    #[command(flatten)]
    sizes: Sizes,
}

#[derive(Debug, Args)]
struct CompareArguments {
    /// The report to compare with.
    baseline: PathBuf,
    /// The report that is judged.
    candidate: PathBuf,
    /// Names of processes whose CPU is shown apart and not part of the ratios.
    #[arg(long, default_value = "edge")]
    apart: Vec<String>,
    /// Exits with 1 when a bar is missed.
    #[arg(long)]
    strict: bool,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run(arguments) => run(*arguments),
        Command::Compare(arguments) => compare_files(&arguments),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("gatehouse-loadtests: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: RunArguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    // One thread: the client shares the machine with the servers that it measures.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let server = Server::new(Target {
        base: arguments.base.clone(),
        ca: arguments.ca.clone(),
        shared_secret: arguments.shared_secret.clone(),
        http2: arguments.http2,
    })?;
    let mut report = match &arguments.json {
        Some(file) if file.exists() => Report::read(file)?,
        _ => Report::new(&arguments.label),
    };
    let context = Context {
        server,
        probes: arguments.pids,
        limit: Duration::from_secs(arguments.seconds),
        size_command: arguments.size_command,
        sizes: arguments.sizes,
    };
    for scenario in arguments.scenarios {
        eprintln!("{scenario} …");
        let measurements = runtime.block_on(scenario.run(&context))?;
        for measurement in measurements {
            eprintln!("{}", measurement.line());
            report.put(measurement);
        }
        if let Some(file) = &arguments.json {
            report.write(file)?;
        }
    }
    print!("{}", report.table());
    Ok(ExitCode::SUCCESS)
}

fn compare_files(arguments: &CompareArguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let baseline = Report::read(&arguments.baseline)?;
    let candidate = Report::read(&arguments.candidate)?;
    let comparison = compare::compare(&baseline, &candidate, &arguments.apart);
    print!("{}", comparison.text);
    Ok(if arguments.strict && comparison.missed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
