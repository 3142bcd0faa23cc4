//! `shipwatch run`: the daemon.

mod feeds;
mod orders;
mod plan;
mod publisher;
mod trial;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::anyhow;
use log::{error, info, warn};
use shipwatch::daemon::clock_state::ClockState;
use shipwatch::daemon::config::{Config, SourceConfig};
use shipwatch::daemon::heat::Governor;
use shipwatch::daemon::output::{OutputError, Outputs};
use shipwatch::daemon::status::{Board, Counts, Disk, SourceStatus};
use shipwatch::daemon::{Daemon, Settings};
use shipwatch::ledger::{Ledger, LedgerError};
use shipwatch::sink::{AirbusCsv, Crops, Draw, Form, JsonLines, Overlay, PictureError, Pictures};
use shipwatch::source::Source;
use shipwatch::source::in_hand::{InHand, Marks, Verdict};

use crate::cli::RunArgs;
use crate::exit::{Exit, Failure, OrExit, explain};
use crate::runtime::Runtime;
use crate::service::{self, Service};
use feeds::Feeder;
use orders::Orders;
use plan::Plan;
use publisher::Publisher;
pub(crate) use trial::try_alone;

/// How long a full disk is given before it is tried again.
const FULL: Duration = Duration::from_secs(1);

const MEGABYTE: u64 = 1_000_000;

/// Runs the subcommand.
pub(crate) fn run(args: RunArgs) -> Result<Exit, Failure> {
    let config = Plan::config(&args)?;
    // Signals count from here on, so that a stop while the models load is not lost.
    let orders = Orders::default();
    let board = Arc::new(Board::default());
    listen(&args, &config, &orders, &board)?;

    let runtime = Runtime::open(config.runtime_folder.as_deref());
    let runtime = runtime.map_err(|error| warn!("there will be no status: {error}"));
    let runtime = runtime.ok();
    let station = Station {
        args: &args,
        orders: &orders,
        board,
        runtime: runtime.as_ref(),
        marks: Arc::new(marks(runtime.as_ref())),
        service: Service::new(),
    };
    let mut ledger = station.patiently(|| Ledger::open(&config.ledger_file()).map_err(unkept))?;
    let mut plan = Plan::of(config)?;
    // Until the plan after it has begun: models take memory.
    let mut before = None;
    let mut stdin = None;
    let mut total = Counts::default();
    let mut is_first = true;
    loop {
        let begun = || drop(before.take());
        match station.turn(&plan, &mut ledger, &mut stdin, is_first, begun) {
            Ok(counts) => total = [total, counts].into_iter().sum(),
            Err(Ended::Before(failure)) if before.is_some() => {
                refuse(&station.board, &failure);
                plan = before.take().expect("there is one");
                continue;
            }
            Err(Ended::Before(failure) | Ended::Within(failure)) => return Err(failure),
        }
        let Some(next) = orders.next() else { break };
        before = Some(std::mem::replace(&mut plan, next));
        is_first = false;
    }
    let Counts {
        frames,
        ships,
        broken,
        known,
        dropped,
    } = total;
    info!(
        "stopped after {frames} frames with {ships} ships; {broken} skipped, {known} done before, {dropped} dropped"
    );
    Ok(match args.once && broken > 0 {
        true => Exit::Data,
        false => Exit::Success,
    })
}

/// Why a turn of the loop came to nothing.
enum Ended {
    /// It could not be begun.
    Before(Failure),
    /// It broke off.
    Within(Failure),
}

/// What stays the same while configs change.
struct Station<'a> {
    args: &'a RunArgs,
    orders: &'a Orders,
    board: Arc<Board>,
    runtime: Option<&'a Runtime>,
    marks: Arc<Marks>,
    service: Service,
}

