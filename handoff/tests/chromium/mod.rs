//! Chromium over its debugging pipe: no port, no other program between.

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::{path::Path, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{Instant, sleep, timeout},
};

/// An answer that is not there by then does not come.
const PATIENCE: Duration = Duration::from_mins(1);
const NAMES: [&str; 5] =
    ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// A Chromium on this machine.
pub fn find() -> Option<String> {
    let path = std::env::var("PATH").ok()?;
    let mut all = NAMES.iter().flat_map(|name| path.split(':').map(move |dir| format!("{dir}/{name}")));
    all.find(|program| Path::new(program).is_file())
}

pub struct Browser {
    // ends it
    _process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    asked: u64,
    /// What it said of what went wrong.
    complaints: Vec<String>,
}

pub struct Tab<'b> {
    browser: &'b mut Browser,
    session: String,
}

impl Browser {
    pub fn start(program: &str) -> Result<Self> {
        // the pipe is expected at 3 and 4
        let shell = "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null";
        let mut command = Command::new("sh");
        command.args(["-c", shell, program, "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"]);
        command.args([
            "--no-first-run",
            "--disable-background-networking",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
        ]);
        command.args(["--lang=en", "about:blank"]);
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run a shell")?;
        let input = process.stdin.take().context("no pipe")?;
        let output = BufReader::new(process.stdout.take().context("no pipe")?);
        Ok(Self { _process: process, input, output, asked: 0, complaints: Vec::new() })
    }

    pub async fn open(&mut self, address: &str) -> Result<Tab<'_>> {
        let target = self.ask("Target.createTarget", json!({"url": "about:blank", "width": 1280, "height": 800}), None);
        let target = target.await?["targetId"].clone();
        let attached = self.ask("Target.attachToTarget", json!({"targetId": target, "flatten": true}), None).await?;
        let session = attached["sessionId"].as_str().context("no session")?.to_owned();
        let mut tab = Tab { browser: self, session };
        for domain in ["Page", "Runtime", "Log", "Accessibility"] {
            tab.ask(&format!("{domain}.enable"), json!({})).await?;
        }
        tab.size(1280, 800).await?;
        tab.prefers("light").await?;
        tab.ask("Page.navigate", json!({"url": address})).await?;
        tab.until("document.readyState === 'complete' && !document.querySelector('#updates')?.hidden").await?;
        Ok(tab)
    }

    async fn ask(&mut self, method: &str, params: Value, session: Option<&str>) -> Result<Value> {
        self.asked += 1;
        let id = self.asked;
        let mut request = json!({"id": id, "method": method, "params": params});
        if let Some(session) = session {
            request["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&request)?;
        bytes.push(0);
        self.input.write_all(&bytes).await.with_context(|| format!("{method}: the browser is gone"))?;
        loop {
            let message = timeout(PATIENCE, self.read()).await.with_context(|| format!("{method}: no answer"))??;
            if message["id"] == id {
                ensure!(message["error"].is_null(), "{method}: {}", message["error"]);
                return Ok(message["result"].clone());
            }
            self.hear(&message);
        }
    }

    async fn read(&mut self) -> Result<Value> {
        let mut bytes = Vec::new();
        self.output.read_until(0, &mut bytes).await?;
        if bytes.pop().is_none() {
            bail!("the browser has ended");
        }
        serde_json::from_slice(&bytes).context("no JSON")
    }

    fn hear(&mut self, event: &Value) {
        match event["method"].as_str() {
            // refused by the policy, not found, …
            Some("Log.entryAdded") => {
                let entry = &event["params"]["entry"];
                // nobody has an icon for this page
                if !entry["url"].as_str().unwrap_or_default().ends_with("/favicon.ico") {
                    self.complaints.push(format!("{}: {}", entry["url"], entry["text"]));
                }
            }
            Some("Runtime.exceptionThrown") => self.complaints.push(event["params"]["exceptionDetails"].to_string()),
            _ => {}
        }
    }
}

impl Tab<'_> {
    async fn ask(&mut self, method: &str, params: Value) -> Result<Value> {
        let session = self.session.clone();
        self.browser.ask(method, params, Some(&session)).await
    }

    /// The value of an expression.
    pub async fn eval(&mut self, expression: &str) -> Result<Value> {
        let params = json!({"expression": expression, "returnByValue": true});
        let answer = self.ask("Runtime.evaluate", params).await?;
        ensure!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until it is true.
    pub async fn until(&mut self, expression: &str) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while self.eval(&format!("!!({expression})")).await? != true {
            ensure!(Instant::now() < end, "never true: {expression}");
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    pub async fn press(&mut self, key: &str) -> Result<()> {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            _ => (9, ""),
        };
        let mut params =
            json!({"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
        self.ask("Input.dispatchKeyEvent", params.clone()).await?;
        params["type"] = json!("keyUp");
        self.ask("Input.dispatchKeyEvent", params).await.map(drop)
    }

    pub async fn size(&mut self, width: u32, height: u32) -> Result<()> {
        let params = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.ask("Emulation.setDeviceMetricsOverride", params).await.map(drop)
    }

    pub async fn prefers(&mut self, scheme: &str) -> Result<()> {
        let params = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.ask("Emulation.setEmulatedMedia", params).await.map(drop)
    }

    /// Role and name of everything that a screen reader is told of.
    pub async fn accessibility(&mut self) -> Result<Vec<(String, String)>> {
        let tree = self.ask("Accessibility.getFullAXTree", json!({})).await?;
        let text = |value: &Value| value["value"].as_str().unwrap_or_default().to_owned();
        let nodes = tree["nodes"].as_array().cloned().unwrap_or_default();
        let heard = nodes.iter().filter(|node| node["ignored"] != true);
        Ok(heard.map(|node| (text(&node["role"]), text(&node["name"]))).collect())
    }

    /// All of the page, as PNG.
    pub async fn screenshot(&mut self) -> Result<Vec<u8>> {
        let params = json!({"format": "png", "captureBeyondViewport": false});
        let picture = self.ask("Page.captureScreenshot", params).await?;
        STANDARD.decode(picture["data"].as_str().context("no picture")?).context("no picture")
    }

    pub fn complaints(&self) -> &[String] {
        &self.browser.complaints
    }
}
