//! `netobs top` on a real terminal: tmux's.

use std::{
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use testbed::{Counters, Listener, NetNs, require, scenario, wait_until};

use crate::support::{PATIENCE, agent::binary};

mod host_only {
    use super::*;

    /// A tmux server of its own, with one window; gone when this is dropped.
    struct Window {
        socket: String,
    }

    impl Window {
        /// Runs a shell command in a window of this size.
        fn open(width: u16, height: u16, command: &str) -> Self {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let window = Self {
                socket: format!("netobs-test-{}-{number}", std::process::id()),
            };
            let size = [width.to_string(), height.to_string()];
            window.ask(&[
                "-f",
                "/dev/null",
                "new-session",
                "-d",
                "-x",
                &size[0],
                "-y",
                &size[1],
                command,
            ]);
            window
        }

        fn tmux(&self, args: &[&str]) -> Output {
            let mut tmux = Command::new("tmux");
            tmux.args(["-L", &self.socket, "-u"]).args(args);
            tmux.env("LANG", "C.UTF-8").env_remove("NO_COLOR");
            tmux.output().unwrap()
        }

        fn ask(&self, args: &[&str]) -> String {
            let output = self.tmux(args);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{args:?}: {said}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        }

        /// What is on the screen.
        fn screen(&self) -> String {
            self.ask(&["capture-pane", "-p"])
        }

        fn press(&self, keys: &[&str]) {
            let mut all = vec!["send-keys"];
            all.extend(keys);
            self.ask(&all);
        }

        /// Waits until the screen is as wanted.
        fn shows(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
            let seen = wait_until(PATIENCE, what, || Ok(wanted(&self.screen())));
            if let Err(error) = seen {
                panic!("{error}:\n{}", self.screen());
            }
            self.screen()
        }

        /// The mode of the terminal, and whether the screen that a view takes is in use.
        fn state(&self) -> (String, String) {
            let about = self.ask(&[
                "display",
                "-p",
                "#{pane_tty} #{alternate_on} #{cursor_flag}",
            ]);
            let (tty, flags) = about.trim().split_once(' ').unwrap();
            let mode = Command::new("stty")
                .args(["-F", tty, "-g"])
                .output()
                .unwrap();
            let mode = String::from_utf8_lossy(&mode.stdout).trim().to_owned();
            (mode, flags.to_owned())
        }
    }

    impl Drop for Window {
        fn drop(&mut self) {
            self.tmux(&["kill-server"]);
        }
    }

    /// The command as a shell takes it; the binary says how it ended, and the shell stays.
    fn shell(ns: &NetNs) -> String {
        let command = binary(&["top"]);
        let path = command.get_program().to_string_lossy().into_owned();
        let netns = ns.inode();
        format!(
            "sh -c 'echo before; {path} top --filter netns:{netns}; echo ended with $?; exec cat'"
        )
    }

    /// The view's process: the child of the shell that runs in the window.
    fn view(window: &Window) -> i32 {
        let shell = window.ask(&["display", "-p", "#{pane_pid}"]);
        let shell = shell.trim();
        let children = format!("/proc/{shell}/task/{shell}/children");
        let children = std::fs::read_to_string(children).unwrap();
        children.split_whitespace().next().unwrap().parse().unwrap()
    }

    #[test]
    fn a_listener_with_its_drops_is_on_the_screen() {
        require!(require::root(), require::command("tmux"));
        let ns = NetNs::new("top").unwrap();
        let builder = Listener::builder("127.0.0.1:0".parse().unwrap()).backlog(4);
        let listener = builder.open(&ns).unwrap();
        let window = Window::open(120, 30, &shell(&ns));
        let before = window.shows("the first reading", |screen| {
            screen.contains("watching ") && screen.contains("1/1")
        });
        assert!(!before.contains("before"), "{before}");
        listener.fill().unwrap();
        scenario::overflow_syns(&listener, 37).unwrap();
        let dropped = Counters::read_in(&ns).unwrap().get("TcpExt", "ListenDrops");
        assert_eq!(dropped, 37);

        let port = listener.port().to_string();
        let screen = window.shows("the listener with its drops", |screen| {
            let row = |line: &&str| line.trim_start().starts_with(&port);
            screen.lines().find(row).is_some_and(|row| {
                let words: Vec<&str> = row.split_whitespace().collect();
                words.contains(&"37") && words.contains(&"5") && words.contains(&"4")
            })
        });
        println!("{screen}");
        // What is to be done about it.
        window.press(&["5"]);
        window.shows("the finding", |screen| {
            screen.contains("[5 Findings") && screen.contains("critical")
        });
        window.press(&["Enter"]);
        let detail = window.shows("the evidence", |screen| screen.contains("evidence"));
        println!("{detail}");
        window.press(&["Escape", "1", "Enter"]);
        window.shows("the listener", |screen| {
            screen.contains("syn accept_queue_full: 37")
        });
        window.press(&["q", "?"]);
        window.shows("the help", |screen| {
            screen.contains("sort the other way round")
        });
        // A window of another size is filled anew.
        window.ask(&["resize-window", "-x", "60", "-y", "12"]);
        window.press(&["q"]);
        window.shows("a smaller frame", |screen| {
            screen.contains("q quit") && !screen.contains("OVERFLOWS")
        });
        window.press(&["q"]);
        let after = window.shows("the end", |screen| screen.contains("ended with 0"));
        assert!(after.starts_with("before\n"), "{after}");
        let (mode, flags) = window.state();
        assert_eq!(flags, "0 1", "{after}");
        assert_eq!(mode, sane(), "{after}");
    }

    /// The mode of a terminal that nobody has changed.
    fn sane() -> String {
        // What runs in the window comes after tmux has set the terminal's mode.
        let window = Window::open(80, 24, "sh -c 'echo ready; exec cat'");
        window.shows("the shell", |screen| screen.contains("ready"));
        window.state().0
    }

    fn end(window: &Window, how: &str) {
        let kill = |signal: &str| {
            let pid = view(window).to_string();
            let killed = Command::new("kill").args([signal, &pid]).status().unwrap();
            assert!(killed.success());
        };
        match how {
            "SIGTERM" => kill("-TERM"),
            "SIGHUP" => kill("-HUP"),
            "Ctrl-C" => window.press(&["C-c"]),
            // A terminal that takes nothing more; the view is stuck in a frame.
            _ => {
                window.press(&["C-s"]);
                kill("-TERM");
                window.press(&["C-q"]);
            }
        }
    }

    #[test]
    fn whatever_ends_it_the_terminal_is_as_before() {
        require!(require::root(), require::command("tmux"));
        let ns = NetNs::new("topend").unwrap();
        let sane = sane();
        for what in [
            "SIGTERM",
            "SIGHUP",
            "Ctrl-C",
            "SIGTERM while stopped by Ctrl-S",
        ] {
            let window = Window::open(100, 24, &shell(&ns));
            window.shows("the first reading", |screen| screen.contains("watching "));
            assert_ne!(window.state(), (sane.clone(), "0 1".to_owned()), "{what}");
            end(&window, what);
            window.shows(what, |screen| screen.contains("ended with 0"));
            assert_eq!(window.state(), (sane.clone(), "0 1".to_owned()), "{what}");
        }
        // A window that is closed takes the view with it.
        let window = Window::open(100, 24, &shell(&ns));
        window.shows("the first reading", |screen| screen.contains("watching "));
        let process = format!("/proc/{}", view(&window));
        drop(window);
        let gone = wait_until(PATIENCE, "the view's end", || {
            Ok(!std::path::Path::new(&process).exists())
        });
        gone.unwrap();
    }

    #[test]
    fn a_suspended_view_gives_the_terminal_back_and_takes_it_again() {
        require!(require::root(), require::command("tmux"));
        let ns = NetNs::new("topstop").unwrap();
        let window = Window::open(100, 24, "bash --norc -i");
        let path = binary(&[]).get_program().to_string_lossy().into_owned();
        let command = format!("{path} top --filter netns:{}", ns.inode());
        window.press(&[&command, "Enter"]);
        window.shows("the first reading", |screen| screen.contains("watching "));
        window.press(&["C-z"]);
        window.shows("the shell", |screen| screen.contains("Stopped"));
        assert_eq!(window.state().1, "0 1");
        window.press(&["fg", "Enter"]);
        window.shows("the view again", |screen| screen.contains("watching "));
        window.press(&["q"]);
        // What is typed before that is for the view.
        window.shows("the shell's prompt", |screen| {
            !screen.contains("watching ") && screen.trim_end().ends_with('#')
        });
        window.press(&["echo $?-ended", "Enter"]);
        window.shows("the end", |screen| screen.contains("\n0-ended"));
    }
}
