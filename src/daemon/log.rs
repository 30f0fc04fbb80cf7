//! Log output: text for people or JSON lines, on standard error.
//!
//! A worker must never wait for whoever reads the log. Lines go through a
//! bounded queue to a thread of their own; when the queue is full, lines are
//! dropped and counted.

use std::fmt;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{self, Compact, DefaultFields, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{Log, LogFormat};

/// Lines that may wait for the log's reader.
const QUEUED_LINES: usize = 8192;

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.level` is no filter; cannot happen for a valid [`Log`].
    #[error("log.level: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Something in this process logs already.
    #[error("logging is set up already")]
    Twice(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Keeps the log's thread. Dropping it writes what is queued, waiting for a
/// stuck reader at most about a second.
#[must_use = "the log ends when this is dropped"]
#[derive(Debug)]
pub struct LogGuard {
    dropped: ErrorCounter,
    _thread: WorkerGuard,
}

impl LogGuard {
    /// Lines that were dropped because the queue was full.
    pub fn dropped_lines(&self) -> usize {
        self.dropped.dropped_lines()
    }
}

/// Starts logging to standard error for the whole process.
///
/// # Errors
/// When `log.level` is no filter or logging was started before.
pub fn start(log: &Log) -> Result<LogGuard, LogError> {
    let (writer, thread) = queue(io::stderr(), QUEUED_LINES);
    let dropped = writer.error_counter();
    let subscriber = subscriber(log, Style::of_stderr(), writer)?;
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(LogGuard { dropped, _thread: thread })
}

/// The queue and its thread; a full queue drops lines.
fn queue(out: impl io::Write + Send + 'static, lines: usize) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(lines)
        .thread_name("log")
        .finish(out)
}

/// How text lines look, by who reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// A person at a terminal: time and colours.
    Terminal,
    /// A file or pipe: time, no colours.
    Plain,
    /// The journal, which has its own time: priority prefixes, see sd-daemon(3).
    Journal,
}

impl Style {
    fn of_stderr() -> Self {
        if stderr_is_journal() {
            return Self::Journal;
        }
        let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        if colours { Self::Terminal } else { Self::Plain }
    }
}

/// systemd names device and inode of the journal's socket in `JOURNAL_STREAM`;
/// after a redirection they are not those of standard error.
fn stderr_is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = io::stderr().as_fd().try_clone_to_owned() else { return false };
    std::fs::File::from(stderr)
        .metadata()
        .is_ok_and(|file| named == format!("{}:{}", file.dev(), file.ino()))
}

fn subscriber<W>(
    log: &Log,
    style: Style,
    writer: W,
) -> Result<impl Subscriber + Send + Sync + 'static, LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder().parse(&log.level)?;
    // Which module a line is from helps who reads debug output, and nobody else.
    let with_module = filter.max_level_hint().is_none_or(|max| max >= LevelFilter::DEBUG);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match log.format {
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
        LogFormat::Text => {
            let ansi = style == Style::Terminal;
            lines.with_ansi(ansi).event_format(Text::new(style, with_module)).boxed()
        }
    };
    Ok(Registry::default().with(lines.with_filter(filter)))
}

/// Compact lines: time, level, message, fields.
enum Text {
    Timed(Format<Compact>),
    Journal(Format<Compact, ()>),
}

impl Text {
    fn new(style: Style, with_module: bool) -> Self {
        let format = format::format().with_target(with_module).compact();
        match style {
            Style::Journal => Self::Journal(format.without_time()),
            Style::Terminal | Style::Plain => Self::Timed(format),
        }
    }
}

impl<S> FormatEvent<S, DefaultFields> for Text
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    DefaultFields: for<'w> FormatFields<'w>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, DefaultFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self {
            Self::Timed(format) => format.format_event(context, writer, event),
            Self::Journal(format) => {
                write!(writer, "<{}>", priority(*event.metadata().level()))?;
                format.format_event(context, writer, event)
            }
        }
    }
}

/// The syslog priority of a level.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::mpsc;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tracing::{debug, error, info};

    use super::*;

    /// A writer whose lines the test can read.
    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: &str, format: LogFormat, style: Style, log: impl FnOnce()) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let config = Log { level: level.into(), format };
        let subscriber = subscriber(&config, style, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(memory.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_text_line_is_time_level_message_and_fields() {
        let text = logged("info", LogFormat::Text, Style::Plain, || {
            info!(port = 3478, "listening");
            debug!("not shown");
        });
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(time.len() > 20 && time.ends_with('Z'), "{text}");
        assert_eq!(rest, " INFO listening port=3478\n");
    }

    #[test]
    fn a_debug_line_names_its_module() {
        let text = logged("debug", LogFormat::Text, Style::Plain, || debug!("here"));
        assert!(text.contains("DEBUG sturn::daemon::log::tests: here"), "{text}");
    }

    #[test]
    fn the_journal_gets_priorities_and_no_time() {
        let text = logged("info", LogFormat::Text, Style::Journal, || {
            error!("broken");
            info!("fine");
        });
        assert_eq!(text, "<3>ERROR broken\n<6> INFO fine\n");
    }

    #[test]
    fn only_a_terminal_gets_colours() {
        let coloured =
            |style| logged("info", LogFormat::Text, style, || info!("x")).contains('\x1b');
        assert!(coloured(Style::Terminal));
        assert!(!coloured(Style::Plain) && !coloured(Style::Journal));
    }

    #[test]
    fn a_json_line_is_one_flat_object() {
        let text =
            logged("info", LogFormat::Json, Style::Journal, || info!(user = "a\"b\n", "new"));
        assert_eq!(text.lines().count(), 1);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "new");
        assert_eq!(line["user"], "a\"b\n");
        assert!(line["timestamp"].is_string(), "{text}");
    }

    /// Runs [`logs_one_line`] in a process of its own, standard error in a file.
    fn line_of_a_process(journal_stream: impl FnOnce(&std::fs::Metadata) -> String) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "daemon::log::tests::logs_one_line", "--nocapture"])
            .env("JOURNAL_STREAM", journal_stream(&file.as_file().metadata().unwrap()))
            .stdout(std::process::Stdio::null())
            .stderr(file.reopen().unwrap())
            .status()
            .unwrap();
        assert!(status.success());
        std::fs::read_to_string(file.path()).unwrap()
    }

    /// Also the process that the next test starts.
    #[test]
    fn logs_one_line() {
        let guard = start(&Log::default()).unwrap();
        info!("hello");
        assert_eq!(guard.dropped_lines(), 0);
        assert!(matches!(start(&Log::default()), Err(LogError::Twice(_))));
    }

    #[test]
    fn the_journal_is_known_by_its_device_and_inode() {
        let journal = line_of_a_process(|file| format!("{}:{}", file.dev(), file.ino()));
        assert_eq!(journal, "<6> INFO hello\n");
        let redirected = line_of_a_process(|file| format!("{}:{}", file.dev(), file.ino() + 1));
        assert!(redirected.ends_with("Z  INFO hello\n"), "{redirected}");
    }

    /// A reader that takes nothing until it is released.
    struct Stuck(mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_reader_stops_nobody() {
        let (release, stuck) = mpsc::channel();
        let (writer, thread) = queue(Stuck(stuck), 16);
        let dropped = writer.error_counter();
        let (done, finished) = mpsc::channel();
        std::thread::spawn(move || {
            let config = Log { level: "info".into(), format: LogFormat::Text };
            let subscriber = subscriber(&config, Style::Plain, writer).unwrap();
            tracing::subscriber::with_default(subscriber, || {
                for n in 0..1000 {
                    info!(n, "line");
                }
            });
            done.send(()).unwrap();
        });
        finished.recv_timeout(Duration::from_secs(10)).expect("logging waited for its reader");
        // At most 16 wait, one is in the hands of the thread and one in its batch.
        assert!(dropped.dropped_lines() >= 1000 - 18, "{}", dropped.dropped_lines());
        drop(release);
        drop(thread);
    }
}