impl Station<'_> {
    /// Runs a plan until all its sources end, or an order comes; says when it has `begun`. What is begun of standard
    /// input cannot be begun again: it is left for the next plan.
    fn turn(
        &self,
        plan: &Plan,
        ledger: &mut Ledger,
        stdin: &mut Option<Box<dyn Source + Send>>,
        is_first: bool,
        begun: impl FnOnce(),
    ) -> Result<Counts, Ended> {
        let Plan { config, lookout } = plan;
        // Before the outputs, or those of a plan that comes to nothing would be all that the ledger knows of.
        let pictures = pictures(config).map_err(|error| Ended::Before(error.into()))?;
        let outputs = self
            .patiently(|| {
                let rotate = config.output.rotate_megabytes * MEGABYTE;
                Outputs::open(places(config), rotate, ledger).map_err(unwritten)
            })
            .map_err(Ended::Before)?;
        let in_hand = Arc::new(self.in_hand(config));
        // Once is enough, however often the config is read.
        let reprocess = self.args.reprocess && is_first;
        let feeder = Feeder {
            ledger,
            in_hand: Arc::clone(&in_hand),
            once: self.args.once,
            reprocess,
        };
        let feed = |source: &SourceConfig| {
            let begun = source.is_stdin().then(|| stdin.take()).flatten();
            feeder.feed(source, begun)
        };
        let feeds = config.source.iter().map(feed);
        let feeds = feeds.collect::<Result<_, _>>().map_err(Ended::Before)?;
        self.announce(plan, ledger.path());
        begun();

        let stop = self.orders.stop();
        let mut daemon = Daemon {
            look: &|source, frame| lookout.look(source, frame),
            ledger,
            outputs,
            pictures,
            settings: Settings {
                group: config.group(),
                reprocess,
                keep: config.keep(),
            },
            in_hand,
            governor: Governor::new("/sys".as_ref(), config.heat_limits()),
            clock: ClockState::new(),
            board: Arc::clone(&self.board),
            alive: &|counts| self.service.alive(counts),
        };
        self.service.ready();
        let publisher = self
            .runtime
            .map(|runtime| Publisher::start(Arc::clone(&self.board), runtime.folder()));
        let ran = daemon.run(feeds, &stop);
        drop(publisher);
        let (counts, mut left) = ran.or_exit(Exit::Io).map_err(Ended::Within)?;
        let reads_stdin = config.source.iter().position(SourceConfig::is_stdin);
        *stdin = reads_stdin.and_then(|nth| left[nth].take());
        Ok(counts)
    }

    /// Tells people what is done from now on.
    fn announce(&self, Plan { config, lookout }: &Plan, ledger: &Path) {
        let reserve = config.keep().reserve;
        self.board.update(|status| {
            status.models = Some(lookout.detector().model());
            status.sources = config.source.iter().map(status_of).collect();
            let places = places(config).map(|(path, _)| path);
            let places = places.chain([ledger.to_owned()]);
            let disk = |path| Disk {
                path,
                available: 0,
                reserve,
            };
            status.disks = places.map(disk).collect();
        });
        let watched: Vec<_> = config.source.iter().map(place).collect();
        info!(
            "watching {}, detections go to {}",
            watched.join(", "),
            config.output.detections().display()
        );
    }

    fn in_hand(&self, config: &Config) -> InHand {
        let (config, orders) = (config.clone(), self.orders.clone());
        let trial = move |name: &str, path: &Path| {
            let source = config.source.iter().find(|source| source.name == name);
            source.map_or(Verdict::Unknown, |source| {
                trial::run(&config, source, &orders, path)
            })
        };
        InHand::new(Arc::clone(&self.marks), Box::new(trial))
    }

    /// Tries again what fails only because a disk is full.
    fn patiently<T>(&self, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
        let mut warned = false;
        loop {
            match attempt() {
                Err(failure) if failure.may_pass() && !self.orders.is_ending() => {
                    if !warned {
                        warn!("{}; waiting", explain(failure.error()));
                        warned = true;
                    }
                    // Or systemd would end what only waits.
                    self.service.ready();
                    self.service.alive(&Counts::default());
                    sleep(FULL);
                }
                outcome => return outcome,
            }
        }
    }
}

