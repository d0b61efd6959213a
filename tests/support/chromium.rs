//! A real Chromium without a screen.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// What a page looks like in a frame of some width.
#[derive(Debug)]
pub struct Look {
    /// The width that can be seen, and that of the content, which is larger if it has to be scrolled sideways.
    pub width: u32,
    pub content_width: u32,
    /// The colors of the background and of the text, each channel from 0 to 255.
    pub background: Vec<u32>,
    pub text: Vec<u32>,
    /// The widths and heights of the elements of this selector.
    pub elements: Vec<(u32, u32)>,
}

/// Loads an address. Gives the document after its scripts, and what the browser complains about.
pub fn load(url: &str) -> (String, String) {
    let folder = profile();
    let output = command(&folder, false).args(["--enable-logging=stderr", "--dump-dom", url]).output();
    let output = output.unwrap_or_else(|error| missing(&error));
    let _ = fs::remove_dir_all(folder);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Lays a page out in a frame of this width, for a reader who prefers dark or light.
pub fn look(html: &str, width: u32, is_dark: bool, selector: &str) -> Look {
    let folder = profile();
    fs::create_dir_all(&folder).unwrap();
    let page = serde_json::to_string(html).unwrap().replace("</", "<\\/");
    // No refresh within the frame.
    let page = page.replace("http-equiv", "data-off");
    let measured = format!(
        "<!doctype html><meta name=\"color-scheme\" content=\"light dark\">\
         <iframe style=\"width:{width}px;height:800px;border:0\"></iframe><pre></pre><script>\
         const frame = document.querySelector('iframe'); frame.srcdoc = {page}; frame.onload = () => {{\
         const inner = frame.contentDocument, root = inner.documentElement;\
         const probe = inner.createElement('span'); inner.body.append(probe);\
         const color = (name) => {{ probe.style.color = name; return getComputedStyle(probe).color.match(/[0-9]+/g) }};\
         const boxes = [...inner.querySelectorAll('{selector}')].map(each => each.getBoundingClientRect());\
         document.querySelector('pre').textContent = 'LOOK' + JSON.stringify({{width: root.clientWidth,\
         content: root.scrollWidth, background: color('Canvas'), text: color('CanvasText'),\
         boxes: boxes.map(box => [Math.round(box.width), Math.round(box.height)])}}) + 'END' }}</script>"
    );
    let file = folder.join("page.html");
    fs::write(&file, measured).unwrap();
    let url = format!("file://{}", file.display());
    let output = command(&folder, is_dark).args(["--dump-dom", &url]).output().unwrap_or_else(|error| missing(&error));
    let _ = fs::remove_dir_all(&folder);
    let document = String::from_utf8_lossy(&output.stdout).into_owned();
    let json = document.split_once(">LOOK").and_then(|(_, rest)| rest.split_once("END")).map(|(json, _)| json);
    let json = json.unwrap_or_else(|| panic!("no measure in {document}: {output:?}"));
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    let number = |value: &serde_json::Value| u32::try_from(value.as_u64().unwrap()).unwrap();
    let color = |name: &str| {
        json[name].as_array().unwrap().iter().map(|each| each.as_str().unwrap().parse().unwrap()).collect()
    };
    Look {
        width: number(&json["width"]),
        content_width: number(&json["content"]),
        background: color("background"),
        text: color("text"),
        elements: json["boxes"].as_array().unwrap().iter().map(|each| (number(&each[0]), number(&each[1]))).collect(),
    }
}

fn command(folder: &Path, is_dark: bool) -> Command {
    let mut command = Command::new("chromium");
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
    command.arg(format!("--user-data-dir={}", folder.join("profile").display()));
    command.arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!is_dark)));
    command.args(["--virtual-time-budget=2000", "--window-size=1400,900"]);
    command
}

fn profile() -> PathBuf {
    std::env::temp_dir().join(format!("walrelay-chromium-{}-{:?}", std::process::id(), std::thread::current().id()))
}

fn missing(error: &std::io::Error) -> ! {
    panic!("run chromium: {error}; scripts/setup test installs it: sudo apt-get install chromium")
}
