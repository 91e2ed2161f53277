//! A real browser without a screen, by the protocol that its own developer tools speak: JSON between zero bytes, in two
//! pipes.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The browser's program.
pub const CHROMIUM: &str = "chromium";
/// It reads commands from descriptor 3 and answers on 4. It ends when the pipes do; a limit in case it hangs.
const START: &str = "exec timeout 120 \"$0\" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-lcd-text \
                     --disable-background-networking --hide-scrollbars --remote-debugging-pipe \
                     --user-data-dir=\"$1\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";

/// A browser with one page.
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    number: u64,
    session: Option<String>,
    /// What the page complained of: errors of its script, and what its policy forbade.
    pub complaints: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    /// Starts it, with a page of this size.
    pub fn start(width: u32, height: u32) -> Self {
        let profile = tempfile::tempdir().expect("a directory");
        let mut child = Command::new("sh")
            .args(["-c", START, CHROMIUM])
            .arg(profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let commands = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut browser = Self {
            child,
            commands,
            answers,
            number: 0,
            session: None,
            complaints: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", &attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        browser.call("Runtime.enable", &json!({}));
        browser.call("Log.enable", &json!({}));
        browser.resize(width, height, false);
        browser
    }

    /// Gives the page another size, of a window or of a phone.
    pub fn resize(&mut self, width: u32, height: u32, is_phone: bool) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone});
        self.call("Emulation.setDeviceMetricsOverride", &size);
    }

    /// One command, and its result.
    pub fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.number += 1;
        let mut command = json!({"id": self.number, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            command["sessionId"] = session.as_str().into();
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).expect("the browser reads");
        loop {
            let answer = self.answer();
            if answer["id"] == self.number {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            if let Some("Runtime.exceptionThrown" | "Log.entryAdded") = answer["method"].as_str() {
                self.complaints.push(answer["params"].to_string());
            }
        }
    }

    fn answer(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.answers.read_until(0, &mut bytes).expect("the browser answers");
        let text = bytes.strip_suffix(&[0]).expect("the browser is alive");
        serde_json::from_slice(text).expect("JSON")
    }

    /// Loads a page.
    pub fn open(&mut self, url: &str) {
        let result = self.call("Page.navigate", &json!({"url": url}));
        assert!(result["errorText"].is_null(), "{url}: {result}");
    }

    /// The value of an expression in the page, once it is one that counts as true.
    pub fn once(&mut self, expression: &str) -> Value {
        let script = format!(
            "new Promise((done, fail) => {{ const start = Date.now(); const look = () => {{ \
             let value; try {{ value = ({expression}); }} catch (error) {{ value = null; }} \
             if (value) done(value); \
             else if (Date.now() - start > 60000) fail(new Error(document.body.innerText)); \
             else setTimeout(look, 20); }}; look(); }})"
        );
        self.evaluate(&script)
    }

    /// The value of an expression in the page, or what its promise brings.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let result = self.call("Runtime.evaluate", &parameters);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// What is to be seen, as PNG.
    pub fn picture(&mut self) -> Vec<u8> {
        let result = self.call("Page.captureScreenshot", &json!({"format": "png"}));
        STANDARD.decode(result["data"].as_str().expect("a picture")).expect("base64")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It answers by ending.
        let _ = self.commands.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let _ = self.child.wait();
    }
}