/// Files that were in hand at unclean ends are suspected where there is a folder that tells.
fn marks(runtime: Option<&Runtime>) -> Marks {
    let Some(runtime) = runtime else {
        return Marks::default();
    };
    let folder = runtime.folder().join("in-hand");
    Marks::open(&folder).unwrap_or_else(|error| {
        warn!("{}: {error}; no file is suspected", folder.display());
        Marks::default()
    })
}

/// Has signals heard: those that end the program, and the one that has the config read again. A config that is no
/// good, or whose models are not, changes nothing.
fn listen(
    args: &RunArgs,
    first: &Config,
    orders: &Orders,
    board: &Arc<Board>,
) -> Result<(), Failure> {
    let (args, first, board) = (args.clone(), first.clone(), Arc::clone(board));
    let reloading = orders.clone();
    let reload = move || {
        info!("reading the config again");
        service::reloading();
        let plan = Plan::config(&args).and_then(|config| {
            let needs = |what| {
                Err(Failure::new(
                    Exit::Config,
                    anyhow!("{what} needs a restart"),
                ))
            };
            if config.ledger_file() != first.ledger_file() {
                return needs("another ledger");
            }
            if config.runtime_folder != first.runtime_folder {
                return needs("another `runtime-folder`");
            }
            Plan::of(config)
        });
        let tested = plan.and_then(|plan| plan.test().or_exit(Exit::Config).map(|()| plan));
        match tested {
            Ok(plan) => {
                board.update(|status| {
                    status.reloads += 1;
                    status.refused = None;
                });
                reloading.reload(plan);
            }
            Err(failure) => {
                refuse(&board, &failure);
                service::reloaded();
            }
        }
    };
    let ending = orders.clone();
    let end = move || {
        ending.end();
        service::stopping();
    };
    orders::listen(reload, end).or_exit(Exit::Software)
}

/// A new config or its models are no good.
fn refuse(board: &Board, failure: &Failure) {
    let error = explain(failure.error());
    error!("{error}; the old config stays");
    board.update(|status| status.refused = Some(error));
}

/// Where results go.
fn places(config: &Config) -> impl Iterator<Item = (PathBuf, Box<dyn Form>)> {
    let lines: Box<dyn Form> = Box::new(JsonLines);
    let detections = (config.output.detections().to_owned(), lines);
    let csv = config.output.csv().map(|path| {
        let rows: Box<dyn Form> = Box::new(AirbusCsv);
        (path.to_owned(), rows)
    });
    [detections].into_iter().chain(csv)
}

/// Pictures of what is found.
fn pictures(config: &Config) -> Result<Vec<Pictures>, PictureError> {
    let regions = config.source.iter().map(SourceConfig::regions).collect();
    let overlay: Box<dyn Draw> = Box::new(Overlay { regions });
    let overlay = config
        .output
        .overlay
        .as_ref()
        .map(|folder| (folder, overlay));
    let crops: Box<dyn Draw> = Box::new(Crops);
    let crops = config.output.crops.as_ref().map(|folder| (folder, crops));
    let most = config.retention.pictures_megabytes * MEGABYTE;
    let open = |(folder, draw): (&PathBuf, _)| Pictures::new(folder, draw)?.bounded(most);
    overlay.into_iter().chain(crops).map(open).collect()
}

fn place(source: &SourceConfig) -> String {
    if let Some(options) = source.stream_options() {
        return options.input.to_string();
    }
    let path = source.watched().or(source.camera.as_deref());
    path.unwrap_or("".as_ref()).display().to_string()
}

fn status_of(source: &SourceConfig) -> SourceStatus {
    SourceStatus {
        name: source.name.clone(),
        place: place(source),
        ..SourceStatus::default()
    }
}

fn unkept(error: LedgerError) -> Failure {
    let may_pass = error.may_pass();
    let exit = match error {
        LedgerError::Version { .. } => Exit::Config,
        _ => Exit::CannotCreate,
    };
    Failure::new(exit, error).passing(may_pass)
}

fn unwritten(error: OutputError) -> Failure {
    let may_pass = error.may_pass();
    match error {
        OutputError::Ledger(error) => unkept(error),
        error => Failure::new(Exit::CannotCreate, error).passing(may_pass),
    }
}
