//! Child processes that never outlive this one.
//!
//! Dropping a [`Process`] ends it, also while unwinding. For the case that nothing is dropped
//! (this process is killed, or exits in the middle), a small shell waits on a pipe whose other
//! end only this process holds: when the pipe closes, the shell kills what is still registered.
//! Children get process groups of their own, so that Ctrl-C in a terminal reaches only the
//! program that started them, which can then end them in order.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::eventually::eventually;

/// What is shown of a log when a test fails.
const LOG_TAIL_BYTES: u64 = 8 << 10;

/// A running child, or one that has ended.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with its output appended to `log`.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("log file {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {name}: {}", command.get_program().display()))?;
        let process = Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
            ended: None,
        };
        tell_watchdog("add", process.id())?;
        Ok(process)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
            if self.ended.is_some() {
                // The number may be given to another process from now on.
                tell_watchdog("drop", self.id()).ok();
            }
        }
        self.ended
    }

    /// SIGKILL. Returns once the process is gone.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            // It fails only if the process has just ended by itself.
            self.child.kill().ok();
            self.ended = self.child.wait().ok();
            tell_watchdog("drop", self.id()).ok();
        }
    }

    /// Sends the signal named (`TERM`, `INT`), without waiting for what comes of it.
    pub fn signal(&mut self, name: &str) -> Result<()> {
        if self.ended().is_none() {
            signal(name, self.id())?;
        }
        Ok(())
    }

    /// SIGSTOP: it does nothing and knows nothing of it, as in a long pause of its machine.
    pub fn pause(&mut self) -> Result<()> {
        self.signal("STOP")
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> Result<()> {
        self.signal("CONT")
    }

    /// Waits for its end.
    pub async fn finished(&mut self, within: Duration) -> Result<ExitStatus> {
        let what = format!("exit of {}", self.name);
        eventually(&what, within, async || {
            self.ended().ok_or_else(|| "it still runs".to_owned())
        })
        .await
    }

    /// SIGTERM, and the status that the process exits with.
    pub async fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal("TERM")?;
        self.finished(within).await.context("after SIGTERM")
    }

    /// Waits until it has printed `text`. If it ends before, that is an error at once.
    pub async fn printed(&mut self, text: &str, within: Duration) -> Result<()> {
        let what = format!("{} printing {text:?}", self.name);
        let printed = eventually(&what, within, async || {
            // Asked first, for it may print and end.
            let ended = self.ended();
            match (self.log_tail(), ended) {
                (log, _) if log.contains(text) => Ok(Ok(())),
                (log, Some(status)) => Ok(Err(format!("it ended with {status}:\n{log}"))),
                (log, None) => Err(format!("it has printed:\n{log}")),
            }
        })
        .await?;
        printed.map_err(|reason| anyhow::anyhow!("{what}: {reason}"))
    }

    /// The end of what the process has printed.
    pub fn log_tail(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.log)?;
            let length = file.seek(SeekFrom::End(0))?;
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_else(|error| format!("{}: {error}", self.log.display()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let by_itself = self.ended();
        self.kill();
        if std::thread::panicking() {
            let state = match by_itself {
                Some(status) => format!("had ended with {status}"),
                None => "was running".to_owned(),
            };
            let tail = self.log_tail();
            #[expect(
                clippy::print_stderr,
                reason = "the log of a failed test is part of its failure"
            )]
            {
                eprintln!("---- {} {state}; end of its log:\n{tail}----", self.name);
            }
        }
    }
}

/// Sends a signal by the shell's own `kill`, for the standard library has SIGKILL alone.
fn signal(name: &str, process: u32) -> Result<()> {
    // A failure to send means that the process has just ended by itself, which the caller sees.
    Command::new("sh")
        .args(["-c", "kill -s \"$1\" \"$2\"", "sh", name])
        .arg(process.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("running sh")?;
    Ok(())
}

/// Whether a process of this number runs. One that has ended and only waits for its parent to
/// notice does not.
pub fn runs(process: u32) -> bool {
    if !Path::new("/proc/self/stat").exists() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "kill -0 \"$1\" 2>/dev/null", "sh"])
            .arg(process.to_string());
        return command.status().is_ok_and(|status| status.success());
    }
    // `pid (name) state …`; the name may hold anything.
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

const WATCHDOG: &str = r#"
trap '' INT TERM HUP QUIT PIPE
processes=
while read -r verb process; do
    case $verb in
    add) processes="$processes $process" ;;
    drop)
        kept=
        for other in $processes; do [ "$other" = "$process" ] || kept="$kept $other"; done
        processes=$kept ;;
    esac
done
for process in $processes; do kill -s KILL "$process" 2>/dev/null; done
"#;

fn tell_watchdog(verb: &str, process: u32) -> Result<()> {
    static PIPE: OnceLock<Mutex<Option<ChildStdin>>> = OnceLock::new();
    let pipe = PIPE.get_or_init(|| Mutex::new(start_watchdog().ok()));
    let mut pipe = pipe.lock().unwrap_or_else(PoisonError::into_inner);
    let pipe = pipe
        .as_mut()
        .context("the watchdog's shell did not start")?;
    writeln!(pipe, "{verb} {process}").context("writing to the watchdog")?;
    Ok(())
}

/// Never waited for: it ends when this process has ended.
fn start_watchdog() -> Result<ChildStdin> {
    let child = Command::new("sh")
        .args(["-c", WATCHDOG])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("starting sh")?;
    child.stdin.context("the watchdog has a pipe")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// `T` is stopped by a signal.
    fn state(process: u32) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        rest.chars().next()
    }

    #[tokio::test]
    async fn a_paused_process_stands_still_until_it_is_resumed_or_killed() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("60");
        let mut process = Process::spawn("sleep", command, &folder.path().join("log")).unwrap();
        let is = async |process: u32, wanted: bool| {
            eventually("the state", SOON, async || {
                let state = state(process);
                let stopped = state == Some('T');
                (stopped == wanted)
                    .then_some(())
                    .ok_or(format!("{state:?}"))
            })
            .await
            .unwrap();
        };
        process.pause().unwrap();
        is(process.id(), true).await;
        process.resume().unwrap();
        is(process.id(), false).await;
        process.pause().unwrap();
        is(process.id(), true).await;
        process.kill();
        assert!(process.ended().is_some());
    }
}
