//! `holdline top`: the figures of a server on a screen that is drawn anew every second.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use hyper::Method;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Block, Paragraph};
use ratatui::{DefaultTerminal, Frame};
use serde_json::Value;

use super::client::{CallError, Client};
use super::stats::summary;
use super::{Remote, print};
use crate::cli::Outcome;
use crate::cli::progress::grouped;

/// The flags of `top`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    remote: Remote,
    /// How often the figures are asked for.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// End after so many screens; for ever, if it is not given.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

const EXAMPLES: &str = "\
q or Esc ends it. With --json, or where standard output is no terminal, each screen is printed below the last.

Examples:
    holdline top --control /run/holdline.sock
    holdline top --control /run/holdline.sock --json --count 10 | jq .rates.pushes_per_s";

/// Shows the figures until it is told to end.
pub fn run(arguments: &Arguments) -> Outcome {
    let client = arguments.remote.client()?;
    // A server that cannot be asked is no screen, but a sentence.
    let first = ask(&client)?;
    if arguments.remote.json || !std::io::stdout().is_terminal() {
        return printed(arguments, &client, first);
    }
    let mut terminal = ratatui::try_init()?;
    let outcome = on_screen(arguments, &client, first, &mut terminal);
    ratatui::restore();
    outcome
}

fn ask(client: &Client) -> Result<Value, CallError> {
    client.call(Method::GET, "/stats", Vec::new()).map(|answer| answer.body)
}

fn printed(arguments: &Arguments, client: &Client, mut stats: Value) -> Outcome {
    let mut count = 1;
    loop {
        let text = match arguments.remote.json {
            true => format!("{stats}\n"),
            false => summary(&stats).join("\n") + "\n\n",
        };
        if !print(&text) || arguments.count.is_some_and(|wanted| count >= wanted) {
            return Ok(ExitCode::SUCCESS);
        }
        sleep(Duration::from_secs(arguments.interval));
        stats = ask(client)?;
        count += 1;
    }
}

fn on_screen(arguments: &Arguments, client: &Client, mut stats: Value, terminal: &mut DefaultTerminal) -> Outcome {
    let (mut earlier, mut count) = (stats.clone(), 1);
    loop {
        terminal.draw(|frame| draw(frame, &stats, &earlier))?;
        if arguments.count.is_some_and(|wanted| count >= wanted) || is_told_to_end(arguments.interval)? {
            return Ok(ExitCode::SUCCESS);
        }
        earlier = stats;
        stats = ask(client)?;
        count += 1;
    }
}

/// Waits for the next screen; true where a key ends it.
fn is_told_to_end(interval_s: u64) -> std::io::Result<bool> {
    let until = Instant::now() + Duration::from_secs(interval_s);
    while event::poll(until.saturating_duration_since(Instant::now()))? {
        if let Event::Key(key) = event::read()? {
            let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            if is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn draw(frame: &mut Frame<'_>, stats: &Value, earlier: &Value) {
    let lines = summary(stats);
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_add(2);
    let [above, below] = Layout::vertical([Constraint::Length(height), Constraint::Min(0)]).areas(frame.area());
    let text: Vec<Line<'_>> = lines.into_iter().map(Line::from).collect();
    frame.render_widget(Paragraph::new(text).block(Block::bordered().title(" holdline top, q ends ")), above);
    let decided: Vec<Line<'_>> = decisions(stats, earlier)
        .into_iter()
        .map(|(rule, count)| Line::from(format!("{rule:<28} {:>12}", grouped(count))))
        .collect();
    let title =
        Line::styled(" what the stack decided since the last screen ", Style::new().add_modifier(Modifier::BOLD));
    frame.render_widget(Paragraph::new(Text::from(decided)).block(Block::bordered().title(title)), below);
}

/// Rules that have decided since, the most frequent first.
fn decisions(stats: &Value, earlier: &Value) -> Vec<(String, u64)> {
    let rules = stats["rules"].as_object().into_iter().flatten();
    let mut since: Vec<(String, u64)> = rules
        .map(|(rule, count)| {
            let before = earlier["rules"][rule].as_u64().unwrap_or_default();
            (rule.clone(), count.as_u64().unwrap_or_default().saturating_sub(before))
        })
        .filter(|(_, count)| *count > 0)
        .collect();
    since.sort_by(|left, right| right.1.cmp(&left.1).then(left.0.cmp(&right.0)));
    since
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_screen_has_the_figures_and_what_was_decided() {
        let earlier = json!({ "rules": { "PushQueued": 5, "AckAdvances": 9 } });
        let stats = json!({
            "connections": { "total": 1_234, "ESTABLISHED": 1_234 },
            "rules": { "PushQueued": 5_005, "AckAdvances": 9 },
        });
        let mut terminal = Terminal::new(TestBackend::new(100, 30)).expect("a screen in memory");
        terminal.draw(|frame| draw(frame, &stats, &earlier)).expect("a screen in memory");
        let screen = terminal.backend().to_string();
        assert!(screen.contains("1,234 ESTABLISHED") || screen.contains("1,234 (1234 ESTABLISHED)"), "{screen}");
        assert!(screen.contains("PushQueued") && screen.contains("5,000"), "{screen}");
        assert!(!screen.contains("AckAdvances"), "{screen}");
    }

    #[test]
    fn a_tiny_screen_is_drawn_as_far_as_it_goes() {
        let mut terminal = Terminal::new(TestBackend::new(3, 2)).expect("a screen in memory");
        terminal.draw(|frame| draw(frame, &json!({}), &json!({}))).expect("a screen in memory");
    }
}
